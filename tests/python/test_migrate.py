"""Moving keys in from other systems (R-39): published keys, files made by OpenSSL, tokens made by SoftHSM2."""

import json
import os
import pathlib
import re
import subprocess
import unittest

from test_command import PIN, RELEASE, CommandTest

#: The Bitcoin wiki, "Wallet import format": the key and its uncompressed address.
WIF = "5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTJ"
WIF_SECRET = "0c28fca386c7a227600b2fe50b7cae11ec86d3bf1fbe471be89827e19d72aa1d"
#: Web3 Secret Storage Definition, test vector PBKDF2-SHA-256.
KEYSTORE = {
    "crypto": {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": "6087dab2f9fdbbfaddc31a909735c1e6"},
        "ciphertext": "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
        "kdf": "pbkdf2",
        "kdfparams": {
            "c": 262144,
            "dklen": 32,
            "prf": "hmac-sha256",
            "salt": "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd",
        },
        "mac": "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2",
    },
    "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
    "version": 3,
}
KEYSTORE_SECRET = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d"
#: What a key of each type is made by, and how it signs: pkcs11-tool's mechanism, and what OpenSSL needs to verify.
TYPES = {
    "rsa2048": (["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], "SHA256-RSA-PKCS", ["-digest", "sha256"]),
    "p256": (["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], "ECDSA-SHA256", ["-digest", "sha256"]),
    "p384": (["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"], "ECDSA-SHA384", ["-digest", "sha384"]),
    "p521": (["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"], "ECDSA-SHA512", ["-digest", "sha512"]),
    "secp256k1": (["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"], "ECDSA-SHA256", ["-digest", "sha256"]),
    "ed25519": (["-algorithm", "ED25519"], "EDDSA", []),
}
SOFTHSM = "/usr/lib/softhsm/libsofthsm2.so"


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, **options)
    assert done.returncode == 0, f"{command}: {done.stdout!r} {done.stderr!r}"
    return done.stdout


def usages(listed):
    """Reads the usages of each key from what pkcs11-tool lists. Signing with recovery is no usage that there is here."""
    found = re.findall(r"label: +(.*)\n(?: .*\n)*? +Usage: +(.*)", listed.decode())
    return {label: set(words.split(", ")) - {"signRecover"} for label, words in found}


class Migrate(CommandTest):
    def setUp(self):
        super().setUp()
        self.init()
        self.source = self.folder / "source"
        self.source.mkdir()
        self.environment["PASSWORD"] = "canary-password"

    def move(self, verb, *arguments, code=0):
        """Moves something, checks that the sources stay as they are, and gives the report."""
        before = self.contents()
        report = self.json("migrate", verb, "--pin-source", "env:PIN", *map(str, arguments), code=code)
        self.assertEqual(before, self.contents())
        return report

    def contents(self):
        """Reads all sources, but for the file in which SoftHSM2 itself counts logins."""
        files = [path for path in self.source.rglob("*") if path.is_file() and path.name not in ("token.object", "generation")]
        return {path: path.read_bytes() for path in files}

    def results(self, report):
        return [record["result"] for record in report["records"]]

    def versions(self, owner, asset):
        return json.loads(self.managed("versions", owner=owner, asset=asset)[0])

    def managed(self, verb, *more, code=0, owner, asset):
        return self.call("--json", "key", verb, "--owner", owner, "--asset", asset, "--pin-source", "env:PIN", *more, code=code)

    def pkcs11_tool(self, *arguments):
        environment = {**self.environment, "STRONGROOM_CONFIG": str(self.config), "STRONGROOM_LOG": "error"}
        start = ["pkcs11-tool", "--module", RELEASE / "libstrongroom.so", "--login", "--pin", PIN]
        return run(*start, *arguments, env=environment)

    def assert_signs(self, key_type, public, *selector):
        """Signs with the key that was moved, and lets OpenSSL verify with the public key from before."""
        _, mechanism, verify = TYPES[key_type]
        message, signature = self.folder / "message", self.folder / "signature"
        message.write_bytes(b"moved, and still the same key")
        form = ["--signature-format", "openssl"] if mechanism.startswith("ECDSA") else []
        files = ["--input-file", message, "--output-file", signature]
        self.pkcs11_tool("--sign", "--mechanism", mechanism, *form, *files, *selector)
        run("openssl", "pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", *verify, "-in", message, "-sigfile", signature)

    def assert_nowhere(self, *secrets):
        """Searches the database for secrets in hexadecimal, as text and as bytes."""
        for path in (self.folder / "data").iterdir():
            content = path.read_bytes()
            for secret in secrets:
                for form in (secret.encode(), secret.upper().encode(), bytes.fromhex(secret), bytes.fromhex(secret)[::-1]):
                    self.assertNotIn(form, content, path)

    def generate_file(self, name, key_type):
        """Makes a key with OpenSSL, in PKCS #8 without a password, and its public key beside the sources."""
        path, public = self.source / name, self.folder / f"{name}.pub"
        run("openssl", "genpkey", *TYPES[key_type][0], "-out", path)
        run("openssl", "pkey", "-in", path, "-pubout", "-out", public)
        return path, public

    # -- WIF and keystores

    def test_a_bitcoin_key_is_moved(self):
        path = self.source / "alice.wif"
        path.write_text(WIF + "\n")
        self.assertEqual(self.results(self.move("wif", "--owner", "alice", "--dry-run", path)), ["importable"])
        self.managed("versions", owner="alice", asset="btc", code=3)
        (record,) = self.move("wif", "--owner", "alice", path)["records"]
        self.assertEqual((record["result"], record["asset"], record["version"]), ("imported", "btc", 1))
        self.assertIn("uncompressed", record["reason"])
        (version,) = self.versions("alice", "btc")
        self.assertEqual(version["addresses"]["p2pkh-uncompressed"], "1GAehh7TsJAHuUAeKZcXf5CnwuGuGgyX2S")
        self.assertEqual(self.results(self.move("wif", "--owner", "alice", path)), ["present"])
        path.write_text("KwDiBf89QgGbjEhKnhXJuH7LrciVrZi3qYjgd9M7rFU73sVHnoWn")
        (record,) = self.move("wif", "--owner", "alice", path, code=6)["records"]
        self.assertEqual(record["result"], "failed")
        self.assertIn("nothing was overwritten", record["reason"])
        self.assert_nowhere(WIF_SECRET)

    def test_a_folder_of_files_names_owners_and_a_bad_one_stops_none(self):
        for name, text in {"a": WIF, "b": "L44B5gGEpqEDRS9vVPz7QT35jcBG2r3CZwSwQ4fCewXAhAhqGVpP", "c": "no key"}.items():
            (self.source / f"{name}.wif").write_text(text)
        self.call("migrate", "wif", "--pin-source", "env:PIN", str(self.source), code=2)
        self.call("migrate", "wif", "--pin-source", "env:PIN", "--owner", "a", str(self.source), code=2)
        report = self.move("wif", "--owner-from-file", self.source, code=6)
        self.assertEqual([(record["owner"], record["result"]) for record in report["records"]],
                         [("a", "imported"), ("b", "imported"), ("c", "failed")])
        self.assertEqual((report["imported"], report["present"], report["failed"]), (2, 0, 1))
        text = self.call("migrate", "wif", "--pin-source", "env:PIN", "--owner-from-file", str(self.source), code=6)[0]
        self.assertRegex(text, r"^0 imported, 2 present, 1 failed\nRESULT +SOURCE")
        self.call("migrate", "wif", "--pin-source", "env:PIN", "--owner", "x", str(self.source / "none"), code=6)

    def test_an_ethereum_keystore_is_moved(self):
        path = self.source / "alice.json"
        path.write_text(json.dumps(KEYSTORE))
        self.environment["WRONG"] = "canary-other"
        (record,) = self.move("keystore", "--owner", "alice", "--password-source", "env:WRONG", path, code=6)["records"]
        self.assertIn("password is wrong", record["reason"])
        password = self.folder / "password"
        password.write_text("testpassword\n")
        (record,) = self.move("keystore", "--owner", "alice", "--password-source", f"file:{password}", path)["records"]
        self.assertEqual(record["address"].lower(), "0x008aeeda4d805471df9b2a5b0f38a0c3bcba786b")
        self.assert_nowhere(KEYSTORE_SECRET)

    # -- Legacy records

    def test_legacy_records_are_moved_with_a_report(self):
        path, report = self.source / "records.jsonl", self.folder / "report.jsonl"
        records = [{"owner": f"o{number}", "asset": "eth", "ciphertext": f"{number:064x}"} for number in range(1, 251)]
        lines = [json.dumps(record) for record in records]
        path.write_text("\n".join(lines[:200] + ["what is this"] + lines[200:]) + "\n")
        told = self.move("legacy", "--strict", path, code=6)
        self.assertEqual((told["imported"], told["withheld"], told["failed"]), (0, 250, 1))
        told = self.move("legacy", "--report", report, path, code=6)
        self.assertEqual((told["imported"], told["present"], told["failed"]), (250, 0, 1))
        self.assertEqual([record["line"] for record in told["records"]], [201])
        lines = [json.loads(line) for line in report.read_text().splitlines()]
        self.assertEqual([line["line"] for line in lines], list(range(1, 252)))
        # The private key 1.
        self.assertEqual(lines[0]["address"], "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf")
        self.assertEqual(report.stat().st_mode & 0o777, 0o600)
        self.call("migrate", "legacy", "--pin-source", "env:PIN", "--report", str(report), str(path), code=1)
        self.assertEqual(self.move("legacy", path, code=6)["present"], 250)
        # A record of its own for each key, none for what was there already, and the chain of records is whole.
        trail = [json.loads(line) for line in self.call("audit", "export")[0].splitlines()]
        moved = [record for record in trail if record["operation"] == "SR_ImportLegacyHex" and record["keys"]]
        self.assertEqual({record["owner"] for record in moved}, {f"o{number}" for number in range(1, 251)})
        self.assertEqual(len(moved), 250)
        self.assertEqual({(record["asset"], len(record["keys"])) for record in moved}, {("eth", 2)})
        self.assertEqual(moved[-1]["detail"], "from line 251")
        self.assertTrue(self.json("audit", "verify", "--pin-source", "env:PIN")["ok"])

    # -- PKCS #8

    def test_each_type_of_key_signs_after_its_move(self):
        for key_type in TYPES:
            path, public = self.generate_file(f"{key_type}.pem", key_type)
            (record,) = self.move("pkcs8", path)["records"]
            self.assertEqual((record["result"], record["label"]), ("imported", key_type))
            self.assert_signs(key_type, public, "--id", record["id"])
            self.assertEqual(self.results(self.move("pkcs8", path)), ["present"])
            (record,) = self.move("pkcs8", "--owner", "alice", path)["records"]
            self.assertEqual((record["result"], record["asset"]), ("imported", key_type))
        other, _ = self.generate_file("other.pem", "p256")
        (record,) = self.move("pkcs8", "--owner", "alice", other, code=6)["records"]
        self.assertIn("another one", record["reason"])
        (record,) = self.move("pkcs8", "--owner", "bob", "--asset", "eth", other, code=6)["records"]
        self.assertIn("another type than a eth key", record["reason"])

    def test_der_and_every_encryption_are_read(self):
        password = ["-passout", "env:PASSWORD"]
        schemes = {
            "default": [],
            "aes128": ["-v2", "aes-128-cbc"],
            "sha1": ["-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA1"],
            "sha512": ["-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA512"],
            "des3": ["-v2", "des3"],
            "scrypt": ["-scrypt"],
            "pbes1": ["-v1", "PBE-SHA1-3DES"],
        }
        plain, public = self.generate_file("plain.pem", "p256")
        for name, scheme in schemes.items():
            for form in ("PEM", "DER"):
                path = self.source / f"{name}.{form}"
                run("openssl", "pkcs8", "-topk8", "-in", plain, "-outform", form, "-out", path, *scheme, *password,
                    env={**self.environment})
                arguments = ["--label", f"{name} {form}", "--id", "0a", "--password-source", "env:PASSWORD", path]
                (record,) = self.move("pkcs8", *arguments)["records"]
                # One key: the first is imported, and the others are found to be the same.
                self.assertIn(record["result"], ("imported", "present"), (name, form, record))
                (record,) = self.move("pkcs8", "--password-source", "env:PIN", path, code=6)["records"]
                self.assertIn("password is wrong", record["reason"])
        run("openssl", "pkcs8", "-topk8", "-nocrypt", "-in", plain, "-outform", "DER", "-out", self.source / "plain.der")
        self.assertEqual(self.results(self.move("pkcs8", "--id", "0a", self.source / "plain.der")), ["present"])
        self.assert_signs("p256", public, "--id", "0a")

    def test_files_that_are_no_key_say_what_to_do(self):
        key, _ = self.generate_file("key.pem", "rsa2048")
        text = key.read_text()
        run("openssl", "pkey", "-in", key, "-traditional", "-out", self.source / "old.pem")
        run("openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024", "-out", self.source / "short.pem")
        run("openssl", "genpkey", "-algorithm", "X448", "-out", self.source / "x448.pem")
        run("openssl", "pkey", "-in", key, "-pubout", "-out", self.source / "public.pem")
        for name, content, words in [
            ("old.pem", None, "openssl pkcs8 -topk8"),
            ("short.pem", None, "2048 to 4096 bits"),
            ("x448.pem", None, "supported"),
            ("public.pem", None, "no PRIVATE KEY"),
            ("two.pem", text + text, "more than one private key"),
            ("cut.pem", text[: len(text) // 2], "no end"),
            ("altered.pem", text.replace("A", "!", 1) if "A" in text[30:] else text + "x", "damaged"),
            ("empty.pem", "", "empty"),
            ("noise.pem", "\0\1\2", "no PKCS #8"),
        ]:
            path = self.source / name
            if content is not None:
                path.write_text(content)
            (record,) = self.move("pkcs8", path, code=6)["records"]
            self.assertEqual(record["result"], "failed")
            self.assertIn(words, record["reason"], name)

    # -- PKCS #12

    def certificates(self):
        """Makes a CA, and a key with a certificate of it."""
        key, public = self.generate_file("server.pem", "p256")
        ca, _ = self.generate_file("ca.pem", "p384")
        for path in (key, ca):
            path.rename(self.folder / path.name)
        key, ca = self.folder / "server.pem", self.folder / "ca.pem"
        subject = ["-days", "9", "-subj"]
        run("openssl", "req", "-x509", "-key", ca, "-out", self.folder / "ca.crt", *subject, "/CN=Test CA")
        run("openssl", "req", "-new", "-key", key, "-out", self.folder / "server.csr", "-subj", "/CN=server.test")
        run("openssl", "x509", "-req", "-in", self.folder / "server.csr", "-CA", self.folder / "ca.crt", "-CAkey", ca,
            "-days", "9", "-out", self.folder / "server.crt")
        return key, public

    def export(self, name, key, *more):
        path = self.source / name
        run("openssl", "pkcs12", "-export", "-inkey", key, "-in", self.folder / "server.crt", "-certfile",
            self.folder / "ca.crt", "-passout", "env:PASSWORD", "-out", path, *more, env=self.environment)
        return path

    def test_a_pkcs12_file_brings_key_and_certificates(self):
        key, public = self.certificates()
        legacy = ["-keypbe", "PBE-SHA1-3DES", "-certpbe", "PBE-SHA1-3DES", "-macalg", "sha1"]
        modern = self.export("modern.p12", key, "-name", "my server")
        (record,) = self.move("pkcs12", "--password-source", "env:PIN", modern, code=6)["records"]
        self.assertIn("password is wrong", record["reason"])
        (record,) = self.move("pkcs12", "--password-source", "env:PASSWORD", modern)["records"]
        self.assertEqual((record["result"], record["label"]), ("imported", "my server"))
        self.assert_signs("p256", public, "--id", record["id"])
        listed = self.pkcs11_tool("--list-objects", "--type", "cert").decode()
        self.assertEqual(len(re.findall("^Certificate Object", listed, re.M)), 2)
        self.assertRegex(listed, rf"label: +my server\n(.*\n)*? +ID: +{record['id']}")
        found = self.pkcs11_tool("--read-object", "--type", "cert", "--id", record["id"])
        self.assertEqual(found, run("openssl", "x509", "-in", self.folder / "server.crt", "-outform", "DER"))
        # The older encryption, and once more.
        for path in (modern, self.export("legacy.p12", key, "-name", "my server", *legacy)):
            self.assertEqual(self.results(self.move("pkcs12", "--password-source", "env:PASSWORD", path)), ["present"])
        listed = self.pkcs11_tool("--list-objects", "--type", "cert").decode()
        self.assertEqual(len(re.findall("^Certificate Object", listed, re.M)), 2)
        (record,) = self.move("pkcs12", "--owner", "alice", "--password-source", "env:PASSWORD", modern)["records"]
        self.assertEqual((record["result"], record["owner"], record["asset"]), ("imported", "alice", "p256"))
        certificate = self.pkcs11_tool("--read-object", "--type", "cert", "--id", record["id"])
        self.assertEqual(certificate, found)

    def test_a_pem_file_may_have_its_certificates_in_it(self):
        key, public = self.certificates()
        path = self.source / "all.pem"
        path.write_text("".join((self.folder / name).read_text() for name in ("server.crt", "server.pem", "ca.crt")))
        (record,) = self.move("pkcs8", path)["records"]
        self.assertEqual((record["result"], record["label"]), ("imported", "all"))
        self.assertEqual(len(re.findall(rb"Certificate Object", self.pkcs11_tool("--list-objects", "--type", "cert"))), 2)
        self.assert_signs("p256", public, "--id", record["id"])

    def test_a_pkcs12_file_that_is_damaged_is_refused(self):
        key, _ = self.certificates()
        whole = self.export("whole.p12", key).read_bytes()
        path = self.source / "bad.p12"
        altered = bytearray(whole)
        altered[len(altered) // 2] ^= 1
        for content in (whole[:-1], whole[: len(whole) // 2], bytes(altered), b"no container", b"\x30\x80"):
            path.write_bytes(content)
            (record,) = self.move("pkcs12", "--password-source", "env:PASSWORD", path, code=6)["records"]
            self.assertEqual(record["result"], "failed", record)
        self.assertEqual(self.json("key", "list", "--pin-source", "env:PIN"), [])

    # -- SoftHSM2

    def softhsm(self, *arguments):
        start = ["pkcs11-tool", "--module", SOFTHSM, "--token-label", "old", "--login", "--pin", "1234"]
        return run(*start, *map(str, arguments), env=self.environment)

    def make_softhsm(self):
        tokens = self.source / "tokens"
        tokens.mkdir()
        conf = self.folder / "softhsm2.conf"
        conf.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
        self.environment.update(SOFTHSM2_CONF=str(conf), SOURCE_PIN="1234")
        run("softhsm2-util", "--init-token", "--free", "--label", "old", "--so-pin", "12345678", "--pin", "1234",
            env=self.environment)

    def write_key(self, name, key_type, id):
        """Puts a key made by OpenSSL on the SoftHSM, extractable, with its public half."""
        path, public = self.generate_file(f"{name}.pem", key_type)
        path = path.rename(self.folder / path.name)
        for kind, source in (("privkey", path), ("pubkey", public)):
            der = self.folder / f"{name}.{kind}.der"
            run("openssl", "pkey", *(["-pubin"] if kind == "pubkey" else []), "-in", source, "-outform", "DER", "-out", der)
            more = ["--extractable", "--usage-sign"] if kind == "privkey" else []
            self.softhsm("--write-object", der, "--type", kind, "--label", name, "--id", id, *more)
        return public

    def from_softhsm(self, *more, code=0):
        source = ["--module", SOFTHSM, "--source-token", "old", "--source-pin-source", "env:SOURCE_PIN"]
        return self.move("softhsm", *source, *more, code=code)

    def test_a_softhsm_token_is_moved(self):
        self.make_softhsm()
        public = {key_type: self.write_key(f"key {key_type}", key_type, f"0{number}")
                  for number, key_type in enumerate(["rsa2048", "p256", "p384", "secp256k1"], 1)}
        self.softhsm("--keygen", "--key-type", "aes:32", "--label", "symmetric", "--id", "0a", "--extractable")
        self.certificates()
        der = self.folder / "server.der"
        run("openssl", "x509", "-in", self.folder / "server.crt", "-outform", "DER", "-out", der)
        self.softhsm("--write-object", der, "--type", "cert", "--label", "a certificate", "--id", "0b")
        self.softhsm("--write-object", self.config, "--type", "data", "--label", "some data")
        report = self.from_softhsm("--dry-run")
        self.assertEqual((report["imported"], report["failed"]), (7, 0), report)
        self.assertEqual(self.json("key", "list", "--pin-source", "env:PIN"), [])
        report = self.from_softhsm()
        self.assertEqual((report["imported"], report["present"], report["failed"]), (7, 0, 0), report)
        for number, key_type in enumerate(public, 1):
            self.assert_signs(key_type, public[key_type], "--id", f"0{number}")
        listed = {(key["class"], key["label"], key["id"]) for key in self.json("key", "list", "--pin-source", "env:PIN")}
        self.assertLessEqual({("private", "key p256", "02"), ("public", "key p256", "02"), ("secret", "symmetric", "0a")}, listed)
        self.assertEqual(self.pkcs11_tool("--read-object", "--type", "cert", "--id", "0b"), der.read_bytes())
        self.assertEqual(self.pkcs11_tool("--read-object", "--type", "data", "--label", "some data"), self.config.read_bytes())
        # The usages are those of before.
        old, new = (usages(tool("--list-objects", "--type", "privkey")) for tool in (self.softhsm, self.pkcs11_tool))
        self.assertEqual(old, new)
        self.assertIn("sign", new["key p256"])
        report = self.from_softhsm()
        self.assertEqual((report["imported"], report["present"], report["failed"]), (0, 7, 0), report)
        report = self.from_softhsm("--managed")
        self.assertEqual((report["imported"], report["present"], report["failed"]), (5, 2, 0), report)
        self.assertEqual(self.versions("key p256", "p256")[0]["id"], "02")

    def test_the_symmetric_key_of_a_softhsm_is_the_same_afterwards(self):
        self.make_softhsm()
        self.softhsm("--keygen", "--key-type", "aes:16", "--label", "symmetric", "--id", "0a", "--extractable")
        plain, first, second = (self.folder / name for name in ("plain", "first", "second"))
        plain.write_bytes(b"sixteen bytes, 2" * 2)
        cipher = ["--encrypt", "--id", "0a", "--mechanism", "AES-CBC", "--iv", "00" * 16, "--input-file", plain]
        self.softhsm(*cipher, "--output-file", first)
        self.from_softhsm()
        self.pkcs11_tool(*cipher, "--output-file", second)
        self.assertEqual(first.read_bytes(), second.read_bytes())

    def test_a_key_that_is_not_extractable_is_told_and_stops_none(self):
        self.make_softhsm()
        self.softhsm("--keypairgen", "--key-type", "EC:prime256v1", "--label", "stays", "--id", "01")
        self.write_key("moves", "p256", "02")
        report = self.from_softhsm(code=6)
        self.assertEqual((report["imported"], report["failed"]), (1, 1))
        (failed,) = [record for record in report["records"] if record["result"] == "failed"]
        self.assertIn("stays", failed["source"])
        self.assertIn("CKA_EXTRACTABLE is false", failed["reason"])

    def test_a_softhsm_that_is_not_there_says_so(self):
        self.make_softhsm()
        for source, word in [
            (["--module", SOFTHSM, "--source-token", "none"], "is not there"),
            (["--module", "/nowhere.so", "--source-token", "old"], "load the PKCS #11 module"),
        ]:
            error = self.call("migrate", "softhsm", "--pin-source", "env:PIN", *source, "--source-pin-source", "env:SOURCE_PIN",
                              code=1)[1]
            self.assertIn(word, error)
        self.environment["SOURCE_PIN"] = "canary-wrong"
        error = self.call("migrate", "softhsm", "--pin-source", "env:PIN", "--module", SOFTHSM, "--source-token", "old",
                          "--source-pin-source", "env:SOURCE_PIN", code=1)[1]
        self.assertIn("refuses the PIN", error)


if __name__ == "__main__":
    unittest.main()
