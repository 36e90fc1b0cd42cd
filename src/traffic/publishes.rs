//! What the application answered when it was asked to publish: of the routes in `proxy.taps`, whose answers the proxy copies.
//!
//! An answer tells it of each platform in `results[].status`, and nowhere else: the application writes no row then. Read on
//! the worker's thread, because it is short and rare; the copy is bounded, and what is longer or no such answer is counted as
//! unread. Each worker has counters of its own; whoever reads adds them up. Of the answer nothing is kept.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;
use tokio::sync::watch;

use crate::model::catalogue::database::{BUSINESS_PUBLISH_ANSWERS, BUSINESS_PUBLISH_SUCCESS};
use crate::model::request::{Outcome, RequestHead, RequestRecord, RequestSink};
use crate::model::sample::Sample;

/// The words by which an answer tells how a publish went; all others tell nothing yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// It went well.
    pub published: Vec<String>,
    /// It did not.
    pub failed: Vec<String>,
}

/// Counts the publishes of one worker.
#[derive(Clone, Debug)]
pub struct PublishSink {
    /// Those in force; looked at for each answer that is counted.
    words: watch::Receiver<Words>,
    counts: Arc<Counts>,
}

/// Reads the counts of all workers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PublishReader(Arc<[Arc<Counts>]>);

#[derive(Debug, Default)]
struct Counts([AtomicU64; OUTCOMES.len()]);

/// The outcomes as their label has them, by `Publish`.
const OUTCOMES: [&str; 4] = ["published", "failed", "other", "unread"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Publish {
    Published,
    Failed,
    Other,
    Unread,
}

/// An answer, as far as it is read.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    results: Vec<Platform<'a>>,
}

#[derive(Deserialize)]
struct Platform<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
}

/// Makes one counter for each worker, and the reader of them all.
#[must_use]
pub fn open(words: &watch::Receiver<Words>, workers: usize) -> (Vec<PublishSink>, PublishReader) {
    let sinks: Vec<PublishSink> =
        (0..workers).map(|_| PublishSink { words: words.clone(), counts: Arc::default() }).collect();
    let reader = PublishReader(sinks.iter().map(|sink| Arc::clone(&sink.counts)).collect());
    (sinks, reader)
}

impl PublishSink {
    /// Counts one answer, which was copied this far.
    #[cold]
    fn count(&self, status: u16, copy: &[u8]) {
        match (status, serde_json::from_slice::<Answer<'_>>(copy)) {
            (500.., _) => self.add(Publish::Failed),
            (200..300, Ok(answer)) if !answer.results.is_empty() => {
                let words = self.words.borrow();
                answer.results.iter().for_each(|platform| self.add(words.publish(&platform.status)));
            }
            // what the client asked for was wrong: no publish was tried
            (400.., _) => {}
            _ => self.add(Publish::Unread),
        }
    }

    fn add(&self, publish: Publish) {
        self.counts.0[publish as usize].fetch_add(1, Ordering::Relaxed);
    }
}

impl Words {
    fn publish(&self, status: &str) -> Publish {
        let is_in = |words: &[String]| words.iter().any(|word| word.eq_ignore_ascii_case(status));
        match () {
            () if is_in(&self.published) => Publish::Published,
            () if is_in(&self.failed) => Publish::Failed,
            () => Publish::Other,
        }
    }
}

impl RequestSink for PublishSink {
    fn begin(&mut self, _: &RequestHead) {}

    fn last_write(&mut self) {}

    fn not_yet(&mut self) {}

    fn end(&mut self, record: &RequestRecord<'_>) {
        if let Some(copy) = record.tapped
            && record.outcome == Outcome::Answered
        {
            self.count(record.status, copy);
        }
    }
}

impl PublishReader {
    /// The counts, once there are any, and the share that went well.
    pub fn samples(&self, out: &mut Vec<Sample>) {
        let count = |at: usize| self.0.iter().map(|counts| counts.0[at].load(Ordering::Relaxed)).sum::<u64>();
        let counts: [u64; OUTCOMES.len()] = std::array::from_fn(count);
        if counts == [0; OUTCOMES.len()] {
            return;
        }
        for (outcome, count) in OUTCOMES.into_iter().zip(counts) {
            out.push(Sample::count(&BUSINESS_PUBLISH_ANSWERS, count).with_literal("outcome", outcome));
        }
        let [published, failed, ..] = counts;
        if published + failed > 0 {
            let ratio = published as f64 / (published + failed) as f64;
            out.push(Sample::level(&BUSINESS_PUBLISH_SUCCESS, ratio).with_literal("source", "answers"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Published, failed, other and unread, after these answers.
    fn counted(answers: &[(u16, &[u8])]) -> [u64; 4] {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let words = Words { published: words(&["published"]), failed: words(&["failed", "error"]) };
        let (sinks, reader) = open(&watch::channel(words).1, 2);
        for (number, (status, body)) in answers.iter().enumerate() {
            sinks[number % 2].count(*status, body);
        }
        std::array::from_fn(|at| reader.0.iter().map(|counts| counts.0[at].load(Ordering::Relaxed)).sum())
    }

    #[test]
    fn each_platform_of_an_answer_counts_and_a_crash_counts_once() {
        let whole = br#"{"video_id": 7, "results": [{"platform": "a", "status": "published"}, {"status": "Error", "x": [{}]}, {"status": "queued"}]}"#;
        assert_eq!(counted(&[(200, whole), (201, whole), (500, b"oops"), (404, b"{}")]), [2, 3, 2, 0]);
    }

    #[test]
    fn what_is_no_such_answer_is_told_as_unread() {
        let deep = "[".repeat(64 << 10);
        let cut = br#"{"results": [{"status": "published"}, {"sta"#;
        let strange: [&[u8]; 6] = [b"", b"{}", b"[]", br#"{"results": [{"status": 7}]}"#, cut, deep.as_bytes()];
        assert_eq!(counted(&strange.map(|body| (200, body))), [0, 0, 0, 6]);
    }
}
