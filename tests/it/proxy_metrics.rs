//! What the data path tells of itself, at `/metrics` and behind a receiver of OTLP.

use opentelemetry_proto::tonic::metrics::v1::metric::Data;

use crate::proxy_world::{Application, Client};
use crate::rig::Sidecar;
use crate::telemetry_receiver::{Codings, Receiver};

/// The value of the one sample whose line begins so.
fn value(page: &str, series: &str) -> f64 {
    let mut lines = page.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let value = lines.next().unwrap_or_else(|| panic!("no {series} in {page}"));
    assert!(lines.next().is_none(), "{series} is there twice");
    value.parse().expect("a number")
}

async fn answered(sidecar: &Sidecar, request: &[u8]) -> Option<(u16, bool)> {
    let mut client = Client::connect(sidecar.proxy).await.expect("it listens");
    client.send(request).await.expect("it reads");
    client.answer().await
}

#[tokio::test]
async fn refusals_are_told_by_reason_before_and_after_they_happen() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[("SIDECAR_PROXY__TIMEOUTS__HEADER", "300ms")]).await;
    let reasons: [(&str, u16, &[&[u8]]); 5] = [
        ("malformed_request", 400, &[b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"]),
        ("method_not_allowed", 405, &[b"TRACE / HTTP/1.1\r\nHost: h\r\n\r\n"]),
        ("header_timeout", 408, &[b"GET / HTTP/1.1\r\n"]),
        ("expectation_failed", 417, &[b"GET / HTTP/1.1\r\nHost: h\r\nExpect: tea\r\n\r\n"]),
        ("unknown_transfer_coding", 501, &[b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"]),
    ];
    let series = |reason: &str| format!("content_factory_proxy_refusals_total{{error_type=\"{reason}\"}}");
    let before = sidecar.metrics().await;
    for (reason, status, requests) in reasons {
        assert_eq!(value(&before, &series(reason)), 0.0, "an alert on a series that is not there is none");
        for request in requests {
            assert_eq!(answered(&sidecar, request).await, Some((status, false)), "{reason}");
        }
    }
    let page = sidecar.metrics().await;
    for (reason, _, requests) in reasons {
        assert_eq!(value(&page, &series(reason)), requests.len() as f64, "{reason}");
    }
    let all: f64 = page
        .lines()
        .filter(|line| line.starts_with("content_factory_proxy_refusals_total{"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    assert_eq!(all, 6.0, "and of no other reason");
}

#[tokio::test]
async fn connections_on_both_sides_are_counted() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = Client::connect(sidecar.proxy).await.unwrap();
        client.get("/x").await.unwrap();
        assert_eq!(client.answer().await, Some((200, true)));
        clients.push(client);
    }
    let page = sidecar.metrics().await;
    assert_eq!(value(&page, "content_factory_proxy_connections_total"), 5.0);
    assert_eq!(value(&page, "content_factory_proxy_connections_active"), 5.0);
    let upstream = value(&page, "content_factory_proxy_upstream_connections_total");
    assert!((1.0..=5.0).contains(&upstream), "{upstream}: a connection is used again");
    assert_eq!(value(&page, "content_factory_proxy_accept_errors_total"), 0.0);
    for place in ["connection", "worker", "sink"] {
        assert_eq!(value(&page, &format!("content_factory_proxy_panics_total{{place=\"{place}\"}}")), 0.0);
    }
    assert_eq!(value(&page, "content_factory_room_restarts_total{room=\"proxy\"}"), 0.0);
    clients.truncate(2);
    let closed = |_, page: &str| value(page, "content_factory_proxy_connections_active") == 2.0;
    let page = sidecar.eventually("/metrics", closed).await;
    assert_eq!(value(&page, "content_factory_proxy_connections_total"), 5.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_exported_too() {
    let application = Application::start().await;
    let receiver = Receiver::grpc(Codings::All, Default::default()).await;
    let endpoint = format!("http://{}", receiver.address);
    let interval = [("SIDECAR_TELEMETRY__METRICS__INTERVAL", "100ms")];
    let mut sidecar = Sidecar::start(application.address, &["--otlp", &endpoint], &interval).await;
    assert_eq!(answered(&sidecar, b"GET / HTTP/1.1\r\n\r\n").await, Some((400, false)));
    sidecar.signal("TERM").await;
    assert_eq!(sidecar.ended().await, Some(0));
    let mut reasons = std::collections::BTreeSet::new();
    receiver.with(|seen| {
        for metric in seen.metrics.iter().filter(|metric| metric.name == "content_factory.proxy.refusals") {
            let Some(Data::Sum(sum)) = &metric.data else { panic!("{metric:?}") };
            for point in &sum.data_points {
                reasons.insert(format!("{:?}", point.attributes));
            }
        }
    });
    assert!(reasons.iter().any(|reason| reason.contains("malformed_request")), "{reasons:?}");
}
