//! The kinds of checks: one file and one line each.

mod ai;
pub(super) mod ai_calls;
mod app;
pub(super) mod application;
mod composite;
mod dns;
pub(super) mod env;
mod exec;
mod expect;
mod grpc;
mod heartbeat;
pub(super) mod http;
mod loop_lag;
mod medians;
pub(super) mod redis;
pub(super) mod sql;
mod tcp;
mod tls;

use crate::checks::plan::Kind;

/// All kinds that the configuration may name, in the order in which they are told of.
pub(super) const KINDS: &[&Kind] = &[
    &http::KIND,
    &tcp::KIND,
    &tls::KIND,
    &dns::KIND,
    &grpc::KIND,
    &sql::KIND,
    &redis::KIND,
    &ai::KIND,
    &ai_calls::KIND,
    &heartbeat::KIND,
    &env::KIND,
    &composite::KIND,
    &exec::KIND,
    &app::KIND,
    &loop_lag::KIND,
];
