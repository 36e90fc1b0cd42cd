//! The progress of a rendering as a stream of server-sent events.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_core::Stream;
use serde_json::json;
use tokio::time::Interval;

/// Events of a stream, the last of which says 100 %.
const STEPS: u32 = 10;
/// Between two events: a stream lasts five seconds.
const PACE: Duration = Duration::from_millis(500);

/// A body that brings one event a step, then ends.
pub(super) fn of_video(video_id: i64) -> Body {
    Body::from_stream(Progress { video_id, step: 0, pace: tokio::time::interval(PACE) })
}

struct Progress {
    video_id: i64,
    step: u32,
    pace: Interval,
}

impl Stream for Progress {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.step == STEPS {
            return Poll::Ready(None);
        }
        ready!(self.pace.poll_tick(context));
        self.step += 1;
        let data = json!({"video_id": self.video_id, "percent": 100 * self.step / STEPS});
        Poll::Ready(Some(Ok(Bytes::from(format!("event: progress\ndata: {data}\n\n")))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_with_a_hundred_percent() {
        let all = axum::body::to_bytes(of_video(3), usize::MAX).await.unwrap();
        let text = String::from_utf8(all.to_vec()).unwrap();
        assert_eq!(text.matches("event: progress\n").count(), 10, "{text}");
        assert!(text.ends_with("data: {\"video_id\":3,\"percent\":100}\n\n"), "{text}");
    }
}
