"""Prompts of the command at a terminal: what is typed is not shown, and the terminal is left as it was."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
import unittest

from test_command import PIN, RELEASE, CommandTest

PATIENCE = 60


class Prompts(CommandTest):
    def setUp(self):
        super().setUp()
        self.init()
        self.generate("node", "p256")
        self.environment["STRONGROOM_LOG"] = "error"
        self.master, self.terminal = pty.openpty()
        self.addCleanup(os.close, self.master)
        self.addCleanup(os.close, self.terminal)
        self.before = termios.tcgetattr(self.terminal)
        self.said = b""

    def start(self):
        """Starts a command that asks for a PIN, as the program of a terminal."""
        command = [RELEASE / "strongroom", "--config", self.config, "key", "list"]
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), self.terminal)

        def take_terminal():
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            # Who runs the tests in the background has these ignored, and a program inherits that.
            for how in signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP:
                signal.signal(how, signal.SIG_DFL)

        started = subprocess.Popen(
            command, env=self.environment, start_new_session=True, preexec_fn=take_terminal, **streams
        )
        self.addCleanup(started.wait)
        self.addCleanup(started.kill)
        self.read_until(b"User PIN: ")
        self.assertFalse(termios.tcgetattr(self.terminal)[3] & termios.ECHO, "the echo is on")
        return started

    def read_until(self, text):
        deadline = time.monotonic() + PATIENCE
        while text not in self.said:
            self.assertTrue(select.select([self.master], [], [], deadline - time.monotonic())[0], self.said)
            self.said += os.read(self.master, 4096)

    def end(self, started):
        """Waits for the end, checks that the terminal is as it was before and gives the exit code."""
        code = started.wait(PATIENCE)
        while select.select([self.master], [], [], 0)[0]:
            self.said += os.read(self.master, 4096)
        self.assertEqual(termios.tcgetattr(self.terminal), self.before)
        left = struct.unpack("i", fcntl.ioctl(self.terminal, termios.FIONREAD, bytes(4)))[0]
        self.assertEqual(left, 0, "the next program at this terminal would read what was typed")
        self.assertNotIn(b"canary", self.said)
        return code

    def test_a_pin_is_read_and_not_shown(self):
        started = self.start()
        os.write(self.master, PIN.encode() + b"\n")
        self.assertEqual(self.end(started), 0, self.said)
        self.assertIn(b"node", self.said)

    def test_a_signal_ends_it_and_the_terminal_shows_again_what_is_typed(self):
        typed = {signal.SIGINT: termios.VINTR, signal.SIGQUIT: termios.VQUIT}
        for how in signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP:
            self.said = b""
            started = self.start()
            os.write(self.master, b"canary")
            if how in typed:
                os.write(self.master, self.before[6][typed[how]])
            else:
                started.send_signal(how)
            self.assertEqual(self.end(started), -how)

    def test_nothing_entered_is_no_try(self):
        for nothing in b"\n", self.before[6][termios.VEOF]:
            self.said = b""
            started = self.start()
            os.write(self.master, nothing)
            self.assertEqual(self.end(started), 2)
            self.assertIn(b"nothing was entered", self.said)
        self.assertEqual(self.json("token", "info")["user_pin"], "set")

    def test_a_line_that_is_too_long_is_refused_and_does_not_go_on_elsewhere(self):
        started = self.start()
        os.write(self.master, b"canary" * 300 + b"\n")
        self.assertEqual(self.end(started), 2)
        self.assertIn(b"at most 1024 bytes", self.said)


if __name__ == "__main__":
    unittest.main()
