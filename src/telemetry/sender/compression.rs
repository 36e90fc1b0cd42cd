//! Compression of requests, once for both transports, and of the answers that gRPC servers compress unasked.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Cursor, Read, Write};
use std::sync::Mutex;

use bytes::Bytes;
use zstd::bulk::Compressor;

use crate::telemetry::config::Compression;

/// gRPC's frame before a message: a flag, and the length.
pub(crate) const FRAME: usize = 5;

/// Low levels: the receiver and we save more by speed than the network by the last percent. Spans repeat themselves so
/// much that zstd's fastest levels still make an eighth of them; level 1 takes twice the instructions for a quarter less.
const ZSTD_LEVEL: i32 = -7;
const GZIP_LEVEL: u32 = 3;

/// From this size on a request is compressed with what the last one left.
const KEPT_FROM: usize = 32 << 10;

impl Compression {
    /// The value of `grpc-encoding` and `content-encoding`.
    pub(crate) fn coding(self) -> Option<&'static str> {
        match self {
            Self::Zstd => Some("zstd"),
            Self::Gzip => Some("gzip"),
            Self::None => None,
        }
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

/// A request as it waits for an attempt.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    /// As encoded: compressed for each attempt.
    Raw(Bytes),
    /// Compressed long ago: sent as it is, to whoever knows zstd.
    Stored {
        /// Behind gRPC's frame.
        framed: Bytes,
        /// Before compression.
        raw_len: usize,
    },
}

impl Form {
    /// Of stored bodies behind an `empty_frame`: one after the other they are one request, before and after compression.
    pub(crate) fn stored(mut framed: Vec<u8>, raw_len: usize) -> Self {
        fill_frame(&mut framed, Compression::Zstd);
        Self::Stored { framed: framed.into(), raw_len }
    }

    /// Bytes before compression.
    pub(crate) fn raw_len(&self) -> usize {
        match self {
            Self::Raw(body) => body.len(),
            Self::Stored { raw_len, .. } => *raw_len,
        }
    }
}

/// Compresses requests, one after the other; what that takes is kept from one to the next, some 600 KiB of addresses, of
/// which a request of spans touches a third.
#[derive(Default)]
pub(crate) struct Press(Mutex<Option<Compressor<'static>>>);

impl fmt::Debug for Press {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Press").finish_non_exhaustive()
    }
}

impl Press {
    /// A request compressed in this way, behind gRPC's frame; HTTP leaves the frame out.
    ///
    /// # Errors
    /// What is stored cannot be read, or the compressor has no memory.
    pub(crate) fn framed(&self, form: &Form, compression: Compression) -> io::Result<Bytes> {
        match (form, compression) {
            (Form::Stored { framed, .. }, Compression::Zstd) => Ok(framed.clone()),
            (Form::Stored { framed, raw_len }, _) => self.pressed(&unzstd(&framed[FRAME..], *raw_len)?, compression),
            (Form::Raw(body), _) => self.pressed(body, compression),
        }
    }

    fn pressed(&self, raw: &[u8], compression: Compression) -> io::Result<Bytes> {
        let mut out = empty_frame();
        match compression {
            Compression::Zstd => self.zstd(raw, &mut out)?,
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(&mut out, flate2::Compression::new(GZIP_LEVEL));
                encoder.write_all(raw)?;
                encoder.finish()?;
            }
            Compression::None => out.extend_from_slice(raw),
        }
        fill_frame(&mut out, compression);
        Ok(out.into())
    }

    fn zstd(&self, raw: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        // what is small needs little, and would keep much
        let mut kept = (raw.len() >= KEPT_FROM).then(|| self.0.lock().expect("no code panics while it compresses"));
        let mut own = None;
        let slot = kept.as_deref_mut().unwrap_or(&mut own);
        let compressor = match slot {
            Some(compressor) => compressor,
            None => slot.insert(Compressor::new(ZSTD_LEVEL)?),
        };
        // the kernel gives only pages that are written to
        out.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        let mut behind = Cursor::new(std::mem::take(out));
        behind.set_position(FRAME as u64);
        compressor.compress_to_buffer(raw, &mut behind)?;
        *out = behind.into_inner();
        Ok(())
    }
}

/// Compresses for the disk, and for whoever knows zstd.
///
/// # Errors
/// When the compressor fails, which it does only without memory.
pub(crate) fn zstd(raw: &[u8]) -> io::Result<Vec<u8>> {
    // in one piece: the streaming interface copies everything through buffers of its own
    zstd::bulk::compress(raw, ZSTD_LEVEL)
}

/// Undoes that, for one or several after each other that are as long together.
///
/// # Errors
/// When they are not.
pub(crate) fn unzstd(compressed: &[u8], raw_len: usize) -> io::Result<Vec<u8>> {
    zstd::bulk::decompress(compressed, raw_len)
}

/// Room for gRPC's frame.
pub(crate) fn empty_frame() -> Vec<u8> {
    vec![0; FRAME]
}

fn fill_frame(framed: &mut [u8], compression: Compression) {
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

    #[test]
    fn an_answer_may_be_compressed_like_its_request() {
        for compression in CODINGS {
            for message in [&b""[..], b"partial success"] {
                let answer = Press::default().pressed(message, compression).unwrap();
                let coding = compression.coding().map(str::as_bytes);
                assert_eq!(unframed(&answer, coding, 64).as_deref(), Some(message), "{compression:?}");
            }
        }
    }

    #[test]
    fn one_press_takes_requests_of_any_size_one_after_the_other() {
        let press = Press::default();
        let noise = |length: usize| -> Vec<u8> { (0..length).map(|_| fastrand::u8(..)).collect() };
        for length in [10, KEPT_FROM - 1, KEPT_FROM, 300_000, KEPT_FROM, 0, 1_000_000] {
            let message = noise(length);
            let framed = press.framed(&Form::Raw(message.clone().into()), Compression::Zstd).unwrap();
            assert_eq!(unframed(&framed, Some(b"zstd"), 1 << 20).as_deref(), Some(&message[..]), "{length}");
        }
    }

    #[test]
    fn an_answer_that_grows_beyond_the_limit_is_none() {
        for compression in [Compression::Zstd, Compression::Gzip] {
            let answer = Press::default().pressed(&[0; 100_000], compression).unwrap();
            assert_eq!(unframed(&answer, compression.coding().map(str::as_bytes), 99_999), None);
        }
    }

    #[test]
    fn what_was_stored_is_one_request_in_every_compression() {
        let parts: [&[u8]; 3] = [b"first", b"", &[7; 100_000]];
        let mut stored = empty_frame();
        parts.iter().for_each(|part| stored.extend(zstd(part).unwrap()));
        let form = Form::stored(stored, parts.concat().len());
        for compression in CODINGS {
            let framed = Press::default().framed(&form, compression).unwrap();
            let coding = compression.coding().map(str::as_bytes);
            let whole = unframed(&framed, coding, 200_000).map(Cow::into_owned);
            assert_eq!(whole, Some(parts.concat()), "{compression:?}");
        }
        let broken = Form::stored(vec![0; 40], 100);
        assert!(Press::default().framed(&broken, Compression::None).is_err());
    }

    #[test]
    fn what_is_no_whole_message_is_none() {
        let whole = Press::default().pressed(b"message", Compression::Zstd).unwrap();
        assert_eq!(unframed(&whole[..whole.len() - 1], Some(b"zstd"), 64), None);
        assert_eq!(unframed(&whole, None, 64), None);
        assert_eq!(unframed(&whole, Some(b"gzip"), 64), None);
        assert_eq!(unframed(b"", None, 64), None);
    }
}
