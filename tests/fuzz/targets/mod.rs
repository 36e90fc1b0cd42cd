//! What is asked of each parser of foreign bytes, whatever the bytes are: one function per target, called by the replay
//! in `tests/fuzz` and by libFuzzer in `fuzz/`.
//!
//! A target panics when a promise is broken, and tells what became of the bytes otherwise. Parsers that are no part of
//! the library's face are reached as users reach them: through a proxy that serves.

pub(crate) mod celery;
pub(crate) mod configuration;
pub(crate) mod forwarded;
pub(crate) mod headers;
pub(crate) mod otlp;
pub(crate) mod proxy;
pub(crate) mod redaction;
pub(crate) mod routes;
pub(crate) mod traceparent;
pub(crate) mod usage;
pub(crate) mod world;

/// What became of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// They were understood.
    Accepted,
    /// They were not.
    Refused,
}
