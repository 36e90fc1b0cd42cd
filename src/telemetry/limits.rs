//! How long names and values may be: what every vendor takes, so that none refuses an item for one of its parts.
//!
//! Whoever encodes cuts, and counts each cut (`content_factory.telemetry.truncated`).

/// In bytes: New Relic's limit is the lowest.
pub(crate) const VALUE_LIMIT: usize = 4_095;
/// In bytes, of spans and attributes.
pub(crate) const NAME_LIMIT: usize = 255;
/// Items of a list.
pub(crate) const LIST_LIMIT: usize = 64;
