//! What the command says: text for people, JSON for programs.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use serde_json::{Value, json};
use strongroom::error::{Error, Kind};

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

    /// Tells whether results are JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Writes a result: `text` for people, or `value` for programs. A reader that has gone away is no failure.
    pub fn result(&self, text: &str, value: &Value) -> Result<(), Failure> {
        let text = if self.json { format!("{value:#}") } else { text.to_owned() };
        let mut out = io::stdout().lock();
        match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                let text = "standard output does not take the result; what the command does is done";
                Err(Error::new(Kind::FunctionFailed, text).caused_by(error).into())
            }
            _ => Ok(()),
        }
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

/// Tells what the parser says of the arguments: what is wrong with them, or the help that they ask for.
pub fn of_parser(said: &clap::Error) -> ExitCode {
    let json = std::env::args_os().any(|argument| argument == "--json");
    if json && said.use_stderr() {
        let text = said.to_string();
        return Output::new(true).failure(&Failure::Usage(text.trim_start_matches("error: ").trim_end().to_owned()));
    }
    match said.print().and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => u8::try_from(said.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from),
    }
}

/// Lays rows out in columns, the first row being the heading. Labels and owners are anybody's: what would move the cursor is escaped.
pub fn table(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Escapes what is not shown as itself; quotes are.
fn plain(text: &str) -> String {
    let shown = |letter: char| match letter {
        '"' | '\'' => letter.to_string(),
        _ => letter.escape_debug().to_string(),
    };
    text.chars().map(shown).collect()
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

    #[test]
    fn a_label_cannot_write_elsewhere() {
        let rows = [vec!["LABEL".into()], vec!["a\nb \u{1b}[2J \u{202e} it's \"ä\"".into()]];
        assert_eq!(table(&rows), "LABEL\na\\nb \\u{1b}[2J \\u{202e} it's \"ä\"");
    }
}
