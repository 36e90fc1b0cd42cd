//! `check-export` as a person meets it: what each hop said, and the exit code.

use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::Span;
use tonic::Code;

use crate::export_receipts::Page;
use crate::rig::output;
use crate::telemetry_receiver::{Codings, Over, Receiver, Reply, SharedSeen};

/// Runs it against a receiver; gives the exit code and what it wrote to standard output.
async fn checked(endpoint: &str, over: Over, environment: &[(&str, &str)]) -> (i32, String) {
    let fixed = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint), ("OTEL_EXPORTER_OTLP_PROTOCOL", over.protocol())];
    let output = output(&["check-export", "--wait", "1s"], &[&fixed[..], environment].concat()).await;
    let said = String::from_utf8(output.stdout).expect("text");
    (output.status.code().expect("it ends by itself"), said)
}

/// The receiver, and its URL.
async fn receiver(over: Over, script: &[Reply]) -> (Receiver, String) {
    let seen = SharedSeen::default();
    seen.lock().expect("nobody panics").script.extend(script.iter().cloned());
    let receiver = Receiver::over(over, Codings::All, seen).await;
    let url = format!("http://{}", receiver.address);
    (receiver, url)
}

#[tokio::test]
async fn one_marked_span_metric_and_log_record_arrive_under_the_sidecars_own_name() {
    for over in Over::ALL {
        let (receiver, url) = receiver(over, &[]).await;
        let (code, said) = checked(&url, over, &[("OTEL_SERVICE_NAME", "shop")]).await;
        assert_eq!((code, said.matches(": accepted").count()), (0, 3), "{said}");
        assert!(said.contains("vendors: not asked, as telemetry.receipts.url is not set"), "{said}");
        receiver.with(|seen| {
            let Span { name, trace_id, start_time_unix_nano: start, end_time_unix_nano: end, .. } = &seen.spans[0];
            let mark: String = trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
            assert!(said.contains(&mark), "{mark} is missing in:\n{said}");
            assert_eq!(
                (name.as_str(), end - start),
                ("check-export", 2_000_000_000),
                "what is slow is kept by samplers"
            );
            assert_eq!(seen.metrics[0].name, "content_factory.export.checks");
            assert_eq!(&seen.logs[0].trace_id, trace_id);
            assert_eq!((seen.spans.len(), seen.metrics.len(), seen.logs.len()), (1, 1, 1));
            assert!(seen.services.iter().all(|name| name == "shop-sidecar"), "{:?}", seen.services);
        });
    }
}

#[tokio::test]
async fn a_receiver_that_refuses_is_told_by_signal_with_its_words_and_exit_code_1() {
    for over in Over::ALL {
        let (_receiver, url) = receiver(over, &[Reply::Accept, Reply::Fail(Code::Unauthenticated, 401)]).await;
        let (code, said) = checked(&url, over, &[]).await;
        assert_eq!((code, said.matches(": accepted").count()), (1, 2), "{said}");
        let refused = said.lines().find(|line| line.contains("refused")).unwrap_or_default();
        assert!(refused.contains("metrics") && refused.contains(&url), "{said}");
    }
}

#[tokio::test]
async fn a_receiver_that_asks_for_patience_or_is_away_is_no_answer() {
    let (_receiver, url) =
        receiver(Over::Grpc, &[Reply::FailFor(Code::Unavailable, 503, Duration::from_secs(60))]).await;
    let (code, said) = checked(&url, Over::Grpc, &[]).await;
    assert_eq!((code, said.matches("no answer").count(), said.matches(": accepted").count()), (1, 1, 2), "{said}");
    let (code, said) = checked("http://127.0.0.1:1", Over::Http, &[("OTEL_LOGS_EXPORTER", "none")]).await;
    assert_eq!((code, said.matches("no answer").count()), (1, 2), "{said}");
    assert!(said.contains("logs     to nowhere: off: telemetry.logs.enabled"), "{said}");
}

#[tokio::test]
async fn a_vendor_that_accepts_nothing_within_the_wait_is_told() {
    let (_receiver, url) = receiver(Over::Grpc, &[]).await;
    let page = Page::start().await;
    page.counts(5, 4, 5);
    let metrics = page.url();
    let (code, said) = checked(&url, Over::Grpc, &[("SIDECAR_TELEMETRY__RECEIPTS__URL", metrics.as_str())]).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("traces   at Datadog (otlp_http/datadog): no answer: nothing was accepted"), "{said}");
    assert!(said.contains("logs     at New Relic (otlp_http/newrelic): no answer"), "{said}");
    page.says(500, "");
    let (code, said) = checked(&url, Over::Grpc, &[("SIDECAR_TELEMETRY__RECEIPTS__URL", metrics.as_str())]).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("vendors: found status 500, expected 200 with the collector's metrics"), "{said}");
}

#[tokio::test]
async fn a_secret_in_the_resource_stays_behind() {
    let (receiver, url) = receiver(Over::Http, &[]).await;
    let environment =
        [("DATABASE_URL", "postgresql://user:canary-4711@db/app"), ("OTEL_SERVICE_NAME", "shop canary-4711")];
    let (code, said) = checked(&url, Over::Http, &environment).await;
    assert_eq!(code, 0, "{said}");
    receiver.with(|seen| {
        assert_eq!(seen.services.len(), 3, "one for each signal");
        assert!(seen.services.iter().all(|name| name.starts_with("shop ") && !name.contains("canary-4711")));
    });
}
