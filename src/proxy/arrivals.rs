//! How often one address may connect: `proxy.limits.connection_rate`.
//!
//! A bucket of tokens for each address, for one worker thread. Bounded: a bucket that is full again is forgotten without
//! loss, and who comes when no room is left shares one bucket with the others of that kind, so that no crowd of
//! addresses frees one that is held back.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::proxy::timers::Tick;

/// Addresses that have a bucket of their own.
const ADDRESSES: usize = 4_096;

const TICKS_PER_SECOND: u64 = 10;

/// Whose bucket is shared.
const OTHERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Who came, and how often.
#[derive(Debug)]
pub(crate) struct Arrivals {
    /// Connections per second, and at most so many at once; 0 is without limit.
    rate: Cell<u64>,
    buckets: RefCell<HashMap<IpAddr, Bucket>>,
    /// When the full ones were last looked for.
    swept: Cell<Option<Tick>>,
}

/// In tenths of a token, because that is what a tick brings at a rate of one.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    filled: u64,
    at: Tick,
}

impl Arrivals {
    /// With this many connections per second for each address.
    pub(crate) fn new(rate: usize) -> Self {
        Self { rate: Cell::new(bounded(rate)), buckets: RefCell::default(), swept: Cell::new(None) }
    }

    /// Another rate holds from now on; what is in a bucket beyond it is gone.
    pub(crate) fn come_at(&self, rate: usize) {
        self.rate.set(bounded(rate));
    }

    /// Whether a connection from there is admitted, which counts.
    pub(crate) fn admits(&self, address: IpAddr, now: Tick) -> bool {
        if self.rate.get() == 0 {
            return true;
        }
        let mut buckets = self.buckets.borrow_mut();
        let mut key = network(address);
        if buckets.len() >= ADDRESSES && !buckets.contains_key(&key) {
            if self.swept.replace(Some(now)) != Some(now) {
                buckets.retain(|_, bucket| self.level(*bucket, now) < self.full());
            }
            if buckets.len() >= ADDRESSES {
                key = OTHERS;
            }
        }
        let bucket = buckets.entry(key).or_insert(Bucket { filled: self.full(), at: now });
        let level = self.level(*bucket, now);
        let admitted = level >= TICKS_PER_SECOND;
        *bucket = Bucket { filled: if admitted { level - TICKS_PER_SECOND } else { level }, at: now };
        admitted
    }

    fn full(&self) -> u64 {
        self.rate.get() * TICKS_PER_SECOND
    }

    /// What is in a bucket by now.
    fn level(&self, bucket: Bucket, now: Tick) -> u64 {
        let ticks = now.saturating_sub(bucket.at);
        bucket.filled.saturating_add(ticks.saturating_mul(self.rate.get())).min(self.full())
    }
}

/// What one client has of addresses: with IPv6 a whole /64.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// A rate with which one can reckon.
fn bounded(rate: usize) -> u64 {
    u64::try_from(rate).unwrap_or(u64::MAX).min(u64::MAX >> 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(arrivals: &Arrivals, address: &str, times: usize, now: Tick) -> usize {
        let address = address.parse().unwrap();
        (0..times).filter(|_| arrivals.admits(address, now)).count()
    }

    #[test]
    fn an_address_may_come_as_often_as_the_rate_says_and_others_are_not_held_back_by_it() {
        let arrivals = Arrivals::new(5);
        assert_eq!(admitted(&arrivals, "10.0.0.1", 100, 0), 5, "a second's worth at once");
        assert_eq!(admitted(&arrivals, "10.0.0.2", 4, 0), 4);
        assert_eq!(admitted(&arrivals, "10.0.0.1", 100, 1), 0);
        assert_eq!(admitted(&arrivals, "10.0.0.1", 100, 2), 1);
        assert_eq!(admitted(&arrivals, "10.0.0.1", 100, 10), 4, "four fifths of a second later");
        assert_eq!(admitted(&arrivals, "10.0.0.1", 100, 10_000), 5, "no more is saved");
    }

    #[test]
    fn a_client_has_a_whole_network_of_ipv6() {
        let arrivals = Arrivals::new(2);
        assert_eq!(admitted(&arrivals, "2001:db8::1", 1, 0), 1);
        assert_eq!(admitted(&arrivals, "2001:db8::2:3:4:5", 5, 0), 1);
        assert_eq!(admitted(&arrivals, "2001:db8:0:1::1", 5, 0), 2);
    }

    #[test]
    fn without_a_rate_nobody_is_refused_and_nothing_is_kept() {
        let arrivals = Arrivals::new(0);
        assert_eq!(admitted(&arrivals, "10.0.0.1", 10_000, 0), 10_000);
        assert!(arrivals.buckets.borrow().is_empty());
    }

    #[test]
    fn a_crowd_of_addresses_frees_none_and_takes_no_more_memory() {
        let arrivals = Arrivals::new(1);
        assert_eq!(admitted(&arrivals, "192.0.2.1", 2, 0), 1);
        let crowd =
            |from: u32, now| (from..from + 10_000).filter(|n| arrivals.admits(IpAddr::V4((*n).into()), now)).count();
        assert_eq!(crowd(0x0a00_0000, 0), ADDRESSES - 1 + 1, "the rest shares one bucket");
        assert_eq!(admitted(&arrivals, "192.0.2.1", 2, 0), 0, "it is held back all the same");
        assert!(arrivals.buckets.borrow().len() <= ADDRESSES + 1);
        assert!(crowd(0x0b00_0000, 20) >= ADDRESSES, "who has not come for a second is forgotten");
        assert!(arrivals.buckets.borrow().len() <= ADDRESSES + 1);
    }
}
