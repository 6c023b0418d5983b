//! `strongroom completions`: what a shell needs to complete the command's arguments.

use clap::CommandFactory;
use serde_json::json;

use crate::args::{Arguments, CompletionsOptions};
use crate::failure::Failure;
use crate::output::Output;

/// Runs the verb.
pub fn run(options: &CompletionsOptions, output: &Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Arguments::command(), "strongroom", &mut script);
    let script = String::from_utf8_lossy(&script);
    output.result(&script, &json!({ "shell": options.shell.to_string(), "script": script }))
}
