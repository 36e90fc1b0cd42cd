//! What is new since the last export. Pure.

use std::sync::Arc;

use crate::model::sample::{Exponential, Histogram, SampleValue};

/// The difference to the last value; the whole value when there is none, or when the series began anew.
pub(crate) fn since(value: &SampleValue, last: Option<&SampleValue>) -> SampleValue {
    match (value, last) {
        (SampleValue::Count(now), Some(SampleValue::Count(before))) if now >= before => {
            SampleValue::Count(now - before)
        }
        (SampleValue::Sum(now), Some(SampleValue::Sum(before))) if now >= before => SampleValue::Sum(now - before),
        (SampleValue::Histogram(now), Some(SampleValue::Histogram(before))) if now.count >= before.count => {
            SampleValue::Histogram(Arc::new(difference(now, before)))
        }
        _ => value.clone(),
    }
}

/// Whether a point would tell anything: a level always does, unless it is no number.
pub(crate) fn is_worth_telling(value: &SampleValue) -> bool {
    match value {
        SampleValue::Count(count) => *count > 0,
        SampleValue::Sum(sum) => *sum > 0.0,
        SampleValue::Level(level) => level.is_finite(),
        SampleValue::Histogram(histogram) => histogram.count > 0,
    }
}

fn difference(now: &Histogram, before: &Histogram) -> Histogram {
    let explicit = now.explicit.iter().enumerate();
    let explicit = explicit.map(|(i, count)| count.saturating_sub(before.explicit.get(i).copied().unwrap_or(0)));
    let exponential = now.exponential.as_ref().map(|now| match &before.exponential {
        Some(before) => exponential_difference(now, before),
        None => now.clone(),
    });
    Histogram {
        explicit: explicit.collect(),
        exponential,
        sum: (now.sum - before.sum).max(0.0),
        count: now.count - before.count,
        // those of the whole life say nothing about the interval
        min: None,
        max: None,
        // one that was told before is of an earlier interval
        exemplars: now.exemplars.iter().filter(|exemplar| !before.exemplars.contains(exemplar)).copied().collect(),
    }
}

fn exponential_difference(now: &Exponential, before: &Exponential) -> Exponential {
    let counts = now.counts.iter().zip(now.offset..);
    let counts = counts.map(|(count, index)| count.saturating_sub(bucket(before, index)));
    Exponential {
        zero: now.zero.saturating_sub(before.zero),
        zero_threshold: now.zero_threshold,
        offset: now.offset,
        counts: counts.collect(),
    }
}

fn bucket(exponential: &Exponential, index: i32) -> u64 {
    let position = usize::try_from(i64::from(index) - i64::from(exponential.offset)).ok();
    position.and_then(|position| exponential.counts.get(position)).copied().unwrap_or(0)
}
