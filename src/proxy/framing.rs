//! Bodies: read by their validated framing and written anew, piece by piece, nothing collected.

use crate::proxy::buffers::{Inbox, Outbox};
use crate::proxy::chunked::{BadChunk, ChunkDecoder};
use crate::proxy::grpc::{Messages, is_metadata};
use crate::proxy::head::fields::is_allowed_trailer;

/// How a message's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    Empty,
    /// So many bytes, never 0.
    Length(u64),
    /// By chunks.
    Chunked,
    /// By the end of the connection; answers only.
    UntilClose,
}

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    /// As it is.
    Plain,
    /// In chunks.
    Chunked,
}

/// One body on its way from one socket to another.
#[derive(Debug)]
pub(crate) struct Transfer {
    source: Source,
    coding: Coding,
    /// Whether the trailers of gRPC pass, which are the application's own.
    with_metadata: bool,
    /// What is known of its messages, where they are of interest.
    messages: Option<Box<Messages>>,
    /// Bytes of the body so far, without framing.
    pub(crate) bytes: u64,
}

#[derive(Debug)]
enum Source {
    Length(u64),
    Chunked(Box<ChunkDecoder>),
    UntilClose,
    Done,
}

/// A copy of the first bytes of a body, for routes that are tapped.
#[derive(Debug)]
pub(crate) struct Tap {
    pub(crate) copy: Vec<u8>,
    pub(crate) limit: usize,
}

/// Trailer fields of one body.
pub(crate) const MAX_TRAILERS: usize = 64;

/// Room that the framing of one chunk may take.
const CHUNK_ROOM: usize = 32;

impl Transfer {
    /// A body that has not begun.
    pub(crate) fn new(framing: Framing, coding: Coding) -> Self {
        let source = match framing {
            Framing::Empty => Source::Done,
            Framing::Length(length) => Source::Length(length),
            Framing::Chunked => Source::Chunked(Box::default()),
            Framing::UntilClose => Source::UntilClose,
        };
        Self { source, coding, with_metadata: false, messages: None, bytes: 0 }
    }

    /// It is an answer of gRPC, to a client that speaks it: what stands behind it is metadata, read as such, and its
    /// messages are counted.
    pub(crate) fn let_metadata_pass(&mut self) {
        self.with_metadata = true;
        self.count_messages();
    }

    /// It is of gRPC: its messages are counted.
    pub(crate) fn count_messages(&mut self) {
        self.messages = Some(Box::default());
    }

    /// Whether several messages have begun in it, so that it is a stream of them.
    pub(crate) fn is_stream(&self) -> bool {
        self.messages.as_ref().is_some_and(|messages| messages.are_several())
    }

    /// Whether all of it was read, and its end written.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.source, Source::Done)
    }

    /// Moves what is in the inbox, as far as the outbox has room.
    pub(crate) fn step(
        &mut self,
        input: &mut Inbox,
        out: &mut Outbox,
        mut tap: Option<&mut Tap>,
    ) -> Result<(), BadChunk> {
        while !self.is_done() && !input.is_empty() && out.room() > CHUNK_ROOM {
            let limit = out.room() - CHUNK_ROOM;
            let (used, data) = self.read(input.filled(), limit)?;
            let piece = &input.filled()[used - data..used];
            if let Some(tap) = tap.as_deref_mut() {
                let rest = tap.limit.saturating_sub(tap.copy.len());
                tap.copy.extend_from_slice(&piece[..piece.len().min(rest)]);
            }
            self.write(piece, out);
            input.consume(used);
            self.end_if_complete(out)?;
        }
        Ok(())
    }

    /// The sender closed its side: true if that ends the body as it should.
    pub(crate) fn close(&mut self, out: &mut Outbox) -> bool {
        if matches!(self.source, Source::UntilClose) {
            self.source = Source::Done;
            if self.coding == Coding::Chunked {
                out.bytes().extend_from_slice(b"0\r\n\r\n");
            }
        }
        self.is_done()
    }

    /// Gives the bytes used, and how many of the last of them are data.
    fn read(&mut self, input: &[u8], limit: usize) -> Result<(usize, usize), BadChunk> {
        match &mut self.source {
            Source::Length(rest) => {
                let data = usize::try_from(*rest).unwrap_or(usize::MAX).min(input.len()).min(limit);
                *rest -= data as u64;
                Ok((data, data))
            }
            Source::Chunked(decoder) => decoder.step(input, limit).map(|step| (step.used, step.data)),
            Source::UntilClose => Ok((input.len().min(limit), input.len().min(limit))),
            Source::Done => Ok((0, 0)),
        }
    }

    fn write(&mut self, piece: &[u8], out: &mut Outbox) {
        if piece.is_empty() {
            return; // a chunk of size 0 would end the body
        }
        self.bytes += piece.len() as u64;
        if let Some(messages) = &mut self.messages {
            messages.pass(piece);
        }
        match self.coding {
            Coding::Plain => out.bytes().extend_from_slice(piece),
            Coding::Chunked => {
                write_hex(piece.len(), out.bytes());
                out.bytes().extend_from_slice(b"\r\n");
                out.bytes().extend_from_slice(piece);
                out.bytes().extend_from_slice(b"\r\n");
            }
        }
    }

    fn end_if_complete(&mut self, out: &mut Outbox) -> Result<(), BadChunk> {
        match &self.source {
            Source::Length(0) => {}
            Source::Chunked(decoder) if decoder.is_done() => {
                let may_pass = if self.with_metadata { is_metadata } else { is_allowed_trailer };
                let trailers = TrailerSection::parse(decoder.trailers(), may_pass)?;
                if self.coding == Coding::Chunked {
                    out.bytes().extend_from_slice(b"0\r\n");
                    out.bytes().extend_from_slice(&trailers.0);
                    out.bytes().extend_from_slice(b"\r\n");
                }
            }
            _ => return Ok(()),
        }
        self.source = Source::Done;
        Ok(())
    }
}

/// The trailer fields that may pass, as they are written.
struct TrailerSection(Vec<u8>);

impl TrailerSection {
    fn parse(section: &[u8], may_pass: fn(&[u8]) -> bool) -> Result<Self, BadChunk> {
        let mut written = Vec::new();
        if section.len() > 2 {
            let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILERS];
            let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(section, &mut fields) else {
                return Err(BadChunk);
            };
            for field in fields.iter().filter(|field| may_pass(field.name.as_bytes())) {
                for part in [field.name.as_bytes(), b": ", field.value, b"\r\n"] {
                    written.extend_from_slice(part);
                }
            }
        }
        Ok(Self(written))
    }
}

fn write_hex(mut number: usize, out: &mut Vec<u8>) {
    let mut digits = [0; 16];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[number & 15];
        number >>= 4;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::buffers::Buffers;
    use proptest::prelude::*;

    /// Sends the input through, in pieces, with the outbox emptied after each: what is written, and what is left.
    fn send(framing: Framing, coding: Coding, input: &[u8], piece: usize) -> Result<(Vec<u8>, usize, bool), BadChunk> {
        let (mut transfer, buffers) = (Transfer::new(framing, coding), Buffers::new(1 << 20));
        let (mut inbox, mut outbox, mut written) = (Inbox::default(), Outbox::default(), Vec::new());
        buffers.lend_inbox(&mut inbox);
        let mut at = 0;
        while !transfer.is_done() && at < input.len() {
            let end = (at + piece).min(input.len());
            inbox.put(&input[at..end]);
            at = end;
            while !inbox.is_empty() && !transfer.is_done() {
                buffers.lend_outbox(&mut outbox);
                transfer.step(&mut inbox, &mut outbox, None)?;
                written.append(outbox.bytes());
            }
        }
        Ok((written, input.len() - at + inbox.filled().len(), transfer.is_done()))
    }

    #[test]
    fn bodies_end_where_their_framing_says() {
        for (framing, coding, input, output, left, done) in [
            (Framing::Length(3), Coding::Plain, "abcGET", "abc", 3, true),
            (Framing::Length(9), Coding::Plain, "abc", "abc", 0, false),
            (Framing::Chunked, Coding::Chunked, "3;x\r\nabc\r\n0\r\n\r\nGET", "3\r\nabc\r\n0\r\n\r\n", 3, true),
            (Framing::Chunked, Coding::Plain, "3\r\nabc\r\n0\r\nETag: x\r\n\r\n", "abc", 0, true),
            (
                Framing::Chunked,
                Coding::Chunked,
                "0\r\nETag:x\r\nHost: b\r\nContent-Length: 4\r\n\r\n",
                "0\r\nETag: x\r\n\r\n",
                0,
                true,
            ),
            (Framing::UntilClose, Coding::Chunked, "abc", "3\r\nabc\r\n", 0, false),
            (Framing::Empty, Coding::Plain, "GET", "", 3, true),
        ] {
            let sent = send(framing, coding, input.as_bytes(), 1 << 10).unwrap();
            assert_eq!(sent, (output.as_bytes().to_vec(), left, done), "{input:?}");
        }
        assert_eq!(send(Framing::Chunked, Coding::Chunked, b"0\r\nbad name: x\r\n\r\n", 99), Err(BadChunk));
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(body in prop::collection::vec(any::<u8>(), 1..40_000), piece in 1_usize..9_000) {
            let framing = Framing::Length(body.len() as u64);
            let (written, left, done) = send(framing, Coding::Chunked, &body, piece).unwrap();
            prop_assert!(left == 0 && done);
            let mut chunked = written;
            chunked.extend_from_slice(b"0\r\n\r\n");
            let (back, left, done) = send(Framing::Chunked, Coding::Plain, &chunked, piece).unwrap();
            prop_assert!(left == 0 && done && back == body);
        }
    }
}
