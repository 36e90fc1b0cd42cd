//! Medians of what is measured again and again: one slow answer changes nothing, most of them do. Pure, and bounded.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::model::traffic::RouteTraffic;

/// The last answers of a page that costs nothing.
#[derive(Debug, Default)]
pub(super) struct Answers(VecDeque<Duration>);

/// What the medians of the routes were of late, by template.
#[derive(Debug, Default)]
pub(super) struct Routes(BTreeMap<String, VecDeque<f64>>);

/// Answers that the median is of: odd, so that it was measured.
const ANSWERS: usize = 5;
/// With fewer there is no median to speak of.
const FEWEST: usize = 3;

/// The busiest routes speak for all.
const MOST_ROUTES: usize = 64;
/// A route with fewer requests in its window has no median to speak of.
const FEWEST_REQUESTS: u64 = 5;
/// One route may have its own reason.
const FEWEST_ROUTES: usize = 2;
/// Medians that the usual one is made of; after half as many new ones it is usual what was a jump.
const USUAL: usize = 40;
/// With fewer nothing is usual yet.
const FEWEST_USUAL: usize = 8;
/// A jump is so many times the usual, and at least so much more: a cache that is cold is no jump.
const TIMES: f64 = 3.0;
const MORE_SECONDS: f64 = 0.1;

impl Answers {
    /// Takes how long an answer took.
    pub(super) fn take(&mut self, took: Duration) {
        if self.0.len() == ANSWERS {
            self.0.pop_front();
        }
        self.0.push_back(took);
    }

    /// The median of the last five; `None` before there are three.
    pub(super) fn median(&self) -> Option<Duration> {
        let mut sorted: Vec<Duration> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        // of an even number the lower one: half of them being slow is not most
        (sorted.len() >= FEWEST).then(|| sorted[(sorted.len() - 1) / 2])
    }
}

impl Routes {
    /// Takes the routes as they are now; tells whether the medians of all have jumped at once.
    pub(super) fn take(&mut self, routes: &[RouteTraffic]) -> bool {
        let now: BTreeMap<&str, f64> = routes
            .iter()
            .filter(|route| route.window.requests >= FEWEST_REQUESTS)
            .filter_map(|route| Some((route.route.as_ref()?.as_str(), route.window.p50_seconds?)))
            .take(MOST_ROUTES)
            .collect();
        self.0.retain(|name, _| now.contains_key(name.as_str()));
        let mut jumped = Vec::new();
        for (name, median) in now {
            let past = self.0.entry(name.to_owned()).or_default();
            if past.len() >= FEWEST_USUAL {
                jumped.push(is_jump(median, middle(past)));
            }
            if past.len() == USUAL {
                past.pop_front();
            }
            past.push_back(median);
        }
        jumped.len() >= FEWEST_ROUTES && jumped.iter().all(|jumped| *jumped)
    }
}

fn is_jump(now: f64, usual: f64) -> bool {
    now > usual * TIMES && now > usual + MORE_SECONDS
}

/// The median of a list that is not empty.
fn middle(values: &VecDeque<f64>) -> f64 {
    let mut sorted: Vec<f64> = values.iter().copied().collect();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get((sorted.len().max(1) - 1) / 2).copied().unwrap_or(f64::INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::traffic::Window;
    use crate::redact::Clean;
    use proptest::prelude::*;

    const LIMIT: Duration = Duration::from_secs(1);

    /// Whether the median is above a second after each of these answers, in milliseconds.
    fn verdicts(answers: &[u64]) -> Vec<Option<bool>> {
        let mut kept = Answers::default();
        let take = |took: &u64| {
            kept.take(Duration::from_millis(*took));
            kept.median().map(|median| median > LIMIT)
        };
        answers.iter().map(take).collect()
    }

    #[test]
    fn a_slow_answer_changes_nothing_and_three_of_five_do() {
        let (yes, no) = (Some(true), Some(false));
        for (answers, expected) in [
            (&[2_000][..], vec![None]),
            (&[2_000, 5, 5], vec![None, None, no]),
            (&[5, 5, 2_000, 5, 5, 5], vec![None, None, no, no, no, no]),
            (&[2_000, 2_000, 2_000], vec![None, None, yes]),
            (&[5, 2_000, 5, 2_000, 5, 2_000], vec![None, None, no, no, no, yes]),
            (&[5, 2_000, 2_000, 5], vec![None, None, yes, no]),
            (&[2_000, 2_000, 2_000, 5, 5, 5], vec![None, None, yes, yes, yes, no]),
        ] {
            assert_eq!(verdicts(answers), expected, "{answers:?}");
        }
    }

    proptest! {
        #[test]
        fn the_median_is_above_the_limit_exactly_when_most_of_the_last_five_are(answers in prop::collection::vec(0_u64..2_000, 0..40)) {
            for (turn, found) in verdicts(&answers).into_iter().enumerate() {
                let last = &answers[(turn + 1).saturating_sub(ANSWERS)..=turn];
                let slow = last.iter().filter(|took| **took > 1_000).count();
                prop_assert_eq!(found, (last.len() >= FEWEST).then_some(slow * 2 > last.len()));
            }
        }

        #[test]
        fn one_slow_answer_among_quick_ones_is_never_told(at in 0_usize..30, took in 1_001_u64..1_000_000) {
            let mut answers = vec![5; 30];
            answers[at] = took;
            prop_assert!(verdicts(&answers).into_iter().all(|found| found != Some(true)));
        }
    }

    fn routes(medians: &[(&'static str, f64, u64)]) -> Vec<RouteTraffic> {
        let route = |(name, seconds, requests): &(&'static str, f64, u64)| {
            let p50_seconds = Some(*seconds);
            let length = Duration::from_secs(300);
            let window =
                Window { length, requests: *requests, errors: 0, p50_seconds, p95_seconds: None, p99_seconds: None };
            RouteTraffic { route: (!name.is_empty()).then(|| Clean::literal(name)), window }
        };
        medians.iter().map(route).collect()
    }

    /// Routes that were looked at ten times, and are usual as they are.
    fn settled() -> Routes {
        let mut known = Routes::default();
        let usual = routes(&[("/a", 0.02, 90), ("/b", 0.5, 9)]);
        assert!((0..10).all(|_| !known.take(&usual)));
        known
    }

    #[test]
    fn all_medians_must_jump_at_once() {
        for (now, expected) in [
            (&[("/a", 0.4, 90), ("/b", 2.0, 9)][..], true),
            (&[("/a", 0.4, 90), ("/b", 0.5, 9)], false),
            // three times as long, and a cold cache all the same
            (&[("/a", 0.08, 90), ("/b", 2.0, 9)], false),
            (&[("/a", 0.4, 90), ("/b", 0.9, 9)], false),
            // one alone is not all, and few requests have no median
            (&[("/a", 0.4, 90)], false),
            (&[("/a", 0.4, 90), ("/b", 2.0, 4)], false),
            // a new route, and what has no route, say nothing
            (&[("/a", 0.4, 90), ("/b", 2.0, 9), ("/c", 0.01, 50), ("", 0.01, 50)], true),
        ] {
            assert_eq!(settled().take(&routes(now)), expected, "{now:?}");
        }
    }

    #[test]
    fn what_lasts_is_usual_in_the_end() {
        let (mut known, slow) = (settled(), routes(&[("/a", 0.4, 90), ("/b", 2.0, 9)]));
        let told = (0..100).take_while(|_| known.take(&slow)).count();
        assert_eq!(told, 11, "until as many as before say so");
        assert!((0..100).all(|_| !known.take(&slow)));
    }

    #[test]
    fn an_endless_supply_of_routes_is_not_kept() {
        let mut known = Routes::default();
        let of =
            |number: u64| RouteTraffic { route: Some(Clean::number(number)), ..routes(&[("/x", 0.1, 9)])[0].clone() };
        for turn in 0..50 {
            let many: Vec<RouteTraffic> = (0..200).map(|route| of(turn * 1_000 + route)).collect();
            assert!(!known.take(&many));
        }
        assert_eq!(known.0.len(), MOST_ROUTES);
    }
}
