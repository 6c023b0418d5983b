//! Criterion's statistics of the rows, and how they changed since the last run.

use std::time::Duration;

use bench::Work;
use bench::rows::ROWS;
use bench::token::Token;
use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};

/// How many objects the token has besides its keys.
const OBJECTS: usize = 100;

fn main() {
    let token = Token::new(OBJECTS);
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .configure_from_args();
    for row in ROWS {
        let mut group = criterion.benchmark_group(row.name);
        side(&mut group, "Strongroom", (row.ours)(&token));
        if let Some(bare) = row.bare {
            side(&mut group, "bare", bare(&token));
        }
        group.finish();
    }
    criterion.final_summary();
}

fn side(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, mut work: Work) {
    group.bench_function(name, |bencher| bencher.iter(&mut work));
}
