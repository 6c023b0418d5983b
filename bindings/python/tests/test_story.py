"""The life of one key as a Python program sees it, from its first signature to another host."""

import pathlib
import tempfile

import strongroom

from support import PIN, SO_PIN, ModuleTest, library_path, write_config

OWNER, ASSET = "user123", "btc"
PASSWORD, NEXT_PASSWORD, PAPER = "correct horse 1", "battery staple 2", "a long recovery password"
PIN_INCORRECT = 0xA0


class Story(ModuleTest):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.backup = pathlib.Path(folder.name, "backup")

    def sign_with(self, key, password, version=0):
        """Signs with a version of a key under its owner's password, and gives the signature."""
        with key.unlock(password, version=version) as unlocked:
            return unlocked.key().sign(b"pay 1 to Alice")

    def test_a_key_is_made_signs_is_rotated_and_moves_to_another_host(self):
        with self.token.open(pin=PIN) as session:
            key = session.generate_managed_key(OWNER, ASSET, password=PASSWORD)
            self.assertTrue(key.address().startswith("bc1q"))
            first = self.sign_with(key, PASSWORD)
            self.assertEqual(key.rotate(old_password=PASSWORD, new_password=NEXT_PASSWORD), 2)
            self.assertTrue(key.key(1).verify(b"pay 1 to Alice", first), "the old version verifies")
            self.assertFalse(key.key(2).verify(b"pay 1 to Alice", first))
            second = self.sign_with(key, NEXT_PASSWORD)
            session.rotate_master_key()
            publics = [key.key(version).public_key_info() for version in (1, 2)]
        # A fresh session opens under the new master key.
        with self.token.open() as session:
            session.login(SO_PIN, security_officer=True)
            session.recovery.add_password("paper", PAPER)
            self.assertGreater(session.export_backup(self.backup)["records"], 4)
        self.go_on_elsewhere(publics, [first, second])

    def go_on_elsewhere(self, publics, signatures):
        """Restores on a host with another KMS, where both versions verify what they signed, and sign again."""
        type(self).module.close()
        with tempfile.TemporaryDirectory() as folder, strongroom.Module(library_path(), write_config(folder)) as module:
            self.assertEqual(module.tokens(), [])
            done = module.import_backup(self.backup, password=PAPER, new_pin="another-pin", new_so_pin="another-so-pin")
            self.assertEqual(done["token"]["became"], "added")
            with module.token("wallet").open(pin="another-pin") as session:
                key = session.managed_key(OWNER, ASSET)
                for number, (public, signature) in enumerate(zip(publics, signatures), start=1):
                    version = key.key(number)
                    self.assertEqual(version.public_key_info(), public)
                    self.assertTrue(version.verify(b"pay 1 to Alice", signature))
                self.assertTrue(key.key(2).verify(b"pay 1 to Alice", self.sign_with(key, NEXT_PASSWORD)))
                with self.assertRaises(strongroom.Error) as raised:
                    key.unlock(PASSWORD)
                self.assertEqual(raised.exception.code, PIN_INCORRECT)
                self.assertEqual(key.rotate(old_password=NEXT_PASSWORD), 3)
        type(self).module = strongroom.Module(library_path(), self.config)
