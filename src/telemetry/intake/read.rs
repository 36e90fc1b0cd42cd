//! The bytes of a request, as they come in: bounded in length, before and after decompression, and in memory, all requests together.

use std::io::Read;
use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::telemetry::intake::answer::Refusal;

/// A unit of memory.
const UNIT: usize = 1 << 10;
/// Decompressed at once.
const BLOCK: usize = 64 << 10;
/// The farthest that zstd may look back, as a power of two: what RFC 9659 allows in HTTP, 8 MiB.
const ZSTD_WINDOW_LOG: u32 = 23;
/// gRPC's frame before a message: a flag, and the length.
pub(super) const FRAME: usize = 5;

/// Memory for all requests that are under way.
#[derive(Clone, Debug)]
pub(super) struct Budget(Arc<Semaphore>);

/// What one request has of it; given back when dropped.
#[derive(Debug)]
pub(super) struct Allowance {
    budget: Budget,
    bytes: usize,
    permits: Option<OwnedSemaphorePermit>,
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Zstd,
    None,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes / UNIT)))
    }

    pub(super) fn allowance(&self) -> Allowance {
        Allowance { budget: self.clone(), bytes: 0, permits: None }
    }
}

impl Allowance {
    /// Takes so many bytes more.
    ///
    /// # Errors
    /// When there are none left.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        let held = self.permits.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let wanted = (self.bytes + bytes).div_ceil(UNIT).saturating_sub(held);
        let wanted = u32::try_from(wanted).map_err(|_| Refusal::Busy)?;
        if wanted > 0 {
            let more = self.budget.0.clone().try_acquire_many_owned(wanted).map_err(|_| Refusal::Busy)?;
            match &mut self.permits {
                Some(permits) => permits.merge(more),
                None => self.permits = Some(more),
            }
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Gives so many back.
    pub(super) fn shrink(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        let Some(permits) = &mut self.permits else { return };
        let spare = permits.num_permits().saturating_sub(self.bytes.div_ceil(UNIT));
        drop(permits.split(spare));
    }
}

impl Coding {
    /// Reads the value of `content-encoding` or `grpc-encoding`.
    pub(super) fn of(name: Option<&[u8]>) -> Result<Self, Refusal> {
        match name.map(<[u8]>::to_ascii_lowercase).as_deref() {
            None | Some(b"" | b"identity") => Ok(Self::None),
            Some(b"gzip") => Ok(Self::Gzip),
            Some(b"zstd") => Ok(Self::Zstd),
            Some(_) => Err(Refusal::Coding),
        }
    }
}

/// Reads a body of at most `limit` bytes. Of a longer one as much again is thrown away, twice: a sender that is cut off while
/// it writes reads no answer, and comes again with the same.
pub(super) async fn body(mut body: Incoming, limit: usize, allowance: &mut Allowance) -> Result<Vec<u8>, Refusal> {
    let is_told = body.size_hint().lower() > limit as u64;
    let mut read = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Refusal::Malformed)?.into_data() else { continue };
        length += data.len();
        if length > 3 * limit {
            break;
        }
        if is_told || length > limit {
            allowance.shrink(read.len());
            read = Vec::new();
            continue;
        }
        allowance.grow(data.len())?;
        read.extend_from_slice(&data);
    }
    if is_told || length > limit { Err(Refusal::TooLarge(limit)) } else { Ok(read) }
}

/// The only message of a gRPC request, and how it is compressed.
pub(super) fn unframed(mut body: Vec<u8>, coding: Coding) -> Result<(Vec<u8>, Coding), Refusal> {
    let Some(([flag, length @ ..], message)) = body.split_first_chunk::<FRAME>() else {
        return Err(Refusal::Malformed);
    };
    if u32::from_be_bytes(*length) as usize != message.len() {
        return Err(Refusal::Malformed);
    }
    let coding = match (*flag, coding) {
        (0, _) => Coding::None,
        (1, Coding::Gzip | Coding::Zstd) => coding,
        _ => return Err(Refusal::Malformed),
    };
    body.drain(..FRAME);
    Ok((body, coding))
}

/// Decompresses a body to at most `limit` bytes.
pub(super) fn expanded(
    body: Vec<u8>,
    coding: Coding,
    limit: usize,
    allowance: &mut Allowance,
) -> Result<Vec<u8>, Refusal> {
    let whole = match coding {
        Coding::None => return Ok(body),
        Coding::Gzip => expand(flate2::read::MultiGzDecoder::new(&*body), limit, allowance),
        Coding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(&*body).map_err(|_| Refusal::Malformed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(|_| Refusal::Malformed)?;
            expand(decoder, limit, allowance)
        }
    }?;
    allowance.shrink(body.len());
    Ok(whole)
}

fn expand(mut from: impl Read, limit: usize, allowance: &mut Allowance) -> Result<Vec<u8>, Refusal> {
    let mut whole = Vec::new();
    loop {
        let read = (&mut from).take(BLOCK as u64).read_to_end(&mut whole).map_err(|_| Refusal::Malformed)?;
        if whole.len() > limit {
            return Err(Refusal::TooLarge(limit));
        }
        allowance.grow(read)?;
        if read == 0 {
            return Ok(whole);
        }
    }
}
