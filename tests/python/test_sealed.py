"""Ciphertexts of CKM_SR_SEALED and the index of versions, opened as docs/format.md says, without the library."""

import hashlib
import os
import pathlib
import struct
import sys
import tempfile
import unittest

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import open_token

ROOT = pathlib.Path(__file__).resolve().parents[2]
RELEASE = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "release"
sys.path.insert(0, str(ROOT / "bindings/python"))
import strongroom  # noqa: E402

PIN = "user-pin-for-tests"
CONFIG = '[store]\nurl = "sqlite:strongroom.db"\n[argon2]\nmemory_mib = 8\npasses = 1\n'
CKA_SR_OWNER, CKA_SR_ASSET, CKA_SR_VERSION, CKA_SR_STATE, CKA_SR_ROTATED = (0xD3520000 + n for n in (1, 2, 3, 4, 6))


class Sealed(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        (self.folder / "strongroom.toml").write_text(CONFIG)

    def make(self):
        """Makes a key of three versions, and gives a ciphertext of each."""
        with strongroom.Module(RELEASE / "libstrongroom.so", self.folder / "strongroom.toml") as module:
            with module.init_token("wallet", so_pin="so-pin-for-tests", pin=PIN).open(pin=PIN) as session:
                key, ciphertexts = session.generate_managed_key("alice", "aes256"), []
                for version in (1, 2, 3):
                    ciphertexts.append(key.encrypt(b"text %d" % version))
                    key.rotate(expected=version)
                self.assertEqual([key.decrypt(sealed) for sealed in ciphertexts], [b"text 1", b"text 2", b"text 3"])
        return ciphertexts

    def open(self):
        """Opens the store with the independent reader: token key, and objects."""
        database = open_token.open_database(self.folder / "strongroom.db")
        self.addCleanup(database.close)
        token = open_token.find_token(database, None)
        keys = open_token.read_key_file((self.folder / "local-master.key").read_text())
        envelope = token["user_envelope"], keys, token["serial"], token["label"], "user", PIN.encode()
        key = open_token.TokenKey(open_token.open_envelope(*envelope))
        open_token.check_index(database, token["id"])
        return database, token, key, [item for _, item in open_token.open_objects(database, token, key)]

    def test_each_ciphertext_opens_with_the_version_in_its_header(self):
        ciphertexts = self.make()
        _, token, key, objects = self.open()
        secrets = {}
        for item in objects:
            secret = open_token.open_secret(key, token["serial"], item.uid, item.revision, item.encoded, item.secret)
            secrets[item.attributes[CKA_SR_VERSION]] = secret
        name = hashlib.sha256(b"strongroom sealed key name v1" + b"alice" + b"\0" + b"aes256").digest()[:16]
        for version, sealed in enumerate(ciphertexts, 1):
            self.assertEqual(sealed[:30], b"SRCT\x01\x01" + name + struct.pack(">Q", version))
            plain = AESGCM(secrets[version]).decrypt(sealed[30:42], sealed[42:], sealed[:30])
            self.assertEqual(plain, b"text %d" % version)

    def test_the_latest_version_alone_stands_under_its_name(self):
        self.make()
        database, token, key, objects = self.open()
        digest = key.private_index_digest(9, b"alice\0aes256")
        rows = database.execute(
            "SELECT uid FROM object JOIN object_index ON object.id = object WHERE field = 9 AND object_index.digest = ?", (digest,)
        )
        found = [row["uid"] for row in rows]
        latest = [item.uid for item in objects if CKA_SR_ROTATED not in item.attributes]
        self.assertEqual(found, latest)
        self.assertEqual(len(found), 1)
        for field, value in ((7, b"alice"), (8, struct.pack(">Q", 2))):
            digest = key.private_index_digest(field, value)
            count = database.execute("SELECT count(*) FROM object_index WHERE field = ? AND digest = ?", (field, digest))
            self.assertEqual(count.fetchone()[0], 4 if field == 7 else 3)


if __name__ == "__main__":
    unittest.main()
