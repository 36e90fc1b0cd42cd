//! An export request of an SDK, through the intake's port: the first byte says which signal it is, in which form and coding.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use content_factory_sidecar::lifecycle;
use content_factory_sidecar::model::incident::incidents;
use content_factory_sidecar::redact::Redactor;
use content_factory_sidecar::settings::{Place, Settings, Tree};
use content_factory_sidecar::telemetry::config::Config;
use content_factory_sidecar::telemetry::resource::{Resource, ServiceConfig};
use content_factory_sidecar::telemetry::{Telemetry, Upstream, intake};
use serde_json::json;

use crate::targets::Fate;

static INTAKE: LazyLock<SocketAddr> = LazyLock::new(open);

const PATHS: [&str; 3] = ["/v1/traces", "/v1/metrics", "/v1/logs"];
const FORMS: [&str; 2] = ["application/x-protobuf", "application/json"];
const CODINGS: [&str; 3] = ["identity", "gzip", "zstd"];

/// Whatever the bytes are, the sender is told: that they were taken, that they are no request, or that they are too much.
pub(crate) fn check(data: &[u8]) -> Fate {
    let Some((first, body)) = data.split_first() else { return Fate::Refused };
    let choice = usize::from(first.wrapping_sub(b'0'));
    let (path, form, coding) = (PATHS[choice % 3], FORMS[choice / 3 % 2], CODINGS[choice / 6 % 3]);
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {form}\r\nContent-Encoding: {coding}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(*INTAKE).expect("the intake listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a duration above zero");
    stream.write_all(&[head.as_bytes(), body].concat()).expect("the intake reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("a whole answer in time");
    match answer.get(9..12) {
        Some(b"200") => Fate::Accepted,
        Some(b"400" | b"413") => Fate::Refused,
        _ => panic!("{}", answer.escape_ascii()),
    }
}

/// Everything is cleaned, and nothing is exported: there would be no room for what a fuzzer sends.
fn open() -> SocketAddr {
    let off = json!({"enabled": false});
    let intake = json!({"enabled": true, "grpc": "127.0.0.1:0", "http": "127.0.0.1:0"});
    let settings =
        json!({"traces": off, "metrics": off, "logs": off, "endpoint": "http://127.0.0.1:1", "intake": intake});
    let mut tree = Tree::default();
    tree.merge(json!({ "telemetry": settings }), &Place("target".to_owned()));
    let mut settings = Settings::new(tree, |_: &str| Err("no files".to_owned()));
    let config = Config::read(&mut settings.section("telemetry"));
    let service = ServiceConfig::read(&mut settings.section("service"));
    let (_, problems, _) = settings.finish();
    assert!(problems.is_empty(), "{problems:?}");
    let ports = intake::bind(config.intake.as_ref().expect("it is switched on")).expect("port 0 is always free");
    let address = ports.addresses()[1].1;
    let (identity, redactor) =
        (Resource::new(&service, &Default::default()), Arc::new(Redactor::new(["hunter2-secret"])));
    let upstream = Upstream { host: "127.0.0.1".to_owned(), port: 1 };
    let (spans, limits) = (config.spans, config.limits);
    let (telemetry, _) = Telemetry::new(config, &identity, &redactor, &upstream, 0).expect("settings that fit");
    let policy = intake::Policy { spans, privacy: telemetry.privacy(), limits };
    // exceptions in log records are read, too, and told to nobody
    let (sink, _) = incidents();
    let door = ports.door(policy, identity, redactor, (telemetry.intake(), Some(sink)));
    thread::spawn(move || {
        let (_conductor, end) = lifecycle::drain();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(door.serve(end));
    });
    address
}
