//! HTTP/2 in clear text to the application, which is what gRPC needs.
//!
//! The mirror of what clients get: each request is one stream, and to the engine a connection of HTTP/1.1 that
//! carries one request. Frames, header compression and flow control are the `h2` crate's. Deliberately absent: server
//! push, extended CONNECT, and PING to see whether the application lives, which servers of gRPC punish.

pub(crate) mod link;
pub(crate) mod links;
mod socket;
pub(crate) mod stream;
mod translate;
