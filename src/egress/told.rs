//! What was seen of a call, when it ends: what the way of its bodies hands to the desk.

use std::time::Duration;

use crate::egress::scan::Found;
use crate::model::ai::AiOperation;
use crate::model::trace::{SpanId, TraceId};
use crate::model::trouble::Trouble;

/// What was seen of a call.
pub(super) struct Told {
    pub(super) operation: AiOperation,
    pub(super) origin: Origin,
    pub(super) asked: Found,
    pub(super) answered: Found,
    pub(super) duration: Duration,
    pub(super) first_chunk: Option<Duration>,
    pub(super) status: u16,
    pub(super) is_stream: bool,
    pub(super) is_encoded: bool,
    pub(super) end: End,
}

/// The trace of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// The caller's, or a new one.
    pub(super) trace_id: TraceId,
    /// The caller's span.
    pub(super) parent: Option<SpanId>,
    /// The caller's flag.
    pub(super) is_sampled: Option<bool>,
}

/// How a call has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The caller did not wait: so it is until something else is known.
    ClientGone,
    /// To the last byte.
    Answered,
    /// The service was not reached, or broke off.
    Failed(Trouble),
}
