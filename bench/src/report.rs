//! The table as Markdown and as JSON.

use std::fmt::Write;
use std::path::PathBuf;

use ffi_tests::module::workspace;
use serde_json::{Value, json};

use crate::line::{Line, Target, Unit};
use crate::machine::Machine;

/// Writes the table as Markdown.
pub fn markdown(machine: &Machine, lines: &[Line]) -> String {
    let Machine { cpu, cores, kernel, load } = machine;
    let mut text = format!("Machine: {cpu}, {cores} cores, Linux {kernel}; load average before the run {load}.\n\n");
    text.push_str("| row | Strongroom | bare | ratio | target |\n|---|---:|---:|---:|---|\n");
    for line in lines {
        let bare = line.bare.map_or("–".to_owned(), |bare| number(bare, line.unit));
        let ratio = line.ratio().map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
        let (name, ours) = (&line.name, number(line.ours, line.unit));
        writeln!(text, "| {name} | {ours} | {bare} | {ratio} | {} |", target(line)).expect("a String takes all");
    }
    text
}

/// Gives the table as JSON.
pub fn json(machine: &Machine, lines: &[Line]) -> Value {
    let line = |line: &Line| {
        let unit = match line.unit {
            Unit::Nanoseconds => "ns",
            Unit::Times => "times",
            Unit::Kibibytes => "KiB",
        };
        json!({
            "row": line.name, "unit": unit, "strongroom": line.ours, "bare": line.bare, "ratio": line.ratio(),
            "target": target_text(line), "met": line.is_met(),
        })
    };
    json!({
        "machine": { "cpu": machine.cpu, "cores": machine.cores, "kernel": machine.kernel, "load": machine.load },
        "rows": lines.iter().map(line).collect::<Vec<_>>(),
    })
}

/// Writes both to `target/bench` and tells where.
pub fn save(machine: &Machine, lines: &[Line]) -> PathBuf {
    let folder = workspace().join("target/bench");
    std::fs::create_dir_all(&folder).expect("making the folder");
    std::fs::write(folder.join("table.md"), markdown(machine, lines)).expect("writing the table");
    std::fs::write(folder.join("table.json"), format!("{:#}\n", json(machine, lines))).expect("writing the table");
    folder
}

fn target(line: &Line) -> String {
    let text = target_text(line).unwrap_or_else(|| "–".to_owned());
    match line.is_met() {
        Some(true) => format!("{text} (met)"),
        Some(false) => format!("{text} (**missed**)"),
        None => text,
    }
}

fn target_text(line: &Line) -> Option<String> {
    match line.target {
        Target::Ratio(least) => Some(format!("ratio ≥ {least}")),
        Target::Adds(most) => Some(format!("adds ≤ {}", number(most, line.unit))),
        Target::Most(most) => Some(format!("≤ {}", number(most, line.unit))),
        Target::Least(least) => Some(format!("≥ {}", number(least, line.unit))),
        Target::None => None,
    }
}

fn number(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Times => format!("{value:.2} ×"),
        Unit::Kibibytes => format!("{:.1} MiB", value / 1024.0),
        Unit::Nanoseconds if value < 1e3 => format!("{value:.0} ns"),
        Unit::Nanoseconds if value < 1e6 => format!("{:.2} µs", value / 1e3),
        Unit::Nanoseconds => format!("{:.2} ms", value / 1e6),
    }
}
