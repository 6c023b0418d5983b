"""Managed keys through the Python face."""

import json
import pathlib
import unittest

import strongroom

from support import PIN, ModuleTest


class Managed(ModuleTest):
    def setUp(self):
        self.session = self.token.open(pin=PIN)
        self.addCleanup(self.session.close)

    def test_a_key_is_made_used_and_rotated(self):
        key = self.session.generate_managed_key("alice", "eth")
        self.assertRegex(key.address(), "^0x[0-9a-fA-F]{40}$")
        info = key.info()
        self.assertEqual((info["owner"], info["asset"], info["version"]), ("alice", "eth", 1))
        self.assertEqual(info["address"], key.address())
        digest = bytes(range(32))
        signature = key.sign_recoverable(digest)
        self.assertEqual(len(signature), 65)
        self.assertIn(signature[64], (0, 1))
        old = key.key()
        self.assertTrue(old.verify(digest, signature[:64], mechanism=0x1041))
        self.assertEqual(key.rotate(expected=1), 2)
        with self.assertRaises(strongroom.Error) as raised:
            key.rotate(expected=1)
        self.assertIn("rotated already", str(raised.exception))
        self.assertNotEqual(key.address(), key.address(version=1))
        self.assertTrue(key.key(version=1).verify(digest, signature[:64], mechanism=0x1041))
        self.assertFalse(key.key().verify(digest, signature[:64], mechanism=0x1041))
        self.assertEqual([version["state"] for version in key.versions()], ["rotated", "active"])

    def test_states_rules_and_destruction(self):
        key = self.session.generate_managed_key("bob", "p256")
        key.rotate()
        old, _ = key.versions()
        key.set_state(1, "disabled")
        with self.assertRaises(strongroom.Error):
            key.key(version=1).sign(b"message")
        with self.assertRaises(ValueError):
            key.set_state(1, "gone")
        with self.assertRaises(strongroom.Error):
            key.destroy_version(1, "yes")
        key.destroy_version(1, old["unique_id"])
        self.assertEqual([version["version"] for version in key.versions()], [2])
        self.assertEqual(key.policy()["rotation_interval_days"], 90)
        self.assertEqual(key.policy()["set_by"]["rotation_interval_days"], "default")
        key.set_policy(7, 30, False, max_key_uses=5)
        limits = {"rotation_interval_days": 7, "max_key_age_days": 30, "max_key_uses": 5, "auto_rotate": False}
        self.assertEqual(key.policy(), {**limits, "set_by": dict.fromkeys(limits, "key")})
        self.assertEqual(self.session.rotate_due(), (0, 0, 0))

    def test_a_secret_key_says_what_it_is_and_does_not_sign(self):
        key = self.session.generate_managed_key("bob", "aes256").key()
        self.assertEqual(key.type, "aes")
        with self.assertRaises(ValueError):
            key.sign(b"message")

    def test_r39_legacy_records_are_moved_once(self):
        folder = pathlib.Path(self.folder.name)
        source, report = folder / "records.jsonl", folder / "report.jsonl"
        record = {"owner": "legacy", "asset": "btc", "ciphertext": f"{1:064x}"}
        source.write_text(f"{json.dumps(record)}\nno record\n")
        with self.assertRaises(strongroom.Error) as raised:
            self.session.import_legacy_hex(source, strict=True)
        self.assertIn("nothing was moved", str(raised.exception))
        self.assertEqual(self.session.import_legacy_hex(source, dry_run=True), (1, 0, 1))
        self.assertEqual(self.session.import_legacy_hex(source, report), (1, 0, 1))
        good, bad = map(json.loads, report.read_text().splitlines())
        self.assertEqual((good["result"], good["line"], bad["result"]), ("imported", 1, "failed"))
        self.assertEqual(good["address"], self.session.managed_key("legacy", "btc").address())
        self.assertEqual(good["address"], "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4")
        self.assertEqual(self.session.import_legacy_hex(source), (0, 1, 1))

    def test_what_is_not_there_says_so(self):
        missing = self.session.managed_key("nobody", "btc")
        for call in (missing.info, missing.address, missing.key, missing.rotate):
            with self.assertRaises(strongroom.Error) as raised:
                call()
            self.assertIn("nobody", str(raised.exception))
        with self.assertRaises(strongroom.Error) as raised:
            self.session.generate_managed_key("alice", "doge")
        self.assertIn("btc, eth, sol", str(raised.exception))


if __name__ == "__main__":
    unittest.main()
