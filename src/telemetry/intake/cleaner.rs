//! What is done to whatever an SDK made, the application's or our own: redacted, cut, and completed by what we know of the place.
//!
//! Walks protobuf by the schema and writes it anew: nothing is decoded into values, so it needs no more memory than the request
//! has bytes. Redacts first and cuts then: a secret is never cut in two, and so never recognised. What leaves here is a request
//! that every receiver reads, whatever came in: one broken span among others would cost them all.

use std::borrow::Cow;

use crate::model::telemetry::Signal;
use crate::redact::{Clean, Outlet, Redactor, is_secret_key};
use crate::semconv;
use crate::telemetry::intake::config::ServerMetrics;
use crate::telemetry::intake::personal::{self, OtherEnd, Passage};
use crate::telemetry::intake::recorded;
use crate::telemetry::intake::schema::{self, Field as Known, Kind, Message, RESOURCE, Role, Times};
use crate::telemetry::limits::{ATTRIBUTE_LIMIT, LIST_LIMIT, Limits, NAME_LIMIT};
use crate::telemetry::otlp;
use crate::telemetry::privacy::PrivacyConfig;
use crate::telemetry::resource::Resource;
use crate::telemetry::wire::{self, Field, Fields, Value};

/// Values within values: receivers read messages that are nested about three times as deep.
const NESTING: usize = 32;
/// More fields than any message has.
const MOST_FIELDS: usize = 20;
/// What an SDK calls a service that nobody named (OpenTelemetry's specification of resources).
const UNNAMED: &str = "unknown_service";
/// What the proxy measures of the same requests begins like this.
const SERVER_METRICS: &str = "http.server.";
/// `SpanKind`'s `SPAN_KIND_SERVER`.
const SERVER: u64 = 2;
/// `SpanKind`'s kinds of what the application asks of others: CLIENT, PRODUCER and, of a broker, CONSUMER.
const CALLS: [u64; 3] = [3, 4, 5];
/// `SpanKind`'s `SPAN_KIND_CONSUMER`.
const CONSUMER: u64 = 5;
/// In a span.
const KIND: u32 = 6;
/// A key whose value is a secret, whatever it is.
const SECRET: &str = "authorization";

/// Cleans requests on their way to an outlet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cleaner<'r> {
    pub(crate) redactor: &'r Redactor,
    pub(crate) outlet: Outlet,
    pub(crate) limits: Limits,
    /// Who we are, for what others send; `None` for what is our own and complete.
    pub(crate) host: Option<Host<'r>>,
}

/// Where a request came in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host<'r> {
    /// Whose attributes complete the resources.
    pub(crate) identity: &'r Resource,
    pub(crate) server_metrics: ServerMetrics,
    /// How much of people leaves.
    pub(crate) privacy: PrivacyConfig,
}

/// A request that may leave.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Cleaned {
    pub(crate) body: Vec<u8>,
    /// Values, names and lists that were cut.
    pub(crate) truncated: u64,
    /// Items that are not in it: spans without ids, metrics that are measured here.
    pub(crate) left_out: u64,
    /// Under our own name there is a SERVER span with a parent.
    pub(crate) has_server_span: bool,
    /// There is a span of a worker of Celery that has run a task.
    pub(crate) has_celery_span: bool,
}

/// Why a request cannot be taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    /// It is no request.
    #[error("found bytes that are no request, expected OTLP as protobuf")]
    Malformed,
    /// No receiver would read it.
    #[error("found values within values, expected at most {NESTING} of them")]
    TooDeep,
    /// It grows too much, as by a resource for each of many items.
    #[error("found a request that grows too much, expected few resources for many items")]
    TooLarge,
}

impl Cleaner<'_> {
    /// Writes a request anew, in at most about `limit` bytes.
    ///
    /// # Errors
    /// When it is none, or none that a receiver would read.
    pub(crate) fn clean(self, signal: Signal, request: &[u8], limit: usize) -> Result<Cleaned, Unfit> {
        let message = schema::request(signal).ok_or(Unfit::Malformed)?;
        let mut walk = Walk {
            cleaner: self,
            limit,
            is_ours: false,
            other_end: OtherEnd::Client,
            longest_value: self.limits.value,
            cleaned: Cleaned::default(),
        };
        let mut body = Vec::with_capacity(request.len() + request.len() / 8);
        walk.message(message, request, &mut body)?;
        walk.cleaned.body = body;
        Ok(walk.cleaned)
    }

    fn text<'t>(&self, text: &'t [u8]) -> Clean<'t> {
        self.redactor.text(self.outlet, text)
    }

    fn value<'t>(&self, key: &str, text: &'t [u8]) -> Clean<'t> {
        self.redactor.field(self.outlet, key, text)
    }
}

/// On the way through one request.
struct Walk<'r> {
    cleaner: Cleaner<'r>,
    limit: usize,
    /// The resource whose items are walked has our own name.
    is_ours: bool,
    /// Of connections that what is walked tells of.
    other_end: OtherEnd,
    /// Of a value where the walk is, in bytes.
    longest_value: usize,
    cleaned: Cleaned,
}

type Done = Result<(), Unfit>;

impl Walk<'_> {
    /// Writes the known fields of a message.
    fn message(&mut self, message: &Message, bytes: &[u8], out: &mut Vec<u8>) -> Done {
        let mut lists = Lists { limits: self.cleaner.limits, ..Lists::default() };
        for field in Fields(bytes) {
            let field = field.map_err(|_| Unfit::Malformed)?;
            let Some(index) = message.fields.iter().position(|known| known.number == field.number) else { continue };
            if out.len() > self.limit {
                return Err(Unfit::TooLarge);
            }
            if lists.takes(message, index, &field)? {
                self.field(&message.fields[index], &field, out)?;
            }
        }
        self.cleaned.truncated += lists.cut();
        lists.tell(message, out);
        Ok(())
    }

    fn field(&mut self, known: &Known, field: &Field<'_>, out: &mut Vec<u8>) -> Done {
        let bytes = match (known.kind.wire_type(), field.value) {
            (wire::LENGTH, Value::Bytes(bytes)) => bytes,
            (wire::LENGTH, _) => return Err(Unfit::Malformed),
            (_, Value::Bytes(packed)) if known.times != Times::One && is_packed(known.kind, packed) => {
                out.extend_from_slice(field.whole);
                return Ok(());
            }
            (wire_type, _) if wire_type == wire_type_of(field) => {
                out.extend_from_slice(field.whole);
                return Ok(());
            }
            _ => return Err(Unfit::Malformed),
        };
        match known.kind {
            Kind::Message(message) => {
                self.longest_value = known.times.longest_value(self.cleaner.limits);
                self.nested(message, known.number, bytes, out)
            }
            Kind::Text(limit) => {
                let text = self.cleaner.text(bytes);
                self.put(known.number, text, limit, out);
                Ok(())
            }
            Kind::Id(length) => {
                if bytes.len() == length {
                    wire::bytes_field(out, known.number, bytes);
                }
                Ok(())
            }
            _ => Ok(()), // bytes stand in values only, which are read there
        }
    }

    fn nested(&mut self, message: &Message, number: u32, bytes: &[u8], out: &mut Vec<u8>) -> Done {
        match message.role {
            Role::Span if !has_ids(bytes) => self.cleaned.left_out += 1,
            Role::Link if !has_ids(bytes) => {}
            Role::Part if !has_items(bytes) => {}
            Role::Metric if self.is_measured_here(bytes) => {
                self.cleaned.left_out += otlp::points(bytes).map_err(|_| Unfit::Malformed)?;
            }
            Role::Part => return self.within(out, number, |walk, out| walk.part(message, bytes, out)),
            Role::Pair => return self.attribute(number, bytes, out),
            Role::Any => return self.within(out, number, |walk, out| walk.value("", bytes, 0, out)),
            Role::Span | Role::Link | Role::Metric | Role::Plain => {
                let is_span = message.role == Role::Span;
                self.cleaned.has_server_span |= is_span && self.is_ours && continues_a_request(bytes);
                self.cleaned.has_celery_span |= is_span && is_of_celery(bytes);
                if is_span {
                    self.other_end = if is_of_kind(bytes, &CALLS) { OtherEnd::Server } else { OtherEnd::Client };
                }
                return self.within(out, number, |walk, out| walk.message(message, bytes, out));
            }
        }
        Ok(())
    }

    /// Writes a nested message.
    fn within(&mut self, out: &mut Vec<u8>, number: u32, write: impl FnOnce(&mut Self, &mut Vec<u8>) -> Done) -> Done {
        let mut done = Ok(());
        wire::message(out, number, |out| done = write(self, out));
        done
    }

    /// A resource and what belongs to it: the resource first, because all else depends on it.
    fn part(&mut self, message: &Message, bytes: &[u8], out: &mut Vec<u8>) -> Done {
        const RESOURCE_NUMBER: u32 = 1;
        // several are one that was cut: put together they are read like one (protobuf's rule of merging)
        let mut resource = Vec::new();
        let mut rest = Vec::with_capacity(bytes.len());
        for field in Fields(bytes) {
            let field = field.map_err(|_| Unfit::Malformed)?;
            match (field.number, field.value) {
                (RESOURCE_NUMBER, Value::Bytes(bytes)) => resource.extend_from_slice(bytes),
                (RESOURCE_NUMBER, _) => return Err(Unfit::Malformed),
                _ => rest.extend_from_slice(field.whole),
            }
        }
        self.within(out, RESOURCE_NUMBER, |walk, out| walk.resource(&resource, out))?;
        self.message(message, &rest, out)
    }

    fn resource(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Done {
        let Some(host) = self.cleaner.host else { return self.message(&RESOURCE, bytes, out) };
        let names = Names::of(bytes)?;
        for (name, value) in host.identity.attributes() {
            if name == semconv::SERVICE_NAME {
                self.is_ours = names.service.as_deref().is_none_or(|service| service == value);
            }
            if !names.has(name) {
                wire::text_attribute(out, 1, name, value.as_bytes());
            }
        }
        if names.service.is_none() {
            // the name that the SDK made up goes: two of one key would be read at random
            return self.message(&RESOURCE, &without_service_name(bytes), out);
        }
        self.message(&RESOURCE, bytes, out)
    }

    /// An attribute, as much of it as may leave.
    fn attribute(&mut self, number: u32, bytes: &[u8], out: &mut Vec<u8>) -> Done {
        if let Some(Host { privacy, .. }) = self.cleaner.host {
            let key = String::from_utf8_lossy(last(bytes, 1)?.unwrap_or_default());
            let text = String::from_utf8_lossy(last(last(bytes, 2)?.unwrap_or_default(), 1)?.unwrap_or_default());
            match personal::passage(&privacy, &key, &text, self.other_end) {
                Passage::Whole => {}
                Passage::LeftOut => return Ok(()),
                Passage::Part(text) => {
                    let text = self.cleaner.value(&key, text.as_bytes());
                    self.cleaned.truncated += u64::from(text.as_str().len() > self.longest_value);
                    wire::text_attribute(out, number, &key, text.cut(self.longest_value).as_str().as_bytes());
                    return Ok(());
                }
            }
        }
        self.within(out, number, |walk, out| walk.pair(None, bytes, 0, out))
    }

    /// A key and its value; below a key that names a secret everything is one.
    fn pair(&mut self, above: Option<&str>, bytes: &[u8], depth: usize, out: &mut Vec<u8>) -> Done {
        let key = String::from_utf8_lossy(last(bytes, 1)?.unwrap_or_default());
        let clean = self.cleaner.text(key.as_bytes());
        self.put(1, clean, NAME_LIMIT, out);
        let named = above.filter(|above| is_secret_key(above)).unwrap_or(&key);
        let named = if recorded::is_credential(named) { SECRET } else { named };
        for field in Fields(bytes) {
            match field.map_err(|_| Unfit::Malformed)? {
                Field { number: 2, value: Value::Bytes(value), .. } => {
                    self.within(out, 2, |walk, out| walk.value(named, value, depth, out))?;
                }
                Field { number: 2, .. } => return Err(Unfit::Malformed),
                _ => {}
            }
        }
        Ok(())
    }

    /// An `AnyValue`.
    fn value(&mut self, key: &str, bytes: &[u8], depth: usize, out: &mut Vec<u8>) -> Done {
        if depth > NESTING {
            return Err(Unfit::TooDeep);
        }
        for field in Fields(bytes) {
            let field = field.map_err(|_| Unfit::Malformed)?;
            match (field.number, field.value) {
                (1, Value::Bytes(text)) => {
                    let text = self.cleaner.value(key, text);
                    self.put(1, text, self.longest_value, out);
                }
                (2 | 3, Value::Number(_)) => out.extend_from_slice(field.whole),
                (4, Value::Fixed) if wire_type_of(&field) == wire::FIXED64 => out.extend_from_slice(field.whole),
                (5 | 6, Value::Bytes(items)) => {
                    self.within(out, field.number, |walk, out| walk.items((field.number, key), items, depth, out))?;
                }
                (7, Value::Bytes(bytes)) => self.bytes(key, bytes, out),
                (1..=7, _) => return Err(Unfit::Malformed),
                _ => {}
            }
        }
        Ok(())
    }

    /// The items of an `ArrayValue` (field 5 of a value) or a `KeyValueList` (field 6).
    fn items(&mut self, (number, key): (u32, &str), bytes: &[u8], depth: usize, out: &mut Vec<u8>) -> Done {
        let limit = if number == 5 { LIST_LIMIT } else { ATTRIBUTE_LIMIT };
        let mut count = 0;
        for field in Fields(bytes) {
            let field = field.map_err(|_| Unfit::Malformed)?;
            let (1, Value::Bytes(item)) = (field.number, field.value) else { continue };
            count += 1;
            if count > limit {
                continue;
            }
            if out.len() > self.limit {
                return Err(Unfit::TooLarge);
            }
            self.within(out, 1, |walk, out| match number {
                5 => walk.value(key, item, depth + 1, out),
                _ => walk.pair(Some(key), item, depth + 1, out),
            })?;
        }
        self.cleaned.truncated += u64::from(count > limit);
        Ok(())
    }

    /// Bytes are kept as they are, unless something in them had to be redacted.
    fn bytes(&mut self, key: &str, bytes: &[u8], out: &mut Vec<u8>) {
        let clean = self.cleaner.value(key, bytes);
        if clean.as_str() == String::from_utf8_lossy(bytes) {
            self.cleaned.truncated += u64::from(bytes.len() > self.longest_value);
            wire::bytes_field(out, 7, &bytes[..bytes.len().min(self.longest_value)]);
        } else {
            self.put(7, clean, self.longest_value, out);
        }
    }

    fn put(&mut self, number: u32, text: Clean<'_>, limit: usize, out: &mut Vec<u8>) {
        self.cleaned.truncated += u64::from(text.as_str().len() > limit);
        wire::bytes_field(out, number, text.cut(limit).as_str().as_bytes());
    }

    fn is_measured_here(&self, metric: &[u8]) -> bool {
        let leaves_out = self.cleaner.host.is_some_and(|host| host.server_metrics == ServerMetrics::LeftOut);
        let name = last(metric, 1).ok().flatten().unwrap_or_default();
        leaves_out && self.is_ours && name.starts_with(SERVER_METRICS.as_bytes())
    }
}

/// How many there were of each list of a message, and what the message itself says was dropped before.
#[derive(Default)]
struct Lists {
    limits: Limits,
    seen: [u32; MOST_FIELDS],
    told: [u32; MOST_FIELDS],
    cut: u64,
}

impl Lists {
    /// Whether this field is still taken. Counters of what was dropped are written at the end.
    fn takes(&mut self, message: &Message, index: usize, field: &Field<'_>) -> Result<bool, Unfit> {
        if let Some((limit, _)) = message.fields[index].times.at_most(self.limits) {
            self.seen[index] = self.seen[index].saturating_add(1);
            let position = self.seen[index] as usize;
            self.cut += u64::from(position == limit + 1);
            return Ok(position <= limit);
        }
        let counts =
            |known: &Known| known.times.at_most(self.limits).is_some_and(|(_, counter)| counter == field.number);
        let Some(counted) = message.fields.iter().position(counts) else { return Ok(true) };
        let Value::Number(number) = field.value else { return Err(Unfit::Malformed) };
        self.told[counted] = u32::try_from(number).unwrap_or(u32::MAX);
        Ok(false)
    }

    fn cut(&self) -> u64 {
        self.cut
    }

    /// Writes how many items of each list are missing.
    fn tell(&self, message: &Message, out: &mut Vec<u8>) {
        for (index, known) in message.fields.iter().enumerate() {
            let Some((limit, counter)) = known.times.at_most(self.limits) else { continue };
            let over = self.seen[index].saturating_sub(u32::try_from(limit).unwrap_or(u32::MAX));
            let missing = self.told[index].saturating_add(over);
            if counter != 0 && missing > 0 {
                wire::varint_field(out, counter, missing.into());
            }
        }
    }
}

/// The names of a resource's attributes.
struct Names<'b> {
    names: Vec<&'b [u8]>,
    /// `None` when there is none, or one that the SDK made up.
    service: Option<Cow<'b, str>>,
}

impl<'b> Names<'b> {
    fn of(resource: &'b [u8]) -> Result<Self, Unfit> {
        let mut read = Self { names: Vec::new(), service: None };
        for field in Fields(resource) {
            let field = field.map_err(|_| Unfit::Malformed)?;
            let (1, Value::Bytes(pair)) = (field.number, field.value) else { continue };
            let name = last(pair, 1)?.unwrap_or_default();
            if name == semconv::SERVICE_NAME.as_bytes() {
                let text = last(last(pair, 2)?.unwrap_or_default(), 1)?.unwrap_or_default();
                let text = String::from_utf8_lossy(text);
                read.service = Some(text).filter(|text| !text.is_empty() && !text.starts_with(UNNAMED));
            }
            read.names.push(name);
        }
        Ok(read)
    }

    fn has(&self, name: &str) -> bool {
        let is_made_up = name == semconv::SERVICE_NAME && self.service.is_none();
        !is_made_up && self.names.contains(&name.as_bytes())
    }
}

fn without_service_name(resource: &[u8]) -> Vec<u8> {
    let is_name = |field: &Field<'_>| match (field.number, field.value) {
        (1, Value::Bytes(pair)) => last(pair, 1) == Ok(Some(semconv::SERVICE_NAME.as_bytes())),
        _ => false,
    };
    let others = Fields(resource).flatten().filter(|field| !is_name(field));
    others.flat_map(|field| field.whole).copied().collect()
}

/// The last bytes of a number: what a reader of protobuf takes.
fn last(message: &[u8], number: u32) -> Result<Option<&[u8]>, Unfit> {
    let mut found = None;
    for field in Fields(message) {
        match field.map_err(|_| Unfit::Malformed)? {
            Field { number: other, .. } if other != number => {}
            Field { value: Value::Bytes(bytes), .. } => found = Some(bytes),
            _ => return Err(Unfit::Malformed),
        }
    }
    Ok(found)
}

/// Whether there is anything in a part besides its resource.
fn has_items(part: &[u8]) -> bool {
    Fields(part).any(|field| field.is_ok_and(|field| field.number == 2))
}

/// Whether a span or a link has a trace id and a span id that mean something.
fn has_ids(bytes: &[u8]) -> bool {
    let is_id = |number, length: usize| {
        let id = last(bytes, number).ok().flatten().unwrap_or_default();
        id.len() == length && id.iter().any(|byte| *byte != 0)
    };
    is_id(1, 16) && is_id(2, 8)
}

/// Whether a span is of one of these kinds.
fn is_of_kind(span: &[u8], kinds: &[u64]) -> bool {
    let names_one = |field: Field<'_>| match (field.number, field.value) {
        (KIND, Value::Number(kind)) => kinds.contains(&kind),
        _ => false,
    };
    Fields(span).flatten().any(names_one)
}

/// Whether a span is what OpenTelemetry's instrumentation of Celery makes of a run: CONSUMER, with attributes that Celery names.
fn is_of_celery(span: &[u8]) -> bool {
    const ATTRIBUTES: u32 = 9;
    let names_celery = |field: Field<'_>| match (field.number, field.value) {
        (ATTRIBUTES, Value::Bytes(pair)) => match Fields(pair).flatten().next().map(|key| key.value) {
            Some(Value::Bytes(key)) => key.starts_with(b"celery."),
            _ => false,
        },
        _ => false,
    };
    is_of_kind(span, &[CONSUMER]) && Fields(span).flatten().any(names_celery)
}

/// Whether a span is of kind SERVER and has a parent.
fn continues_a_request(span: &[u8]) -> bool {
    let has_parent = last(span, 4).ok().flatten().is_some_and(|parent| !parent.is_empty());
    has_parent && is_of_kind(span, &[SERVER])
}

fn wire_type_of(field: &Field<'_>) -> u32 {
    field.whole.first().map_or(0, |tag| u32::from(tag & 7))
}

/// Whether these are numbers of a type without their tags.
fn is_packed(kind: Kind, bytes: &[u8]) -> bool {
    match kind.wire_type() {
        wire::FIXED64 => bytes.len().is_multiple_of(8),
        wire::FIXED32 => bytes.len().is_multiple_of(4),
        wire::VARINT => wire::are_varints(bytes),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
