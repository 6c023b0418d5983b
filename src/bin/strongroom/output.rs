//! What the command says: text for people, JSON for programs.

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::failure::Failure;

/// Where results and failures go.
pub struct Output {
    json: bool,
}

impl Output {
    /// Makes the output of a run.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Writes a result: `text` for people, or `value` for programs. A reader that has gone away is no failure.
    pub fn result(&self, text: &str, value: &Value) {
        let text = if self.json { format!("{value:#}") } else { text.to_owned() };
        let _ = writeln!(io::stdout().lock(), "{}", text.trim_end());
    }

    /// Writes a hint for a person, on stderr and not with --json.
    pub fn hint(&self, text: &str) {
        if !self.json {
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }

    /// Writes why the command failed, and tells the exit code.
    pub fn failure(&self, failure: &Failure) -> ExitCode {
        let message = failure.message();
        let text = match (self.json, failure) {
            (_, Failure::Faults | Failure::Due | Failure::Unmoved | Failure::DueSoon) => None,
            (true, _) => Some(json!({ "error": { "kind": failure.name(), "message": message } }).to_string()),
            (false, _) => Some(format!("strongroom: {message}")),
        };
        if let Some(text) = text {
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
        ExitCode::from(failure.exit_code())
    }
}

/// Lays rows out in columns, the first row being the heading.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows =
            [vec!["LABEL".into(), "ID".into()], vec!["käse".into(), "0a01".into()], vec!["a".into(), String::new()]];
        assert_eq!(table(&rows), "LABEL  ID\nkäse   0a01\na");
    }
}
