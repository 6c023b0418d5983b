//! Rotates many due keys in one call of SR_RotateDue: `cargo bench … --bench rotation -- 100000 p256`.

use bench::machine::Machine;
use bench::rotation;

/// How many keys are rotated unless it is said.
const KEYS: usize = 2000;
/// What they are keys of unless it is said.
const ASSET: &str = "p256";

fn main() {
    if rotation::play() {
        return;
    }
    let words: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let keys = words.iter().find_map(|word| word.parse().ok()).unwrap_or(KEYS);
    let asset = words.iter().find(|word| word.parse::<usize>().is_err()).map_or(ASSET, String::as_str);
    let machine = Machine::this();
    let outcome = rotation::measure(keys, asset);
    let rate = |time: std::time::Duration| keys as f64 / time.as_secs_f64();
    println!("{} cores of {}, load {}\n", machine.cores, machine.cpu, machine.load);
    println!("| {keys} managed keys, {asset} | time | keys/s |\n|---|---:|---:|");
    for (what, time) in [
        ("made, by 16 threads", outcome.made_in),
        ("all due: rotated by one SR_RotateDue", outcome.rotated_in),
        ("of which the processor worked", outcome.worked),
        ("none due: looked through", outcome.looked_in),
    ] {
        println!("| {what} | {:.2} s | {:.0} |", time.as_secs_f64(), rate(time));
    }
    match outcome.requests {
        Some([opening, more]) => println!("\nKMS requests: {opening} to open the token, {more} for the rotation"),
        None => println!("\nKMS requests were not counted: SoftHSM2 is not installed"),
    }
}
