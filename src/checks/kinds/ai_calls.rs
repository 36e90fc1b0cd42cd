//! The check of an AI service by the application's real calls: what passes the egress port tells a key that was revoked, one that
//! may not, a quota and an outage apart, and costs nothing, neither a call nor a key.
//!
//! Where nobody calls nothing is known, and that is said with its age; a key of its own, where there is one, is then asked with.
//! How few failures are too many stands here; who counts them is the egress room.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::checks::check::{Check, Finding};
use crate::checks::failure::{Class, Failure};
use crate::checks::kinds::ai::{self, Ai};
use crate::checks::kinds::env::Env;
use crate::checks::plan::{Kind, Plan, Reading};
use crate::checks::service::Pace;
use crate::model::ai_outcomes::{AiCounts, AiOutcome, AiOutcomes};
use crate::model::health::HealthStatus;
use crate::model::trouble::Trouble;
use crate::redact::Clean;
use crate::settings::show_duration;

/// Looks at real calls, and asks itself only while there are none.
pub(in crate::checks) struct AiCalls {
    calls: AiOutcomes,
    window: Duration,
    /// `None`: it has no key of its own.
    asks: Option<Asks>,
}

/// A question of our own, and what came of the last one.
struct Asks {
    ai: Ai,
    last: Mutex<Option<(Instant, Result<Finding, Failure>)>>,
}

/// The built-in check of AI services: the presence of keys, and what real calls tell of them.
pub(in crate::checks) struct AiServices {
    /// `None` when no keys are looked for.
    keys: Option<Env>,
    calls: AiCalls,
}

/// What the calls of a window say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nobody called, or what was called tells nothing.
    Quiet,
    Works,
    /// So many of so many failed, most of them so.
    Degraded(AiOutcome, u64, u64),
    /// They fail, most of them so.
    Fails(AiOutcome),
}

pub(super) const KIND: Kind = Kind {
    word: "ai_calls",
    about: "the application's real calls of its AI service, as they pass `egress`: they tell `key_revoked`, `forbidden`, `quota` and an outage \
            (`timeout`, `unreachable`, `server_error`) apart without a call and a key of the check's own",
    // a window damps by itself
    pace: Pace::seconds(30, 15).at_once(),
    read,
};

/// Long enough for a call now and then, and short enough to be of now.
const WINDOW: Duration = Duration::from_secs(600);
const SHORTEST: Duration = Duration::from_secs(60);
/// Between two questions of our own: as the kind `ai` asks.
const ASK_EACH: Duration = Duration::from_secs(300);

/// So many failures in a row are no accident; a package tries a call twice again by itself.
const ROW: u64 = 3;
/// From so many calls on a share says something by itself.
const MANY: u64 = 10;

fn read(reading: &mut Reading<'_, '_>) -> Option<Plan> {
    let section = &mut *reading.section;
    let about = "How far back calls are looked at, up to half an hour; where none is in it, nothing is known.";
    let window = section.duration("window", WINDOW, about);
    if !(SHORTEST..=AiOutcomes::LONGEST).contains(&window) {
        section.problem("window", show_duration(window), "a duration from 1m to 30m");
    }
    let about = "A key to ask with while nobody calls, each 5m at most; without it nothing is asked.";
    let asked = ai::read_call(section, about)?;
    Some(Plan::perhaps(move |means| {
        let calls = means.calls.clone()?;
        let asks = asked.as_ref().map(|asked| asked.make(&means.trust));
        let asks = asks.map(|ai| ai.map(|ai| Asks { ai, last: Mutex::default() }));
        match asks {
            Some(None) => None,
            asks => Some(AiCalls { calls, window, asks: asks.flatten() }),
        }
    }))
}

impl AiCalls {
    /// Looks at these calls, and asks nobody.
    pub(in crate::checks) fn new(calls: AiOutcomes) -> Self {
        Self { calls, window: WINDOW, asks: None }
    }
}

impl AiServices {
    /// Puts the presence of keys and what calls say together.
    pub(in crate::checks) fn new(keys: Option<Env>, calls: AiOutcomes) -> Self {
        Self { keys, calls: AiCalls::new(calls) }
    }
}

#[async_trait]
impl Check for AiCalls {
    async fn run(&self) -> Result<Finding, Failure> {
        let counts = self.calls.within(self.window, Instant::now());
        match (judge(&counts), &self.asks) {
            (Verdict::Quiet, Some(asks)) => asks.answer().await,
            (Verdict::Quiet, None) => Ok(Finding::Told(HealthStatus::Unknown, quiet(counts.silence))),
            (verdict, _) => told(verdict),
        }
    }
}

#[async_trait]
impl Check for AiServices {
    async fn run(&self) -> Result<Finding, Failure> {
        let Some(keys) = &self.keys else { return self.calls.run().await };
        let counts = self.calls.calls.within(self.calls.window, Instant::now());
        match judge(&counts) {
            // what answers has its key; whether the others are there is still a question
            Verdict::Quiet | Verdict::Works => keys.run().await,
            verdict @ Verdict::Fails(_) => told(verdict),
            verdict @ Verdict::Degraded(..) => match keys.run().await? {
                Finding::Told(HealthStatus::Unhealthy, words) => Ok(Finding::Told(HealthStatus::Unhealthy, words)),
                _ => told(verdict),
            },
        }
    }
}

impl Asks {
    /// The last answer, or a new one when that is old.
    async fn answer(&self) -> Result<Finding, Failure> {
        let now = Instant::now();
        if let Some((at, answer)) = &*self.last.lock().unwrap_or_else(PoisonError::into_inner)
            && now.saturating_duration_since(*at) < ASK_EACH
        {
            return answer.clone();
        }
        // a question that is cut off leaves this behind
        self.keep(now, Err(Failure::plain(Trouble::Timeout)));
        let answer = self.ai.run().await;
        self.keep(now, answer.clone());
        answer
    }

    fn keep(&self, at: Instant, answer: Result<Finding, Failure>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, answer));
    }
}

/// Judges the calls of a window. Pure.
fn judge(counts: &AiCounts) -> Verdict {
    let works = counts.calls[AiOutcome::Works as usize];
    let failed = failures(&counts.calls);
    let (row, all) = (failures(&counts.since_success), works + failed);
    // a key does not come and go like a packet
    let is_revoked = counts.since_success[AiOutcome::KeyRevoked as usize] > 0;
    if all == 0 {
        return Verdict::Quiet;
    }
    if row >= ROW || is_revoked {
        return Verdict::Fails(most(&counts.since_success));
    }
    let worst = most(&counts.calls);
    // who is told to slow down and gets on is not down
    if all >= MANY && failed * 2 >= all && worst != AiOutcome::Quota {
        return Verdict::Fails(worst);
    }
    if failed * 10 >= all { Verdict::Degraded(worst, failed, all) } else { Verdict::Works }
}

fn failures(calls: &[u64]) -> u64 {
    let tells = |outcome: &&AiOutcome| !matches!(outcome, AiOutcome::Works | AiOutcome::Untold);
    AiOutcome::ALL.iter().filter(tells).map(|outcome| calls[*outcome as usize]).sum()
}

/// The failure that most calls met: those of an outage are put together before they are told apart.
fn most(calls: &[u64]) -> AiOutcome {
    use AiOutcome::{Failing, Forbidden, KeyRevoked, Quota};
    let of = |outcome: AiOutcome| calls[outcome as usize];
    let outage = AiOutcome::OUTAGE.map(of).iter().sum::<u64>();
    let refusal = [Quota, Forbidden, KeyRevoked].into_iter().max_by_key(|outcome| of(*outcome)).unwrap_or(KeyRevoked);
    if of(refusal) >= outage && of(refusal) > 0 {
        return refusal;
    }
    AiOutcome::OUTAGE.into_iter().max_by_key(|outcome| of(*outcome)).unwrap_or(Failing)
}

fn told(verdict: Verdict) -> Result<Finding, Failure> {
    match verdict {
        Verdict::Quiet => Ok(Finding::Told(HealthStatus::Unknown, quiet(None))),
        Verdict::Works => Ok(Finding::Works),
        Verdict::Fails(outcome) => Err(Failure::plain(Class::Condition(outcome.word()))),
        Verdict::Degraded(outcome, failed, all) => {
            let words = [
                Clean::number(failed),
                Clean::literal(" of "),
                Clean::number(all),
                Clean::literal(" calls of the AI service failed, most by "),
                Clean::literal(outcome.word()),
            ];
            Ok(Finding::Told(HealthStatus::Degraded, Clean::concat(&words)))
        }
    }
}

/// The words for a silence.
fn quiet(silence: Option<Duration>) -> Clean<'static> {
    let Some(silence) = silence else { return Clean::literal("no call of the AI service seen yet") };
    let minutes = Clean::number(silence.as_secs() / 60);
    Clean::concat(&[
        Clean::literal("no recent call of the AI service, the last one "),
        minutes,
        Clean::literal(" min ago"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use AiOutcome::{Failing, Forbidden, KeyRevoked, Quota, Timeout, Unreachable, Untold, Works};

    /// The calls of a minute, in their order.
    fn counts(calls: &[(u64, AiOutcome)]) -> AiCounts {
        let (outcomes, now) = (AiOutcomes::default(), Instant::now());
        for (count, outcome) in calls {
            (0..*count).for_each(|_| outcomes.add(*outcome, now));
        }
        outcomes.within(WINDOW, now)
    }

    #[test]
    fn a_revoked_key_a_quota_and_an_outage_are_told_apart_by_their_share_and_their_kind() {
        for (calls, expected) in [
            (&[][..], Verdict::Quiet),
            (&[(9, Untold)], Verdict::Quiet),
            (&[(1, Works)], Verdict::Works),
            (&[(50, Works), (1, KeyRevoked)], Verdict::Fails(KeyRevoked)),
            (&[(1, KeyRevoked), (50, Works)], Verdict::Works),
            (&[(1, Works), (2, Timeout)], Verdict::Degraded(Timeout, 2, 3)),
            (&[(100, Works), (2, Timeout)], Verdict::Works),
            (&[(100, Works), (3, Timeout)], Verdict::Fails(Timeout)),
            (&[(1, Failing)], Verdict::Degraded(Failing, 1, 1)),
            (&[(3, Quota)], Verdict::Fails(Quota)),
            (&[(20, Quota), (5, Works)], Verdict::Degraded(Quota, 20, 25)),
            (&[(20, Failing), (5, Works)], Verdict::Fails(Failing)),
            (&[(10, Forbidden), (90, Works)], Verdict::Degraded(Forbidden, 10, 100)),
            (&[(9, Forbidden), (91, Works)], Verdict::Works),
            // no one word of an outage is the most frequent, and an outage it is
            (&[(2, Quota), (1, Timeout), (1, Failing), (1, Unreachable)], Verdict::Fails(Failing)),
            (&[(2, Quota), (2, Timeout), (1, Failing)], Verdict::Fails(Timeout)),
            (&[(2, Works), (5, Untold)], Verdict::Works),
        ] {
            assert_eq!(judge(&counts(calls)), expected, "{calls:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silence_is_unknown_and_tells_its_age() {
        let calls = AiOutcomes::default();
        let check = AiCalls::new(calls.clone());
        let unknown = |words: &'static str| Ok(Finding::Told(HealthStatus::Unknown, Clean::literal(words)));
        assert_eq!(check.run().await, unknown("no call of the AI service seen yet"));
        calls.add(Works, Instant::now());
        assert_eq!(check.run().await, Ok(Finding::Works));
        tokio::time::advance(Duration::from_secs(2 * 3_600 + 20)).await;
        assert_eq!(check.run().await, unknown("no recent call of the AI service, the last one 120 min ago"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_built_in_check_keeps_its_words_until_calls_fail() {
        let calls = AiOutcomes::default();
        let key = ai_key(&["OPENAI_API_KEY"]);
        let check = AiServices::new(Some(Env::new(vec![key], None)), calls.clone());
        let present = Ok(Finding::Told(HealthStatus::Healthy, Clean::literal("OpenAI API key configured")));
        assert_eq!(check.run().await, present);
        calls.add(Works, Instant::now());
        assert_eq!(check.run().await, present);
        calls.add(KeyRevoked, Instant::now());
        assert_eq!(check.run().await.map_err(|failure| failure.class), Err(Class::Condition("key_revoked")));
        let without = AiServices::new(None, calls);
        assert_eq!(without.run().await.map_err(|failure| failure.class), Err(Class::Condition("key_revoked")));
    }

    #[tokio::test]
    async fn a_missing_key_is_worse_than_some_calls_that_fail() {
        let calls = AiOutcomes::default();
        [Works, Timeout].into_iter().for_each(|outcome| calls.add(outcome, Instant::now()));
        let degraded = AiServices::new(Some(Env::new(vec![ai_key(&["OPENAI_API_KEY"])], None)), calls.clone());
        let words = "1 of 2 calls of the AI service failed, most by timeout";
        assert_eq!(degraded.run().await, Ok(Finding::Told(HealthStatus::Degraded, Clean::literal(words))));
        let missing = AiServices::new(Some(Env::new(vec![ai_key(&[])], None)), calls);
        assert!(matches!(missing.run().await, Ok(Finding::Told(HealthStatus::Unhealthy, _))));
    }

    /// The key, in an environment of these variables.
    fn ai_key(environment: &'static [&str]) -> crate::checks::kinds::env::Key {
        crate::checks::kinds::env::Key::new("OPENAI_API_KEY".into(), &move |name| environment.contains(&name))
    }
}
