//! The counts of tasks by name: as many names as the settings allow, and one series for all others.

use std::collections::HashMap;
use std::time::Duration;

use crate::model::catalogue::tasks::{TASK_SECONDS, TASKS_ACTIVE, TASKS_DURATION, TASKS_LOST};
use crate::model::sample::{Histogram, LabelValue, Sample};
use crate::model::task::TaskState;
use crate::redact::Clean;
use crate::semconv;

/// The place of a series; it keeps it for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(usize);

/// All series. The first one is of the names that are too many.
#[derive(Debug)]
pub(super) struct Series {
    places: HashMap<Clean<'static>, Place>,
    counts: Vec<Counts>,
    most: usize,
}

#[derive(Debug, Default)]
struct Counts {
    /// `None` of the names that are too many.
    name: Option<Clean<'static>>,
    active: u64,
    /// Those that succeeded and those that failed, by `TaskState`.
    durations: [Durations; 2],
    lost: u64,
}

/// The name is new, and there are as many as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

impl Series {
    /// For at most so many names.
    pub(super) fn new(most: usize) -> Self {
        Self { places: HashMap::new(), counts: vec![Counts::default()], most }
    }

    /// Lets so many names have a series of their own from now on; those that have one keep it.
    pub(super) fn allow(&mut self, most: usize) {
        self.most = most;
    }

    /// Counts a task as active; gives the place of its name, and whether that is the one of all others.
    pub(super) fn begin(&mut self, name: &Clean<'static>) -> (Place, Result<(), TooMany>) {
        let (place, known) = self.place(name);
        self.counts[place.0].active += 1;
        (place, known)
    }

    fn place(&mut self, name: &Clean<'static>) -> (Place, Result<(), TooMany>) {
        if let Some(place) = self.places.get(name) {
            return (*place, Ok(()));
        }
        if self.places.len() >= self.most {
            return (Place(0), Err(TooMany));
        }
        let place = Place(self.counts.len());
        self.counts.push(Counts { name: Some(name.clone()), ..Counts::default() });
        self.places.insert(name.clone(), place);
        (place, Ok(()))
    }

    /// Counts the end of a task that was active.
    pub(super) fn end(&mut self, place: Place, state: TaskState, duration: Duration) {
        let counts = &mut self.counts[place.0];
        counts.active = counts.active.saturating_sub(1);
        match state {
            TaskState::Succeeded | TaskState::Failed => counts.durations[state as usize].add(duration),
            TaskState::Lost => counts.lost += 1,
        }
    }

    /// The samples of all names that were ever begun.
    pub(super) fn samples(&self, out: &mut Vec<Sample>) {
        for counts in &self.counts {
            let is_used = counts.active > 0 || counts.lost > 0 || counts.durations.iter().any(|of| of.count > 0);
            if counts.name.is_none() && !is_used {
                continue;
            }
            let named = |sample: Sample| match &counts.name {
                Some(name) => sample.with("task", LabelValue::Text(name.clone())),
                None => sample.with(semconv::OTEL_METRIC_OVERFLOW, LabelValue::Flag(true)),
            };
            out.push(named(Sample::level(&TASKS_ACTIVE, counts.active as f64)));
            for state in [TaskState::Succeeded, TaskState::Failed] {
                let durations = &counts.durations[state as usize];
                if durations.count > 0 {
                    let sample = named(Sample::histogram(&TASKS_DURATION, durations.histogram()));
                    out.push(sample.with_literal("state", state.label()));
                }
            }
            out.push(named(Sample::count(&TASKS_LOST, counts.lost)));
        }
    }
}

/// A histogram while it is counted; in whole nanoseconds, so that the sum stays exact.
#[derive(Debug, Default)]
struct Durations {
    explicit: [u64; TASK_SECONDS.len() + 1],
    sum_nanos: u128,
    count: u64,
    shortest: Option<Duration>,
    longest: Option<Duration>,
}

impl Durations {
    fn add(&mut self, duration: Duration) {
        // a bound belongs to the bucket below it
        let bucket = TASK_SECONDS.partition_point(|bound| duration.as_secs_f64() > *bound);
        self.explicit[bucket] += 1;
        self.sum_nanos += duration.as_nanos();
        self.count += 1;
        self.shortest = Some(self.shortest.map_or(duration, |shortest| shortest.min(duration)));
        self.longest = Some(self.longest.map_or(duration, |longest| longest.max(duration)));
    }

    fn histogram(&self) -> Histogram {
        Histogram {
            explicit: self.explicit.to_vec(),
            sum: self.sum_nanos as f64 / 1e9,
            count: self.count,
            min: self.shortest.map(|shortest| shortest.as_secs_f64()),
            max: self.longest.map(|longest| longest.as_secs_f64()),
            ..Histogram::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample::SampleValue;

    #[test]
    fn an_endless_supply_of_names_makes_no_endless_series_and_no_task_goes_uncounted() {
        let mut series = Series::new(3);
        for number in 0..1_000 {
            let (place, known) = series.begin(&Clean::number(number));
            assert_eq!(known.is_err(), number >= 3, "{number}");
            series.end(place, TaskState::Succeeded, Duration::from_secs(1));
        }
        let mut samples = Vec::new();
        series.samples(&mut samples);
        let counts: Vec<u64> = samples
            .iter()
            .filter_map(|sample| match &sample.value {
                SampleValue::Histogram(histogram) => Some(histogram.count),
                _ => None,
            })
            .collect();
        assert_eq!(counts, [997, 1, 1, 1]);
        assert_eq!(samples[0].labels, [(semconv::OTEL_METRIC_OVERFLOW, LabelValue::Flag(true))]);
    }

    #[test]
    fn a_bound_belongs_to_the_bucket_below_it_and_the_sum_is_exact() {
        let mut durations = Durations::default();
        for millis in [100, 101, 3_600_000, 3_600_001] {
            durations.add(Duration::from_millis(millis));
        }
        let histogram = durations.histogram();
        let last = TASK_SECONDS.len();
        let counts = [0, 1, last - 1, last].map(|bucket| histogram.explicit[bucket]);
        assert_eq!(counts, [1, 1, 1, 1]);
        assert_eq!((histogram.count, histogram.sum), (4, 7_200.202));
        assert_eq!((histogram.min, histogram.max), (Some(0.1), Some(3_600.001)));
    }
}
