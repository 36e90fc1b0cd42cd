//! What the room knows of its term, and what it may tell. One lock, held for microseconds and never while another room is read.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::lease::server::Problem;
use crate::lease::share::{Share, Start};
use crate::model::lease::{Heard, Hearing, Standing, Turn};
use crate::model::sample::{Sample, SampleSource};
use crate::redact::{Clean, Outlet, Redactor};

/// Somebody waits until counts are claimed.
pub(super) type Ask = (Turn, oneshot::Sender<()>);

/// The longest id of a holder that is shown.
const LONGEST_NAME: usize = 120;

/// Shared by the room and whoever asks it.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Where the cluster's numbers come from.
    pub(super) sources: Vec<SampleSource>,
    /// A mark was heard.
    pub(super) heard: Notify,
    pub(super) asks: mpsc::Sender<Ask>,
    /// Whether the lease was given back at the end of the process.
    pub(super) over: watch::Sender<bool>,
    pub(super) channel: String,
    redactor: Arc<Redactor>,
}

/// All that is known.
pub(super) struct State {
    pub(super) share: Share,
    pub(super) term: Option<Term>,
    /// Whether marks come back to us by way of Celery's connection.
    pub(super) hearing: Hearing,
    holder: Option<Clean<'static>>,
    problem: Option<Problem>,
    pub(super) failures: Vec<(Problem, u64)>,
    pub(super) taken: u64,
    pub(super) gaps: u64,
}

/// A time in which this replica speaks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Term {
    since: Instant,
    /// Before anybody else can have taken the lease, by a clock that nobody sets.
    until: Instant,
}

impl Shared {
    pub(super) fn new(
        sources: Vec<SampleSource>,
        asks: mpsc::Sender<Ask>,
        channel: String,
        hearing: Hearing,
        redactor: Arc<Redactor>,
    ) -> Self {
        let state = State {
            share: Share::new(),
            term: None,
            hearing,
            holder: None,
            problem: None,
            failures: Vec::new(),
            taken: 0,
            gaps: 0,
        };
        Self {
            state: Mutex::new(state),
            sources,
            heard: Notify::new(),
            asks,
            over: watch::Sender::new(false),
            channel,
            redactor,
        }
    }

    /// The state; nobody may hold it across a wait, nor while another room is read.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cluster's numbers as they are here and now.
    pub(super) fn samples(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        self.sources.iter().for_each(|source| source(&mut samples));
        samples
    }

    /// What is heard on the channel of marks.
    pub(super) fn hear(&self, heard: Heard) {
        match heard {
            Heard::Mark(number) => self.mark(number),
            Heard::Gap => self.lock().share.gap(),
            Heard::Refused => self.lock().hearing = Hearing::Off,
        }
    }

    /// The counts of now are those at this mark.
    pub(super) fn mark(&self, number: u64) {
        let samples = self.samples();
        self.lock().share.mark(number, samples);
        self.heard.notify_one();
    }

    /// Redis has answered: this is the holder. A name is text from outside.
    pub(super) fn held_by(&self, holder: Option<&str>) {
        let clean = |id: &str| self.redactor.text(Outlet::Endpoint, id.as_bytes()).into_owned().cut(LONGEST_NAME);
        let holder = holder.map(clean);
        let mut state = self.lock();
        state.holder = holder;
        if state.problem.take().is_some() {
            tracing::info!("the lease can be asked for again");
        }
    }
}

impl State {
    /// Whether this replica speaks at this moment.
    pub(super) fn speaks(&self, now: Instant) -> bool {
        self.term_at(now).is_some()
    }

    /// The term in which it does.
    pub(super) fn term_at(&self, now: Instant) -> Option<Term> {
        self.term.filter(|term| now < term.until)
    }

    /// A term begins; `samples` are those of now.
    pub(super) fn begin(&mut self, until: Instant, claimed: Option<u64>, samples: Vec<Sample>) {
        self.taken += 1;
        self.term = Some(Term { since: Instant::now(), until });
        if self.share.begin(claimed, samples) == Start::WithGap {
            self.gaps += 1;
            tracing::warn!(
                "this replica did not hear up to where the cluster's counts were exported: some are in no sum"
            );
        }
        tracing::info!("this replica speaks for the cluster from now on");
    }

    /// The term goes on.
    pub(super) fn renew(&mut self, until: Instant) {
        if let Some(term) = &mut self.term {
            term.until = until;
        }
    }

    /// The term is over.
    pub(super) fn end(&mut self, why: &'static str) {
        if self.term.take().is_some() {
            tracing::warn!(reason = why, "this replica speaks no longer for the cluster");
        }
    }

    /// Redis did not answer, or refused.
    pub(super) fn failed(&mut self, problem: Problem) {
        match self.failures.iter_mut().find(|(known, _)| *known == problem) {
            Some((_, count)) => *count += 1,
            None => self.failures.push((problem, 1)),
        }
        if self.problem.replace(problem) != Some(problem) {
            match problem {
                "not_allowed" => {
                    tracing::warn!(reason = problem, "the lease cannot be asked for: docs/lease.md names the rights")
                }
                _ => tracing::warn!(reason = problem, "the lease cannot be asked for"),
            }
        }
    }

    /// For whoever shows it.
    pub(super) fn standing(&self, now: Instant) -> Standing {
        let term = self.term_at(now);
        let held_for: Option<Duration> = term.map(|term| now.saturating_duration_since(term.since));
        Standing { is_holder: term.is_some(), holder: self.holder.clone(), held_for, problem: self.problem }
    }
}
