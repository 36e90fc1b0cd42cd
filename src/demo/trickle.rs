//! A trickle of traffic: a few visitors who live a product's life over and over, and one who watches a stream.
//!
//! About fifteen requests a second, whatever the answers; never more than one request a visitor at a time.

use std::time::Duration;

use reqwest::{Client, Method, Response};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Visitors who make products, scripts and videos.
const MAKERS: usize = 3;
/// Between two requests of one visitor, in milliseconds: 200 in the mean.
const PAUSE_MS: std::ops::Range<u64> = 120..280;
/// After it a request has failed; a stream lasts five seconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// One product in so many gets a report, which is slow, and a look at something that is not there.
const CURIOUS_EVERY: u64 = 4;
/// The watcher hangs up in the middle of every third stream, as people do.
const HANGS_UP_EVERY: u64 = 3;
/// The largest answer that is read.
const LARGEST_ANSWER: usize = 1 << 20;

/// What the visitors did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Requests sent.
    pub(super) sent: u64,
    /// Those that got no answer at all.
    pub(super) unanswered: u64,
}

/// Sends until `stop` says true; then lets each visitor end the request at hand.
///
/// # Errors
/// When the client cannot be made, for want of a TLS provider.
pub(super) async fn run(base: String, stop: watch::Receiver<bool>) -> Result<Tally, reqwest::Error> {
    let client =
        Client::builder().timeout(PATIENCE).connect_timeout(PATIENCE / 4).no_proxy().tls_certs_only([]).build()?;
    let visitor = Visitor { client, base, stop, tally: Tally::default() };
    let mut visitors = JoinSet::new();
    for _ in 0..MAKERS {
        visitors.spawn(visitor.clone().make());
    }
    visitors.spawn(visitor.watch());
    let mut total = Tally::default();
    while let Some(ended) = visitors.join_next().await {
        let tally = ended.unwrap_or_default();
        total.sent += tally.sent;
        total.unanswered += tally.unanswered;
    }
    Ok(total)
}

#[derive(Clone)]
struct Visitor {
    client: Client,
    base: String,
    stop: watch::Receiver<bool>,
    tally: Tally,
}

impl Visitor {
    async fn make(mut self) -> Tally {
        let mut life = 0;
        while !self.stopped() {
            life += 1;
            // whatever a life ends with, the next one begins
            let _ = self.life_of_a_product(life).await;
        }
        self.tally
    }

    /// From the product to the published video; `None` where an answer does not lead on.
    async fn life_of_a_product(&mut self, life: u64) -> Option<()> {
        let product = self.create("/api/v1/products", r#"{"name":"Desk lamp"}"#).await?;
        self.read("/api/v1/products?limit=20").await?;
        self.read(&format!("/api/v1/products/{product}")).await?;
        if life.is_multiple_of(CURIOUS_EVERY) {
            self.read("/api/v1/reports/slow").await?;
            self.read("/api/v1/products/999999999").await;
        }
        // refused at the known rate: that life ends here
        let script = self.create(&format!("/api/v1/products/{product}/scripts"), "").await?;
        let video = self.create("/api/v1/videos", &format!(r#"{{"script_id":{script}}}"#)).await?;
        self.read(&format!("/api/v1/videos/{video}")).await?;
        self.request(Method::POST, &format!("/api/v1/social-media/publish-video/{video}"), "").await?;
        Some(())
    }

    async fn watch(mut self) -> Tally {
        let mut turn = 0_u64;
        while !self.stopped() {
            turn += 1;
            if let Some(stream) = self.send(Method::GET, &format!("/api/v1/videos/{turn}/progress"), "").await {
                let events = if turn.is_multiple_of(HANGS_UP_EVERY) { 4 } else { usize::MAX };
                self.read_events(stream, events).await;
            }
            self.pause().await;
        }
        self.tally
    }

    /// Reads so many pieces, or all; hangs up when the visit ends.
    async fn read_events(&mut self, mut stream: Response, limit: usize) {
        let mut stop = self.stop.clone();
        for _ in 0..limit {
            let piece = tokio::select! {
                piece = stream.chunk() => piece,
                _ = stop.wait_for(|stopped| *stopped) => return,
            };
            if !matches!(piece, Ok(Some(_))) {
                return;
            }
        }
    }

    /// Makes something, and gives its id.
    async fn create(&mut self, path: &str, body: &str) -> Option<i64> {
        let made = self.request(Method::POST, path, body).await?;
        serde_json::from_slice::<Value>(&made).ok()?.get("id")?.as_i64()
    }

    async fn read(&mut self, path: &str) -> Option<Vec<u8>> {
        self.request(Method::GET, path, "").await
    }

    /// One request, its whole answer, and the pause after it.
    async fn request(&mut self, method: Method, path: &str, body: &str) -> Option<Vec<u8>> {
        let answer = self.send(method, path, body).await;
        let content = match answer {
            Some(answer) => content(answer).await,
            None => None,
        };
        self.pause().await;
        content
    }

    /// `None` when the visit ends or nobody answers.
    async fn send(&mut self, method: Method, path: &str, body: &str) -> Option<Response> {
        if self.stopped() {
            return None;
        }
        self.tally.sent += 1;
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if !body.is_empty() {
            request = request.header("content-type", "application/json").body(body.to_owned());
        }
        let answer = request.send().await;
        if answer.is_err() {
            self.tally.unanswered += 1;
        }
        answer.ok()
    }

    async fn pause(&mut self) {
        let pause = Duration::from_millis(fastrand::u64(PAUSE_MS));
        let _ = tokio::time::timeout(pause, self.stop.wait_for(|stopped| *stopped)).await;
    }

    fn stopped(&self) -> bool {
        *self.stop.borrow()
    }
}

/// The body of an answer, if all of it came and it is not too large.
async fn content(mut answer: Response) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    while let Some(piece) = answer.chunk().await.ok()? {
        if content.len() + piece.len() > LARGEST_ANSWER {
            return None;
        }
        content.extend_from_slice(&piece);
    }
    Some(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::factory::Factory;
    use crate::fetch::provide_cryptography;
    use std::net::Ipv4Addr;

    /// What the factory says of its rows.
    async fn posts(base: &str) -> i64 {
        let status = reqwest::get(format!("{base}/status")).await.unwrap();
        let status: Value = serde_json::from_slice(&content(status).await.unwrap()).unwrap();
        status["database_stats"]["social_media_posts"].as_i64().unwrap()
    }

    #[tokio::test]
    async fn visitors_publish_videos_are_answered_always_and_end_when_told() {
        provide_cryptography();
        let folder = tempfile::tempdir().unwrap();
        let factory = Factory::open((Ipv4Addr::LOCALHOST, 0).into(), folder.path()).await.unwrap();
        let base = format!("http://{}", factory.address());
        let (stop, stopped) = watch::channel(false);
        let visits = async {
            let published = async {
                while posts(&base).await == 0 {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                stop.send_replace(true);
            };
            let (tally, ()) = tokio::join!(run(base.clone(), stopped), published);
            tally.unwrap()
        };
        let tally = tokio::select! {
            tally = tokio::time::timeout(Duration::from_secs(20), visits) => tally.expect("a video is published in time"),
            () = factory.serve_until(std::future::pending()) => unreachable!("it serves for ever"),
        };
        assert!(tally.sent >= 8, "{tally:?}");
        assert_eq!(tally.unanswered, 0, "{tally:?}");
    }
}
