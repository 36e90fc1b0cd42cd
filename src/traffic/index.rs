//! The writer's own map from the key of a series to its place: open addressing, linear probing.
//!
//! Keys come from a few small fields, so one multiplication spreads them; hash flooding cannot grow the table,
//! because the number of series is capped and what is refused is not entered.

use crate::traffic::series::SeriesKey;

/// A map that only grows. One writer; no removal.
#[derive(Debug)]
pub(super) struct Index {
    /// A power of two of places; a key of 0 is an empty place.
    places: Box<[(u64, u32)]>,
    used: usize,
}

impl Index {
    pub(super) fn new() -> Self {
        Self { places: vec![(0, 0); 64].into(), used: 0 }
    }

    /// Finds a key, or the place where it belongs.
    pub(super) fn find(&self, key: SeriesKey) -> Option<usize> {
        let (found, series) = self.places[self.place_of(key.bits())];
        (found == key.bits()).then_some(series as usize)
    }

    /// Enters a key that is not there yet.
    pub(super) fn enter(&mut self, key: SeriesKey, series: u32) {
        // at most half full, so that a probe ends soon
        if (self.used + 1) * 2 > self.places.len() {
            let larger = vec![(0, 0); self.places.len() * 2].into();
            for (key, series) in std::mem::replace(&mut self.places, larger) {
                if key != 0 {
                    self.places[self.place_of(key)] = (key, series);
                }
            }
        }
        self.places[self.place_of(key.bits())] = (key.bits(), series);
        self.used += 1;
    }

    fn place_of(&self, key: u64) -> usize {
        let mask = self.places.len() - 1;
        // the high bits of the product depend on every bit of the key
        let mut place = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & mask;
        while self.places[place].0 != key && self.places[place].0 != 0 {
            place = (place + 1) & mask;
        }
        place
    }
}
