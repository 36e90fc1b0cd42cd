//! Where calls end: counted once, cleaned, and told to the way out. Owns the counts, behind a lock that is held for moments.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::egress::config::Config;
use crate::egress::prices::Prices;
use crate::egress::series::{Series, Unread};
use crate::egress::told::{End, Told};
use crate::model::ai::{AiCall, AiOperation, CallSink};
use crate::model::ai_outcomes::{AiOutcome, AiOutcomes};
use crate::model::catalogue::ai::EGRESS_CONNECTIONS_REFUSED;
use crate::model::sample::Sample;
use crate::model::trace::{Sampled, Sampling};
use crate::model::trouble::Trouble;
use crate::redact::{Clean, Outlet, Redactor};
use crate::wall_clock::since_epoch;

/// Takes calls that have ended.
pub(super) struct Desk {
    books: Mutex<Books>,
    provider: Clean<'static>,
    server: (Clean<'static>, u16),
    redactor: Arc<Redactor>,
    sampling: watch::Receiver<Sampling>,
    /// `None` when calls become no spans.
    spans: Option<CallSink>,
    /// How calls ended of late, for the checks.
    outcomes: AiOutcomes,
    turned_away: AtomicU64,
}

/// The counts, and what is estimated by.
struct Books {
    series: Series,
    prices: Prices,
}

/// The statuses that are told apart as `error.type`; others are `_OTHER`, as the conventions have it.
const STATUSES: [u16; 15] = [400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 529];

impl Desk {
    /// For calls by these settings; tells of spans and of outcomes.
    pub(super) fn new(
        config: &Config,
        sampling: watch::Receiver<Sampling>,
        redactor: Arc<Redactor>,
        (spans, outcomes): (Option<CallSink>, AiOutcomes),
    ) -> Self {
        let clean = |text: &str| redactor.text(Outlet::Telemetry, text.as_bytes()).into_owned();
        let host = clean(config.upstream.host_str().unwrap_or_default());
        Self {
            books: Mutex::new(Books { series: Series::new(config.max_models), prices: config.prices.clone() }),
            provider: clean(&config.provider),
            server: (host, config.upstream.port_or_known_default().unwrap_or_default()),
            redactor,
            sampling,
            spans,
            outcomes,
            turned_away: AtomicU64::new(0),
        }
    }

    /// Counts a call, and tells of it.
    pub(super) fn end(&self, told: Told) {
        let models = [told.asked.model.as_deref(), told.answered.model.as_deref()].map(|name| name.filter(is_model));
        let [input, output] = [told.answered.input, told.answered.output];
        let unread = unread(&told);
        self.outcomes.add(outcome(&told), Instant::now());
        let [request_model, response_model] =
            models.map(|name| Some(self.redactor.text(Outlet::Telemetry, name?.as_bytes()).into_owned()));
        let call = AiCall {
            operation: told.operation,
            provider: self.provider.clone(),
            server: self.server.clone(),
            request_model,
            response_model,
            is_stream: told.is_stream || told.asked.stream,
            trace_id: told.origin.trace_id,
            parent: told.origin.parent,
            ended_unix_nanos: u64::try_from(since_epoch().as_nanos()).unwrap_or(0),
            duration: told.duration,
            first_chunk: told.first_chunk,
            status: told.status,
            error_type: error_type(&told),
            input_tokens: input,
            output_tokens: output,
        };
        {
            let mut books = self.books();
            let cost = books.prices.cost(models, input.unwrap_or(0), output.unwrap_or(0));
            books.series.add(&call, cost, unread);
        }
        let is_kept = || self.sampling.borrow().decide(told.origin.trace_id, told.origin.is_sampled) == Sampled::Yes;
        if let Some(sink) = self.spans.as_ref().filter(|_| is_kept()) {
            sink(call);
        }
    }

    /// Counts a connection for which there was no place.
    pub(super) fn turn_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    /// All counts.
    pub(super) fn samples(&self, out: &mut Vec<Sample>) {
        self.books().series.samples((&self.provider, &self.server.0), out);
        out.push(Sample::count(&EGRESS_CONNECTIONS_REFUSED, self.turned_away.load(Ordering::Relaxed)));
    }

    /// Counts and estimates by these settings from now on; what is counted stays.
    pub(super) fn keep_by(&self, config: &Config) {
        let mut books = self.books();
        books.series.allow(config.max_models);
        books.prices = config.prices.clone();
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Desk")
    }
}

/// Whether a text can be the name of a model: what else a request calls so is nobody's business.
fn is_model(name: &&str) -> bool {
    let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/@".contains(&byte);
    !name.is_empty() && name.bytes().all(is_usual)
}

fn error_type(told: &Told) -> Option<Clean<'static>> {
    match (told.end, told.status) {
        (End::Failed(trouble), _) => Some(Clean::literal(trouble.word())),
        (End::ClientGone, _) => Some(Clean::literal("client_gone")),
        (End::Answered, status) if STATUSES.contains(&status) => Some(Clean::number(status.into())),
        (End::Answered, 400..) => Some(Clean::literal("_OTHER")),
        (End::Answered, _) => None,
    }
}

/// What a call tells of the service and of the key.
fn outcome(told: &Told) -> AiOutcome {
    match told.end {
        End::Answered => AiOutcome::of_status(told.status),
        // whoever leaves may have waited long or not at all
        End::ClientGone => AiOutcome::Untold,
        End::Failed(Trouble::Timeout) => AiOutcome::Timeout,
        End::Failed(Trouble::Protocol | Trouble::TooLarge) => AiOutcome::Failing,
        End::Failed(_) => AiOutcome::Unreachable,
    }
}

/// Why the tokens of a call that should have some are not known.
fn unread(told: &Told) -> Option<Unread> {
    let has_some = told.answered.input.is_some() || told.answered.output.is_some();
    let is_success = told.end == End::Answered && (200..300).contains(&told.status);
    match told.operation {
        AiOperation::Other | AiOperation::Realtime => None,
        _ if has_some || !is_success => None,
        _ if told.is_encoded => Some(Unread::Encoded),
        _ => Some(Unread::Absent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_a_name_is_taken_for_one() {
        for name in ["gpt-5-mini", "ft:gpt-4.1:shop::x", "meta/llama@1", "a_b"] {
            assert!(is_model(&name), "{name}");
        }
        for text in ["", "Tell me of", "a\nb", "näm", "a{b}"] {
            assert!(!is_model(&text), "{text}");
        }
    }
}
