"""What `make install` puts where: files, units and the user of systemd, completions."""

import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def install(prefix, destination=""):
    command = ["make", "-C", ROOT, "install", "CARGO=true", f"PREFIX={prefix}", f"DESTDIR={destination}"]
    subprocess.run(command, check=True, capture_output=True)


class Install(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def test_a_destination_may_have_blanks_and_gets_every_file(self):
        destination = self.folder / "de st"
        install("/usr", destination)
        self.assertEqual([file.name for file in self.folder.iterdir()], ["de st"])
        usr = destination / "usr"
        command = subprocess.run([usr / "bin/strongroom", "--version"], check=True, capture_output=True, text=True)
        self.assertRegex(command.stdout, "^strongroom ")
        for completions in "bash-completion/completions/strongroom", "fish/vendor_completions.d/strongroom.fish", "zsh/site-functions/_strongroom":
            self.assertIn("recovery", (usr / "share" / completions).read_text())
        self.assertIn("module: /usr/lib/libstrongroom.so", (usr / "share/p11-kit/modules/strongroom.module").read_text())

    @unittest.skipUnless(shutil.which("readelf"), "binutils are not installed")
    def test_names_for_backtraces_are_installed_and_line_tables_are_not(self):
        install(self.folder)
        for file in "lib/libstrongroom.so", "bin/strongroom":
            listed = subprocess.run(["readelf", "-SW", self.folder / file], check=True, capture_output=True, text=True).stdout
            sections = set(re.findall(r"\] (\.\S+)", listed))
            self.assertIn(".symtab", sections)
            self.assertEqual({name for name in sections if name.startswith(".debug")} - {".debug_gdb_scripts"}, set())

    @unittest.skipUnless(shutil.which("systemd-analyze"), "systemd is not installed")
    def test_the_installed_units_are_right(self):
        install(self.folder)
        units = self.folder / "lib/systemd/system"
        service, timer = units / "strongroom-rotate.service", units / "strongroom-rotate.timer"
        self.assertIn(f"ExecStart={self.folder}/bin/strongroom rotate --due ", service.read_text())
        verified = subprocess.run(["systemd-analyze", "verify", "--man=no", service, timer], capture_output=True, text=True)
        self.assertEqual((verified.returncode, verified.stderr), (0, ""))

    @unittest.skipUnless(shutil.which("systemd-sysusers"), "systemd is not installed")
    def test_the_user_and_the_folders_of_the_service_are_made(self):
        install(self.folder)
        service = dict(re.findall(r"^(\w+)=(.*)$", (ROOT / "dist/strongroom-rotate.service").read_text(), re.MULTILINE))
        (self.folder / "root/etc").mkdir(parents=True)
        with open(self.folder / "lib/sysusers.d/strongroom.conf") as users:
            made = ["systemd-sysusers", f"--root={self.folder / 'root'}", "-"]
            subprocess.run(made, stdin=users, check=True, capture_output=True)
        names = [line.split(":")[0] for line in (self.folder / "root/etc/passwd").read_text().splitlines()]
        self.assertIn(service["User"], names)
        # All that it writes lies below folders that systemd makes for it: the rest is read-only (ProtectSystem=strict).
        self.assertEqual(service["ProtectSystem"], "strict")
        self.assertEqual((service["StateDirectory"], service["LogsDirectory"]), ("strongroom", "strongroom"))
        self.assertEqual(service["Environment"], "STRONGROOM_CONFIG=/etc/strongroom/strongroom.toml")
        for place in re.findall(r"/var/log/\S+?(?=[\"`,])", (ROOT / "README.md").read_text()):
            self.assertTrue(place.startswith("/var/log/strongroom/"), place)


if __name__ == "__main__":
    unittest.main()
