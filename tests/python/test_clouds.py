"""Tokens under each cloud's KMS and keys that live there, through the command and stock tools, with the requests counted."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from test_emulators import CA, KEY, AzureTest, AwsTest, EmulatorTest, ROOT, request

RELEASE = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "release"
MODULE = RELEASE / "libstrongroom.so"
PINS = {"SO_PIN": "so-pin-123", "PIN": "user-pin-123"}
TOKENS = """
[store]
url = "sqlite:strongroom.db"
[argon2]
memory_mib = 8
passes = 1
[[token]]
label = "wallet"
kms = "cloud"
[[token]]
label = "cloud"
remote = "cloud"
keys = []
pin_source = "kms"
"""
SIGN_THOUSAND = """
import os, sys
sys.path.insert(0, sys.argv[1])
import strongroom
with strongroom.Module() as module, module.token("wallet").open(pin=os.environ["PIN"]) as session:
    key = session.key(label="key-0")
    for count in range(1000):
        key.sign(b"%d" % count)
"""

# Makes keys that are due after one use, and uses each once.
USE_UP = """
import os, sys
sys.path.insert(0, sys.argv[1])
import strongroom
with strongroom.Module() as module, module.token("wallet").open(pin=os.environ["PIN"]) as session:
    for count in range(100):
        key = session.generate_managed_key(f"user {count}", "p256")
        key.set_policy(90, 365, True, max_key_uses=1)
        key.key().sign(b"the only one")
"""

SIGN_SCOPED = """
import os, sys
sys.path.insert(0, sys.argv[1])
import strongroom
with strongroom.Module() as module, module.token("scoped").open(pin=os.environ["PIN"]) as session:
    for round in range(100):
        for count in range(3):
            session.managed_key(f"scoped {count}", "p256").key().sign(b"%d" % round)
"""

# Opens the token and says so; signs when it is told to.
SIGN_LATER = """
import os, sys
sys.path.insert(0, sys.argv[1])
import strongroom
with strongroom.Module() as module, module.token("wallet").open(pin=os.environ["PIN"]) as session:
    key = session.generate_key_pair("p256", label="outage", temporary=True)
    print("open", flush=True)
    sys.stdin.readline()
    for count in range(100):
        assert key.verify(b"%d" % count, key.sign(b"%d" % count))
    session.generate_key_pair("ed25519", label="made in an outage")
"""


class Cloud(EmulatorTest):
    """A store whose tokens are under an emulator's KMS, with a counting proxy before it."""

    cloud = None
    scheme = "http"
    # What opening a token costs, and what a rotation costs beside that.
    opening, rotation = 1, 3
    # What wrapping a data key costs.
    wrapping = 1

    @classmethod
    def setUpClass(cls):
        cls.upstream = cls.run_emulator(cls.cloud, scheme=cls.scheme)
        cls.proxy = cls.run_emulator("faults", "--cloud", cls.cloud, "--upstream", cls.upstream, scheme=cls.scheme)
        cls.url = cls.upstream
        section = cls.make_master_key(cls())
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.config = cls.folder / "strongroom.toml"
        cls.config.write_text(f"[kms.cloud]\ntype = \"{cls.cloud}\"\n{section}{TOKENS}")
        cls.environment = {**os.environ, **PINS, **cls.credentials, "STRONGROOM_CONFIG": str(cls.config)}
        cls.environment["PKCS11_MODULE_PATH"] = cls.environment["STRONGROOM_LIBRARY"] = str(MODULE)
        for label in ("wallet", "cloud"):
            cls.command("token", "init", "--label", label, "--so-pin-source", "env:SO_PIN", "--pin-source", "env:PIN")

    @classmethod
    def run_tool(cls, *arguments, code=0):
        done = subprocess.run(arguments, env=cls.environment, cwd=cls.folder, capture_output=True, timeout=120)
        if done.returncode != code:
            raise AssertionError(f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr.decode()}")
        return done.stdout.decode(errors="replace")

    @classmethod
    def command(cls, *arguments, code=0):
        return cls.run_tool(RELEASE / "strongroom", "--json", *arguments, code=code)

    def hits(self):
        """How many requests of the KMS's own the proxy has seen, by operation."""
        hits = json.loads(request("GET", self.proxy + "/_faults")[2])["hits"]
        return {operation: count for operation, count in hits.items() if operation not in self.not_counted}

    def counted(self, action):
        """Runs an action and tells the requests that it cost."""
        before = self.hits()
        action()
        return {name: count - before.get(name, 0) for name, count in self.hits().items() if count != before.get(name, 0)}

    def pkcs11_tool(self, label, *arguments):
        return self.run_tool("pkcs11-tool", "--module", MODULE, "--token-label", label, *arguments)

    def test_a_provider_is_tested_by_the_command(self):
        tested = json.loads(self.command("kms", "test", "cloud"))
        self.assertEqual((tested["type"], tested["state"]), (self.cloud, "enabled"))
        self.assertEqual(set(tested["milliseconds"]), {"describe", "wrap", "unwrap"})
        self.assertIn({"name": "cloud", "type": self.cloud, "default": False, "tokens": ["wallet", "cloud"], "scope": "token"},
                      json.loads(self.command("kms", "list")))

    def test_a_token_costs_one_request_to_open_and_none_to_sign(self):
        for count in range(3):
            self.command("key", "generate", "--token", "wallet", "--type", "p256", "--label", f"key-{count}",
                         "--pin-source", "env:PIN")
        opened = self.counted(lambda: self.command("key", "list", "--token", "wallet", "--pin-source", "env:PIN"))
        self.assertEqual(sum(opened.values()), self.opening, opened)
        script = self.folder / "sign.py"
        script.write_text(SIGN_THOUSAND)
        signed = self.counted(lambda: self.run_tool(sys.executable, script, ROOT / "bindings/python"))
        self.assertEqual(sum(signed.values()), self.opening, signed)

    def test_rotating_due_keys_costs_no_request_but_that_which_opens_the_token(self):
        script = self.folder / "due.py"
        script.write_text(USE_UP)
        self.run_tool(sys.executable, script, ROOT / "bindings/python")
        reports = []
        due = ("rotate", "--due", "--token", "wallet", "--pin-source", "env:PIN")
        rotated = self.counted(lambda: reports.append(json.loads(self.command(*due))))
        self.assertEqual([len(reports[0][field]) for field in ("rotated", "due", "failed")], [100, 0, 0])
        self.assertEqual(sum(rotated.values()), self.opening, rotated)

    def test_an_outage_does_not_stop_a_token_that_is_open(self):
        """R-68, R-64: what is open goes on; what is not says why, and the slots are still listed."""
        script = self.folder / "outage.py"
        script.write_text(SIGN_LATER)
        signer = subprocess.Popen([sys.executable, script, ROOT / "bindings/python"], env=self.environment, text=True,
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertEqual(signer.stdout.readline(), "open\n")
        request("POST", self.proxy + "/_faults", {"fault": "drop", "times": 0})
        try:
            _, errors = signer.communicate("\n", timeout=60)
            self.assertEqual(signer.returncode, 0, errors)
            self.assertEqual(len(json.loads(self.command("token", "list"))), 2)
            self.command("key", "list", "--token", "wallet", "--pin-source", "env:PIN", code=1)
        finally:
            request("DELETE", self.proxy + "/_faults")
        self.command("key", "list", "--token", "wallet", "--pin-source", "env:PIN")

    def test_a_master_key_rotates_in_at_most_three_requests_and_a_token_moves_away_and_back(self):
        token = ["--token", "wallet", "--pin-source", "env:PIN"]
        # One of them opens the token in this fresh process.
        rotated = self.counted(lambda: self.command("kms", "rotate", *token))
        self.assertLessEqual(sum(rotated.values()) - self.opening, self.rotation, rotated)
        self.command("key", "list", *token)
        self.command("kms", "move", *token, "--to", "local")
        opened = self.counted(lambda: self.command("key", "list", *token))
        self.assertEqual(opened, {}, "the cloud is not asked for a token that has moved away")
        self.command("kms", "move", *token, "--to", "cloud")
        opened = self.counted(lambda: self.command("key", "list", *token))
        self.assertEqual(sum(opened.values()), self.opening, opened)

    def test_with_the_scope_of_keys_each_key_is_one_request_a_login(self):
        token, plain = ["--token", "scoped", "--pin-source", "env:PIN"], self.config.read_text()
        self.addCleanup(self.config.write_text, plain)
        scoped = plain.replace("[kms.cloud]\n", '[kms.local]\nscope = "key"\n[kms.cloud]\nscope = "key"\n')
        self.config.write_text(scoped + '[[token]]\nlabel = "scoped"\nkms = "cloud"\n')
        self.command("token", "init", "--label", "scoped", "--so-pin-source", "env:SO_PIN", "--pin-source", "env:PIN")
        for count in range(3):
            named = ["--owner", f"scoped {count}", "--asset", "p256"]
            made = self.counted(lambda: self.command("key", "create", *token, *named))
            self.assertEqual(sum(made.values()), self.opening + self.wrapping, made)
        script = self.folder / "scope.py"
        script.write_text(SIGN_SCOPED)
        signed = self.counted(lambda: self.run_tool(sys.executable, script, ROOT / "bindings/python"))
        self.assertEqual(sum(signed.values()), self.opening + 3, signed)
        # Each is wrapped anew, and taken along to another KMS and back.
        rotated = []
        requests = self.counted(lambda: rotated.append(json.loads(self.command("kms", "rotate", *token))["keys"]))
        self.assertEqual(rotated, [3])
        self.assertLessEqual(sum(requests.values()), self.opening + self.rotation + (1 + self.wrapping) * 3, requests)
        self.assertEqual(json.loads(self.command("kms", "move", *token, "--to", "local"))["keys"], 3)
        self.assertEqual(self.counted(lambda: self.run_tool(sys.executable, script, ROOT / "bindings/python")), {})
        self.assertEqual(json.loads(self.command("kms", "move", *token, "--to", "cloud"))["keys"], 3)
        signed = self.counted(lambda: self.run_tool(sys.executable, script, ROOT / "bindings/python"))
        self.assertEqual(sum(signed.values()), self.opening + 3, signed)

    def test_openssl_signs_a_request_with_a_key_that_lives_there(self):
        """R-11, R-49: a stock template makes the key, and OpenSSL's engine signs a CSR with it."""
        self.pkcs11_tool("cloud", "--keypairgen", "--key-type", "EC:prime256v1", "--label", "tls", "--id", "01")
        listed = self.pkcs11_tool("cloud", "--list-objects")
        self.assertEqual(listed.count(" tls\n"), 2, listed)
        signed = self.counted(lambda: self.sign_csr("tls"))
        self.assertEqual(sum(count for name, count in signed.items() if "sign" in name.lower()), self.opening, signed)
        verified = self.run_tool("openssl", "req", "-in", "tls.csr", "-noout", "-verify", "-subject")
        self.assertIn("CN = strongroom", verified)
        # A certificate can be stored beside the key.
        self.run_tool("openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-keyout", "ca.key", "-out", "ca.pem",
                      "-subj", "/CN=ca", "-outform", "DER")
        self.pkcs11_tool("cloud", "--write-object", "ca.pem", "--type", "cert", "--label", "ca", "--id", "02")
        self.assertIn("Certificate Object", self.pkcs11_tool("cloud", "--list-objects"))

    def test_keys_of_the_account_show_once_however_many_find_them_at_once(self):
        """R-65: what the account has shows in another store, without being made there."""
        self.pkcs11_tool("cloud", "--keypairgen", "--key-type", "EC:prime256v1", "--label", "shared", "--id", "03")
        config = self.folder / "other.toml"
        config.write_text(self.config.read_text().replace("strongroom.db", "other.db"))
        other = [RELEASE / "strongroom", "--json", "--config", config]
        self.run_tool(*other, "token", "init", "--label", "cloud", "--so-pin-source", "env:SO_PIN")
        finders = [subprocess.Popen([*other, "key", "list", "--token", "cloud"], env=self.environment, cwd=self.folder,
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)]
        for finder in finders:
            _, errors = finder.communicate(timeout=60)
            self.assertEqual(finder.returncode, 0, errors)
        listed = json.loads(self.run_tool(*other, "key", "list", "--token", "cloud"))
        shown = [(key["class"], key["id"]) for key in listed]
        self.assertEqual(len(shown), len(set(shown)), listed)
        self.assertEqual({kind for kind, _ in shown}, {"private", "public"})
        self.assertEqual(self.counted(lambda: self.run_tool(*other, "key", "list", "--token", "cloud")), {})

    def sign_csr(self, label):
        key = f"pkcs11:token=cloud;object={label};type=private"
        self.run_tool("openssl", "req", "-new", "-engine", "pkcs11", "-keyform", "engine", "-key", key,
                      "-subj", "/CN=strongroom", "-out", f"{label}.csr")


class Aws(Cloud):
    cloud = "aws"
    not_counted = ()
    credentials = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1",
                   "AWS_EC2_METADATA_DISABLED": "true"}
    kms = AwsTest.kms

    def make_master_key(self):
        key = self.kms("CreateKey")["KeyMetadata"]["KeyId"]
        self.kms("CreateAlias", AliasName="alias/tokens", TargetKeyId=key)
        return f'key = "alias/tokens"\nendpoint = "{self.proxy}"\n'


class Google(Cloud):
    cloud = "google"
    not_counted = ("token",)
    credentials = {}

    def make_master_key(self):
        ring = KEY.partition("/cryptoKeys/")[0]
        request("POST", self.url + ring.rpartition("/")[0] + "?keyRingId=r", {})
        request("POST", self.url + ring + "/cryptoKeys?cryptoKeyId=k", {"purpose": 1})
        return f'key = "{KEY.removeprefix("/v1/")}"\nendpoint = "{self.proxy}"\nanonymous = true\n'


class Azure(Cloud):
    cloud = "azure"
    scheme = "https"
    # The first request of a process is answered with the challenge that says where to log in.
    opening = 2
    # It is asked which version there is, and that wraps.
    wrapping = 2
    not_counted = ("token",)
    credentials = {"AZURE_CLIENT_SECRET": "test-secret"}
    token, vault = AzureTest.token, AzureTest.vault

    def make_master_key(self):
        self.vault("POST", "/keys/master/create", {"kty": "RSA"})
        return (f'vault = "{self.proxy}"\nkey = "master"\ncredential = "service-principal"\n'
                'tenant = "11111111-1111-1111-1111-111111111111"\nclient_id = "22222222-2222-2222-2222-222222222222"\n'
                f'authority = "{self.proxy}"\nca_file = "{CA}"\nverify_challenge_resource = false\n')


# Else pytest would run them here as well.
del Cloud, EmulatorTest, AwsTest, AzureTest
