//! Deliveries against a receiver that answers, refuses, delays, lies and vanishes: the sums are exact.

use std::collections::BTreeSet;
use std::time::Duration;

use content_factory_sidecar::model::request::RequestSink;
use content_factory_sidecar::model::telemetry::{DropReason, ExportCondition, Signal};
use serde_json::json;
use tokio::time::timeout;
use tonic::Code;

use crate::port::Port;
use crate::telemetry_receiver::{Codings, Over, Receiver, Reply, Seen, SharedSeen, eventually, free_listener};
use crate::telemetry_setup::{Running, assert_balanced, request};

const SOON: Duration = Duration::from_secs(30);

fn endpoint(receiver: &Receiver) -> String {
    format!("http://{}", receiver.address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_arrive_over_grpc_and_add_up() {
    let receiver = Receiver::grpc(Codings::All, Default::default()).await;
    let mut running =
        Running::start(json!({"endpoint": endpoint(&receiver), "headers": "api-key=k%201"}), 1, Vec::new());
    for number in 0..500 {
        request(&mut running.writers[0], number);
    }
    assert_balanced(&running.account(Signal::Traces));
    assert_eq!(running.account(Signal::Traces).produced, 1_000);
    running.writers[0].tick();
    running.writers[0].tick();
    eventually("all delivered", SOON, || running.account(Signal::Traces).delivered == 1_000).await;
    let ids: BTreeSet<_> = receiver.with(|seen| seen.spans.iter().map(|span| span.trace_id.clone()).collect());
    assert_eq!(ids.len(), 500);
    receiver.with(|seen| {
        assert_eq!(seen.spans.len(), 1_000);
        assert!(seen.codings.iter().all(|coding| coding == "zstd"), "{:?}", seen.codings);
        assert!(seen.keys.iter().all(|key| key == "k 1"), "{:?}", seen.keys);
    });
    assert_eq!(running.reader.state().condition, ExportCondition::Delivering);
    running.stop(SOON).await;
    assert_balanced(&running.account(Signal::Traces));
}

fn dropped(running: &Running, reason: DropReason) -> u64 {
    running.account(Signal::Traces).dropped[reason as usize]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_arrive_over_http_below_the_generic_endpoint() {
    let receiver = Receiver::http(Codings::All, Default::default()).await;
    let generic = json!({"endpoint": format!("{}/base/", endpoint(&receiver)), "protocol": "http/protobuf", "compression": "gzip"});
    let mut running = Running::start(generic, 1, Vec::new());
    running.produce(10);
    running.settled(SOON).await;
    receiver.with(|seen| {
        assert_eq!(seen.spans.len(), 20);
        assert_eq!(seen.paths, ["/base/v1/traces"]);
        assert_eq!(seen.codings, ["gzip"]);
    });
    running.stop(SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_be_retried_is_retried_and_arrives_once() {
    for over in Over::ALL {
        let failure = Reply::Fail(Code::Unavailable, 503);
        let seen = script([failure.clone(), failure]);
        let receiver = Receiver::over(over, Codings::All, seen).await;
        let mut running = Running::start(settings(over, &receiver), 1, Vec::new());
        running.produce(50);
        running.settled(SOON).await;
        assert_eq!(running.account(Signal::Traces).delivered, 100);
        receiver.with(|seen| assert_eq!((seen.spans.len(), seen.calls), (100, 3)));
        running.stop(SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_receivers_delay_is_a_floor() {
    for (over, code, status) in [(Over::Grpc, Code::ResourceExhausted, 0), (Over::Http, Code::Unavailable, 429)] {
        let seen = script([Reply::FailFor(code, status, Duration::from_secs(1))]);
        let receiver = Receiver::over(over, Codings::All, seen).await;
        let mut running = Running::start(settings(over, &receiver), 1, Vec::new());
        let start = tokio::time::Instant::now();
        running.produce(5);
        running.settled(SOON).await;
        assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
        receiver.with(|seen| assert_eq!((seen.spans.len(), seen.calls), (10, 2)));
        running.stop(SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_too_large_is_halved_until_it_fits() {
    for over in Over::ALL {
        let receiver = Receiver::over(over, Codings::All, Default::default()).await;
        receiver.with(|seen| seen.limit = Some(9_000));
        let mut running = Running::start(settings(over, &receiver), 1, Vec::new());
        running.produce(100);
        running.settled(SOON).await;
        receiver.with(|seen| assert_eq!(seen.spans.len(), 200));
        assert_eq!(running.account(Signal::Traces).delivered, 200);
        let calls = receiver.with(|seen| seen.calls);
        running.produce(100);
        running.settled(SOON).await;
        let again = receiver.with(|seen| seen.calls) - calls;
        assert!(again < calls, "the size is remembered: {calls} calls, then {again}");
        receiver.with(|seen| seen.limit = Some(10));
        running.produce(2);
        running.settled(SOON).await;
        assert_eq!(dropped(&running, DropReason::TooLarge), 4);
        running.stop(SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejected_items_are_counted_and_not_resent() {
    for over in Over::ALL {
        let receiver = Receiver::over(over, Codings::All, script([Reply::Partial(3, "three are no good")])).await;
        let mut running = Running::start(settings(over, &receiver), 1, Vec::new());
        running.produce(10);
        running.settled(SOON).await;
        let account = running.account(Signal::Traces);
        assert_eq!((account.delivered, account.rejected), (17, 3));
        assert_eq!(receiver.with(|seen| seen.calls), 1);
        running.stop(SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_yes_and_a_plain_no_are_not_asked_again() {
    let no = Reply::Fail(Code::Unauthenticated, 401);
    let table = [
        (Over::Http, Reply::Garbage, DropReason::BadResponse),
        (Over::Http, no.clone(), DropReason::Permanent),
        (Over::Grpc, no, DropReason::Permanent),
    ];
    for (over, reply, reason) in table {
        let receiver = Receiver::over(over, Codings::All, script([reply])).await;
        let mut running = Running::start(settings(over, &receiver), 1, Vec::new());
        running.produce(10);
        running.settled(SOON).await;
        assert_eq!(dropped(&running, reason), 20);
        assert_eq!(receiver.with(|seen| seen.calls), 1);
        running.produce(10);
        running.settled(SOON).await;
        assert_eq!(running.account(Signal::Traces).delivered, 20);
        running.stop(SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_without_the_compression_gets_a_simpler_one_for_good() {
    for over in Over::ALL {
        for (codings, coding) in [(Codings::Gzip, "gzip"), (Codings::None, "none")] {
            let receiver = Receiver::over(over, codings, Default::default()).await;
            let mut running = Running::start(settings(over, &receiver), 1, Vec::new());
            for total in [20, 40] {
                running.produce(10);
                running.settled(SOON).await;
                assert_eq!(running.account(Signal::Traces).delivered, total);
            }
            receiver.with(|seen| {
                assert_eq!(seen.spans.len(), 40);
                // tonic refuses before our service sees the request; over HTTP each attempt is seen
                assert!(seen.codings.ends_with(&[coding.to_owned(), coding.to_owned()]), "{:?}", seen.codings);
            });
            running.stop(SOON).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_nobody_listens() {
    let port = Port::reserve();
    let endpoint = format!("http://{}", port.address());
    let mut running = Running::start(json!({"endpoint": endpoint}), 1, Vec::new());
    running.produce(100);
    eventually("it is noticed", SOON, || running.reader.state().condition == ExportCondition::Failing).await;
    let listener = tokio::net::TcpListener::bind(port.address()).await.expect("the port is ours");
    for _ in 0..3 {
        // somebody picks up, and hangs up: the outage goes on
        let attempt = timeout(SOON, listener.accept()).await.expect("another attempt");
        drop(attempt.expect("a connection"));
    }
    running.produce(100);
    let receiver = Receiver::grpc_on(listener, Codings::All, Default::default()).await;
    eventually("all arrived", Duration::from_secs(20), || running.account(Signal::Traces).delivered == 400).await;
    assert_eq!(receiver.with(|seen| seen.spans.len()), 400);
    assert_eq!(running.reader.state().condition, ExportCondition::Delivering);
    running.stop(SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_holds_nobody_up() {
    for over in Over::ALL {
        let silent = free_listener().await; // its backlog accepts, nobody answers
        let address = silent.local_addr().expect("an address");
        // far longer than the end may take: neither an attempt nor the last deliveries may be what ends it
        let settings = json!({
            "endpoint": format!("http://{address}"), "protocol": over.protocol(), "queue": {"traces": "100KiB"},
            "timeout": "60s", "shutdown": "60s",
        });
        let mut running = Running::start(settings, 1, Vec::new());
        for _ in 0..20 {
            let taken = |running: &Running| {
                (running.account(Signal::Traces).queued_bytes, dropped(running, DropReason::QueueFull))
            };
            let before = taken(&running);
            running.produce(100);
            eventually("the control side takes the chunks", SOON, || taken(&running) != before).await;
        }
        eventually("the oldest are dropped", SOON, || dropped(&running, DropReason::QueueFull) > 0).await;
        // chunks that the control side has not taken yet are held, too
        let is_bounded = || running.account(Signal::Traces).queued_bytes <= 100 << 10;
        eventually("the queue has its bound", SOON, is_bounded).await;
        assert_balanced(&running.account(Signal::Traces));
        let start = tokio::time::Instant::now();
        running.stop(Duration::from_secs(1)).await;
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
        let account = running.account(Signal::Traces);
        assert_balanced(&account);
        assert_eq!((account.queued, account.produced), (0, 4_000));
        assert!(account.dropped[DropReason::Shutdown as usize] > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_refuses_is_asked_once_a_second_at_most_however_much_waits() {
    for over in Over::ALL {
        let receiver = Receiver::over(over, Codings::All, Default::default()).await;
        receiver.with(|seen| seen.otherwise = Some(Reply::Fail(Code::Unavailable, 503)));
        let begun = tokio::time::Instant::now();
        let settings = json!({"endpoint": endpoint(&receiver), "protocol": over.protocol(), "max_request": "4KiB"});
        let mut running = Running::start(settings, 1, Vec::new());
        running.produce(1_000); // some hundred requests
        let way = || running.reader.state().ways[Signal::Traces as usize].clone().expect("a way");
        eventually("it is given up", 6 * SOON, || way().is_given_up).await;
        let retries = way().retries;
        eventually("it is asked for", 6 * SOON, || way().retries >= retries + 3).await;
        // four may be on their way at once until five have failed
        let (calls, seconds) = (receiver.with(|seen| seen.calls), begun.elapsed().as_secs());
        assert!(calls <= 4 + 5 + seconds + 1, "{over:?}: {calls} requests in {seconds} s");
        receiver.with(|seen| seen.otherwise = None);
        running.settled(6 * SOON).await;
        assert_eq!(running.account(Signal::Traces).delivered, 2_000);
        running.stop(SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_never_waits_for_the_control_side() {
    let settings = json!({"endpoint": "http://127.0.0.1:1"});
    let config = crate::telemetry_setup::config(settings);
    let redactor = std::sync::Arc::new(content_factory_sidecar::redact::Redactor::new([]));
    let upstream = content_factory_sidecar::telemetry::Upstream { host: "127.0.0.1".into(), port: 1 };
    let resource = crate::telemetry_setup::resource();
    let (telemetry, mut writers) =
        content_factory_sidecar::telemetry::Telemetry::new(config, &resource, &redactor, &upstream, 1)
            .expect("valid settings");
    // nobody runs it: the hand-off fills up
    for number in 0..10_000 {
        request(&mut writers[0], number);
    }
    let account = telemetry.reader().state().accounts[Signal::Traces as usize];
    assert_balanced(&account);
    assert_eq!(account.produced, 20_000);
    assert!(account.dropped[DropReason::HandoffFull as usize] > 0, "{account:?}");
    assert!(account.queued > 0, "{account:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_account_is_exact_at_every_moment() {
    let seen = script([
        Reply::Fail(Code::Unavailable, 503),
        Reply::Partial(7, "seven"),
        Reply::Slow(Duration::from_millis(30)),
    ]);
    let receiver = Receiver::grpc(Codings::All, seen).await;
    let mut running = Running::start(json!({"endpoint": endpoint(&receiver)}), 2, Vec::new());
    let writers = std::mem::take(&mut running.writers);
    let threads: Vec<_> = writers
        .into_iter()
        .map(|mut writer| {
            std::thread::spawn(move || {
                for number in 0..20_000 {
                    request(&mut writer, number);
                    if number % 512 == 0 {
                        std::thread::yield_now();
                    }
                }
            })
        })
        .collect();
    let mut looks = 0_u64;
    while !threads.iter().all(std::thread::JoinHandle::is_finished) {
        assert_balanced(&running.account(Signal::Traces));
        looks += 1;
    }
    assert!(looks > 100, "{looks}");
    running.settled(SOON).await;
    let account = running.account(Signal::Traces);
    assert_eq!((account.produced, account.rejected), (80_000, 7));
    // what a partial success rejected, the receiver has seen
    let lost: u64 = account.dropped.iter().sum();
    assert_eq!(receiver.with(|seen| seen.spans.len()) as u64, account.produced - lost);
    running.stop(SOON).await;
}

fn script<const N: usize>(replies: [Reply; N]) -> SharedSeen {
    let seen = Seen { script: replies.into(), ..Seen::default() };
    std::sync::Arc::new(std::sync::Mutex::new(seen))
}

fn settings(over: Over, receiver: &Receiver) -> serde_json::Value {
    json!({"endpoint": endpoint(receiver), "protocol": over.protocol()})
}
