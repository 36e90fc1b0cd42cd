//! How often the same issue is told: a bucket of tokens for each, bounded in number, and one for all together, as there may
//! be endless names. Pure: time is an argument.

use std::collections::BTreeMap;
use std::mem;
use std::time::Duration;

use tokio::time::Instant;

/// So many issues are told apart; then the one that was quiet for longest is forgotten.
const ISSUES: usize = 256;

/// All issues together may be told as often as so many of them.
const TOGETHER: f64 = 20.0;

/// The buckets.
#[derive(Debug)]
pub(super) struct Limiter {
    /// Of all issues.
    all: Bucket,
    burst: f64,
    interval: Duration,
    buckets: BTreeMap<String, Bucket>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
    left_out: u64,
}

/// What becomes of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes, and tells how many like it were left out since the last.
    Tell {
        /// Since the last that went.
        left_out: u64,
    },
    /// It is left out, and counted.
    LeaveOut,
}

impl Limiter {
    pub(super) fn new(burst: u32, interval: Duration) -> Self {
        let burst = f64::from(burst);
        let all = Bucket { tokens: TOGETHER * burst, filled: Instant::now(), left_out: 0 };
        Self { all, burst, interval, buckets: BTreeMap::new() }
    }

    /// Decides about one more event of an issue.
    pub(super) fn judge(&mut self, issue: &str, now: Instant) -> Verdict {
        let (burst, interval) = (self.burst, self.interval);
        if !self.buckets.contains_key(issue) {
            self.make_room();
            self.buckets.insert(issue.to_owned(), Bucket { tokens: burst, filled: now, left_out: 0 });
        }
        let Some(bucket) = self.buckets.get_mut(issue) else { return Verdict::LeaveOut };
        bucket.fill(interval, burst, now);
        self.all.fill(interval.div_f64(TOGETHER), TOGETHER * burst, now);
        if bucket.tokens < 1.0 || self.all.tokens < 1.0 {
            bucket.left_out += 1;
            return Verdict::LeaveOut;
        }
        bucket.tokens -= 1.0;
        self.all.tokens -= 1.0;
        Verdict::Tell { left_out: mem::take(&mut bucket.left_out) }
    }

    fn make_room(&mut self) {
        if self.buckets.len() < ISSUES {
            return;
        }
        let quietest = self.buckets.iter().min_by_key(|(_, bucket)| bucket.filled).map(|(issue, _)| issue.clone());
        if let Some(issue) = quietest {
            self.buckets.remove(&issue);
        }
    }
}

impl Bucket {
    fn fill(&mut self, interval: Duration, most: f64, now: Instant) {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64() / interval.as_secs_f64();
        self.tokens = (self.tokens + passed).min(most);
        self.filled = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn after_the_burst_one_in_an_interval_that_tells_of_the_rest() {
        let mut limiter = Limiter::new(2, Duration::from_secs(60));
        let start = Instant::now();
        let judged: Vec<Verdict> = (0..5).map(|_| limiter.judge("a", start)).collect();
        let told = Verdict::Tell { left_out: 0 };
        assert_eq!(judged, [told, told, Verdict::LeaveOut, Verdict::LeaveOut, Verdict::LeaveOut]);
        assert_eq!(limiter.judge("b", start), told);
        assert_eq!(limiter.judge("a", start + Duration::from_secs(61)), Verdict::Tell { left_out: 3 });
        assert_eq!(limiter.judge("a", start + Duration::from_secs(62)), Verdict::LeaveOut);
    }

    #[tokio::test(start_paused = true)]
    async fn endless_issues_take_no_endless_memory() {
        let mut limiter = Limiter::new(1, Duration::from_secs(60));
        let start = Instant::now();
        let mut told = 0;
        for number in 0..10_000_u64 {
            let verdict = limiter.judge(&number.to_string(), start + Duration::from_millis(number));
            told += u64::from(verdict != Verdict::LeaveOut);
        }
        assert_eq!(limiter.buckets.len(), ISSUES);
        assert!((20..=24).contains(&told), "{told} of them were told: twenty at once, and twenty a minute");
        assert!(limiter.buckets.contains_key("9999"), "the newest is known");
    }
}
