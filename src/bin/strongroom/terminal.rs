//! Asks on the terminal, without echo.
//!
//! The rules are:
//! - what is typed goes from the terminal into locked memory, byte by byte, and nowhere else;
//! - the echo alone is turned off, and it is on again before a signal takes effect that ends the command or stops it;
//! - what is typed before the question, or left over after the answer, is thrown away: the next program must not get it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use strongroom::secret::{SecureBytes, source};

/// The terminal of this process.
const TERMINAL: &str = "/dev/tty";
/// What ends or stops the command, from the keyboard or elsewhere.
const SIGNALS: [Signal; 5] = [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGTSTP];

/// Opens the terminal, if there is one.
pub fn open() -> io::Result<File> {
    File::options().read(true).write(true).open(TERMINAL)
}

/// Asks for a line; `None` when nothing was entered.
pub fn ask(terminal: &File, question: &str) -> io::Result<Option<SecureBytes>> {
    loop {
        // Dropped from below: first the echo is on again, then the signals come.
        let held = Held::new()?;
        let _silent = Silent::new(terminal)?;
        let mut out = terminal;
        write!(out, "{question}")?;
        if held.wait_for(terminal)? {
            return source::line(&mut out);
        }
        // Who was stopped and goes on is asked once more.
    }
}

/// Holds the signals back while it lasts.
struct Held {
    before: SigSet,
    pending: SignalFd,
}

impl Held {
    fn new() -> io::Result<Self> {
        let signals: SigSet = SIGNALS.into_iter().collect();
        let pending = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { before: signals.thread_swap_mask(SigmaskHow::SIG_BLOCK)?, pending })
    }

    /// Waits for a line; `false` when a signal comes first, which is left to come.
    fn wait_for(&self, terminal: &File) -> io::Result<bool> {
        let places = [self.pending.as_fd(), terminal.as_fd()];
        let mut places = places.map(|place| PollFd::new(place, PollFlags::POLLIN));
        loop {
            match poll(&mut places, PollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(places.first().and_then(PollFd::any) == Some(false)),
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.before.thread_set_mask();
    }
}

/// Turns the echo off while it lasts; the end of a line shows.
struct Silent<'t> {
    terminal: &'t File,
    before: Termios,
}

impl<'t> Silent<'t> {
    fn new(terminal: &'t File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        silent.local_flags.insert(LocalFlags::ICANON | LocalFlags::ECHONL);
        tcsetattr(terminal, SetArg::TCSAFLUSH, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, SetArg::TCSAFLUSH, &self.before);
    }
}
