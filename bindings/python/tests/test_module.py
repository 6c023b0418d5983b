"""Tokens, sessions and keys through the Python face."""

import subprocess
import sys
import unittest

import strongroom
from strongroom import _ffi

import support


class Tokens(support.ModuleTest):
    def test_a_new_token_is_listed_and_found(self):
        self.assertIn("wallet", [token.label for token in self.module.tokens()])
        self.assertEqual(self.module.token("wallet").serial, self.token.serial)
        self.assertEqual(self.module.token(serial=self.token.serial).slot, self.token.slot)

    def test_no_token_and_several_tokens_are_errors_that_name_them(self):
        with self.assertRaisesRegex(LookupError, f"no token fits.*wallet.*{self.token.serial}"):
            self.module.token("purse")
        twins = [self.module.init_token("twin", support.SO_PIN, support.PIN) for _ in range(2)]
        with self.assertRaisesRegex(LookupError, f"more than one.*{twins[0].serial}.*{twins[1].serial}"):
            self.module.token("twin")

    def test_a_label_that_does_not_fit_is_refused(self):
        for label in ("", "x" * 33):
            with self.assertRaises(ValueError):
                self.module.init_token(label, support.SO_PIN, support.PIN)

    def test_a_wrong_pin_is_an_error_with_code_and_words(self):
        with self.assertRaises(strongroom.Error) as raised:
            self.token.open(pin="not the right pin")
        self.assertEqual(raised.exception.code, _ffi.CKR_PIN_INCORRECT)
        self.assertEqual(raised.exception.function, "C_Login")
        self.assertNotIn("not the right pin", str(raised.exception))


class Keys(support.ModuleTest):
    def setUp(self):
        self.session = self.token.open(pin=support.PIN)
        self.addCleanup(self.session.close)

    def test_each_type_signs_and_verifies(self):
        for name in ("p256", "p384", "p521", "secp256k1", "ed25519", "rsa2048"):
            with self.subTest(name):
                key = self.session.generate_key_pair(name, label=f"sign {name}", temporary=True)
                signature = key.sign(b"message")
                self.assertTrue(key.verify(b"message", signature))
                self.assertFalse(key.verify(b"another message", signature))
                self.assertFalse(key.verify(b"message", signature[:-1]))
                self.assertTrue(name.startswith(key.type))

    def test_a_key_that_does_not_sign_says_so(self):
        key = self.session.generate_key_pair("x25519", label="agree", temporary=True)
        with self.assertRaisesRegex(ValueError, "does not sign"):
            key.sign(b"message")

    def test_a_key_is_found_by_label_and_by_id(self):
        made = self.session.generate_key_pair("p256", label="found", id=b"\x0a\x01")
        self.assertEqual(made.id, b"\x0a\x01")
        signature = made.sign(b"message")
        for found in (self.session.key("found"), self.session.key(id=b"\x0a\x01")):
            self.assertEqual((found.label, found.type), ("found", "p256"))
            self.assertTrue(found.verify(b"message", signature))

    def test_an_ambiguous_label_is_an_error_that_names_the_ids(self):
        for id in (b"\x01\x01", b"\x01\x02"):
            self.session.generate_key_pair("p256", label="twin", id=id)
        with self.assertRaisesRegex(LookupError, "0101.*0102|0102.*0101"):
            self.session.key("twin")
        with self.assertRaisesRegex(LookupError, "no key fits"):
            self.session.key("nobody")

    def test_a_destroyed_key_is_gone(self):
        self.session.generate_key_pair("ed25519", label="short-lived").destroy()
        self.assertEqual(self.session.keys("short-lived"), [])
        self.assertEqual(self.session.find({_ffi.CKA_LABEL: "short-lived"}), [])

    def test_an_unknown_type_names_the_known_ones(self):
        with self.assertRaisesRegex(ValueError, "secp256k1"):
            self.session.generate_key_pair("p257", label="x")

    def test_r17_the_private_key_is_never_told(self):
        key = self.session.generate_key_pair("p256", label="sealed")
        self.assertIsNone(self.session.attribute(key._private, _ffi.CKA_VALUE))

    def test_r17_key_material_is_not_taken_in_by_default(self):
        secret = {
            _ffi.CKA_CLASS: _ffi.CKO_SECRET_KEY, _ffi.CKA_KEY_TYPE: _ffi.CKK_AES, _ffi.CKA_VALUE: bytes(32),
        }
        with self.assertRaises(strongroom.Error):
            self.session.create_object(secret)

    def test_the_public_key_is_what_openssl_reads(self):
        for name in ("secp256k1", "ed25519", "rsa2048"):
            pem = self.session.generate_key_pair(name, label=f"pem {name}", temporary=True).public_key_pem()
            read = subprocess.run(
                ["openssl", "pkey", "-pubin", "-noout", "-text"], input=pem, text=True, capture_output=True, check=True
            )
            self.assertIn("ublic", read.stdout)


class Processes(support.ModuleTest):
    def test_another_process_uses_the_same_key(self):
        with self.token.open(pin=support.PIN) as session:
            key = session.generate_key_pair("secp256k1", label="shared")
            code = (
                "import strongroom, support, sys\n"
                "with strongroom.Module(support.library_path(), sys.argv[1]) as module:\n"
                "    with module.token('wallet').open(pin=support.PIN) as session:\n"
                "        print(session.key('shared').sign(b'from afar').hex())\n"
            )
            run = [sys.executable, "-c", code, str(self.config)]
            signature = subprocess.run(run, capture_output=True, text=True, check=True).stdout
            self.assertTrue(key.verify(b"from afar", bytes.fromhex(signature)))


if __name__ == "__main__":
    unittest.main()
