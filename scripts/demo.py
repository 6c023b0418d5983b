"""The program of the demo: signs, asks for a private key, and searches the database for secrets."""

import base64
import os
import pathlib
import secrets
import sys

import strongroom
from strongroom import _ffi

#: What is signed is turned into the form that OpenSSL reads: ECDSA as DER, Ed25519 as it is.
KEYS = {"coin": strongroom.ecdsa_der, "node": bytes}


def sign(session, folder, message):
    """Signs a file with both keys and leaves signatures and public keys beside it."""
    data = pathlib.Path(message).read_bytes()
    for label, form in KEYS.items():
        key = session.key(label)
        pathlib.Path(folder, f"{label}.sig").write_bytes(form(key.sign(data)))
        pathlib.Path(folder, f"{label}.pem").write_text(key.public_key_pem())
        print(f"process {os.getpid()} signed {data!r} with {label} ({key.type})")


def sign_managed(session, folder, message):
    """Signs a file with the active version of a managed key, and leaves signature and public key beside it."""
    data, managed = pathlib.Path(message).read_bytes(), session.managed_key("alice", "btc")
    key, version = managed.key(), managed.info()["version"]
    pathlib.Path(folder, f"alice-{version}.sig").write_bytes(strongroom.ecdsa_der(key.sign(data)))
    pathlib.Path(folder, f"alice-{version}.pem").write_text(key.public_key_pem())
    print(f"version {version} of alice's key signed {data!r}; its address is {managed.address()}")


def ask(session):
    """Asks for the bytes of a private key, as a thief would."""
    try:
        value = session.read(session.key("coin")._private, _ffi.CKA_VALUE)
    except strongroom.Error as error:
        print(f"refused: {error}")
    else:
        sys.exit(f"the private key came out: {len(value)} bytes")


def search(session, database):
    """Brings a known private key in and searches the files of the database for it, in every form."""
    secret, label = secrets.token_bytes(32), "a private label"
    session.create_object(
        {
            _ffi.CKA_CLASS: _ffi.CKO_PRIVATE_KEY,
            _ffi.CKA_KEY_TYPE: _ffi.CKK_EC,
            _ffi.CKA_EC_PARAMS: bytes.fromhex("06052b8104000a"),
            _ffi.CKA_VALUE: secret,
            _ffi.CKA_TOKEN: True,
            _ffi.CKA_PRIVATE: True,
            _ffi.CKA_LABEL: label,
            _ffi.CKA_SIGN: True,
        }
    )
    names = sorted(pathlib.Path(database).parent.glob(pathlib.Path(database).name + "*"))
    content = {file.name: file.read_bytes() for file in names}
    print("searching", ", ".join(f"{name} ({len(data)} bytes)" for name, data in content.items()))
    # First that the search works: the token's name is no secret, so it must be found.
    if not any(b"imports" in data for data in content.values()):
        sys.exit("the search does not even find the token's label")
    wanted = {"the private key": secret, "the label of the private key": label.encode()}
    wanted |= {f"the {name}": os.environ[name].encode() for name in ("SO_PIN", "USER_PIN")}
    for name, value in wanted.items():
        report(name, value, content)


def report(name, value, content):
    """Says whether a value is in the files, in any usual form."""
    hexadecimal = value.hex().encode()
    forms = {"raw": [value], "hexadecimal": [hexadecimal, hexadecimal.upper()], "base64": base64_forms(value)}
    texts = [(form, text) for form, texts in forms.items() for text in texts]
    found = [f"{form} in {file}" for form, text in texts for file, data in content.items() if text in data]
    if found:
        sys.exit(f"{name} was found: {', '.join(found)}")
    print(f"  {name}: not found, neither raw nor in hexadecimal nor in base64")


def base64_forms(value):
    """Gives the three forms that a value takes within base64 text, by where it starts, without the ends that depend on neighbours."""
    return [base64.b64encode(bytes(skip) + value)[4 if skip else 0 : -4] for skip in range(3)]


def main(verb, token, *arguments):
    with strongroom.Module() as module, module.token(token).open(pin=os.environ["USER_PIN"]) as session:
        {"sign": sign, "sign_managed": sign_managed, "ask": ask, "search": search}[verb](session, *arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
