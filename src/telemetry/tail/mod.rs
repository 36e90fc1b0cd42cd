//! Tail-keep: which requests that the head left out are kept after all, because of how they ended.
//!
//! Belongs to a worker's span writer, on its thread: no clock, the worker's timer ticks, and it is with a tick that other settings
//! are taken. Keeps spans alone; metrics are of all requests and never come by here.

mod budget;
mod recent;

use tokio::sync::watch;

use crate::model::request::{Outcome, RequestKind, RequestRecord};
use crate::model::trace::Sampled;
use crate::telemetry::config::TailConfig;
use crate::telemetry::tail::budget::Budget;
use crate::telemetry::tail::recent::Recent;

/// Why the spans of a request are kept: the value of `content_factory.sampling.reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reason {
    /// The ratio, or a trusted caller, said so before it began.
    Head,
    /// It failed: 500 and above, a timeout, a reset.
    Error,
    /// It took longer than 99 % of its route's recent requests.
    Slow,
}

impl Reason {
    /// All reasons, in the order of their numbers.
    pub(crate) const ALL: [Self; 3] = [Self::Head, Self::Error, Self::Slow];
    /// Those of the tail.
    pub(crate) const TAIL: [Self; 2] = [Self::Error, Self::Slow];

    /// The value of the attribute, and of the label `reason`.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Error => "error",
            Self::Slow => "slow",
        }
    }
}

/// What becomes of the spans of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// They are kept.
    Kept(Reason),
    /// They would be, had the tail not kept so many in this second.
    OverBudget(Reason),
    /// They are not.
    LeftOut,
}

/// Judges the requests of one worker at their end.
#[derive(Debug)]
pub(crate) struct TailKeep {
    settings: watch::Receiver<TailConfig>,
    /// Those in force.
    config: TailConfig,
    /// Workers that share the budget evenly.
    workers: u32,
    /// From the first request on that the head leaves out: before it all are kept, and what they teach is not needed.
    learns: bool,
    recent: Recent,
    budget: Budget,
}

impl TailKeep {
    /// For one of so many workers, which share the budget evenly.
    pub(crate) fn new(mut settings: watch::Receiver<TailConfig>, workers: usize) -> Self {
        let workers = u32::try_from(workers).unwrap_or(u32::MAX).max(1);
        let config = *settings.borrow_and_update();
        let budget = Budget::new(config.per_second.div_ceil(workers));
        Self { settings, config, workers, learns: false, recent: Recent::default(), budget }
    }

    /// Judges a request that has ended, by what the head decided and how it went.
    #[inline]
    pub(crate) fn judge(&mut self, record: &RequestRecord<'_>, head: Sampled) -> Verdict {
        if head == Sampled::Yes && !self.learns {
            return Verdict::Kept(Reason::Head);
        }
        self.judge_the_end(record, head)
    }

    fn judge_the_end(&mut self, record: &RequestRecord<'_>, head: Sampled) -> Verdict {
        self.learns = self.config.slow;
        let is_error = record.is_error();
        // failures end at once or at a deadline: neither tells how long the route takes
        let is_slow = self.config.slow && !is_error && self.is_slow(record);
        match head {
            Sampled::Yes => Verdict::Kept(Reason::Head),
            Sampled::No if is_error && self.config.errors => self.afford(Reason::Error),
            Sampled::No if is_slow => self.afford(Reason::Slow),
            Sampled::No => Verdict::LeftOut,
        }
    }

    /// Compares with what the route took of late, and learns from it.
    fn is_slow(&mut self, record: &RequestRecord<'_>) -> bool {
        // a stream or a tunnel takes as long as its client likes
        if record.kind != RequestKind::Ordinary {
            return false;
        }
        let route = record.route.map(|route| route.id);
        let slot = recent::slot(record.duration);
        let is_slow = self.recent.is_slow(route, slot);
        // who left early says nothing of how long it would have taken; who waited long does
        if record.outcome == Outcome::Answered {
            self.recent.learn(route, slot);
        }
        is_slow
    }

    fn afford(&mut self, reason: Reason) -> Verdict {
        // a route that has become slow as a whole must not hide failures
        let reserve = if reason == Reason::Slow { self.budget.half() } else { 0 };
        if self.budget.take(reserve) { Verdict::Kept(reason) } else { Verdict::OverBudget(reason) }
    }

    /// About 100 ms have passed.
    pub(crate) fn tick(&mut self) {
        if self.settings.has_changed().unwrap_or(false) {
            self.config = *self.settings.borrow_and_update();
            self.budget.allow(self.config.per_second.div_ceil(self.workers));
        }
        self.budget.tick();
        self.recent.tick();
    }
}
