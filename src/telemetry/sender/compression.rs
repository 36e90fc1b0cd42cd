//! Compression of requests, once for both transports.

use std::io::{self, Write};

use bytes::Bytes;

use crate::telemetry::config::Compression;

/// gRPC's frame before a message: a flag, and the length.
pub(crate) const FRAME: usize = 5;

/// Low levels: the receiver and we save more by speed than the network by the last percent. Spans repeat themselves so
/// much that zstd's fastest levels still make a tenth of them; level 1 takes twice the instructions for a fifth less.
const ZSTD_LEVEL: i32 = -5;
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

    /// What to try when a receiver does not know this one.
    pub(crate) fn simpler(self) -> Option<Self> {
        match self {
            Self::Zstd => Some(Self::Gzip),
            Self::Gzip => Some(Self::None),
            Self::None => None,
        }
    }
}

/// The request compressed, behind gRPC's frame; HTTP leaves the frame out.
///
/// # Errors
/// When the compressor fails, which it does only without memory.
pub(crate) fn framed(raw: &[u8], compression: Compression) -> io::Result<Bytes> {
    let mut out = Vec::with_capacity(FRAME + raw.len() / 4);
    out.resize(FRAME, 0);
    match compression {
        // in one piece: the streaming interface copies everything through buffers of its own
        Compression::Zstd => out.extend_from_slice(&zstd::bulk::compress(raw, ZSTD_LEVEL)?),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(&mut out, flate2::Compression::new(GZIP_LEVEL));
            encoder.write_all(raw)?;
            encoder.finish()?;
        }
        Compression::None => out.extend_from_slice(raw),
    }
    let length = u32::try_from(out.len() - FRAME).map_err(io::Error::other)?;
    out[0] = u8::from(compression != Compression::None);
    out[1..FRAME].copy_from_slice(&length.to_be_bytes());
    Ok(out.into())
}
