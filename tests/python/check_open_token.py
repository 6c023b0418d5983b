#!/usr/bin/env python3
"""Checks open_token.py against what the library sealed; run by the unit test of src/seal/tests/vectors.rs.

    check_open_token.py make OBJECTS.json             makes keys with another library, as objects for the test to seal
    check_open_token.py check OBJECTS.json SEALED.json   opens what the test sealed
"""

import json
import os
import re
import sqlite3
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

import open_token as script

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "format.md"
CURVES = [(ec.SECP256R1, 32), (ec.SECP384R1, 48), (ec.SECP521R1, 66), (ec.SECP256K1, 32)]
DER, PKCS1 = serialization.Encoding.DER, serialization.PrivateFormat.TraditionalOpenSSL
CKA_TOKEN, CKA_PRIVATE, CKA_SENSITIVE, CKA_ALLOWED_MECHANISMS, CKA_UNWRAP_TEMPLATE = 0x1, 0x2, 0x103, 0x40000600, 0x40000212


# -- make

def der_octet_string(value):
    length = bytes([len(value)]) if len(value) < 128 else b"\x81" + bytes([len(value)])
    return b"\x04" + length + value


def curve_oid(curve):
    return next(bytes.fromhex(oid) for oid, known in script.CURVES.items() if known is curve)


def make_private_keys():
    """Gives (key type, secret, public attributes) of one key of each type."""
    key = rsa.generate_private_key(65537, 2048)
    numbers = key.public_key().public_numbers()
    public = {script.CKA_MODULUS: numbers.n.to_bytes(256, "big"), script.CKA_PUBLIC_EXPONENT: b"\x01\x00\x01"}
    yield script.CKK_RSA, key.private_bytes(DER, PKCS1, serialization.NoEncryption()), public
    for curve, width in CURVES:
        key = ec.generate_private_key(curve())
        point = key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
        public = {script.CKA_EC_PARAMS: curve_oid(curve), script.CKA_EC_POINT: der_octet_string(point)}
        yield script.CKK_EC, key.private_numbers().private_value.to_bytes(width, "big"), public
    for key_type, made in ((script.CKK_EC_EDWARDS, ed25519.Ed25519PrivateKey.generate()),
                           (script.CKK_EC_MONTGOMERY, x25519.X25519PrivateKey.generate())):
        point = der_octet_string(made.public_key().public_bytes_raw())
        yield key_type, made.private_bytes_raw(), {script.CKA_EC_POINT: point}


def describe(attributes):
    """Writes attributes as [type, kind, value] for the test, which encodes them itself."""
    rows = []
    for number, value in sorted(attributes.items()):
        if isinstance(value, bool):
            rows.append([number, 0, value])
        elif isinstance(value, int):
            rows.append([number, 1, value])
        elif isinstance(value, bytes):
            rows.append([number, 2, value.hex()])
        elif isinstance(value, list):
            rows.append([number, 3, value])
        else:
            rows.append([number, 4, describe(value)])
    return rows


def make_objects():
    for number, (key_type, secret, public) in enumerate(make_private_keys()):
        common = {script.CKA_KEY_TYPE: key_type, script.CKA_ID: bytes([number]), script.CKA_LABEL: "ключ".encode(), CKA_TOKEN: True}
        yield {script.CKA_CLASS: script.CKO_PUBLIC_KEY, CKA_PRIVATE: False, **common, **public}, None
        seen = public if number % 2 else {key: public[key] for key in public if key == script.CKA_EC_PARAMS}
        extra = {CKA_SENSITIVE: True, CKA_ALLOWED_MECHANISMS: [0x1041, 0x1057], CKA_UNWRAP_TEMPLATE: {CKA_TOKEN: True}}
        yield {script.CKA_CLASS: script.CKO_PRIVATE_KEY, CKA_PRIVATE: True, **common, **seen, **extra}, secret
    aes = os.urandom(32)
    check = Cipher(algorithms.AES(aes), modes.ECB()).encryptor().update(bytes(16))[:3]
    yield {script.CKA_CLASS: 4, CKA_PRIVATE: True, script.CKA_KEY_TYPE: script.CKK_AES, script.CKA_VALUE_LEN: 32,
           script.CKA_CHECK_VALUE: check}, aes
    yield {script.CKA_CLASS: 0, CKA_PRIVATE: False, script.CKA_LABEL: b"note", script.CKA_VALUE: b"\x00" * 3000}, None


def make(path):
    objects = []
    for number, (attributes, secret) in enumerate(make_objects()):
        objects.append({"uid": os.urandom(16).hex(), "revision": number + 1, "private": attributes[CKA_PRIVATE],
                        "attributes": describe(attributes), "secret": secret.hex() if secret else None})
    Path(path).write_text(json.dumps(objects))


# -- check

def build_database(path, sealed):
    """Makes a database with the very statements of the document."""
    database = sqlite3.connect(path)
    database.executescript("\n".join(re.findall(r"```sql\n(.*?)```", DOCUMENT.read_text(), re.S)))
    database.execute(f"PRAGMA application_id = {0x53545247}")
    database.execute("PRAGMA user_version = 3")
    token = {"id": 1, "serial": sealed["serial"], "slot": 7, "label": sealed["label"], "revision": 3, "created": 1700000000,
             "so_envelope": bytes.fromhex(sealed["so_envelope"]), "user_envelope": bytes.fromhex(sealed["user_envelope"]),
             "so_failures": 0, "user_failures": 2, "last_failure": 0}
    token["digest"] = script.token_digest(token)
    insert(database, "token", token)
    keys = [bytes(25)]
    for number, row in enumerate(sealed["objects"], 1):
        secret = bytes.fromhex(row["secret"]) if row["secret"] else None
        entries = b"".join(bytes([field]) + script.sha256(bytes([number % 3, field]))[:16] for field in (1, 3))
        keys += [entries[at:at + 17] + struct.pack(">Q", number) for at in (0, 17)]
        stored = {"token": 1, "uid": bytes.fromhex(row["uid"]), "revision": row["revision"],
                  "attributes": bytes.fromhex(row["attributes"]), "secret": secret, "entries": entries}
        insert(database, "object", {"id": number, **stored, "digest": script.object_digest(stored)})
    keys.sort()
    for key, following in zip(keys, keys[1:] + [None]):
        insert(database, "object_index", {"token": 1, "field": key[0], "digest": key[1:17], "object": int.from_bytes(key[17:], "big"),
                                          "link": script.index_link(1, key, following)})
    database.commit()
    database.close()


def insert(database, table, row):
    marks = ", ".join("?" * len(row))
    database.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", list(row.values()))


def run(*arguments, pin):
    """Runs the script as a person would."""
    os.environ["STRONGROOM_PIN"] = pin
    command = [sys.executable, script.__file__, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def expect_damage(call, what):
    try:
        call()
    except script.Damaged:
        return
    raise AssertionError(f"{what} was not found")


def flips(data):
    """Gives copies of the data with one bit flipped, in each byte."""
    for at in range(len(data)):
        yield data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1:]


def check_command(directory, sealed, objects):
    path, keys = directory / "token.db", sealed["key_file"]
    build_database(path, sealed)
    code, text, errors = run(path, keys, "--secrets", pin=sealed["pin"])
    assert code == 0 and not errors, (code, text, errors)
    assert text.count("\nobject ") == len(objects) and text.endswith(f"{len(objects)} objects, 0 faults\n"), text
    assert text.count("agrees with") == sum(1 for item in objects if item["secret"]), text
    assert all(item["secret"] not in text for item in objects if item["secret"])
    assert "not compared" not in text and "CKA_CHECK_VALUE" in text and "CKA_MODULUS of the public key object" in text, text
    code, text, _ = run(path, keys, "--so", "--token", sealed["label"], pin=sealed["so_pin"])
    assert code == 0 and "secret:" not in text
    for pin in (sealed["so_pin"], ""):
        code, text, errors = run(path, keys, pin=pin)
        assert (code, text) == (1, "") and "the PIN is wrong" in errors, errors
    assert run(path, keys, "--token", "another", pin=sealed["pin"])[0] == 1
    for change, words in (("UPDATE token SET label = 'x'", "digest"), ("PRAGMA user_version = 4", "version")):
        copy = directory / "altered.db"
        copy.write_bytes(path.read_bytes())
        with sqlite3.connect(copy) as database:
            database.execute(change)
        database.close()
        code, _, errors = run(copy, keys, pin=sealed["pin"])
        assert code == 1 and words in errors, errors


def check_altered_index(directory, sealed):
    """Checks that the command tells a damaged index, and what the index is made of."""
    build_database(directory / "whole.db", sealed)
    for number, (change, words) in enumerate((
        ("DELETE FROM object_index WHERE object = 2 AND field = 1", "index DAMAGED: the rows of the index"),
        ("UPDATE object_index SET link = x'0011223344556677' WHERE object = 3", "index DAMAGED: the rows of the index"),
        ("UPDATE object SET id = 9999 WHERE id = 1", "index DAMAGED: the index does not have"),
        ("UPDATE object SET entries = x'' WHERE id = 1", "the object's row does not match its digest"),
    )):
        copy = directory / f"index-{number}.db"
        copy.write_bytes((directory / "whole.db").read_bytes())
        with sqlite3.connect(copy) as database:
            database.execute(change)
        database.close()
        code, text, _ = run(copy, sealed["key_file"], pin=sealed["pin"])
        assert code == 1 and words in text, text


def check_altered_objects(directory, sealed):
    """Checks that the command goes on after a damaged object, tells it, and fails."""
    altered = json.loads(json.dumps(sealed))
    first, second = [item for item in altered["objects"] if item["secret"]][:2]
    first["secret"], second["secret"] = second["secret"], first["secret"]
    altered["objects"][0]["revision"] += 1
    build_database(directory / "swapped.db", altered)
    code, text, _ = run(directory / "swapped.db", sealed["key_file"], "--secrets", pin=sealed["pin"])
    assert code == 1 and text.count("secret DAMAGED") == 2 and text.endswith(f"{len(sealed['objects'])} objects, 3 faults\n"), text


def check_blobs(sealed, objects):
    serial, label = sealed["serial"], sealed["label"]
    keys = script.read_key_file(Path(sealed["key_file"]).read_text())
    envelope, pin = bytes.fromhex(sealed["user_envelope"]), sealed["pin"].encode()
    key = script.TokenKey(script.open_envelope(envelope, keys, serial, label, "user", pin))
    assert key.id.hex() == sealed["key_id"]
    for altered in flips(envelope):
        expect_damage(lambda altered=altered: script.open_envelope(altered, keys, serial, label, "user", pin), "a flipped bit")
    expect_damage(lambda: script.open_envelope(envelope, keys, serial, "x", "user", pin), "another label")
    expect_damage(lambda: script.open_envelope(envelope, keys, serial, label, "so", pin), "another role")
    expect_damage(lambda: script.open_envelope(envelope, {}, serial, label, "user", pin), "a missing master key")
    for row, item in zip(sealed["objects"], objects):
        check_object(key, serial, row, item)
    for entry in sealed["index"]:
        field, value = entry["field"], bytes.fromhex(entry["value"])
        assert key.private_index_digest(field, value).hex() == entry["private"]
        assert script.public_index_digest(serial, field, value).hex() == entry["public"]


def check_object(key, serial, row, item):
    uid, revision, blob = bytes.fromhex(row["uid"]), row["revision"], bytes.fromhex(row["attributes"])
    private, encoded = script.open_attributes(key, serial, uid, revision, blob)
    attributes = script.decode_attributes(encoded)
    assert private == item["private"] and describe(attributes) == item["attributes"]
    for altered in flips(blob):
        expect_damage(lambda altered=altered: script.open_attributes(key, serial, uid, revision, altered), "a flipped bit")
    expect_damage(lambda: script.open_attributes(key, serial, uid, revision + 1, blob), "another revision")
    if item["secret"] is None:
        return
    blob = bytes.fromhex(row["secret"])
    assert script.open_secret(key, serial, uid, revision, encoded, blob).hex() == item["secret"]
    for altered in flips(blob):
        expect_damage(lambda altered=altered: script.open_secret(key, serial, uid, revision, encoded, altered), "a flipped bit")
    expect_damage(lambda: script.open_secret(key, serial, uid, revision, encoded[:-1] + b"\xff", blob), "another attribute")


def check_comparisons(objects):
    """Checks that a secret which belongs to other attributes is told."""
    privates = [item for item in objects if item["secret"]]
    decoded = [{number: value_of(kind, value) for number, kind, value in item["attributes"]} for item in objects]
    for item in privates:
        attributes = {number: value_of(kind, value) for number, kind, value in item["attributes"]}
        wrong = bytearray.fromhex(item["secret"])
        wrong[len(wrong) // 2] ^= 1
        expect_damage(lambda a=attributes, w=bytes(wrong): script.describe_secret(a, w, decoded), "a wrong secret")


def value_of(kind, value):
    return bytes.fromhex(value) if kind == 2 else value


def check_document():
    """Checks the derivations against the values that the document states."""
    text, key, uid = DOCUMENT.read_text(), script.TokenKey(bytes(range(32))), bytes(range(0xA0, 0xB0))
    values = [key.prk, key.id, key.index_key, key.private_index_digest(3, b"wallet"),
              script.public_index_digest("0123456789ABCDEF", 3, b"wallet")]
    values += [key.object_key(kind, uid) for kind in script.PURPOSES]
    assert all(f"`{value.hex()}`" in text for value in values)


def check(objects_path, sealed_path):
    objects, sealed = json.loads(Path(objects_path).read_text()), json.loads(Path(sealed_path).read_text())
    with tempfile.TemporaryDirectory() as directory:
        check_command(Path(directory), sealed, objects)
        check_altered_objects(Path(directory), sealed)
        check_altered_index(Path(directory), sealed)
    check_blobs(sealed, objects)
    check_comparisons(objects)
    check_document()
    print(f"{len(objects)} objects opened from the document alone")


if __name__ == "__main__":
    {"make": make, "check": check}[sys.argv[1]](*sys.argv[2:])
