#!/usr/bin/env python3
"""Opens a backup of Strongroom without Strongroom, from docs/format.md alone.

    open_backup.py BACKUP (--password-file FILE | --share FILE --share FILE ... | --key-file FILE --pin-file FILE) [--secrets]

Checks the document as a whole and lists every record with its decrypted attributes. With --secrets it also opens each secret and
compares what can be compared; a secret itself is never printed. A recovery password and shares need nothing but the document; a
PIN needs the local KMS's file of master keys. Exits with 1 if anything is damaged.
"""

import argparse
import base64
import hashlib
import hmac
import json
import struct
import sys
from pathlib import Path

from argon2.low_level import Type, hash_secret_raw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import open_token
from open_token import Damaged, Reader, TokenKey, WrongPin, sha256, utf8

RECOVERY = 8
CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


# -- Chapter 15: the document

def read_document(text):
    """Gives the head, the records, and the bytes that the MAC covers with the MAC; the checksum is checked."""
    lines = text.split(b"\n")
    if lines[0] != b'{"strongroom_backup":1,' or lines[-1] != b"":
        raise Damaged("this is no backup of format version 1")
    end = json.loads(lines[-2].removeprefix(b'"end":').removesuffix(b"}") or b"null")
    covered = text[:text.rindex(b'"end":')]
    if hashlib.sha256(covered).hexdigest() != end["sha256"]:
        raise Damaged("the document does not match its checksum")
    whole = json.loads(text)
    if set(whole) != {"strongroom_backup", "head", "records", "end"} or len(whole["records"]) != end["records"]:
        raise Damaged("the document has other parts than it should")
    return whole["head"], whole["records"], covered, end["mac"]


def check_mac(key, covered, mac):
    backup_key = key.expand(b"strongroom backup key v1", 32)
    if not hmac.compare_digest(hmac.new(backup_key, covered, hashlib.sha256).hexdigest(), mac):
        raise Damaged("the MAC does not fit: the document was altered")


# -- Chapter 14: recovery envelopes

def read_recovery(blob):
    """Gives the means, what they need, and the parts of the seal."""
    reader = Reader(blob, "the recovery envelope")
    if reader.bytes(7) != b"SRSB\x01\x08\x06":
        raise Damaged("this is no recovery envelope")
    version, key_id = reader.number(4), None
    key_id = reader.bytes(reader.number(2))
    means = reader.number(1)
    if means == 1:
        needs = [reader.number(4) for _ in range(3)] + [reader.bytes(32)]
    elif means == 2:
        provider = reader.text(reader.number(1))
        needs = [provider, utf8(key_id, "the key id"), version, reader.bytes(reader.number(4))]
    elif means == 3:
        needs = [key_id, reader.number(1), reader.number(1)]
    else:
        raise Damaged(f"the recovery envelope has the unknown means {means}")
    clear, nonce, sealed = reader.data[:reader.at], reader.bytes(12), reader.bytes(48)
    if not reader.done():
        raise Damaged("something follows the recovery envelope")
    return means, needs, clear, nonce, sealed


def open_recovery(parts, own_key, serial, name):
    _, _, clear, nonce, sealed = parts
    bound = clear + serial.encode() + struct.pack(">H", len(name.encode())) + name.encode()
    try:
        return AESGCM(own_key).decrypt(nonce, sealed, bound)
    except InvalidTag:
        raise WrongPin("the secret does not open the recovery envelope, or that was altered") from None


def by_password(head, password):
    for entry in head["recovery"]:
        parts = read_recovery(base64.b64decode(entry["envelope"], validate=True))
        if parts[0] != 1:
            continue
        memory, passes, lanes, salt = parts[1]
        own = hash_secret_raw(secret=password, salt=salt, time_cost=passes, memory_cost=memory, parallelism=lanes, hash_len=32,
                              type=Type.ID, version=0x13)
        try:
            return open_recovery(parts, own, head["token"]["serial"], entry["name"])
        except WrongPin:
            continue
    raise WrongPin("no recovery envelope of the backup opens by this password")


# 14.2: shares

def bech32m(text):
    """Decodes Bech32m from BIP 350, and gives the bytes behind the prefix."""
    text = "".join(text.split()).replace("-", "").lower()
    prefix, _, data = text.rpartition("1")
    if prefix != "srshare" or any(letter not in CHARSET for letter in data):
        raise Damaged("this is no share")
    values, check = [CHARSET.index(letter) for letter in data], 1
    for value in [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix] + values:
        top, check = check >> 25, (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= generator if top >> bit & 1 else 0
    if check != 0x2BC830A3:
        raise Damaged("the share was copied wrongly")
    bits = "".join(f"{value:05b}" for value in values[:-6])
    return bytes(int(bits[at:at + 8], 2) for at in range(0, len(bits) - 7, 8))


def read_share(text):
    line = next(line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    share = bech32m(line)
    if len(share) != 43 or share[0] != 1:
        raise Damaged("the share has an unknown form")
    return {"set": share[1:9], "needed": share[9], "number": share[10], "values": share[11:]}


def multiply(a, b):
    product = 0
    while b:
        product ^= a if b & 1 else 0
        a = a << 1 ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return product


def inverse(a):
    return next(b for b in range(1, 256) if multiply(a, b) == 1)


def combine(shares):
    """Interpolates each byte's polynomial at 0 (Lagrange)."""
    key = bytearray(32)
    for share in shares:
        factor = 1
        for other in shares:
            if other is not share:
                factor = multiply(factor, multiply(other["number"], inverse(other["number"] ^ share["number"])))
        for at, value in enumerate(share["values"]):
            key[at] ^= multiply(factor, value)
    return bytes(key)


def by_shares(head, shares):
    for entry in head["recovery"]:
        parts = read_recovery(base64.b64decode(entry["envelope"], validate=True))
        if parts[0] == 3 and all(share["set"] == parts[1][0] for share in shares):
            if len(shares) < parts[1][1]:
                raise WrongPin(f"{parts[1][1]} shares are needed")
            return open_recovery(parts, combine(shares), head["token"]["serial"], entry["name"])
    raise WrongPin("no recovery envelope of the backup is of the set of these shares")


def by_pin(head, keys, pin):
    token = head["token"]
    envelope = base64.b64decode(token["user_envelope"], validate=True)
    return open_token.open_envelope(envelope, keys, token["serial"], token["label"], "user", pin)


# -- All together

def open_records(head, records, key, master_keys=None):
    """Gives uid, attributes and secret of each record; a data key of its own needs the master keys of the local KMS."""
    for record in records:
        if set(record) != {"uid", "revision", "attributes", "secret"}:
            raise Damaged("a record has other fields than it should")
        uid, serial, revision = bytes.fromhex(record["uid"]), head["token"]["serial"], record["revision"]
        blob = base64.b64decode(record["attributes"], validate=True)
        private, encoded = open_token.open_attributes(key, serial, uid, revision, blob)
        secret = None
        if record["secret"] is not None:
            sealed = base64.b64decode(record["secret"], validate=True)
            secret = open_token.open_secret(key, serial, uid, revision, encoded, sealed)
        attributes = open_token.decode_attributes(encoded)
        if attributes.get(open_token.CKA_SR_DATA_KEY):
            if master_keys is None:
                raise Damaged(f"object {uid.hex()} is under a data key of its own, which needs --key-file")
            secret = open_token.open_data_key(master_keys, serial, uid, secret)
        yield uid, private, attributes, secret


def unlock(args, head):
    if args.share:
        return by_shares(head, [read_share(Path(path).read_text()) for path in args.share])
    if args.password_file:
        return by_password(head, Path(args.password_file).read_bytes().rstrip(b"\r\n"))
    keys = open_token.read_key_file(Path(args.key_file).read_text())
    return by_pin(head, keys, Path(args.pin_file).read_bytes().rstrip(b"\r\n"))


def show(args):
    head, records, covered, mac = read_document(Path(args.backup).read_bytes())
    key = TokenKey(unlock(args, head))
    if key.id.hex() != head["token"]["key"]:
        raise Damaged("the envelope holds another token key than the head names")
    check_mac(key, covered, mac)
    print(f"token {head['token']['label']!r}, serial {head['token']['serial']}, KMS key {head['kms']['key']!r}")
    master_keys = open_token.read_key_file(Path(args.key_file).read_text()) if args.key_file else None
    opened = list(open_records(head, records, key, master_keys))
    others = [attributes for _, _, attributes, _ in opened]
    for uid, private, attributes, secret in opened:
        kind = open_token.CLASSES.get(attributes.get(open_token.CKA_CLASS), "object of another class")
        print(f"\nobject {uid.hex()}: {'private' if private else 'public'} {kind}")
        for number, value in attributes.items():
            print(f"  {open_token.show_name(number)} = {open_token.show_value(value)}")
        if secret is not None and args.secrets:
            print(f"  secret: {open_token.describe_secret(attributes, secret, others)}")
    print(f"\n{len(opened)} records")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backup")
    parser.add_argument("--password-file", help="a file with a recovery password")
    parser.add_argument("--share", action="append", default=[], help="a file with a share; once for each")
    parser.add_argument("--key-file", help="the local KMS's file of master keys")
    parser.add_argument("--pin-file", help="a file with the user PIN")
    parser.add_argument("--secrets", action="store_true", help="open each secret and compare it with its public attributes")
    args = parser.parse_args(arguments)
    try:
        show(args)
        return 0
    except (Damaged, WrongPin, OSError, ValueError, KeyError) as error:
        print(f"open_backup: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
