//! HTTP/2 in clear text by prior knowledge, for the client's side.
//!
//! Frames, header compression, flow control and the limits on abuse are the `h2` crate's. Each stream is handed to the
//! engine as a connection of HTTP/1.1 that carries one request: what it refuses, forwards, times and counts is
//! decided there, once for both protocols. Deliberately absent: server push, extended CONNECT, the upgrade from
//! HTTP/1.1 (RFC 9113 has dropped it), and priorities.

mod bell;
pub(crate) mod conduct;
pub(crate) mod connection;
mod frames;
pub(crate) mod places;
pub(crate) mod preface;
mod socket;
mod stream;
pub(crate) mod translate;
