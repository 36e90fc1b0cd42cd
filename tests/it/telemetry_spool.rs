//! What cannot be delivered waits on disk: over outages, over restarts, and never at the cost of what works.

use std::collections::BTreeSet;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use content_factory_sidecar::model::catalogue::TELEMETRY_SPOOL_ERRORS;
use content_factory_sidecar::model::sample::SampleValue;
use content_factory_sidecar::model::telemetry::{Account, DropReason, ExportCondition, Signal};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;
use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection};
use tempfile::TempDir;
use tokio::time::Instant;
use tonic::Code;

use crate::rig::{Sidecar, echo_application, get};
use crate::telemetry_receiver::{Codings, Over, Receiver, Reply, eventually};
use crate::telemetry_setup::{Running, assert_balanced, failed_request};

const SOON: Duration = Duration::from_secs(30);
const AWAY: Reply = Reply::Fail(Code::Unavailable, 503);
const INFO: i32 = 9;
const ERROR: i32 = 17;

/// As long for the end as a disk may need on a busy machine.
fn patient() -> Value {
    json!({"shutdown": "20s"})
}

/// A receiver that takes nothing yet.
async fn away(over: Over, codings: Codings) -> Receiver {
    let receiver = Receiver::over(over, codings, Default::default()).await;
    receiver.with(|seen| seen.otherwise = Some(AWAY));
    receiver
}

fn back(receiver: &Receiver) {
    receiver.with(|seen| seen.otherwise = None);
}

fn settings(over: Over, receiver: &Receiver, more: Value) -> Value {
    let mut settings = json!({"endpoint": format!("http://{}", receiver.address), "protocol": over.protocol()});
    let Value::Object(more) = more else { panic!("settings are an object") };
    settings.as_object_mut().expect("an object").extend(more);
    settings
}

fn account(running: &Running, signal: Signal) -> Account {
    let account = running.account(signal);
    assert_balanced(&account);
    account
}

async fn on_disk(running: &Running, signal: Signal, items: u64) {
    eventually(&format!("{items} {} on disk", signal.label()), SOON, || account(running, signal).spooled == items)
        .await;
    assert_eq!(account(running, signal).queued, 0);
}

async fn delivered(running: &Running, signal: Signal, items: u64) {
    eventually(&format!("{items} {} delivered", signal.label()), SOON, || account(running, signal).delivered == items)
        .await;
    let account = account(running, signal);
    assert_eq!((account.queued, account.spooled, account.dropped.iter().sum::<u64>()), (0, 0, 0), "{account:?}");
}

/// One log record as a whole request, of about `size` bytes that no compression makes smaller.
fn log(severity: i32, size: usize) -> Vec<u8> {
    let text: String = (0..size).map(|_| fastrand::alphanumeric()).collect();
    let body = Some(AnyValue { value: Some(any_value::Value::StringValue(text)) });
    let record = LogRecord { severity_number: severity, body, ..LogRecord::default() };
    let scope_logs = vec![ScopeLogs { log_records: vec![record], ..ScopeLogs::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
    ExportLogsServiceRequest { resource_logs }.encode_to_vec()
}

async fn sqlite(folder: &Path) -> SqliteConnection {
    let url = format!("sqlite://{}?mode=rwc", folder.join("spool.db").display());
    SqliteConnection::connect(&url).await.expect("a file of SQLite")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_waited_for_on_disk_and_everything_arrives_once() {
    // a receiver without zstd gets what is stored in its own coding
    for (over, codings) in [(Over::Grpc, Codings::All), (Over::Http, Codings::Gzip), (Over::Http, Codings::None)] {
        let (folder, receiver) = (TempDir::new().expect("a folder"), away(over, codings).await);
        let mut running = Running::start_in(folder.path(), settings(over, &receiver, json!({})));
        for round in 1..=3 {
            running.produce(300);
            on_disk(&running, Signal::Traces, 600 * round).await;
        }
        back(&receiver);
        delivered(&running, Signal::Traces, 1_800).await;
        receiver.with(|seen| assert_eq!(seen.spans.len(), 1_800));
        running.stop(SOON).await;
    }
}

/// On a machine so busy that the receiver has no turn for a second, the disk is right to be asked: one run of some must do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_takes_everything_leaves_the_disk_alone() {
    for _ in 0..5 {
        let (folder, receiver) = (TempDir::new().expect("a folder"), away(Over::Grpc, Codings::All).await);
        back(&receiver);
        let mut running = Running::start_in(folder.path(), settings(Over::Grpc, &receiver, json!({})));
        for round in 1..=5 {
            running.produce(100);
            delivered(&running, Signal::Traces, 200 * round).await;
        }
        running.stop(SOON).await;
        if std::fs::read_dir(folder.path()).expect("the folder").next().is_none() {
            return;
        }
    }
    panic!("in each of five runs a file was made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_receiver_leaves_nothing_in_memory_alone() {
    for over in Over::ALL {
        let (folder, receiver) = (TempDir::new().expect("a folder"), away(over, Codings::All).await);
        receiver.with(|seen| seen.otherwise = Some(Reply::Slow(Duration::from_secs(3_600))));
        let more = json!({"timeout": "10m"});
        let mut running = Running::start_in(folder.path(), settings(over, &receiver, more));
        for round in 1..=3 {
            // the first is on its way, the others wait behind it; none has failed
            running.produce(300);
            on_disk(&running, Signal::Traces, 600 * round).await;
        }
        assert_eq!(running.reader.state().condition, ExportCondition::Idle);
        running.stop(Duration::from_secs(1)).await;
        assert_eq!(account(&running, Signal::Traces).spooled, 1_800);
        drop(running);
        back(&receiver);
        receiver.with(|seen| seen.spans.clear());
        let mut running = Running::start_in(folder.path(), settings(over, &receiver, json!({})));
        delivered(&running, Signal::Traces, 1_800).await;
        receiver.with(|seen| assert_eq!(seen.spans.len(), 1_800));
        running.stop(SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_while_it_was_on_its_way_is_sent_again_when_the_answer_is_no() {
    let (folder, receiver) = (TempDir::new().expect("a folder"), away(Over::Grpc, Codings::All).await);
    receiver.with(|seen| seen.otherwise = Some(Reply::Slow(Duration::from_secs(3_600))));
    // one that is over before an answer has come makes what was taken come again
    let more = json!({"timeout": "8s"});
    let mut running = Running::start_in(folder.path(), settings(Over::Grpc, &receiver, more));
    running.produce(300);
    on_disk(&running, Signal::Traces, 600).await;
    running.produce(300);
    on_disk(&running, Signal::Traces, 1_200).await;
    back(&receiver);
    delivered(&running, Signal::Traces, 1_200).await;
    receiver.with(|seen| assert_eq!(seen.spans.len(), 1_200));
    running.stop(SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_rows_make_room_for_a_large_one() {
    let (folder, receiver) = (TempDir::new().expect("a folder"), away(Over::Grpc, Codings::All).await);
    let large = json!({"spool": {"bytes": "64MiB"}});
    let mut running = Running::start_in(folder.path(), settings(Over::Grpc, &receiver, large));
    running.intake.push(Signal::Logs, log(INFO, 150)).expect("a request");
    on_disk(&running, Signal::Logs, 1).await;
    running.stop(Duration::from_secs(1)).await;
    drop(running);
    let mut file = sqlite(folder.path()).await;
    let copies = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2999) \
                  INSERT INTO spool (signal, created_ms, worth, items, raw_len, body) \
                  SELECT signal, created_ms, worth, items, raw_len, body FROM spool, n";
    sqlx::query(copies).execute(&mut file).await.expect("the table of the spool");
    file.close().await.expect("it closes");

    // a tenth of what is there: nearly all must go for the next
    let small = json!({"spool": {"bytes": "200KiB"}});
    let mut running = Running::start_in(folder.path(), settings(Over::Grpc, &receiver, small));
    eventually("all rows are known", SOON, || account(&running, Signal::Logs).spooled == 3_000).await;
    running.intake.push(Signal::Logs, log(ERROR, 30_000)).expect("a request");
    let share = (200 << 10) / 100 * 30;
    eventually("the bound is kept", SOON, || {
        let account = account(&running, Signal::Logs);
        account.queued == 0 && account.spooled_bytes <= share
    })
    .await;
    let account = account(&running, Signal::Logs);
    assert_eq!(account.produced, 3_001);
    assert_eq!(account.dropped[DropReason::SpoolFull as usize], 3_001 - account.spooled);
    running.stop(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_process_leaves_the_next_delivers_and_no_file_remembers_it() {
    let (folder, receiver) = (TempDir::new().expect("a folder"), away(Over::Grpc, Codings::All).await);
    let mut running = Running::start_in(folder.path(), settings(Over::Grpc, &receiver, patient()));
    running.produce(100);
    running.intake.push(Signal::Logs, log(INFO, 100)).expect("a request");
    // not a word of failure yet: the end itself writes it down
    running.stop(SOON).await;
    for (signal, items) in [(Signal::Traces, 200), (Signal::Logs, 1)] {
        let account = account(&running, signal);
        assert_eq!((account.produced, account.spooled), (items, items), "{account:?}");
    }
    drop(running);

    back(&receiver);
    let mut running = Running::start_in(folder.path(), settings(Over::Grpc, &receiver, json!({})));
    delivered(&running, Signal::Traces, 200).await;
    delivered(&running, Signal::Logs, 1).await;
    let canary = receiver.with(|seen| match &seen.logs[0].body.as_ref().expect("a body").value {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        other => panic!("{other:?}"),
    });
    running.stop(SOON).await;
    assert_eq!(account(&running, Signal::Traces).produced, 200);
    for file in std::fs::read_dir(folder.path()).expect("the folder") {
        let path = file.expect("a file").path();
        let bytes = std::fs::read(&path).expect("readable");
        // zstd keeps text that repeats nothing as it is
        assert!(!bytes.windows(16).any(|window| window == &canary.as_bytes()[..16]), "{}", path.display());
    }
}

/// A disk that others keep busy, as a lock that somebody has on the file: it refuses, is asked again, and takes everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_busy_at_the_end_has_what_is_left_of_the_deadline() {
    let (folder, receiver) = (TempDir::new().expect("a folder"), away(Over::Grpc, Codings::All).await);
    let longer = json!({"shutdown": "9s"});
    let mut running = Running::start_in(folder.path(), settings(Over::Grpc, &receiver, longer));
    let mut other = sqlite(folder.path()).await;
    sqlx::raw_sql("BEGIN EXCLUSIVE").execute(&mut other).await.expect("the lock");
    running.produce(100);
    let reader = running.reader.clone();
    let refusals = || {
        let mut samples = Vec::new();
        reader.samples(&mut samples);
        let value = samples.iter().find(|sample| *sample.metric == TELEMETRY_SPOOL_ERRORS).map(|sample| &sample.value);
        let Some(SampleValue::Count(refusals)) = value else { panic!("{value:?}") };
        *refusals
    };
    {
        let mut stop = pin!(running.stop(SOON));
        tokio::select! {
            () = &mut stop => panic!("it ended while the disk was busy, and asked it {} times", refusals()),
            () = eventually("the disk refuses", SOON, || refusals() >= 3) => {}
        }
        other.close().await.expect("the lock is free");
        stop.await;
    }
    let account = account(&running, Signal::Traces);
    assert_eq!((account.produced, account.spooled), (200, 200), "{account:?}");
}

/// From now on each row costs the disk a count to so many.
async fn slow_down(folder: &Path, steps: u64) {
    let until = Instant::now() + SOON;
    let trigger = format!(
        "DROP TRIGGER IF EXISTS slow; CREATE TRIGGER slow BEFORE INSERT ON spool BEGIN SELECT \
         (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {steps}) SELECT count(*) FROM n); END"
    );
    loop {
        let mut file = sqlite(folder).await;
        let done = sqlx::raw_sql(sqlx::AssertSqlSafe(trigger.clone())).execute(&mut file).await;
        file.close().await.expect("it closes");
        match done {
            Ok(_) => return,
            // what nobody waits for any more is still at it
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_start_finds_what_a_slow_disk_took_by_the_deadline_and_nothing_that_was_dropped() {
    let (folder, receiver) = (TempDir::new().expect("a folder"), away(Over::Grpc, Codings::All).await);
    let (mut left, mut dropped) = (0, 0);
    for round in 0.. {
        let mut running = Running::start_in(folder.path(), settings(Over::Grpc, &receiver, patient()));
        eventually("what was left is found", SOON, || account(&running, Signal::Traces).produced == left).await;
        if dropped == 200 {
            return running.stop(Duration::ZERO).await;
        }
        running.produce(100);
        running.stop(if round == 0 { SOON } else { Duration::from_secs(1) }).await;
        let account = account(&running, Signal::Traces);
        dropped = account.dropped[DropReason::Shutdown as usize];
        assert!(round > 0 || dropped == 0, "an idle disk takes all: {account:?}");
        if account.queued > 0 {
            return; // the disk never confirmed it: nobody can say
        }
        assert_eq!((account.produced, account.spooled), (left + 200, left + 200 - dropped), "{account:?}");
        left = account.spooled;
        drop(running);
        slow_down(folder.path(), 10_000 * 4_u64.pow(round)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_stored_too_large_is_cut_until_the_receiver_takes_it() {
    for over in Over::ALL {
        let (folder, receiver) = (TempDir::new().expect("a folder"), away(over, Codings::All).await);
        let mut running = Running::start_in(folder.path(), settings(over, &receiver, json!({})));
        running.produce(200);
        on_disk(&running, Signal::Traces, 400).await;
        receiver.with(|seen| seen.limit = Some(9_000));
        back(&receiver);
        delivered(&running, Signal::Traces, 400).await;
        receiver.with(|seen| assert_eq!(seen.spans.len(), 400));
        running.stop(SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_loses_the_oldest_first_and_errors_last() {
    let (folder, receiver) = (TempDir::new().expect("a folder"), away(Over::Grpc, Codings::All).await);
    let limit = json!({"spool": {"bytes": "200KiB"}}); // 60 KiB for logs
    let mut running = Running::start_in(folder.path(), settings(Over::Grpc, &receiver, limit));
    let mut written = 0;
    for severity in [ERROR, INFO, INFO, INFO, INFO, INFO, INFO, INFO] {
        running.intake.push(Signal::Logs, log(severity, 10_000)).expect("a request");
        written += 1;
        let is_there = || account(&running, Signal::Logs).queued == 0;
        eventually("the record is on disk", SOON, is_there).await;
    }
    let now = account(&running, Signal::Logs);
    let dropped = now.dropped[DropReason::SpoolFull as usize];
    assert_eq!((now.produced, now.spooled + dropped), (written, written));
    assert!(dropped >= 1 && now.spooled_bytes <= 60 << 10, "{now:?}");
    back(&receiver);
    eventually("the rest is delivered", SOON, || account(&running, Signal::Logs).spooled == 0).await;
    receiver.with(|seen| {
        assert_eq!(seen.logs.len() as u64, written - dropped);
        assert!(seen.logs.iter().any(|log| log.severity_number == ERROR), "the first of all, kept to the last");
    });
    running.stop(SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_that_tell_of_errors_outlive_all_others_on_a_full_disk() {
    let (folder, receiver) = (TempDir::new().expect("a folder"), away(Over::Grpc, Codings::All).await);
    let limit = json!({"spool": {"bytes": "20KiB"}}); // 12 KiB for spans
    let mut running = Running::start_in(folder.path(), settings(Over::Grpc, &receiver, limit));
    failed_request(&mut running.writers[0], 7); // in one chunk with what follows, and before all others
    let dropped = |running: &Running| account(running, Signal::Traces).dropped[DropReason::SpoolFull as usize];
    while dropped(&running) < 2_000 {
        running.produce(500);
        eventually("they are on disk", SOON, || account(&running, Signal::Traces).queued == 0).await;
    }
    back(&receiver);
    eventually("the rest is delivered", SOON, || account(&running, Signal::Traces).spooled == 0).await;
    let arrived = receiver.with(|seen| std::mem::take(&mut seen.spans));
    let is_failed = |span: &&Span| span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error);
    assert_eq!(arrived.iter().filter(is_failed).count(), 2, "the SERVER span and the CLIENT span");
    assert_eq!(arrived.len() as u64, account(&running, Signal::Traces).produced - dropped(&running));
    running.stop(SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_waited_too_long_is_dropped_and_counted() {
    let (folder, receiver) = (TempDir::new().expect("a folder"), away(Over::Grpc, Codings::All).await);
    let mut running =
        Running::start_in(folder.path(), settings(Over::Grpc, &receiver, json!({"spool": {"age": "1s"}})));
    running.produce(10);
    let is_gone = || account(&running, Signal::Traces).dropped[DropReason::TooOld as usize] == 20;
    eventually("it is too old", SOON, is_gone).await;
    assert_eq!(account(&running, Signal::Traces).spooled, 0);
    running.stop(SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_receiver_makes_memory_spill_to_disk_before_anything_is_lost() {
    let (folder, receiver) = (TempDir::new().expect("a folder"), away(Over::Grpc, Codings::All).await);
    receiver.with(|seen| seen.otherwise = Some(Reply::Slow(Duration::from_secs(3))));
    let queue = json!({"queue": {"logs": "512KiB"}, "max_request": "32KiB"});
    let mut running = Running::start_in(folder.path(), settings(Over::Grpc, &receiver, queue));
    for _ in 0..60 {
        running.intake.push(Signal::Logs, log(INFO, 20_000)).expect("a request");
        let has_room = || account(&running, Signal::Logs).queued_bytes <= 256 << 10;
        eventually("half of memory is free", SOON, has_room).await;
    }
    assert!(account(&running, Signal::Logs).spooled > 0, "{:?}", account(&running, Signal::Logs));
    back(&receiver);
    delivered(&running, Signal::Logs, 60).await;
    receiver.with(|seen| assert_eq!(seen.logs.len(), 60));
    running.stop(SOON).await;
}

/// A file that is no database, one that is damaged inside, and those of a version to come and of one before the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_used_is_set_aside_and_nothing_else_suffers() {
    for damage in ["garbage", "inside", "newer", "older"] {
        let (folder, receiver) = (TempDir::new().expect("a folder"), away(Over::Grpc, Codings::All).await);
        let path = folder.path().join("spool.db");
        match damage {
            "garbage" => std::fs::write(&path, [0x5a; 10_000]).expect("written"),
            "inside" => {
                let mut running = Running::start_in(folder.path(), settings(Over::Grpc, &receiver, patient()));
                running.produce(1_000);
                running.stop(SOON).await;
                let mut bytes = std::fs::read(&path).expect("a spool");
                bytes[4096..].fill(0xff);
                std::fs::write(&path, bytes).expect("written");
            }
            _ => {
                let mut file = sqlite(folder.path()).await;
                let version = if damage == "newer" { 7 } else { 0 };
                let schema = format!("CREATE TABLE spool (id INTEGER, other TEXT); PRAGMA user_version = {version}");
                sqlx::raw_sql(sqlx::AssertSqlSafe(schema)).execute(&mut file).await.expect("a file of another version");
                file.close().await.expect("closed");
            }
        }
        let mut running = Running::start_in(folder.path(), settings(Over::Grpc, &receiver, json!({})));
        let aside = if damage == "newer" { "spool.db.version-7" } else { "spool.db.aside" };
        eventually(damage, SOON, || folder.path().join(aside).exists()).await;
        running.produce(10);
        on_disk(&running, Signal::Traces, 20).await;
        back(&receiver);
        delivered(&running, Signal::Traces, 20).await;
        running.stop(SOON).await;
    }
}

/// `make soak` asks for it.
#[expect(clippy::disallowed_methods, reason = "how long the tests take is no setting of the product")]
pub(crate) fn is_long_form() -> bool {
    std::env::var("CONTRACT").is_ok_and(|form| form == "full")
}

/// The whole process, killed while the receiver is away and while it takes what was left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_disk_outlives_any_number_of_kills() {
    const REQUESTS: u64 = 100;
    let rounds = if is_long_form() { 50 } else { 3 };
    let (folder, receiver) = (TempDir::new().expect("a folder"), away(Over::Grpc, Codings::All).await);
    let endpoint = format!("http://{}", receiver.address);
    let data_dir = folder.path().to_string_lossy().into_owned();
    let environment = [("SIDECAR_DATA_DIR", data_dir.as_str()), ("SIDECAR_TELEMETRY__MAX_REQUEST", "8KiB")];
    let application = echo_application().await;
    let on_disk = |page: &str| sample(page, r#"content_factory_telemetry_queued{signal="traces",place="disk"}"#);
    for round in 1..=rounds {
        let mut sidecar = Sidecar::start(application, &["--otlp", &endpoint], &environment).await;
        for _ in 0..REQUESTS {
            assert_eq!(get(sidecar.proxy, "/x").await.expect("the proxy answers").0, 200);
        }
        // another signal may have been refused first, and the disk asked before an attempt
        let tried = |page: &str| sample(page, r#"content_factory_telemetry_retries_total{signal="traces"}"#) > 0;
        let all = |_, page: &str| on_disk(page) >= round * REQUESTS * 2 && tried(page);
        sidecar.eventually("/metrics", all).await;
        sidecar.signal("KILL").await;
        sidecar.ended().await;
    }
    receiver.with(|seen| {
        assert_eq!(seen.spans.len(), 0);
        seen.otherwise = Some(Reply::Slow(Duration::from_millis(50)));
    });
    let requests = || receiver.with(|seen| request_spans(&seen.spans));
    let mut sidecar = Sidecar::start(application, &["--otlp", &endpoint], &environment).await;
    eventually("some are delivered", SOON, || requests() > 20).await;
    sidecar.signal("KILL").await;
    sidecar.ended().await;
    back(&receiver);
    let sidecar = Sidecar::start(application, &["--otlp", &endpoint], &environment).await;
    let page = sidecar.eventually("/metrics", |_, page| on_disk(page) == 0).await;
    eventually("all are delivered", SOON, || requests() as u64 == rounds * REQUESTS * 2).await;
    assert_eq!(sample(&page, "content_factory_telemetry_spool_errors_total"), 0);
    let nothing_waits =
        |_, page: &str| page.contains("content_factory_telemetry_queue_oldest_age_seconds{signal=\"traces\"} 0\n");
    sidecar.eventually("/metrics", nothing_waits).await;
    sidecar.eventually("/metrics", |_, page| page.contains("telemetry_breaker_open{signal=\"traces\"} 0\n")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_takes_over_keeps_in_the_folder_once_the_other_has_left() {
    let (folder, receiver) = (TempDir::new().expect("a folder"), away(Over::Grpc, Codings::All).await);
    let endpoint = format!("http://{}", receiver.address);
    let data_dir = folder.path().to_string_lossy().into_owned();
    let environment = [("SIDECAR_DATA_DIR", data_dir.as_str())];
    let application = echo_application().await;
    let otlp = ["--otlp", endpoint.as_str()];
    let start = || Sidecar::start(application, &otlp, &environment);
    let mut first = start().await;
    get(first.proxy, "/x").await.expect("the proxy answers");
    let on_disk = |page: &str| sample(page, r#"content_factory_telemetry_queued{signal="traces",place="disk"}"#);
    first.eventually("/metrics", |_, page| on_disk(page) == 2).await;
    let second = start().await;
    get(second.proxy, "/x").await.expect("the proxy answers");
    let refused = |_, page: &str| sample(page, r#"content_factory_telemetry_retries_total{signal="traces"}"#) > 0;
    assert_eq!(on_disk(&second.eventually("/metrics", refused).await), 0);
    first.signal("TERM").await;
    assert_eq!(first.ended().await, Some(0));
    // its own two, and those of the first
    second.eventually("/metrics", |_, page| on_disk(page) == 4).await;
    back(&receiver);
    eventually("all are delivered", SOON, || receiver.with(|seen| request_spans(&seen.spans)) == 4).await;
}

/// How many different spans of requests there are: what was on its way when the process was killed comes twice.
fn request_spans(spans: &[Span]) -> usize {
    let of_requests = spans.iter().filter(|span| span.kind != SpanKind::Internal as i32);
    of_requests.map(|span| &span.span_id).collect::<BTreeSet<_>>().len()
}

/// The value of one series; 0 when it is not there.
fn sample(page: &str, series: &str) -> u64 {
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.trim().parse::<f64>().ok());
    line.unwrap_or_default() as u64
}
