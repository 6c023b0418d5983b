"""Managed keys with a data key of their own: opened as docs/format.md says, without the library, and what a stolen token key gives."""

import io
import json
import contextlib
import unittest

import open_backup
import open_token
from test_command import PIN, CommandTest

SCOPE = '[kms.local]\nscope = "key"\n'
PASSWORD = "canary-own-password"


class Scope(CommandTest):
    def setUp(self):
        super().setUp()
        self.config.write_text(self.config.read_text() + SCOPE)
        self.environment.update(PASSWORD=PASSWORD)
        self.init()
        self.data = self.folder / "data"
        self.pin_file, self.password_file = self.folder / "pin", self.folder / "password"
        self.pin_file.write_text(PIN)
        self.password_file.write_text(PASSWORD)

    def create(self, owner, asset, *more):
        named = ["key", "create", "--owner", owner, "--asset", asset, "--pin-source", "env:PIN", *more]
        return json.loads(self.call("--json", *named)[0])

    def show(self, *more, key_file=None):
        out = io.StringIO()
        arguments = [self.data / "strongroom.db", key_file or self.data / "local-master.key", "--secrets", "--pin-file", self.pin_file]
        code = open_token.main([str(part) for part in (*arguments, *more)], out)
        return code, out.getvalue()

    def test_every_kind_of_key_opens_from_the_document_alone(self):
        for asset in "btc", "sol", "p384", "rsa2048", "aes256":
            self.create("alice", asset)
        self.create("bob", "eth", "--password-source", "env:PASSWORD")
        self.generate("plain")
        rotated = ["key", "rotate", "--owner", "alice", "--asset", "btc", "--pin-source", "env:PIN"]
        self.call(*rotated)
        self.call("kms", "rotate", "--pin-source", "env:PIN")
        code, text = self.show("--password-file", self.password_file)
        self.assertEqual(code, 0, text)
        self.assertEqual(text.count("CKA_SR_DATA_KEY = True"), 7)
        self.assertEqual(text.count("secret: "), 8)
        self.assertEqual(text.count("agrees with"), 8)
        self.assertIn("is under its owner's password", self.show()[1])

    def test_the_token_key_without_the_kms_gives_nothing(self):
        self.create("alice", "btc")
        database = open_token.open_database(self.data / "strongroom.db")
        self.addCleanup(database.close)
        token = open_token.find_token(database, "wallet")
        keys = open_token.read_key_file((self.data / "local-master.key").read_text())
        envelope = open_token.open_envelope(token["user_envelope"], keys, token["serial"], token["label"], "user", PIN.encode())
        key = open_token.TokenKey(envelope)
        (item,) = [item for _, item in open_token.open_objects(database, token, key) if item.secret is not None]
        sealed = open_token.open_secret(key, token["serial"], item.uid, item.revision, item.encoded, item.secret)
        self.assertEqual(len(open_token.open_data_key(keys, token["serial"], item.uid, sealed)), 32)
        other = {name: bytes(32) for name in keys}
        for wrong in {}, other:
            with self.assertRaises(open_token.Damaged):
                open_token.open_data_key(wrong, token["serial"], item.uid, sealed)
        # It is the key of this object and no other.
        with self.assertRaises(open_token.Damaged):
            open_token.open_data_key(keys, token["serial"], bytes(16), sealed)

    def test_a_backup_opens_with_the_kms_alone(self):
        self.create("alice", "btc")
        backup = self.folder / "backup"
        written = self.json("backup", "export", "--to", backup, "--pin-source", "env:PIN")
        self.assertEqual(written["data_keys"], 1)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            arguments = [backup, "--key-file", self.data / "local-master.key", "--pin-file", self.pin_file, "--secrets"]
            self.assertEqual(open_backup.main([str(part) for part in arguments]), 0)
        self.assertEqual(out.getvalue().count("agrees with"), 1, out.getvalue())

    def test_the_command_tells_of_data_keys(self):
        self.create("alice", "btc")
        (version,) = self.json("key", "versions", "--owner", "alice", "--asset", "btc", "--pin-source", "env:PIN")
        self.assertEqual((version["data_key"]["provider"], version["data_key"]["version"]), ("local", 1))
        self.config.write_text(self.config.read_text().replace('scope = "key"', 'scope = "keys"'))
        self.assertIn("scope", self.call("token", "list", code=1)[1])


if __name__ == "__main__":
    unittest.main()
