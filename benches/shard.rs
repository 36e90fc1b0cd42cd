//! What counting a request costs: `begin`, `last_write` and `end` of one shard, over eight routes and a few errors.
//!
//! `valgrind --tool=callgrind <this program> 20000`, and again with 120000: the difference of the instructions, divided
//! by 100,000, is the cost of a request. Prints what was counted, so that nothing is optimised away.

#![expect(clippy::print_stdout, reason = "the result of a program that measures")]

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use content_factory_sidecar::model::request::{
    Client, Method, Outcome, Protocol, RequestHead, RequestKind, RequestRecord, RequestSink,
};
use content_factory_sidecar::model::route::RouteTable;
use content_factory_sidecar::redact::Redactor;
use content_factory_sidecar::traffic::config::{Config, Routes};

fn main() {
    // `cargo bench` passes `--bench` along
    let requests: u64 = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(20_000);
    let routes = Routes { enabled: false, path: String::new(), refresh: Duration::ZERO };
    let config = Config { max_series: 2_000, exemplars: true, routes };
    let (mut shards, reader) =
        content_factory_sidecar::traffic::open(&config, 1, &Arc::new(Redactor::new(["hunter2-hunter2"])));
    let templates: Vec<String> = (0..8).map(|i| format!("/products/{i}")).collect();
    let table = RouteTable::default().with_templates(templates.iter().map(String::as_str));
    for i in 0..requests {
        let path = templates[(i % 8) as usize].as_bytes();
        let record = RequestRecord {
            method: Method::Get,
            method_text: b"GET",
            target: path,
            route: table.lookup(path),
            kind: RequestKind::Ordinary,
            protocol: Protocol::Http11,
            status: if i % 100 == 0 { 503 } else { 200 },
            outcome: Outcome::Answered,
            started_unix_nanos: i,
            duration: Duration::from_micros(100 + i % 5_000),
            first_byte: None,
            request_body_bytes: 0,
            response_body_bytes: 1_024,
            trace: None,
            hop: None,
            client: Client { peer: (Ipv4Addr::LOCALHOST, 1).into(), address: Ipv4Addr::LOCALHOST.into() },
            user_agent: None,
            tapped: None,
        };
        count(&mut shards[0], &record);
    }
    println!("{:?}", reader.totals());
}

/// A function of its own, so that callgrind counts it apart from the loop above.
#[inline(never)]
fn count(sink: &mut impl RequestSink, record: &RequestRecord<'_>) {
    sink.begin(&RequestHead { method: record.method });
    sink.last_write();
    sink.end(record);
}
