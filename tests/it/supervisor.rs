//! Rooms that panic in the real supervisor, beside a real proxy under load: no request notices, and what is started again works.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use content_factory_sidecar::app::supervisor::Supervisor;
use content_factory_sidecar::lifecycle::{self, Drain};
use content_factory_sidecar::model::catalogue::ROOM_RESTARTS;
use content_factory_sidecar::model::sample::{LabelValue, Sample, SampleSource, SampleValue};
use content_factory_sidecar::model::telemetry::{DropReason, Signal};
use content_factory_sidecar::redact::Redactor;
use content_factory_sidecar::telemetry::{SpanWriter, Telemetry, Upstream};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::proxy_room::{Room, config, echo};
use crate::proxy_world::Client;
use crate::rig::PATIENCE;
use crate::telemetry_receiver::{Codings, Receiver, eventually};
use crate::telemetry_setup::{self, assert_balanced};

const CLIENTS: usize = 8;

/// How many answers come before and after the panics, at least.
const ANSWERS: u64 = 500;

/// A source that panics once, when it is asked after `armed` was set.
fn fragile(armed: &Arc<AtomicBool>) -> SampleSource {
    let armed = Arc::clone(armed);
    Arc::new(move |_| assert!(!armed.swap(false, Ordering::Relaxed), "a bug of a room"))
}

/// The way out with these sources, as `app` runs it.
fn add_telemetry(
    rooms: &mut Supervisor,
    telemetry: Telemetry,
    samples: Vec<SampleSource>,
    drain: &Drain,
) -> Arc<AtomicU64> {
    let (room, drain) = (Arc::new((telemetry, samples)), drain.clone());
    rooms.add("telemetry", move || {
        let (room, drain) = (Arc::clone(&room), drain.clone());
        async move { room.0.run(&room.1, drain).await }
    })
}

/// A room that panics each time that it is started, until it has done so three times.
fn add_hopeless(rooms: &mut Supervisor, begin: &Arc<AtomicBool>, drain: &Drain) -> Arc<AtomicU64> {
    let (starts, begin, drain) = (Arc::new(AtomicU64::new(0)), Arc::clone(begin), drain.clone());
    rooms.add("hopeless", move || {
        let (starts, begin, mut drain) = (Arc::clone(&starts), Arc::clone(&begin), drain.clone());
        async move {
            eventually("the load", PATIENCE, || begin.load(Ordering::Relaxed)).await;
            assert!(starts.fetch_add(1, Ordering::Relaxed) >= 3, "a bug of another room");
            drain.begun().await;
        }
    })
}

/// Asks on one connection until `ending`; each answer must be whole, and counts.
async fn ask(proxy: SocketAddr, answered: Arc<AtomicU64>, ending: Arc<AtomicBool>) {
    let mut client = Client::connect(proxy).await.expect("the proxy listens");
    while !ending.load(Ordering::Relaxed) {
        client.get("/products").await.expect("the connection is kept");
        assert_eq!(client.answer().await, Some((200, true)));
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// A load before, while and after something is going on; how many requests were answered, which are all.
async fn press(proxy: SocketAddr, begin: impl FnOnce(), is_over: impl FnMut() -> bool) -> u64 {
    let (answered, ending) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(ask(proxy, Arc::clone(&answered), Arc::clone(&ending)));
    }
    let so_far = || answered.load(Ordering::Relaxed);
    eventually("answers before", PATIENCE, || so_far() >= ANSWERS).await;
    begin();
    eventually("the end of it", PATIENCE, is_over).await;
    let then = so_far();
    eventually("answers after", PATIENCE, || so_far() >= then + ANSWERS).await;
    ending.store(true, Ordering::Relaxed);
    while let Some(client) = clients.join_next().await {
        client.expect("no request fails");
    }
    so_far()
}

/// What the supervisor counts for this room.
fn restarts(source: &SampleSource, room: &'static str) -> Option<u64> {
    let mut samples = Vec::new();
    source(&mut samples);
    let of_room = |sample: &&Sample| matches!(&sample.labels[0].1, LabelValue::Text(text) if text.as_str() == room);
    let sample = samples.iter().filter(|sample| sample.metric == &ROOM_RESTARTS).find(of_room)?;
    match sample.value {
        SampleValue::Count(count) => Some(count),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_that_panic_are_started_again_and_no_request_notices() {
    let receiver = Receiver::grpc(Codings::All, Default::default()).await;
    let settings = json!({"endpoint": format!("http://{}", receiver.address), "metrics": {"interval": "100ms"}});
    let (redactor, upstream) = (Arc::new(Redactor::new([])), Upstream { host: "127.0.0.1".into(), port: 8000 });
    let identity = telemetry_setup::resource();
    let (telemetry, writers) =
        Telemetry::new(telemetry_setup::config(settings), &identity, &redactor, &upstream, 1).expect("valid settings");
    let reader = telemetry.reader();
    let (conductor, drain) = lifecycle::drain();
    let (armed, mut rooms) = (Arc::new(AtomicBool::new(false)), Supervisor::default());
    let counts = rooms.restarts();
    let repaired = add_telemetry(&mut rooms, telemetry, vec![fragile(&armed), counts.clone()], &drain);
    let begin = Arc::new(AtomicBool::new(false));
    let hopeless = add_hopeless(&mut rooms, &begin, &drain);
    let writers: Mutex<Vec<SpanWriter>> = Mutex::new(writers);
    let proxy = Room::with_sink(&config(echo(), json!({})), |ledger| {
        (ledger, writers.lock().expect("no panic while held").pop().expect("one worker"))
    });

    let begin_panics = || {
        armed.store(true, Ordering::Relaxed);
        begin.store(true, Ordering::Relaxed);
    };
    let is_over = || (repaired.load(Ordering::Relaxed), hopeless.load(Ordering::Relaxed)) == (1, 3);
    let answered = tokio::select! {
        answered = press(proxy.address, begin_panics, is_over) => answered,
        () = rooms.watch() => unreachable!("the rooms are watched for ever"),
    };
    assert_eq!(proxy.ledger.ended(usize::try_from(answered).expect("a few")).len() as u64, answered);
    let stop = tokio::task::spawn_blocking(move || proxy.stop(Duration::from_secs(5)));
    stop.await.expect("the workers end");
    conductor.drain_within(Duration::from_secs(5));
    assert!(rooms.finish_by(Instant::now() + PATIENCE).await.is_empty(), "each room ends by itself");

    assert_eq!((restarts(&counts, "telemetry"), restarts(&counts, "hopeless")), (Some(1), Some(3)));
    let account = reader.state().accounts[Signal::Traces as usize];
    assert_balanced(&account);
    // while it is away its hand-over may fill, which holds no worker up: what it cannot take is dropped and counted
    let left_out = account.dropped[DropReason::HandoffFull as usize];
    assert_eq!((account.produced, account.delivered), (2 * answered, 2 * answered - left_out), "{account:?}");
    receiver.with(|seen| {
        // what was on its way when it panicked is sent again, as after a kill
        let ids: BTreeSet<_> = seen.spans.iter().map(|span| span.span_id.clone()).collect();
        assert_eq!(ids.len() as u64, account.delivered, "the room that panicked has delivered each of them");
        let names: Vec<_> = seen.metrics.iter().map(|metric| metric.name.as_str()).collect();
        assert!(names.contains(&ROOM_RESTARTS.name), "its metrics leave again: {names:?}");
    });
}
