"""Keys that programs use and never see: the Python face of libstrongroom.so.

    with strongroom.Module() as module:
        with module.token("wallet").open(pin=...) as session:
            key = session.generate_key_pair("ed25519", label="node-1")
            signature = key.sign(b"message")
"""

from ._backup import inspect as inspect_backup
from ._ffi import Error
from ._keys import Key, ecdsa_der
from ._managed import ManagedKey, UnlockedKey
from ._module import Module, Token
from ._session import Session

__all__ = [
    "Error",
    "Key",
    "ManagedKey",
    "Module",
    "Session",
    "Token",
    "UnlockedKey",
    "ecdsa_der",
    "inspect_backup",
]
__version__ = "0.1.0"
