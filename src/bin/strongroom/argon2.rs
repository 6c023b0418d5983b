//! `strongroom argon2 calibrate`: what Argon2id may cost on this machine.

use std::time::{Duration, Instant};

use serde_json::json;
use strongroom::error::Error;
use strongroom::seal::Argon2Params;
use strongroom::secret::SecureBytes;

use crate::args::CalibrateOptions;
use crate::failure::Failure;
use crate::output::Output;

/// The least and the most memory that the configuration takes, in MiB.
const MEMORY: (u64, u64) = (8, 4096);
/// The most passes that it takes.
const MOST_PASSES: u32 = 64;
/// The passes of RFC 9106, 4, for machines that spare memory; more memory is worth more than more passes.
const PASSES: u32 = 3;
/// The lanes of RFC 9106, 4. They cost no time here: one thread computes them all, since an attacker's machine may have more.
const LANES: u32 = 4;
/// The part of the memory that is there which one derivation may take: several run at once.
const PART: u64 = 4;
/// What is too cheap whatever the machine: 19 MiB with 2 passes are the least that OWASP names (Password Storage Cheat Sheet).
const LEAST_WORK: u64 = 19 * 2;

/// What is proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Proposal {
    memory_mib: u64,
    passes: u32,
    /// How long it takes here.
    time: Duration,
    /// What keeps it from costing more.
    bound: Bound,
}

/// What bounds a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    /// The time that was asked for.
    Time,
    /// The memory of this machine.
    Memory,
    /// Nothing costs less: it takes longer than was asked for.
    Least,
}

impl Bound {
    fn name(self) -> &'static str {
        match self {
            Bound::Time => "time",
            Bound::Memory => "memory",
            Bound::Least => "least",
        }
    }
}

/// Runs `argon2 calibrate`.
pub fn calibrate(options: &CalibrateOptions, output: &Output) -> Result<(), Failure> {
    let available = available_mib();
    let limit = (available / PART).clamp(MEMORY.0, MEMORY.1);
    let target = Duration::from_millis(options.target_ms);
    let found = propose(target, limit, &mut measure)?;
    let Proposal { memory_mib, passes, time, bound } = found;
    let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let toml = format!("[argon2]\nmemory_mib = {memory_mib}\npasses = {passes}\nlanes = {LANES}");
    let weak = memory_mib.saturating_mul(u64::from(passes)) < LEAST_WORK;
    output.result(
        &format!("# {milliseconds} ms on this machine{}\n{toml}", remark(bound, weak, limit)),
        &json!({
            "memory_mib": memory_mib, "passes": passes, "lanes": LANES, "milliseconds": milliseconds,
            "target_milliseconds": options.target_ms, "available_mib": available, "limit_mib": limit,
            "bound": bound.name(), "weak": weak, "toml": toml,
        }),
    )?;
    output.hint("PINs and passwords of keys are raised to this at their next right use; nothing is ever lowered.");
    Ok(())
}

fn remark(bound: Bound, weak: bool, limit: u64) -> String {
    let bound = match bound {
        Bound::Time => String::new(),
        Bound::Memory => format!("; bounded by a quarter of the memory that is available ({limit} MiB)"),
        Bound::Least => "; longer than was asked for, and nothing costs less".to_owned(),
    };
    let weak = if weak { "\n# weak: OWASP recommends 19 MiB and 2 passes at the least; allow more time" } else { "" };
    format!("{bound}{weak}")
}

/// Searches for the most that Argon2id may cost in a time: memory first, then passes.
fn propose(
    target: Duration,
    limit_mib: u64,
    measure: &mut dyn FnMut(u64, u32) -> Result<Duration, Error>,
) -> Result<Proposal, Error> {
    let (mut memory_mib, mut passes, mut bound) = (MEMORY.0, PASSES, Bound::Time);
    let mut time = measure(memory_mib, passes)?;
    if time > target {
        // A machine that is so slow spares passes, down to one.
        passes = scaled(PASSES, target, time).clamp(1, PASSES);
        time = measure(memory_mib, passes)?;
        bound = if time > target { Bound::Least } else { Bound::Time };
        return Ok(Proposal { memory_mib, passes, time, bound });
    }
    while memory_mib < limit_mib && time.saturating_mul(2) <= target {
        memory_mib = memory_mib.saturating_mul(2).min(limit_mib);
        time = measure(memory_mib, passes)?;
    }
    // Between this and twice as much, by what it took; a step back where that was too bold.
    for _ in 0..4 {
        let next = rounded(scaled(memory_mib, target, time)).clamp(MEMORY.0, limit_mib);
        let fits = time <= target;
        if next == memory_mib || fits && next.saturating_sub(memory_mib) < memory_mib / 20 {
            break;
        }
        (memory_mib, time) = (next, measure(next, passes)?);
    }
    if memory_mib == limit_mib && limit_mib < MEMORY.1 {
        bound = Bound::Memory;
    }
    if memory_mib == limit_mib && time < target {
        let more = scaled(passes, target, time).clamp(passes, MOST_PASSES);
        if more > passes {
            (passes, time) = (more, measure(memory_mib, more)?);
        }
    }
    Ok(Proposal { memory_mib, passes, time, bound })
}

/// Scales a cost by what it took to what it may take.
fn scaled<T>(cost: T, target: Duration, took: Duration) -> T
where
    T: Into<u64> + TryFrom<u64> + Copy,
{
    let wide = u128::from(cost.into()).saturating_mul(target.as_micros()) / took.as_micros().max(1);
    u64::try_from(wide).ok().and_then(|scaled| T::try_from(scaled).ok()).unwrap_or(cost)
}

/// Rounds memory down to a number that is easy to read.
fn rounded(mib: u64) -> u64 {
    let step = if mib < 64 { 4 } else { 16 };
    mib / step * step
}

/// Measures a derivation: the faster of two, since only disturbances make one slower.
fn measure(memory_mib: u64, passes: u32) -> Result<Duration, Error> {
    let memory_kib = u32::try_from(memory_mib.saturating_mul(1024)).unwrap_or(u32::MAX);
    let params = Argon2Params::new(memory_kib, passes, LANES)?;
    let password = SecureBytes::copy_from(b"strongroom argon2 calibrate");
    let mut best = Duration::MAX;
    for _ in 0..2 {
        let start = Instant::now();
        params.derive(&password, &[0x5A; 32])?;
        best = best.min(start.elapsed());
    }
    Ok(best)
}

/// Tells how much memory is available in MiB: what the kernel says, or what is left to this control group.
fn available_mib() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let kernel = kernel_kib(&read("/proc/meminfo")).map(|kib| kib / 1024);
    let group = group_bytes(&read("/sys/fs/cgroup/memory.max"), &read("/sys/fs/cgroup/memory.current"))
        .or_else(|| {
            let v1 = "/sys/fs/cgroup/memory/memory";
            group_bytes(&read(&format!("{v1}.limit_in_bytes")), &read(&format!("{v1}.usage_in_bytes")))
        })
        .map(|bytes| bytes >> 20);
    // Where nobody tells, the default of the configuration is supposed to fit.
    kernel.into_iter().chain(group).min().unwrap_or(64 * PART)
}

/// Reads `MemAvailable` of /proc/meminfo.
fn kernel_kib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Reads what a control group's limit leaves; `max` is none.
fn group_bytes(limit: &str, used: &str) -> Option<u64> {
    let limit: u64 = limit.trim().parse().ok()?;
    Some(limit.saturating_sub(used.trim().parse().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// A machine that takes so many microseconds for a MiB and pass.
    fn on(micros: u64, target_ms: u64, limit: u64) -> (Proposal, usize) {
        let mut count = 0;
        let mut cost = |memory: u64, passes: u32| {
            assert!(memory <= limit && memory >= 8 && (1..=64).contains(&passes), "{memory} {passes}");
            count += 1;
            Ok(Duration::from_micros(micros * memory * u64::from(passes)))
        };
        (propose(Duration::from_millis(target_ms), limit, &mut cost).unwrap(), count)
    }

    #[test]
    fn the_time_is_spent_on_memory_first() {
        for (micros, target) in [(700, 500), (700, 50), (300, 1000), (2000, 500), (50, 250)] {
            let (found, count) = on(micros, target, 4096);
            let target = Duration::from_millis(target);
            assert_eq!((found.passes, found.bound), (3, Bound::Time), "{found:?}");
            assert!(found.time <= target && found.time >= target * 2 / 3, "{found:?}");
            assert!(count < 20, "{count} measurements");
        }
    }

    #[test]
    fn little_memory_is_made_up_for_by_passes() {
        let (found, _) = on(500, 1000, 64);
        assert_eq!((found.memory_mib, found.bound), (64, Bound::Memory));
        assert_eq!((found.passes, found.time <= Duration::from_secs(1)), (31, true));
        // Not beyond what the configuration takes.
        assert_eq!(on(1, 60_000, 8).0.passes, 64);
    }

    #[test]
    fn a_slow_machine_gets_the_least_and_is_told() {
        let (found, _) = on(10_000, 100, 4096);
        assert_eq!((found.memory_mib, found.passes, found.bound), (8, 1, Bound::Time));
        let (found, _) = on(100_000, 100, 4096);
        assert_eq!((found.memory_mib, found.passes, found.bound), (8, 1, Bound::Least));
    }

    #[test]
    fn a_measurement_that_jumps_ends_the_search_all_the_same() {
        let mut tick = 0;
        let mut cost = |memory: u64, passes: u32| {
            tick += 1;
            assert!(tick < 40);
            Ok(Duration::from_micros(memory * u64::from(passes) * if tick % 2 == 0 { 100 } else { 3000 }))
        };
        propose(Duration::from_millis(500), 4096, &mut cost).unwrap();
        let mut nothing = |_: u64, _: u32| Ok(Duration::ZERO);
        assert_eq!(propose(Duration::from_millis(500), 4096, &mut nothing).unwrap().memory_mib, 4096);
    }

    #[test]
    fn what_is_available_is_read() {
        assert_eq!(kernel_kib("MemTotal: 9 kB\nMemAvailable:   123456 kB\n"), Some(123_456));
        assert_eq!(kernel_kib("MemTotal: 9 kB\n"), None);
        assert_eq!((group_bytes("max\n", "5\n"), group_bytes("", "")), (None, None));
        assert_eq!((group_bytes("100\n", "30\n"), group_bytes("100", "300")), (Some(70), Some(0)));
        assert!(available_mib() > 0);
    }
}
