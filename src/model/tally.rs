//! A histogram while it is counted, by the explicit bounds of its metric.

use crate::model::sample::Histogram;

/// Counts of values, and their sum.
#[derive(Clone, Debug)]
pub struct Tally {
    bounds: &'static [f64],
    buckets: Vec<u64>,
    sum: f64,
    count: u64,
    range: Option<(f64, f64)>,
}

impl Tally {
    /// Nothing counted yet, for the bounds of a metric.
    #[must_use]
    pub fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, buckets: vec![0; bounds.len() + 1], sum: 0.0, count: 0, range: None }
    }

    /// Counts a value.
    pub fn add(&mut self, value: f64) {
        // a bound belongs to the bucket below it
        self.buckets[self.bounds.partition_point(|bound| value > *bound)] += 1;
        self.sum += value;
        self.count += 1;
        let (least, most) = self.range.unwrap_or((value, value));
        self.range = Some((least.min(value), most.max(value)));
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The counts of now.
    #[must_use]
    pub fn histogram(&self) -> Histogram {
        Histogram {
            explicit: self.buckets.clone(),
            sum: self.sum,
            count: self.count,
            min: self.range.map(|(least, _)| least),
            max: self.range.map(|(_, most)| most),
            ..Histogram::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_the_bucket_below_it() {
        let mut tally = Tally::new(&[1.0, 4.0]);
        [1.0, 1.5, 4.0, 5.0, 0.0].into_iter().for_each(|value| tally.add(value));
        let histogram = tally.histogram();
        assert_eq!((histogram.explicit, histogram.count, histogram.sum), (vec![2, 2, 1], 5, 11.5));
        assert_eq!((histogram.min, histogram.max), (Some(0.0), Some(5.0)));
    }
}
