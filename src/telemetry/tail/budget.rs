//! How many requests the tail may keep: a bucket of tokens that fills with the worker's ticks.

/// The worker ticks about every 100 ms.
const TICKS_PER_SECOND: u32 = 10;

/// At most a second's worth at once, and so many a second in the long run.
#[derive(Debug)]
pub(super) struct Budget {
    per_second: u32,
    /// In tenths of a request, so that small budgets fill evenly.
    tenths: u32,
}

impl Budget {
    /// A full one.
    pub(super) fn new(per_second: u32) -> Self {
        Self { per_second, tenths: per_second.saturating_mul(TICKS_PER_SECOND) }
    }

    /// So many a second from now on; what is left of this second stays, as far as there is room for it.
    pub(super) fn allow(&mut self, per_second: u32) {
        self.per_second = per_second;
        self.tenths = self.tenths.min(per_second.saturating_mul(TICKS_PER_SECOND));
    }

    /// Half of what it holds at most, in requests.
    pub(super) fn half(&self) -> u32 {
        self.per_second / 2
    }

    /// Takes one request's worth, if so many are left besides.
    pub(super) fn take(&mut self, reserve: u32) -> bool {
        let is_enough = self.tenths >= reserve.saturating_add(1).saturating_mul(TICKS_PER_SECOND);
        if is_enough {
            self.tenths -= TICKS_PER_SECOND;
        }
        is_enough
    }

    /// A tenth of a second has passed.
    pub(super) fn tick(&mut self) {
        let full = self.per_second.saturating_mul(TICKS_PER_SECOND);
        self.tenths = self.tenths.saturating_add(self.per_second).min(full);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(budget: &mut Budget, reserve: u32) -> usize {
        (0..1_000).filter(|_| budget.take(reserve)).count()
    }

    #[test]
    fn a_second_at_once_and_then_as_time_passes() {
        let mut budget = Budget::new(25);
        assert_eq!(taken(&mut budget, 0), 25);
        budget.tick();
        assert_eq!(taken(&mut budget, 0), 2);
        (0..9).for_each(|_| budget.tick());
        assert_eq!(taken(&mut budget, 0), 23, "the half that was left is not lost");
        (0..1_000).for_each(|_| budget.tick());
        assert_eq!(taken(&mut budget, 0), 25, "what is not used does not pile up");
    }

    #[test]
    fn another_budget_is_no_second_one() {
        let mut budget = Budget::new(10);
        assert_eq!(taken(&mut budget, 0), 10);
        budget.allow(20);
        assert_eq!(taken(&mut budget, 0), 0);
        (0..10).for_each(|_| budget.tick());
        assert_eq!(taken(&mut budget, 0), 20);
        (0..10).for_each(|_| budget.tick());
        budget.allow(5);
        assert_eq!(taken(&mut budget, 0), 5);
    }

    #[test]
    fn a_reserve_is_left() {
        let mut budget = Budget::new(10);
        let half = budget.half();
        assert_eq!((taken(&mut budget, half), taken(&mut budget, 0)), (5, 5));
        assert_eq!(taken(&mut Budget::new(0), 0), 0);
        assert_eq!(taken(&mut Budget::new(1), 0), 1);
    }
}
