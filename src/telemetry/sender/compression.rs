//! Compression of requests, once for both transports, and of the answers that gRPC servers compress unasked.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Cursor, Read, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use zstd::bulk::Compressor;

use crate::model::telemetry::Signal;
use crate::telemetry::config::Compression;

/// gRPC's frame before a message: a flag, and the length.
pub(crate) const FRAME: usize = 5;

/// Low levels: the receiver and we save more by speed than the network by the last percent. Spans repeat themselves so
/// much that zstd's fastest levels still make an eighth of them; level 1 takes twice the instructions for a quarter less.
const ZSTD_LEVEL: i32 = -7;
const GZIP_LEVEL: u32 = 3;

impl Compression {
    /// The value of `grpc-encoding` and `content-encoding`.
    pub(crate) fn coding(self) -> Option<&'static str> {
        match self {
            Self::Zstd => Some("zstd"),
            Self::Gzip => Some("gzip"),
            Self::None => None,
        }
    }

    /// Whether requests that are compressed so, one after the other, are read as one by everybody. Of gzip's members and of
    /// zstd's frames many readers take the first and leave the rest, without a word.
    pub(crate) fn joins(self) -> bool {
        self == Self::None
    }

    /// Whether they are by the collector, which is sent what has waited on disk: a quiet outage leaves a row a second, and as
    /// many requests would take longer than the outage's end is waited for (frames: RFC 8878, section 3).
    pub(crate) fn joins_from_disk(self) -> bool {
        self != Self::Gzip
    }

    /// What to try when a receiver does not know this one.
    pub(crate) fn simpler(self) -> Option<Self> {
        match self {
            Self::Zstd => Some(Self::Gzip),
            Self::Gzip => Some(Self::None),
            Self::None => None,
        }
    }
}

/// Why a request is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// It was not yet.
    First,
    /// The receiver found it too large: its halves.
    Halved,
    /// The receiver does not know the coding in which it is.
    OtherCoding,
}

impl Occasion {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [Self; 3] = [Self::First, Self::Halved, Self::OtherCoding];

    /// The value of the label `reason`.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Halved => "halved",
            Self::OtherCoding => "other_coding",
        }
    }
}

/// Compresses requests, one after the other, and counts them. What that takes is kept from one to the next as long as one follows
/// the other: some 600 KiB of addresses for large ones, of which a request of spans touches a third, and less for small ones.
#[derive(Default)]
pub(crate) struct Press {
    kept: Mutex<Option<Compressor<'static>>>,
    counts: [[AtomicU64; Occasion::ALL.len()]; Signal::ALL.len()],
}

impl fmt::Debug for Press {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keeps = self.kept.try_lock().is_ok_and(|kept| kept.is_some());
        formatter.debug_struct("Press").field("keeps", &keeps).field("counts", &self.counts).finish()
    }
}

impl Press {
    /// Appends a request that is compressed in this way.
    ///
    /// # Errors
    /// The compressor has no memory.
    pub(crate) fn append(&self, raw: &[u8], coding: Compression, out: &mut Vec<u8>) -> io::Result<()> {
        match coding {
            Compression::Zstd => self.zstd(raw, out),
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::new(GZIP_LEVEL));
                encoder.write_all(raw)?;
                encoder.finish().map(drop)
            }
            Compression::None => {
                out.extend_from_slice(raw);
                Ok(())
            }
        }
    }

    /// A batch was made in this coding; what is not compressed does not count.
    pub(crate) fn count(&self, signal: Signal, coding: Compression, occasion: Occasion) {
        if coding != Compression::None {
            self.counts[signal as usize][occasion as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many batches were compressed, since the start.
    pub(crate) fn compressions(&self, signal: Signal, occasion: Occasion) -> u64 {
        self.counts[signal as usize][occasion as usize].load(Ordering::Relaxed)
    }

    /// Keeps nothing until the next request.
    pub(crate) fn rest(&self) {
        *self.kept.lock().expect("no code panics while it compresses") = None;
    }

    fn zstd(&self, raw: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let mut kept = self.kept.lock().expect("no code panics while it compresses");
        let compressor = match &mut *kept {
            Some(compressor) => compressor,
            None => kept.insert(Compressor::new(ZSTD_LEVEL)?),
        };
        // the kernel gives only pages that are written to
        out.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        let at = out.len() as u64;
        let mut behind = Cursor::new(std::mem::take(out));
        behind.set_position(at);
        compressor.compress_to_buffer(raw, &mut behind)?;
        *out = behind.into_inner();
        Ok(())
    }
}

/// Undoes a coding, for one or several requests after each other that are as long together.
///
/// # Errors
/// When they are not.
pub(crate) fn expanded(compressed: &[u8], coding: Compression, raw_len: usize) -> io::Result<Vec<u8>> {
    let raw = match coding {
        Compression::Zstd => zstd::bulk::decompress(compressed, raw_len)?,
        Compression::Gzip => {
            let mut out = Vec::with_capacity(raw_len);
            let ceiling = u64::try_from(raw_len).unwrap_or(u64::MAX).saturating_add(1);
            flate2::read::GzDecoder::new(compressed).take(ceiling).read_to_end(&mut out)?;
            out
        }
        Compression::None => compressed.to_vec(),
    };
    if raw.len() != raw_len {
        return Err(io::Error::other(format!("found {} bytes, expected {raw_len}", raw.len())));
    }
    Ok(raw)
}

/// Room for gRPC's frame.
pub(crate) fn empty_frame() -> Vec<u8> {
    vec![0; FRAME]
}

/// Writes the frame before what is behind it.
pub(crate) fn fill_frame(framed: &mut [u8], compression: Compression) {
    let length = u32::try_from(framed.len() - FRAME).unwrap_or(u32::MAX);
    framed[0] = u8::from(compression != Compression::None);
    framed[1..FRAME].copy_from_slice(&length.to_be_bytes());
}

/// The message of a gRPC answer, without its frame; `None` when there is no whole one of at most `limit` bytes.
///
/// `coding` is the answer's `grpc-encoding`. Go's servers compress an answer like its request, even when the client
/// has not said that it accepts that.
pub(crate) fn unframed<'b>(answer: &'b [u8], coding: Option<&[u8]>, limit: usize) -> Option<Cow<'b, [u8]>> {
    let ([flag, length @ ..], message) = answer.split_first_chunk::<FRAME>()?;
    if u32::from_be_bytes(*length) as usize != message.len() {
        return None;
    }
    match (flag, coding) {
        (0, _) => Some(Cow::Borrowed(message)),
        (1, Some(b"zstd")) => zstd::bulk::decompress(message, limit).ok().map(Cow::Owned),
        (1, Some(b"gzip")) => {
            let mut out = Vec::new();
            let ceiling = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
            flate2::read::GzDecoder::new(message).take(ceiling).read_to_end(&mut out).ok()?;
            (out.len() <= limit).then_some(Cow::Owned(out))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODINGS: [Compression; 3] = [Compression::Zstd, Compression::Gzip, Compression::None];

    fn framed(press: &Press, message: &[u8], coding: Compression) -> Vec<u8> {
        let mut framed = empty_frame();
        press.append(message, coding, &mut framed).unwrap();
        fill_frame(&mut framed, coding);
        framed
    }

    #[test]
    fn an_answer_may_be_compressed_like_its_request() {
        for compression in CODINGS {
            for message in [&b""[..], b"partial success"] {
                let answer = framed(&Press::default(), message, compression);
                let coding = compression.coding().map(str::as_bytes);
                assert_eq!(unframed(&answer, coding, 64).as_deref(), Some(message), "{compression:?}");
            }
        }
    }

    #[test]
    fn one_press_takes_requests_of_any_size_one_after_the_other() {
        let press = Press::default();
        let noise = |length: usize| -> Vec<u8> { (0..length).map(|_| fastrand::u8(..)).collect() };
        for length in [10, 40_000, 300_000, 40_000, 0, 1_000_000, 10] {
            let message = noise(length);
            let framed = framed(&press, &message, Compression::Zstd);
            assert_eq!(unframed(&framed, Some(b"zstd"), 1 << 20).as_deref(), Some(&message[..]), "{length}");
        }
    }

    #[test]
    fn an_answer_that_grows_beyond_the_limit_is_none() {
        for compression in [Compression::Zstd, Compression::Gzip] {
            let answer = framed(&Press::default(), &[0; 100_000], compression);
            assert_eq!(unframed(&answer, compression.coding().map(str::as_bytes), 99_999), None);
        }
    }

    #[test]
    fn what_is_no_whole_message_is_none() {
        let whole = framed(&Press::default(), b"message", Compression::Zstd);
        assert_eq!(unframed(&whole[..whole.len() - 1], Some(b"zstd"), 64), None);
        assert_eq!(unframed(&whole, None, 64), None);
        assert_eq!(unframed(&whole, Some(b"gzip"), 64), None);
        assert_eq!(unframed(b"", None, 64), None);
    }
}
