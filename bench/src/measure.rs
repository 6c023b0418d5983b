//! Measuring two sides in turns, so that what else the machine does hits both.

use std::time::{Duration, Instant};

use crate::Work;
use crate::line::{Line, Unit};
use crate::rows::Row;
use crate::token::Token;

/// How often each side has its turn.
const ROUNDS: usize = 15;
/// How long a turn takes.
const TURN: Duration = Duration::from_millis(30);

/// Gives the middle one of some numbers.
pub fn median(numbers: &mut [f64]) -> f64 {
    quantile(numbers, 0.5)
}

/// Gives the number below which such a part of all lies.
pub fn quantile(numbers: &mut [f64], part: f64) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let last = numbers.len().saturating_sub(1);
    numbers[(last as f64 * part).round() as usize]
}

/// Measures a row.
pub fn row(row: &Row, token: &Token) -> Line {
    let mut ours = Side::new((row.ours)(token));
    let mut bare = row.bare.map(|bare| Side::new(bare(token)));
    for _ in 0..ROUNDS {
        ours.turn();
        if let Some(bare) = &mut bare {
            bare.turn();
        }
    }
    Line {
        name: row.name.to_owned(),
        unit: Unit::Nanoseconds,
        ours: median(&mut ours.samples),
        bare: bare.map(|mut bare| median(&mut bare.samples)),
        target: row.target,
    }
}

/// A call with how often a turn repeats it, and what the turns told, in nanoseconds for each call.
struct Side {
    work: Work,
    count: u32,
    samples: Vec<f64>,
}

impl Side {
    /// Warms up, and then finds how often the call fits into a turn: the first calls of a process seed random generators.
    fn new(mut work: Work) -> Self {
        count_within(&mut work, TURN);
        let count = count_within(&mut work, TURN);
        Self { work, count, samples: Vec::new() }
    }

    fn turn(&mut self) {
        let time = repeat(&mut self.work, self.count);
        self.samples.push(time.as_nanos() as f64 / f64::from(self.count));
    }
}

/// Repeats a call for so long, at least once, and tells how often.
fn count_within(work: &mut Work, time: Duration) -> u32 {
    let (start, mut count) = (Instant::now(), 0);
    loop {
        work();
        count += 1;
        if start.elapsed() >= time {
            return count;
        }
    }
}

/// Repeats a call and tells how long that took.
fn repeat(work: &mut Work, count: u32) -> Duration {
    let start = Instant::now();
    (0..count).for_each(|_| work());
    start.elapsed()
}
