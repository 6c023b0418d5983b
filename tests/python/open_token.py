#!/usr/bin/env python3
"""Opens a Strongroom token without Strongroom, from docs/format.md alone.

    open_token.py DATABASE KEY_FILE [--token LABEL_OR_SERIAL] [--so] [--secrets] [--pin-file FILE] [--password-file FILE]

Lists every object of a token with its decrypted attributes. With --secrets it also opens each secret and compares what can
be compared with the public attributes; a secret itself is never printed. The PIN comes from the file, from the environment
variable STRONGROOM_PIN, or from a prompt. A secret under its owner's password opens with the one in --password-file. Needs the packages cryptography and argon2-cffi. Exits with 1 if anything is damaged.
"""

import argparse
import getpass
import hashlib
import hmac
import os
import sqlite3
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

from argon2.low_level import Type, hash_secret_raw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, ed448, rsa, x448, x25519
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

ENVELOPE, PRIVATE_ATTRIBUTES, PUBLIC_ATTRIBUTES, SECRET, PASSWORD_SEALED, DATA_KEY_SEALED = 1, 2, 3, 4, 6, 9
ALGORITHMS = {ENVELOPE: 1, PRIVATE_ATTRIBUTES: 2, PUBLIC_ATTRIBUTES: 3, SECRET: 2, PASSWORD_SEALED: 4, DATA_KEY_SEALED: 7}
PURPOSES = {PRIVATE_ATTRIBUTES: 1, SECRET: 2, PUBLIC_ATTRIBUTES: 3}
ROLES = {"so": 1, "user": 2}

CKA_CLASS, CKA_LABEL, CKA_VALUE, CKA_KEY_TYPE, CKA_ID = 0x000, 0x003, 0x011, 0x100, 0x102
CKA_CHECK_VALUE, CKA_MODULUS, CKA_PUBLIC_EXPONENT, CKA_PUBLIC_KEY_INFO = 0x090, 0x120, 0x122, 0x129
CKA_VALUE_LEN, CKA_EC_PARAMS, CKA_EC_POINT = 0x161, 0x180, 0x181
CKA_SR_OWNER, CKA_SR_ASSET, CKA_SR_VERSION, CKA_SR_PASSWORD = 0xD3520001, 0xD3520002, 0xD3520003, 0xD3520020
CKA_SR_DATA_KEY = 0xD3520030
CKO_PUBLIC_KEY, CKO_PRIVATE_KEY = 2, 3
CKK_RSA, CKK_EC, CKK_AES, CKK_EC_EDWARDS, CKK_EC_MONTGOMERY = 0x00, 0x03, 0x1F, 0x40, 0x41

CLASSES = {0: "data", 1: "certificate", 2: "public key", 3: "private key", 4: "secret key"}
KEY_TYPES = {0x00: "RSA", 0x03: "EC", 0x10: "generic secret", 0x15: "3DES", 0x1F: "AES", 0x40: "Edwards", 0x41: "Montgomery"}
NAMES = {
    0x000: "CKA_CLASS", 0x001: "CKA_TOKEN", 0x002: "CKA_PRIVATE", 0x003: "CKA_LABEL", 0x004: "CKA_UNIQUE_ID",
    0x010: "CKA_APPLICATION", 0x011: "CKA_VALUE", 0x012: "CKA_OBJECT_ID", 0x080: "CKA_CERTIFICATE_TYPE", 0x081: "CKA_ISSUER",
    0x082: "CKA_SERIAL_NUMBER", 0x086: "CKA_TRUSTED", 0x087: "CKA_CERTIFICATE_CATEGORY", 0x090: "CKA_CHECK_VALUE",
    0x100: "CKA_KEY_TYPE", 0x101: "CKA_SUBJECT", 0x102: "CKA_ID", 0x103: "CKA_SENSITIVE", 0x104: "CKA_ENCRYPT",
    0x105: "CKA_DECRYPT", 0x106: "CKA_WRAP", 0x107: "CKA_UNWRAP", 0x108: "CKA_SIGN", 0x109: "CKA_SIGN_RECOVER",
    0x10A: "CKA_VERIFY", 0x10B: "CKA_VERIFY_RECOVER", 0x10C: "CKA_DERIVE", 0x110: "CKA_START_DATE", 0x111: "CKA_END_DATE",
    0x120: "CKA_MODULUS", 0x121: "CKA_MODULUS_BITS", 0x122: "CKA_PUBLIC_EXPONENT", 0x129: "CKA_PUBLIC_KEY_INFO",
    0x161: "CKA_VALUE_LEN", 0x162: "CKA_EXTRACTABLE", 0x163: "CKA_LOCAL", 0x164: "CKA_NEVER_EXTRACTABLE",
    0x165: "CKA_ALWAYS_SENSITIVE", 0x166: "CKA_KEY_GEN_MECHANISM", 0x170: "CKA_MODIFIABLE", 0x171: "CKA_COPYABLE",
    0x172: "CKA_DESTROYABLE", 0x180: "CKA_EC_PARAMS", 0x181: "CKA_EC_POINT", 0x202: "CKA_ALWAYS_AUTHENTICATE",
    0x210: "CKA_WRAP_WITH_TRUSTED", 0x40000211: "CKA_WRAP_TEMPLATE", 0x40000212: "CKA_UNWRAP_TEMPLATE",
    0x40000213: "CKA_DERIVE_TEMPLATE", 0x40000600: "CKA_ALLOWED_MECHANISMS", 0xD3520001: "CKA_SR_OWNER", 0xD3520002: "CKA_SR_ASSET",
    0xD3520003: "CKA_SR_VERSION", 0xD3520004: "CKA_SR_STATE", 0xD3520020: "CKA_SR_PASSWORD", 0xD3520021: "CKA_SR_PASSWORD_TRIES",
    0xD3520022: "CKA_SR_PASSWORD_WRONG", 0xD3520030: "CKA_SR_DATA_KEY",
}
CURVES = {
    "06052b81040021": ec.SECP224R1, "06082a8648ce3d030107": ec.SECP256R1, "06052b81040022": ec.SECP384R1,
    "06052b81040023": ec.SECP521R1, "06052b8104000a": ec.SECP256K1, "06092b2403030208010107": ec.BrainpoolP256R1,
    "06092b240303020801010b": ec.BrainpoolP384R1, "06092b240303020801010d": ec.BrainpoolP512R1,
}
RAW_KEYS = {
    (CKK_EC_EDWARDS, 32): ed25519.Ed25519PrivateKey, (CKK_EC_EDWARDS, 57): ed448.Ed448PrivateKey,
    (CKK_EC_MONTGOMERY, 32): x25519.X25519PrivateKey, (CKK_EC_MONTGOMERY, 56): x448.X448PrivateKey,
}


class Damaged(Exception):
    """Something stored is not what was stored, or of a format that this script does not know."""


class WrongPin(Exception):
    """The PIN does not open the envelope, or the password not the secret."""


class Reader:
    """Checked reads from the front of some bytes."""

    def __init__(self, data, what):
        self.data, self.at, self.what = bytes(data), 0, what

    def bytes(self, length):
        if length > len(self.data) - self.at:
            raise Damaged(f"{self.what} ends too early")
        self.at += length
        return self.data[self.at - length:self.at]

    def number(self, width):
        return int.from_bytes(self.bytes(width), "big")

    def text(self, length):
        return utf8(self.bytes(length), self.what)

    def rest(self):
        return self.bytes(len(self.data) - self.at)

    def done(self):
        return self.at == len(self.data)


def utf8(data, what):
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Damaged(f"{what} has a text that is not UTF-8") from None


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def gcm_open(key, nonce, sealed, associated_data, what):
    try:
        return AESGCM(key).decrypt(nonce, sealed, associated_data)
    except InvalidTag:
        raise Damaged(f"{what} does not open") from None


# -- Chapter 2: the header

@dataclass
class Header:
    kind: int
    key_version: int
    key_id: bytes
    raw: bytes


def read_header(reader):
    start = reader.bytes(7)
    if start[:4] != b"SRSB":
        raise Damaged(f"{reader.what} has the unknown magic {start[:4].hex()}")
    if start[4] != 1:
        raise Damaged(f"{reader.what} has the unknown format version {start[4]}")
    if start[5] not in ALGORITHMS or start[6] != ALGORITHMS[start[5]]:
        raise Damaged(f"{reader.what} has the unknown kind {start[5]} or algorithm {start[6]}")
    version, length = reader.number(4), reader.number(2)
    key_id = reader.bytes(length)
    return Header(start[5], version, key_id, reader.data[:reader.at])


# -- Chapter 3: the envelope

@dataclass
class Envelope:
    provider: str
    key_name: str
    key_version: int
    memory: int
    passes: int
    lanes: int
    salt: bytes
    nonce: bytes
    wrapped: bytes
    outer_nonce: bytes
    outer_sealed: bytes

    def bound_to(self, serial, label, role):
        costs = struct.pack(">III", self.memory, self.passes, self.lanes)
        name = label.encode()
        return (b"SRSB\x01\x01\x01" + costs + self.salt + self.nonce + serial.encode() + bytes([ROLES[role]])
                + struct.pack(">H", len(name)) + name)


def read_envelope(data):
    reader = Reader(data, "the envelope")
    header = read_header(reader)
    if header.kind != ENVELOPE:
        raise Damaged("the envelope is a blob of another kind")
    key_name, provider = utf8(header.key_id, reader.what), reader.text(reader.number(1))
    costs = [reader.number(4) for _ in range(3)]
    for cost, low, high in zip(costs, (1024, 1, 1), (4194304, 64, 64)):
        if not low <= cost <= high:
            raise Damaged("the envelope has Argon2id parameters out of bounds")
    salt, nonce = reader.bytes(32), reader.bytes(12)
    wrapped = reader.bytes(reader.number(4))
    outer_nonce, outer_sealed = reader.bytes(12), reader.bytes(64)
    if not reader.done():
        raise Damaged("something follows the envelope")
    return Envelope(provider, key_name, header.key_version, *costs, salt, nonce, wrapped, outer_nonce, outer_sealed)


def open_envelope(data, keys, serial, label, role, pin):
    """Gives the token key."""
    envelope = read_envelope(data)
    if envelope.provider != "local":
        raise Damaged(f"the envelope is under a KMS of type {envelope.provider!r}; this script knows `local`")
    outer = local_unwrap(keys, envelope.key_name, envelope.key_version, envelope.wrapped, serial, "token-key")
    bound = envelope.bound_to(serial, label, role)
    try:
        inner = AESGCM(outer).decrypt(envelope.outer_nonce, envelope.outer_sealed, bound)
    except (InvalidTag, ValueError):
        raise Damaged("the envelope was altered, or belongs to another token, label or role") from None
    master = hash_secret_raw(secret=pin, salt=envelope.salt, time_cost=envelope.passes, memory_cost=envelope.memory,
                             parallelism=envelope.lanes, hash_len=32, type=Type.ID, version=0x13)
    try:
        return AESGCM(master).decrypt(envelope.nonce, inner, bound)
    except InvalidTag:
        raise WrongPin("the PIN is wrong") from None


# -- Chapter 4: keys below the token key

class TokenKey:
    def __init__(self, token_key):
        self.prk = hmac.new(b"strongroom token key v1", token_key, hashlib.sha256).digest()
        self.id = self.expand(b"strongroom token key id v1", 8)
        self.index_key = self.expand(b"strongroom index key v1", 32)

    def expand(self, info, length):
        return HKDFExpand(hashes.SHA256(), length, info).derive(self.prk)

    def object_key(self, kind, uid):
        return self.expand(b"strongroom object key v1" + bytes([PURPOSES[kind]]) + uid, 32)

    # Chapter 8
    def private_index_digest(self, field, value):
        return hmac.new(self.index_key, bytes([field]) + value, hashlib.sha256).digest()[:16]


def public_index_digest(serial, field, value):
    return sha256(b"strongroom public index v1", serial.encode(), bytes([field]), value)[:16]


# -- Chapter 5: objects

def object_header(reader, key):
    header = read_header(reader)
    if (header.key_version, header.key_id) != (1, key.id):
        raise Damaged(f"{reader.what} is sealed under another token key")
    return header


def place(header, serial, uid, revision):
    return header.raw + serial.encode() + uid + struct.pack(">Q", revision)


def open_attributes(key, serial, uid, revision, blob):
    """Gives whether the object is private, and its encoded attributes."""
    reader = Reader(blob, "the attributes")
    header = object_header(reader, key)
    where, nonce = place(header, serial, uid, revision), reader.bytes(12)
    if header.kind == PRIVATE_ATTRIBUTES:
        object_key = key.object_key(PRIVATE_ATTRIBUTES, uid)
        return True, gcm_open(object_key, nonce, reader.rest(), where, "the attributes")
    if header.kind != PUBLIC_ATTRIBUTES:
        raise Damaged("the attributes are a blob of another kind")
    tag, checksum, encoded = reader.bytes(16), reader.bytes(32), reader.rest()
    where += sha256(encoded)
    if checksum != sha256(b"strongroom public attributes v1", where, nonce, tag):
        raise Damaged("the attributes do not match their checksum")
    gcm_open(key.object_key(PUBLIC_ATTRIBUTES, uid), nonce, tag, where, "the attributes' tag")
    return False, encoded


def open_secret(key, serial, uid, revision, encoded, blob):
    reader = Reader(blob, "the secret")
    header = object_header(reader, key)
    if header.kind != SECRET:
        raise Damaged("the secret is a blob of another kind")
    where = place(header, serial, uid, revision) + sha256(encoded)
    nonce = reader.bytes(12)
    return gcm_open(key.object_key(SECRET, uid), nonce, reader.rest(), where, "the secret")


# -- Chapter 6: attributes

def decode_attributes(encoded):
    reader, attributes, last = Reader(encoded, "the attribute list"), {}, -1
    while not reader.done():
        number, kind = reader.number(8), reader.number(1)
        value = decode_value(kind, reader.bytes(reader.number(4)))
        if number <= last:
            raise Damaged("the attributes are out of order")
        attributes[number], last = value, number
    return attributes


def decode_value(kind, value):
    if kind == 0 and value in (b"\0", b"\1"):
        return value == b"\1"
    if kind == 1 and len(value) == 8:
        return int.from_bytes(value, "big")
    if kind == 2:
        return value
    if kind == 3 and len(value) % 8 == 0:
        return [int.from_bytes(value[at:at + 8], "big") for at in range(0, len(value), 8)]
    if kind == 4:
        return decode_attributes(value)
    raise Damaged(f"an attribute of kind {kind} has a wrong value")


# -- Chapter 7: secrets

def open_password(attributes, blob, password):
    """Opens a secret that is under its owner's password (7.1)."""
    reader = Reader(blob, "the secret under its owner's password")
    header = read_header(reader)
    if (header.kind, header.key_version, header.key_id) != (PASSWORD_SEALED, 1, b""):
        raise Damaged(f"{reader.what} is a blob of another kind")
    memory, passes, lanes = (reader.number(4) for _ in range(3))
    for cost, low, high in zip((memory, passes, lanes), (1024, 1, 1), (4194304, 64, 64)):
        if not low <= cost <= high:
            raise Damaged(f"{reader.what} has Argon2id parameters out of bounds")
    salt, nonce, sealed = reader.bytes(32), reader.bytes(12), reader.rest()
    bound = bytes(blob[:57]) + struct.pack(">Q", attributes[CKA_SR_VERSION])
    for name in (attributes[CKA_SR_OWNER], attributes[CKA_SR_ASSET]):
        bound += struct.pack(">H", len(name)) + name
    master = hash_secret_raw(secret=password, salt=salt, time_cost=passes, memory_cost=memory, parallelism=lanes, hash_len=32,
                             type=Type.ID, version=0x13)
    try:
        return AESGCM(master).decrypt(nonce, sealed, bound)
    except InvalidTag:
        raise WrongPin("the password is wrong, or the secret is another version's") from None


def open_data_key(keys, serial, uid, blob):
    """Opens a secret that is under a data key of its own, which the local KMS wrapped (7.2)."""
    reader = Reader(blob, "the secret under a data key of its own")
    header = read_header(reader)
    if header.kind != DATA_KEY_SEALED:
        raise Damaged(f"{reader.what} is a blob of another kind")
    provider = reader.text(reader.number(1))
    if provider != "local":
        raise Damaged(f"the data key is under a KMS of type {provider!r}, and this script knows `local`")
    wrapped = reader.bytes(reader.number(4))
    bound = bytes(blob[:reader.at]) + serial.encode() + bytes(uid)
    name = utf8(header.key_id, reader.what)
    data_key = local_unwrap(keys, name, header.key_version, wrapped, serial, f"data-key/{bytes(uid).hex()}")
    nonce = reader.bytes(12)
    return gcm_open(data_key, nonce, reader.rest(), bound, reader.what)


def public_key(key_type, attributes, secret):
    """Makes the public key of a private key; None for a type that this script cannot compute with."""
    if key_type == CKK_RSA:
        # `RSAPrivateKey` is what a PEM file of this name holds.
        return serialization.load_der_private_key(secret, None).public_key()
    if key_type == CKK_EC:
        curve = CURVES.get(attributes.get(CKA_EC_PARAMS, b"").hex())
        if curve is None:
            return None
        if len(secret) != (curve.key_size + 7) // 8:
            raise Damaged("the scalar has a wrong length")
        return ec.derive_private_key(int.from_bytes(secret, "big"), curve()).public_key()
    private = RAW_KEYS.get((key_type, len(secret)))
    return private.from_private_bytes(secret).public_key() if private else None


def encoded_point(public):
    """Gives the public key as CKA_EC_POINT has it, without the OCTET STRING around it."""
    if isinstance(public, ec.EllipticCurvePublicKey):
        return public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def without_octet_string(value):
    """Takes the OCTET STRING off a DER value that is one as a whole."""
    for prefix in (2, 3, 4):
        length = {2: value[1:2], 3: value[2:3] if value[1:2] == b"\x81" else b"",
                  4: value[2:4] if value[1:2] == b"\x82" else b""}[prefix]
        if value[:1] == b"\x04" and length and int.from_bytes(length, "big") == len(value) - prefix:
            return value[prefix:]
    return value


def compare_public(public, attributes):
    """Names the attributes that say the same as the public key; raises Damaged for one that does not."""
    found = {}
    if isinstance(public, rsa.RSAPublicKey):
        numbers = public.public_numbers()
        for attribute, number in ((CKA_MODULUS, numbers.n), (CKA_PUBLIC_EXPONENT, numbers.e)):
            if attribute in attributes:
                found[attribute] = int.from_bytes(attributes[attribute], "big") == number
    elif CKA_EC_POINT in attributes:
        found[CKA_EC_POINT] = encoded_point(public) in (attributes[CKA_EC_POINT], without_octet_string(attributes[CKA_EC_POINT]))
    if attributes.get(CKA_PUBLIC_KEY_INFO):
        theirs = serialization.load_der_public_key(attributes[CKA_PUBLIC_KEY_INFO])
        found[CKA_PUBLIC_KEY_INFO] = spki(theirs) == spki(public)
    for attribute, same in found.items():
        if not same:
            raise Damaged(f"the private key does not belong to {NAMES[attribute]}")
    return [NAMES[attribute] for attribute in found]


def spki(public):
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def describe_secret(attributes, secret, others):
    """Tells what a secret is and what it was compared with, and nothing of its content."""
    key_type = attributes.get(CKA_KEY_TYPE)
    name = KEY_TYPES.get(key_type, f"key type {key_type}")
    if attributes.get(CKA_CLASS) == CKO_PRIVATE_KEY:
        return describe_private(name, key_type, attributes, secret, others)
    matches = []
    if CKA_VALUE_LEN in attributes:
        matches.append(NAMES[CKA_VALUE_LEN])
        if attributes[CKA_VALUE_LEN] != len(secret):
            raise Damaged("the secret's length is not CKA_VALUE_LEN")
    if key_type == CKK_AES and attributes.get(CKA_CHECK_VALUE):
        matches.append(NAMES[CKA_CHECK_VALUE])
        encryptor = Cipher(algorithms.AES(secret), modes.ECB()).encryptor()
        if encryptor.update(bytes(16))[:3] != attributes[CKA_CHECK_VALUE]:
            raise Damaged("the secret does not belong to CKA_CHECK_VALUE")
    return f"{name}, {len(secret)} bytes; " + said(matches)


def describe_private(name, key_type, attributes, secret, others):
    try:
        public = public_key(key_type, attributes, secret)
    except ValueError:
        raise Damaged(f"the secret is not a private key of type {name}") from None
    if public is None:
        return f"{name}, {len(secret)} bytes; opens, not compared with anything"
    matches = compare_public(public, attributes)
    for other in others:
        same = all(other.get(attribute) == attributes.get(attribute) for attribute in (CKA_ID, CKA_KEY_TYPE, CKA_SR_VERSION))
        if other.get(CKA_CLASS) == CKO_PUBLIC_KEY and same and attributes.get(CKA_ID):
            matches += [f"{match} of the public key object" for match in compare_public(public, other)]
    return f"{name}, public key SHA-256 {sha256(spki(public)).hex()}; " + said(matches)


def said(matches):
    return "agrees with " + ", ".join(matches) if matches else "opens, not compared with anything"


# -- Chapter 9: the local KMS

def read_key_file(text):
    """Gives the master keys by (name, version)."""
    lines = text.split("\n")
    if lines[0] != "strongroom-local-kms 1":
        raise Damaged("line 1 of the key file is unknown")
    keys = {}
    for number, line in enumerate(lines[1:], 2):
        if not line or line.startswith("#"):
            continue
        word, *fields, checksum = line.split(" ")
        if word != "key" or len(fields) != 3 or checksum != sha256(" ".join(fields).encode())[:4].hex():
            raise Damaged(f"line {number} of the key file is damaged")
        keys[fields[0], int(fields[1])] = bytes.fromhex(fields[2])
    return keys


def local_unwrap(keys, name, version, blob, token, purpose):
    def text(value):
        return struct.pack(">H", len(value.encode())) + value.encode()

    reader = Reader(blob, "the wrapped blob")
    frame, nonce = reader.bytes(38), reader.bytes(12)
    if frame[:6] != b"SRKW\x01\x01":
        raise Damaged(f"the wrapped blob starts with the unknown {frame[:6].hex()}")
    if frame[6:] != sha256(b"strongroom kms context v1" + text(token) + text(purpose)):
        raise Damaged("the wrapped blob belongs to another token or purpose")
    if (name, version) not in keys:
        raise Damaged(f"the key file does not hold {name!r} version {version}")
    associated_data = frame + text(name) + struct.pack(">I", version) + text(token) + text(purpose)
    return gcm_open(keys[name, version], nonce, reader.rest(), associated_data, "the wrapped blob")


# -- Chapter 10: the database

TOKEN_COLUMNS = ("id", "serial", "slot", "label", "revision", "created", "so_envelope", "user_envelope", "so_failures",
                 "user_failures", "last_failure")


def row_digest(kind, values):
    def encode(value):
        if isinstance(value, int):
            return struct.pack("<Q", value)
        value = value.encode() if isinstance(value, str) else value
        return struct.pack("<Q", len(value)) + value

    return sha256(encode(kind), *map(encode, values))


def token_digest(row):
    values = []
    for column in TOKEN_COLUMNS:
        if column == "user_envelope":
            values += [0] if row[column] is None else [1, row[column]]
        else:
            values.append(row[column])
    return row_digest("strongroom token 1", values)


def object_digest(row):
    return row_digest("strongroom object 1", [row["token"], row["uid"], row["revision"], row["entries"]])


def index_key(row):
    return bytes([row["field"]]) + row["digest"] + struct.pack(">Q", row["object"])


def index_link(token, key, following):
    """Makes the link from a row of the index to the one after it, which is None at the end."""
    return row_digest("strongroom index 1", [token, key, *([0] if following is None else [1, following])])[:8]


def check_index(database, token):
    """Requires that each row names the one after it, and that the rows are the entries of the token's objects."""
    rows = database.execute("SELECT * FROM object_index WHERE token = ? ORDER BY field, digest, object", (token,)).fetchall()
    keys = [index_key(row) for row in rows]
    links = [index_link(token, *pair) for pair in zip(keys, keys[1:] + [None])]
    if keys[:1] != [bytes(25)] or links != [row["link"] for row in rows]:
        raise Damaged("the rows of the index do not follow each other")
    named = set()
    for row in database.execute("SELECT id, entries FROM object WHERE token = ?", (token,)):
        entries = [row["entries"][at:at + 17] for at in range(0, len(row["entries"]), 17)]
        named.update(entry + struct.pack(">Q", row["id"]) for entry in entries)
    if named != set(keys[1:]):
        raise Damaged("the index does not have the entries of the objects")


def open_database(path):
    if not Path(path).is_file():
        raise Damaged(f"there is no database {path}")
    database = sqlite3.connect(f"{Path(path).resolve().as_uri()}?mode=ro", uri=True)
    database.row_factory = sqlite3.Row
    if database.execute("PRAGMA application_id").fetchone()[0] != 0x53545247:
        raise Damaged(f"{path} is not a Strongroom database")
    if database.execute("PRAGMA user_version").fetchone()[0] != 3:
        raise Damaged(f"{path} has an unknown version")
    return database


def find_token(database, name):
    tokens = database.execute("SELECT * FROM token ORDER BY id").fetchall()
    found = [token for token in tokens if name in (None, token["serial"], token["label"])]
    if len(found) != 1:
        listed = ", ".join(f"{token['label']!r} ({token['serial']})" for token in tokens)
        raise Damaged(f"name one token with --token; there are: {listed or 'none'}")
    if token_digest(found[0]) != found[0]["digest"]:
        raise Damaged("the token's row does not match its digest")
    return found[0]


# -- Chapter 12: all together

@dataclass
class StoredObject:
    uid: bytes
    revision: int
    private: bool
    encoded: bytes
    attributes: dict
    secret: bytes


def open_objects(database, token, key):
    """Gives (uid, object or the error that it gave)."""
    rows = database.execute("SELECT * FROM object WHERE token = ? ORDER BY id", (token["id"],))
    for row in rows:
        try:
            if object_digest(row) != row["digest"]:
                raise Damaged("the object's row does not match its digest")
            private, encoded = open_attributes(key, token["serial"], row["uid"], row["revision"], row["attributes"])
            attributes = decode_attributes(encoded)
            yield row["uid"], StoredObject(row["uid"], row["revision"], private, encoded, attributes, row["secret"])
        except Damaged as error:
            yield row["uid"], error


def show_value(value):
    if isinstance(value, bytes):
        readable = value and all(0x20 <= byte < 0x7F for byte in value)
        return repr(value.decode()) if readable else value.hex() or "(empty)"
    if isinstance(value, list):
        return "[" + ", ".join(hex(number) for number in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{show_name(number)} = {show_value(inner)}" for number, inner in value.items()) + "}"
    return str(value)


def show_name(number):
    return NAMES.get(number, hex(number))


def read_pin(args):
    if args.pin_file:
        return Path(args.pin_file).read_bytes().rstrip(b"\r\n")
    if "STRONGROOM_PIN" in os.environ:
        return os.environb[b"STRONGROOM_PIN"]
    return getpass.getpass("PIN: ").encode()


def show_token(args, out):
    """Prints the token; gives the number of faults."""
    database = open_database(args.database)
    token, role = find_token(database, args.token), "so" if args.so else "user"
    keys = read_key_file(Path(args.key_file).read_text())
    if token[f"{role}_envelope"] is None:
        raise Damaged(f"the {role} PIN is not set")
    key = TokenKey(open_envelope(token[f"{role}_envelope"], keys, token["serial"], token["label"], role, read_pin(args)))
    print(f"token {token['label']!r}, serial {token['serial']}, key {key.id.hex()}", file=out)
    objects, faults = list(open_objects(database, token, key)), 0
    try:
        check_index(database, token["id"])
    except Damaged as error:
        print(f"index DAMAGED: {error}", file=out)
        faults += 1
    others = [item.attributes for _, item in objects if isinstance(item, StoredObject)]
    for uid, item in objects:
        if isinstance(item, Damaged):
            print(f"\nobject {uid.hex()}\n  DAMAGED: {item}", file=out)
            faults += 1
        else:
            faults += show_object(args, keys, key, token["serial"], item, others, out)
    print(f"\n{len(objects)} objects, {faults} faults", file=out)
    return faults


def show_object(args, keys, key, serial, item, others, out):
    kind = CLASSES.get(item.attributes.get(CKA_CLASS), "object of another class")
    print(f"\nobject {item.uid.hex()}: {'private' if item.private else 'public'} {kind}, revision {item.revision}", file=out)
    for number, value in item.attributes.items():
        print(f"  {show_name(number)} = {show_value(value)}", file=out)
    if item.secret is None or not args.secrets:
        return 0
    try:
        secret = open_secret(key, serial, item.uid, item.revision, item.encoded, item.secret)
        if item.attributes.get(CKA_SR_DATA_KEY):
            secret = open_data_key(keys, serial, item.uid, secret)
        if item.attributes.get(CKA_SR_PASSWORD):
            if args.password_file is None:
                print("  secret: opens, and is under its owner's password", file=out)
                return 0
            password = Path(args.password_file).read_bytes().rstrip(b"\r\n")
            secret = open_password(item.attributes, secret, password)
        print(f"  secret: {describe_secret(item.attributes, secret, others)}", file=out)
        return 0
    except Damaged as error:
        print(f"  secret DAMAGED: {error}", file=out)
        return 1
    except WrongPin as error:
        print(f"  secret: does not open: {error}", file=out)
        return 0


def main(arguments=None, out=None):
    out = out or sys.stdout
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database")
    parser.add_argument("key_file", help="the local KMS's file of master keys")
    parser.add_argument("--token", help="label or serial; needed when there are several")
    parser.add_argument("--so", action="store_true", help="open the SO's envelope instead of the user's")
    parser.add_argument("--secrets", action="store_true", help="open each secret and compare it with its public attributes")
    parser.add_argument("--pin-file", help="a file with the PIN")
    parser.add_argument("--password-file", help="a file with the password of the keys that have one of their own")
    args = parser.parse_args(arguments)
    try:
        return 1 if show_token(args, out) else 0
    except (Damaged, WrongPin, OSError, sqlite3.DatabaseError) as error:
        print(f"open_token: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
