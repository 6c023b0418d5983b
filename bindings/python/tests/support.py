"""What the tests share: a module with a store of its own, in a process that ends with the test file."""

import os
import pathlib
import tempfile
import unittest

import strongroom

ROOT = pathlib.Path(__file__).resolve().parents[3]
SO_PIN = "so-pin-for-tests"
PIN = "user-pin-for-tests"


def library_path():
    """Tells which library to test: STRONGROOM_LIBRARY, else the one built in this tree."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return os.environ.get("STRONGROOM_LIBRARY", str(target / "release/libstrongroom.so"))


def write_config(folder):
    """Writes a configuration with a store in the folder and fast password hashing, and tells its path."""
    path = pathlib.Path(folder, "strongroom.toml")
    path.write_text('[store]\nurl = "sqlite:strongroom.db"\n[argon2]\nmemory_mib = 8\npasses = 1\n')
    return path


class ModuleTest(unittest.TestCase):
    """A test with a fresh module and one token, ``wallet``."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.config = write_config(cls.folder.name)
        cls.module = strongroom.Module(library_path(), cls.config)
        cls.token = cls.module.init_token("wallet", so_pin=SO_PIN, pin=PIN)

    @classmethod
    def tearDownClass(cls):
        cls.module.close()
        cls.folder.cleanup()
