//! Tells of Celery's tasks that ended badly, once each, when they are counted; with their trace where it is known.

use tokio::time::Instant;

use crate::model::incident::{Incident, IncidentSink, Mishap, TaskFault};
use crate::model::task::TaskId;
use crate::model::trace::{SpanId, TraceId};
use crate::tasks::celery::ledger::Ledger;
use crate::tasks::celery::spans::Spans;
use crate::tasks::celery::totals::{BadEnd, Outcome};
use crate::tasks::celery::traces::span_of;

/// Puts what ended badly since the last time into the channel. Without one it is forgotten.
pub(super) fn tell(ledger: &mut Ledger, spans: Option<&Spans>, sink: Option<&IncidentSink>, now: Instant) {
    let bad = ledger.totals.bad_ends();
    let Some(sink) = sink else { return };
    for end in &bad.ends {
        let (trace_id, span_id) = spans.map_or((None, None), |spans| link(ledger, spans, end, now));
        sink.put(Incident { at: None, what: mishap(ledger, end), trace_id, span_id });
    }
    sink.missed(bad.missed);
}

fn mishap(ledger: &Ledger, end: &BadEnd) -> Mishap {
    Mishap::Task {
        name: ledger.names.shown(end.name),
        fault: match end.outcome {
            Outcome::Lost | Outcome::Unseen => TaskFault::Lost,
            Outcome::ResultError => TaskFault::ResultError,
            Outcome::Failed | Outcome::Succeeded | Outcome::Revoked | Outcome::Rejected => TaskFault::Failed,
        },
        error_type: end.class.map(|class| ledger.classes.shown(class)),
        task_id: Some(TaskId::foreign(end.id.number())),
    }
}

/// The trace of a task, and its span there if it is ours. A trace that nobody was seen to begin is known only when it is.
fn link(ledger: &Ledger, spans: &Spans, end: &BadEnd, now: Instant) -> (Option<TraceId>, Option<SpanId>) {
    let (place, is_ours) = (ledger.traces.place(end.id), spans.makes_one(end.outcome, now));
    ((is_ours || place.sampled.is_some()).then_some(place.trace), is_ours.then(|| span_of(end.id)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::watch;

    use super::*;
    use crate::model::incident::incidents;
    use crate::model::trace::{ParentFlag, Sampling, TraceParent};
    use crate::redact::Redactor;
    use crate::tasks::celery::config::Making;
    use crate::tasks::celery::event::TaskIds;
    use crate::tasks::celery::spans::SpanOut;
    use crate::tasks::celery::state;
    use crate::tasks::celery::traces::Traces;

    const SEEN: &str = "59226a2a-0c5b-4f0e-8d3a-3f1f6f1f6f10";
    const UNSEEN: &str = "59226a2a-0c5b-4f0e-8d3a-3f1f6f1f6f11";
    const CONTEXT: TraceParent =
        TraceParent { trace_id: TraceId([0xab; 16]), parent: SpanId([0xcd; 8]), sampled: true };

    /// The links of tasks that ended so, one whose message was seen and one whose was not, with an SDK in their worker or without.
    fn links(outcome: Outcome, sdk: Option<Instant>) -> [(Option<TraceId>, Option<SpanId>); 2] {
        let redactor = Arc::new(Redactor::new([]));
        let shared = state::tests::shared(&redactor);
        let (_told, sdk) = watch::channel(sdk);
        let sampling = Sampling::ratio(1.0, ParentFlag::Followed);
        let out = SpanOut { sink: Arc::new(|_| {}), sampling: watch::channel(sampling).1, sdk: Some(sdk) };
        let spans = Spans::new(Making::Auto, Some(out), &redactor, &shared);
        let (sink, mut source) = incidents();
        let mut state = shared.lock();
        let ledger = &mut state.ledger;
        ledger.traces = Traces::on();
        let ids = TaskIds::default();
        ledger.traces.seen(ids.id(SEEN), CONTEXT);
        for id in [SEEN, UNSEEN] {
            let name = ledger.names.id("render");
            ledger.totals.ended_badly(BadEnd { id: ids.id(id), name, outcome, class: None });
        }
        tell(ledger, spans.as_ref(), Some(&sink), Instant::now());
        let told: Vec<_> = source.take().0.iter().map(|incident| (incident.trace_id, incident.span_id)).collect();
        told.try_into().unwrap()
    }

    #[tokio::test]
    async fn a_task_that_failed_is_told_with_its_trace_and_our_span_of_it() {
        let [seen, unseen] = links(Outcome::Failed, None);
        let ids = TaskIds::default();
        assert_eq!(seen, (Some(CONTEXT.trace_id), Some(span_of(ids.id(SEEN)))));
        let (trace, span) = unseen;
        assert_eq!(trace.unwrap().to_string(), UNSEEN.replace('-', ""), "it begins its own");
        assert_eq!(span, Some(span_of(ids.id(UNSEEN))));
    }

    #[tokio::test]
    async fn where_an_sdk_makes_the_spans_only_a_trace_that_was_seen_is_told_and_no_span() {
        assert_eq!(links(Outcome::Failed, Some(Instant::now())), [(Some(CONTEXT.trace_id), None), (None, None)]);
        let [_, (trace, span)] = links(Outcome::Lost, Some(Instant::now()));
        assert!(trace.is_some() && span.is_some(), "no SDK tells of what was lost");
    }

    #[tokio::test]
    async fn a_task_that_becomes_no_span_has_no_trace_but_that_of_its_sender() {
        assert_eq!(links(Outcome::Unseen, None), [(Some(CONTEXT.trace_id), None), (None, None)]);
    }
}
