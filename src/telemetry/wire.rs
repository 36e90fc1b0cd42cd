//! Protobuf's wire format, as little of it as OTLP needs: a writer that allocates nothing, and a reader of fields.
//!
//! Pure. Knows no message: the encoders name the fields, `otlp` walks them.

/// A varint.
pub(crate) const VARINT: u32 = 0;
/// Eight bytes, little endian.
pub(crate) const FIXED64: u32 = 1;
/// A length, then as many bytes.
pub(crate) const LENGTH: u32 = 2;
/// Four bytes, little endian.
pub(crate) const FIXED32: u32 = 5;

/// What a nested message's length is expected to need: right for 128 to 16,383 bytes, corrected otherwise.
const RESERVED: usize = 2;

/// Writes a varint.
pub(crate) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes the number and type of a field.
pub(crate) fn tag(out: &mut Vec<u8>, field: u32, wire_type: u32) {
    varint(out, u64::from(field << 3 | wire_type));
}

/// Writes an unsigned number, a boolean or an enum.
pub(crate) fn varint_field(out: &mut Vec<u8>, field: u32, value: u64) {
    tag(out, field, VARINT);
    varint(out, value);
}

/// Writes eight bytes.
pub(crate) fn fixed64_field(out: &mut Vec<u8>, field: u32, value: u64) {
    tag(out, field, FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Writes a double.
pub(crate) fn double_field(out: &mut Vec<u8>, field: u32, value: f64) {
    fixed64_field(out, field, value.to_bits());
}

/// Writes four bytes.
pub(crate) fn fixed32_field(out: &mut Vec<u8>, field: u32, value: u32) {
    tag(out, field, FIXED32);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Writes bytes, a text, or a message that is encoded already.
pub(crate) fn bytes_field(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    tag(out, field, LENGTH);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// How long a field is whose value is so many bytes, of a number below 16.
pub(crate) fn field_length(value: usize) -> usize {
    1 + varint_length(value) + value
}

/// Writes a nested message, and its length once that is known.
pub(crate) fn message(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    tag(out, field, LENGTH);
    let start = out.len();
    out.extend_from_slice(&[0; RESERVED]);
    write(out);
    let length = out.len() - start - RESERVED;
    if (0x80..0x4000).contains(&length) {
        out[start] = length as u8 | 0x80;
        out[start + 1] = (length >> 7) as u8;
    } else if length < 0x80 {
        out[start] = length as u8;
        out.remove(start + 1);
    } else {
        let mut prefix = Vec::with_capacity(10);
        varint(&mut prefix, length as u64);
        out.splice(start..start + RESERVED, prefix);
    }
}

/// Writes a `KeyValue` whose value is a text.
pub(crate) fn text_attribute(out: &mut Vec<u8>, field: u32, key: &str, value: &[u8]) {
    joined_text_attribute(out, field, key, [value, &[]]);
}

/// Writes a `KeyValue` whose value is a text in two parts.
pub(crate) fn joined_text_attribute(out: &mut Vec<u8>, field: u32, key: &str, value: [&[u8]; 2]) {
    let length = value[0].len() + value[1].len();
    let any_value = 1 + varint_length(length) + length;
    let pair = 1 + varint_length(key.len()) + key.len() + 1 + varint_length(any_value) + any_value;
    tag(out, field, LENGTH);
    varint(out, pair as u64);
    bytes_field(out, 1, key.as_bytes());
    tag(out, 2, LENGTH);
    varint(out, any_value as u64);
    tag(out, 1, LENGTH);
    varint(out, length as u64);
    out.extend_from_slice(value[0]);
    out.extend_from_slice(value[1]);
}

/// Writes a `KeyValue` whose value is a whole number.
pub(crate) fn int_attribute(out: &mut Vec<u8>, field: u32, key: &str, value: i64) {
    let any_value = 1 + varint_length(value as u64 as usize);
    let pair = 1 + varint_length(key.len()) + key.len() + 2 + any_value;
    tag(out, field, LENGTH);
    varint(out, pair as u64);
    bytes_field(out, 1, key.as_bytes());
    tag(out, 2, LENGTH);
    varint(out, any_value as u64);
    varint_field(out, 3, value as u64);
}

/// Writes a `KeyValue` whose value is true or false.
pub(crate) fn flag_attribute(out: &mut Vec<u8>, field: u32, (key, value): (&str, bool)) {
    message(out, field, |out| {
        bytes_field(out, 1, key.as_bytes());
        message(out, 2, |out| varint_field(out, 2, u64::from(value)));
    });
}

/// Writes a `KeyValue` whose value is a number with a fraction.
pub(crate) fn double_attribute(out: &mut Vec<u8>, field: u32, key: &str, value: f64) {
    message(out, field, |out| {
        bytes_field(out, 1, key.as_bytes());
        message(out, 2, |out| double_field(out, 4, value));
    });
}

fn varint_length(value: usize) -> usize {
    let bits = (usize::BITS - value.leading_zeros()).max(1) as usize;
    bits.div_ceil(7)
}

/// The bytes are no protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a protobuf message")]
pub(crate) struct Malformed;

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    /// A varint.
    Number(u64),
    /// Bytes, a text, or a message.
    Bytes(&'a [u8]),
    /// A number of fixed size, which nobody here looks at.
    Fixed,
}

/// A field of a message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Field<'a> {
    /// Its number.
    pub(crate) number: u32,
    /// Its value.
    pub(crate) value: Value<'a>,
    /// Number, type and value, as they stand in the message.
    pub(crate) whole: &'a [u8],
}

/// The fields of a message, in their order; ends after the first that is malformed.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = read_field(self.0).ok_or(Malformed);
        self.0 = field.map_or(&[], |field| &self.0[field.whole.len()..]);
        Some(field)
    }
}

fn read_field(message: &[u8]) -> Option<Field<'_>> {
    let mut rest = message;
    let tag = u32::try_from(read_varint(&mut rest)?).ok()?;
    let value = match tag & 7 {
        VARINT => Value::Number(read_varint(&mut rest)?),
        FIXED64 => take(&mut rest, 8).map(|_| Value::Fixed)?,
        FIXED32 => take(&mut rest, 4).map(|_| Value::Fixed)?,
        LENGTH => {
            let length = usize::try_from(read_varint(&mut rest)?).ok()?;
            Value::Bytes(take(&mut rest, length)?)
        }
        _ => return None,
    };
    Some(Field { number: tag >> 3, value, whole: &message[..message.len() - rest.len()] })
}

/// Whether bytes are varints and nothing else: numbers of a packed list.
pub(crate) fn are_varints(mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        if read_varint(&mut bytes).is_none() {
            return false;
        }
    }
    true
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}

fn read_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        // the tenth has room for one bit: what has more is read at random, or not at all
        if shift == 63 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
    use proptest::prelude::*;
    use prost::Message;

    #[test]
    fn a_number_is_of_64_bits_and_what_has_more_is_malformed() {
        let ten = |last: u8| [&[0xff; 9][..], &[last]].concat();
        assert!(are_varints(&ten(1)) && read_varint(&mut &ten(1)[..]) == Some(u64::MAX));
        assert!(!are_varints(&ten(2)) && !are_varints(&ten(0x7f)) && !are_varints(&ten(0x81)));
        let field = [&[0x18][..], &ten(2)].concat();
        assert_eq!(Fields(&field).next(), Some(Err(Malformed)));
    }

    proptest! {
        #[test]
        fn a_nested_message_of_any_length_is_read_back(length in 0_usize..40_000) {
            let mut out = vec![7];
            message(&mut out, 3, |out| out.resize(out.len() + length, 1));
            let field = Fields(&out[1..]).next().unwrap().unwrap();
            prop_assert_eq!((field.number, field.whole.len()), (3, out.len() - 1));
            prop_assert_eq!(field.value, Value::Bytes(&vec![1; length]));
        }

        #[test]
        fn attributes_are_what_prost_reads(key in ".{0,200}", text in ".{0,300}", number: i64) {
            let mut out = Vec::new();
            text_attribute(&mut out, 1, &key, text.as_bytes());
            int_attribute(&mut out, 1, &key, number);
            let read: Vec<KeyValue> = Fields(&out)
                .map(|field| match field.unwrap().value {
                    Value::Bytes(bytes) => KeyValue::decode(bytes).unwrap(),
                    other => panic!("{other:?}"),
                })
                .collect();
            prop_assert_eq!(&read[0].key, &key);
            let value = |index: usize| read[index].value.clone().unwrap().value.unwrap();
            prop_assert_eq!(value(0), any_value::Value::StringValue(text));
            prop_assert_eq!(value(1), any_value::Value::IntValue(number));
        }

        #[test]
        fn no_bytes_make_the_reader_panic_or_loop(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            prop_assert!(Fields(&bytes).count() <= bytes.len());
        }
    }
}
