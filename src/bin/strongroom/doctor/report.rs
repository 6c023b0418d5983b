//! What `doctor` found: one line for each thing looked at.

use serde_json::{Value, json};

/// How a thing looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        }
    }
}

/// One line.
#[derive(Debug)]
struct Line {
    verdict: Verdict,
    check: String,
    text: String,
}

/// All lines so far.
#[derive(Debug, Default)]
pub struct Report(Vec<Line>);

impl Report {
    /// Adds that something is as it should be.
    pub fn ok(&mut self, check: &str, text: String) {
        self.add(Verdict::Ok, check, text);
    }

    /// Adds that something works and could be better.
    pub fn warn(&mut self, check: &str, text: String) {
        self.add(Verdict::Warn, check, text);
    }

    /// Adds that something does not work or is not safe.
    pub fn fail(&mut self, check: &str, text: String) {
        self.add(Verdict::Fail, check, text);
    }

    fn add(&mut self, verdict: Verdict, check: &str, text: String) {
        self.0.push(Line { verdict, check: check.to_owned(), text });
    }

    /// Tells whether anything failed.
    pub fn has_fault(&self) -> bool {
        self.0.iter().any(|line| line.verdict == Verdict::Fail)
    }

    /// Writes the lines for people.
    pub fn text(&self) -> String {
        let lines: Vec<_> =
            self.0.iter().map(|line| format!("{:4}  {:14} {}", line.verdict.name(), line.check, line.text)).collect();
        lines.join("\n")
    }

    /// Writes the lines for programs.
    pub fn value(&self) -> Value {
        let value = |line: &Line| json!({ "result": line.verdict.name(), "check": line.check, "text": line.text });
        json!({ "ok": !self.has_fault(), "checks": self.0.iter().map(value).collect::<Vec<_>>() })
    }
}
