//! Places for connections of HTTP/2: `proxy.http2.connections`. Each holds much more than one of HTTP/1.1, idle or not.
//!
//! When all are taken, who comes gets the place of the connection that has been idle longest. That one is told by GOAWAY, so that
//! no request is lost: its client connects again when it has something to ask. Where none is idle, who comes is turned away.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

use crate::proxy::timers::{NEVER, Tick};

/// The places of a worker.
#[derive(Debug)]
pub(crate) struct Places {
    limit: usize,
    guests: RefCell<Vec<Rc<Guest>>>,
}

/// A connection, as far as others have to do with it.
#[derive(Debug)]
struct Guest {
    /// `NEVER` while it has a stream.
    idle_since: Cell<Tick>,
    is_sent_away: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// A connection's place, free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    guest: Rc<Guest>,
    places: Rc<Places>,
}

/// How a connection came to its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// One was free.
    Free,
    /// An idle connection was sent away.
    InsteadOfAnother,
}

impl Places {
    /// All free.
    pub(crate) fn new(limit: usize) -> Rc<Self> {
        Rc::new(Self { limit, guests: RefCell::default() })
    }

    /// A place; `None` if all are taken by who is not idle, or by many that have yet to leave.
    pub(crate) fn take(self: &Rc<Self>, now: Tick) -> Option<(Place, Came)> {
        let mut guests = self.guests.borrow_mut();
        let mut came = Came::Free;
        if guests.len() >= self.limit {
            if guests.len() >= self.limit + self.limit.div_ceil(8) {
                return None;
            }
            let idle = guests.iter().filter(|guest| guest.idle_since.get() != NEVER && !guest.is_sent_away.get());
            let longest = idle.min_by_key(|guest| guest.idle_since.get())?;
            longest.is_sent_away.set(true);
            longest.waker.borrow().iter().for_each(Waker::wake_by_ref);
            came = Came::InsteadOfAnother;
        }
        let guest =
            Rc::new(Guest { idle_since: Cell::new(now), is_sent_away: Cell::new(false), waker: RefCell::default() });
        guests.push(Rc::clone(&guest));
        drop(guests);
        Some((Place { guest, places: Rc::clone(self) }, came))
    }
}

impl Place {
    /// The connection has a stream.
    pub(crate) fn is_used(&self) {
        self.guest.idle_since.set(NEVER);
    }

    /// The connection has none; woken if its place is given to another.
    pub(crate) fn is_idle(&self, now: Tick, cx: &Context<'_>) {
        let idle_since = &self.guest.idle_since;
        idle_since.set(idle_since.get().min(now));
        let mut waker = self.guest.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Whether it is given to another.
    pub(crate) fn is_given_away(&self) -> bool {
        self.guest.is_sent_away.get()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut guests = self.places.guests.borrow_mut();
        if let Some(at) = guests.iter().position(|guest| Rc::ptr_eq(guest, &self.guest)) {
            guests.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_when_all_are_taken_gets_the_place_of_who_has_been_idle_longest() {
        let (places, cx) = (Places::new(3), Context::from_waker(Waker::noop()));
        let take = |now| places.take(now);
        let guests: Vec<Place> = (0..3).filter_map(take).map(|(place, _)| place).collect();
        guests[0].is_used();
        guests[2].is_idle(2, &cx);
        let (new, came) = take(9).unwrap();
        assert_eq!(came, Came::InsteadOfAnother);
        assert_eq!(guests.iter().map(Place::is_given_away).collect::<Vec<_>>(), [false, true, false]);
        assert!(take(9).is_none(), "one too many are there already, until the one that was sent away has gone");
        let mut guests = guests;
        drop(guests.remove(1));
        new.is_used();
        guests[1].is_used();
        assert!(take(10).is_none(), "nobody is idle");
        guests[0].is_idle(11, &cx);
        assert_eq!(take(12).map(|(_, came)| came), Some(Came::InsteadOfAnother));
        drop(guests);
        assert_eq!(take(13).map(|(_, came)| came), Some(Came::Free));
    }
}
