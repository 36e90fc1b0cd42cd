//! Celery's metrics under the names of celery-exporter, on the pages for Prometheus only: dashboards and alerts that were made
//! for it go on working.
//!
//! The values are those of our own names, which alone leave by OTLP. A worker's host is no label of tasks here: hosts of a
//! cluster come and go. Source: `danihodovic/celery-exporter`, `src/exporter.py`.

use std::time::Duration;

use crate::model::catalogue::celery as ours;
use crate::model::catalogue::{Metric, MetricKind, Scope};
use crate::model::sample::Sample;
use crate::semconv;

/// A metric of ours, and its name there.
#[derive(Debug)]
pub struct Alias {
    /// Ours, which is in the catalogue.
    pub ours: &'static Metric,
    /// As it is shown a second time.
    pub theirs: Metric,
}

/// What our labels are called there.
const LABELS: [(&str, &str); 4] = [
    (ours::TASK, "name"),
    (ours::WORKER, "hostname"),
    (semconv::MESSAGING_DESTINATION_NAME, "queue_name"),
    (ours::EXCEPTION, "exception"),
];

const fn alias(ours: &'static Metric, name: &'static str, kind: MetricKind, labels: &'static [&'static str]) -> Alias {
    // the exporter's names tell no unit, so there is none that would be put behind them
    let theirs = Metric {
        name,
        unit: "{celery}",
        kind,
        labels,
        scope: Scope::Cluster,
        max_age: Duration::ZERO,
        about: "As celery-exporter names it.",
    };
    Alias { ours, theirs }
}

const fn tasks(ours: &'static Metric, name: &'static str) -> Alias {
    alias(ours, name, MetricKind::Counter, &["name", "queue_name"])
}

const fn queues(ours: &'static Metric, name: &'static str) -> Alias {
    alias(ours, name, MetricKind::Gauge, &["queue_name"])
}

/// Every metric that has a second name, in the order in which they are shown.
pub static ALIASES: &[Alias] = &[
    tasks(&ours::TASKS_SENT, "celery.task.sent"),
    tasks(&ours::TASKS_RECEIVED, "celery.task.received"),
    tasks(&ours::TASKS_STARTED, "celery.task.started"),
    tasks(&ours::TASKS_SUCCEEDED, "celery.task.succeeded"),
    tasks(&ours::TASKS_RESULT_ERROR, "celery.task.result_error"),
    alias(&ours::TASKS_FAILED, "celery.task.failed", MetricKind::Counter, &["name", "queue_name", "exception"]),
    tasks(&ours::TASKS_RETRIED, "celery.task.retried"),
    tasks(&ours::TASKS_REVOKED, "celery.task.revoked"),
    tasks(&ours::TASKS_REJECTED, "celery.task.rejected"),
    tasks(&ours::TASKS_LOST, "celery.task.lost"),
    alias(
        &ours::TASK_DURATION,
        "celery.task.runtime",
        MetricKind::Histogram(ours::TASK_SECONDS),
        &["name", "queue_name"],
    ),
    alias(
        &ours::TASK_WAIT,
        "celery.task.queue_wait_time",
        MetricKind::Histogram(ours::TASK_SECONDS),
        &["name", "queue_name"],
    ),
    alias(&ours::WORKER_ALIVE, "celery.worker.up", MetricKind::Gauge, &["hostname"]),
    alias(&ours::WORKER_ACTIVE, "celery.worker.tasks_active", MetricKind::Gauge, &["hostname"]),
    queues(&ours::QUEUE_MESSAGES, "celery.queue.length"),
    queues(&ours::QUEUE_CONSUMERS, "celery.active.worker_count"),
    queues(&ours::QUEUE_HEAD_AGE, "celery.queue.head_age_seconds"),
    alias(&ours::UNACKED_MESSAGES, "celery.queue.unacked", MetricKind::Gauge, &[]),
    alias(&ours::UNACKED_OLDEST_AGE, "celery.queue.oldest_unacked_seconds", MetricKind::Gauge, &[]),
    alias(&ours::EVENTS_MISSED, "celery.events.lost", MetricKind::Counter, &[]),
];

/// The sample under its second name, if it has one.
#[must_use]
pub fn renamed(sample: &Sample) -> Option<Sample> {
    let alias = ALIASES.iter().find(|alias| std::ptr::eq(alias.ours, sample.metric))?;
    let theirs =
        |label: &'static str| LABELS.iter().find(|(ours, _)| *ours == label).map_or(label, |(_, theirs)| theirs);
    let labels = sample.labels.iter().map(|(label, value)| (theirs(label), value.clone())).collect();
    Some(Sample { metric: &alias.theirs, labels, value: sample.value.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::catalogue::ALL;

    #[test]
    fn each_second_name_is_of_a_metric_of_the_catalogue_and_of_its_kind() {
        for Alias { ours, theirs } in ALIASES {
            assert!(ALL.iter().any(|metric| std::ptr::eq(*metric, *ours)), "{}", ours.name);
            let is_counter = |metric: &Metric| metric.kind == MetricKind::Counter;
            assert_eq!(is_counter(ours), is_counter(theirs), "{}", theirs.name);
            assert_eq!(ours.labels.len(), theirs.labels.len(), "{}", theirs.name);
        }
    }

    #[test]
    fn a_sample_is_shown_as_the_exporter_shows_it() {
        let sample = Sample::count(&ours::TASKS_FAILED, 3)
            .with_literal(ours::TASK, "t")
            .with_literal(ours::EXCEPTION, "ValueError");
        let renamed = renamed(&sample).unwrap();
        assert_eq!(renamed.metric.name, "celery.task.failed");
        assert_eq!(renamed.labels.iter().map(|(label, _)| *label).collect::<Vec<_>>(), ["name", "exception"]);
    }
}
