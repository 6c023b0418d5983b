//! Tests in processes of their own.
//!
//! The test binary starts itself: once for each test that needs a fresh module ([`isolated!`]), and for the helper
//! processes of a test ([`Role`]). A helper talks to its test by lines that start with `@@`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Set in a process of its own to the name of the test.
const ISOLATED: &str = "STRONGROOM_ISOLATED";
/// Set in a helper process to its role and argument.
const ROLE: &str = "STRONGROOM_ROLE";
const ARGUMENT: &str = "STRONGROOM_ARGUMENT";
/// How long a test may take unless it says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(120);

/// Runs the rest of the test in a process of its own, which must end cleanly in time.
///
/// `isolated!(|| { … })`, or `isolated!(seconds, || { … })`.
#[macro_export]
macro_rules! isolated {
    ($body:expr) => {
        $crate::isolated!(120, $body)
    };
    ($seconds:expr, $body:expr) => {{
        fn here() {}
        $crate::isolate::run($crate::isolate::test_name(here), std::time::Duration::from_secs($seconds), $body)
    }};
}

/// Tells the name of the test from a function inside it.
pub fn test_name<T>(_: T) -> &'static str {
    let name = std::any::type_name::<T>();
    let name = name.strip_suffix("::here").expect("the macro names its function so");
    name.split_once("::").expect("the crate's name comes first").1
}

/// What a finished process left.
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to both outputs.
    pub output: String,
    /// Whether it had to be stopped.
    pub timed_out: bool,
}

/// Runs the body here when this is the test's own process, else starts that and waits for it.
pub fn run(name: &str, timeout: Duration, body: impl FnOnce()) {
    if std::env::var(ISOLATED).is_ok_and(|value| value == name) {
        say("started");
        body();
        say("finished");
        return;
    }
    let finished = spawn_and_wait(name, timeout, &[]);
    assert!(!finished.timed_out, "{name} did not end within {timeout:?}:\n{}", tail(&finished.output));
    let status = finished.status;
    assert!(status.signal().is_none(), "{name} died by signal {:?}:\n{}", status.signal(), tail(&finished.output));
    assert!(status.success(), "{name} failed ({status}):\n{}", tail(&finished.output));
    assert!(finished.output.contains("@@started"), "{name} did not run at all:\n{}", tail(&finished.output));
    assert!(finished.output.contains("@@finished"), "{name} ended early:\n{}", tail(&finished.output));
}

/// Tells whether this process is the own one of a test.
pub fn is_isolated() -> bool {
    std::env::var_os(ISOLATED).is_some()
}

fn spawn_and_wait(name: &str, timeout: Duration, env: &[(&str, &str)]) -> Finished {
    let mut log = tempfile::tempfile().expect("a temporary file");
    let mut command = myself(name);
    command.env(ISOLATED, name).envs(env.iter().copied());
    command.stdin(Stdio::null());
    command.stdout(Stdio::from(log.try_clone().expect("a second descriptor")));
    command.stderr(Stdio::from(log.try_clone().expect("a third descriptor")));
    let mut child = command.spawn().expect("the test binary starts itself");
    let (status, timed_out) = wait(&mut child, timeout);
    Finished { status, output: read_back(&mut log), timed_out }
}

/// Waits for a process, and stops it when its time is over.
pub fn wait(child: &mut Child, timeout: Duration) -> (ExitStatus, bool) {
    let end = Instant::now() + timeout;
    loop {
        if let Some(status) = child.try_wait().expect("waiting for a child") {
            return (status, false);
        }
        if Instant::now() > end {
            child.kill().expect("a child can be stopped");
            return (child.wait().expect("waiting for a child"), true);
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

fn read_back(log: &mut File) -> String {
    let mut bytes = Vec::new();
    log.rewind().expect("rewinding");
    log.read_to_end(&mut bytes).expect("reading back");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Starts this binary for one test, on its main thread.
fn myself(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the binary's own path"));
    command.args(["--exact", test, "--include-ignored", "--nocapture", "--test-threads=1"]);
    command.env("RUST_BACKTRACE", "0").env_remove(ROLE).env_remove(ISOLATED);
    command
}

/// Gives the last lines of an output.
pub fn tail(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(150)..].join("\n")
}

/// Tells the test something, from a helper process: one line.
pub fn say(line: &str) {
    let text = format!("\n@@{line}\n");
    // One write, so that a kill never leaves half a line.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    let _ = std::io::stdout().lock().flush();
}

/// A helper process.
pub struct Role {
    child: Child,
    lines: BufReader<ChildStdout>,
    stderr: File,
}

/// What a helper process does with its argument.
pub type Part = fn(&str);

/// The hidden test that plays roles; `main.rs` of the suite has it.
const STAGE: &str = "stage";

impl Role {
    /// Starts a helper process.
    pub fn start(role: &str, argument: &str) -> Role {
        Self::start_with(role, argument, &[])
    }

    /// Starts a helper process with more environment.
    pub fn start_with(role: &str, argument: &str, env: &[(&str, &str)]) -> Role {
        let stderr = tempfile::tempfile().expect("a temporary file");
        let mut command = myself(STAGE);
        command.env(ROLE, role).env(ARGUMENT, argument).envs(env.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(Stdio::from(stderr.try_clone().expect("a second descriptor")));
        let mut child = command.spawn().expect("the test binary starts itself");
        let lines = BufReader::new(child.stdout.take().expect("a pipe was asked for"));
        Role { child, lines, stderr }
    }

    /// Plays the role that this process was started for; the body of the stage.
    pub fn play(roles: &[(&str, Part)]) {
        let Ok(role) = std::env::var(ROLE) else { return };
        let argument = std::env::var(ARGUMENT).unwrap_or_default();
        let table: HashMap<_, _> = roles.iter().copied().collect();
        table.get(role.as_str()).unwrap_or_else(|| panic!("no role {role}"))(&argument);
        say("done");
    }

    /// Reads what it says next; `None` when it has ended.
    pub fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        loop {
            line.clear();
            // A killed process may leave half a line without an end.
            if self.lines.read_line(&mut line).ok()? == 0 || !line.ends_with('\n') {
                return None;
            }
            if let Some(text) = line.strip_prefix("@@") {
                return Some(text.trim_end_matches('\n').to_owned());
            }
        }
    }

    /// Reads until it says this.
    pub fn expect(&mut self, wanted: &str) {
        loop {
            match self.line() {
                Some(line) if line == wanted => return,
                Some(_) => {}
                None => panic!("the helper ended before it said {wanted:?}:\n{}", tail(&read_back(&mut self.stderr))),
            }
        }
    }

    /// Gives its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it, as `kill -9` does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
    }

    /// Reads all that it still says and waits for its end.
    pub fn finish(mut self) -> (ExitStatus, Vec<String>, String) {
        let mut lines = Vec::new();
        while let Some(line) = self.line() {
            lines.push(line);
        }
        let (status, timed_out) = wait(&mut self.child, TIMEOUT);
        let stderr = read_back(&mut self.stderr);
        assert!(!timed_out, "a helper did not end:\n{}", tail(&stderr));
        (status, lines, stderr)
    }

    /// As [`Self::finish`], and the role must have been played to its end.
    pub fn succeed(self) -> Vec<String> {
        let (status, mut lines, stderr) = self.finish();
        assert!(status.success(), "a helper failed ({status}):\n{}\n{}", lines.join("\n"), tail(&stderr));
        assert_eq!(lines.pop().as_deref(), Some("done"), "a helper ended early:\n{}", tail(&stderr));
        lines
    }
}
