//! What a check remembers beyond one life of the sidecar: its last success, and how its results of the last 24 hours went. Pure.

use serde_json::{Value, json};

use crate::checks::uptime::Uptime;

/// The memory of one check.
#[derive(Default)]
pub(super) struct Past {
    pub(super) uptime: Uptime,
    /// When it was last found to work, in seconds since the Unix epoch.
    pub(super) last_ok: Option<f64>,
}

impl Past {
    /// As it is written down.
    pub(super) fn told(&self) -> Value {
        json!({ "last_ok": self.last_ok, "uptime": self.uptime.counts().collect::<Vec<_>>() })
    }

    /// Adds what was written down in an earlier life; what cannot be read, is too old or lies ahead of `now` tells nothing.
    pub(super) fn add(&mut self, told: &Value, now: f64) {
        let last_ok = told["last_ok"].as_f64().filter(|at| (0.0..=now).contains(at));
        self.last_ok = self.last_ok.or(last_ok);
        for count in told["uptime"].as_array().into_iter().flatten() {
            let number = |index: usize| count[index].as_u64();
            if let (Some(slot), Some(good), Some(all)) = (number(0), number(1), number(2)) {
                self.uptime.add(slot, (good, all), now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: f64 = 1_795_996_800.0;

    #[test]
    fn what_is_written_down_is_read_again_and_goes_on() {
        let mut before = Past { last_ok: Some(NOW - 90.0), ..Past::default() };
        before.uptime.take(NOW - 3_600.0, false);
        before.uptime.take(NOW - 90.0, true);
        let mut after = Past::default();
        after.uptime.take(NOW, true);
        after.add(&before.told(), NOW);
        assert_eq!((after.last_ok, after.uptime.ratio()), (Some(NOW - 90.0), Some(2.0 / 3.0)));
        after.uptime.take(NOW + 84_000.0, true);
        assert_eq!(after.uptime.ratio(), Some(1.0), "the failure is a day old");
    }

    #[test]
    fn what_is_newer_wins_and_what_is_wrong_tells_nothing() {
        let mut past = Past { last_ok: Some(NOW - 1.0), ..Past::default() };
        for told in [
            json!({"last_ok": NOW - 500.0, "uptime": [[0, 1, 1]]}),
            json!({"last_ok": NOW + 500.0, "uptime": [[u64::MAX, 1, 1], [3_000_000, 0, 5]]}),
            json!({"last_ok": "x", "uptime": [[1], "x", [1_995_552, 9, 2], [1_995_552, -1, 2], null]}),
            json!({"uptime": 5}),
            json!(null),
            json!([]),
        ] {
            past.add(&told, NOW);
        }
        assert_eq!((past.last_ok, past.uptime.ratio()), (Some(NOW - 1.0), None));
    }

    proptest! {
        #[test]
        fn whatever_is_written_there_the_share_stays_a_share(counts in proptest::collection::vec((0_u64..4_000_000, 0_u64..9, 0_u64..9), 0..200)) {
            let mut past = Past::default();
            past.add(&json!({ "uptime": counts }), NOW);
            prop_assert!(past.uptime.ratio().is_none_or(|ratio| (0.0..=1.0).contains(&ratio)));
        }
    }
}
