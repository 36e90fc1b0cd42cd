//! The way out of telemetry as the benches drive it, and the request whose spans it takes.
//!
//! One request, so that what is counted of its encoding and what is measured of its delivery belong together. Ids are random
//! and times differ, as in life: a compressor makes little of the one and something of the other.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use content_factory_sidecar::model::request::{
    Client, Hop, Method, Outcome, Protocol, RecordTrace, RequestKind, RequestRecord, RequestSink,
};
use content_factory_sidecar::model::route::{Route, RouteId};
use content_factory_sidecar::model::trace::{Sampled, SpanId, TraceId};
use content_factory_sidecar::redact::Redactor;
use content_factory_sidecar::settings::{Place, Settings, Tree};
use content_factory_sidecar::telemetry::config::Config;
use content_factory_sidecar::telemetry::resource::{Resource, ServiceConfig};
use content_factory_sidecar::telemetry::{SpanWriter, Telemetry, Upstream};
use serde_json::{Value, json};

/// What the request asks for.
const TARGET: &str = "/api/v1/products/17?page=2";
/// The template that it matches.
pub(crate) const ROUTE: &str = "/api/v1/products/{id}";

/// The way out with these settings below `telemetry`, and the span writer of its only worker.
pub(crate) fn way_out(telemetry: Value) -> (Telemetry, SpanWriter) {
    let mut tree = Tree::default();
    tree.merge(json!({ "telemetry": telemetry }), &Place("this program".to_owned()));
    let mut settings = Settings::new(tree, |_: &str| Ok(String::new()));
    let config = Config::read(&mut settings.section("telemetry"));
    let resource = Resource::new(&ServiceConfig::read(&mut settings.section("service")), &BTreeMap::new());
    let redactor = Arc::new(Redactor::new(["hunter2-hunter2"]));
    let upstream = Upstream { host: "127.0.0.1".into(), port: 8000 };
    let (telemetry, writers) =
        Telemetry::new(config, &resource, &redactor, &upstream, 1).expect("settings that need no certificates");
    (telemetry, writers.into_iter().next().expect("a writer for each worker"))
}

/// Ends a request, the `number`th: a SERVER and a CLIENT span.
pub(crate) fn end_request(writer: &mut SpanWriter, number: u64) {
    let span = || SpanId(fastrand::u64(1..).to_le_bytes());
    let trace = RecordTrace {
        trace_id: TraceId(fastrand::u128(1..).to_le_bytes()),
        span_id: span(),
        parent: None,
        sampled: Sampled::Yes,
        tracestate: b"",
        kept: Cell::new(false),
    };
    let answered = Duration::from_nanos(fastrand::u64(800_000..1_000_000));
    let hop =
        Hop { span_id: Some(span()), offset: Duration::from_micros(20), duration: answered, status: 200, resends: 0 };
    writer.end(&RequestRecord {
        method: Method::Get,
        method_text: b"GET",
        target: TARGET.as_bytes(),
        route: Some(Route { id: RouteId(1), template: ROUTE }),
        kind: RequestKind::Ordinary,
        protocol: Protocol::Http11,
        status: 200,
        outcome: Outcome::Answered,
        started_unix_nanos: 1_800_000_000_000_000_000 + 500_000 * number,
        duration: answered + Duration::from_micros(100),
        first_byte: Some(answered),
        request_body_bytes: 0,
        response_body_bytes: 1_024,
        trace: Some(trace),
        hop: Some(hop),
        client: Client { peer: (Ipv4Addr::LOCALHOST, 40_000).into(), address: Ipv4Addr::LOCALHOST.into() },
        user_agent: None,
        tapped: None,
    });
}
