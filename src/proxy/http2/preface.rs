//! The bytes by which a client that knows says that it speaks HTTP/2 (RFC 9113, section 3.4).

use std::future::poll_fn;
use std::task::Poll;

use crate::model::request::RequestSink;
use crate::proxy::client::ClientSide;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whether the connection begins with the preface, waiting for as much of it as is missing. Consumes nothing.
pub(crate) async fn is_next<S: RequestSink>(client: &mut ClientSide<S>) -> bool {
    let until = client.worker.timers.after(client.worker.config.timeouts.header);
    poll_fn(|cx| {
        loop {
            let seen = client.inbox.filled();
            if !seen.starts_with(&PREFACE[..seen.len().min(PREFACE.len())]) {
                return Poll::Ready(false);
            }
            if seen.len() >= PREFACE.len() {
                return Poll::Ready(true);
            }
            match client.inbox.poll_fill(&mut client.stream, cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(false),
                Poll::Pending if client.worker.timers.now() >= until => return Poll::Ready(false),
                Poll::Pending => {
                    client.deadline.set(until, cx);
                    return Poll::Pending;
                }
            }
        }
    })
    .await
}
