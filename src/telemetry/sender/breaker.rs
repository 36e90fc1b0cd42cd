//! When a destination is tried: at once while it answers, with growing pauses when it does not.
//!
//! Pure: time and chance are arguments. After five failures in a row the breaker opens: then one small request at a
//! time asks whether the receiver is back, so that an outage costs nearly nothing and ends within 20 s of its cause.

use std::time::Duration;

use tokio::time::Instant;

/// So many failures in a row open the breaker.
const FAILURES: u32 = 5;
/// Pauses while it is closed: doubling, each drawn between zero and its bound, so that many senders spread.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// Pauses between probes: doubling, each drawn from the upper half of its bound. The longest, and the timeout of a request that was
/// on its way when the receiver returned, are less than 20 s together.
const PROBE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(8));
/// A probe may take this long, and longer from probe to probe: a receiver that is only slow must not stay locked out.
const PROBE_TIMEOUT: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(5));

/// What one may do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permit {
    /// Send.
    Send,
    /// Send one small request, with this timeout.
    Probe(Duration),
    /// Wait until then, or until the state changes.
    Wait(Instant),
    /// Somebody else asks already: wait for a change.
    Ask,
}

/// A change that is worth a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The receiver does not answer any more.
    Opened,
    /// It answers again.
    Closed,
}

/// The state of one destination.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Breaker {
    failures: u32,
    not_before: Option<Instant>,
    /// The receiver asked to be left alone until then; what another request is answered does not end that.
    asked: Option<Instant>,
    probing: bool,
}

impl Breaker {
    pub(crate) fn permit(&mut self, now: Instant) -> Permit {
        if let Some(until) = self.wait(now) {
            return Permit::Wait(until);
        }
        if !self.is_open() {
            return Permit::Send;
        }
        if std::mem::replace(&mut self.probing, true) {
            return Permit::Ask;
        }
        let probes = self.failures - FAILURES;
        Permit::Probe((PROBE_TIMEOUT.0 + Duration::from_secs(probes.into())).min(PROBE_TIMEOUT.1))
    }

    /// Until when nothing may be sent, if anything forbids it.
    pub(crate) fn wait(&self, now: Instant) -> Option<Instant> {
        self.not_before.max(self.asked).filter(|until| *until > now)
    }

    /// The receiver answered, whatever it said of the request.
    pub(crate) fn answered(&mut self) -> Option<Change> {
        let was_open = self.is_open();
        *self = Self { asked: self.asked, ..Self::default() };
        was_open.then_some(Change::Closed)
    }

    /// A probe was not sent after all.
    pub(crate) fn unused(&mut self) {
        self.probing = false;
    }

    /// An attempt failed; `chance` from 0 to 1, `floor` as the receiver asked for.
    pub(crate) fn failed(&mut self, now: Instant, floor: Option<Duration>, chance: f64) -> Option<Change> {
        let was_open = self.is_open();
        self.failures = self.failures.saturating_add(1);
        self.probing = false;
        let pause = if self.is_open() {
            doubled(PROBE, self.failures - FAILURES).mul_f64(0.5 + chance / 2.0)
        } else {
            doubled(RETRY, self.failures - 1).mul_f64(chance)
        };
        self.not_before = self.not_before.max(Some(now + pause));
        self.asked = self.asked.max(floor.map(|floor| now + floor));
        (!was_open && self.is_open()).then_some(Change::Opened)
    }

    /// Whether the last attempts failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Whether only probes are sent.
    pub(crate) fn is_open(&self) -> bool {
        self.failures >= FAILURES
    }
}

fn doubled((first, last): (Duration, Duration), times: u32) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[tokio::test(start_paused = true)]
    async fn five_failures_open_it_and_one_answer_closes_it() {
        let mut breaker = Breaker::default();
        let mut now = Instant::now();
        for round in 1..=7 {
            now += Duration::from_secs(60);
            let permit = breaker.permit(now);
            assert_eq!(matches!(permit, Permit::Probe(_)), round > 5, "{permit:?}");
            assert_eq!(breaker.failed(now, None, 0.5), (round == 5).then_some(Change::Opened));
        }
        now += Duration::from_secs(60);
        assert!(matches!(breaker.permit(now), Permit::Probe(_)));
        assert_eq!(breaker.permit(now), Permit::Ask);
        assert_eq!(breaker.answered(), Some(Change::Closed));
        assert_eq!(breaker.permit(now), Permit::Send);
    }

    /// How long is waited after each of so many failures in a row, in milliseconds, by this chance.
    fn pauses(failures: usize, chance: f64) -> Vec<u128> {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        let pause = |_| {
            breaker.permit(now);
            breaker.failed(now, None, chance);
            let until = breaker.wait(now).unwrap_or(now);
            let pause = until - now;
            now = until;
            pause.as_millis()
        };
        (0..failures).map(pause).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_double_to_eight_seconds_and_chance_takes_all_of_a_retrys_and_half_of_a_probes() {
        assert_eq!(pauses(8, 1.0), [500, 1_000, 2_000, 4_000, 2_000, 4_000, 8_000, 8_000]);
        assert_eq!(pauses(8, 0.5), [250, 500, 1_000, 2_000, 1_500, 3_000, 6_000, 6_000]);
        assert_eq!(pauses(8, 0.0), [0, 0, 0, 0, 1_000, 2_000, 4_000, 4_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_floor_outlasts_the_pause() {
        let mut breaker = Breaker::default();
        let now = Instant::now();
        breaker.failed(now, Some(Duration::from_secs(90)), 0.1);
        breaker.failed(now, None, 0.1);
        assert_eq!(breaker.permit(now), Permit::Wait(now + Duration::from_secs(90)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_floor_outlasts_the_answer_to_a_request_that_was_on_its_way() {
        let mut breaker = Breaker::default();
        let now = Instant::now();
        breaker.failed(now, Some(Duration::from_secs(90)), 0.1);
        breaker.answered();
        assert_eq!(breaker.permit(now), Permit::Wait(now + Duration::from_secs(90)));
        assert_eq!(breaker.permit(now + Duration::from_secs(90)), Permit::Send);
    }

    /// What one sees of a receiver.
    #[derive(Clone, Debug)]
    enum Event {
        /// An attempt failed, with this chance, after so many milliseconds.
        Failed(f64, u64),
        /// The same, and the receiver asked for so many seconds.
        Asked(f64, u64),
        Answered,
        /// A probe was not sent after all.
        Unused,
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            6 => (0.0_f64..=1.0, 0_u64..10_000).prop_map(|(chance, after)| Event::Failed(chance, after)),
            1 => (0.0_f64..=1.0, 0_u64..600).prop_map(|(chance, asked)| Event::Asked(chance, asked)),
            1 => Just(Event::Answered),
            1 => Just(Event::Unused),
        ];
        prop::collection::vec(event, 0..60)
    }

    /// What became of a breaker after these events, and when that was.
    fn lived(events: &[Event]) -> (Breaker, Instant) {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        for event in events {
            match event {
                Event::Failed(chance, after) => {
                    now += Duration::from_millis(*after);
                    breaker.permit(now);
                    breaker.failed(now, None, *chance);
                }
                Event::Asked(chance, asked) => {
                    breaker.failed(now, Some(Duration::from_secs(*asked)), *chance);
                }
                Event::Answered => {
                    breaker.answered();
                }
                Event::Unused => breaker.unused(),
            }
        }
        (breaker, now)
    }

    proptest! {
        /// As long as nobody asked for more, an attempt is never further away than the longest pause.
        #[test]
        fn whatever_has_failed_the_next_attempt_is_near_unless_the_receiver_asked_for_more(events in events()) {
            let (breaker, now) = lived(&events);
            let next = breaker.wait(now).unwrap_or(now);
            prop_assert!(next <= (now + PROBE.1.max(RETRY.1)).max(breaker.asked.unwrap_or(now)));
            prop_assert_eq!(Breaker { not_before: None, asked: None, ..breaker }.wait(now), None);
        }

        /// The receiver returns while attempts are on their way that it never saw; they run into their timeouts. The first that
        /// begins after its return is answered.
        #[test]
        fn an_outage_of_any_course_ends_within_20_seconds_of_its_cause(
            events in events(),
            on_their_way in prop::collection::vec((0_u64..=10_000, 0.0_f64..=1.0), 0..16),
        ) {
            let (mut breaker, returned) = lived(&events);
            breaker.asked = None;
            let mut failures = if breaker.is_open() {
                // one probe is all there is
                on_their_way.into_iter().take(1).map(|(after, chance)| (after / 2, chance)).collect()
            } else {
                on_their_way
            };
            failures.sort_by_key(|(after, _)| *after);
            let mut begun = None;
            for (after, chance) in failures {
                let fails = returned + Duration::from_millis(after);
                let next = breaker.wait(returned).unwrap_or(returned);
                if next < fails && !breaker.is_open() {
                    begun = Some(next);
                    break;
                }
                breaker.failed(fails, None, chance);
            }
            let begun = begun.unwrap_or_else(|| breaker.wait(returned).unwrap_or(returned));
            prop_assert!(begun - returned < Duration::from_secs(20), "{:?}", begun - returned);
        }
    }
}
