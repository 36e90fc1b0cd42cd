//! What a kind of check is: its word, its pace, and how a section of the configuration becomes a check of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::checks::beats::Beats;
use crate::checks::check::{Check, Reader};
use crate::checks::service::Pace;
use crate::model::ai_outcomes::AiOutcomes;
use crate::model::traffic::RouteTraffic;
use crate::redact::Redactor;
use crate::settings::Section;
use crate::trust::Trust;

/// A kind of check.
#[derive(Debug)]
pub(super) struct Kind {
    /// As the configuration writes it.
    pub(super) word: &'static str,
    /// What it looks at, for the documentation.
    pub(super) about: &'static str,
    pub(super) pace: Pace,
    /// Reads the keys that are the kind's own. `None` after a mistake, which is told by then.
    pub(super) read: fn(&mut Reading<'_, '_>) -> Option<Plan>,
}

/// The section of a check while it is read, and what its values may name.
pub(super) struct Reading<'r, 's> {
    /// The name of the check.
    pub(super) name: &'r str,
    /// Between two runs, as it was read.
    pub(super) period: Duration,
    /// Of one run, as it was read.
    pub(super) timeout: Duration,
    pub(super) section: &'r mut Section<'s>,
    pub(super) surroundings: &'r Surroundings<'r>,
}

/// What the values of a section may name.
pub(super) struct Surroundings<'r> {
    /// All checks.
    pub(super) names: &'r [String],
    /// Whether a variable is set.
    pub(super) in_environment: &'r dyn Fn(&str) -> bool,
    /// Whether commands may be run.
    pub(super) commands: Commands,
}

/// Whether commands may be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Commands {
    Allowed,
    Refused,
}

/// A check that was read, to be made when the rest of the room is there. Prints nothing of what it holds.
#[derive(Clone)]
pub(super) struct Plan {
    make: Arc<Make>,
    /// The checks whose reports it reads.
    pub(super) needs: Vec<String>,
}

/// Makes the check; `None` when what it looks at is not there.
type Make = dyn Fn(&Means) -> Option<Box<dyn Check>> + Send + Sync;

/// What a check may use.
#[derive(Clone)]
pub(super) struct Means {
    /// The name of the check.
    pub(super) name: String,
    /// The reports of all checks.
    pub(super) reports: Reader,
    pub(super) beats: Beats,
    pub(super) trust: Trust,
    pub(super) redactor: Arc<Redactor>,
    /// Host and port of the application; `None` when there is no proxy in front of one.
    pub(super) application: Option<String>,
    /// How calls of the AI service ended; `None` when they do not pass us.
    pub(super) calls: Option<AiOutcomes>,
    /// The traffic of each route of late.
    pub(super) routes: Arc<dyn Fn() -> Vec<RouteTraffic> + Send + Sync>,
    /// How busy the node's cores are, 0 to 1, where that is known.
    pub(super) cpu: Arc<dyn Fn() -> Option<f64> + Send + Sync>,
}

impl Plan {
    /// A check that is always made.
    pub(super) fn new<C: Check + 'static>(make: impl Fn(&Means) -> C + Send + Sync + 'static) -> Self {
        Self::perhaps(move |means| Some(make(means)))
    }

    /// A check that is made when it can be.
    pub(super) fn perhaps<C: Check + 'static>(make: impl Fn(&Means) -> Option<C> + Send + Sync + 'static) -> Self {
        let make = move |means: &Means| make(means).map(|check| Box::new(check) as Box<dyn Check>);
        Self { make: Arc::new(make), needs: Vec::new() }
    }

    /// The check.
    pub(super) fn make(&self, means: &Means) -> Option<Box<dyn Check>> {
        (self.make)(means)
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").field("needs", &self.needs).finish_non_exhaustive()
    }
}

impl Reading<'_, '_> {
    /// A text without which there is no check.
    pub(super) fn required(&mut self, name: &'static str, about: &'static str, expected: &str) -> Option<String> {
        let text = self.section.optional_text(name, about);
        if text.is_none() {
            self.section.problem(name, "nothing", expected);
        }
        text
    }

    /// A host and a port.
    pub(super) fn address(&mut self, about: &'static str) -> Option<String> {
        const EXPECTED: &str = "a host and a port such as db.internal:5432";
        let text = self.required("address", about, EXPECTED)?;
        let is_whole = |(host, port): (&str, &str)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0);
        if !text.rsplit_once(':').is_some_and(is_whole) {
            self.section.problem("address", &text, EXPECTED);
            return None;
        }
        Some(text)
    }
}
