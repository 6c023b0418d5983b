"""A store that can only be read: the command and the Python package use its keys all the same."""

import json
import os
import subprocess
import sys
import unittest

from test_command import RELEASE, ROOT, CommandTest

NOBODY = 65534

SCRIPT = """
import os, strongroom
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(NOBODY), os.setuid(NOBODY)
with strongroom.Module(config=os.environ["STRONGROOM_CONFIG"]) as module:
    with module.token("wallet").open(pin=os.environ["PIN"]) as session:
        key = session.key(label="node")
        assert key.verify(b"block 1", key.sign(b"block 1"))
        try:
            session.generate_key_pair("p256", label="new")
        except strongroom.Error as error:
            print(hex(error.code))
"""


class ReadOnly(CommandTest):
    """The folder of the store belongs to a user who may not write there."""

    def setUp(self):
        super().setUp()
        self.init()
        self.generate("node", "p256")
        self.data = self.folder / "data"
        self.environment["STRONGROOM_LOG"] = "error"
        self.as_user = {}
        if os.geteuid() == 0:
            self.as_user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
            for file in self.folder, self.data, *self.data.iterdir():
                os.chown(file, NOBODY, NOBODY)
        (self.data / "strongroom.db").chmod(0o400)
        self.data.chmod(0o500)
        self.addCleanup(self.data.chmod, 0o700)

    def command(self, *arguments, code=0):
        command = [RELEASE / "strongroom", "--config", self.config, "--json", *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, cwd="/", **self.as_user)
        self.assertEqual(done.returncode, code, f"{arguments}: {done.stdout}{done.stderr}")
        self.assertNotIn("canary", done.stdout + done.stderr)
        return json.loads(done.stdout or done.stderr)

    def test_r71_the_command_reads_and_tells_what_it_cannot_change(self):
        pin = ["--pin-source", "env:PIN"]
        listed = self.command("key", "list", *pin)
        self.assertEqual({(key["label"], key["class"]) for key in listed}, {("node", "private"), ("node", "public")})
        self.assertEqual(self.command("token", "list")[0]["label"], "wallet")
        self.assertTrue(self.command("audit", "verify", *pin)["ok"])
        error = self.command("key", "generate", "--type", "p256", "--label", "new", *pin, code=1)["error"]
        self.assertIn("the store is read-only", error["message"])
        report = self.command("doctor", "--sign", *pin)
        told = {line["check"]: line for line in report["checks"] if "read-only" in line["text"]}
        self.assertEqual(told["store"]["result"], "warn")
        self.assertIn(("signature", "ok"), [(line["check"], line["result"]) for line in report["checks"]])

    def test_r71_the_package_reads_and_signs(self):
        variables = {"PYTHONPATH": str(ROOT / "bindings/python"), "PYTHONDONTWRITEBYTECODE": "1"}
        variables.update(STRONGROOM_LIBRARY=str(RELEASE / "libstrongroom.so"), STRONGROOM_CONFIG=str(self.config))
        # It gives up its rights by itself: the interpreter may lie where nobody else may go.
        command = [sys.executable, "-c", SCRIPT.replace("NOBODY", str(NOBODY))]
        done = subprocess.run(command, env={**self.environment, **variables}, capture_output=True, text=True, cwd="/")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn(done.stdout.strip(), ("0xb5", "0xe2"))  # CKR_SESSION_READ_ONLY, CKR_TOKEN_WRITE_PROTECTED


if __name__ == "__main__":
    unittest.main()
