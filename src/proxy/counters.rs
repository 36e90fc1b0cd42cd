//! What the data path tells of itself: relaxed atomics, written by the workers, read by anyone.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::catalogue::{
    PROXY_ACCEPT_ERRORS, PROXY_ACTIVE_CONNECTIONS, PROXY_CONNECTIONS, PROXY_CUT_OFF_CONNECTIONS, PROXY_HTTP2_ERRORS,
    PROXY_PANICS, PROXY_REFUSALS, PROXY_UPSTREAM_CONNECTIONS, PROXY_UPSTREAM_RESENDS, ROOM_RESTARTS, proxy,
};
use crate::model::request::Refusal;
use crate::model::sample::Sample;
use crate::semconv;

/// Totals since the start, over all workers.
#[derive(Debug, Default)]
pub struct Counters {
    /// Client connections taken.
    pub connections: AtomicU64,
    /// Client connections closed again: the difference is open.
    pub connections_closed: AtomicU64,
    /// Errors of the accept call, such as no file descriptors left.
    pub accept_errors: AtomicU64,
    /// Connections to the application opened.
    pub upstream_connections: AtomicU64,
    /// Requests sent again because a kept connection had just closed.
    pub resends: AtomicU64,
    /// Panics in a connection's task: each ended that connection, and nothing else.
    pub connection_panics: AtomicU64,
    /// Panics in a worker: each ended its connections.
    pub worker_panics: AtomicU64,
    /// Times that a worker began again, after a panic or because it could not start.
    pub worker_restarts: AtomicU64,
    /// Panics in the sink: the request went on, its report may be missing.
    pub sink_panics: AtomicU64,
    /// Bytes that are held for clients, as of each worker's last tick.
    pub(crate) held: AtomicU64,
    /// Connections cut off without an answer to a request.
    pub(crate) breaches: Breaches,
    /// RST_STREAM frames that we sent for an error.
    pub(crate) resets: Http2Errors,
    /// GOAWAY frames that we sent for an error.
    pub(crate) go_aways: Http2Errors,
    /// Requests refused, by the number of their `Refusal`.
    refused: [AtomicU64; Refusal::ALL.len()],
}

/// Why a client's connection was cut off, where no request could be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Breach {
    /// Its client connects more often than `proxy.limits.connection_rate` allows.
    ConnectionRate,
    /// HTTP/2: frames that move nothing, more than a client may send.
    Flood,
    /// HTTP/2: a head, or the greeting, that did not come to its end.
    HeaderTimeout,
    /// HTTP/2: more connections than `proxy.http2.connections`, none of them idle.
    Crowd,
    /// HTTP/2: it was idle, and another needed its place.
    Idle,
}

impl Breach {
    const ALL: [(Self, &'static str); 5] = [
        (Self::ConnectionRate, "connection_rate"),
        (Self::Flood, "flood"),
        (Self::HeaderTimeout, "header_timeout"),
        (Self::Crowd, "http2_connections"),
        (Self::Idle, "http2_idle"),
    ];
}

/// Counts by `Breach`.
#[derive(Debug, Default)]
pub(crate) struct Breaches([AtomicU64; Breach::ALL.len()]);

impl Breaches {
    /// Counts one.
    pub(crate) fn count(&self, breach: Breach) {
        self.0[breach as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// The names of the error codes of HTTP/2, by their numbers from 1 (RFC 9113, section 7); what is not among them is never sent.
const HTTP2_ERRORS: [&str; 13] = [
    "protocol_error",
    "internal_error",
    "flow_control_error",
    "settings_timeout",
    "stream_closed",
    "frame_size_error",
    "refused_stream",
    "cancel",
    "compression_error",
    "connect_error",
    "enhance_your_calm",
    "inadequate_security",
    "http_1_1_required",
];

/// Counts by the code of the error.
#[derive(Debug, Default)]
pub(crate) struct Http2Errors([AtomicU64; HTTP2_ERRORS.len()]);

impl Http2Errors {
    /// Counts one; 0 is no error.
    pub(crate) fn count(&self, code: u32) {
        let place = usize::try_from(code).ok().and_then(|code| code.checked_sub(1));
        if let Some(count) = place.and_then(|place| self.0.get(place)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn samples(&self, frame: &'static str, out: &mut Vec<Sample>) {
        for (count, name) in self.0.iter().zip(HTTP2_ERRORS) {
            let sample = Sample::count(&PROXY_HTTP2_ERRORS, count.load(Ordering::Relaxed));
            out.push(sample.with_literal("frame", frame).with_literal(semconv::ERROR_TYPE, name));
        }
    }
}

impl Counters {
    /// Counts a request that is refused.
    pub(crate) fn refuse(&self, refusal: Refusal) {
        self.refused[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Requests refused for this reason.
    #[must_use]
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refused[refusal as usize].load(Ordering::Relaxed)
    }

    /// The metrics of the data path itself; those of the requests come from who is told of their ends.
    pub fn samples(&self, out: &mut Vec<Sample>) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // read first: a connection that closes meanwhile must not make the difference negative
        let closed = read(&self.connections_closed);
        let opened = read(&self.connections);
        out.push(Sample::count(&PROXY_CONNECTIONS, opened));
        out.push(Sample::level(&PROXY_ACTIVE_CONNECTIONS, opened.saturating_sub(closed) as f64));
        out.push(Sample::level(&proxy::PROXY_HELD, read(&self.held) as f64));
        out.push(Sample::count(&PROXY_ACCEPT_ERRORS, read(&self.accept_errors)));
        for refusal in Refusal::ALL {
            let count = Sample::count(&PROXY_REFUSALS, self.refused(refusal));
            out.push(count.with_literal(semconv::ERROR_TYPE, refusal.label()));
        }
        for (breach, name) in Breach::ALL {
            let count = Sample::count(&PROXY_CUT_OFF_CONNECTIONS, read(&self.breaches.0[breach as usize]));
            out.push(count.with_literal(semconv::ERROR_TYPE, name));
        }
        self.resets.samples("rst_stream", out);
        self.go_aways.samples("goaway", out);
        out.push(Sample::count(&PROXY_UPSTREAM_CONNECTIONS, read(&self.upstream_connections)));
        out.push(Sample::count(&PROXY_UPSTREAM_RESENDS, read(&self.resends)));
        let panics =
            [("connection", &self.connection_panics), ("worker", &self.worker_panics), ("sink", &self.sink_panics)];
        for (place, count) in panics {
            out.push(Sample::count(&PROXY_PANICS, read(count)).with_literal("place", place));
        }
        out.push(Sample::count(&ROOM_RESTARTS, read(&self.worker_restarts)).with_literal("room", "proxy"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_a_place_of_its_own() {
        let counters = Counters::default();
        for refusal in Refusal::ALL {
            counters.refuse(refusal);
        }
        assert!(Refusal::ALL.into_iter().all(|refusal| counters.refused(refusal) == 1));
    }
}
