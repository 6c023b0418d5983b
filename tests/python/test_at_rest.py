"""Nothing secret is readable at rest: the true secrets, recovered with docs/format.md alone, are searched for in every file."""

import base64
import os
import pathlib
import secrets
import subprocess
import tempfile
import unittest

import open_token

ROOT = pathlib.Path(__file__).resolve().parents[2]
RELEASE = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "release"
TYPES = ["p256", "secp256k1", "ed25519", "x25519", "rsa2048", "aes256", "hmac"]


def forms(value):
    """Gives a value as it is, in hexadecimal, in the three forms of base64, and backwards."""
    encoded = [base64.b64encode(bytes(skip) + value)[4 if skip else 0 : -4] for skip in range(3)]
    return [value, value[::-1], value.hex().encode(), value.hex().upper().encode(), *encoded]


class AtRest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.pins = {"SO_PIN": f"so-{secrets.token_hex(8)}", "PIN": f"user-{secrets.token_hex(8)}"}
        cls.environment = {"PATH": os.environ["PATH"], "HOME": folder.name, "STRONGROOM_LOG": "trace", **cls.pins}
        cls.said = cls.call("token", "init", "--label", "wallet", "--so-pin-source", "env:SO_PIN")
        for name in TYPES:
            cls.said += cls.call("key", "generate", "--type", name, "--label", f"private label of {name}")
        cls.said += cls.call("doctor", "--sign")
        cls.data = cls.folder / ".local/share/strongroom"
        cls.files = {path.name: path.read_bytes() for path in cls.data.glob("strongroom.db*")}

    @classmethod
    def call(cls, *arguments):
        command = [RELEASE / "strongroom", *arguments, "--pin-source", "env:PIN"]
        done = subprocess.run(command, env=cls.environment, capture_output=True, check=True)
        return done.stdout + done.stderr

    def true_secrets(self):
        """Opens the token without the library and gives each secret by the label of its key."""
        database = open_token.open_database(self.data / "strongroom.db")
        self.addCleanup(database.close)
        token = open_token.find_token(database, "wallet")
        keys = open_token.read_key_file((self.data / "local-master.key").read_text())
        pin = self.pins["PIN"].encode()
        key = open_token.TokenKey(
            open_token.open_envelope(token["user_envelope"], keys, token["serial"], token["label"], "user", pin)
        )
        found = {}
        for _, item in open_token.open_objects(database, token, key):
            if item.secret is not None:
                label = item.attributes[open_token.CKA_LABEL].decode()
                found[label] = open_token.open_secret(
                    key, token["serial"], item.uid, item.revision, item.encoded, item.secret
                )
        return found

    def assert_nowhere(self, name, value):
        """Checks that a value stands in no file of the database and was not printed, in any form."""
        places = {**self.files, "the output": self.said}
        for form in forms(value):
            for place, content in places.items():
                self.assertNotIn(form, content, f"{name} is in {place}")

    def test_the_search_finds_what_is_there(self):
        self.assertTrue(any(b"wallet" in content for content in self.files.values()))
        self.assertIn("strongroom.db", self.files)

    def test_no_key_is_readable(self):
        found = self.true_secrets()
        self.assertEqual(set(found), {f"private label of {name}" for name in TYPES})
        for label, secret in found.items():
            # An RSA key is many numbers in one structure: its middle holds the secret exponent.
            middle = secret[len(secret) // 2 :][:32] if len(secret) > 64 else secret
            self.assert_nowhere(label, middle)

    def test_no_pin_is_readable(self):
        for name, pin in self.pins.items():
            self.assert_nowhere(name, pin.encode())

    def test_the_label_of_a_secret_key_is_not_readable(self):
        """A key pair's public half shows its label; a secret key has no public half."""
        for name in ("aes256", "hmac"):
            for form in forms(f"private label of {name}".encode()):
                for place, content in self.files.items():
                    self.assertNotIn(form, content, place)


if __name__ == "__main__":
    unittest.main()
