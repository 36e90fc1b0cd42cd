//! What the admin port refused, counted by reason, and told in the log now and then. Owns the counts.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::catalogue::admin::ADMIN_REFUSALS;
use crate::model::sample::Sample;

/// Why something was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Refusal {
    /// More requests than `admin.rate_per_peer` or `admin.rate`.
    Rate,
    /// Nobody who is known.
    Stranger,
    /// A token that nobody gave out.
    Token,
    /// A token that only reads, where something would change.
    ReadOnly,
    /// A Host or an Origin that is not ours.
    Foreign,
    /// More than its share of the connections.
    Connections,
    /// Clear text where TLS is spoken.
    PlainHttp,
    /// TLS that came to no agreement.
    Handshake,
    /// TLS that took too long, or found no place in time.
    HandshakeTimeout,
}

/// The counts.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    counts: [AtomicU64; Refusal::ALL.len()],
    told: Mutex<[Option<Instant>; Refusal::ALL.len()]>,
}

/// Between two lines of the log for one reason: whoever knocks must not fill a disk.
const QUIET: Duration = Duration::from_secs(60);

impl Refusal {
    const ALL: [Self; 9] = [
        Self::Rate,
        Self::Stranger,
        Self::Token,
        Self::ReadOnly,
        Self::Foreign,
        Self::Connections,
        Self::PlainHttp,
        Self::Handshake,
        Self::HandshakeTimeout,
    ];

    /// The value of the label.
    fn label(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Stranger => "stranger",
            Self::Token => "token",
            Self::ReadOnly => "read_only",
            Self::Foreign => "foreign",
            Self::Connections => "connections",
            Self::PlainHttp => "plain_http",
            Self::Handshake => "handshake",
            Self::HandshakeTimeout => "handshake_timeout",
        }
    }
}

impl Refusals {
    /// Counts one.
    pub(super) fn count(&self, refusal: Refusal) {
        self.counts[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one, and says whether it is time for a line of the log.
    pub(super) fn count_and_tell(&self, refusal: Refusal) -> bool {
        self.count(refusal);
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let last = &mut told[refusal as usize];
        let is_due = last.is_none_or(|last| now - last >= QUIET);
        if is_due {
            *last = Some(now);
        }
        is_due
    }

    /// Adds the samples of now.
    pub(super) fn samples(&self, out: &mut Vec<Sample>) {
        for refusal in Refusal::ALL {
            let count = self.counts[refusal as usize].load(Ordering::Relaxed);
            out.push(Sample::count(&ADMIN_REFUSALS, count).with_literal("reason", refusal.label()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_is_counted_and_told_once_a_minute_by_its_reason() {
        let refusals = Refusals::default();
        let tell = |refusal| refusals.count_and_tell(refusal);
        assert_eq!([Refusal::Token, Refusal::Token, Refusal::Handshake].map(tell), [true, false, true]);
        tokio::time::advance(QUIET).await;
        assert!(tell(Refusal::Token));
        let mut samples = Vec::new();
        refusals.samples(&mut samples);
        assert_eq!(samples.len(), Refusal::ALL.len());
        assert_eq!(refusals.counts[Refusal::Token as usize].load(Ordering::Relaxed), 3);
    }
}
