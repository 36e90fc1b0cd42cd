//! The attributes that no convention names: our own, of spans and of our log records. `docs/metrics.md` lists them.
//!
//! Labels of metrics stand with their metric in the catalogue. What is in neither must be a name of OpenTelemetry's
//! semantic conventions: a test compares what we emit, and what our log statements name.

use crate::semconv;

/// A name of our own, and what it tells.
#[derive(Debug, PartialEq, Eq)]
pub struct Attribute {
    /// As it is written.
    pub name: &'static str,
    /// What it tells, in one sentence.
    pub about: &'static str,
}

const fn attribute(name: &'static str, about: &'static str) -> Attribute {
    Attribute { name, about }
}

/// Of the spans of requests and tasks.
pub static OF_SPANS: &[Attribute] = &[
    attribute(semconv::CELERY_TASK, "The name of a task of Celery."),
    attribute(
        semconv::CONTENT_FACTORY_CLIENT_HASH,
        "The client's address, hashed with a key of the process and the day (`telemetry.privacy.address: hash`).",
    ),
    attribute(
        semconv::SAMPLING_REASON,
        "Why the spans of a request were kept, where not all are: `head` (the share of traces), `error` or `slow`.",
    ),
];

/// Fields of the sidecar's own log, whose lines leave as log records, too.
pub static OF_LOGS: &[Attribute] = &[
    attribute("aside", "Where a file that could not be read was put."),
    attribute("check", "A health check, by its name."),
    attribute("class", "What kind of failure it was."),
    attribute("code", "The code that the database gave."),
    attribute("coding", "A compression, as HTTP names it."),
    attribute("connections", "How many connections there are, or may be."),
    attribute("current", "The limit that is in force."),
    attribute("detail", "What was said of a failure, without secrets."),
    attribute("endpoint", "Scheme, host and port of a receiver."),
    attribute("error", "What failed, in the words of who noticed."),
    attribute("expected", "What the setting asks for."),
    attribute("found", "What there was instead of what was expected."),
    attribute("from", "A limit before it was changed."),
    attribute("is_panic", "Whether a task ended by a panic."),
    attribute("items", "Spans, data points or log records."),
    attribute("known", "How many route templates are known."),
    attribute("limit_seconds", "How long something may take, in seconds."),
    attribute("maximum", "The highest limit that the system allows."),
    attribute("mistake", "What is wrong with a file, and what was expected."),
    attribute("name", "A host's name that was looked up."),
    attribute("part", "Which of the database's numbers."),
    attribute("path", "A file or folder."),
    attribute("pause_ms", "How long nothing is tried, in milliseconds."),
    attribute("reason", "Why it happened."),
    attribute("refusal", "Why a request was refused."),
    attribute("room", "A part of the sidecar."),
    attribute("rooms", "Parts of the sidecar, with blanks between them."),
    attribute("settings", "Settings by their paths, with blanks between them."),
    attribute("signal", "Traces, metrics, logs or envelopes."),
    attribute("status", "The status of a health check."),
    attribute("table", "A table of the application's database."),
    attribute("templates", "How many route templates there are."),
    attribute("to", "A limit after it was changed."),
    attribute("url", "What was asked, without secrets."),
    attribute("wait_ms", "How long it is until the next try, in milliseconds."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_stands_once_in_order_and_what_is_said_of_it_is_a_sentence() {
        for table in [OF_SPANS, OF_LOGS] {
            assert!(table.is_sorted_by(|one, next| one.name < next.name));
            assert!(table.iter().all(|attribute| attribute.about.ends_with('.')));
        }
    }
}
