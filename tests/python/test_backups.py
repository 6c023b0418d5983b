"""Backups through the command: written, looked at, verified, restored, and opened without Strongroom."""

import json
import os
import shutil
import stat
import subprocess
import sys
import unittest

from test_command import CONFIG, ROOT, CommandTest

READER = ROOT / "tests/python/open_backup.py"
RECOVERY = "canary recovery password"


def reader_works():
    """Tells whether this Python has what the independent reader needs."""
    try:
        import argon2  # noqa: F401
        import cryptography  # noqa: F401
    except ImportError:
        return False
    return True


class Backup(CommandTest):
    def setUp(self):
        super().setUp()
        self.environment.update(RECOVERY=RECOVERY, NEW_SO="canary-new-so", NEW="canary-new-user", SHORT="canary-short")
        self.init()
        for owner, asset in (("alice", "p256"), ("alice", "aes256"), ("bob", "eth")):
            self.key("create", owner, asset)
        self.key("rotate", "alice", "p256")
        self.backup = self.folder / "wallet.backup"

    def key(self, verb, owner, asset, *more, code=0):
        named = ["key", verb, "--owner", owner, "--asset", asset, "--pin-source", "env:PIN", *more]
        return json.loads(self.call("--json", *named, code=code)[0] or "null")

    def export(self, *more, to=None, code=0):
        return self.json("backup", "export", "--to", str(to or self.backup), "--pin-source", "env:PIN", *more, code=code)

    def elsewhere(self, kms="local"):
        """Goes to another machine: another store, another master key."""
        folder = self.folder / f"elsewhere-{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        self.config = folder / "strongroom.toml"
        self.config.write_text(CONFIG)
        return folder

    def versions(self):
        return [self.key("versions", owner, asset) for owner, asset in (("alice", "p256"), ("alice", "aes256"), ("bob", "eth"))]

    def add_recovery(self, *how, name="safe"):
        return self.call("recovery", "add", "--name", name, "--so-pin-source", "env:SO_PIN", *how)

    def test_a_backup_is_written_shown_verified_and_restored(self):
        report = self.export()
        self.assertEqual((report["records"], report["scope"]), (7, "token"))
        self.assertEqual(stat.S_IMODE(self.backup.stat().st_mode), 0o600)
        shown = self.json("backup", "inspect", str(self.backup))
        self.assertEqual((shown["kms"]["provider"], shown["records"]), ("local", 7))
        self.assertRegex(shown["kms"]["key"], "^local-[0-9a-f]{8}$")
        self.assertIn(f"the KMS key {shown['kms']['key']}", self.call("backup", "inspect", str(self.backup))[0])
        checked = self.json("backup", "verify", str(self.backup), "--pin-source", "env:PIN")
        self.assertEqual((checked["opened_by"], checked["kms_opens"], checked["versions"]), ("pin", True, 4))
        before = self.versions()
        key_file = self.folder / "data/local-master.key"
        there = self.elsewhere()
        (there / "data").mkdir()
        # Without the master key it says which one it needs.
        error = self.call("backup", "import", str(self.backup), "--pin-source", "env:PIN", code=1)[1]
        self.assertIn(shown["kms"]["key"], error)
        shutil.copy(key_file, there / "data/local-master.key")
        tried = self.json("backup", "import", str(self.backup), "--pin-source", "env:PIN", "--dry-run")
        self.assertEqual((tried["added"], tried["dry_run"], self.json("token", "list")), (7, True, []))
        done = self.json("backup", "import", str(self.backup), "--pin-source", "env:PIN")
        self.assertEqual((done["added"], done["token"]["became"]), (7, "added"))
        self.assertEqual(self.versions(), before)
        self.assertEqual(self.json("backup", "import", str(self.backup), "--pin-source", "env:PIN")["same"], 7)
        self.call("backup", "verify", str(self.backup), "--pin-source", "env:BAD_PIN", code=4)

    def test_keys_go_into_another_token_and_one_comes_back_out_of_a_larger_backup(self):
        self.export("--owner", "alice", to=self.folder / "alice")
        self.init("other")
        into = ["--into", "other", "--into-pin-source", "env:PIN", "--pin-source", "env:PIN"]
        done = self.json("backup", "import", str(self.folder / "alice"), *into)
        self.assertEqual(done["added"], 5)
        report = self.json("backup", "export", "--token", "other", "--to", str(self.folder / "other"), "--pin-source", "env:PIN")
        self.assertEqual(report["records"], 5)
        # Another run with one key alone, into a token that lost it.
        one = ["--owner", "alice", "--asset", "p256", *into]
        self.assertEqual(self.json("backup", "import", str(self.folder / "alice"), *one)["same"], 4)
        error = self.call("backup", "import", str(self.folder / "alice"), "--pin-source", "env:PIN", code=1)[1]
        self.assertIn("open a session", error)

    def test_a_lost_kms_and_lost_pins_are_no_lost_keys(self):
        self.call("recovery", "add", "--name", "x", "--so-pin-source", "env:SO_PIN", "--password-source", "env:SHORT", code=4)
        self.add_recovery("--password-source", "env:RECOVERY", name="paper")
        shares = self.folder / "shares"
        shares.mkdir()
        self.add_recovery("--shares", "3/5", "--folder", str(shares), name="people")
        listed = self.json("recovery", "list", "--pin-source", "env:PIN")
        self.assertEqual([entry["name"] for entry in listed], ["paper", "people"])
        self.export()
        before, files = self.versions(), sorted(shares.iterdir())
        self.assertEqual([stat.S_IMODE(file.stat().st_mode) for file in files], [0o600] * 5)
        (self.folder / "data/local-master.key").unlink()
        self.call("key", "list", "--pin-source", "env:PIN", code=1)
        by = [["--password-source", "env:RECOVERY"]]
        by.append([word for file in files[1:4] for word in ("--share-file", str(file))])
        pins = ["--new-so-pin-source", "env:NEW_SO", "--new-pin-source", "env:NEW"]
        for secrets in by:
            self.elsewhere()
            checked = self.json("backup", "verify", str(self.backup), *secrets)
            self.assertIn("is missing", checked["kms_opens"])
            self.assertIn("new SO PIN", self.call("backup", "import", str(self.backup), *secrets, code=1)[1])
            self.json("backup", "import", str(self.backup), *secrets, *pins)
            self.call("key", "list", "--pin-source", "env:PIN", code=4)
            self.environment["PIN"] = "canary-new-user"
            self.assertEqual(self.versions(), before)
            self.environment["PIN"] = "canary-user-pin"
        self.elsewhere()
        error = self.call("backup", "verify", str(self.backup), *by[1][:4], code=1)[1]
        self.assertIn("2 shares are too few: 3 of set", error)
        self.call("backup", "verify", str(self.backup), "--password-source", "env:NEW", code=4)

    def test_shares_that_are_shown_are_no_json(self):
        words = ["recovery", "add", "--name", "safe", "--so-pin-source", "env:SO_PIN", "--shares", "2/3"]
        self.assertIn("--folder", self.call("--json", *words, code=2)[1])
        self.assertEqual(self.json("recovery", "list", "--pin-source", "env:PIN"), [])

    def test_shares_can_be_shown_instead_of_kept_in_files(self):
        shown = self.add_recovery("--shares", "2/3")[0]
        texts = [line.strip() for line in shown.splitlines() if line.strip().startswith("srshare1")]
        self.assertEqual(len(texts), 3)
        self.export()
        files = []
        for number, text in enumerate(texts[:2]):
            files.append(self.folder / f"written-{number}")
            files[-1].write_text(f"# by hand\n\n  {text[:40].upper()} {text[40:].upper()}\n")
        words = [word for file in files for word in ("--share-file", str(file))]
        self.assertEqual(self.json("backup", "verify", str(self.backup), *words)["opened_by"], "recovery safe")
        self.call("recovery", "remove", "--name", "safe", "--so-pin-source", "env:SO_PIN")
        self.assertEqual(self.export(to=self.folder / "later")["recovery"], [])

    def test_the_so_writes_backups_and_standard_output_takes_one(self):
        self.call("backup", "export", "--to", str(self.backup), "--so-pin-source", "env:SO_PIN")
        text = self.call("backup", "export", "--to", "-", "--pin-source", "env:PIN")[0]
        self.assertEqual(len(json.loads(text)["records"]), 7)
        error = self.call("backup", "export", "--to", str(self.backup), "--pin-source", "env:PIN", code=1)[1]
        self.assertIn("there already", error)
        self.export("--overwrite")
        self.call("backup", "export", "--to", "/nowhere/x", "--pin-source", "env:PIN", code=1)
        self.call("backup", "export", "--to", str(self.folder / "no"), "--owner", "nobody", "--pin-source", "env:PIN", code=3)
        self.assertFalse((self.folder / "no").exists())

    @unittest.skipUnless(reader_works(), "the packages cryptography and argon2-cffi are not there")
    def test_the_document_opens_without_strongroom(self):
        self.add_recovery("--password-source", "env:RECOVERY", name="paper")
        shares = self.folder / "shares"
        shares.mkdir()
        self.add_recovery("--shares", "2/3", "--folder", str(shares), name="людям")
        self.export()
        secret, pin = self.folder / "recovery", self.folder / "pin"
        secret.write_text(RECOVERY + "\n")
        pin.write_text("canary-user-pin\n")
        key_file = self.folder / "data/local-master.key"
        files = sorted(shares.iterdir())
        ways = [
            ["--password-file", secret],
            ["--share", files[0], "--share", files[2]],
            ["--key-file", key_file, "--pin-file", pin],
        ]

        def read(*arguments):
            command = [sys.executable, READER, *arguments, "--secrets"]
            return subprocess.run(command, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})

        for way in ways:
            done = read(self.backup, *way)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("9 records", done.stdout)
            self.assertEqual(done.stdout.count("agrees with"), 4, done.stdout)
            self.assertIn("public key SHA-256", done.stdout)
            self.assertNotIn("canary", done.stdout)
        self.assertEqual(read(self.backup, "--share", files[0]).returncode, 1)
        text = bytearray(self.backup.read_bytes())
        for at in range(0, len(text), 97):
            text[at] ^= 1
            altered = self.folder / "altered"
            altered.write_bytes(text)
            self.assertEqual(read(altered, *ways[2]).returncode, 1, at)
            text[at] ^= 1

    def test_a_full_disk_leaves_the_old_backup_and_no_half_one(self):
        mount = self.folder / "small"
        mount.mkdir()
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24k", "none", mount], capture_output=True)
        if made.returncode != 0:
            self.skipTest("only root can mount a small file system")
        self.addCleanup(subprocess.run, ["umount", mount], check=True)
        small = mount / "wallet.backup"
        self.export("--owner", "bob", to=small)
        old = small.read_bytes()
        for number in range(40):
            self.key("create", f"user {number}", "p256")
        error = self.call("backup", "export", "--to", str(small), "--overwrite", "--pin-source", "env:PIN", code=1)[1]
        self.assertIn("No space left", error)
        self.assertEqual((small.read_bytes(), [file.name for file in mount.iterdir()]), (old, ["wallet.backup"]))


if __name__ == "__main__":
    unittest.main()
