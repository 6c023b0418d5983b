//! A line of the table: what was measured, and what the design asks for.

/// What the numbers of a line count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds for each call: less is better.
    Nanoseconds,
    /// How many times the work of one thread: more is better.
    Times,
    /// KiB of memory: less is better.
    Kibibytes,
}

/// What is asked of a line: how far from the bare library it may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// At least this part of the bare library's speed.
    Ratio(f64),
    /// At most so many nanoseconds more than the bare library.
    Adds(f64),
    /// At most so much.
    Most(f64),
    /// At least so much.
    Least(f64),
    /// Nothing; the line is there to be watched.
    None,
}

/// A line of the table.
#[derive(Debug, Clone)]
pub struct Line {
    /// What was done.
    pub name: String,
    /// What the numbers count.
    pub unit: Unit,
    /// What Strongroom needs.
    pub ours: f64,
    /// What the bare library needs for the same.
    pub bare: Option<f64>,
    /// What the design asks for.
    pub target: Target,
}

impl Line {
    /// Tells how fast Strongroom is where the bare library is 1.
    pub fn ratio(&self) -> Option<f64> {
        let bare = self.bare?;
        Some(if self.unit == Unit::Times { self.ours / bare } else { bare / self.ours })
    }

    /// Tells whether the target is met, where there is one.
    pub fn is_met(&self) -> Option<bool> {
        match self.target {
            Target::Ratio(least) => self.ratio().map(|ratio| ratio >= least),
            Target::Adds(most) => self.bare.map(|bare| self.ours - bare <= most),
            Target::Most(most) => Some(self.ours <= most),
            Target::Least(least) => Some(self.ours >= least),
            Target::None => None,
        }
    }
}
