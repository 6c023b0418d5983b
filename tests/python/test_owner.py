"""Managed keys with their owner's own password: the command, stock tools, and what a stolen database gives."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
import unittest

import open_token
from test_at_rest import forms
from test_command import CONFIG, PIN, RELEASE, ROOT, CommandTest

PASSWORD, OTHER = "canary-own-password", "canary-other-password"


class OwnerTest(CommandTest):
    """A token, and the passwords in the environment."""

    def setUp(self):
        super().setUp()
        self.environment.update(PASSWORD=PASSWORD, OTHER=OTHER)
        self.init()

    def managed(self, verb, *more, code=0, owner="alice", asset="eth", **options):
        named = ["key", verb, "--owner", owner, "--asset", asset, "--pin-source", "env:PIN", *more]
        out, err = self.call("--json", *named, code=code, **options)
        return json.loads(out) if code == 0 else err

    def create(self, **options):
        return self.managed("create", "--password-source", "env:PASSWORD", **options)

    def try_key(self, *more, password="env:PASSWORD", **options):
        return self.managed("test", "--password-source", password, *more, **options)


class Verbs(OwnerTest):
    def test_a_key_is_made_tested_rotated_and_given_another_password(self):
        made = self.create()
        self.assertEqual((made["password"], made["password_tries_left"]), (True, 10))
        self.assertEqual(self.try_key()["test"], "signs, and the signature verifies")
        self.assertIn("--password-source", self.managed("test", code=2))
        self.assertIn("PIN_INCORRECT", self.try_key(password="env:OTHER", code=4))
        self.assertIn("--old-password-source", self.managed("rotate", code=4))
        rotated = self.managed("rotate", "--old-password-source", "env:PASSWORD")
        self.assertEqual((rotated["version"], rotated["password"]), (2, True))
        sources = ["--old-password-source", "env:PASSWORD", "--new-password-source", "env:OTHER"]
        self.assertEqual(self.managed("password", *sources)["versions_under_another"], 0)
        self.managed("password", *sources, code=4)
        for number in "1", "2":
            self.assertEqual(self.try_key("--number", number, password="env:OTHER")["version"], int(number))
        again = ["--old-password-source", "env:OTHER", "--new-password-source", "env:PASSWORD"]
        self.assertEqual(self.managed("rotate", *again)["version"], 3)
        # Version 3 is under the first password again, the others are not.
        self.assertEqual(self.managed("password", *sources)["versions_under_another"], 2)
        text = self.call("key", "versions", "--owner", "alice", "--asset", "eth", "--pin-source", "env:PIN")[0]
        self.assertRegex(text, r"PASSWORD.*\n(.* own .*\n){3}$")

    def test_every_asset_works_with_a_password(self):
        for asset in "btc", "sol", "p384", "p521", "rsa2048", "aes128", "aes256":
            self.create(asset=asset)
            self.assertIn("decrypts" if asset.startswith("aes") else "verifies", self.try_key(asset=asset)["test"])
        self.managed("create", asset="p256")
        self.assertFalse(self.managed("test", asset="p256")["password"])
        self.assertIn("no password", self.try_key(asset="p256", code=2))

    def test_passwords_keep_to_the_rules_and_come_as_lines(self):
        self.environment["PASSWORD"] = "canary"
        self.assertIn("8 to 255 bytes", self.create(code=4))
        self.environment["PASSWORD"] = PASSWORD
        lines = ["--pin-source", "stdin", "--password-source", "stdin"]
        named = ["key", "create", "--owner", "alice", "--asset", "eth"]
        self.call(*named, *lines, input=f"{PIN}\n{PASSWORD}\n")
        sources = ["--pin-source", "stdin", "--old-password-source", "stdin", "--new-password-source", "stdin"]
        self.call("key", "password", "--owner", "alice", "--asset", "eth", *sources, input=f"{PIN}\n{PASSWORD}\n{OTHER}\n")
        self.try_key(password="env:OTHER")

    def test_a_locked_key_is_exit_code_4_until_the_so_resets_it(self):
        self.config.write_text(CONFIG + "[password]\nmax_attempts = 2\n")
        self.create()
        for _ in range(2):
            self.try_key(password="env:OTHER", code=4)
        self.assertIn("strongroom key reset-tries", self.try_key(code=4))
        reset = ["key", "reset-tries", "--owner", "alice", "--asset", "eth", "--so-pin-source"]
        self.call(*reset, "env:PIN", code=4)
        self.assertTrue(self.json(*reset, "env:SO_PIN")["reset"])
        self.try_key()
        operations = [record["operation"] for record in self.json("audit", "show", "--last", "100")]
        for operation in "SR_UnlockKey", "lock-out", "SR_ResetKeyTries":
            self.assertIn(operation, operations)

    def test_what_is_due_waits_for_its_password(self):
        self.create(asset="ed25519")
        clock = self.folder / "clock.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", clock, ROOT / "ffi-tests/src/clock.c"], check=True)
        self.environment.update(LD_PRELOAD=str(clock), STRONGROOM_TEST_DAYS="91")
        due = ["rotate", "--due", "--pin-source", "env:PIN"]
        (left,) = self.json(*due, code=5)["due"]
        self.assertEqual((left["owner"], left["password"], left["automatic"]), ("alice", True, False))
        self.assertIn(", needs its password", self.call(*due, code=5)[0])
        self.managed("rotate", "--old-password-source", "env:PASSWORD", asset="ed25519")
        self.assertEqual(self.json(*due)["due"], [])

    def test_calibrate_proposes_what_the_configuration_takes(self):
        found = self.json("argon2", "calibrate", "--target-ms", "40")
        self.assertLessEqual(found["memory_mib"], max(8, found["available_mib"] // 4))
        self.assertGreater(found["milliseconds"], 0)
        text = self.call("argon2", "calibrate", "--target-ms", "40")[0]
        self.assertRegex(text, r"(?m)^# \d+ ms on this machine")
        self.config.write_text(re.sub(r"\[argon2\][^[]*", "", CONFIG) + text)
        self.create()
        self.call("argon2", "calibrate", "--target-ms", "1", code=2)


class Stolen(OwnerTest):
    """What the files give to somebody who has them, with and without the KMS, the PIN and the password."""

    def opened(self):
        """Opens the token with the database, the KMS's file and the PIN: gives attributes and secrets, as stored."""
        data = self.folder / "data"
        database = open_token.open_database(data / "strongroom.db")
        self.addCleanup(database.close)
        token = open_token.find_token(database, "wallet")
        (file,) = data.glob("*.key")
        keys = open_token.read_key_file(file.read_text())
        envelope, pin = token["user_envelope"], PIN.encode()
        key = open_token.TokenKey(open_token.open_envelope(envelope, keys, token["serial"], token["label"], "user", pin))
        for _, item in open_token.open_objects(database, token, key):
            if item.secret is not None:
                place = token["serial"], item.uid, item.revision, item.encoded, item.secret
                yield item.attributes, open_token.open_secret(key, *place), database, token, key

    def test_without_the_password_the_secret_is_closed_to_who_has_all_else(self):
        address = self.create()["address"]
        ((attributes, blob, *_),) = self.opened()
        self.assertTrue(attributes[open_token.CKA_SR_PASSWORD])
        with self.assertRaises(open_token.WrongPin):
            open_token.open_password(attributes, blob, OTHER.encode())
        secret = open_token.open_password(attributes, blob, PASSWORD.encode())
        public = open_token.public_key(open_token.CKK_EC, attributes, secret)
        self.assertTrue(open_token.compare_public(public, attributes), address)
        for name, value in (("owner", b"bob"), ("asset", b"btc"), ("version", 2)):
            moved = {**attributes, getattr(open_token, f"CKA_SR_{name.upper()}"): value}
            with self.assertRaises(open_token.WrongPin):
                open_token.open_password(moved, blob, PASSWORD.encode())
        for at in range(len(blob)):
            altered = blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]
            if altered[13:25] != blob[13:25]:
                continue  # the cost is not tried: it would take long
            with self.assertRaises((open_token.WrongPin, open_token.Damaged), msg=f"byte {at}"):
                open_token.open_password(attributes, altered, PASSWORD.encode())
        # Neither secret nor password stand in any file, nor the blob: it is sealed once more.
        for path in (self.folder / "data").iterdir():
            content = path.read_bytes()
            for value in (secret, PASSWORD.encode(), blob[:57], blob[25:57]):
                for form in forms(value):
                    self.assertNotIn(form, content, path)

    def test_without_the_kms_nothing_tells_a_right_password_from_a_wrong_one(self):
        self.create()
        data = self.folder / "data"
        (file,) = data.glob("*.key")
        file.unlink()
        for source in "env:PASSWORD", "env:OTHER":
            error = self.try_key(password=source, code=1)
            self.assertNotIn("PIN_INCORRECT", error)

    def test_a_change_of_password_leaves_no_way_in_by_the_old_one(self):
        self.create()
        sources = ["--old-password-source", "env:PASSWORD", "--new-password-source", "env:OTHER"]
        self.managed("password", *sources)
        ((attributes, blob, *_),) = self.opened()
        with self.assertRaises(open_token.WrongPin):
            open_token.open_password(attributes, blob, PASSWORD.encode())
        secret = open_token.open_password(attributes, blob, OTHER.encode())
        self.assertEqual(len(secret), 32)

    def test_the_script_of_the_document_opens_it(self):
        self.create()
        (self.folder / "pin").write_text(PIN)
        (self.folder / "password").write_text(PASSWORD)
        (file,) = (self.folder / "data").glob("*.key")
        command = [sys.executable, ROOT / "tests/python/open_token.py", self.folder / "data/strongroom.db", file, "--secrets"]
        command += ["--pin-file", self.folder / "pin"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        self.assertIn("secret: opens, and is under its owner's password", done.stdout)
        done = subprocess.run([*command, "--password-file", self.folder / "password"], capture_output=True, text=True, check=True)
        self.assertRegex(done.stdout, "secret: EC, public key SHA-256 .* agrees with CKA_EC_POINT")
        self.assertIn("CKA_SR_PASSWORD = True", done.stdout)


class StockTools(OwnerTest):
    """Tools that know nothing of Strongroom sign with such a key: C_SignInit, C_Login(CKU_CONTEXT_SPECIFIC), C_Sign."""

    def at_a_terminal(self, command, answers, timeout=60):
        """Runs a command at a terminal, and answers each prompt; gives exit code and what it wrote."""
        environment = {**self.environment, "STRONGROOM_CONFIG": str(self.config), "STRONGROOM_LOG": "error"}
        child, terminal = pty.fork()
        if child == 0:
            os.chdir(self.folder)
            os.execvpe(command[0], command, environment)
        said, deadline = b"", time.monotonic() + timeout
        left = list(answers)
        while True:
            # What is typed before the tool has turned the echo off is thrown away.
            if left and re.search(left[0][0], said) and not termios.tcgetattr(terminal)[3] & termios.ECHO:
                prompt, answer = left.pop(0)
                said = re.sub(prompt, b"[asked]", said, count=1)
                os.write(terminal, answer.encode() + b"\n")
            ready = select.select([terminal], [], [], 0.1)[0]
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
            if not ready:
                continue
            try:
                part = os.read(terminal, 4096)
            except OSError:
                break
            if not part:
                break
            said += part
        status = os.waitpid(child, 0)[1]
        os.close(terminal)
        self.assertEqual(left, [], f"not asked for: {left}\n{said.decode()}")
        return os.waitstatus_to_exitcode(status), said.decode()

    def sign(self, password):
        (self.folder / "digest").write_bytes(bytes(range(32)))
        command = ["pkcs11-tool", "--module", RELEASE / "libstrongroom.so", "--token-label", "wallet", "--login", "--sign"]
        command += ["--mechanism", "ECDSA", "--label", "alice/p256", "--input-file", "digest", "--output-file", "signature"]
        # First the PIN of the token, then the password of the key.
        answers = [(rb"enter User PIN: ", PIN), (rb"(?i)context specific PIN: ", password)]
        return self.at_a_terminal(list(map(str, command)), answers)

    def test_pkcs11_tool_signs_after_a_login_of_the_keys_own(self):
        made = self.create(asset="p256")
        code, said = self.sign(PASSWORD)
        self.assertEqual(code, 0, said)
        signature = (self.folder / "signature").read_bytes()
        self.assertEqual(len(signature), 64)
        self.verify(made["public_key"], signature)
        code, said = self.sign(OTHER)
        self.assertNotEqual(code, 0)
        self.assertIn("CKR_PIN_INCORRECT", said)
        self.assertEqual(self.managed("versions", asset="p256")[0]["password"], True)

    def verify(self, public_key, signature):
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec, utils

        key = serialization.load_der_public_key(bytes.fromhex(public_key))
        der = utils.encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
        key.verify(der, bytes(range(32)), ec.ECDSA(utils.Prehashed(hashes.SHA256())))

    def test_openssl_signs_through_its_engine(self):
        made = self.create(asset="p256")
        (self.folder / "message").write_bytes(b"a message")
        (self.folder / "public.der").write_bytes(bytes.fromhex(made["public_key"]))
        uri = "pkcs11:token=wallet;object=alice%2Fp256;type=private"
        command = ["openssl", "dgst", "-sha256", "-engine", "pkcs11", "-keyform", "engine", "-sign", uri]
        self.environment["PKCS11_MODULE_PATH"] = str(RELEASE / "libstrongroom.so")
        answers = [(rb"token PIN for wallet:", PIN), (rb"key PIN for alice/p256:", PASSWORD)]
        code, said = self.at_a_terminal([*command, "-out", "signature", "message"], answers)
        self.assertEqual(code, 0, said)
        verify = ["openssl", "dgst", "-sha256", "-keyform", "DER", "-verify", "public.der", "-signature", "signature", "message"]
        done = subprocess.run(verify, cwd=self.folder, capture_output=True, text=True)
        self.assertIn("Verified OK", done.stdout, done.stderr)

    def test_pkcs11_tool_shows_that_the_key_always_asks(self):
        self.create(asset="p256")
        command = ["pkcs11-tool", "--module", RELEASE / "libstrongroom.so", "--token-label", "wallet", "--login", "--pin", PIN]
        done = subprocess.run(
            [*command, "--list-objects", "--type", "privkey"],
            env={**self.environment, "STRONGROOM_CONFIG": str(self.config)}, capture_output=True, text=True, check=True,
        )
        self.assertRegex(done.stdout, "(?i)always authenticate")


if __name__ == "__main__":
    unittest.main()
