//! Damping: how many results it takes until the status moves. Pure.

use crate::model::health::HealthStatus;

/// How many results in a row move the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Thresholds {
    /// Worse ones, so that one lost packet does not flip it.
    pub(super) failure: u32,
    /// Better ones, so that one lucky answer does not either.
    pub(super) success: u32,
}

/// The status that stands, and the results that speak against it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Damping {
    standing: HealthStatus,
    worse: u32,
    better: u32,
    /// The result of the streak that is nearest to what stands: the status moves no further than all of them agree.
    nearest: HealthStatus,
}

impl Damping {
    /// Takes a result; gives the status that stands now. The first result ends `Unknown` at once.
    pub(super) fn take(&mut self, result: HealthStatus, thresholds: Thresholds) -> HealthStatus {
        if self.standing == HealthStatus::Unknown {
            *self = Self { standing: result, ..Self::default() };
        } else if result > self.standing {
            self.nearest = if self.worse == 0 { result } else { self.nearest.min(result) };
            (self.worse, self.better) = (self.worse + 1, 0);
            self.move_when(self.worse >= thresholds.failure);
        } else if result < self.standing {
            self.nearest = if self.better == 0 { result } else { self.nearest.max(result) };
            (self.worse, self.better) = (0, self.better + 1);
            self.move_when(self.better >= thresholds.success);
        } else {
            (self.worse, self.better) = (0, 0);
        }
        self.standing
    }

    #[expect(clippy::fn_params_excessive_bools, reason = "the condition of the one caller above")]
    fn move_when(&mut self, enough: bool) {
        if enough {
            *self = Self { standing: self.nearest, ..Self::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use HealthStatus::{Degraded as D, Healthy as H, Unhealthy as U, Unknown};

    const USUAL: Thresholds = Thresholds { failure: 3, success: 2 };

    #[test]
    fn it_takes_three_failures_to_go_down_and_two_successes_to_come_back() {
        for (results, standing) in [
            (&[H, U, U, U, H, H][..], &[H, H, H, U, U, H][..]),
            (&[H, U, U, H, U, U], &[H; 6]),
            (&[U, H, U, H, H], &[U, U, U, U, H]),
            (&[U], &[U]),
            (&[D, H], &[D, D]),
            (&[H, D, D, D], &[H, H, H, D]),
            (&[H, U, D, U], &[H, H, H, D]),
            (&[U, H, D], &[U, U, D]),
            (&[U, H, H, U], &[U, U, H, H]),
        ] {
            let mut damping = Damping::default();
            let seen: Vec<_> = results.iter().map(|result| damping.take(*result, USUAL)).collect();
            assert_eq!(seen, standing, "{results:?}");
        }
    }

    #[test]
    fn with_thresholds_of_one_each_result_counts() {
        let mut damping = Damping::default();
        assert_eq!(damping.standing, Unknown);
        for result in [H, U, D, H] {
            assert_eq!(damping.take(result, Thresholds { failure: 1, success: 1 }), result);
        }
    }
}
