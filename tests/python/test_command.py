"""The command as its users call it: results, exit codes, and that no PIN shows anywhere."""

import json
import os
import pathlib
import sqlite3
import subprocess
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
RELEASE = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "release"
SOFTHSM = "/usr/lib/softhsm/libsofthsm2.so"
SO_PIN, PIN = "canary-so-pin", "canary-user-pin"
CONFIG = '[store]\nurl = "sqlite:data/strongroom.db"\n[argon2]\nmemory_mib = 8\npasses = 1\n'


class CommandTest(unittest.TestCase):
    """A test with a configuration and an empty store of its own."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.config = self.folder / "strongroom.toml"
        self.config.write_text(CONFIG)
        self.environment = {"PATH": os.environ["PATH"], "SO_PIN": SO_PIN, "PIN": PIN, "BAD_PIN": "canary-wrong-pin"}
        self.environment["STRONGROOM_LOG"] = "trace"

    def call(self, *arguments, code=0, input=None):
        """Calls the command, checks the exit code and that no PIN shows, and gives what it printed on both channels."""
        command = [RELEASE / "strongroom", "--config", self.config, *arguments]
        done = subprocess.run(command, env=self.environment, input=input, capture_output=True, text=True)
        self.assertEqual(done.returncode, code, f"{arguments}: {done.stdout}{done.stderr}")
        self.assertNotIn("canary", done.stdout + done.stderr)
        return done.stdout, done.stderr

    def json(self, *arguments, **options):
        return json.loads(self.call("--json", *arguments, **options)[0])

    def init(self, label="wallet"):
        pins = ["--so-pin-source", "env:SO_PIN", "--pin-source", "env:PIN"]
        return self.json("token", "init", "--label", label, *pins)

    def generate(self, label, key_type="p256", *more):
        return self.json("key", "generate", "--type", key_type, "--label", label, "--pin-source", "env:PIN", *more)


class Verbs(CommandTest):
    def test_the_version_is_the_packages(self):
        self.assertRegex(self.call("--version")[0], r"^strongroom \d+\.\d+\.\d+\n$")

    def test_a_token_is_made_listed_and_shown(self):
        made = self.init()
        self.assertRegex(made["serial"], "^[0-9A-F]{16}$")
        (listed,) = self.json("token", "list")
        self.assertEqual((listed["label"], listed["serial"], listed["slot"]), ("wallet", made["serial"], made["slot"]))
        shown = self.json("token", "info")
        self.assertEqual((shown["user_pin"], shown["kms"], shown["plaintext"]), ("set", "local", "never"))
        self.assertEqual(shown["uri"], f"pkcs11:token=wallet;serial={made['serial']}")

    def test_both_pins_can_come_as_lines_of_standard_input(self):
        sources = ["--so-pin-source", "stdin", "--pin-source", "stdin"]
        self.call("token", "init", "--label", "wallet", *sources, input=f"{SO_PIN}\n{PIN}\n")
        self.call("key", "list", "--pin-source", "stdin", input=f"{PIN}\n")

    def test_without_a_terminal_a_prompt_is_refused_with_a_hint(self):
        command = [RELEASE / "strongroom", "--config", self.config, "token", "init", "--label", "wallet"]
        done = subprocess.run(
            command, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True
        )
        self.assertEqual(done.returncode, 2)
        self.assertIn("--pin-source env:NAME", done.stderr)

    def managed(self, verb, *more, code=0, owner="alice", asset="btc"):
        named = ["key", verb, "--owner", owner, "--asset", asset, "--pin-source", "env:PIN", *more]
        return self.call("--json", *named, code=code)

    def test_a_managed_key_is_made_rotated_and_destroyed(self):
        self.init()
        made = json.loads(self.managed("create")[0])
        self.assertEqual((made["owner"], made["asset"], made["version"], made["state"]), ("alice", "btc", 1, "active"))
        self.assertTrue(made["address"].startswith("bc1q"))
        self.assertIn("`strongroom key rotate` makes a new version of it", self.managed("create", code=1)[1])
        rotated = json.loads(self.managed("rotate", "--expected", "1")[0])
        self.assertEqual((rotated["version"], rotated["id"]), (2, made["id"]))
        self.assertNotEqual(rotated["address"], made["address"])
        self.managed("rotate", "--expected", "1", code=1)
        old, new = json.loads(self.managed("versions")[0])
        self.assertEqual((old["state"], new["state"]), ("rotated", "active"))
        for verb in "versions", "rotate":
            self.managed(verb, owner="nobody", code=3)
            self.assertIn("there is no asset `doge`", self.managed(verb, asset="doge", code=2)[1])
        self.managed("state", "--number", "7", "--state", "disabled", code=3)
        self.managed("state", "--number", "1", "--state", "active", code=1)
        self.managed("state", "--number", "1", "--state", "gone", code=2)
        self.managed("state", "--number", "1", "--state", "disabled")
        self.managed("destroy", "--number", "1", "--confirm", new["unique_id"], code=1)
        self.managed("destroy", "--number", "1", "--confirm", old["unique_id"])
        self.managed("destroy", "--number", "2", "--confirm", new["unique_id"], code=1)
        (left,) = json.loads(self.managed("versions")[0])
        self.assertEqual(left["version"], 2)
        text = self.call("key", "versions", "--owner", "alice", "--asset", "btc", "--pin-source", "env:PIN")[0]
        self.assertRegex(text, r"^VERSION +STATE.*\n2 +active +20\d\d-")

    def test_what_is_due_is_rotated_or_told(self):
        self.init()
        self.managed("create")
        report = self.json("rotate", "--due", "--pin-source", "env:PIN")
        self.assertEqual(report, {"rotated": [], "due": [], "failed": [], "soon": []})
        self.call("rotate", "--pin-source", "env:PIN", code=2)
        self.config.write_text(CONFIG + "[rotation]\nrotation_interval_days = 9\nmax_key_age_days = 9\n")
        error = self.call("rotate", "--due", "--pin-source", "env:PIN", code=1)[1]
        self.assertIn("strongroom.toml:6: rotation: max_key_age_days", error)

    def test_due_keys_are_rotated_once_and_those_left_are_exit_code_5(self):
        self.init()
        for owner in ("alice", "bob"):
            self.managed("create", owner=owner, asset="ed25519")
        self.days_later(91)
        due = ["rotate", "--due", "--pin-source", "env:PIN"]
        report = self.json(*due, "--dry-run", code=5)
        self.assertEqual([(key["owner"], key["version"]) for key in report["due"]], [("alice", 1), ("bob", 1)])
        self.assertIn("0 rotated, 2 due, 0 failed\n  due      ed25519 key of", self.call(*due, "--dry-run", code=5)[0])
        report = self.json(*due, "--at-most", "1", code=5)
        self.assertEqual((len(report["rotated"]), len(report["due"])), (1, 1))
        self.config.write_text(CONFIG + "[rotation]\nauto_rotate = false\n")
        (left,) = self.json(*due, code=5)["due"]
        self.assertFalse(left["automatic"])
        self.config.write_text(CONFIG)
        (rotated,) = self.json(*due)["rotated"]
        self.assertEqual((rotated["owner"], rotated["version"]), (left["owner"], 2))
        self.assertEqual(self.json(*due), {"rotated": [], "due": [], "failed": [], "soon": []})

    def days_later(self, days):
        """Moves the clock of the commands that follow ahead."""
        clock = self.folder / "clock.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", clock, ROOT / "ffi-tests/src/clock.c"], check=True)
        self.environment.update(LD_PRELOAD=str(clock), STRONGROOM_TEST_DAYS=str(days))

    def test_what_will_be_due_is_told_with_the_days_that_are_left(self):
        self.init()
        self.managed("create", owner="alice", asset="p256")
        self.config.write_text(CONFIG + "[rotation.assets.aes256]\nrotation_interval_days = 300\n")
        self.managed("create", owner="bob", asset="aes256")
        time.sleep(1.1)  # not in the second in which they were made: 80 days and a moment
        self.days_later(80)
        ask = ["rotate", "--due", "--dry-run", "--pin-source", "env:PIN"]
        (soon,) = self.json(*ask)["soon"]
        self.assertEqual((soon["owner"], soon["days_left"], soon["cause"], soon["automatic"]), ("alice", 9, "age", True))
        self.assertEqual(self.json(*ask, "--warn-days", "8")["soon"], [])
        self.assertEqual(len(self.json(*ask, "--warn-days", "300", code=7)["soon"]), 2)
        self.assertEqual(len(self.json("rotate", "--due", "--warn-days", "14", "--pin-source", "env:PIN", code=7)["soon"]), 1)
        text = self.call(*ask)[0]
        self.assertIn("0 rotated, 0 due, 0 failed, 1 within 14 days\n  soon     p256 key of alice: version 1 from", text)
        self.assertIn("(in 9 days)", text)
        self.call(*ask, "--warn-days", "36501", code=2)
        # The list of keys and doctor tell it too; secret keys do not show without login.
        listed = self.json("key", "list", "--pin-source", "env:PIN")
        self.assertEqual({(key["class"], key["days_left"]) for key in listed}, {("private", 9), ("public", 9), ("secret", 219)})
        self.assertIn("in 219 days", self.call("key", "list", "--pin-source", "env:PIN")[0])
        checks = {check["check"]: check for check in self.json("doctor")["checks"]}
        self.assertEqual(checks["rotation"]["result"], "ok")
        self.assertIn("of 1 managed keys 0 are due, 1 will be within 14 days", checks["rotation"]["text"])
        self.days_later(91)
        self.assertIn("(1 day ago)", self.call(*ask, code=5)[0])
        checks = {check["check"]: check for check in self.json("doctor")["checks"]}
        self.assertEqual(checks["rotation"]["result"], "warn")
        self.assertIn("strongroom rotate --due --token wallet", checks["rotation"]["text"])
        self.days_later(366)
        self.assertIn("makes nothing new since", self.call(*ask, code=5)[0])
        checks = {check["check"]: check for check in self.json("doctor", code=1)["checks"]}
        self.assertEqual(checks["rotation"]["result"], "fail")

    def test_rules_of_one_token_hold_for_it_alone(self):
        rules = "[[token]]\nlabel = \"hot\"\n[token.rotation]\nrotation_interval_days = 5\n"
        self.config.write_text(CONFIG + rules)
        for label in ("hot", "cold"):
            self.init(label)
            self.managed("create", "--token", label)
        self.days_later(6)
        due = ["rotate", "--due", "--pin-source", "env:PIN", "--token"]
        self.assertEqual([len(self.json(*due, label)["rotated"]) for label in ("hot", "cold")], [1, 0])

    def test_every_key_type_is_made_and_listed(self):
        self.init()
        types = ["p256", "p384", "p521", "secp256k1", "ed25519", "x25519", "rsa2048", "aes128", "aes256", "hmac"]
        for key_type in types:
            made = self.generate(f"key {key_type}", key_type)
            self.assertEqual(made["type"], key_type)
            self.assertEqual(bool(made["public_key"]), key_type not in ("aes128", "aes256", "hmac"))
        listed = self.json("key", "list", "--pin-source", "env:PIN")
        secret = {key["type"] for key in listed if key["class"] != "public"}
        self.assertEqual(secret, set(types))
        public = self.json("key", "list", "--public")
        self.assertEqual({key["class"] for key in public}, {"public"})

    def test_an_id_is_kept(self):
        self.init()
        self.assertEqual(self.generate("with id", "p256", "--id", "0A01")["id"], "0a01")
        self.call("key", "generate", "--type", "p256", "--label", "x", "--id", "0a0", code=2)

    def test_r56_a_selector_that_fits_none_or_a_taken_label_is_exit_code_3(self):
        self.assertIn("no token yet", self.call("token", "info", code=3)[1])
        first, second = self.init("wallet"), self.init("purse")
        pins = ["--so-pin-source", "env:SO_PIN", "--pin-source", "env:PIN"]
        self.assertIn(first["serial"], self.call("token", "init", "--label", "wallet", *pins, code=3)[1])
        complaint = self.call("token", "info", code=3)[1]
        self.assertIn(first["serial"], complaint)
        self.assertIn(second["serial"], complaint)
        self.assertIn("wallet", self.call("token", "info", "--token", "bag", code=3)[1])
        self.assertEqual(self.json("token", "info", "--serial", second["serial"])["label"], "purse")
        self.generate("twin", "p256", "--token", "wallet")
        again = ["--type", "p256", "--label", "twin", "--token", "wallet", "--pin-source", "env:PIN"]
        self.assertIn("unique id", self.call("key", "generate", *again, code=3)[1])

    def test_a_wrong_pin_is_exit_code_4(self):
        self.init()
        complaint = json.loads(self.call("--json", "key", "list", "--pin-source", "env:BAD_PIN", code=4)[1].splitlines()[-1])
        self.assertEqual(complaint["error"]["kind"], "CKR_PIN_INCORRECT")

    def test_a_pin_that_breaks_the_rules_is_exit_code_4(self):
        self.environment["PIN"] = "canary"
        pins = ["--so-pin-source", "env:SO_PIN", "--pin-source", "env:PIN"]
        self.call("token", "init", "--label", "wallet", *pins, code=4)

    def test_r64_what_is_in_the_way_after_the_configuration_was_read_is_told(self):
        self.init()
        self.config.write_text(CONFIG + '[log]\nfile = "nowhere/log"\n')
        for verb in ["token", "list"], ["key", "list", "--pin-source", "env:PIN"]:
            self.assertIn("nowhere/log cannot be opened; correct [log] file", self.call(*verb, code=1)[1])

    def test_blanks_at_the_end_of_a_label_make_no_other_token(self):
        self.assertEqual(self.init("wallet ")["label"], "wallet")
        pins = ["--so-pin-source", "env:SO_PIN", "--pin-source", "env:PIN"]
        for label in "wallet", "wallet   ":
            self.assertIn("exists", self.call("token", "init", "--label", label, *pins, code=3)[1])

    def test_a_label_that_moves_the_cursor_is_escaped(self):
        self.init()
        self.generate("a\nb \x1b[2J", "p256")
        self.assertIn("a\\nb \\u{1b}[2J ", self.call("key", "list", "--public")[0])
        self.assertEqual(self.json("key", "list", "--public")[0]["label"], "a\nb \x1b[2J")

    def test_a_result_that_cannot_be_written_is_exit_code_1(self):
        self.init()
        for verb in ["token", "list"], ["audit", "export"], ["--help"]:
            with open("/dev/full", "w") as full:
                done = subprocess.run(
                    [RELEASE / "strongroom", "--config", self.config, *verb], env=self.environment, stdout=full, stderr=subprocess.PIPE
                )
            self.assertEqual(done.returncode, 1, verb)

    def test_a_reader_that_has_seen_enough_is_no_failure(self):
        self.init()
        self.generate("node", "p256")
        for verb in ["token", "list"], ["audit", "export"], ["audit", "show"]:
            reading, writing = os.pipe()
            os.close(reading)
            with open(writing, "w") as gone:
                done = subprocess.run(
                    [RELEASE / "strongroom", "--config", self.config, *verb], env=self.environment, stdout=gone, stderr=subprocess.PIPE
                )
            self.assertEqual(done.returncode, 0, verb)

    def test_arguments_that_are_wrong_are_json_where_that_is_wanted(self):
        error = json.loads(self.call("--json", "token", "info", "--no-such-option", code=2)[1])["error"]
        self.assertEqual(error["kind"], "usage")
        self.assertTrue(error["message"].startswith("unexpected argument '--no-such-option'"), error)
        self.assertTrue(self.call("token", "info", "--no-such-option", code=2)[1].startswith("error: unexpected argument"))

    def test_r56_a_kms_that_the_configuration_has_not_is_exit_code_3(self):
        self.init()
        self.assertIn("it has: local", self.call("kms", "test", "nope", code=3)[1])
        self.assertIn("it has: local", self.call("kms", "move", "--to", "nope", "--pin-source", "env:PIN", code=3)[1])
        recovery = ["recovery", "add", "--name", "x", "--so-pin-source", "env:SO_PIN", "--kms", "nope"]
        self.assertIn("it has: local", self.call(*recovery, code=3)[1])

    def test_r73_a_wrong_configuration_names_file_line_and_key(self):
        self.config.write_text(CONFIG + "passes_ = 3\n")
        complaint = self.call("token", "list", code=1)[1]
        self.assertIn(f"{self.config}:6: argon2.passes_: unknown key; did you mean passes?", complaint)


class Doctor(CommandTest):
    def lines(self, *arguments, code=0):
        report = self.json("doctor", *arguments, code=code)
        self.assertEqual(report["ok"], code == 0)
        return [(line["result"], line["check"], line["text"]) for line in report["checks"]]

    def test_r73_a_token_in_order_signs(self):
        self.init()
        lines = self.lines("--sign", "--pin-source", "env:PIN")
        checks = {check: result for result, check, _ in lines if result == "ok"}
        self.assertLessEqual({"configuration", "store", "token", "signature", "memory"}, set(checks))

    def test_it_changes_nothing(self):
        self.lines()
        self.assertFalse((self.folder / "data").exists())
        self.config.write_text(CONFIG + '[log]\nfile = "log"\n[audit]\nsinks = ["store", "file:audit.jsonl"]\n')
        self.lines()
        self.assertEqual([file.name for file in self.folder.iterdir()], ["strongroom.toml"])

    def faults(self):
        return {check: text for result, check, text in self.lines(code=1) if result == "fail"}

    def test_r73_a_master_key_that_does_not_open_its_token_is_told(self):
        self.init()
        key = self.folder / "data/local-master.key"
        whole = key.read_text()
        key.unlink()
        faults = self.faults()
        self.assertIn('without it nobody can open token "wallet"', faults["kms.local"])
        self.assertIn("the KMS does not open it", faults["token"])
        self.assertFalse(key.exists())
        key.touch(0o600)
        for content in "", "junk", whole[:-9]:
            key.write_text(content)
            self.assertEqual(set(self.faults()), {"kms.local", "token"}, content)
        # The file of another machine is one in order, and opens nothing here.
        key.unlink()
        self.config.write_text(CONFIG.replace("strongroom.db", "other.db"))
        self.init()
        self.config.write_text(CONFIG)
        self.assertEqual(set(self.faults()), {"token"})
        key.write_text(whole)
        self.assertIn("opens it", [text for result, check, text in self.lines() if (result, check) == ("ok", "token")][0])

    def test_r73_a_credential_is_looked_for_where_systemd_puts_it(self):
        self.init()
        self.config.write_text(CONFIG + '[kms.local]\ncredential = "local-master.key"\n')
        self.assertIn("CREDENTIALS_DIRECTORY is not set", self.faults()["kms.local"])
        self.environment["CREDENTIALS_DIRECTORY"] = str(self.folder / "data")
        self.assertIn(("ok", "kms.local"), [(result, check) for result, check, _ in self.lines()])

    def test_r73_what_cannot_be_written_is_told(self):
        self.init()
        self.config.write_text(CONFIG + '[log]\nfile = "nowhere/log"\n[audit]\nsinks = ["store", "file:data"]\n')
        faults = self.faults()
        self.assertIn("nowhere/log cannot be written", faults["log"])
        self.assertIn("data cannot be written", faults["audit"])
        self.assertIn("[log] file", faults["tokens"])
        self.config.write_text(CONFIG.replace("data/", "strongroom.toml/"))
        self.assertIn("is no folder", self.faults()["store"])

    def test_a_pin_source_that_does_not_fit_the_token_is_told(self):
        section = '[[token]]\nlabel = "{}"\npin_source = "kms"\n'
        self.init("with")
        self.config.write_text(CONFIG + section.format("without"))
        self.call("token", "init", "--label", "without", "--so-pin-source", "env:SO_PIN")
        self.assertEqual([text for result, _, text in self.lines() if result == "fail"], [])
        self.config.write_text(CONFIG + section.format("with"))
        faults = sorted(text for result, check, text in self.lines(code=1) if (result, check) == ("fail", "token"))
        self.assertEqual(len(faults), 2)
        self.assertIn('token `with` was made for another pin_source, and has a user PIN: take pin_source = "kms" out', faults[0])
        self.assertIn('token `without` was made for another pin_source, and has no user PIN: write pin_source = "kms"', faults[1])
        complaint = self.call("key", "list", "--token", "without", "--pin-source", "env:PIN", code=1)[1]
        self.assertIn("pin_source", complaint)
        self.assertNotIn("backup", complaint)

    def test_a_token_that_anybody_can_replace_is_warned_of(self):
        self.environment["SOFTHSM2_CONF"] = str(self.folder / "softhsm2.conf")
        (self.folder / "softhsm2.conf").write_text(f"directories.tokendir = {self.folder}\n")
        pin = self.folder / "pin"
        pin.write_text("1234")
        pin.chmod(0o600)
        run = lambda *command: subprocess.run(command, env=self.environment, capture_output=True, check=True)
        run("softhsm2-util", "--init-token", "--free", "--label", "prod", "--so-pin", "12345678", "--pin", "1234")
        keys = ["pkcs11-tool", "--module", SOFTHSM, "--token-label", "prod", "--login", "--pin", "1234"]
        run(*keys, "--keypairgen", "--key-type", "rsa:2048", "--label", "rsa", "--id", "01")
        run(*keys, "--keygen", "--key-type", "aes:32", "--label", "aes", "--id", "02", "--sensitive")
        for key, pin_source, warned in [("aes", "kms", False), ("rsa", "kms", True), ("rsa", "prompt", False)]:
            section = f'[kms.hsm]\ntype = "hsm"\nmodule = "{SOFTHSM}"\nkey = "{key}"\npin_file = "{pin}"\noaep_hash = "sha1"\n'
            label = f"{key}-{pin_source}"
            token = f'[[token]]\nlabel = "{label}"\nkms = "hsm"\npin_source = "{pin_source}"\n'
            self.config.write_text(CONFIG.replace("strongroom.db", f"{label}.db") + section + token)
            pins = ["--so-pin-source", "env:SO_PIN"] + (["--pin-source", "env:PIN"] if pin_source == "prompt" else [])
            told = self.call("token", "init", "--label", label, *pins)[1]
            self.assertEqual("public key (RSA)" in told, warned, told)
            warnings = [text for result, check, text in self.lines() if (result, check) == ("warn", "kms.hsm")]
            self.assertEqual(["public key (RSA)" in text for text in warnings], [True] if warned else [])

    def test_r73_a_damaged_index_is_told_and_repaired(self):
        self.init()
        self.generate("node", "p256")
        path = self.folder / "data/strongroom.db"
        with sqlite3.connect(path) as database:
            database.execute("DELETE FROM object_index WHERE field = 3")
        database.close()
        faults = [text for result, check, text in self.lines(code=1) if (result, check) == ("fail", "store")]
        self.assertTrue(faults and all("strongroom doctor --repair" in text for text in faults), faults)
        repaired = [text for result, check, text in self.lines("--repair") if (result, check) == ("ok", "repair")]
        self.assertEqual(len(repaired), 1)
        self.assertIn(("ok", "store"), [(result, check) for result, check, _ in self.lines()])

    def test_r73_a_repair_does_not_trust_a_damaged_object(self):
        self.init()
        self.generate("node", "p256")
        path = self.folder / "data/strongroom.db"
        with sqlite3.connect(path) as database:
            database.execute("UPDATE object SET entries = zeroblob(length(entries)) WHERE id = 1")
        database.close()
        before = path.read_bytes()
        told = [text for result, check, text in self.lines("--repair", code=1) if (result, check) == ("fail", "repair")]
        self.assertIn("nothing was changed: object number 1 is damaged", told[0])
        self.assertEqual(path.read_bytes(), before)

    def test_r64_a_damaged_token_is_told_and_the_others_are_listed(self):
        self.init("wallet")
        self.init("purse")
        with sqlite3.connect(self.folder / "data/strongroom.db") as database:
            database.execute("UPDATE token SET created = created + 1 WHERE label = 'wallet'")
        database.close()
        self.assertEqual([token["label"] for token in self.json("token", "list")], ["purse"])
        self.assertIn("wallet", "".join(text for result, _, text in self.lines(code=1) if result == "fail"))

    def test_faults_are_exit_code_1(self):
        self.init()
        os.chmod(self.folder / "data/strongroom.db", 0o644)
        self.assertIn("fail", [result for result, check, _ in self.lines(code=1) if check == "store"])
        os.chmod(self.folder / "data/strongroom.db", 0o600)
        os.chmod(self.config, 0o666)
        self.assertIn("fail", [result for result, check, _ in self.lines(code=1) if check == "configuration"])
        self.config.write_text("[store\n")
        self.assertIn("fail", [result for result, check, _ in self.lines(code=1) if check == "configuration"])

    def test_a_database_that_is_none_is_a_fault(self):
        (self.folder / "data").mkdir()
        (self.folder / "data/strongroom.db").write_bytes(b"this is no database, whatever its name says" * 100)
        os.chmod(self.folder / "data/strongroom.db", 0o600)
        self.assertIn("fail", [result for result, check, _ in self.lines(code=1) if check == "store"])


class Audit(CommandTest):
    def setUp(self):
        super().setUp()
        self.init()
        self.generate("node", "p256")
        self.database = self.folder / "data/strongroom.db"

    def verify(self, *more, **options):
        return self.json("audit", "verify", "--pin-source", "env:PIN", *more, **options)

    def run_sql(self, statement):
        with sqlite3.connect(self.database) as database:
            database.execute(statement)
        database.close()

    def test_r75_a_whole_trail_is_verified_exported_and_shown(self):
        report = self.verify()
        self.assertTrue(report["ok"] and report["signatures_checked"])
        self.assertEqual(report["signed_to"], report["last"])
        lines = [json.loads(line) for line in self.call("audit", "export")[0].splitlines()]
        self.assertEqual([line["sequence"] for line in lines], list(range(1, report["last"] + 1)))
        made = [line for line in lines if line["operation"] == "C_GenerateKeyPair"]
        self.assertEqual((len(made), len(made[0]["keys"]), made[0]["uid"]), (1, 2, os.geteuid()))
        self.assertTrue(made[0]["executable"].endswith("/strongroom"))
        self.assertEqual(self.json("audit", "show", "--last", "2"), lines[-2:])
        later = self.call("audit", "export", "--after", "2")[0].splitlines()
        self.assertEqual([json.loads(line) for line in later], lines[2:])
        self.assertIn("C_GenerateKeyPair", self.call("audit", "show")[0])

    def test_r75_an_altered_record_is_exit_code_1_and_its_place_is_told(self):
        self.run_sql("UPDATE audit SET hash = zeroblob(32) WHERE sequence = 3")
        for more in ([], ["--chain-only"]):
            self.assertEqual(self.verify(*more, code=1)["faults"][0]["sequence"], 3)
        self.assertIn("record 3 ", self.call("audit", "verify", "--chain-only", code=1)[0])

    def test_r75_a_lost_end_is_found_by_who_kept_the_head(self):
        report = self.verify()
        head = f"{report['last']}:{report['head']}"
        self.assertTrue(self.verify("--expect", head)["ok"])
        self.run_sql(f"DELETE FROM audit WHERE sequence >= {report['last']}")
        (fault,) = self.json("audit", "verify", "--chain-only", code=1)["faults"]
        self.assertIn("the end is cut off", fault["text"])
        self.assertFalse(self.verify("--expect", head, code=1)["ok"])
        self.call("audit", "verify", "--expect", "head", code=2)

    def test_r75_an_old_copy_is_found_by_who_kept_the_head(self):
        files = {file: file.read_bytes() for file in self.database.parent.glob("strongroom.db*")}
        report = self.verify()
        for file in self.database.parent.glob("strongroom.db*"):
            file.unlink()
        for file, content in files.items():
            file.write_bytes(content)
        self.assertTrue(self.verify()["ok"])
        head = f"{report['last']}:{report['head']}"
        self.assertFalse(self.verify("--expect", head, code=1)["ok"])

    def test_r75_a_copy_is_held_against_the_trail(self):
        copy = self.folder / "audit.jsonl"
        self.config.write_text(CONFIG + '[audit]\nsinks = ["store", "file:audit.jsonl"]\n')
        self.generate("other", "p256")
        self.generate("third", "p256")
        report = self.verify("--copy", copy)["copy"]
        lines = copy.read_text().splitlines()
        self.assertTrue(report["ok"])
        self.assertGreater(report["first"], 1, "what was before the copy is not missing in it")
        self.assertEqual(report["lines"], report["last"] - report["first"] + 1)

        def fault(altered):
            altered_copy = self.folder / "altered.jsonl"
            altered_copy.write_text("".join(f"{line}\n" for line in altered))
            return self.json("audit", "verify", "--chain-only", "--copy", altered_copy, code=1)["copy"]["faults"][0]

        for number, line in enumerate(lines):
            self.assertEqual(fault([*lines[:number], line[:-2], *lines[number + 1 :]])["line"], number + 1)
            changed = json.dumps({**json.loads(line), "operation": "C_Other"}, separators=(",", ":"))
            self.assertIn("differs", fault([*lines[:number], changed, *lines[number + 1 :]])["text"])
            self.assertIn("once more", fault([*lines, line])["text"])
        self.assertIn("missing", fault([*lines[:2], *lines[3:]])["text"])
        made_up = json.dumps({**json.loads(lines[0]), "sequence": 1000}, separators=(",", ":"))
        self.assertIn("record 1000, which the trail does not have", fault([*lines, made_up])["text"])
        self.assertTrue(self.json("audit", "verify", "--chain-only", "--copy", copy)["copy"]["ok"])
        self.call("audit", "verify", "--chain-only", "--copy", self.folder / "none", code=1)


if __name__ == "__main__":
    unittest.main()
