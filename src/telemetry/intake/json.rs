//! OTLP's JSON, written as protobuf while it is read: nothing of it is kept but the bytes that are made.
//!
//! As the specification has it: ids in hexadecimal, enums and numbers as numbers (those of 64 bits also as texts), names in
//! lowerCamelCase, unknown ones ignored, `null` the same as absent. The serde feature of `opentelemetry-proto` refuses some
//! of that (`"NaN"`, `null` where a list is), and makes a tree of whatever a hostile sender nests.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::model::base64;
use crate::model::telemetry::Signal;
use crate::telemetry::intake::schema::{self, Field, Kind, Message, Times};
use crate::telemetry::wire;

/// Why JSON is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRequest {
    /// Not OTLP, from this line and column on.
    Malformed(usize, usize),
    /// Longer than the limit as protobuf.
    TooLarge,
}

/// Writes a request as protobuf, of at most about `limit` bytes.
///
/// # Errors
/// When it is none.
pub(crate) fn to_protobuf(signal: Signal, json: &[u8], limit: usize) -> Result<Vec<u8>, NoRequest> {
    let Some(message) = schema::request(signal) else { return Err(NoRequest::Malformed(0, 0)) };
    let mut out = Out { bytes: Vec::new(), limit };
    let mut reader = serde_json::Deserializer::from_slice(json);
    let read = Object { message, out: &mut out }.deserialize(&mut reader).and_then(|()| reader.end());
    match read {
        Ok(()) => Ok(out.bytes),
        Err(_) if out.is_full() => Err(NoRequest::TooLarge),
        Err(error) => Err(NoRequest::Malformed(error.line(), error.column())),
    }
}

struct Out {
    bytes: Vec<u8>,
    limit: usize,
}

impl Out {
    fn is_full(&self) -> bool {
        self.bytes.len() > self.limit
    }

    /// Writes a nested message.
    fn message<E>(&mut self, number: u32, write: impl FnOnce(&mut Self) -> Result<(), E>) -> Result<(), E> {
        let mut result = Ok(());
        let limit = self.limit;
        wire::message(&mut self.bytes, number, |bytes| {
            let mut inner = Self { bytes: std::mem::take(bytes), limit };
            result = write(&mut inner);
            *bytes = inner.bytes;
        });
        result
    }
}

/// The members of a message.
struct Object<'o> {
    message: &'static Message,
    out: &'o mut Out,
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message of OTLP")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(known) = map.next_key_seed(Name(self.message))? {
            match known {
                Some(field) => map.next_value_seed(Slot { field, form: Form::Field, out: self.out })?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// The name of a member.
struct Name(&'static Message);

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<&'static Field>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<&'static Field>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.named(name))
    }
}

/// The place of a value.
struct Slot<'o> {
    field: &'static Field,
    form: Form,
    out: &'o mut Out,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// All that a member holds.
    Field,
    /// One of a list.
    Element,
    /// A number of a list, which has no tag of its own.
    Packed,
}

impl<'de> DeserializeSeed<'de> for Slot<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Slot<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as OTLP has it", self.field.name)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { field, form: Form::Field, out } = self else { return Err(A::Error::custom("a list in a list")) };
        if field.times == Times::One {
            return Err(A::Error::custom("a list"));
        }
        if field.kind.wire_type() == wire::LENGTH {
            while list.next_element_seed(Slot { field, form: Form::Element, out: &mut *out })?.is_some() {}
            return Ok(());
        }
        out.message(field.number, |out| {
            while list.next_element_seed(Slot { field, form: Form::Packed, out: &mut *out })?.is_some() {}
            Ok(())
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let Kind::Message(message) = self.field.kind else { return Err(A::Error::custom("an object")) };
        self.single()?;
        self.out.message(self.field.number, |out| Object { message, out }.visit_map(map))
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<(), E> {
        let Kind::Flag = self.field.kind else { return Err(E::custom("true or false")) };
        self.number(Number::Whole(flag.into()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.number(Number::Whole(number.into()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.number(Number::Whole(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        self.number(Number::Real(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        let bytes = match self.field.kind {
            Kind::Text(_) => None,
            Kind::Id(_) => Some(hexadecimal(text).ok_or_else(|| E::custom("not hexadecimal"))?),
            Kind::Bytes => Some(base64::decode(text).ok_or_else(|| E::custom("not base64"))?),
            Kind::Message(_) => return Err(E::custom("a text")),
            _ => return self.number(Number::of(text).ok_or_else(|| E::custom("not a number"))?),
        };
        self.single()?;
        wire::bytes_field(&mut self.out.bytes, self.field.number, bytes.as_deref().unwrap_or(text.as_bytes()));
        Ok(())
    }
}

impl Slot<'_> {
    /// Refuses one value where a list is expected, and any beyond the limit.
    fn single<E: Error>(&self) -> Result<(), E> {
        if self.out.is_full() {
            return Err(E::custom("too large"));
        }
        if self.form == Form::Field && self.field.times != Times::One {
            return Err(E::custom("not a list"));
        }
        Ok(())
    }

    fn number<E: Error>(self, number: Number) -> Result<(), E> {
        self.single()?;
        if self.form != Form::Packed {
            wire::tag(&mut self.out.bytes, self.field.number, self.field.kind.wire_type());
        }
        write(&mut self.out.bytes, self.field.kind, number).ok_or_else(|| E::custom("not of this type"))
    }
}

#[derive(Clone, Copy)]
enum Number {
    Whole(i128),
    Real(f64),
}

impl Number {
    fn of(text: &str) -> Option<Self> {
        text.parse().map(Self::Whole).or_else(|_| text.parse().map(Self::Real)).ok()
    }

    fn whole(self) -> Option<i128> {
        match self {
            Self::Whole(number) => Some(number),
            Self::Real(number) => (number.fract() == 0.0).then_some(number as i128),
        }
    }

    fn real(self) -> f64 {
        match self {
            Self::Whole(number) => number as f64,
            Self::Real(number) => number,
        }
    }
}

/// Writes a number without its tag; `None` when it does not fit its type.
fn write(out: &mut Vec<u8>, kind: Kind, number: Number) -> Option<()> {
    match kind {
        Kind::Flag => wire::varint(out, u64::from(number.whole()? != 0)),
        Kind::Unsigned => wire::varint(out, number.whole()?.try_into().ok()?),
        Kind::Signed => wire::varint(out, i64::try_from(number.whole()?).ok()? as u64),
        Kind::ZigZag => {
            let number = i32::try_from(number.whole()?).ok()?;
            wire::varint(out, u64::from((number << 1 ^ number >> 31) as u32));
        }
        Kind::Fixed32 => out.extend(u32::try_from(number.whole()?).ok()?.to_le_bytes()),
        Kind::Fixed64 => out.extend(u64::try_from(number.whole()?).ok()?.to_le_bytes()),
        Kind::SignedFixed64 => out.extend(i64::try_from(number.whole()?).ok()?.to_le_bytes()),
        Kind::Double => out.extend(number.real().to_le_bytes()),
        Kind::Message(_) | Kind::Text(_) | Kind::Id(_) | Kind::Bytes => return None,
    }
    Some(())
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some((digit(pair[0])? << 4 | digit(*pair.get(1)?)?) as u8)).collect()
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    use prost::Message;

    use super::*;

    fn read(signal: Signal, json: &str) -> Result<Vec<u8>, NoRequest> {
        to_protobuf(signal, json.as_bytes(), 1 << 20)
    }

    #[test]
    fn a_span_is_read_with_its_ids_in_hexadecimal_and_numbers_in_either_form() {
        let json = r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},
            "scopeSpans":[{"scope":{"name":"s"},"spans":[{"traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"eee19b7ec3c1b174",
            "parentSpanId":"","name":"I","kind":2,"startTimeUnixNano":"1544712660000000000","endTimeUnixNano":1544712661000000000,
            "flags":257,"futureField":{"a":[1,{}]},"events":null,"attributes":[{"key":"n","value":{"intValue":"-7"}},
            {"key":"m","value":{"intValue":7}},{"key":"d","value":{"doubleValue":"NaN"}},{"key":"b","value":{"bytesValue":"AP8="}},
            {"key":"l","value":{"arrayValue":{"values":[{"boolValue":true}]}}},
            {"key":"k","value":{"kvlistValue":{"values":[{"key":"x","value":{"doubleValue":1}}]}}}],"status":{"code":2,"message":"m"}}]}]}]}"#;
        let request = ExportTraceServiceRequest::decode(&*read(Signal::Traces, json).unwrap()).unwrap();
        let span = &request.resource_spans[0].scope_spans[0].spans[0];
        assert_eq!(
            (span.trace_id[..2].to_vec(), span.span_id.len(), span.parent_span_id.len()),
            (vec![0x5b, 0x8e], 8, 0)
        );
        assert_eq!((span.kind, span.flags, span.status.as_ref().unwrap().code), (2, 257, 2));
        assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 1_000_000_000);
        let values: Vec<Value> =
            span.attributes.iter().map(|pair| pair.value.clone().unwrap().value.unwrap()).collect();
        assert_eq!((&values[0], &values[1]), (&Value::IntValue(-7), &Value::IntValue(7)));
        assert!(matches!(values[2], Value::DoubleValue(number) if number.is_nan()));
        assert_eq!(values[3], Value::BytesValue(vec![0, 255]));
        assert!(matches!(&values[4], Value::ArrayValue(array) if array.values.len() == 1));
        assert!(matches!(&values[5], Value::KvlistValue(list) if list.values[0].key == "x"));
    }

    #[test]
    fn points_of_metrics_keep_their_numbers() {
        let json = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[
            {"name":"h","unit":"s","histogram":{"aggregationTemporality":1,"dataPoints":[{"count":"3","sum":1.5,
              "bucketCounts":["1",2,"0"],"explicitBounds":[0.5,1],"min":0,"exemplars":[{"asInt":"-4","spanId":"eee19b7ec3c1b174"}]}]}},
            {"name":"e","exponentialHistogram":{"dataPoints":[{"scale":-3,"positive":{"offset":-2,"bucketCounts":["300",1]}}]}},
            {"name":"g","gauge":{"dataPoints":[{"asDouble":2.5}]}}]}]}]}"#;
        let request = ExportMetricsServiceRequest::decode(&*read(Signal::Metrics, json).unwrap()).unwrap();
        let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
        let Some(Data::Histogram(histogram)) = &metrics[0].data else { panic!("{:?}", metrics[0]) };
        let point = &histogram.data_points[0];
        assert_eq!(
            (point.count, point.sum, &*point.bucket_counts, &*point.explicit_bounds, point.min),
            (3, Some(1.5), &[1, 2, 0][..], &[0.5, 1.0][..], Some(0.0))
        );
        assert_eq!(point.exemplars[0].span_id.len(), 8);
        let Some(Data::ExponentialHistogram(histogram)) = &metrics[1].data else { panic!("{:?}", metrics[1]) };
        let positive = histogram.data_points[0].positive.as_ref().unwrap();
        assert_eq!(
            (histogram.data_points[0].scale, positive.offset, &*positive.bucket_counts),
            (-3, -2, &[300, 1][..])
        );
    }

    #[test]
    fn a_log_record_is_read() {
        let json =
            r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"severityNumber":9,"body":{"stringValue":"é\n"}}]}]}]}"#;
        let request = ExportLogsServiceRequest::decode(&*read(Signal::Logs, json).unwrap()).unwrap();
        let record = &request.resource_logs[0].scope_logs[0].log_records[0];
        assert_eq!(
            (record.severity_number, record.body.clone().unwrap().value),
            (9, Some(Value::StringValue("é\n".into())))
        );
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let spans = |spans: &str| format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":{spans}}}]}}]}}"#);
        let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
        for json in [
            "",
            "[]",
            "{",
            "{} x",
            "7",
            r#"{"resourceSpans":{}}"#,
            r#"{"resourceSpans":[[]]}"#,
            &spans(r#"[{"traceId":"xy"}]"#),
            &spans(r#"[{"traceId":"abc"}]"#),
            &spans(r#"[{"kind":"SPAN_KIND_SERVER"}]"#),
            &spans(r#"[{"startTimeUnixNano":-1}]"#),
            &spans(r#"[{"kind":1.5}]"#),
            &spans(r#"[{"name":7}]"#),
            &spans(r#"[{"flags":4294967296}]"#),
            &spans("[7]"),
            &spans(&deep),
        ] {
            assert!(matches!(read(Signal::Traces, json), Err(NoRequest::Malformed(..))), "{:.80}", json);
        }
        assert!(to_protobuf(Signal::Traces, b"{\"resourceSpans\":[{\"schemaUrl\":\"\xff\"}]}", 100).is_err());
    }

    #[test]
    fn what_grows_beyond_the_limit_is_too_large() {
        let numbers = "0,".repeat(1_000) + "0";
        let json = format!(
            r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"histogram":{{"dataPoints":[{{"bucketCounts":[{numbers}]}}]}}}}]}}]}}]}}"#
        );
        assert_eq!(to_protobuf(Signal::Metrics, json.as_bytes(), 4_000), Err(NoRequest::TooLarge));
        assert!(to_protobuf(Signal::Metrics, json.as_bytes(), 9_000).is_ok());
    }
}
