//! Each answer that a receiver may give, over both transports, and what becomes of the request: the specification's table.

use std::time::{Duration, SystemTime};

use content_factory_sidecar::model::telemetry::{Account, DropReason, ExportCondition, Signal};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;
use tonic::Code;

use crate::rig::{PATIENCE, Sidecar, echo_application, get};
use crate::telemetry_receiver::{Codings, Over, Receiver, Reply, eventually};
use crate::telemetry_setup::Running;

const SOON: Duration = Duration::from_secs(30);

/// Two spans for each.
const REQUESTS: u64 = 10;
const SPANS: u64 = 2 * REQUESTS;

/// What becomes of a request that is answered so once, and then with yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Sent again and delivered.
    Retried,
    /// Dropped after so many attempts.
    Permanent(u64),
    /// Never the same bytes again: delivered in parts.
    Halved,
}

/// Each code but OK. `Unimplemented` may be about the compression, so the simpler ones are tried first.
const CODES: [(Code, Fate); 16] = [
    (Code::Cancelled, Fate::Retried),
    (Code::Unknown, Fate::Permanent(1)),
    (Code::InvalidArgument, Fate::Permanent(1)),
    (Code::DeadlineExceeded, Fate::Retried),
    (Code::NotFound, Fate::Permanent(1)),
    (Code::AlreadyExists, Fate::Permanent(1)),
    (Code::PermissionDenied, Fate::Permanent(1)),
    (Code::ResourceExhausted, Fate::Halved),
    (Code::FailedPrecondition, Fate::Permanent(1)),
    (Code::Aborted, Fate::Retried),
    (Code::OutOfRange, Fate::Retried),
    (Code::Unimplemented, Fate::Permanent(3)),
    (Code::Internal, Fate::Permanent(1)),
    (Code::Unavailable, Fate::Retried),
    (Code::DataLoss, Fate::Retried),
    (Code::Unauthenticated, Fate::Permanent(1)),
];

/// 400 and 415 may be about the compression.
const STATUSES: [(u16, Fate); 19] = [
    (301, Fate::Permanent(1)),
    (307, Fate::Permanent(1)),
    (400, Fate::Permanent(3)),
    (401, Fate::Permanent(1)),
    (403, Fate::Permanent(1)),
    (404, Fate::Permanent(1)),
    (405, Fate::Permanent(1)),
    (408, Fate::Permanent(1)),
    (411, Fate::Permanent(1)),
    (413, Fate::Halved),
    (415, Fate::Permanent(3)),
    (422, Fate::Permanent(1)),
    (429, Fate::Retried),
    (500, Fate::Permanent(1)),
    (501, Fate::Permanent(1)),
    (502, Fate::Retried),
    (503, Fate::Retried),
    (504, Fate::Retried),
    (505, Fate::Permanent(1)),
];

async fn receiver(over: Over, script: Vec<Reply>) -> Receiver {
    let receiver = Receiver::over(over, Codings::All, Default::default()).await;
    receiver.with(|seen| seen.script = script.into());
    receiver
}

fn start(over: Over, receiver: &Receiver, more: Value) -> Running {
    let mut settings = json!({"endpoint": format!("http://{}", receiver.address), "protocol": over.protocol()});
    let Value::Object(more) = more else { panic!("settings are an object") };
    settings.as_object_mut().expect("an object").extend(more);
    Running::start(settings, 1, Vec::new())
}

fn dropped(account: &Account) -> u64 {
    account.dropped.iter().sum()
}

async fn has_the_fate(over: Over, reply: Reply, fate: Fate) {
    let times = if let Fate::Permanent(attempts) = fate { attempts as usize } else { 1 };
    let receiver = receiver(over, vec![reply.clone(); times]).await;
    let mut running = start(over, &receiver, json!({}));
    running.produce(REQUESTS);
    running.settled(SOON).await;
    let account = running.account(Signal::Traces);
    let (calls, spans) = receiver.with(|seen| (seen.calls, seen.spans.len() as u64));
    let permanent = account.dropped[DropReason::Permanent as usize];
    let (attempts, arrived, lost) = match fate {
        Fate::Retried => (2..=2, SPANS, 0),
        Fate::Permanent(attempts) => (attempts..=attempts, 0, SPANS),
        Fate::Halved => (3..=u64::MAX, SPANS, 0),
    };
    assert!(attempts.contains(&calls), "{over:?} {reply:?} {fate:?}: {calls} attempts");
    let found = (spans, account.delivered, permanent, dropped(&account));
    assert_eq!(found, (arrived, arrived, lost, lost), "{over:?} {reply:?} {fate:?}");
    running.stop(SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_code_of_grpc_has_its_fate() {
    join_all(CODES.map(|(code, fate)| has_the_fate(Over::Grpc, Reply::Fail(code, 0), fate))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_status_of_http_has_its_fate() {
    join_all(STATUSES.map(|(status, fate)| has_the_fate(Over::Http, Reply::Fail(Code::Ok, status), fate))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receivers_delay_holds_beyond_the_timeout_of_a_request() {
    const DELAY: Duration = Duration::from_secs(3);
    let rows = [
        (Over::Grpc, Reply::FailFor(Code::Unavailable, 0, DELAY)),
        (Over::Grpc, Reply::FailFor(Code::ResourceExhausted, 0, DELAY)),
        (Over::Http, Reply::FailFor(Code::Ok, 429, DELAY)),
        (Over::Http, Reply::FailFor(Code::Ok, 503, DELAY)),
        // a date has no fractions: three seconds from now are at least two
        (Over::Http, Reply::FailUntil(503, SystemTime::now() + DELAY)),
    ];
    let waits = async |(over, reply): (Over, Reply)| {
        let receiver = receiver(over, vec![reply.clone()]).await;
        let start_of_all = Instant::now();
        let mut running = start(over, &receiver, json!({"timeout": "1500ms"}));
        running.produce(REQUESTS);
        running.settled(SOON).await;
        let floor = if matches!(reply, Reply::FailUntil(..)) { Duration::ZERO } else { DELAY };
        assert!(start_of_all.elapsed() >= floor, "{over:?} {reply:?}: {:?}", start_of_all.elapsed());
        receiver.with(|seen| assert_eq!((seen.calls, seen.spans.len() as u64), (2, SPANS), "{over:?} {reply:?}"));
        running.stop(SOON).await;
    };
    join_all(rows.map(waits)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_date_far_ahead_is_waited_for() {
    // the queue must still wait when the next attempt of an impatient sender would long have come
    let then = SystemTime::now() + Duration::from_secs(86_400);
    let receiver = receiver(Over::Http, vec![Reply::FailUntil(429, then)]).await;
    let mut running = start(Over::Http, &receiver, json!({}));
    running.produce(REQUESTS);
    let failing = || running.reader.state().condition == ExportCondition::Failing;
    eventually("it is told to wait", SOON, failing).await;
    running.produce(REQUESTS);
    running.stop(Duration::from_secs(2)).await;
    let account = running.account(Signal::Traces);
    assert_eq!((receiver.with(|seen| seen.calls), account.delivered), (1, 0));
    assert_eq!(account.dropped[DropReason::Shutdown as usize], 2 * SPANS, "{account:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_yes_over_grpc_that_nobody_can_read_is_a_bad_response_and_not_asked_again() {
    let receiver = Receiver::garbled().await;
    let mut running = start(Over::Grpc, &receiver, json!({}));
    running.produce(REQUESTS);
    running.settled(SOON).await;
    let account = running.account(Signal::Traces);
    assert_eq!(account.dropped[DropReason::BadResponse as usize], SPANS, "{account:?}");
    assert_eq!(receiver.with(|seen| seen.calls), 1);
    running.stop(SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_warning_with_a_yes_is_told_and_rejects_nothing() {
    for over in Over::ALL {
        let receiver = receiver(over, vec![Reply::Partial(0, "slow down a little")]).await;
        let mut running = start(over, &receiver, json!({}));
        running.produce(REQUESTS);
        running.settled(SOON).await;
        let account = running.account(Signal::Traces);
        assert_eq!((account.delivered, account.rejected, dropped(&account)), (SPANS, 0, 0));
        // the account is first: what the receiver said of it is told next
        let way = || running.reader.state().ways[Signal::Traces as usize].clone().expect("traces have a receiver");
        eventually("it is told", SOON, || way().problem.is_some()).await;
        let problem = way().problem.expect("it stays").as_str().to_owned();
        assert!(problem.contains("slow down a little"), "{problem}");
        assert_eq!(receiver.with(|seen| seen.calls), 1);
        running.stop(SOON).await;
    }
}

fn count(log: &str, words: &str) -> usize {
    log.lines().filter(|line| line.contains(words)).count()
}

#[tokio::test]
async fn one_line_is_written_for_each_change_of_state() {
    let receiver = receiver(Over::Grpc, Vec::new()).await;
    let application = echo_application().await;
    let sidecar = Sidecar::start(application, &["--otlp", &format!("http://{}", receiver.address)], &[]).await;
    for outage in 1..=2 {
        let calls = || receiver.with(|seen| seen.calls);
        receiver.with(|seen| seen.otherwise = Some(Reply::Fail(Code::Unavailable, 0)));
        let before = calls();
        get(sidecar.proxy, "/x").await.expect("the proxy answers");
        // five open the breaker, and it is asked twice whether it is back
        eventually("the receiver is asked again", 2 * SOON, || calls() >= before + 7).await;
        receiver.with(|seen| seen.otherwise = None);
        let again = || count(&sidecar.log(), "telemetry is delivered again") == outage;
        eventually("it is back", SOON, again).await;
        let log = sidecar.log();
        assert_eq!(count(&log, "telemetry cannot be delivered"), outage, "{log}");
        sidecar.eventually("/metrics", |_, page| page.contains("breaker_open{signal=\"traces\"} 0\n")).await;
    }
    let refused = "the receiver refuses telemetry";
    receiver.with(|seen| seen.otherwise = Some(Reply::Fail(Code::InvalidArgument, 0)));
    for _ in 0..3 {
        let calls = || receiver.with(|seen| seen.calls);
        let before = calls();
        get(sidecar.proxy, "/x").await.expect("the proxy answers");
        eventually("it is refused", PATIENCE, || calls() > before).await;
    }
    eventually("the log says so", PATIENCE, || count(&sidecar.log(), refused) > 0).await;
    // the signals share the receiver, and the reason is the same
    assert_eq!(count(&sidecar.log(), refused), 1, "{}", sidecar.log());
}
