//! The sender: takes batches from the queues and delivers them, by gRPC or HTTP.
//!
//! Everything has a deadline, and nothing is resent that the receiver may have kept. `delivery` is the loop of one
//! signal, `destination` what signals with the same receiver share, `breaker` when to try, `answer` what an answer
//! means. `access` is how a receiver is spoken to: `connections` are those to its addresses, over which `grpc` and `http`
//! only carry bytes; `tls` makes TLS, `handshake` says what is wrong with it, `credentials` reads files again.

mod access;
pub(crate) mod answer;
mod breaker;
pub(crate) mod compression;
mod connections;
mod credentials;
pub(crate) mod delivery;
pub(crate) mod destination;
mod grpc;
mod handshake;
mod http;
mod rate_limits;
mod tls;

pub use access::DestinationError;
pub(crate) use http::signal_path as http_path;
