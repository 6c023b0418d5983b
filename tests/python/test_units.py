"""The units of systemd, as `make install` writes them."""

import pathlib
import shutil
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@unittest.skipUnless(shutil.which("systemd-analyze"), "systemd is not installed")
class Units(unittest.TestCase):
    def test_the_installed_units_are_right(self):
        with tempfile.TemporaryDirectory() as prefix:
            install = ["make", "-C", ROOT, "install", "CARGO=true", f"PREFIX={prefix}", "DESTDIR="]
            subprocess.run(install, check=True, capture_output=True)
            units = pathlib.Path(prefix) / "lib/systemd/system"
            service, timer = units / "strongroom-rotate.service", units / "strongroom-rotate.timer"
            self.assertIn(f"ExecStart={prefix}/bin/strongroom rotate --due ", service.read_text())
            verified = subprocess.run(
                ["systemd-analyze", "verify", "--man=no", service, timer], capture_output=True, text=True
            )
            self.assertEqual((verified.returncode, verified.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main()
