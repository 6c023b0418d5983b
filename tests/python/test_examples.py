"""The C examples and the examples of the README, compiled and run as a newcomer would."""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
RELEASE = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "release"
PIN = "user-pin-for-tests"


def readme_block(language):
    """Gives the first code block of a language in the README."""
    text = (ROOT / "README.md").read_text()
    return re.search(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL).group(1)


class Examples(unittest.TestCase):
    """Each test has a home of its own with one token, ``wallet``, made by the command without any configuration."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "SO_PIN": "so-pin-for-tests",
            "STRONGROOM_PIN": PIN,
            "STRONGROOM_LIBRARY": str(RELEASE / "libstrongroom.so"),
            "PYTHONPATH": str(ROOT / "bindings/python"),
        }
        init = [RELEASE / "strongroom", "token", "init", "--label", "wallet"]
        self.run_program([*init, "--so-pin-source", "env:SO_PIN", "--pin-source", "env:STRONGROOM_PIN"])

    def run_program(self, command):
        """Runs a program in the environment of the test and gives what it says; a failure shows its complaint."""
        done = subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, f"{command}: {done.stdout}{done.stderr}")
        return done.stdout

    def compile(self, source):
        """Compiles a C program as the README says, with every warning an error."""
        program = self.folder / "program"
        strict = ["-std=c99", "-Wall", "-Wextra", "-Werror"]
        (found,) = re.findall(r"^    cc sign\.c (-I.*?) +#", (ROOT / "README.md").read_text(), re.MULTILINE)
        options = re.sub(r"(\$PWD/)?target/release", str(RELEASE), found).split()
        self.assertEqual(options[-2:], ["-o", "sign"])
        self.run_program(["cc", *strict, source, *options[:-1], program])
        return program

    def test_every_c_example(self):
        examples = sorted((ROOT / "examples-c").glob("*.c"))
        self.assertTrue(examples)
        for source in examples:
            with self.subTest(source.name):
                said = self.run_program([self.compile(source), "wallet", *self.more_arguments(source.name)])
                self.assertIn("verified", said)

    def more_arguments(self, example):
        """Gives what an example takes beside the token: the story goes on in a store and under a master key of its own."""
        if example != "story.c":
            return []
        self.environment["STRONGROOM_SO_PIN"] = self.environment["SO_PIN"]
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir()
        config = elsewhere / "strongroom.toml"
        config.write_text('[store]\nurl = "sqlite:strongroom.db"\n')
        return [config, elsewhere / "wallet.backup"]

    def test_a_dry_run_through_the_header_changes_nothing(self):
        program = self.compile(ROOT / "tests/python/dry_run.c")
        told = json.loads(self.run_program([program, PIN, self.folder / "wallet.backup"]))
        self.assertTrue(told["dry_run"] and told["removed"] > 0, told)

    def test_the_numbers_of_the_python_package_are_those_of_the_header(self):
        header = (ROOT / "include/strongroom.h").read_text()
        numbers = {name: int(number, 0) for name, number in re.findall(r"^#define (SR_\w+) (\w+)$", header, re.MULTILINE)}
        source = (ROOT / "bindings/python/strongroom/_ffi.py").read_text()
        ours = {name: int(number, 0) for name, number in re.findall(r"^(SR_\w+) = (\w+)$", source, re.MULTILINE)}
        self.assertGreaterEqual(len(ours), 6)
        self.assertEqual(ours, {name: numbers.get(name) for name in ours})

    def test_the_c_example_of_the_readme(self):
        block = readme_block("c")
        self.assertLessEqual(len(block.splitlines()), 26)
        source = self.folder / "readme.c"
        source.write_text(block)
        self.assertIn("verified", self.run_program([self.compile(source)]))

    def test_the_python_example_of_the_readme(self):
        block = readme_block("python")
        self.assertLessEqual(len(block.splitlines()), 20)
        self.assertIn("BEGIN PUBLIC KEY", self.run_program([sys.executable, "-c", block]))

    def test_the_commands_of_the_readme_exist(self):
        targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        named = set(re.findall(r"`?make ([a-z]+)", (ROOT / "README.md").read_text()))
        self.assertLessEqual(named, targets)
        self.assertIn("demo", named)


class Demo(unittest.TestCase):
    def test_the_demo_runs_from_end_to_end(self):
        environment = {**os.environ, "STRONGROOM_DEMO_BUILD": "no"}
        done = subprocess.run(["scripts/demo.sh"], cwd=ROOT, env=environment, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(done.stdout.count("Verified OK"), 4)
        self.assertEqual(done.stdout.count("Signature Verified Successfully"), 2)
        self.assertEqual(done.stdout.count("not found, neither raw"), 4)


if __name__ == "__main__":
    unittest.main()
