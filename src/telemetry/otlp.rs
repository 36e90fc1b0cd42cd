//! Export requests as bytes: counted, wrapped and cut without being decoded.
//!
//! The three signals have the same shape, `request { 1 resource { 2 scope { 2 item } } }`, and two requests one
//! after the other are one valid request; so merging is appending, and a cut falls between items.

use crate::model::telemetry::Signal;
use crate::semconv;
use crate::telemetry::wire::{self, Field, Fields, Malformed, Value};

/// The only field of a request: one resource and what belongs to it.
const RESOURCES: u32 = 1;
/// In a resource's part: one scope and what belongs to it.
const SCOPES: u32 = 2;
/// In a scope's part: the spans, metrics or log records.
const ITEMS: u32 = 2;
/// The kinds of data of a metric: gauge, sum, histogram, exponential histogram, summary.
const METRIC_DATA: [u32; 5] = [5, 7, 9, 10, 11];
/// In each kind of data.
const DATA_POINTS: u32 = 1;
const SCHEMA_URL: u32 = 3;
const RESOURCE: u32 = 1;
const SCOPE: u32 = 1;

/// A request and how many items it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    /// Spans, data points or log records.
    pub(crate) items: u64,
    /// A whole export request.
    pub(crate) body: Vec<u8>,
}

/// Makes a request of items that are encoded already, each with its tag and length.
pub(crate) fn request(resource: &[u8], scope: &[u8], items: &[u8]) -> Vec<u8> {
    let origin = Origin { resource, scope };
    let mut out = Vec::with_capacity(origin.request_length(items));
    origin.write_request(items, &mut out);
    out
}

/// Whom items are from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin<'o> {
    pub(crate) resource: &'o [u8],
    pub(crate) scope: &'o [u8],
}

impl Origin<'_> {
    /// How long a request of these items is.
    pub(crate) fn request_length(&self, items: &[u8]) -> usize {
        wire::field_length(self.resources(items))
    }

    /// Appends a request of these items; behind another request, the two are one.
    pub(crate) fn write_request(&self, items: &[u8], out: &mut Vec<u8>) {
        wire::tag(out, RESOURCES, wire::LENGTH);
        wire::varint(out, self.resources(items) as u64);
        wire::bytes_field(out, RESOURCE, self.resource);
        wire::tag(out, SCOPES, wire::LENGTH);
        wire::varint(out, self.scopes(items) as u64);
        wire::bytes_field(out, SCOPE, self.scope);
        out.extend_from_slice(items);
        wire::bytes_field(out, SCHEMA_URL, semconv::SCHEMA_URL.as_bytes());
        wire::bytes_field(out, SCHEMA_URL, semconv::SCHEMA_URL.as_bytes());
    }

    fn scopes(&self, items: &[u8]) -> usize {
        wire::field_length(self.scope.len()) + items.len() + wire::field_length(semconv::SCHEMA_URL.len())
    }

    fn resources(&self, items: &[u8]) -> usize {
        let inner = [self.resource.len(), self.scopes(items), semconv::SCHEMA_URL.len()];
        inner.into_iter().map(wire::field_length).sum()
    }
}

/// The scope of what the sidecar measures at the proxy.
pub(crate) fn own_scope() -> Vec<u8> {
    let mut out = Vec::new();
    wire::bytes_field(&mut out, 1, b"content-factory-sidecar");
    wire::bytes_field(&mut out, 2, env!("CARGO_PKG_VERSION").as_bytes());
    out
}

/// How many items a request holds: spans, log records, or data points of metrics.
///
/// # Errors
/// When the bytes are no export request.
pub(crate) fn count(signal: Signal, body: &[u8]) -> Result<u64, Malformed> {
    let mut items = 0;
    for_each_item(body, |_, _, item| {
        items += item_count(signal, item)?;
        Ok(())
    })?;
    Ok(items)
}

/// Cuts a request between items into requests of at most `limit` bytes; a single item may be larger.
///
/// # Errors
/// When the bytes are no export request.
pub(crate) fn split(signal: Signal, body: &[u8], limit: usize) -> Result<Vec<Request>, Malformed> {
    let mut parts: Vec<Request> = Vec::new();
    let mut run = Run::default();
    for_each_item(body, |resource, scope, item| {
        if !run.takes(resource, scope, item, limit) {
            run.end(&mut parts, limit)?;
        }
        run.put(signal, resource, scope, item)
    })?;
    run.end(&mut parts, limit)?;
    Ok(parts)
}

/// Whether anything in a request tells of an error; what cannot be read does not.
pub(crate) fn has_errors(signal: Signal, body: &[u8]) -> bool {
    let mut found = false;
    let can_tell = matches!(signal, Signal::Traces | Signal::Logs);
    let read = can_tell.then(|| {
        for_each_item(body, |_, _, item| {
            found = found || tells_of_an_error(signal, item);
            Ok(())
        })
    });
    found && read == Some(Ok(()))
}

/// Parts a request in two, in order: what tells of an error, and the rest.
///
/// # Errors
/// When the bytes are no export request.
pub(crate) fn part_errors(signal: Signal, body: &[u8]) -> Result<[Request; 2], Malformed> {
    let mut runs = [Run::default(), Run::default()];
    let mut parts = [Vec::new(), Vec::new()];
    for_each_item(body, |resource, scope, item| {
        let class = usize::from(!tells_of_an_error(signal, item));
        if !runs[class].takes(resource, scope, item, usize::MAX) {
            runs[class].end(&mut parts[class], usize::MAX)?;
        }
        runs[class].put(signal, resource, scope, item)
    })?;
    for (run, parts) in runs.iter_mut().zip(&mut parts) {
        run.end(parts, usize::MAX)?;
    }
    Ok(parts.map(|mut parts| parts.pop().unwrap_or_default())) // without a limit there is one
}

/// Whether a span's status is an error, or a log record's severity at least one.
fn tells_of_an_error(signal: Signal, item: &Field<'_>) -> bool {
    const STATUS: u32 = 15;
    const CODE: u32 = 3;
    const ERROR: u64 = 2;
    const SEVERITY: u32 = 2;
    const SEVERITY_ERROR: u64 = 17;
    let Value::Bytes(item) = item.value else { return false };
    Fields(item).flatten().any(|field| match (signal, field.number, field.value) {
        (Signal::Traces, STATUS, Value::Bytes(status)) => {
            Fields(status).flatten().any(|field| (field.number, field.value) == (CODE, Value::Number(ERROR)))
        }
        (Signal::Logs, SEVERITY, Value::Number(severity)) => severity >= SEVERITY_ERROR,
        _ => false,
    })
}

/// Items of one scope that stay together.
#[derive(Default)]
struct Run<'a> {
    resource: &'a [u8],
    scope: &'a [u8],
    items: u64,
    bytes: Vec<u8>,
}

/// What the lengths of the nested messages may need.
const FRAMING: usize = 16;

impl<'a> Run<'a> {
    fn put(&mut self, signal: Signal, resource: &'a [u8], scope: &'a [u8], item: &Field<'_>) -> Result<(), Malformed> {
        self.resource = resource;
        self.scope = scope;
        self.items += item_count(signal, item)?;
        self.bytes.extend_from_slice(item.whole);
        Ok(())
    }

    fn takes(&self, resource: &[u8], scope: &[u8], item: &Field<'_>, limit: usize) -> bool {
        let same = std::ptr::eq(self.resource, resource) && std::ptr::eq(self.scope, scope);
        let length = resource.len() + scope.len() + self.bytes.len() + item.whole.len() + FRAMING;
        self.bytes.is_empty() || (same && length <= limit)
    }

    /// Adds the run to the last part that has room, else as a new part.
    fn end(&mut self, parts: &mut Vec<Request>, limit: usize) -> Result<(), Malformed> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let mut body = Vec::with_capacity(self.resource.len() + self.bytes.len() + FRAMING);
        let mut result = Ok(());
        wire::message(&mut body, RESOURCES, |out| {
            result = copy_without(out, self.resource, SCOPES);
            wire::message(out, SCOPES, |out| {
                result = result.and(copy_without(out, self.scope, ITEMS));
                out.append(&mut self.bytes);
            });
        });
        result?;
        match parts.last_mut().filter(|last| last.body.len() + body.len() <= limit) {
            Some(last) => {
                last.items += self.items;
                last.body.append(&mut body);
            }
            None => parts.push(Request { items: self.items, body }),
        }
        self.items = 0;
        Ok(())
    }
}

/// Copies the fields of a message but one.
fn copy_without(out: &mut Vec<u8>, message: &[u8], number: u32) -> Result<(), Malformed> {
    for field in Fields(message) {
        let field = field?;
        if field.number != number {
            out.extend_from_slice(field.whole);
        }
    }
    Ok(())
}

fn item_count(signal: Signal, item: &Field<'_>) -> Result<u64, Malformed> {
    let (Signal::Metrics, Value::Bytes(metric)) = (signal, item.value) else { return Ok(1) };
    points(metric)
}

/// How many data points a metric has.
///
/// # Errors
/// When the bytes are no metric.
pub(crate) fn points(metric: &[u8]) -> Result<u64, Malformed> {
    let mut points = 0;
    for data in nested(metric, |number| METRIC_DATA.contains(&number)) {
        for point in nested(data?.1, |number| number == DATA_POINTS) {
            point?;
            points += 1;
        }
    }
    Ok(points)
}

/// Calls back with the resource's part, the scope's part and the item.
///
/// # Errors
/// When the bytes are no export request, or what the callback says.
pub(crate) fn for_each_item<'a>(
    body: &'a [u8],
    mut visit: impl FnMut(&'a [u8], &'a [u8], &Field<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    for resource in nested(body, |number| number == RESOURCES) {
        let resource = resource?.1;
        for scope in nested(resource, |number| number == SCOPES) {
            let scope = scope?.1;
            for item in nested(scope, |number| number == ITEMS) {
                visit(resource, scope, &item?.0)?;
            }
        }
    }
    Ok(())
}

/// The nested messages of some fields.
fn nested<'a>(
    message: &'a [u8],
    wanted: impl Fn(u32) -> bool,
) -> impl Iterator<Item = Result<(Field<'a>, &'a [u8]), Malformed>> {
    Fields(message).filter_map(move |field| match field {
        Ok(field) if wanted(field.number) => match field.value {
            Value::Bytes(bytes) => Some(Ok((field, bytes))),
            _ => Some(Err(Malformed)),
        },
        Ok(_) => None,
        Err(malformed) => Some(Err(malformed)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1::Span;
    use proptest::prelude::*;
    use prost::Message;

    fn spans(names: &[String]) -> Vec<u8> {
        let mut out = Vec::new();
        for name in names {
            wire::bytes_field(&mut out, ITEMS, &Span { name: name.clone(), ..Span::default() }.encode_to_vec());
        }
        out
    }

    fn names(body: &[u8]) -> Vec<String> {
        let request = ExportTraceServiceRequest::decode(body).unwrap();
        let scopes = request.resource_spans.into_iter().flat_map(|resource| {
            assert!(resource.resource.is_some());
            resource.scope_spans
        });
        scopes.flat_map(|scope| scope.spans).map(|span| span.name).collect()
    }

    #[test]
    fn a_request_is_as_long_as_was_said_before_it_was_written() {
        for length in [0, 1, 100, 127, 128, 16_000, 16_384, 70_000, 3_000_000] {
            let (items, scope) = (vec![0; length], own_scope());
            let origin = Origin { resource: &items[..length.min(300)], scope: &scope };
            let mut out = Vec::new();
            origin.write_request(&items, &mut out);
            assert_eq!(out.len(), origin.request_length(&items), "{length} bytes of items");
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        assert_eq!(count(Signal::Traces, b"\x0a\x05ab"), Err(Malformed));
        assert_eq!(count(Signal::Traces, b"\x10\x01"), Ok(0));
        assert_eq!(count(Signal::Logs, b""), Ok(0));
    }

    #[test]
    fn errors_are_parted_from_the_rest_in_order() {
        use opentelemetry_proto::tonic::trace::v1::{Status, status::StatusCode};
        let mut items = Vec::new();
        for (name, code) in
            [("a", StatusCode::Unset), ("b", StatusCode::Error), ("c", StatusCode::Ok), ("d", StatusCode::Error)]
        {
            let status = Some(Status { code: code.into(), message: String::new() });
            wire::bytes_field(
                &mut items,
                ITEMS,
                &Span { name: name.into(), status, ..Span::default() }.encode_to_vec(),
            );
        }
        let mut body = request(b"\x0a\x00", b"\x0a\x01s", &items);
        body.extend(request(b"\x0a\x00", b"\x0a\x01t", &items));
        let [errors, rest] = part_errors(Signal::Traces, &body).unwrap();
        assert_eq!((names(&errors.body), errors.items), (["b", "d", "b", "d"].map(String::from).to_vec(), 4));
        assert_eq!((names(&rest.body), rest.items), (["a", "c", "a", "c"].map(String::from).to_vec(), 4));
        assert_eq!(
            part_errors(Signal::Traces, &request(b"", b"", &spans(&["x".into()]))).unwrap()[0],
            Request::default()
        );
        let record = |severity: u8| [0x12, 2, 0x10, severity];
        let logs = request(b"", b"", &[record(9), record(17), record(21)].concat());
        assert_eq!(part_errors(Signal::Logs, &logs).unwrap().map(|part| part.items), [2, 1]);
    }

    proptest! {
        #[test]
        fn cutting_keeps_every_item_in_order(all in prop::collection::vec("[a-z]{0,80}", 0..40), limit in 40_usize..900) {
            let (first, second) = all.split_at(all.len() / 2);
            let mut body = request(b"\x0a\x00", b"\x0a\x01s", &spans(first));
            body.extend(request(b"\x0a\x00", b"\x0a\x01t", &spans(second)));
            let parts = split(Signal::Traces, &body, limit).unwrap();
            prop_assert_eq!(parts.iter().map(|part| part.items).sum::<u64>(), all.len() as u64);
            for part in &parts {
                prop_assert_eq!(count(Signal::Traces, &part.body), Ok(part.items));
                prop_assert!(part.body.len() <= limit || part.items == 1, "{} > {limit}", part.body.len());
            }
            let together: Vec<u8> = parts.into_iter().flat_map(|part| part.body).collect();
            prop_assert_eq!(names(&together), all);
        }
    }
}
