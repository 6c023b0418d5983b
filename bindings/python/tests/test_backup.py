"""Backups through the Python face."""

import pathlib
import tempfile
import unittest

import strongroom

from support import PIN, SO_PIN, ModuleTest, library_path, write_config

PASSWORD = "a long recovery password"


class Backup(ModuleTest):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.session = self.token.open(pin=PIN)
        self.addCleanup(self.session.close)

    def as_so(self, work):
        """Runs work with the SO logged in, and the user again after it."""
        self.session.logout()
        self.session.login(SO_PIN, security_officer=True)
        try:
            return work(self.session.recovery)
        finally:
            self.session.logout()
            self.session.login(PIN)

    def test_a_backup_is_written_verified_and_restored_elsewhere(self):
        key = self.session.generate_managed_key("alice", "ed25519")
        signature = key.key().sign(b"message", mechanism=0x1057)
        names = sorted(path.name for path in self.folder.iterdir())
        self.as_so(lambda recovery: recovery.add_shares("people", 2, 3, self.folder))
        self.as_so(lambda recovery: recovery.add_password("paper", PASSWORD))
        self.assertEqual([entry["means"] for entry in self.session.recovery.list()], ["shares", "password"])
        shares = [path for path in sorted(self.folder.iterdir()) if path.name not in names]
        self.assertEqual(len(shares), 3)
        path = self.folder / "backup"
        report = self.session.export_backup(path)
        self.assertEqual((report["path"], report["records"]), (str(path), 4))
        with self.assertRaises(strongroom.Error) as raised:
            self.session.export_backup(path)
        self.assertIn("there already", str(raised.exception))
        self.session.export_backup(path, overwrite=True)
        self.assertEqual(strongroom.inspect_backup(path)["kms"]["provider"], "local")
        self.assertEqual(self.session.verify_backup(path)["opened_by"], "session")
        self.assertEqual(self.module.verify_backup(path, pin=PIN)["opened_by"], "pin")
        self.assertEqual(self.module.verify_backup(path, share_files=shares[1:])["opened_by"], "recovery people")
        with self.assertRaises(strongroom.Error):
            self.module.verify_backup(path, password="another recovery password")
        self.assertEqual(self.session.import_backup(path)["same"], 2)
        tried = self.session.import_backup(path, owner="alice", asset="ed25519", replace=True, dry_run=True)
        self.assertEqual((tried["same"], tried["dry_run"]), (2, True))
        self.restore_elsewhere(path, signature)

    def restore_elsewhere(self, path, signature):
        """Restores with another master key, in another process state, and compares."""
        self.session.close()
        self.module.close()
        with tempfile.TemporaryDirectory() as folder, strongroom.Module(library_path(), write_config(folder)) as module:
            done = module.import_backup(path, password=PASSWORD, new_so_pin="another-so-pin", new_pin="another-pin")
            self.assertEqual((done["added"], done["token"]["became"]), (4, "added"))
            token = module.token("wallet")
            self.assertEqual(token.serial, self.token.serial)
            with token.open(pin="another-pin") as session:
                key = session.managed_key("alice", "ed25519")
                self.assertEqual(key.key().sign(b"message", mechanism=0x1057), signature)
        type(self).module = strongroom.Module(library_path(), self.config)

    def test_an_owner_without_keys_is_told(self):
        with self.assertRaises(strongroom.Error) as raised:
            self.session.export_backup(self.folder / "none", owner="nobody")
        self.assertIn("no such managed key", str(raised.exception))
        with self.assertRaises(ValueError):
            strongroom.inspect_backup(__file__)


if __name__ == "__main__":
    unittest.main()
