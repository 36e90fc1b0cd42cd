//! The share of good results in the last 24 hours, in 96 counts of a quarter of an hour each. Pure.

/// In seconds.
const SLOT: u64 = 900;
const SLOTS: u64 = 96;

/// Counts results by the quarter of an hour in which they came.
pub(super) struct Uptime {
    slots: [Slot; SLOTS as usize],
    /// The number of the newest slot since the Unix epoch.
    newest: u64,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    good: u32,
    all: u32,
}

impl Default for Uptime {
    fn default() -> Self {
        Self { slots: [Slot::default(); SLOTS as usize], newest: 0 }
    }
}

impl Uptime {
    /// Takes a result of this moment, in seconds since the Unix epoch; one of a clock that was set back counts as of now.
    #[expect(clippy::fn_params_excessive_bools, reason = "a result is one of two")]
    pub(super) fn take(&mut self, at: f64, is_good: bool) {
        self.advance(at);
        let slot = &mut self.slots[(self.newest % SLOTS) as usize];
        slot.good = slot.good.saturating_add(u32::from(is_good));
        slot.all = slot.all.saturating_add(1);
    }

    /// The counts that there are, each as the number of its slot since the Unix epoch, the good ones and all.
    pub(super) fn counts(&self) -> impl Iterator<Item = (u64, u32, u32)> {
        let numbers = self.newest.saturating_sub(SLOTS - 1)..=self.newest;
        let counts = numbers.map(|number| (number, self.slots[(number % SLOTS) as usize]));
        counts.filter(|(_, slot)| slot.all > 0).map(|(number, slot)| (number, slot.good, slot.all))
    }

    /// Adds counts of an earlier life, by the number of their slot; not those that are older than a day, or lie ahead.
    pub(super) fn add(&mut self, number: u64, (good, all): (u64, u64), now: f64) {
        self.advance(now);
        let is_of_the_day = number <= self.newest && number + SLOTS > self.newest;
        let (Ok(good), Ok(all)) = (u32::try_from(good), u32::try_from(all)) else { return };
        if is_of_the_day && good <= all {
            let slot = &mut self.slots[(number % SLOTS) as usize];
            (slot.good, slot.all) = (slot.good.saturating_add(good), slot.all.saturating_add(all));
        }
    }

    /// Lets go of what is a day old at this moment.
    fn advance(&mut self, at: f64) {
        let slot = at.max(0.0) as u64 / SLOT;
        for passed in (self.newest + 1..=slot).rev().take(SLOTS as usize) {
            self.slots[(passed % SLOTS) as usize] = Slot::default();
        }
        self.newest = self.newest.max(slot);
    }

    /// From 0 to 1; `None` without any result.
    pub(super) fn ratio(&self) -> Option<f64> {
        let sum = |part: fn(&Slot) -> u32| self.slots.iter().map(part).map(f64::from).sum::<f64>();
        let all = sum(|slot| slot.all);
        (all > 0.0).then(|| sum(|slot| slot.good) / all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: f64 = 86_400.0;

    #[test]
    fn a_result_counts_for_a_day_and_no_longer() {
        let mut uptime = Uptime::default();
        assert_eq!(uptime.ratio(), None);
        let start = 20_000.0 * DAY;
        uptime.take(start, false);
        uptime.take(start + 60.0, true);
        assert_eq!(uptime.ratio(), Some(0.5));
        uptime.take(start + DAY - 1_000.0, true);
        assert_eq!(uptime.ratio(), Some(2.0 / 3.0));
        uptime.take(start + DAY, true);
        assert_eq!(uptime.ratio(), Some(1.0), "the failure is a day old");
        uptime.take(start + 30.0 * DAY, false);
        assert_eq!(uptime.ratio(), Some(0.0));
        uptime.take(start, true);
        assert_eq!(uptime.ratio(), Some(0.5), "a clock that was set back takes nothing away");
    }
}
