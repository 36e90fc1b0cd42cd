//! The counts of calls by operation and model: as many models as the settings allow, and one series for all others.
//!
//! A model gets a series of its own once the service has answered for it: what the service refuses may be any text.

use std::collections::{BTreeMap, HashSet};

use crate::model::ai::{AiCall, AiOperation};
use crate::model::catalogue::Metric;
use crate::model::catalogue::ai::{
    AI_COST, AI_DURATION, AI_FIRST_CHUNK, AI_SECONDS, AI_TOKEN_COUNTS, AI_TOKENS, AI_UNREAD,
};
use crate::model::sample::{LabelValue, Sample};
use crate::model::tally::Tally;
use crate::redact::Clean;
use crate::semconv;

/// Why the tokens of a call are not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// The answer is compressed.
    Encoded,
    /// The answer names none.
    Absent,
}

/// All counts.
#[derive(Debug)]
pub(super) struct Series {
    models: HashSet<Clean<'static>>,
    most: usize,
    calls: BTreeMap<Key, Counts>,
    failures: BTreeMap<(Key, Clean<'static>), Tally>,
    unread: [u64; 2],
}

type Key = (AiOperation, Clean<'static>);

#[derive(Debug)]
struct Counts {
    durations: Tally,
    first_chunks: Tally,
    /// Of the input and of the output.
    tokens: [Tally; 2],
    cost: f64,
}

/// The model of all calls whose model is not counted apart.
const OTHER: Clean<'static> = Clean::literal("other");

impl Series {
    /// For the models of these settings.
    pub(super) fn new(most: usize) -> Self {
        Self { models: HashSet::new(), most, calls: BTreeMap::new(), failures: BTreeMap::new(), unread: [0; 2] }
    }

    /// Counts so many models apart from now on; those that are stay so.
    pub(super) fn allow(&mut self, most: usize) {
        self.most = most;
    }

    /// Counts a call, what its tokens would cost, and why there are none.
    pub(super) fn add(&mut self, call: &AiCall, cost: Option<f64>, unread: Option<Unread>) {
        let key = (call.operation, self.model(call));
        let seconds = call.duration.as_secs_f64();
        if let Some(unread) = unread {
            self.unread[unread as usize] += 1;
        }
        if let Some(class) = &call.error_type {
            let failures = self.failures.entry((key.clone(), class.clone()));
            failures.or_insert_with(|| Tally::new(AI_SECONDS)).add(seconds);
        }
        let counts = self.calls.entry(key).or_insert_with(Counts::new);
        if call.error_type.is_none() {
            counts.durations.add(seconds);
        }
        if let Some(first) = call.first_chunk {
            counts.first_chunks.add(first.as_secs_f64());
        }
        for (tally, tokens) in counts.tokens.iter_mut().zip([call.input_tokens, call.output_tokens]) {
            if let Some(tokens) = tokens {
                tally.add(tokens as f64);
            }
        }
        counts.cost += cost.unwrap_or(0.0);
    }

    /// The name under which the call's model is counted.
    fn model(&mut self, call: &AiCall) -> Clean<'static> {
        let Some(model) = call.request_model.as_ref().or(call.response_model.as_ref()) else { return OTHER };
        let is_known = matches!(call.status, 101 | 200..=299);
        if !self.models.contains(model) {
            if !is_known || self.models.len() >= self.most {
                return OTHER;
            }
            self.models.insert(model.clone());
        }
        model.clone()
    }

    /// All series.
    pub(super) fn samples(&self, (provider, server): (&Clean<'static>, &Clean<'static>), out: &mut Vec<Sample>) {
        let text = |text: &Clean<'static>| LabelValue::Text(text.clone());
        let labelled = |(operation, model): &Key, metric: &'static Metric, tally: &Tally| {
            Sample::histogram(metric, tally.histogram())
                .with_literal(semconv::GEN_AI_OPERATION_NAME, operation.label())
                .with(semconv::GEN_AI_PROVIDER_NAME, text(provider))
                .with(semconv::GEN_AI_REQUEST_MODEL, text(model))
                .with(semconv::SERVER_ADDRESS, text(server))
        };
        for (key, counts) in &self.calls {
            if !counts.durations.is_empty() {
                out.push(labelled(key, &AI_DURATION, &counts.durations));
            }
            if !counts.first_chunks.is_empty() {
                out.push(labelled(key, &AI_FIRST_CHUNK, &counts.first_chunks));
            }
            for (tally, kind) in counts.tokens.iter().zip(["input", "output"]).filter(|(tally, _)| !tally.is_empty()) {
                out.push(labelled(key, &AI_TOKENS, tally).with_literal(semconv::GEN_AI_TOKEN_TYPE, kind));
            }
        }
        for ((key, class), tally) in &self.failures {
            out.push(labelled(key, &AI_DURATION, tally).with(semconv::ERROR_TYPE, text(class)));
        }
        // one series for each model, whatever was asked of it
        let mut costs: BTreeMap<&Clean<'static>, f64> = BTreeMap::new();
        for ((_, model), counts) in self.calls.iter().filter(|(_, counts)| counts.cost > 0.0) {
            *costs.entry(model).or_default() += counts.cost;
        }
        for (model, cost) in costs {
            let sample = Sample::sum(&AI_COST, cost).with(semconv::GEN_AI_PROVIDER_NAME, text(provider));
            out.push(sample.with(semconv::GEN_AI_REQUEST_MODEL, text(model)));
        }
        for (reason, word) in [(Unread::Encoded, "encoded"), (Unread::Absent, "absent")] {
            out.push(Sample::count(&AI_UNREAD, self.unread[reason as usize]).with_literal("reason", word));
        }
    }
}

impl Counts {
    fn new() -> Self {
        Self {
            durations: Tally::new(AI_SECONDS),
            first_chunks: Tally::new(AI_SECONDS),
            tokens: [Tally::new(AI_TOKEN_COUNTS), Tally::new(AI_TOKEN_COUNTS)],
            cost: 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::sample::SampleValue;
    use crate::model::trace::TraceId;

    fn call(model: u64, status: u16) -> AiCall {
        let failed = (status >= 400).then(|| Clean::number(status.into()));
        AiCall {
            operation: AiOperation::Chat,
            provider: Clean::literal("openai"),
            server: (Clean::literal("api.openai.com"), 443),
            request_model: Some(Clean::number(model)),
            response_model: None,
            is_stream: false,
            trace_id: TraceId([1; 16]),
            parent: None,
            ended_unix_nanos: 0,
            duration: Duration::from_secs(1),
            first_chunk: None,
            status,
            error_type: failed,
            input_tokens: Some(3),
            output_tokens: None,
        }
    }

    /// The model of each series of durations, and how many calls are in it.
    fn durations(series: &Series) -> Vec<(LabelValue, u64)> {
        let mut samples = Vec::new();
        series.samples((&Clean::literal("openai"), &Clean::literal("api.openai.com")), &mut samples);
        let durations = samples.into_iter().filter(|sample| *sample.metric == AI_DURATION);
        durations
            .map(|sample| match sample.value {
                SampleValue::Histogram(histogram) => (sample.labels[2].1.clone(), histogram.count),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn named(name: &'static str) -> LabelValue {
        LabelValue::Text(Clean::literal(name))
    }

    #[test]
    fn an_endless_supply_of_models_makes_no_endless_series_and_no_call_goes_uncounted() {
        let mut series = Series::new(2);
        (0..1_000).for_each(|model| series.add(&call(model, 200), None, None));
        assert_eq!(durations(&series), [(named("0"), 1), (named("1"), 1), (named("other"), 998)]);
    }

    #[test]
    fn a_model_that_the_service_does_not_know_has_no_series_of_its_own() {
        let mut series = Series::new(2);
        series.add(&call(7, 404), None, None);
        series.add(&call(8, 200), None, None);
        series.add(&call(8, 429), None, None);
        assert_eq!(durations(&series), [(named("8"), 1), (named("8"), 1), (named("other"), 1)]);
    }
}
