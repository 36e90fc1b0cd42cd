//! A call of an AI service, as the egress room saw it pass: what the way out makes a span of. No word of what was said.

use std::sync::Arc;
use std::time::Duration;

use crate::model::trace::{SpanId, TraceId};
use crate::redact::Clean;

/// What was asked for, as the conventions for generative AI name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AiOperation {
    /// An answer in a conversation.
    Chat,
    /// A text that goes on.
    Completion,
    /// Vectors.
    Embeddings,
    /// Images and the like.
    Content,
    /// A conversation by WebSocket; its call is the handshake.
    Realtime,
    /// Anything else: files, lists of models.
    Other,
}

/// A call that has ended.
#[derive(Clone, Debug)]
pub struct AiCall {
    /// What was asked for.
    pub operation: AiOperation,
    /// Who was asked, as the settings name it.
    pub provider: Clean<'static>,
    /// The host and port that were asked.
    pub server: (Clean<'static>, u16),
    /// The model that was asked for.
    pub request_model: Option<Clean<'static>>,
    /// The model that answered.
    pub response_model: Option<Clean<'static>>,
    /// Whether the answer came as a stream.
    pub is_stream: bool,
    /// The trace that the call belongs to.
    pub trace_id: TraceId,
    /// The caller's span; `None` when the call begins the trace.
    pub parent: Option<SpanId>,
    /// When it ended, in nanoseconds since the Unix epoch.
    pub ended_unix_nanos: u64,
    /// From its head to the last byte of the answer.
    pub duration: Duration,
    /// From its head to the first byte of a stream.
    pub first_chunk: Option<Duration>,
    /// The status of the answer; 0 without one.
    pub status: u16,
    /// Why it failed: a class, or the status.
    pub error_type: Option<Clean<'static>>,
    /// Tokens of the input.
    pub input_tokens: Option<u64>,
    /// Tokens of the output.
    pub output_tokens: Option<u64>,
}

/// Takes a call that has ended and whose span is kept; must not block.
pub type CallSink = Arc<dyn Fn(AiCall) + Send + Sync>;

impl AiOperation {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Chat, Self::Completion, Self::Embeddings, Self::Content, Self::Realtime, Self::Other];

    /// The value of `gen_ai.operation.name`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completion => "text_completion",
            Self::Embeddings => "embeddings",
            Self::Content => "generate_content",
            Self::Realtime => "realtime",
            Self::Other => "other",
        }
    }
}
