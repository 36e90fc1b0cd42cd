//! OTLP's messages as data: what the cleaner walks, and what the reader of JSON writes.
//!
//! One table instead of generated types: a message that is only walked costs no memory beyond its bytes, whatever a hostile
//! sender packs into it. What the table does not know is left out, because nobody can tell what is in it.
//! Source: opentelemetry-proto 1.10, without what only profiles use.

use crate::model::telemetry::Signal;
use crate::telemetry::limits::{ATTRIBUTE_LIMIT, LIST_LIMIT, Limits, NAME_LIMIT, VALUE_LIMIT};
use crate::telemetry::wire;

/// A message and its fields.
#[derive(Debug)]
pub(crate) struct Message {
    /// What it is to the cleaner.
    pub(crate) role: Role,
    pub(crate) fields: &'static [Field],
}

/// What is special about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Nothing.
    Plain,
    /// A resource and what belongs to it.
    Part,
    /// Left out without its ids.
    Span,
    /// Left out without its ids.
    Link,
    /// Left out when the sidecar measures it itself.
    Metric,
    /// A `KeyValue`: its key decides about its value.
    Pair,
    /// An `AnyValue`.
    Any,
}

/// A field of a message.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) number: u32,
    /// In JSON: lowerCamelCase.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) times: Times,
}

/// How often a field may stand in its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Times {
    /// Once; the last one counts.
    One,
    /// A list.
    Many,
    /// A list that is cut; the field of that number, if not zero, tells by how much.
    AtMost(usize, u32),
    /// The attributes of an item, for which `telemetry.limits` holds; the field of that number tells how many are missing.
    Attributes(u32),
}

impl Times {
    /// How many of a list are kept, and which field, if not zero, tells how many are missing.
    pub(crate) fn at_most(self, limits: Limits) -> Option<(usize, u32)> {
        match self {
            Self::One | Self::Many => None,
            Self::AtMost(limit, counter) => Some((limit, counter)),
            Self::Attributes(counter) => Some((limits.attributes, counter)),
        }
    }

    /// How long a value below such a field may be, in bytes.
    pub(crate) fn longest_value(self, limits: Limits) -> usize {
        match self {
            Self::Attributes(_) => limits.value,
            Self::One | Self::Many | Self::AtMost(..) => VALUE_LIMIT,
        }
    }
}

/// The type of a field.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Message(&'static Message),
    /// Redacted, then cut at so many bytes.
    Text(usize),
    /// Of so many bytes, hexadecimal in JSON; one of another length is none.
    Id(usize),
    /// Base64 in JSON.
    Bytes,
    /// `bool`
    Flag,
    /// `uint32` and `uint64`
    Unsigned,
    /// `int32`, `int64` and enums
    Signed,
    /// `sint32`
    ZigZag,
    Fixed32,
    /// `fixed64`
    Fixed64,
    /// `sfixed64`
    SignedFixed64,
    Double,
}

impl Kind {
    /// How it stands in protobuf.
    pub(crate) fn wire_type(self) -> u32 {
        match self {
            Self::Message(_) | Self::Text(_) | Self::Id(_) | Self::Bytes => wire::LENGTH,
            Self::Flag | Self::Unsigned | Self::Signed | Self::ZigZag => wire::VARINT,
            Self::Fixed32 => wire::FIXED32,
            Self::Fixed64 | Self::SignedFixed64 | Self::Double => wire::FIXED64,
        }
    }
}

impl Message {
    /// The field of a name in JSON.
    pub(crate) fn named(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// The export request of a signal; envelopes are none of OTLP's.
pub(crate) fn request(signal: Signal) -> Option<&'static Message> {
    match signal {
        Signal::Traces => Some(&TRACES),
        Signal::Metrics => Some(&METRICS),
        Signal::Logs => Some(&LOGS),
        Signal::Envelopes => None,
    }
}

const fn one(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, times: Times::One }
}

const fn many(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, times: Times::Many }
}

/// Attributes of an item, and the number of the field that counts those that were dropped.
const fn attributes(number: u32, counter: u32) -> Field {
    Field { number, name: "attributes", kind: Kind::Message(&KEY_VALUE), times: Times::Attributes(counter) }
}

/// Attributes that tell whose an item is, or of which series: cut where vendors would refuse them and never before, because
/// two that differ in what is missing would become one (OpenTelemetry's specification of attribute limits exempts both).
const fn identity(number: u32, counter: u32) -> Field {
    let times = Times::AtMost(ATTRIBUTE_LIMIT, counter);
    Field { number, name: "attributes", kind: Kind::Message(&KEY_VALUE), times }
}

const fn dropped_attributes(number: u32) -> Field {
    one(number, "droppedAttributesCount", Kind::Unsigned)
}

const fn message(role: Role, fields: &'static [Field]) -> Message {
    Message { role, fields }
}

const NAME: Kind = Kind::Text(NAME_LIMIT);
const TEXT: Kind = Kind::Text(VALUE_LIMIT);
const TRACE_ID: Kind = Kind::Id(16);
const SPAN_ID: Kind = Kind::Id(8);
const EXEMPLAR_LIST: Kind = Kind::Message(&EXEMPLAR);

static TRACES: Message = message(Role::Plain, &[many(1, "resourceSpans", Kind::Message(&RESOURCE_SPANS))]);
static METRICS: Message = message(Role::Plain, &[many(1, "resourceMetrics", Kind::Message(&RESOURCE_METRICS))]);
static LOGS: Message = message(Role::Plain, &[many(1, "resourceLogs", Kind::Message(&RESOURCE_LOGS))]);

static RESOURCE_SPANS: Message = message(
    Role::Part,
    &[
        one(1, "resource", Kind::Message(&RESOURCE)),
        many(2, "scopeSpans", Kind::Message(&SCOPE_SPANS)),
        one(3, "schemaUrl", TEXT),
    ],
);
static RESOURCE_METRICS: Message = message(
    Role::Part,
    &[
        one(1, "resource", Kind::Message(&RESOURCE)),
        many(2, "scopeMetrics", Kind::Message(&SCOPE_METRICS)),
        one(3, "schemaUrl", TEXT),
    ],
);
static RESOURCE_LOGS: Message = message(
    Role::Part,
    &[
        one(1, "resource", Kind::Message(&RESOURCE)),
        many(2, "scopeLogs", Kind::Message(&SCOPE_LOGS)),
        one(3, "schemaUrl", TEXT),
    ],
);

static SCOPE_SPANS: Message = message(
    Role::Plain,
    &[one(1, "scope", Kind::Message(&SCOPE)), many(2, "spans", Kind::Message(&SPAN)), one(3, "schemaUrl", TEXT)],
);
static SCOPE_METRICS: Message = message(
    Role::Plain,
    &[one(1, "scope", Kind::Message(&SCOPE)), many(2, "metrics", Kind::Message(&METRIC)), one(3, "schemaUrl", TEXT)],
);
static SCOPE_LOGS: Message = message(
    Role::Plain,
    &[
        one(1, "scope", Kind::Message(&SCOPE)),
        many(2, "logRecords", Kind::Message(&LOG_RECORD)),
        one(3, "schemaUrl", TEXT),
    ],
);

/// `Resource`
pub(crate) static RESOURCE: Message =
    message(Role::Plain, &[identity(1, 2), dropped_attributes(2), many(3, "entityRefs", Kind::Message(&ENTITY_REF))]);
static ENTITY_REF: Message = message(
    Role::Plain,
    &[
        one(1, "schemaUrl", TEXT),
        one(2, "type", NAME),
        Field { number: 3, name: "idKeys", kind: NAME, times: Times::AtMost(LIST_LIMIT, 0) },
        Field { number: 4, name: "descriptionKeys", kind: NAME, times: Times::AtMost(LIST_LIMIT, 0) },
    ],
);
static SCOPE: Message =
    message(Role::Plain, &[one(1, "name", NAME), one(2, "version", NAME), identity(3, 4), dropped_attributes(4)]);

static KEY_VALUE: Message = message(Role::Pair, &[one(1, "key", NAME), one(2, "value", Kind::Message(&ANY_VALUE))]);
/// `AnyValue`
static ANY_VALUE: Message = message(
    Role::Any,
    &[
        one(1, "stringValue", TEXT),
        one(2, "boolValue", Kind::Flag),
        one(3, "intValue", Kind::Signed),
        one(4, "doubleValue", Kind::Double),
        one(5, "arrayValue", Kind::Message(&ARRAY)),
        one(6, "kvlistValue", Kind::Message(&PAIRS)),
        one(7, "bytesValue", Kind::Bytes),
    ],
);
/// `ArrayValue`
static ARRAY: Message = message(
    Role::Plain,
    &[Field { number: 1, name: "values", kind: Kind::Message(&ANY_VALUE), times: Times::AtMost(LIST_LIMIT, 0) }],
);
/// `KeyValueList`
static PAIRS: Message = message(
    Role::Plain,
    &[Field { number: 1, name: "values", kind: Kind::Message(&KEY_VALUE), times: Times::AtMost(ATTRIBUTE_LIMIT, 0) }],
);

static SPAN: Message = message(
    Role::Span,
    &[
        one(1, "traceId", TRACE_ID),
        one(2, "spanId", SPAN_ID),
        one(3, "traceState", TEXT),
        one(4, "parentSpanId", SPAN_ID),
        one(5, "name", NAME),
        one(6, "kind", Kind::Signed),
        one(7, "startTimeUnixNano", Kind::Fixed64),
        one(8, "endTimeUnixNano", Kind::Fixed64),
        attributes(9, 10),
        dropped_attributes(10),
        Field { number: 11, name: "events", kind: Kind::Message(&EVENT), times: Times::AtMost(ATTRIBUTE_LIMIT, 12) },
        one(12, "droppedEventsCount", Kind::Unsigned),
        Field { number: 13, name: "links", kind: Kind::Message(&LINK), times: Times::AtMost(ATTRIBUTE_LIMIT, 14) },
        one(14, "droppedLinksCount", Kind::Unsigned),
        one(15, "status", Kind::Message(&STATUS)),
        one(16, "flags", Kind::Fixed32),
    ],
);
static EVENT: Message = message(
    Role::Plain,
    &[one(1, "timeUnixNano", Kind::Fixed64), one(2, "name", NAME), attributes(3, 4), dropped_attributes(4)],
);
static LINK: Message = message(
    Role::Link,
    &[
        one(1, "traceId", TRACE_ID),
        one(2, "spanId", SPAN_ID),
        one(3, "traceState", TEXT),
        attributes(4, 5),
        dropped_attributes(5),
        one(6, "flags", Kind::Fixed32),
    ],
);
static STATUS: Message = message(Role::Plain, &[one(2, "message", TEXT), one(3, "code", Kind::Signed)]);

static LOG_RECORD: Message = message(
    Role::Plain,
    &[
        one(1, "timeUnixNano", Kind::Fixed64),
        one(11, "observedTimeUnixNano", Kind::Fixed64),
        one(2, "severityNumber", Kind::Signed),
        one(3, "severityText", NAME),
        one(5, "body", Kind::Message(&ANY_VALUE)),
        attributes(6, 7),
        dropped_attributes(7),
        one(8, "flags", Kind::Fixed32),
        one(9, "traceId", TRACE_ID),
        one(10, "spanId", SPAN_ID),
        one(12, "eventName", NAME),
    ],
);

static METRIC: Message = message(
    Role::Metric,
    &[
        one(1, "name", NAME),
        one(2, "description", TEXT),
        one(3, "unit", NAME),
        one(5, "gauge", Kind::Message(&GAUGE)),
        one(7, "sum", Kind::Message(&SUM)),
        one(9, "histogram", Kind::Message(&HISTOGRAM)),
        one(10, "exponentialHistogram", Kind::Message(&EXPONENTIAL_HISTOGRAM)),
        one(11, "summary", Kind::Message(&SUMMARY)),
        Field {
            number: 12,
            name: "metadata",
            kind: Kind::Message(&KEY_VALUE),
            times: Times::AtMost(ATTRIBUTE_LIMIT, 0),
        },
    ],
);
const TEMPORALITY: Field = one(2, "aggregationTemporality", Kind::Signed);
static GAUGE: Message = message(Role::Plain, &[many(1, "dataPoints", Kind::Message(&NUMBER_POINT))]);
static SUM: Message = message(
    Role::Plain,
    &[many(1, "dataPoints", Kind::Message(&NUMBER_POINT)), TEMPORALITY, one(3, "isMonotonic", Kind::Flag)],
);
static HISTOGRAM: Message =
    message(Role::Plain, &[many(1, "dataPoints", Kind::Message(&HISTOGRAM_POINT)), TEMPORALITY]);
static EXPONENTIAL_HISTOGRAM: Message =
    message(Role::Plain, &[many(1, "dataPoints", Kind::Message(&EXPONENTIAL_POINT)), TEMPORALITY]);
static SUMMARY: Message = message(Role::Plain, &[many(1, "dataPoints", Kind::Message(&SUMMARY_POINT))]);

static NUMBER_POINT: Message = message(
    Role::Plain,
    &[
        identity(7, 0),
        one(2, "startTimeUnixNano", Kind::Fixed64),
        one(3, "timeUnixNano", Kind::Fixed64),
        one(4, "asDouble", Kind::Double),
        one(6, "asInt", Kind::SignedFixed64),
        many(5, "exemplars", EXEMPLAR_LIST),
        one(8, "flags", Kind::Unsigned),
    ],
);
static HISTOGRAM_POINT: Message = message(
    Role::Plain,
    &[
        identity(9, 0),
        one(2, "startTimeUnixNano", Kind::Fixed64),
        one(3, "timeUnixNano", Kind::Fixed64),
        one(4, "count", Kind::Fixed64),
        one(5, "sum", Kind::Double),
        many(6, "bucketCounts", Kind::Fixed64),
        many(7, "explicitBounds", Kind::Double),
        many(8, "exemplars", EXEMPLAR_LIST),
        one(10, "flags", Kind::Unsigned),
        one(11, "min", Kind::Double),
        one(12, "max", Kind::Double),
    ],
);
static EXPONENTIAL_POINT: Message = message(
    Role::Plain,
    &[
        identity(1, 0),
        one(2, "startTimeUnixNano", Kind::Fixed64),
        one(3, "timeUnixNano", Kind::Fixed64),
        one(4, "count", Kind::Fixed64),
        one(5, "sum", Kind::Double),
        one(6, "scale", Kind::ZigZag),
        one(7, "zeroCount", Kind::Fixed64),
        one(8, "positive", Kind::Message(&BUCKETS)),
        one(9, "negative", Kind::Message(&BUCKETS)),
        one(10, "flags", Kind::Unsigned),
        many(11, "exemplars", EXEMPLAR_LIST),
        one(12, "min", Kind::Double),
        one(13, "max", Kind::Double),
        one(14, "zeroThreshold", Kind::Double),
    ],
);
static BUCKETS: Message =
    message(Role::Plain, &[one(1, "offset", Kind::ZigZag), many(2, "bucketCounts", Kind::Unsigned)]);
static SUMMARY_POINT: Message = message(
    Role::Plain,
    &[
        identity(7, 0),
        one(2, "startTimeUnixNano", Kind::Fixed64),
        one(3, "timeUnixNano", Kind::Fixed64),
        one(4, "count", Kind::Fixed64),
        one(5, "sum", Kind::Double),
        many(6, "quantileValues", Kind::Message(&QUANTILE)),
        one(8, "flags", Kind::Unsigned),
    ],
);
static QUANTILE: Message = message(Role::Plain, &[one(1, "quantile", Kind::Double), one(2, "value", Kind::Double)]);
static EXEMPLAR: Message = message(
    Role::Plain,
    &[
        Field {
            number: 7,
            name: "filteredAttributes",
            kind: Kind::Message(&KEY_VALUE),
            times: Times::AtMost(ATTRIBUTE_LIMIT, 0),
        },
        one(2, "timeUnixNano", Kind::Fixed64),
        one(3, "asDouble", Kind::Double),
        one(6, "asInt", Kind::SignedFixed64),
        one(4, "spanId", SPAN_ID),
        one(5, "traceId", TRACE_ID),
    ],
);
