//! Bodies of any size: made and checked piece by piece, byte for byte, and never held whole.

use std::sync::OnceLock;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use crate::origin::Stream;

/// A prime, so that a piece that is lost, doubled or moved shows whatever its size is.
const PERIOD: usize = 65_521;
/// The largest piece.
const PIECE: usize = 64 << 10;

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length,
    Chunked,
}

impl Framing {
    /// The field that announces a body of this length.
    pub(crate) fn field(self, bytes: u64) -> String {
        match self {
            Self::Length => format!("Content-Length: {bytes}\r\n"),
            Self::Chunked => "Transfer-Encoding: chunked\r\n".to_owned(),
        }
    }
}

/// What stands at a place of every body.
pub(crate) fn piece(at: u64, most: u64) -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    let bytes = BYTES.get_or_init(|| {
        let mut random = fastrand::Rng::with_seed(14);
        let once: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(PERIOD).collect();
        once.iter().cycle().take(PERIOD + PIECE).copied().collect()
    });
    let start = usize::try_from(at % PERIOD as u64).expect("below the period");
    &bytes[start..start + usize::try_from(most.min(PIECE as u64)).expect("at most a piece")]
}

/// Writes a body; after the first piece it waits for `go_on`.
pub(crate) async fn send(stream: &mut Stream, (bytes, framing): (u64, Framing), go_on: &Notify) -> std::io::Result<()> {
    let mut at = 0;
    while at < bytes {
        let piece = piece(at, bytes - at);
        if framing == Framing::Chunked {
            stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
        }
        stream.write_all(piece).await?;
        if framing == Framing::Chunked {
            stream.write_all(b"\r\n").await?;
        }
        if at == 0 {
            go_on.notified().await;
        }
        at += piece.len() as u64;
    }
    if framing == Framing::Chunked {
        stream.write_all(b"0\r\n\r\n").await?;
    }
    Ok(())
}

/// Reads a body to its end, tells when it has begun, and gives its length; each byte must be the right one.
pub(crate) async fn receive(stream: &mut Stream, length: Option<u64>, begun: &Notify) -> std::io::Result<u64> {
    let mut at = 0;
    let Some(length) = length else {
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            let size = line.strip_suffix("\r\n").and_then(|digits| u64::from_str_radix(digits, 16).ok());
            let size = size.unwrap_or_else(|| panic!("the size of a chunk, not {line:?}"));
            check(stream, &mut at, size, begun).await?;
            let mut end = [0; 2];
            stream.read_exact(&mut end).await?;
            assert_eq!(&end, b"\r\n", "the end of a chunk");
            if size == 0 {
                return Ok(at);
            }
        }
    };
    check(stream, &mut at, length, begun).await?;
    Ok(at)
}

async fn check(stream: &mut Stream, at: &mut u64, bytes: u64, begun: &Notify) -> std::io::Result<()> {
    let end = *at + bytes;
    while *at < end {
        let wanted = piece(*at, end - *at);
        let read = stream.fill_buf().await?;
        if read.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let count = read.len().min(wanted.len());
        assert!(read[..count] == wanted[..count], "other bytes than were sent, at {at}");
        if *at == 0 {
            begun.notify_one();
        }
        stream.consume(count);
        *at += count as u64;
    }
    Ok(())
}
