//! Everything at once, for a while: memory and file descriptors must come to rest.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::counting::{Chaos, LIMITS};
use crate::memory::{AT_REST, Memory, descriptors, descriptors_at_rest};
use crate::origin::{Head, Origin, Site, Stream, exporting, say};
use crate::page;
use crate::proxy_world::Application;
use crate::scale::{alone, scaled, seed, soak_seconds};

/// Clients at once.
const LANES: u64 = 8;
/// File descriptors under load: those at rest, and two for each client, of which one leads to the application.
const DESCRIPTORS: usize = AT_REST + 2 * LANES as usize;

/// Only telemetry comes here.
struct Receiver;

impl Site for Receiver {
    async fn answer(&self, _: &Head, stream: &mut Stream) -> std::io::Result<()> {
        say(stream, 404, "").await
    }
}

async fn load(chaos: &Arc<Chaos>, seed: u64, until: Instant) {
    let mut lanes = JoinSet::new();
    for lane in 0..LANES {
        let chaos = Arc::clone(chaos);
        lanes.spawn(async move {
            let mut random = Rng::with_seed(seed.wrapping_add(lane));
            while Instant::now() < until {
                chaos.round(&mut random).await;
            }
        });
    }
    lanes.join_all().await;
}

/// By how much in ten minutes the line through the samples rises: least squares.
fn slope(samples: &[(f64, f64)]) -> f64 {
    let count = samples.len() as f64;
    let (x, y) = samples.iter().fold((0.0, 0.0), |(x, y), sample| (x + sample.0 / count, y + sample.1 / count));
    let above: f64 = samples.iter().map(|sample| (sample.0 - x) * (sample.1 - y)).sum();
    let below: f64 = samples.iter().map(|sample| (sample.0 - x).powi(2)).sum();
    600.0 * above / below
}

/// By how much memory may have grown when the load is over and all is delivered: caches that were still to fill.
const GROWN_KIB: u64 = 4 << 10;

/// Row 22: memory comes back to what it was, and in the long form it rises by less than 1 MB in ten minutes of load. The
/// short one is over before caches are full, and what waits for a busy export is no leak. File descriptors do not rise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_and_descriptors_come_to_rest_under_mixed_load() {
    // a backlog for want of time would be measured along
    let _machine = alone().await;
    let (seconds, seed) = (soak_seconds(60, 1_800), seed());
    let (application, receiver) = (Application::start().await, Origin::start(Arc::new(Receiver)).await);
    let sidecar = exporting(application.address, &receiver, &LIMITS).await;
    let chaos = Chaos::new(application, sidecar.proxy);
    load(&chaos, seed, Instant::now() + Duration::from_secs(scaled(3, 120))).await;
    let (memory, started) = (Memory::watch(&sidecar), Instant::now());
    let mut loading = JoinSet::new();
    let until = started + Duration::from_secs(seconds);
    loading.spawn({
        let chaos = Arc::clone(&chaos);
        async move { load(&chaos, !seed, until).await }
    });
    let (mut samples, mut open) = (Vec::new(), Vec::new());
    while Instant::now() < until {
        sleep(Duration::from_secs(1)).await;
        let at = started.elapsed().as_secs_f64();
        samples.push((at, memory.growth_kib() as f64));
        open.push((at, descriptors(&sidecar) as f64));
    }
    loading.join_all().await;
    let (rise, opened) = (slope(&samples), slope(&open));
    let highest = open.iter().map(|(_, open)| *open as usize).max().expect("samples");
    let wanted = chaos.tally();
    let sent: u64 = wanted.values().sum();
    let page = page::settled(&sidecar, sent).await;
    assert_eq!(page::tally(&page), wanted, "left: the metrics, right: the clients' own tally");
    let lost = page::sum(&page, "content_factory_telemetry_dropped_total", "");
    assert_eq!(lost, 0.0, "what is not delivered waits in memory, and would be measured along");
    descriptors_at_rest(&sidecar).await;
    let grown = memory.at_rest_kib(GROWN_KIB).await;
    println!(
        "{sent} requests in {seconds} s: {grown} KiB more, {rise:.0} KiB in ten minutes; {highest} descriptors at the \
         highest, {opened:.1} more in ten minutes"
    );
    assert!(grown < GROWN_KIB, "{grown} KiB more when all is done");
    assert!(rise < 1_000.0 || seconds <= 60, "{rise:.0} KiB more in ten minutes");
    assert!(highest <= DESCRIPTORS, "{highest} descriptors");
    assert!(opened < 1.0 || seconds <= 60, "{opened:.1} descriptors more in ten minutes");
}
