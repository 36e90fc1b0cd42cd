//! The metrics of Celery's tasks, queues and workers, as the sidecar reads them from Redis.
//!
//! All are true of the cluster: whoever listens to the same Redis counts the same tasks.

use std::time::Duration;

use crate::model::catalogue::metric::{Metric, MetricKind, metric, of_cluster};
use crate::semconv;

/// Bounds for what tasks take and wait, in seconds: from a short query to a long rendering.
pub const TASK_SECONDS: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0];

/// Six readings of the queues: what is older was not read anew.
const READ: Duration = Duration::from_secs(60);

/// The name of a task.
pub const TASK: &str = "task";
/// The name of a worker.
pub const WORKER: &str = "worker";
/// The class of an exception.
pub const EXCEPTION: &str = semconv::ERROR_TYPE;

const BY_TASK: &[&str] = &[TASK, semconv::MESSAGING_DESTINATION_NAME];
const BY_FAILURE: &[&str] = &[TASK, semconv::MESSAGING_DESTINATION_NAME, EXCEPTION];
const BY_QUEUE: &[&str] = &[semconv::MESSAGING_DESTINATION_NAME];

const fn tasks(name: &'static str, labels: &'static [&'static str], about: &'static str) -> Metric {
    of_cluster(name, "{task}", MetricKind::Counter, labels, about)
}

const fn read(name: &'static str, unit: &'static str, labels: &'static [&'static str], about: &'static str) -> Metric {
    Metric { max_age: READ, ..of_cluster(name, unit, MetricKind::Gauge, labels, about) }
}

/// Tasks sent.
pub static TASKS_SENT: Metric = tasks(
    "content_factory.celery.tasks.sent",
    BY_TASK,
    "Tasks sent, as far as their senders tell (`task_send_sent_event`).",
);

/// Tasks received.
pub static TASKS_RECEIVED: Metric =
    tasks("content_factory.celery.tasks.received", BY_TASK, "Tasks that a worker received, each retry again.");

/// Tasks started.
pub static TASKS_STARTED: Metric =
    tasks("content_factory.celery.tasks.started", BY_TASK, "Runs of tasks that began, each retry again.");

/// Tasks succeeded.
pub static TASKS_SUCCEEDED: Metric = tasks(
    "content_factory.celery.tasks.succeeded",
    BY_TASK,
    "Tasks that succeeded, and whose result says nothing against it.",
);

/// Tasks that succeeded with an error.
pub static TASKS_RESULT_ERROR: Metric = tasks(
    "content_factory.celery.tasks.result_error",
    BY_TASK,
    "Tasks that succeeded for Celery and whose result has the status `error` or `failed`.",
);

/// Tasks failed.
pub static TASKS_FAILED: Metric = tasks(
    "content_factory.celery.tasks.failed",
    BY_FAILURE,
    "Tasks that failed with an exception, by its class; of no exception more than the class is kept.",
);

/// Tasks retried.
pub static TASKS_RETRIED: Metric =
    tasks("content_factory.celery.tasks.retried", BY_TASK, "Runs that ended with a retry.");

/// Tasks revoked.
pub static TASKS_REVOKED: Metric = tasks("content_factory.celery.tasks.revoked", BY_TASK, "Tasks that were revoked.");

/// Tasks rejected.
pub static TASKS_REJECTED: Metric =
    tasks("content_factory.celery.tasks.rejected", BY_TASK, "Tasks that a worker rejected.");

/// Tasks lost.
pub static TASKS_LOST: Metric = tasks(
    "content_factory.celery.tasks.lost",
    BY_TASK,
    "Tasks whose worker went silent while it ran them, and of whose end nothing was heard for `celery.lost_after`.",
);

/// Tasks lost and found.
pub static TASKS_FOUND_AGAIN: Metric = tasks(
    "content_factory.celery.tasks.found_again",
    &[],
    "Tasks that had been counted as lost or unseen and whose end came after all; it is counted, too.",
);

/// Tasks whose end was missed.
pub static TASKS_UNSEEN: Metric = tasks(
    "content_factory.celery.tasks.unseen",
    BY_TASK,
    "Tasks of whose end nothing was heard: their worker lives and works on none, or went silent after a time in which they may have ended unheard.",
);

/// Tasks of which nobody can say whether they ran.
pub static TASKS_UNCERTAIN: Metric = of_cluster(
    "content_factory.celery.tasks.uncertain",
    "{task}",
    MetricKind::Gauge,
    &[],
    "Tasks that a worker had received before a gap and that was not heard after it: they have run, or wait to be delivered again.",
);

/// How long tasks run.
pub static TASK_DURATION: Metric = of_cluster(
    "content_factory.celery.task.duration",
    "s",
    MetricKind::Histogram(TASK_SECONDS),
    BY_TASK,
    "Duration of runs of tasks, by the worker's clock.",
);

/// How long tasks run, as the conventions name it.
pub static PROCESS_DURATION: Metric = of_cluster(
    "messaging.process.duration",
    "s",
    MetricKind::Histogram(TASK_SECONDS),
    &[semconv::MESSAGING_SYSTEM, semconv::MESSAGING_OPERATION_NAME, semconv::MESSAGING_DESTINATION_NAME],
    "Duration of runs of tasks by queue, by the worker's clock.",
);

/// How long tasks wait.
pub static TASK_WAIT: Metric = of_cluster(
    "content_factory.celery.task.wait",
    "s",
    MetricKind::Histogram(TASK_SECONDS),
    BY_TASK,
    "Time that tasks waited for a worker: from when they were sent or due, whichever is later.",
);

/// Tasks that each worker has in work.
pub static WORKER_ACTIVE: Metric = of_cluster(
    "content_factory.celery.worker.active",
    "{task}",
    MetricKind::UpDownCounter,
    &[WORKER],
    "Tasks that a live worker works on, by its heartbeats.",
);

/// Whether each worker lives.
pub static WORKER_ALIVE: Metric = of_cluster(
    "content_factory.celery.worker.alive",
    "{worker}",
    MetricKind::UpDownCounter,
    &[WORKER],
    "1 for a worker whose last heartbeat is not older than two of its periods, else 0; not there ten minutes after its last.",
);

/// Messages in a queue.
pub static QUEUE_MESSAGES: Metric = read(
    "content_factory.celery.queue.messages",
    "{message}",
    BY_QUEUE,
    "Messages that wait in a queue, of all priorities.",
);

/// Consumers of a queue.
pub static QUEUE_CONSUMERS: Metric = read(
    "content_factory.celery.queue.consumers",
    "{worker}",
    BY_QUEUE,
    "Live workers that consume a queue, by their own answer; not there when they cannot be asked.",
);

/// Age of a queue's head.
pub static QUEUE_HEAD_AGE: Metric = read(
    "content_factory.celery.queue.head_age",
    "s",
    BY_QUEUE,
    "How long the next message of a queue has been seen to be the next; 0 when none waits.",
);

/// Queues that nobody serves.
pub static QUEUE_UNSERVED: Metric = read(
    "content_factory.celery.queue.unserved",
    "s",
    BY_QUEUE,
    "How long a queue has held messages without a consumer; 0 when it has one or holds none.",
);

/// Messages without acknowledgement.
pub static UNACKED_MESSAGES: Metric = read(
    "content_factory.celery.unacked.messages",
    "{message}",
    &[],
    "Messages that workers have taken and not acknowledged: prefetched, scheduled, or in work with late acknowledgement; of all queues.",
);

/// The same by queue.
pub static QUEUE_UNACKED: Metric = read(
    "content_factory.celery.queue.unacked",
    "{message}",
    BY_QUEUE,
    "Messages of a queue that workers have taken and not acknowledged; not there when there are more of all queues than are looked at.",
);

/// Age of the oldest of them.
pub static UNACKED_OLDEST_AGE: Metric = read(
    "content_factory.celery.unacked.oldest_age",
    "s",
    &[],
    "How long ago the oldest message without acknowledgement was taken; it is delivered again after `visibility_timeout`.",
);

/// Messages that were refused.
pub static MESSAGES_REFUSED: Metric = metric(
    "content_factory.celery.messages.refused",
    "{message}",
    MetricKind::Counter,
    &["reason"],
    "Messages on Celery's channels that were refused: longer than 1 MiB, malformed, or in another encoding.",
);

/// Events that were missed.
pub static EVENTS_MISSED: Metric = metric(
    "content_factory.celery.events.missed",
    "{task}",
    MetricKind::Counter,
    &[],
    "Tasks that workers started, by their own count, and of whose start no event was heard.",
);

/// Interruptions of the listening.
pub static GAPS: Metric = metric(
    "content_factory.celery.gaps",
    "{gap}",
    MetricKind::Counter,
    &[],
    "Times that the connection on which events are heard was lost; what was told meanwhile is not known.",
);

/// Tasks that became no span.
pub static SPANS_LEFT_OUT: Metric = metric(
    "content_factory.celery.spans.left_out",
    "{task}",
    MetricKind::Counter,
    &["reason"],
    "Tasks that became no span of ours, because an SDK in their worker tells of them (sdk), or for want of room (no_room).",
);

/// How tasks that publish ended.
pub static PUBLISHES: Metric = tasks(
    "content_factory.celery.publishes",
    &["outcome"],
    "Tasks that publish (`celery.publish_tasks`) by outcome: `published`, and `failed` when they raise, say so themselves or are lost.",
);
