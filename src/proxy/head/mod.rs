//! Heads of messages: found in the stream, validated, and written anew.
//!
//! Pure: bytes in, bytes and plain values out; no socket, no clock.

pub(crate) mod authority;
pub(crate) mod fields;
pub(crate) mod lines;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod scan;
pub(crate) mod write;
