//! What the room knows: the account, the queues, and how the two connections fare. One lock, held for microseconds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::model::celery::PublishTasks;
use crate::redact::Redactor;
use crate::tasks::celery::board::Board;
use crate::tasks::celery::config::Config;
use crate::tasks::celery::ledger::Ledger;
use crate::tasks::celery::totals::Outcome;
use crate::tasks::celery::wire::Refusal;

/// Names of queues that become labels: those that are shown, and those that tasks were only sent to.
const MOST_QUEUE_NAMES: u16 = 100;

/// The state, shared by the parts of the room and its readers.
#[derive(Clone, Debug)]
pub(super) struct Shared(Arc<Mutex<State>>);

/// All that is known.
#[derive(Debug)]
pub(super) struct State {
    pub(super) ledger: Ledger,
    pub(super) board: Board,
    /// The connection on which events are heard.
    pub(super) hearing: Line,
    /// The connection on which queues are read and workers are told.
    pub(super) asking: Line,
    /// Messages on our channels.
    pub(super) messages: u64,
    pub(super) refused: [u64; Refusal::ALL.len()],
    /// Times that the hearing was lost, and when last.
    pub(super) gaps: u64,
    pub(super) last_gap: Option<Instant>,
    /// Whether anything of Celery was ever seen in this Redis.
    pub(super) is_found: bool,
    /// Names of the tasks that publish.
    publish_tasks: Vec<String>,
    /// How looks into waiting messages fare.
    pub(super) glances: Glances,
    /// Tasks that became no span, because an SDK in their worker tells of them.
    pub(super) told_by_sdk: u64,
    /// What the server does not let us do, by a word of ours.
    pub(super) not_allowed: Vec<&'static str>,
}

/// How a connection fares.
#[derive(Clone, Debug)]
pub(super) enum Line {
    /// Being opened, or waiting to be; why the last one ended.
    Down { since: Instant, problem: Option<&'static str>, tries: u64 },
    /// Open.
    Up { since: Instant },
}

/// Looks into waiting messages, which are of any size: what breaks the connection again and again is left.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Glances {
    is_on_its_way: bool,
    failures: u8,
}

impl Glances {
    /// Failures one after the other after which nobody looks any more.
    const MOST_FAILURES: u8 = 3;

    /// One begins, if it may.
    pub(super) fn begun(&mut self) -> bool {
        self.is_on_its_way = self.failures < Self::MOST_FAILURES;
        self.is_on_its_way
    }

    /// It has ended well.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// The connection has broken: perhaps by it.
    pub(super) fn failed(&mut self) {
        self.failures += u8::from(std::mem::take(&mut self.is_on_its_way));
    }

    /// The server does not let us.
    pub(super) fn refused(&mut self) {
        self.failures = Self::MOST_FAILURES;
    }
}

impl Line {
    /// Since when it is open.
    pub(super) fn up_since(&self) -> Option<Instant> {
        match self {
            Self::Up { since } => Some(*since),
            Self::Down { .. } => None,
        }
    }

    /// It is open.
    pub(super) fn opened(&mut self, now: Instant) {
        *self = Self::Up { since: now };
    }

    /// It could not be opened, or has ended. Gives whether it had been open.
    pub(super) fn failed(&mut self, problem: &'static str, now: Instant) -> bool {
        let (since, tries, was_up) = match self {
            Self::Up { .. } => (now, 0, true),
            Self::Down { since, tries, .. } => (*since, *tries, false),
        };
        *self = Self::Down { since, problem: Some(problem), tries: tries + 1 };
        was_up
    }
}

impl Shared {
    /// A state in which nothing is known.
    pub(super) fn new(config: &Config, redactor: &Arc<Redactor>) -> Self {
        let closed = Line::Down { since: Instant::now(), problem: None, tries: 0 };
        Self(Arc::new(Mutex::new(State {
            ledger: Ledger::new(config.lost_after, MOST_QUEUE_NAMES, redactor),
            board: Board::default(),
            hearing: closed.clone(),
            asking: closed,
            messages: 0,
            refused: [0; Refusal::ALL.len()],
            gaps: 0,
            last_gap: None,
            is_found: false,
            publish_tasks: config.publish_tasks.clone(),
            glances: Glances::default(),
            told_by_sdk: 0,
            not_allowed: Vec::new(),
        })))
    }

    /// The state; nobody may hold it across a wait.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Lets time pass.
    pub(super) fn tick(&mut self, now: Instant) {
        self.ledger.tick(self.hearing.up_since(), now);
    }

    /// How the tasks that publish have ended.
    pub(super) fn publishes(&self) -> PublishTasks {
        let mut ends = PublishTasks::default();
        for ((name, _), counts) in self.ledger.totals.pairs() {
            let name = self.ledger.names.shown(name);
            let last = name.as_str().rsplit('.').next();
            if self.publish_tasks.iter().any(|wanted| wanted == name.as_str() || Some(wanted.as_str()) == last) {
                let failed = Outcome::ALL.into_iter().filter(|outcome| outcome.is_failure());
                ends.published += counts.outcomes[Outcome::Succeeded as usize];
                ends.failed += failed.map(|outcome| counts.outcomes[outcome as usize]).sum::<u64>();
            }
        }
        ends
    }

    /// The hearing has begun, for the first time or again.
    pub(super) fn hears(&mut self, now: Instant) {
        self.hearing.opened(now);
        self.ledger.workers.ask_again();
    }

    /// The workers that live.
    pub(super) fn alive(&self, now: Instant) -> Vec<Arc<str>> {
        let all = self.ledger.workers.all(self.hearing.up_since(), now);
        all.filter(|(_, is_alive)| *is_alive).map(|(worker, _)| Arc::clone(&worker.host)).collect()
    }

    /// The hearing has ended or could not begin.
    pub(super) fn deaf(&mut self, problem: &'static str, now: Instant) {
        if self.hearing.failed(problem, now) {
            self.gaps += 1;
            self.last_gap = Some(now);
            self.ledger.deaf();
        }
    }

    /// The server does not let us do this; it is said once.
    pub(super) fn may_not(&mut self, what: &'static str) {
        if !self.not_allowed.contains(&what) {
            self.not_allowed.push(what);
            tracing::info!(reason = what, "the Redis of Celery does not allow it; docs/celery.md names the rights");
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;
    use crate::redact::Secret;
    use crate::settings::{Place, Settings, Tree};

    /// A state as it is without settings.
    pub(crate) fn shared(redactor: &Arc<Redactor>) -> Shared {
        let mut tree = Tree::default();
        tree.merge(json!({}), &Place("test".into()));
        let mut settings = Settings::new(tree, |_: &str| Err("no file".into()));
        let server = Secret::new(redis::Client::open("redis://h").unwrap());
        Shared::new(&Config::read(&mut settings.section(""), Some(&server)), redactor)
    }

    #[test]
    fn what_breaks_the_connection_three_times_is_left() {
        let mut glances = Glances::default();
        for _ in 0..2 {
            assert!(glances.begun());
            glances.failed();
            glances.failed(); // another failure is not its own
        }
        assert!(glances.begun());
        glances.succeeded();
        for _ in 0..3 {
            assert!(glances.begun());
            glances.failed();
        }
        assert!(!glances.begun());
    }
    #[tokio::test]
    async fn tasks_that_publish_are_known_by_their_name_or_its_last_part() {
        let shared = shared(&Arc::new(Redactor::new([])));
        let mut state = shared.lock();
        let queue = state.ledger.queues.id("q");
        let outcomes = [Outcome::Succeeded, Outcome::ResultError, Outcome::Failed, Outcome::Lost, Outcome::Revoked];
        for name in ["content_factory.tasks.publish_video", "publish_video_task", "tasks.publish_video.other", "render"]
        {
            let pair = (state.ledger.names.id(name), queue);
            for outcome in outcomes {
                state.ledger.totals.of(pair).outcomes[outcome as usize] += 1;
            }
        }
        let ends = state.publishes();
        assert_eq!((ends, ends.success_ratio()), (PublishTasks { published: 2, failed: 6 }, Some(0.25)));
        assert_eq!(PublishTasks::default().success_ratio(), None);
    }
}
