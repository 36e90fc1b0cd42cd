//! How long names and values may be: what every vendor takes, so that none refuses an item for one of its parts.
//!
//! Whoever encodes cuts, and counts each cut (`content_factory.telemetry.truncated`).

use crate::settings::Section;
use crate::telemetry::wire::{self, Field, Fields, Value};

/// In bytes: New Relic's limit is the lowest.
pub(crate) const VALUE_LIMIT: usize = 4_095;
/// In bytes, of spans and attributes.
pub(crate) const NAME_LIMIT: usize = 255;
/// Items of a list.
pub(crate) const LIST_LIMIT: usize = 64;
/// Attributes of an item, and its events and links: as OpenTelemetry's SDKs are set.
pub(crate) const ATTRIBUTE_LIMIT: usize = 128;
/// In `Span`.
const ATTRIBUTES: u32 = 9;
/// In `Span`.
const DROPPED_ATTRIBUTES_COUNT: u32 = 10;
/// In bytes: a method, a status or an address is never cut.
const LEAST_VALUE: usize = 64;
/// No span of a request has more attributes of ours.
const MOST_ATTRIBUTES: usize = 32;

/// The settings below `telemetry.limits`: less than vendors take, when somebody wants less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of a value, in bytes.
    pub value: usize,
    /// Attributes of a span, its events and links, or a log record.
    pub attributes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { value: VALUE_LIMIT, attributes: ATTRIBUTE_LIMIT }
    }
}

impl Limits {
    /// Reads the section `telemetry.limits`. The variables of OpenTelemetry that set them are the application's, too, and
    /// may ask for more than vendors take: then that is the limit.
    pub fn read(section: &mut Section<'_>) -> Self {
        let about = "longest value of an attribute of spans and log records, ours and relayed ones, in bytes, from 64 to 4,095; what is beyond counts as the nearest";
        let value = section.number("value", VALUE_LIMIT as u64, 0..=u64::MAX, about);
        let about = "most attributes of a span or a log record, ours and relayed ones; more than 128 counts as 128";
        let attributes = section.number("attributes", ATTRIBUTE_LIMIT as u64, 0..=u64::MAX, about);
        let limit = |number: u64, most: usize| usize::try_from(number).unwrap_or(most).min(most);
        Self { value: limit(value, VALUE_LIMIT).max(LEAST_VALUE), attributes: limit(attributes, ATTRIBUTE_LIMIT) }
    }

    /// Leaves out what is too much of the span that was appended last, which begins here; returns how many attributes.
    ///
    /// Costs nothing with a limit that no span of ours reaches.
    pub(crate) fn apply(self, out: &mut Vec<u8>, start: usize) -> u64 {
        if self.attributes >= MOST_ATTRIBUTES {
            return 0;
        }
        let Some(Ok(Field { number, value: Value::Bytes(span), .. })) = Fields(&out[start..]).next() else { return 0 };
        let (mut kept, mut count) = (Vec::with_capacity(span.len()), 0);
        for field in Fields(span).flatten() {
            count += usize::from(field.number == ATTRIBUTES);
            if field.number != ATTRIBUTES || count <= self.attributes {
                kept.extend_from_slice(field.whole);
            }
        }
        let dropped = count.saturating_sub(self.attributes) as u64;
        if dropped > 0 {
            wire::varint_field(&mut kept, DROPPED_ATTRIBUTES_COUNT, dropped);
            out.truncate(start);
            wire::bytes_field(out, number, &kept);
        }
        dropped
    }
}
