"""Keys: their types, signing and verifying, and the public half in the forms that other tools read."""

import base64
import contextlib
import ctypes
from ctypes import byref, c_ulong
from typing import NamedTuple

from . import _ffi


class KeyType(NamedTuple):
    """How a key pair is made and what it signs with (``None``: it does not sign)."""

    generate: int
    public: dict
    private: dict
    sign: int


def _pair(generate, size, sign, use=(_ffi.CKA_VERIFY, _ffi.CKA_SIGN)):
    public = dict(size) if use[0] is None else {**size, use[0]: True}
    private = {_ffi.CKA_PRIVATE: True, _ffi.CKA_SENSITIVE: True, _ffi.CKA_EXTRACTABLE: False, use[1]: True}
    return KeyType(generate, public, private, sign)


def _curve(oid, sign=_ffi.CKM_ECDSA_SHA256, generate=_ffi.CKM_EC_KEY_PAIR_GEN, **options):
    return _pair(generate, {_ffi.CKA_EC_PARAMS: bytes.fromhex(oid)}, sign, **options)


def _rsa(bits):
    size = {_ffi.CKA_MODULUS_BITS: bits, _ffi.CKA_PUBLIC_EXPONENT: b"\1\0\1"}
    return _pair(_ffi.CKM_RSA_PKCS_KEY_PAIR_GEN, size, _ffi.CKM_SHA256_RSA_PKCS)


#: The key pairs that can be made, by name.
KEY_TYPES = {
    "p256": _curve("06082a8648ce3d030107"),
    "p384": _curve("06052b81040022", _ffi.CKM_ECDSA_SHA384),
    "p521": _curve("06052b81040023", _ffi.CKM_ECDSA_SHA512),
    "secp256k1": _curve("06052b8104000a"),
    "ed25519": _curve("06032b6570", _ffi.CKM_EDDSA, _ffi.CKM_EC_EDWARDS_KEY_PAIR_GEN),
    "x25519": _curve("06032b656e", None, _ffi.CKM_EC_MONTGOMERY_KEY_PAIR_GEN, use=(None, _ffi.CKA_DERIVE)),
    "rsa2048": _rsa(2048),
    "rsa3072": _rsa(3072),
    "rsa4096": _rsa(4096),
}

#: Key types that have one name each: no curve, or one that is supported, however it is written (as an object identifier or by name).
_SINGLE_NAME = {
    _ffi.CKK_RSA: "rsa",
    _ffi.CKK_AES: "aes",
    _ffi.CKK_EC_EDWARDS: "ed25519",
    _ffi.CKK_EC_MONTGOMERY: "x25519",
}


class Key:
    """A key pair by its handles. The private half stays in the token; there is no call that gives it out."""

    def __init__(self, session, private, public):
        self._session = session
        self._library = session._library
        self._private = private
        self._public = public

    @property
    def label(self):
        """The label (CKA_LABEL)."""
        return (self._session.attribute(self._private, _ffi.CKA_LABEL) or b"").decode("utf-8", "replace")

    @property
    def id(self):
        """The id (CKA_ID), which both halves share."""
        return self._session.attribute(self._private, _ffi.CKA_ID) or b""

    @property
    def type(self):
        """The type by its name, such as ``secp256k1``."""
        kind = int.from_bytes(self._session.attribute(self._private, _ffi.CKA_KEY_TYPE), "little")
        if kind in _SINGLE_NAME:
            return _SINGLE_NAME[kind]
        params = self._session.attribute(self._private, _ffi.CKA_EC_PARAMS)
        names = (name for name, row in KEY_TYPES.items() if row.public.get(_ffi.CKA_EC_PARAMS) == params)
        return next(names, f"type 0x{kind:x}")

    def sign(self, data, mechanism=None, password=None):
        """Signs data. ECDSA (with the hash of the curve's size) gives r and s side by side; see :func:`ecdsa_der`.

        A key that asks for a login before each use takes it as ``password``.
        """
        self._library.C_SignInit(self._session.handle, self._mechanism(mechanism), self._private)
        if password is not None:
            self._log_in_for_one_use(password)
        room, length = ctypes.create_string_buffer(1024), c_ulong(1024)
        self._library.C_Sign(self._session.handle, bytes(data), len(data), room, byref(length))
        return room.raw[: length.value]

    def _log_in_for_one_use(self, password):
        """Gives the signature that was begun its password; without the right one it is over, and the session free for another."""
        try:
            with _ffi.Pin(password) as secret:
                self._library.C_Login(self._session.handle, _ffi.CKU_CONTEXT_SPECIFIC, secret.buffer, secret.length)
        except BaseException:
            with contextlib.suppress(_ffi.Error):
                self._library.C_SignInit(self._session.handle, None, 0)
            raise

    def verify(self, data, signature, mechanism=None):
        """Tells whether a signature is right."""
        if self._public is None:
            raise LookupError("the token has no public half of this key")
        self._library.C_VerifyInit(self._session.handle, self._mechanism(mechanism), self._public)
        try:
            self._library.C_Verify(self._session.handle, bytes(data), len(data), bytes(signature), len(signature))
        except _ffi.Error as error:
            if error.code in (_ffi.CKR_SIGNATURE_INVALID, _ffi.CKR_SIGNATURE_LEN_RANGE):
                return False
            raise
        return True

    def public_key_info(self):
        """Gives the public key as DER SubjectPublicKeyInfo (RFC 5280), which every other tool reads."""
        info = self._session.attribute(self._private, _ffi.CKA_PUBLIC_KEY_INFO)
        if not info:
            raise LookupError("the library does not tell the public key of this key")
        return info

    def public_key_pem(self):
        """Gives the public key as PEM text."""
        text = base64.b64encode(self.public_key_info()).decode()
        lines = [text[start : start + 64] for start in range(0, len(text), 64)]
        return "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", ""])

    def destroy(self):
        """Removes both halves from the token, for good."""
        for handle in (self._private, self._public):
            if handle is not None:
                self._library.C_DestroyObject(self._session.handle, handle)

    def _mechanism(self, mechanism):
        if mechanism is None:
            kind = KEY_TYPES.get("rsa2048" if self.type == "rsa" else self.type)
            mechanism = kind and kind.sign
        if mechanism is None:
            raise ValueError(f"a key of type {self.type} does not sign")
        return byref(_ffi.Mechanism(mechanism))

    def __repr__(self):
        return f"<strongroom.Key {self.label!r} {self.type} id {self.id.hex()}>"


def ecdsa_der(signature):
    """Turns an ECDSA signature of r and s side by side into DER (RFC 3279, 2.2.3), as OpenSSL and X.509 have it."""
    half = len(signature) // 2
    numbers = b"".join(_integer(signature[start : start + half]) for start in (0, half))
    return b"\x30" + _length(len(numbers)) + numbers


def _integer(data):
    """Encodes an unsigned number as a DER INTEGER."""
    data = data.lstrip(b"\0") or b"\0"
    if data[0] & 0x80:
        data = b"\0" + data
    return b"\x02" + _length(len(data)) + data


def _length(length):
    """Encodes a length below 256 in DER."""
    return bytes([length]) if length < 0x80 else bytes([0x81, length])
