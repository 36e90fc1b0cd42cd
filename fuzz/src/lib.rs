//! The targets of `tests/fuzz`, for libFuzzer. All that is here is where to find them.

#![allow(dead_code, reason = "the oracle and the replay use the rest")]

#[path = "../../tests/oracle/client.rs"]
mod client;
#[path = "../../tests/oracle/corpus.rs"]
mod corpus;
#[path = "../../tests/oracle/fidelity.rs"]
mod fidelity;
#[path = "../../tests/oracle/grammar.rs"]
mod grammar;
#[path = "../../tests/oracle/origin.rs"]
mod origin;
#[path = "../../tests/oracle/requests.rs"]
mod requests;
#[path = "../../tests/oracle/responses.rs"]
mod responses;
#[path = "../../tests/fuzz/targets/mod.rs"]
mod targets;
#[path = "../../tests/oracle/verdict.rs"]
mod verdict;

/// See `tests/fuzz/targets/celery.rs`.
pub fn celery(data: &[u8]) {
    targets::celery::check(data);
}

/// See `tests/fuzz/targets/configuration.rs`.
pub fn configuration(data: &[u8]) {
    targets::configuration::check(data);
}

/// See `tests/fuzz/targets/forwarded.rs`.
pub fn forwarded(data: &[u8]) {
    targets::forwarded::check(data);
}

/// See `tests/fuzz/targets/headers.rs`.
pub fn headers(data: &[u8]) {
    targets::headers::check(data);
}

/// See `tests/fuzz/targets/otlp.rs`.
pub fn otlp(data: &[u8]) {
    targets::otlp::check(data);
}

/// See `tests/fuzz/targets/proxy.rs`.
pub fn proxy(data: &[u8]) {
    targets::proxy::check(data);
}

/// See `tests/fuzz/targets/redaction.rs`.
pub fn redaction(data: &[u8]) {
    targets::redaction::check(data);
}

/// See `tests/fuzz/targets/routes.rs`.
pub fn routes(data: &[u8]) {
    targets::routes::check(data);
}

/// See `tests/fuzz/targets/traceparent.rs`.
pub fn traceparent(data: &[u8]) {
    targets::traceparent::check(data);
}

/// See `tests/fuzz/targets/usage.rs`.
pub fn usage(data: &[u8]) {
    targets::usage::check(data);
}
