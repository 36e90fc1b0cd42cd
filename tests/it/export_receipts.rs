//! What the collector says of the vendors, as the admin port shows it: a collector's page by script, read by the binary.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::rig::{Sidecar, echo_application};
use crate::telemetry_receiver::free_listener;

const EXPORT: &str = "/api/v1/monitoring/export";

/// A collector, as far as its page of metrics goes.
pub(crate) struct Page {
    address: SocketAddr,
    answer: Arc<Mutex<(u16, String)>>,
    _tasks: JoinSet<()>,
}

impl Page {
    pub(crate) async fn start() -> Self {
        let listener = free_listener().await;
        let address = listener.local_addr().expect("an address");
        let answer = Arc::new(Mutex::new((200, String::new())));
        let router = Router::new().fallback(tell).with_state(Arc::clone(&answer));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.expect("the page is served") });
        Self { address, answer, _tasks: tasks }
    }

    /// Where it is read.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/metrics", self.address)
    }

    pub(crate) fn says(&self, status: u16, text: &str) {
        *self.answer.lock().expect("no test panics while it holds the page") = (status, text.to_owned());
    }

    /// New Relic has given up so many spans, Datadog has accepted so many.
    pub(crate) fn counts(&self, datadog: u64, refused: u64, new_relic: u64) {
        self.says(
            200,
            &format!(
                "otelcol_exporter_sent_spans{{exporter=\"otlp_http/datadog\"}} {datadog}\n\
                 otelcol_exporter_sent_spans{{exporter=\"otlp_http/newrelic\"}} {new_relic}\n\
                 otelcol_exporter_send_failed_spans_total{{exporter=\"otlp_http/newrelic\"}} {refused}\n\
                 otelcol_exporter_queue_size{{data_type=\"logs\",exporter=\"otlp_http/newrelic\"}} 0\n\
                 otelcol_receiver_accepted_spans{{receiver=\"otlp\",transport=\"grpc\"}} {datadog}\n"
            ),
        );
    }
}

async fn tell(Shared(answer): Shared<Arc<Mutex<(u16, String)>>>) -> (StatusCode, String) {
    let (status, text) = answer.lock().expect("no test panics while it holds the page").clone();
    (StatusCode::from_u16(status).expect("a status"), text)
}

async fn sidecar(page: &Page) -> Sidecar {
    let url = page.url();
    let environment =
        [("SIDECAR_TELEMETRY__RECEIPTS__URL", url.as_str()), ("SIDECAR_TELEMETRY__RECEIPTS__INTERVAL", "100ms")];
    Sidecar::start(echo_application().await, &[], &environment).await
}

fn parsed(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

fn spans_of<'v>(body: &'v Value, vendor: &str) -> &'v Value {
    let vendors = body["vendors"].as_array().expect("a list of vendors");
    vendors.iter().find(|entry| entry["vendor"] == vendor).map_or(&Value::Null, |entry| &entry["signals"]["traces"])
}

#[tokio::test]
async fn who_refuses_is_told_since_when_until_it_accepts() {
    let page = Page::start().await;
    page.counts(5, 0, 5);
    let sidecar = sidecar(&page).await;
    let is = |vendor: &'static str, condition: &'static str| {
        move |_: u16, body: &str| spans_of(&parsed(body), vendor)["condition"] == condition
    };
    sidecar.eventually(EXPORT, is("New Relic", "accepting")).await;
    page.counts(9, 4, 5);
    let refused = parsed(&sidecar.eventually(EXPORT, is("New Relic", "refusing")).await);
    let spans = spans_of(&refused, "New Relic");
    assert_eq!((&spans["accepted"], &spans["failed"]), (&5.into(), &4.into()), "{spans}");
    let since = spans["since"].as_f64().expect("a time");
    assert!(since <= refused["timestamp"].as_f64().expect("a time") && since > 1.7e9, "{spans}");
    assert_eq!(spans_of(&refused, "Datadog")["condition"], "accepting");
    assert_eq!(refused["collector"]["received"]["traces"]["accepted"], 9);
    page.counts(9, 7, 5);
    let later = sidecar.eventually(EXPORT, |_, body| spans_of(&parsed(body), "New Relic")["failed"] == 7).await;
    assert_eq!(spans_of(&parsed(&later), "New Relic")["since"].as_f64(), Some(since), "it is the same refusal");

    let metrics = sidecar.metrics().await;
    for line in [
        r#"content_factory_exporter_accepted_total{exporter="otlp_http/datadog",signal="traces"} 9"#,
        r#"content_factory_exporter_failed_total{exporter="otlp_http/newrelic",signal="traces"} 7"#,
        r#"content_factory_exporter_refusing{exporter="otlp_http/newrelic",signal="traces"} 1"#,
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is missing in:\n{metrics}");
    }
    let dashboard = sidecar.ask("/dashboard").await.1;
    assert!(dashboard.contains("New Relic") && dashboard.contains("refusing for"), "{dashboard}");
    page.counts(9, 7, 6);
    sidecar.eventually(EXPORT, is("New Relic", "accepting")).await;
}

#[tokio::test]
async fn a_collector_that_is_away_or_another_is_told_and_what_was_read_stays() {
    let page = Page::start().await;
    page.counts(5, 0, 5);
    let sidecar = sidecar(&page).await;
    sidecar.eventually(EXPORT, |_, body| spans_of(&parsed(body), "Datadog")["accepted"] == 5).await;
    for (status, text, expected) in [
        (500, "", "found status 500, expected 200 with the collector's metrics"),
        (200, "<html>\n", "found no otelcol_ metrics, expected those of a collector itself"),
    ] {
        page.says(status, text);
        let told = |_: u16, body: &str| body.contains(expected);
        sidecar.eventually(EXPORT, told).await;
    }
    page.counts(6, 0, 5);
    let is_well = |_: u16, body: &str| {
        let body = parsed(body);
        body["collector"]["problem"].is_null() && spans_of(&body, "Datadog")["accepted"] == 6
    };
    sidecar.eventually(EXPORT, is_well).await;
}

#[tokio::test]
async fn our_own_account_stands_beside_it_with_what_is_wrong() {
    let sidecar = Sidecar::start(echo_application().await, &[], &[("OTEL_LOGS_EXPORTER", "none")]).await;
    // nothing listens where telemetry goes, and the start is logged and measured
    let is_failing = |_: u16, body: &str| parsed(body)["signals"]["metrics"]["condition"] == "failing";
    crate::rig::get(sidecar.proxy, "/").await.expect("an answer");
    let body = parsed(&sidecar.eventually(EXPORT, is_failing).await);
    assert!(body["vendors"].is_null() && body["collector"].is_null(), "{body}");
    let metrics = &body["signals"]["metrics"];
    assert_eq!(metrics["endpoint"], "http://127.0.0.1:1");
    assert!(metrics["problem"].as_str().is_some_and(|problem| !problem.is_empty()), "{metrics}");
    let signals: Vec<&String> = body["signals"].as_object().expect("an object").keys().collect();
    assert_eq!(signals, ["traces", "metrics"], "what is switched off is left out");
}
