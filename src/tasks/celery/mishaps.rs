//! Tells of Celery's tasks that ended badly, once each, when they are counted.

use crate::model::incident::{Incident, IncidentSink, Mishap, TaskFault};
use crate::model::task::TaskId;
use crate::tasks::celery::ledger::Ledger;
use crate::tasks::celery::totals::{BadEnd, Outcome};

/// Puts what ended badly since the last time into the channel. Without one it is forgotten.
pub(super) fn tell(ledger: &mut Ledger, sink: Option<&IncidentSink>) {
    let bad = ledger.totals.bad_ends();
    let Some(sink) = sink else { return };
    bad.ends.iter().for_each(|end| sink.put(incident(ledger, end)));
    sink.missed(bad.missed);
}

fn incident(ledger: &Ledger, end: &BadEnd) -> Incident {
    let what = Mishap::Task {
        name: ledger.names.shown(end.name),
        fault: match end.outcome {
            Outcome::Lost | Outcome::Unseen => TaskFault::Lost,
            Outcome::ResultError => TaskFault::ResultError,
            Outcome::Failed | Outcome::Succeeded | Outcome::Revoked | Outcome::Rejected => TaskFault::Failed,
        },
        error_type: end.class.map(|class| ledger.classes.shown(class)),
        task_id: Some(TaskId::foreign(end.id.number())),
    };
    Incident { at: None, what, trace_id: None, span_id: None }
}
