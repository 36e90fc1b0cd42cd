//! The bytes by which a client that knows says that it speaks HTTP/2 (RFC 9113, section 3.4).

use std::future::poll_fn;
use std::task::Poll;

use crate::model::request::{Refusal, RequestSink};
use crate::proxy::client::ClientSide;
use crate::proxy::http2::frames::PREFACE;

/// Whether the connection begins with the preface, waiting for as much of it as is missing. Consumes nothing.
///
/// # Errors
/// The rest of it does not come in time.
pub(crate) async fn is_next<S: RequestSink>(client: &mut ClientSide<S>) -> Result<bool, Refusal> {
    let until = client.worker.timers.after(client.worker.timeouts.get().header);
    poll_fn(|cx| {
        loop {
            let seen = client.inbox.filled();
            if !seen.starts_with(&PREFACE[..seen.len().min(PREFACE.len())]) {
                return Poll::Ready(Ok(false));
            }
            if seen.len() >= PREFACE.len() {
                return Poll::Ready(Ok(true));
            }
            match client.inbox.poll_fill(&mut client.stream, cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(Ok(false)),
                Poll::Pending if client.worker.timers.now() >= until => {
                    return Poll::Ready(Err(Refusal::HeaderTimeout));
                }
                Poll::Pending => {
                    client.deadline.set(until, cx);
                    return Poll::Pending;
                }
            }
        }
    })
    .await
}
