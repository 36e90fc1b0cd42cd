//! What the others hold of the lease: it decides at each export what this replica may tell.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::lease::share::is_count;
use crate::lease::state::{Shared, Term};
use crate::lifecycle::Drain;
use crate::model::catalogue::Scope;
use crate::model::catalogue::lease::{LEASE_FAILURES, LEASE_GAPS, LEASE_HELD, LEASE_TAKEN};
use crate::model::lease::{Ahead, Marks, Standing, Turn};
use crate::model::sample::{Sample, SampleSource};

/// An export waits no longer than this for its claim; what was not claimed by then is told by the next one.
const LIMIT: Duration = Duration::from_secs(1);

/// The room ends within this, or is being started again.
const LAST: Duration = Duration::from_secs(4);

/// A handle of the room; cheap to clone. Of a sidecar that is alone it changes nothing.
#[derive(Clone)]
pub struct Speaker(Option<Arc<Shared>>);

impl Speaker {
    pub(super) fn new(shared: Option<Arc<Shared>>) -> Self {
        Self(shared)
    }

    /// These sources as this replica may export them: of the cluster's numbers its share of the counts, and levels only while it
    /// speaks.
    #[must_use]
    pub fn exported(&self, sources: Vec<SampleSource>) -> Vec<SampleSource> {
        let Some(shared) = self.0.clone() else { return sources };
        vec![Arc::new(move |out| {
            let mut samples = Vec::new();
            sources.iter().for_each(|source| source(&mut samples));
            let state = shared.lock();
            let term = state.term_at(Instant::now());
            out.extend(samples.into_iter().filter(|sample| may_leave(sample, term)));
            out.extend(state.share.told());
        })]
    }

    /// Where marks are published, for the connection on which Celery is heard; `None` of a sidecar that is alone.
    #[must_use]
    pub fn marks(&self) -> Option<Marks> {
        let shared = self.0.clone()?;
        Some(Marks { channel: shared.channel.clone(), heard: Arc::new(move |heard| shared.hear(heard)) })
    }

    /// Claims counts before each export.
    #[must_use]
    pub fn ahead(&self) -> Option<Ahead> {
        let shared = self.0.clone()?;
        Some(Arc::new(move |turn| {
            Box::pin(claim(Arc::clone(&shared), turn)) as Pin<Box<dyn Future<Output = ()> + Send>>
        }))
    }

    /// Waits until the process drains and nothing more is claimed; of a sidecar that is alone, for the drain only.
    pub async fn over(&self, mut drain: Drain) {
        drain.begun().await;
        if let Some(shared) = &self.0 {
            let mut over = shared.over.subscribe();
            let _ = timeout(LAST, over.wait_for(|is_over| *is_over)).await;
        }
    }

    /// Who speaks; `None` of a sidecar that is alone.
    #[must_use]
    pub fn standing(&self) -> Option<Standing> {
        Some(self.0.as_ref()?.lock().standing(Instant::now()))
    }

    /// How the lease fares, as metrics.
    pub fn samples(&self, out: &mut Vec<Sample>) {
        let Some(shared) = &self.0 else { return };
        let state = shared.lock();
        out.push(Sample::level(&LEASE_HELD, state.speaks(Instant::now()).into()));
        out.push(Sample::count(&LEASE_TAKEN, state.taken));
        out.push(Sample::count(&LEASE_GAPS, state.gaps));
        for (problem, count) in &state.failures {
            out.push(Sample::count(&LEASE_FAILURES, *count).with_literal("problem", problem));
        }
    }
}

fn may_leave(sample: &Sample, term: Option<Term>) -> bool {
    sample.metric.scope == Scope::Pod || term.is_some() && !is_count(sample.metric)
}

/// Waits until the room has claimed what there is to claim.
async fn claim(shared: Arc<Shared>, turn: Turn) {
    let (answer, answered) = oneshot::channel();
    // a room that is being started again answers later, or not; full: it has not come to the last one
    if shared.asks.try_send((turn, answer)).is_ok() {
        let _ = timeout(LIMIT, answered).await;
    }
}
