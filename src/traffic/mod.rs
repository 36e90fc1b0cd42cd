//! Counting: per-thread shards, sliding windows, recent failures, route templates.
//!
//! A shard has one writer, its worker; whoever reads merges all shards and never makes a worker wait.
//! Nothing here knows telemetry or the admin port: `Reader` gives out ground-floor values.

mod buckets;
pub mod config;
mod exemplars;
mod index;
pub mod publishes;
pub mod reader;
mod recent;
pub mod routes;
mod series;
pub mod shard;
mod track;

use std::sync::Arc;

use crate::redact::Redactor;
use crate::traffic::config::Config;
use crate::traffic::reader::Reader;
use crate::traffic::shard::{Shard, cells};

/// Makes one shard for each worker, and the reader of them all.
#[must_use]
pub fn open(config: &Config, workers: usize, redactor: &Arc<Redactor>) -> (Vec<Shard>, Reader) {
    let cells = cells(config.max_series, workers);
    let shards = cells.iter().map(|cells| Shard::new(cells.clone(), config, redactor.clone())).collect();
    (shards, Reader::new(cells))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::time::advance;

    use super::*;
    use crate::lifecycle;
    use crate::model::request::{
        Client, Method, Outcome, Protocol, RecordTrace, Refusal, RequestHead, RequestKind, RequestRecord, RequestSink,
        UpstreamFault,
    };
    use crate::model::route::RouteTable;
    use crate::model::sample::{Exemplar, Histogram, LabelValue, Sample, SampleValue};
    use crate::model::trace::{Sampled, SpanId, TraceId};
    use crate::semconv;
    use crate::traffic::config::Routes;
    use crate::traffic::reader::run;

    fn room(max_series: usize, workers: usize) -> (Vec<Shard>, Reader) {
        let routes = Routes { enabled: false, path: String::new(), refresh: Duration::ZERO };
        open(&Config { max_series, exemplars: true, routes }, workers, &Arc::new(Redactor::new([])))
    }

    fn record(status: u16, millis: u64) -> RequestRecord<'static> {
        let address = std::net::Ipv4Addr::LOCALHOST.into();
        RequestRecord {
            method: Method::Get,
            method_text: b"GET",
            target: b"/",
            route: None,
            kind: RequestKind::Ordinary,
            protocol: Protocol::Http11,
            status,
            outcome: Outcome::Answered,
            started_unix_nanos: 1_000_000_000,
            duration: Duration::from_millis(millis),
            first_byte: None,
            request_body_bytes: 0,
            response_body_bytes: 0,
            trace: None,
            hop: None,
            client: Client { peer: (address, 1).into(), address },
            user_agent: None,
            tapped: None,
        }
    }

    /// Far more than any request of these tests takes.
    const APART_NANOS: u64 = 1 << 40;

    /// The exemplar of the request of this number: all that it tells follows from number and duration.
    fn exemplar(number: u64, millis: u64) -> Exemplar {
        let half = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Exemplar {
            value: millis as f64 / 1e3,
            unix_nanos: number * APART_NANOS + millis * 1_000_000,
            trace_id: TraceId((u128::from(half) << 64 | u128::from(!half)).to_be_bytes()),
            span_id: SpanId(number.to_be_bytes()),
        }
    }

    /// That request, whose spans are kept.
    fn traced(number: u64, millis: u64) -> RequestRecord<'static> {
        let Exemplar { trace_id, span_id, .. } = exemplar(number, millis);
        let (sampled, kept) = (Sampled::Yes, Cell::new(true));
        let trace = RecordTrace { trace_id, span_id, parent: None, sampled, tracestate: b"", kept };
        RequestRecord { started_unix_nanos: number * APART_NANOS, trace: Some(trace), ..record(200, millis) }
    }

    /// The same, but nobody kept them.
    fn sampled_out(number: u64, millis: u64) -> RequestRecord<'static> {
        let record = traced(number, millis);
        record.trace.as_ref().unwrap().kept.set(false);
        record
    }

    fn count(shard: &mut Shard, record: &RequestRecord<'_>) {
        shard.begin(&RequestHead { method: record.method });
        shard.last_write();
        shard.end(record);
    }

    fn samples(reader: &Reader, name: &str) -> Vec<Sample> {
        let mut samples = Vec::new();
        reader.samples(&mut samples);
        samples.retain(|sample| sample.metric.name == name);
        samples
    }

    fn histogram(sample: &Sample) -> &Histogram {
        match &sample.value {
            SampleValue::Histogram(histogram) => histogram,
            other => panic!("{other:?} is no histogram"),
        }
    }

    fn label<'s>(sample: &'s Sample, name: &str) -> Option<&'s LabelValue> {
        sample.labels.iter().find(|(label, _)| *label == name).map(|(_, value)| value)
    }

    fn text(text: &'static str) -> LabelValue {
        LabelValue::Text(crate::redact::Clean::literal(text))
    }

    const DURATION: &str = "http.server.request.duration";

    #[test]
    fn each_request_counts_once_and_is_in_flight_between_begin_and_end() {
        let (mut shards, reader) = room(10, 1);
        shards[0].begin(&RequestHead { method: Method::Get });
        assert_eq!((reader.totals().requests, reader.totals().in_flight, reader.totals().completed), (1, 1, 0));
        shards[0].end(&record(200, 250));
        count(&mut shards[0], &record(500, 750));
        let totals = reader.totals();
        assert_eq!((totals.requests, totals.in_flight, totals.completed, totals.errors), (2, 0, 2, 1));
        assert_eq!((totals.duration_sum_seconds, totals.duration_count), (1.0, 2));
        let durations = samples(&reader, DURATION);
        assert_eq!(durations.len(), 2);
        assert_eq!(label(&durations[1], semconv::ERROR_TYPE), Some(&text("500")));
        assert_eq!(label(&durations[1], semconv::HTTP_RESPONSE_STATUS_CODE), Some(&LabelValue::Number(500)));
    }

    #[test]
    fn a_malformed_request_counts_with_its_reason_and_without_a_route() {
        let (mut shards, reader) = room(10, 1);
        let outcome = Outcome::Refused(Refusal::Malformed);
        count(&mut shards[0], &RequestRecord { method: Method::Other, outcome, ..record(400, 0) });
        let sample = &samples(&reader, DURATION)[0];
        assert_eq!(label(sample, semconv::HTTP_REQUEST_METHOD), Some(&text("_OTHER")));
        assert_eq!(label(sample, semconv::ERROR_TYPE), Some(&text("malformed_request")));
        assert_eq!(label(sample, semconv::HTTP_ROUTE), None);
        assert_eq!((reader.totals().requests, reader.totals().errors), (1, 0));
    }

    #[test]
    fn probes_and_streams_have_their_own_durations() {
        let (mut shards, reader) = room(10, 1);
        for (kind, millis) in [
            (RequestKind::Ordinary, 1),
            (RequestKind::Probe, 2),
            (RequestKind::Stream, 7_200_000),
            (RequestKind::Tunnel, 3_600_000),
        ] {
            count(&mut shards[0], &RequestRecord { kind, ..record(200, millis) });
        }
        assert_eq!(samples(&reader, DURATION).len(), 1);
        assert_eq!(samples(&reader, "content_factory.http.server.probe.duration").len(), 1);
        let streams = samples(&reader, "content_factory.http.server.stream.duration");
        // equal labels are one series: a page with the same series twice is no page
        assert_eq!(streams.len(), 1);
        let streams = histogram(&streams[0]);
        assert_eq!((streams.count, streams.max, streams.explicit.len()), (2, Some(7_200.0), 10));
        assert_eq!((reader.totals().requests, reader.totals().duration_count), (4, 1));
    }

    #[test]
    fn sizes_count_every_request_and_empty_bodies_are_zero() {
        let (mut shards, reader) = room(10, 1);
        for (request_body_bytes, response_body_bytes) in [(0, 1_000), (300, 1_000), (0, 20_000_000)] {
            count(&mut shards[0], &RequestRecord { request_body_bytes, response_body_bytes, ..record(200, 1) });
        }
        let requests = samples(&reader, "http.server.request.body.size");
        let requests = histogram(&requests[0]);
        assert_eq!((requests.count, requests.sum, requests.min, requests.max), (3, 300.0, Some(0.0), Some(300.0)));
        assert_eq!(requests.explicit[..3], [2, 0, 1]);
        let responses = samples(&reader, "http.server.response.body.size");
        assert_eq!(histogram(&responses[0]).explicit, [0, 0, 2, 0, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn an_endless_supply_of_keys_makes_no_endless_series_and_the_total_stays_exact() {
        let (mut shards, reader) = room(50, 2);
        let templates: Vec<String> = (0..1_000).map(|i| format!("/r{i}")).collect();
        let table = RouteTable::default().with_templates(templates.iter().map(String::as_str));
        for i in 0..100_000_usize {
            let route = table.lookup(templates[i % 1_000].as_bytes());
            let status = 100 + u16::try_from(i / 1_000).unwrap();
            count(&mut shards[i % 2], &RequestRecord { route, status, ..record(200, 1) });
        }
        let durations = samples(&reader, DURATION);
        assert_eq!(durations.len(), 51);
        assert_eq!(durations.iter().map(|sample| histogram(sample).count).sum::<u64>(), 100_000);
        let overflow: Vec<_> = durations.iter().filter(|s| label(s, semconv::OTEL_METRIC_OVERFLOW).is_some()).collect();
        assert_eq!(overflow.len(), 1);
        assert_eq!(overflow[0].labels.len(), 1);
        assert_eq!((reader.totals().requests, reader.totals().completed), (100_000, 100_000));
    }

    #[test]
    fn a_reader_sees_whole_series_while_two_workers_write() {
        const EACH: u64 = 5_000;
        let (shards, reader) = room(10, 2);
        let writers: Vec<_> = shards
            .into_iter()
            .map(|mut shard| {
                std::thread::spawn(move || {
                    for i in 0..EACH {
                        count(&mut shard, &record(200, 1 + i % 1_000));
                        // a worker waits for its sockets; one that never rests would never be read whole
                        std::thread::park_timeout(Duration::from_micros(10));
                    }
                })
            })
            .collect();
        let mut before = 0;
        while before < 2 * EACH {
            for sample in samples(&reader, DURATION) {
                let histogram = histogram(&sample);
                assert_eq!(histogram.explicit.iter().sum::<u64>(), histogram.count);
                let exponential = histogram.exponential.as_ref().unwrap();
                assert_eq!(exponential.counts.iter().sum::<u64>() + exponential.zero, histogram.count);
                assert!(histogram.count >= before, "{} after {before}", histogram.count);
                before = histogram.count;
            }
            let totals = reader.totals();
            assert!(totals.completed <= totals.requests);
        }
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let exact: u64 = 2 * (0..EACH).map(|i| 1 + i % 1_000).sum::<u64>();
        assert_eq!(reader.totals().duration_sum_seconds, exact as f64 / 1e3);
    }

    #[test]
    fn a_bucket_names_the_last_request_whose_spans_are_kept() {
        let (mut shards, reader) = room(10, 1);
        let exemplars = |name| histogram(&samples(&reader, name)[0]).exemplars.clone();
        count(&mut shards[0], &sampled_out(1, 3));
        assert_eq!(exemplars(DURATION), []);
        for record in [traced(2, 3), traced(3, 5), sampled_out(4, 4), traced(5, 6), traced(6, 30_000)] {
            count(&mut shards[0], &record);
        }
        assert_eq!(exemplars(DURATION), [exemplar(3, 5), exemplar(5, 6), exemplar(6, 30_000)]);
        count(&mut shards[0], &RequestRecord { kind: RequestKind::Tunnel, ..traced(7, 7_200) });
        assert_eq!(exemplars("content_factory.http.server.stream.duration"), [exemplar(7, 7_200)]);
        assert_eq!(exemplars("http.server.request.body.size"), []);
    }

    #[test]
    fn no_request_becomes_an_exemplar_where_they_are_switched_off() {
        let routes = Routes { enabled: false, path: String::new(), refresh: Duration::ZERO };
        let config = Config { max_series: 10, exemplars: false, routes };
        let (mut shards, reader) = open(&config, 1, &Arc::new(Redactor::new([])));
        count(&mut shards[0], &traced(1, 3));
        assert_eq!(histogram(&samples(&reader, DURATION)[0]).exemplars, []);
    }

    #[test]
    fn the_newest_failures_are_kept_with_what_is_known_of_them() {
        let (mut shards, reader) = room(10, 2);
        let table = RouteTable::default().with_templates(["/videos/{id}"]);
        for i in 0..60_u64 {
            let started_unix_nanos = 1_000_000_000 * (i + 1);
            let (route, outcome) = (table.lookup(b"/videos/7"), Outcome::Failed(UpstreamFault::Timeout));
            let failed = RequestRecord { route, outcome, started_unix_nanos, ..record(504, 500) };
            count(&mut shards[usize::from(i % 2 == 0)], &failed);
        }
        count(&mut shards[0], &record(404, 1));
        let failures = reader.recent_failures();
        assert_eq!(failures.len(), 50);
        assert_eq!((failures[0].at, failures[49].at), (60.5, 11.5));
        let newest = &failures[0];
        assert_eq!((newest.status, newest.error_type.as_str()), (504, "upstream_timeout"));
        assert_eq!(newest.route.as_ref().map(|route| route.as_str()), Some("/videos/{id}"));
    }

    #[tokio::test(start_paused = true)]
    async fn windows_slide_with_time_and_show_the_newest_at_once() {
        let (mut shards, reader) = room(10, 1);
        let (_conductor, drain) = lifecycle::drain();
        let clock = tokio::task::JoinSet::from_iter([run(reader.clone(), drain)]);
        tokio::task::yield_now().await;
        for _ in 0..240 {
            advance(Duration::from_millis(2_500)).await;
            tokio::task::yield_now().await;
            count(&mut shards[0], &record(200, 100));
            advance(Duration::from_millis(2_500)).await;
            tokio::task::yield_now().await;
        }
        let [one, five, fifteen] = reader.windows();
        assert_eq!((one.length.as_secs(), one.requests), (60, 12));
        assert_eq!((five.length.as_secs(), five.requests), (300, 60));
        assert_eq!((fifteen.length.as_secs(), fifteen.requests), (900, 180));
        let p95 = one.p95_seconds.unwrap();
        assert!((p95 / 0.1 - 1.0).abs() < 0.0443, "{p95}");
        let routes = reader.routes();
        assert_eq!((routes.len(), routes[0].route.is_none(), routes[0].window.requests), (1, true, 60));
        drop(clock);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_waits_for_an_answer_that_is_being_counted() {
        let (mut shards, reader) = room(10, 1);
        reader.settled().await; // nothing under way
        shards[0].begin(&RequestHead { method: Method::Get });
        shards[0].last_write();
        let waiting = reader.clone();
        let mut waits = tokio::task::JoinSet::new();
        waits.spawn(async move {
            waiting.settled().await;
            waiting.totals().completed
        });
        tokio::task::yield_now().await;
        shards[0].end(&record(200, 1));
        assert_eq!(waits.join_next().await.unwrap().unwrap(), 1);
        shards[0].last_write();
        shards[0].not_yet();
        let before = tokio::time::Instant::now();
        reader.settled().await;
        assert_eq!(before.elapsed(), Duration::ZERO);
        shards[0].last_write();
        reader.settled().await; // a worker that hangs there makes nobody hang
        assert!(before.elapsed() <= Duration::from_millis(101));
    }

    proptest! {
        #[test]
        fn shards_merged_are_one_shard(
            requests in prop::collection::vec((0_usize..3, 0_u64..5_000, prop::sample::select(vec![200, 404, 500])), 1..100)
        ) {
            let (mut many, merged) = room(100, 3);
            let (mut one, single) = room(100, 1);
            for (number, (worker, millis, status)) in (1..).zip(requests) {
                let traced = if number % 3 == 0 { sampled_out(number, millis) } else { traced(number, millis) };
                let request = RequestRecord { status, ..traced };
                count(&mut many[worker], &request);
                count(&mut one[0], &request);
            }
            prop_assert_eq!(merged.totals(), single.totals());
            let show = |reader: &Reader| format!("{:?}", samples(reader, DURATION));
            prop_assert_eq!(show(&merged), show(&single));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn no_reader_sees_an_exemplar_made_of_two_requests(
            durations in prop::collection::vec(0_u64..20_000, 1..12),
            pauses in 1_u64..200,
        ) {
            const REQUESTS: u64 = 20_000;
            let (mut shards, reader) = room(10, 1);
            let mut shard = shards.remove(0);
            let millis_of = move |number: u64| durations[number as usize % durations.len()];
            let written = millis_of.clone();
            let writer = std::thread::spawn(move || {
                for number in 1..=REQUESTS {
                    count(&mut shard, &traced(number, written(number)));
                    if number % pauses == 0 {
                        std::thread::yield_now(); // or no reader ever finds the series at rest
                    }
                }
            });
            let (mut newest, mut is_last_look) = (0, false);
            while !is_last_look {
                is_last_look = writer.is_finished();
                for found in samples(&reader, DURATION).iter().flat_map(|sample| &histogram(sample).exemplars) {
                    let number = u64::from_be_bytes(found.span_id.0);
                    prop_assert_eq!(found, &exemplar(number, millis_of(number)));
                    newest = newest.max(number);
                }
            }
            prop_assert!(writer.join().is_ok());
            prop_assert_eq!(newest, REQUESTS);
        }
    }
}
