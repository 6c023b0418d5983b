//! Prints one table of all that is measured, made in one run, and keeps it in `target/bench`.
//!
//! Words behind `--` pick the rows whose names have one of them: `cargo bench … --bench table -- GCM`.

use bench::line::Line;
use bench::machine::Machine;
use bench::rows::ROWS;
use bench::token::Token;
use bench::{measure, report, scale, start};

/// How many objects the token has besides its keys.
const OBJECTS: usize = 10_000;

fn main() {
    if start::play(OBJECTS) {
        return;
    }
    let words: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let machine = Machine::this();
    let lines = if words.is_empty() { all() } else { picked(&words) };
    print!("{}", report::markdown(&machine, &lines));
    if words.is_empty() {
        eprintln!("\nkept in {}", report::save(&machine, &lines).display());
    }
}

fn all() -> Vec<Line> {
    let token = Token::new(OBJECTS);
    let mut lines: Vec<_> = ROWS.iter().map(|row| measure::row(row, &token)).collect();
    lines.extend(scale::threads(&token));
    lines.extend(scale::finds(&token, OBJECTS));
    lines.extend(start::lines(&token, OBJECTS));
    lines
}

fn picked(words: &[String]) -> Vec<Line> {
    let token = Token::new(0);
    let is_picked = |name: &str| words.iter().any(|word| name.contains(word));
    ROWS.iter().filter(|row| is_picked(row.name)).map(|row| measure::row(row, &token)).collect()
}
