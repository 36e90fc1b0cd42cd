//! The sender: takes batches from the queues and delivers them, by gRPC or HTTP.
//!
//! Everything has a deadline, and nothing is resent that the receiver may have kept. `delivery` is the loop of one
//! signal, `destination` what signals with the same receiver share, `breaker` when to try, `answer` what an answer
//! means; `grpc` and `http` only carry bytes; `handshake` says what is wrong with TLS.

pub(crate) mod answer;
mod breaker;
pub(crate) mod compression;
pub(crate) mod delivery;
pub(crate) mod destination;
mod grpc;
pub(crate) mod handshake;
mod http;
mod rate_limits;

pub use destination::DestinationError;
pub(crate) use http::signal_path as http_path;
