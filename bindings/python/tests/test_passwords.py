"""Managed keys with their owner's own password, through the Python face."""

import unittest

import strongroom
from strongroom import _ffi

from support import PIN, SO_PIN, ModuleTest

PASSWORD, OTHER = "Alice's own 1", bytearray(b"another one 2")
USER_NOT_LOGGED_IN, PIN_INCORRECT, PIN_LOCKED, PIN_LEN_RANGE = 0x101, 0xA0, 0xA4, 0xA2


class Owner(ModuleTest):
    def setUp(self):
        self.session = self.token.open(pin=PIN)
        self.addCleanup(self.session.close)

    def refused(self, code, call, *arguments, **options):
        with self.assertRaises(strongroom.Error) as raised:
            call(*arguments, **options)
        self.assertEqual(raised.exception.code, code, str(raised.exception))
        return str(raised.exception)

    def test_a_key_is_unlocked_for_a_block(self):
        key = strongroom.ManagedKey.create(self.session, "alice", "eth", password=PASSWORD)
        self.assertTrue(key.info()["password"])
        self.refused(USER_NOT_LOGGED_IN, key.sign_recoverable, bytes(32))
        with key.unlock(PASSWORD) as unlocked:
            signature = unlocked.key().sign(b"message")
            self.assertEqual(len(key.sign_recoverable(bytes(32))), 65)
        self.assertTrue(key.key().verify(b"message", signature))
        self.refused(USER_NOT_LOGGED_IN, key.key().sign, b"message")
        unlocked.lock()
        # Once, by a login of its own; and an exception in the block locks as well.
        self.assertTrue(key.key().verify(b"other", key.key().sign(b"other", password=PASSWORD)))
        with self.assertRaises(ZeroDivisionError), key.unlock(PASSWORD, seconds=60):
            raise ZeroDivisionError
        self.refused(USER_NOT_LOGGED_IN, key.key().sign, b"message")

    def test_passwords_change_with_and_without_a_rotation(self):
        key = self.session.generate_managed_key("bob", "p256", password=PASSWORD)
        self.assertIn("password", self.refused(PIN_INCORRECT, key.rotate))
        self.assertEqual(key.rotate(old_password=PASSWORD), 2)
        key.change_password(PASSWORD, OTHER)
        self.refused(PIN_INCORRECT, key.unlock, PASSWORD)
        for version in (1, 2):
            with key.unlock(OTHER, version=version) as unlocked:
                self.assertTrue(key.key(version).verify(b"data", unlocked.key().sign(b"data")))
        self.assertEqual(key.rotate(expected=2, old_password=OTHER, new_password=PASSWORD), 3)
        key.unlock(PASSWORD).lock()
        key.unlock(OTHER, version=2).lock()
        self.refused(PIN_LEN_RANGE, key.change_password, PASSWORD, "short")
        self.assertEqual(bytes(OTHER), b"another one 2", "the caller's own copy is the caller's")

    def test_a_sealed_ciphertext_needs_its_version(self):
        key = self.session.generate_managed_key("carol", "aes256", password=PASSWORD)
        with key.unlock(PASSWORD):
            old = key.encrypt(b"secret")
        key.rotate(old_password=PASSWORD)
        with key.unlock(PASSWORD):
            self.assertIn("version 1", self.refused(USER_NOT_LOGGED_IN, key.decrypt, old))
            with key.unlock(PASSWORD, version=1):
                self.assertEqual(key.decrypt(old), b"secret")

    def test_a_wrong_password_leaves_the_session_free(self):
        key = self.session.generate_managed_key("erin", "p256", password=PASSWORD).key()
        plain = self.session.generate_managed_key("erin", "ed25519").key()
        self.refused(PIN_INCORRECT, key.sign, b"data", password="a wrong one")
        with self.assertRaises(TypeError):
            key.sign(b"data", password=7)
        self.assertTrue(plain.verify(b"data", plain.sign(b"data")))
        self.assertTrue(key.verify(b"data", key.sign(b"data", password=PASSWORD)))

    def test_what_can_be_wiped_is_copied_to_no_bytes(self):
        class Watched(bytearray):
            def __bytes__(self):
                raise AssertionError("it was copied to where nobody wipes it")

        self.session.generate_managed_key("grace", "p256", password=Watched(OTHER)).unlock(OTHER).lock()
        for empty in (b"", bytearray(), ""):
            with _ffi.Pin(empty) as secret:
                self.assertEqual(secret.length, 0)
        with _ffi.Pin(memoryview(bytes(OTHER))) as secret:
            self.assertEqual(secret.buffer.raw, bytes(OTHER))
        self.assertEqual(secret.buffer.raw, bytes(len(OTHER)))

    def test_seconds_that_are_none_are_no_seconds_for_ever(self):
        key = self.session.generate_managed_key("frank", "p256", password=PASSWORD)
        for seconds in (-1, 2**64):
            with self.assertRaises(OverflowError):
                key.unlock(PASSWORD, seconds=seconds)
        self.refused(USER_NOT_LOGGED_IN, key.key().sign, b"data")

    def test_a_locked_key_is_unlocked_by_the_security_officer(self):
        key = self.session.generate_managed_key("dave", "p256", password=PASSWORD)
        for left in range(9, -1, -1):
            self.refused(PIN_INCORRECT, key.unlock, "a wrong one")
            self.assertEqual(key.info()["password_tries_left"], left)
        self.assertIn("SR_ResetKeyTries", self.refused(PIN_LOCKED, key.unlock, PASSWORD))
        self.refused(USER_NOT_LOGGED_IN, key.reset_tries)
        self.session.logout()
        self.session.login(SO_PIN, security_officer=True)
        key.reset_tries()
        self.session.logout()
        self.session.login(PIN)
        key.unlock(PASSWORD).lock()


if __name__ == "__main__":
    unittest.main()
