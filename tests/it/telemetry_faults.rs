//! A receiver or a network that fails in every way: nothing is lost, everything is counted, and it all arrives afterwards.

use std::collections::BTreeSet;
use std::time::Duration;

use content_factory_sidecar::model::telemetry::Signal;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::Code;

use crate::rig::{PATIENCE, Sidecar, echo_application, get};
use crate::telemetry_link::{Conduct, Link};
use crate::telemetry_receiver::{Codings, Over, Receiver, Reply, eventually};
use crate::telemetry_setup::{Running, assert_balanced};

const SOON: Duration = Duration::from_secs(60);

/// Two spans for each.
const REQUESTS: u64 = 100;

/// What goes wrong.
#[derive(Clone, Debug)]
enum Fault {
    /// On the way.
    Link(Conduct),
    /// At the receiver, until it is told otherwise.
    Receiver(Reply),
}

fn faults() -> Vec<(Over, Fault)> {
    let slow = Reply::Slow(Duration::from_secs(10));
    let both = [
        Fault::Link(Conduct::Swallow),
        Fault::Link(Conduct::Reset),
        Fault::Link(Conduct::Babble),
        Fault::Receiver(slow),
        Fault::Receiver(Reply::Fail(Code::Unavailable, 503)),
        Fault::Receiver(Reply::FailFor(Code::Unavailable, 429, Duration::from_secs(1))),
    ];
    Over::ALL.into_iter().flat_map(|over| both.clone().map(|fault| (over, fault))).collect()
}

/// Before, during and after the fault: each span is counted at any moment, and arrives.
async fn is_survived(over: Over, fault: Fault) {
    let folder = TempDir::new().expect("a folder");
    let receiver = Receiver::over(over, Codings::All, Default::default()).await;
    let link = Link::before(&receiver).await;
    let settings =
        json!({"endpoint": format!("http://{}", link.address), "protocol": over.protocol(), "timeout": "300ms"});
    let mut running = Running::start_in(folder.path(), settings);
    running.produce(REQUESTS);
    running.settled(SOON).await;
    match &fault {
        Fault::Link(conduct) => link.turn(*conduct),
        Fault::Receiver(reply) => receiver.with(|seen| seen.otherwise = Some(reply.clone())),
    }
    for round in 1..=3 {
        running.produce(REQUESTS);
        let on_disk = || {
            let account = running.account(Signal::Traces);
            assert_balanced(&account);
            account.spooled == 2 * REQUESTS * round
        };
        eventually(&format!("{over:?} {fault:?}: round {round} is on disk"), SOON, on_disk).await;
    }
    link.turn(Conduct::Pass);
    receiver.with(|seen| seen.otherwise = None);
    running.settled(SOON).await;
    let account = running.account(Signal::Traces);
    assert_eq!((account.produced, account.delivered), (8 * REQUESTS, 8 * REQUESTS), "{over:?} {fault:?}: {account:?}");
    // one whose answer came too late comes twice
    let traces: BTreeSet<_> = receiver.with(|seen| seen.spans.iter().map(|span| span.trace_id.clone()).collect());
    assert_eq!(traces.len() as u64, REQUESTS, "{over:?} {fault:?}");
    assert!(receiver.with(|seen| seen.spans.len()) as u64 >= 8 * REQUESTS, "{over:?} {fault:?}");
    running.stop(SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fault_loses_a_span() {
    join_all(faults().into_iter().map(|(over, fault)| is_survived(over, fault))).await;
}

/// What the admin port says of a signal: produced, and the sum of what became of it.
fn told(body: &str, signal: &str) -> Option<(u64, u64)> {
    let export: Value = serde_json::from_str(body).ok()?;
    let account = &export["signals"][signal];
    let number = |value: &Value| value.as_u64().expect("a number");
    let dropped: u64 = account["dropped"].as_object()?.values().map(number).sum();
    let queued = number(&account["queued"]["memory"]) + number(&account["queued"]["disk"]);
    Some((
        number(&account["produced"]),
        number(&account["delivered"]) + number(&account["rejected"]) + dropped + queued,
    ))
}

/// The account of a signal on the page of metrics, in the same way.
fn measured(page: &str, signal: &str) -> (u64, u64) {
    let label = format!("signal=\"{signal}\"");
    let sum = |name: &str| {
        let lines = page.lines().filter(|line| line.starts_with(name) && line.contains(&label));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
    };
    let parts = ["delivered_total{", "rejected_total{", "dropped_total{", "queued{"];
    let of = |name: &str| sum(&format!("content_factory_telemetry_{name}"));
    (of("produced_total{"), parts.iter().map(|name| of(name)).sum())
}

/// The account of a signal in the dashboard's table, in the same way.
fn shown(page: &str, signal: &str) -> (u64, u64) {
    let (_, row) = page.split_once(&format!("<th scope=\"row\">{signal}</th>")).expect("a row");
    let (row, _) = row.split_once("</tr>").expect("its end");
    let digits = |cell: &str| cell.chars().filter(char::is_ascii_digit).collect::<String>();
    let cells: Vec<u64> = row.split("</td>").filter_map(|cell| digits(cell).parse().ok()).collect();
    assert_eq!(cells.len(), 6, "{row}");
    (cells[0], cells[1..].iter().sum())
}

/// Looks at the three places where the account is, which must be exact at whatever moment; gives what was produced.
async fn exact(sidecar: &Sidecar) -> u64 {
    let export = sidecar.ask("/api/v1/monitoring/export").await.1;
    let (page, dashboard) = (sidecar.metrics().await, sidecar.ask("/dashboard").await.1);
    for signal in ["traces", "metrics", "logs"] {
        let (produced, sum) = told(&export, signal).expect("an account");
        assert_eq!(produced, sum, "{signal}: {export}");
        let (produced, sum) = measured(&page, signal);
        assert_eq!(produced, sum, "{signal}: {page}");
        let (produced, sum) = shown(&dashboard, signal);
        assert_eq!(produced, sum, "{signal}: {dashboard}");
    }
    told(&export, "traces").expect("an account").0
}

#[tokio::test]
async fn the_account_is_shown_and_exact_before_during_and_after_an_outage() {
    let receiver = Receiver::grpc(Codings::All, Default::default()).await;
    let application = echo_application().await;
    let otlp = format!("http://{}", receiver.address);
    let mut sidecar = Sidecar::start(application, &["--otlp", &otlp], &[]).await;
    let replies = [None, Some(Reply::Fail(Code::Unavailable, 503)), Some(Reply::Partial(1, "one of them")), None];
    for reply in replies {
        receiver.with(|seen| seen.otherwise = reply);
        let before = exact(&sidecar).await;
        for _ in 0..20 {
            get(sidecar.proxy, "/x").await.expect("the proxy answers");
            exact(&sidecar).await;
        }
        let more = |_, body: &str| told(body, "traces").is_some_and(|(produced, _)| produced >= before + 40);
        sidecar.eventually("/api/v1/monitoring/export", more).await;
    }
    sidecar.signal("TERM").await;
    assert_eq!(tokio::time::timeout(PATIENCE, sidecar.ended()).await.expect("it ends"), Some(0));
}

/// What a process leaves on disk, killed or told to end, is produced, queued and delivered in the account of the next.
#[tokio::test]
async fn the_account_is_exact_over_restarts_and_every_span_is_in_it_once() {
    const REQUESTS: u64 = 10;
    let receiver = Receiver::grpc(Codings::All, Default::default()).await;
    receiver.with(|seen| seen.otherwise = Some(Reply::Fail(Code::Unavailable, 503)));
    let (application, folder) = (echo_application().await, TempDir::new().expect("a folder"));
    let (otlp, data_dir) = (format!("http://{}", receiver.address), folder.path().to_string_lossy().into_owned());
    let start =
        async || Sidecar::start(application, &["--otlp", &otlp], &[("SIDECAR_DATA_DIR", data_dir.as_str())]).await;
    let traces = |body: &str, place: &str| -> Option<u64> {
        let export: Value = serde_json::from_str(body).ok()?;
        let account = &export["signals"]["traces"];
        if place == "delivered" { account[place].as_u64() } else { account["queued"][place].as_u64() }
    };
    for (round, signal) in (1..).zip(["TERM", "KILL", "TERM"]) {
        let mut sidecar = start().await;
        for _ in 0..REQUESTS {
            get(sidecar.proxy, "/x").await.expect("the proxy answers");
            exact(&sidecar).await;
        }
        let on_disk = move |_, body: &str| traces(body, "disk") == Some(2 * REQUESTS * round);
        sidecar.eventually("/api/v1/monitoring/export", on_disk).await;
        assert_eq!(exact(&sidecar).await, 2 * REQUESTS * round, "what was found counts as produced");
        sidecar.signal(signal).await;
        tokio::time::timeout(PATIENCE, sidecar.ended()).await.expect("it ends");
    }
    receiver.with(|seen| seen.otherwise = None);
    let mut sidecar = start().await;
    let all = 2 * REQUESTS * 3;
    let deadline = tokio::time::Instant::now() + SOON;
    while traces(&sidecar.ask("/api/v1/monitoring/export").await.1, "delivered") != Some(all) {
        assert!(tokio::time::Instant::now() < deadline, "not all are delivered");
        exact(&sidecar).await;
    }
    assert_eq!(exact(&sidecar).await, all);
    sidecar.signal("TERM").await;
    tokio::time::timeout(PATIENCE, sidecar.ended()).await.expect("it ends");
    let ids: BTreeSet<_> = receiver.with(|seen| seen.spans.iter().map(|span| span.span_id.clone()).collect());
    assert_eq!(ids.len() as u64, all);
}
