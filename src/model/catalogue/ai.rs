//! The metrics of calls of AI services that pass the egress port: counted here, read when asked.
//!
//! Names and bounds are those of OpenTelemetry's conventions for generative AI, which are still in development.

use crate::model::catalogue::metric::{Metric, MetricKind, metric};
use crate::semconv;

/// The bounds that the conventions advise for durations, in seconds.
pub const AI_SECONDS: &[f64] =
    &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];

/// The bounds that the conventions advise for numbers of tokens.
pub const AI_TOKEN_COUNTS: &[f64] = &[
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// Durations of calls.
pub static AI_DURATION: Metric = metric(
    "gen_ai.client.operation.duration",
    "s",
    MetricKind::Histogram(AI_SECONDS),
    &[
        semconv::GEN_AI_OPERATION_NAME,
        semconv::GEN_AI_PROVIDER_NAME,
        semconv::GEN_AI_REQUEST_MODEL,
        semconv::SERVER_ADDRESS,
        semconv::ERROR_TYPE,
    ],
    "Duration of calls of the AI service, from the head of the request to the last byte of the answer.",
);

/// Times to the first chunk of a stream.
pub static AI_FIRST_CHUNK: Metric = metric(
    "gen_ai.client.operation.time_to_first_chunk",
    "s",
    MetricKind::Histogram(AI_SECONDS),
    &[
        semconv::GEN_AI_OPERATION_NAME,
        semconv::GEN_AI_PROVIDER_NAME,
        semconv::GEN_AI_REQUEST_MODEL,
        semconv::SERVER_ADDRESS,
    ],
    "Time from the head of the request to the first bytes of an answer that is a stream.",
);

/// Tokens used.
pub static AI_TOKENS: Metric = metric(
    "gen_ai.client.token.usage",
    "{token}",
    MetricKind::Histogram(AI_TOKEN_COUNTS),
    &[
        semconv::GEN_AI_OPERATION_NAME,
        semconv::GEN_AI_PROVIDER_NAME,
        semconv::GEN_AI_REQUEST_MODEL,
        semconv::SERVER_ADDRESS,
        semconv::GEN_AI_TOKEN_TYPE,
    ],
    "Tokens of each call, input and output, as the AI service itself counted them.",
);

/// What that may have cost.
pub static AI_COST: Metric = metric(
    "content_factory.gen_ai.estimated_cost",
    "{currency}",
    MetricKind::Counter,
    &[semconv::GEN_AI_PROVIDER_NAME, semconv::GEN_AI_REQUEST_MODEL],
    "What the tokens of the calls would cost by `egress.prices`, in their currency: an estimate, and only of models that have a price.",
);

/// Answers whose tokens are not known.
pub static AI_UNREAD: Metric = metric(
    "content_factory.egress.usage_unread",
    "{call}",
    MetricKind::Counter,
    &["reason"],
    "Successful calls whose tokens are not known, because the answer was compressed all the same (encoded), or named none (absent).",
);

/// Connections for which there was no place.
pub static EGRESS_CONNECTIONS_REFUSED: Metric = metric(
    "content_factory.egress.connections.refused",
    "{connection}",
    MetricKind::Counter,
    &[],
    "Connections to the egress port that were closed, because there were as many as may be (`egress.connections`).",
);
