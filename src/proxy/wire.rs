//! What carries the bytes of a client or of the application: a socket, or one stream of an HTTP/2 connection that
//! behaves like one.
//!
//! Behind this seam both are HTTP/1.1, so that both are judged, forwarded, timed and counted by the same code.

use std::io;
use std::task::{Context, Poll};

use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::model::request::Protocol;

/// The bytes of one side, both ways.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin {
    /// What a client speaks, where the bytes are a translation; `None` where they tell it themselves.
    const CARRIES: Option<Protocol>;

    /// Ready when a read would not wait; needs no buffer.
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ready when the other side has given up, though bytes of it may be unread; a socket tells that only behind them.
    fn poll_given_up(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    /// Why the application has broken its answer off, for who can be told so.
    fn blame(&mut self, _reason: Option<Reason>) {}

    /// Ends it in a way that shows that what was sent is not whole.
    fn break_off(&mut self);
}

impl Wire for TcpStream {
    const CARRIES: Option<Protocol> = None;

    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_read_ready(self, cx)
    }

    fn break_off(&mut self) {
        let _ = self.set_zero_linger(); // without it the client still sees an end
    }
}
