//! What the room knows: the account, the queues, and how the two connections fare. One lock, held for microseconds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::redact::Redactor;
use crate::tasks::celery::board::Board;
use crate::tasks::celery::config::Config;
use crate::tasks::celery::ledger::Ledger;
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
