//! The trace context of a request: the caller's if it is valid, else a new one.

use crate::model::trace::{Sampled, Sampling, SpanId, SpanModel, TraceId, is_valid_tracestate, parse_traceparent};
use crate::proxy::head::request::TraceField;

/// How requests are traced. A value: a reload sends another one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TracePolicy {
    /// Which traces are kept.
    pub sampling: Sampling,
    /// Which spans are made.
    pub spans: SpanModel,
    /// Whether the application is sent `sentry-trace` beside `traceparent`.
    pub sentry_trace: bool,
}

/// The ids of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TraceContext {
    pub(crate) trace_id: TraceId,
    /// The SERVER span.
    pub(crate) span_id: SpanId,
    /// The CLIENT span; `None` with the span model `server-only`.
    pub(crate) client_span_id: Option<SpanId>,
    pub(crate) parent: Option<SpanId>,
    pub(crate) sampled: Sampled,
}

/// The generator of a worker, and what strangers may still have kept.
#[derive(Debug)]
pub(crate) struct Ids {
    random: fastrand::Rng,
    strangers: Credit,
}

/// How many more requests may be kept for trace ids that strangers chose, in units of `Sampling::WHOLE`.
///
/// Such an id decides like any other, so that all sidecars on the way of a trace agree. But an id can be made to be kept:
/// in the long run strangers get no more than their share of what they ask, and an eighth for the play of chance.
#[derive(Debug)]
struct Credit(u64);

impl Credit {
    /// What chance may save up, and a stranger may spend at once: 64 requests.
    const LIMIT: u64 = Sampling::WHOLE << 6;

    fn grant(&mut self, sampling: &Sampling, decided: Sampled) -> Sampled {
        let share = sampling.share();
        self.0 = (self.0 + share + share / 8).min(Self::LIMIT);
        match (decided, self.0.checked_sub(Sampling::WHOLE)) {
            (Sampled::Yes, Some(left)) => self.0 = left,
            (Sampled::Yes, None) => return Sampled::No,
            (Sampled::No, _) => {}
        }
        decided
    }
}

/// What the caller sent, and whether its flag counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller<'b> {
    pub(crate) traceparent: TraceField<'b>,
    /// Whether a proxy that we trust sent it: a stranger's flag forces nothing.
    pub(crate) is_trusted: bool,
}

impl Ids {
    /// Seeded by the system.
    pub(crate) fn new() -> Self {
        Self { random: fastrand::Rng::new(), strangers: Credit(Credit::LIMIT) }
    }

    fn span_id(&mut self) -> SpanId {
        SpanId(self.random.u64(1..).to_be_bytes())
    }

    /// The context of a request; `None` if the caller's passes untouched.
    pub(crate) fn context(&mut self, policy: &TracePolicy, caller: &Caller<'_>) -> Option<TraceContext> {
        let with_client = match policy.spans {
            SpanModel::Full => true,
            SpanModel::ServerOnly => false,
            SpanModel::PropagateOnly => return None,
        };
        let parent = match caller.traceparent {
            TraceField::One(value) => parse_traceparent(value).ok(),
            TraceField::Absent | TraceField::Several => None,
        };
        let trace_id = parent.map_or_else(|| TraceId(self.random.u128(1..).to_be_bytes()), |parent| parent.trace_id);
        let flag = parent.filter(|_| caller.is_trusted).map(|parent| parent.sampled);
        let mut sampled = policy.sampling.decide(trace_id, flag);
        if parent.is_some() && !caller.is_trusted && !policy.sampling.keeps_all() {
            sampled = self.strangers.grant(&policy.sampling, sampled);
        }
        Some(TraceContext {
            trace_id,
            span_id: self.span_id(),
            client_span_id: with_client.then(|| self.span_id()),
            parent: parent.map(|parent| parent.parent),
            sampled,
        })
    }
}

impl TraceContext {
    /// The span that the application's spans have as their parent.
    pub(crate) fn outgoing(&self) -> SpanId {
        self.client_span_id.unwrap_or(self.span_id)
    }

    /// Whether a `tracestate` goes on: it belongs to the caller's trace.
    pub(crate) fn keeps_state(&self, tracestate: &[u8]) -> bool {
        self.parent.is_some() && !tracestate.is_empty() && is_valid_tracestate(tracestate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::trace::ParentFlag;

    const PARENT: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn policy(ratio: f64, spans: SpanModel) -> TracePolicy {
        TracePolicy { sampling: Sampling::ratio(ratio, ParentFlag::Followed), spans, sentry_trace: false }
    }

    fn context(caller: Caller<'_>, ratio: f64, spans: SpanModel) -> Option<TraceContext> {
        let policy = policy(ratio, spans);
        Ids::new().context(&policy, &caller)
    }

    fn stranger(traceparent: TraceField<'_>) -> Caller<'_> {
        Caller { traceparent, is_trusted: false }
    }

    #[test]
    fn a_valid_parent_is_continued_and_anything_else_starts_anew() {
        let one = context(stranger(TraceField::One(PARENT)), 1.0, SpanModel::Full).unwrap();
        assert_eq!(one.trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(one.parent.unwrap().to_string(), "00f067aa0ba902b7");
        assert_ne!(one.outgoing(), one.span_id);
        assert!(one.keeps_state(b"a=1") && !one.keeps_state(b"A=1"));
        for other in [TraceField::Absent, TraceField::Several, TraceField::One(b"00-zz")] {
            let context = context(stranger(other), 1.0, SpanModel::ServerOnly).unwrap();
            assert!(context.parent.is_none() && !context.keeps_state(b"a=1"));
            assert_ne!(context.trace_id, one.trace_id);
            assert_eq!(context.outgoing(), context.span_id);
        }
        assert!(context(stranger(TraceField::One(PARENT)), 1.0, SpanModel::PropagateOnly).is_none());
    }

    #[test]
    fn only_a_trusted_flag_forces_the_export() {
        let sampled = |is_trusted| {
            let caller = Caller { traceparent: TraceField::One(PARENT), is_trusted };
            context(caller, 0.0, SpanModel::Full).unwrap().sampled
        };
        assert_eq!((sampled(true), sampled(false)), (Sampled::Yes, Sampled::No));
    }

    #[test]
    fn an_id_that_is_made_to_be_kept_is_kept_no_more_often_than_the_ratio() {
        const MADE: &[u8] = b"00-4bf92f3577b34da6a3ffffffffffffff-00f067aa0ba902b7-01";
        let kept = |ratio, is_trusted, value: &dyn Fn(u64) -> Vec<u8>| {
            let policy = policy(ratio, SpanModel::Full);
            let mut ids = Ids::new();
            let sampled = |number| {
                let value = value(number);
                let caller = Caller { traceparent: TraceField::One(&value), is_trusted };
                ids.context(&policy, &caller).unwrap().sampled == Sampled::Yes
            };
            (0..10_000).map(sampled).filter(|is_kept| *is_kept).count()
        };
        let made = |_| MADE.to_vec();
        assert_eq!(kept(0.1, false, &made), 64 + 1_125 - 1, "a tenth, an eighth of it more, and what was saved up");
        assert_eq!(kept(0.0, false, &made), 0);
        assert_eq!(kept(0.1, true, &made), 10_000, "who is trusted may");
        assert_eq!(kept(1.0, false, &made), 10_000);
        let honest = |number: u64| {
            let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            format!("00-4bf92f3577b34da6{spread:016x}-00f067aa0ba902b7-00").into_bytes()
        };
        let alone = Sampling::ratio(0.1, ParentFlag::Ignored);
        let decided = |number| {
            let parent = parse_traceparent(&honest(number)).unwrap();
            alone.decide(parent.trace_id, None) == Sampled::Yes
        };
        let expected = (0..10_000).map(decided).filter(|is_kept| *is_kept).count();
        assert_eq!(kept(0.1, false, &honest), expected, "ids that nobody chose decide alone, as everywhere");
    }
}
