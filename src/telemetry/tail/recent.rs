//! How long the requests of each route took of late, as one worker saw it, and which one is slow beside them.
//!
//! A histogram for each route, of buckets that are an eighth of a power of two wide: they serve the comparison alone and
//! are never exported. A route is judged once it has answered 100 requests; each minute what was seen before counts
//! half, as long as that leaves enough to judge by.

use std::time::Duration;

use crate::model::route::{MAX_ROUTES, RouteId};

/// Up to two minutes; the last one takes what is longer.
const SLOTS: usize = 160;
/// Fewer requests have no 99 of a hundred.
const ENOUGH: u32 = 100;
/// A second of ticks: judged anew.
const TICKS_BETWEEN_JUDGEMENTS: u32 = 10;
/// A minute of ticks: what was seen before counts half.
const TICKS_OF_HALF_LIFE: u32 = 600;

/// The slot of a duration: 65 µs wide below half a millisecond, then eight for each power of two.
pub(super) fn slot(duration: Duration) -> usize {
    let units = (u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX) >> 16) as usize;
    let Some(octave) = units.checked_ilog2().and_then(|exponent| exponent.checked_sub(3)) else { return units };
    let octave = octave as usize;
    ((octave + 1) * 8 + ((units >> octave) & 7)).min(SLOTS - 1)
}

/// The recent durations of each route, and of all requests that have none together.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// By the number of the route, one higher; the first is of requests without one. At most 1,001, of 640 bytes each.
    routes: Vec<Option<Box<Durations>>>,
    ticks: u32,
}

/// Of one route.
#[derive(Debug)]
struct Durations {
    slots: [u32; SLOTS],
    count: u32,
    /// The first slot above the 99th of a hundred; behind the last one as long as nothing is judged.
    slow_from: usize,
    /// Something came since it was judged.
    is_changed: bool,
}

impl Recent {
    /// Whether a duration is above the 99th of a hundred of its route.
    pub(super) fn is_slow(&self, route: Option<RouteId>, slot: usize) -> bool {
        let durations = self.routes.get(place(route)).and_then(Option::as_deref);
        durations.is_some_and(|durations| slot >= durations.slow_from)
    }

    /// Takes a duration in. Allocates at the first one of a route.
    pub(super) fn learn(&mut self, route: Option<RouteId>, slot: usize) {
        let place = place(route);
        if place > MAX_ROUTES {
            return; // no table has so many
        }
        if place >= self.routes.len() {
            self.routes.resize_with(place + 1, || None);
        }
        self.routes[place].get_or_insert_with(Durations::none).learn(slot);
    }

    /// A tenth of a second has passed.
    pub(super) fn tick(&mut self) {
        self.ticks = (self.ticks + 1) % TICKS_OF_HALF_LIFE;
        if !self.ticks.is_multiple_of(TICKS_BETWEEN_JUDGEMENTS) {
            return;
        }
        let ages = self.ticks == 0;
        for durations in self.routes.iter_mut().flatten() {
            if ages {
                durations.age();
            }
            if durations.is_changed {
                durations.judge();
            }
        }
    }
}

/// Where the route stands.
fn place(route: Option<RouteId>) -> usize {
    route.map_or(0, |RouteId(number)| usize::from(number) + 1)
}

impl Durations {
    fn none() -> Box<Self> {
        Box::new(Self { slots: [0; SLOTS], count: 0, slow_from: SLOTS, is_changed: false })
    }

    fn learn(&mut self, slot: usize) {
        self.slots[slot] = self.slots[slot].saturating_add(1);
        self.count = self.count.saturating_add(1);
        self.is_changed = true;
    }

    fn judge(&mut self) {
        self.is_changed = false;
        if self.count < ENOUGH {
            return;
        }
        let above = self.count / ENOUGH;
        let mut seen = 0;
        // from the top: the slots with the slowest hundredth
        let last = self.slots.iter().rposition(|in_slot| {
            seen += in_slot;
            seen > above
        });
        self.slow_from = last.map_or(SLOTS, |slot| slot + 1);
    }

    fn age(&mut self) {
        if self.count < 2 * ENOUGH {
            return; // a quiet route remembers longer
        }
        self.slots.iter_mut().for_each(|slot| *slot /= 2);
        self.count = self.slots.iter().sum();
        self.is_changed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROUTE: Option<RouteId> = Some(RouteId(7));

    fn millis(millis: u64) -> usize {
        slot(Duration::from_millis(millis))
    }

    fn seconds(recent: &mut Recent, seconds: u32) {
        (0..seconds * 10).for_each(|_| recent.tick());
    }

    #[test]
    fn nothing_is_slow_before_there_is_enough_to_compare_with() {
        let mut recent = Recent::default();
        for _ in 0..99 {
            recent.learn(ROUTE, millis(10));
        }
        seconds(&mut recent, 1);
        assert!(!recent.is_slow(ROUTE, millis(60_000)));
        recent.learn(ROUTE, millis(10));
        seconds(&mut recent, 1);
        assert!(recent.is_slow(ROUTE, millis(12)) && !recent.is_slow(ROUTE, millis(10)));
        assert!(!recent.is_slow(Some(RouteId(8)), millis(60_000)), "another route");
        assert!(!recent.is_slow(None, millis(60_000)), "no route");
    }

    #[test]
    fn of_a_hundred_one_is_slow() {
        let mut recent = Recent::default();
        for request in 0..10_000 {
            recent.learn(None, millis(1 + request % 1_000));
        }
        seconds(&mut recent, 1);
        let slow = (1..=1_000).filter(|duration| recent.is_slow(None, millis(*duration))).count();
        assert!((0..=10).contains(&slow), "{slow}");
        assert!(recent.is_slow(None, millis(1_100)));
    }

    #[test]
    fn a_route_that_has_become_slow_is_normal_after_minutes_and_a_quick_one_again_too() {
        let mut recent = Recent::default();
        for (duration, other) in [(10, 1_000), (1_000, 3_000), (10, 1_000)] {
            for _ in 0..12 * 60 {
                (0..10).for_each(|_| recent.learn(ROUTE, millis(duration)));
                seconds(&mut recent, 1);
            }
            assert!(!recent.is_slow(ROUTE, millis(duration)), "{duration}");
            assert!(recent.is_slow(ROUTE, millis(other)), "{other} beside {duration}");
        }
    }

    #[test]
    fn a_quiet_route_does_not_forget() {
        let mut recent = Recent::default();
        (0..150).for_each(|_| recent.learn(ROUTE, millis(10)));
        seconds(&mut recent, 3_600);
        assert!(recent.is_slow(ROUTE, millis(20)));
    }

    #[test]
    fn memory_is_bounded_by_the_number_of_routes() {
        let mut recent = Recent::default();
        (0..=u16::MAX).for_each(|number| recent.learn(Some(RouteId(number)), 3));
        assert_eq!(recent.routes.iter().flatten().count(), MAX_ROUTES);
    }

    proptest! {
        #[test]
        fn a_slot_is_within_an_eighth(nanos in 1_000_000_u64..100_000_000_000) {
            let this = slot(Duration::from_nanos(nanos));
            prop_assert!(slot(Duration::from_nanos(nanos + nanos / 7 + (1 << 16))) > this, "an eighth more is another one");
            prop_assert!(slot(Duration::from_nanos(nanos + 1)) <= this + 1, "none is left out");
        }

        #[test]
        fn every_duration_has_a_slot(nanos: u64) {
            prop_assert!(slot(Duration::from_nanos(nanos)) < SLOTS);
        }
    }
}
