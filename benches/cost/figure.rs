//! Measured values: single ones with what they should be, and the spread of repeated ones.

use std::fmt;

/// One measured value.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    /// What was measured.
    pub(crate) what: String,
    /// How much it is.
    pub(crate) value: f64,
    unit: &'static str,
    target: Option<Bound>,
    limit: Option<f64>,
}

/// What a value should be.
#[derive(Clone, Copy, Debug)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }
}

impl Figure {
    /// A value that is only told.
    pub(crate) fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { what: what.into(), value, unit, target: None, limit: None }
    }

    /// What it should be at most.
    pub(crate) fn target(self, most: f64) -> Self {
        Self { target: Some(Bound::AtMost(most)), ..self }
    }

    /// What it should be at least.
    pub(crate) fn target_at_least(self, least: f64) -> Self {
        Self { target: Some(Bound::AtLeast(least)), ..self }
    }

    /// Above this the program fails: with a margin to the target, where the machine has a part in the value.
    pub(crate) fn limit(self, most: f64) -> Self {
        Self { limit: Some(most), ..self }
    }

    /// Whether it has a target.
    pub(crate) fn is_aimed(&self) -> bool {
        self.target.is_some()
    }

    /// Whether it is within its limit, if it has one.
    pub(crate) fn verdict(&self) -> Option<bool> {
        self.limit.map(|limit| self.value <= limit)
    }
}

/// The head of the table whose rows are figures.
pub(crate) const HEAD: &str = "| measured | figure | target | |\n|---|---|---|---|";

impl fmt::Display for Figure {
    fn fmt(&self, form: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(form, "| {} | {} | ", self.what, with_unit(self.value, self.unit))?;
        let word = match self.target {
            Some(bound) if bound.holds(self.value) => "met",
            Some(_) => "**missed**",
            None => "",
        };
        match self.target {
            Some(Bound::AtMost(most)) => write!(form, "at most {} | {word} |", number(most))?,
            Some(Bound::AtLeast(least)) => write!(form, "at least {} | {word} |", number(least))?,
            None => write!(form, "| |")?,
        }
        if self.verdict() == Some(false) { write!(form, " **above the limit**") } else { Ok(()) }
    }
}

fn with_unit(value: f64, unit: &str) -> String {
    format!("{} {unit}", number(value)).trim_end().to_owned()
}

/// As many digits as mean something, thousands apart.
pub(crate) fn number(value: f64) -> String {
    if value.abs() < 100.0 {
        let text = format!("{value:.2}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let digits = format!("{value:.0}");
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|group| str::from_utf8(group).ok()).collect();
    groups.join(",")
}

/// The quartiles of repeated measurements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    /// A quarter lies below.
    pub(crate) low: f64,
    /// The one in the middle.
    pub(crate) median: f64,
    /// A quarter lies above.
    pub(crate) high: f64,
}

impl Spread {
    /// Of at least one value.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |quarter: usize| sorted[(sorted.len() - 1) * quarter / 4];
        Self { low: at(1), median: at(2), high: at(3) }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, form: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(form, "{} ({}–{})", number(self.median), number(self.low), number(self.high))
    }
}

/// A count as a part of another.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub(crate) fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}
