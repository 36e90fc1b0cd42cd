//! Places for connections: so many in all, and no stranger may hold more than half of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::access::peer_key;

/// All places of the admin port.
#[derive(Clone, Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    most_of_one: usize,
    /// How many each peer holds; bounded by the places themselves.
    held: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One place; free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    peer: IpAddr,
    held: Arc<Mutex<HashMap<IpAddr, usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    /// So many.
    pub(super) fn new(count: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(count)), most_of_one: count.div_ceil(2), held: Arc::default() }
    }

    /// Waits for a free one; whoever comes meanwhile waits in the kernel's backlog.
    pub(super) async fn free(&self) -> OwnedSemaphorePermit {
        self.free.clone().acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Gives the place to this peer, unless it has its share: then the probes of others would have none.
    pub(super) fn take(&self, permit: OwnedSemaphorePermit, peer: IpAddr) -> Option<Place> {
        let key = peer_key(peer);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let own = held.entry(key).or_default();
        if *own >= self.most_of_one && !key.is_loopback() {
            return None;
        }
        *own += 1;
        Some(Place { peer: key, held: self.held.clone(), _permit: permit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let left = held.get(&self.peer).map_or(0, |own| own.saturating_sub(1));
        if left == 0 {
            held.remove(&self.peer);
        } else {
            held.insert(self.peer, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stranger_holds_half_of_the_places_at_most_and_gets_them_back() {
        let places = Places::new(4);
        let stranger = "192.0.2.1".parse().expect("an address");
        let first = places.take(places.free().await, stranger).expect("a place");
        let _second = places.take(places.free().await, stranger).expect("a place");
        assert!(places.take(places.free().await, stranger).is_none());
        let other = "192.0.2.2".parse().expect("an address");
        assert!(places.take(places.free().await, other).is_some());
        drop(first);
        assert!(places.take(places.free().await, stranger).is_some());
        assert_eq!(places.held.lock().expect("no panic while held").len(), 1);
    }

    #[tokio::test]
    async fn loopback_may_hold_all_of_them() {
        let places = Places::new(3);
        let own = "127.0.0.1".parse().expect("an address");
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(places.take(places.free().await, own).expect("a place"));
        }
        assert_eq!(places.free.available_permits(), 0);
        held.clear();
        assert_eq!(places.free.available_permits(), 3);
    }
}
