//! Clients that make everything up: paths, methods and hosts that never come twice must not become series. Nor must
//! an application that takes part, and answers with every status there is.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::memory::Memory;
use crate::origin::{Head, Origin, Site, Stream, connect, exporting, say};
use crate::page;
use crate::rig::PATIENCE;
use crate::scale::{among_others, scaled, seed};

/// Connections that attack at once.
const LANES: u64 = 8;
/// Requests that are on their way on a connection.
const PIPELINED: usize = 50;
/// The most series of requests, with those of the overflow.
const SERIES: usize = 2_000 + 3;

/// Answers with the status that is asked for.
struct AnyStatus;

impl Site for AnyStatus {
    async fn answer(&self, head: &Head, stream: &mut Stream) -> std::io::Result<()> {
        let status = head.field("x-status").and_then(|status| status.parse().ok()).unwrap_or(200);
        say(stream, status, "").await
    }
}

/// A request like no other; a part of them is for routes that the application has.
fn request(random: &mut fastrand::Rng) -> String {
    let unique = random.u64(..);
    let path = match random.u8(..4) {
        0 => format!("/items/{unique:x}"),
        1 => format!("/users/{unique:x}/posts/{}", random.u16(..)),
        2 => format!("/flat?q={unique:x}"),
        _ => format!("/{unique:x}/{}.php", random.u32(..)),
    };
    let method = match random.u8(..3) {
        0 => format!("M{unique:X}"),
        1 => "DELETE".to_owned(),
        _ => "GET".to_owned(),
    };
    let agent = format!("agent-{unique:x}");
    let status = random.u16(200..600);
    let fields = format!("User-Agent: {agent}\r\nX-{unique:x}: 1\r\nX-Status: {status}");
    format!("{method} {path} HTTP/1.1\r\nHost: h{unique:x}.example\r\n{fields}\r\n\r\n")
}

async fn attack(proxy: std::net::SocketAddr, seed: u64, requests: usize) -> std::io::Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut stream = connect(proxy).await?;
    for _ in 0..requests.div_ceil(PIPELINED) {
        let batch: String = (0..PIPELINED).map(|_| request(&mut random)).collect();
        stream.write_all(batch.as_bytes()).await?;
        for _ in 0..PIPELINED {
            let head = timeout(PATIENCE, Head::read(&mut stream)).await.expect("an answer in time")?;
            assert!(head.is_some_and(|head| head.status() >= 200), "an answer, whatever it says");
        }
    }
    Ok(())
}

async fn attack_by_all(proxy: std::net::SocketAddr, seed: u64, requests: usize) {
    let mut lanes = JoinSet::new();
    for lane in 0..LANES {
        lanes.spawn(attack(proxy, seed.wrapping_add(lane), requests / LANES as usize));
    }
    while let Some(lane) = lanes.join_next().await {
        lane.expect("no client panics").expect("no connection fails");
    }
}

/// What waits for a receiver has bounds of its own, and none of it is measured here.
const SERIES_ALONE: [(&str, &str); 2] =
    [("SIDECAR_TELEMETRY__QUEUE__TRACES", "1MiB"), ("SIDECAR_TELEMETRY__SPOOL__ENABLED", "false")];

/// Attacks, and gives the KiB by which memory was above its begin at the highest; every request must be counted, in no more
/// series than there may be. Metrics are exported at this interval: each time some MiB for a moment.
async fn grown_by_an_attack(interval: &str) -> u64 {
    let (requests, seed) = (scaled(100_000, 1_000_000), seed());
    let application = Origin::start(Arc::new(AnyStatus)).await;
    let settings = [&SERIES_ALONE[..], &[("SIDECAR_TELEMETRY__METRICS__INTERVAL", interval)]].concat();
    let sidecar = exporting(application.address, &application, &settings).await;
    let warm_up = 4_000;
    attack_by_all(sidecar.proxy, seed.wrapping_mul(31), warm_up).await;
    let memory = Memory::watch(&sidecar);
    attack_by_all(sidecar.proxy, seed, requests).await;
    let page = page::settled(&sidecar, (requests + warm_up) as u64).await;
    assert_eq!(page::total(&page), (requests + warm_up) as u64, "each request is counted, also beyond the last series");
    let counts = page::samples(&page).filter(|(name, ..)| *name == "http_server_request_duration_seconds_count");
    let series = counts.count();
    assert!(series <= SERIES, "{series} series");
    let beyond = page::sum(&page, "http_server_request_duration_seconds_count", "otel_metric_overflow=\"true\"");
    assert!(beyond > 0.0, "4,800 kinds of requests did not fill the series, so nothing is proved");
    let methods: BTreeSet<&str> =
        page::samples(&page).map(|(_, labels, _)| page::label(labels, "http_request_method")).collect();
    assert!(methods.is_subset(&["", "GET", "DELETE", "_OTHER"].into()), "{methods:?}");
    let grown = memory.peak_growth_kib();
    println!(
        "{requests} requests, none like another, metrics each {interval}: {series} series, {beyond} beyond them, {grown} KiB \
         more at the highest"
    );
    grown
}

/// Row 12: the number of series is bounded, the total exact, and memory grows by at most 16 MiB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_methods_and_hosts_that_never_come_twice_become_no_series() {
    let _machine = among_others().await;
    let grown = grown_by_an_attack("10m").await;
    assert!(grown <= 16 << 10, "{grown} KiB more");
}

/// Row 12 with exports in the midst of it: what an export of all series holds for a moment is within the same bound; a debug build
/// holds more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_of_all_series_in_an_attack_holds_a_bounded_part_more_for_a_moment() {
    let _machine = among_others().await;
    let grown = grown_by_an_attack("1s").await;
    assert!(grown <= scaled(24, 16) << 10, "{grown} KiB more");
}
