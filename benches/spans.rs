//! What the spans of a request cost: a SERVER and a CLIENT span, encoded and handed over.
//!
//! `valgrind --tool=callgrind <this program> 20000`, and again with 120000: the difference of the instructions, divided
//! by 100,000, is the cost of a request. Prints what was counted, so that nothing is optimised away.

#![expect(clippy::print_stdout, reason = "the result of a program that measures")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use content_factory_sidecar::model::request::{
    Client, Hop, Method, Outcome, Protocol, RecordTrace, RequestKind, RequestRecord, RequestSink,
};
use content_factory_sidecar::model::route::{Route, RouteId};
use content_factory_sidecar::model::telemetry::Signal;
use content_factory_sidecar::model::trace::{Sampled, SpanId, TraceId};
use content_factory_sidecar::redact::Redactor;
use content_factory_sidecar::settings::{Settings, Tree};
use content_factory_sidecar::telemetry::config::Config;
use content_factory_sidecar::telemetry::resource::{Resource, ServiceConfig};
use content_factory_sidecar::telemetry::{Telemetry, Upstream};

fn main() {
    // `cargo bench` passes `--bench` along
    let requests: u64 = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(20_000);
    let mut settings = Settings::new(Tree::default(), |_: &str| Ok(String::new()));
    let config = Config::read(&mut settings.section("telemetry"));
    let resource = Resource::new(&ServiceConfig::read(&mut settings.section("service")), &BTreeMap::new());
    let redactor = Arc::new(Redactor::new(["hunter2-hunter2"]));
    let upstream = Upstream { host: "127.0.0.1".into(), port: 8000 };
    let (telemetry, mut writers) = Telemetry::new(config, &resource, &redactor, &upstream, 1).expect("the defaults");
    let span = |id: u64| SpanId((id + 1).to_le_bytes());
    for number in 0..requests {
        let trace = RecordTrace {
            trace_id: TraceId([7; 16]),
            span_id: span(number),
            parent: None,
            sampled: Sampled::Yes,
            tracestate: b"",
            kept: Cell::new(false),
        };
        let hop = Hop {
            span_id: Some(span(number << 1)),
            offset: Duration::from_micros(20),
            duration: Duration::from_micros(900),
            status: 200,
            resends: 0,
        };
        writers[0].end(&RequestRecord {
            method: Method::Get,
            method_text: b"GET",
            target: b"/api/v1/products/17?page=2",
            route: Some(Route { id: RouteId(1), template: "/api/v1/products/{id}" }),
            kind: RequestKind::Ordinary,
            protocol: Protocol::Http11,
            status: 200,
            outcome: Outcome::Answered,
            started_unix_nanos: 1_800_000_000_000_000_000 + number,
            duration: Duration::from_micros(1_000),
            first_byte: Some(Duration::from_micros(900)),
            request_body_bytes: 0,
            response_body_bytes: 1_024,
            trace: Some(trace),
            hop: Some(hop),
            client: Client { peer: (Ipv4Addr::LOCALHOST, 40_000).into(), address: Ipv4Addr::LOCALHOST.into() },
            user_agent: None,
            tapped: None,
        });
    }
    println!("{:?}", telemetry.reader().state().accounts[Signal::Traces as usize]);
}
