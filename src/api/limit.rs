//! The rate limit of the admin port: a leaky bucket per peer and one for all, without timers (GCRA).
//!
//! A bucket is one number, the time at which it will be empty again, so a peer costs one entry of a bounded table.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// How many peers are told apart; those beyond share one bucket, so a flood of addresses frees nobody.
const MOST_PEERS: usize = 4_096;

/// A rate and how much of it may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    /// Requests in a second, at least 1.
    pub(super) per_second: u32,
    /// Requests at once.
    pub(super) burst: u32,
}

/// What each peer may do, and all of them together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rates {
    pub(super) per_peer: Rate,
    pub(super) overall: Rate,
}

/// The buckets. One lock, held for a lookup: the admin port serves people and scrapers, not the application.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    buckets: Mutex<Buckets>,
}

#[derive(Debug, Default)]
struct Buckets {
    /// When each peer's bucket is empty again; an entry in the past is the same as none.
    peers: HashMap<IpAddr, Instant>,
    strangers: Option<Instant>,
    overall: Option<Instant>,
}

impl Limiter {
    /// Admits a request of this peer by the rates of now.
    ///
    /// # Errors
    /// The time after which it would be admitted.
    pub(super) fn admit(&self, peer: IpAddr, rates: Rates, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let buckets = &mut *buckets;
        if buckets.peers.len() >= MOST_PEERS && !buckets.peers.contains_key(&peer) {
            buckets.peers.retain(|_, empty_at| *empty_at > now);
        }
        let known = buckets.peers.contains_key(&peer) || buckets.peers.len() < MOST_PEERS;
        let own = if known { buckets.peers.get(&peer).copied() } else { buckets.strangers };
        let own = rates.per_peer.fill(own, now)?;
        // the peer pays only for what is admitted as a whole
        buckets.overall = Some(rates.overall.fill(buckets.overall, now)?);
        if known {
            buckets.peers.insert(peer, own);
        } else {
            buckets.strangers = Some(own);
        }
        Ok(())
    }
}

impl Rate {
    /// When the bucket is empty again after one more request; `Err` is how long it is too full for it.
    fn fill(self, empty_at: Option<Instant>, now: Instant) -> Result<Instant, Duration> {
        let interval = Duration::from_secs(1) / self.per_second.max(1);
        let next = empty_at.map_or(now, |at| at.max(now)) + interval;
        let over = (next - now).saturating_sub(interval * self.burst.max(1));
        if over.is_zero() { Ok(next) } else { Err(over) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const RATE: Rate = Rate { per_second: 10, burst: 20 };
    const RATES: Rates = Rates { per_peer: RATE, overall: Rate { per_second: 1_000_000, burst: 1_000_000 } };

    fn peer(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(number))
    }

    #[test]
    fn a_burst_is_admitted_then_the_rate() {
        let limiter = Limiter::default();
        let start = Instant::now();
        let admitted = (0..100).filter(|_| limiter.admit(peer(1), RATES, start).is_ok()).count();
        assert_eq!(admitted, 20);
        assert_eq!(limiter.admit(peer(1), RATES, start), Err(Duration::from_millis(100)));
        assert!(limiter.admit(peer(1), RATES, start + Duration::from_millis(100)).is_ok());
        assert!(limiter.admit(peer(1), RATES, start + Duration::from_millis(100)).is_err());
        let later = start + Duration::from_secs(60);
        assert_eq!((0..100).filter(|_| limiter.admit(peer(1), RATES, later).is_ok()).count(), 20);
    }

    #[test]
    fn one_peer_does_not_pay_for_another_but_all_share_the_whole() {
        let limiter = Limiter::default();
        let rates = Rates { overall: Rate { per_second: 10, burst: 30 }, ..RATES };
        let now = Instant::now();
        assert_eq!((0..50).filter(|_| limiter.admit(peer(1), rates, now).is_ok()).count(), 20);
        assert_eq!((0..50).filter(|_| limiter.admit(peer(2), rates, now).is_ok()).count(), 10);
        assert!(limiter.admit(peer(3), rates, now).is_err());
    }

    #[test]
    fn a_flood_of_addresses_neither_grows_the_table_nor_frees_a_blocked_peer() {
        let limiter = Limiter::default();
        let now = Instant::now();
        while limiter.admit(peer(0), RATES, now).is_ok() {}
        let flood = 3 * MOST_PEERS as u32;
        let admitted = (1..flood).filter(|number| limiter.admit(peer(*number), RATES, now).is_ok()).count();
        assert!(limiter.admit(peer(0), RATES, now).is_err());
        assert_eq!(limiter.buckets.lock().unwrap().peers.len(), MOST_PEERS);
        assert_eq!(admitted, MOST_PEERS - 1 + 20, "those beyond the table share one bucket");
        assert!(limiter.admit(peer(flood), RATES, now + Duration::from_secs(60)).is_ok());
        assert!(limiter.buckets.lock().unwrap().peers.len() < 10);
    }
}
