//! A batch as it is sent: compressed once, when it is cut for sending or for the disk, and kept as it was for every further
//! attempt.
//!
//! What tells of errors is by itself, so that the disk can store it as it is and let it go last. Compressed it is a batch by
//! itself: whoever seals one has taken apart before what tells of errors. Without compression it is a part: one after the other
//! the parts are one request.

use std::io;

use bytes::Bytes;

use crate::model::telemetry::Signal;
use crate::telemetry::config::Compression;
use crate::telemetry::otlp::{self, Request};
use crate::telemetry::sender::compression::{self, FRAME, Occasion, Press};

/// What goes first when room is short: the lower number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i64)]
pub(crate) enum Worth {
    /// Of what works.
    Ordinary,
    /// It tells of errors.
    Errors,
}

/// A request in the form in which it is sent. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Form {
    /// Behind gRPC's frame; HTTP leaves the frame out.
    framed: Bytes,
    coding: Compression,
    raw_len: usize,
}

impl Form {
    /// Of bodies in one coding behind an `empty_frame`.
    pub(crate) fn of(mut framed: Vec<u8>, coding: Compression, raw_len: usize) -> Self {
        compression::fill_frame(&mut framed, coding);
        framed.shrink_to_fit(); // it is held, and counted, for as long as the receiver is away
        Self { framed: framed.into(), coding, raw_len }
    }

    /// A request as it is encoded.
    pub(crate) fn plain(raw: &[u8]) -> Self {
        Self::of([&compression::empty_frame()[..], raw].concat(), Compression::None, raw.len())
    }

    /// What is sent over gRPC, and behind its frame over HTTP.
    pub(crate) fn framed(&self) -> &Bytes {
        &self.framed
    }

    /// How it is compressed.
    pub(crate) fn coding(&self) -> Compression {
        self.coding
    }

    /// Bytes before compression.
    pub(crate) fn raw_len(&self) -> usize {
        self.raw_len
    }

    /// Bytes as sent, without the frame.
    pub(crate) fn len(&self) -> usize {
        self.framed.len() - FRAME
    }

    /// The same request in another coding; the same bytes when that is the one it has.
    ///
    /// # Errors
    /// What was stored cannot be read, or the compressor has no memory.
    pub(crate) fn in_coding(&self, signal: Signal, coding: Compression, press: &Press) -> io::Result<Self> {
        if coding == self.coding {
            return Ok(self.clone());
        }
        let raw = self.raw()?;
        let mut framed = compression::empty_frame();
        press.append(&raw, coding, &mut framed)?;
        press.count(signal, coding, again(self.coding));
        Ok(Self::of(framed, coding, raw.len()))
    }

    /// The request before compression.
    fn raw(&self) -> io::Result<Vec<u8>> {
        compression::expanded(&self.framed[FRAME..], self.coding, self.raw_len)
    }
}

/// Whether what is in this coding was compressed before.
fn again(coding: Compression) -> Occasion {
    if coding == Compression::None { Occasion::First } else { Occasion::OtherCoding }
}

/// A part of a batch: a whole request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) worth: Worth,
    pub(crate) items: u64,
    pub(crate) raw_len: usize,
    /// As compressed.
    len: usize,
}

/// A batch that is compressed.
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    form: Form,
    /// In order; one or two.
    parts: Vec<Part>,
    /// Of the request that it was made from, which a limit was kept to.
    cut_at: usize,
}

/// What is known of a request before it is read: to look for errors in it costs more than to compress it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Errors {
    /// Nothing in it tells of one.
    None,
    /// All of it does.
    All,
    /// It has to be read.
    Unknown,
}

impl Errors {
    /// Of two requests that become one.
    pub(crate) fn and(self, other: Self) -> Self {
        if self == other { self } else { Self::Unknown }
    }
}

impl Sealed {
    /// Compresses a request; in a coding that does not join as one part, which tells of errors when anything in it does.
    ///
    /// # Errors
    /// The compressor has no memory.
    pub(crate) fn new(
        signal: Signal,
        (raw, items, errors): (&[u8], u64, Errors),
        coding: Compression,
        (press, occasion): (&Press, Occasion),
    ) -> io::Result<Self> {
        let apart = if errors == Errors::Unknown { errors_apart(signal, raw) } else { None };
        let sealed = match apart {
            None if errors == Errors::All => Self::of(&[(Worth::Errors, items, raw)], raw.len(), coding, press)?,
            None => Self::of(&[(worth_of(signal), items, raw)], raw.len(), coding, press)?,
            Some(_) if !coding.joins() => Self::of(&[(Worth::Errors, items, raw)], raw.len(), coding, press)?,
            Some([errors, rest]) => {
                let parts = [(Worth::Errors, errors), (Worth::Ordinary, rest)];
                let parts = parts.iter().filter(|(_, part)| part.items > 0);
                let parts: Vec<_> = parts.map(|(worth, part)| (*worth, part.items, &part.body[..])).collect();
                Self::of(&parts, raw.len(), coding, press)?
            }
        };
        press.count(signal, coding, occasion);
        Ok(sealed)
    }

    fn of(requests: &[(Worth, u64, &[u8])], cut_at: usize, coding: Compression, press: &Press) -> io::Result<Self> {
        let mut framed = compression::empty_frame();
        let mut parts = Vec::with_capacity(requests.len());
        for (worth, items, raw) in requests {
            let before = framed.len();
            press.append(raw, coding, &mut framed)?;
            parts.push(Part { worth: *worth, items: *items, raw_len: raw.len(), len: framed.len() - before });
        }
        let raw_len = parts.iter().map(|part| part.raw_len).sum();
        Ok(Self { form: Form::of(framed, coding, raw_len), parts, cut_at })
    }

    /// The same in another coding.
    ///
    /// # Errors
    /// As of `Form::in_coding`.
    pub(crate) fn in_coding(&self, signal: Signal, coding: Compression, press: &Press) -> io::Result<Self> {
        let whole = self.opened()?;
        let mut rest = &whole[..];
        let mut requests = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let (raw, behind) = rest.split_at(part.raw_len);
            requests.push((part.worth, part.items, raw));
            rest = behind;
        }
        if !coding.joins() && requests.len() > 1 {
            requests = vec![(Worth::Errors, self.items(), &whole)];
        }
        let sealed = Self::of(&requests, self.cut_at, coding, press)?;
        press.count(signal, coding, again(self.form.coding));
        Ok(sealed)
    }

    /// As it is sent.
    pub(crate) fn form(&self) -> &Form {
        &self.form
    }

    /// Its parts, each with its bytes as they are sent.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (Part, Bytes)> {
        let mut at = FRAME;
        self.parts.iter().map(move |part| {
            let begin = at;
            at += part.len;
            (*part, self.form.framed.slice(begin..at))
        })
    }

    /// What tells of errors, as it was compressed; `None` when nothing does.
    pub(crate) fn errors(&self) -> Option<Self> {
        let (part, body) = self.parts().find(|(part, _)| part.worth == Worth::Errors)?;
        let framed = [&compression::empty_frame()[..], &body].concat();
        let form = Form::of(framed, self.form.coding, part.raw_len);
        Some(Self { form, parts: vec![part], cut_at: part.raw_len })
    }

    /// Items in it.
    pub(crate) fn items(&self) -> u64 {
        self.parts.iter().map(|part| part.items).sum()
    }

    /// Bytes in memory.
    pub(crate) fn held(&self) -> usize {
        self.form.framed.len()
    }

    /// Bytes of the request that it was made from.
    pub(crate) fn cut_at(&self) -> usize {
        self.cut_at
    }

    /// The request before compression.
    ///
    /// # Errors
    /// What is compressed cannot be read.
    pub(crate) fn opened(&self) -> io::Result<Vec<u8>> {
        self.form.raw()
    }
}

/// Envelopes are errors; metrics never tell of one by themselves.
fn worth_of(signal: Signal) -> Worth {
    if signal.joins() { Worth::Ordinary } else { Worth::Errors }
}

/// A request in two, when it tells of errors: those, and the rest.
pub(crate) fn errors_apart(signal: Signal, raw: &[u8]) -> Option<[Request; 2]> {
    // it was counted when it came in, so it can be read; what could not would go as it is
    otlp::has_errors(signal, raw).then(|| otlp::part_errors(signal, raw).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::wire;

    const CODINGS: [Compression; 3] = [Compression::Zstd, Compression::Gzip, Compression::None];

    /// Log records of these severities.
    fn logs(severities: &[u8]) -> Vec<u8> {
        let records: Vec<u8> = severities.iter().flat_map(|severity| [0x12, 2, 0x10, *severity]).collect();
        otlp::request(b"\x0a\x00", b"\x0a\x01s", &records)
    }

    fn sealed(severities: &[u8], coding: Compression, press: &Press) -> Sealed {
        let raw = logs(severities);
        Sealed::new(Signal::Logs, (&raw, severities.len() as u64, Errors::Unknown), coding, (press, Occasion::First))
            .unwrap()
    }

    #[test]
    fn what_tells_of_errors_is_a_part_by_itself_and_the_parts_are_the_whole() {
        for coding in CODINGS.into_iter().filter(|coding| coding.joins()) {
            let press = Press::default();
            let batch = sealed(&[9, 17, 9, 21], coding, &press);
            let parts: Vec<_> = batch.parts().collect();
            assert_eq!(
                parts.iter().map(|(part, _)| (part.worth, part.items)).collect::<Vec<_>>(),
                [(Worth::Errors, 2), (Worth::Ordinary, 2)]
            );
            let together: Vec<u8> = parts.iter().flat_map(|(_, body)| body.to_vec()).collect();
            assert_eq!(together, batch.form().framed()[FRAME..], "{coding:?}");
            assert_eq!(otlp::count(Signal::Logs, &batch.opened().unwrap()), Ok(4));
            let errors = batch.errors().unwrap();
            assert_eq!((errors.items(), otlp::count(Signal::Logs, &errors.opened().unwrap())), (2, Ok(2)));
            assert_eq!(errors.form().framed()[FRAME..], parts[0].1, "as it was compressed");
        }
    }

    #[test]
    fn what_is_compressed_is_one_member_or_frame_which_every_reader_reads_to_its_end() {
        let press = Press::default();
        let plain = sealed(&[9, 17], Compression::None, &press);
        for coding in [Compression::Zstd, Compression::Gzip] {
            let batch = sealed(&[9, 17], coding, &press);
            let from_plain = plain.in_coding(Signal::Logs, coding, &press);
            for batch in [batch, from_plain.unwrap()] {
                let parts: Vec<_> = batch.parts().map(|(part, _)| (part.worth, part.items)).collect();
                assert_eq!(parts, [(Worth::Errors, 2)]);
                let sent = &batch.form().framed()[FRAME..];
                let mut first = Vec::new();
                match coding {
                    Compression::Gzip => {
                        io::Read::read_to_end(&mut flate2::read::GzDecoder::new(sent), &mut first).unwrap();
                    }
                    _ => {
                        let reader = zstd::stream::read::Decoder::new(sent).unwrap().single_frame();
                        io::Read::read_to_end(&mut { reader }, &mut first).unwrap();
                    }
                }
                assert_eq!(otlp::count(Signal::Logs, &first), Ok(2), "{coding:?}");
            }
        }
    }

    #[test]
    fn what_has_no_errors_is_one_part_of_the_very_request() {
        let press = Press::default();
        let batch = sealed(&[9, 9], Compression::Zstd, &press);
        assert_eq!((batch.parts().count(), batch.opened().unwrap()), (1, logs(&[9, 9])));
        assert!(batch.errors().is_none());
        let only_errors = sealed(&[17], Compression::Zstd, &press);
        assert_eq!((only_errors.parts().count(), only_errors.errors().map(|errors| errors.items())), (1, Some(1)));
        let mut envelope = Vec::new();
        wire::bytes_field(&mut envelope, 1, b"no protobuf at all");
        let whole = (&envelope[..], 1, Errors::Unknown);
        let envelope = Sealed::new(Signal::Envelopes, whole, Compression::None, (&press, Occasion::First)).unwrap();
        assert_eq!(envelope.parts().next().map(|(part, _)| part.worth), Some(Worth::Errors));
    }

    #[test]
    fn a_batch_is_compressed_once_for_any_number_of_attempts_and_again_only_for_another_coding() {
        let press = Press::default();
        let batch = sealed(&[9, 17], Compression::Zstd, &press);
        let counts = || Occasion::ALL.map(|occasion| press.compressions(Signal::Logs, occasion));
        for _ in 0..100 {
            let again = batch.form().in_coding(Signal::Logs, Compression::Zstd, &press).unwrap();
            assert_eq!(again.framed().as_ptr(), batch.form().framed().as_ptr(), "the very same bytes");
        }
        assert_eq!(counts(), [1, 0, 0]);
        let gzip = batch.in_coding(Signal::Logs, Compression::Gzip, &press).unwrap();
        assert_eq!((gzip.opened().unwrap(), gzip.parts().count()), (batch.opened().unwrap(), 1));
        assert_eq!(counts(), [1, 0, 1]);
        // undone is not compressed
        batch.form().in_coding(Signal::Logs, Compression::None, &press).unwrap();
        assert_eq!(counts(), [1, 0, 1]);
        let plain = Form::plain(&batch.opened().unwrap());
        plain.in_coding(Signal::Logs, Compression::Zstd, &press).unwrap();
        assert_eq!(counts(), [2, 0, 1], "what was never compressed is for the first time");
    }

    #[test]
    fn what_is_held_is_as_long_as_it_says() {
        let press = Press::default();
        for records in [1, 100, 20_000] {
            let batch = sealed(&vec![9; records], Compression::Zstd, &press);
            let bytes = Vec::from(batch.form().framed().clone());
            assert_eq!((bytes.len(), batch.held()), (bytes.capacity(), bytes.len()), "{records} records");
        }
    }

    #[test]
    fn what_was_stored_is_one_request_in_every_coding() {
        let press = Press::default();
        let parts: [&[u8]; 3] = [b"first", b"", &[7; 100_000]];
        for coding in CODINGS.into_iter().filter(|coding| coding.joins_from_disk()) {
            let mut stored = compression::empty_frame();
            parts.iter().for_each(|part| press.append(part, coding, &mut stored).unwrap());
            let form = Form::of(stored, coding, parts.concat().len());
            for other in CODINGS {
                let other = form.in_coding(Signal::Logs, other, &press).unwrap();
                assert_eq!(other.raw().unwrap(), parts.concat(), "{coding:?}");
            }
        }
        let broken = Form::of(vec![0; 40], Compression::Zstd, 100);
        assert!(broken.in_coding(Signal::Logs, Compression::None, &press).is_err());
    }
}
