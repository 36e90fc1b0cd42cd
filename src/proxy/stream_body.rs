//! Bodies on their way into a stream of HTTP/2 and out of one. The engine writes a body as HTTP/1.1 delimits it, the stream
//! carries its data.
//!
//! Nothing is waited for to be collected: a write waits for the receiver's window, and what is read is what has come.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};

use crate::proxy::buffers::{Buffers, Loan};
use crate::proxy::chunked::ChunkDecoder;
use crate::proxy::framing::Framing;
use crate::proxy::http2::translate;

/// A piece of a body that the library holds until it is written to the socket.
#[derive(Debug)]
pub(crate) struct Piece {
    bytes: io::Cursor<Box<[u8]>>,
    _counted: Loan,
}

impl Piece {
    fn new(bytes: &[u8], buffers: &Buffers) -> Self {
        Self { bytes: io::Cursor::new(bytes.into()), _counted: buffers.count(bytes.len()) }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

/// From this size on a piece that has come is passed on as it is.
const ENOUGH_BYTES: usize = 4 << 10;

/// A piece that has come, with those that have come behind it where it is small.
///
/// A body byte by byte would else be a write for each byte, to a peer that has to read each (RFC 9113, section 10.5). What is
/// behind them, be it an end or a fault, comes again when the next piece is asked for.
pub(crate) fn gather(first: Bytes, body: &mut RecvStream, cx: &mut Context<'_>) -> Bytes {
    let mut more = Vec::new();
    while first.len() + more.len() < ENOUGH_BYTES
        && let Poll::Ready(Some(Ok(next))) = body.poll_data(cx)
    {
        more.extend_from_slice(&next);
    }
    if more.is_empty() {
        return first;
    }
    more.splice(..0, first);
    more.into()
}

/// A body that has not been written whole.
pub(crate) struct StreamBody {
    pub(crate) send: SendStream<Piece>,
    rest: Rest,
    buffers: Buffers,
}

/// How the rest of it is delimited in what is written.
pub(crate) enum Rest {
    /// So many bytes.
    Length(u64),
    /// By chunks.
    Chunked(Box<ChunkDecoder>),
}

impl Rest {
    /// Of a message that is framed so; `None` if its head is all of it.
    pub(crate) fn of(framing: Framing) -> Option<Self> {
        match framing {
            Framing::Length(length) => Some(Self::Length(length)),
            Framing::Chunked => Some(Self::Chunked(Box::default())),
            Framing::Empty | Framing::UntilClose => None,
        }
    }

    /// Bytes used, and how many of the last of them are data: at most `room`.
    fn step(&mut self, bytes: &[u8], room: usize) -> io::Result<(usize, usize)> {
        match self {
            Self::Length(rest) => {
                let count = usize::try_from(*rest).unwrap_or(usize::MAX).min(bytes.len()).min(room);
                *rest -= count as u64;
                Ok((count, count))
            }
            Self::Chunked(decoder) => {
                let step = decoder.step(bytes, room).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
                Ok((step.used, step.data))
            }
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Self::Length(rest) => *rest == 0,
            Self::Chunked(decoder) => decoder.is_done(),
        }
    }

    fn trailers(&self) -> Option<http::HeaderMap> {
        match self {
            Self::Chunked(decoder) if decoder.is_done() => translate::trailers(decoder.trailers()),
            _ => None,
        }
    }
}

impl StreamBody {
    /// The body behind a head that was sent.
    pub(crate) fn new(send: SendStream<Piece>, rest: Rest, buffers: Buffers) -> Self {
        Self { send, rest, buffers }
    }

    /// Whether its end was sent.
    pub(crate) fn is_over(&self) -> bool {
        self.rest.is_over()
    }

    /// Sends what the window takes of these bytes; gives how many were used.
    pub(crate) fn poll_write(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Self { send, rest, buffers } = self;
        send.reserve_capacity(bytes.len());
        let (used, data) = loop {
            let (used, data) = rest.step(bytes, send.capacity())?;
            if used > 0 {
                break (used, data);
            }
            match ready!(send.poll_capacity(cx)) {
                Some(more) => more.map_err(io::Error::other)?,
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            };
        };
        let piece = Piece::new(&bytes[used - data..used], buffers);
        let is_over = rest.is_over();
        let trailers = rest.trailers().filter(|trailers| !trailers.is_empty());
        if data > 0 || (is_over && trailers.is_none()) {
            send.send_data(piece, is_over && trailers.is_none()).map_err(io::Error::other)?;
        }
        if let Some(trailers) = trailers {
            send.send_trailers(trailers).map_err(io::Error::other)?;
        }
        Poll::Ready(Ok(used))
    }
}
