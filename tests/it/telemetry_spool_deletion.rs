//! What was delivered is found in no file: neither as text nor as the bytes of its row.

use std::path::{Path, PathBuf};
use std::time::Duration;

use content_factory_sidecar::model::request::{RequestRecord, RequestSink};
use content_factory_sidecar::model::telemetry::Signal;
use content_factory_sidecar::model::trace::TraceId;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message;
use serde_json::json;
use sqlx::{Connection, SqliteConnection};
use tempfile::TempDir;
use tonic::Code;

use crate::telemetry_receiver::{Codings, Receiver, Reply, eventually};
use crate::telemetry_setup::{Running, record};

const SOON: Duration = Duration::from_secs(30);
const REQUESTS: u64 = 200;
/// Of a row, compared with all of each file: too long to be there by chance.
const PIECE: usize = 24;

async fn away() -> Receiver {
    let receiver = Receiver::grpc(Codings::All, Default::default()).await;
    receiver.with(|seen| seen.otherwise = Some(Reply::Fail(Code::Unavailable, 503)));
    receiver
}

fn files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path()).collect()
}

/// The bodies of the rows of a signal, read in a copy: the sidecar alone has the file.
async fn rows(folder: &Path, signal: Signal) -> Vec<Vec<u8>> {
    let copy = TempDir::new().expect("a folder");
    for file in files(folder) {
        std::fs::copy(&file, copy.path().join(file.file_name().expect("a name"))).expect("a copy");
    }
    let url = format!("sqlite://{}", copy.path().join("spool.db").display());
    let mut file = SqliteConnection::connect(&url).await.expect("a file of SQLite");
    let bodies = sqlx::query_scalar("SELECT body FROM spool WHERE signal = ?").bind(signal as i64);
    bodies.fetch_all(&mut file).await.expect("the table of the spool")
}

/// Where one of these pieces stands.
fn found(folder: &Path, pieces: &[Vec<u8>]) -> Option<String> {
    let readable = |path: PathBuf| std::fs::read(&path).ok().map(|bytes| (path, bytes)); // one may go meanwhile
    files(folder).into_iter().filter_map(readable).find_map(|(path, bytes)| {
        let piece = pieces.iter().position(|piece| memchr::memmem::find(&bytes, piece).is_some())?;
        Some(format!("piece {piece} in {}", path.display()))
    })
}

fn one_log() -> Vec<u8> {
    let text = any_value::Value::StringValue("it stays".to_owned());
    let body = Some(AnyValue { value: Some(text) });
    let scope_logs =
        vec![ScopeLogs { log_records: vec![LogRecord { body, ..LogRecord::default() }], ..ScopeLogs::default() }];
    ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }] }
        .encode_to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_delivered_is_found_in_no_file_also_while_something_else_still_waits() {
    let (folder, taking, refusing) = (TempDir::new().expect("a folder"), away().await, away().await);
    let endpoint = |receiver: &Receiver| format!("http://{}", receiver.address);
    let settings = json!({"traces": {"endpoint": endpoint(&taking)}, "logs": {"endpoint": endpoint(&refusing)}});
    let mut running = Running::start_in(folder.path(), settings);
    running.intake.push(Signal::Logs, one_log()).expect("a request");
    let canaries: Vec<String> = (0..REQUESTS).map(|_| (0..16).map(|_| fastrand::alphanumeric()).collect()).collect();
    for (number, canary) in (0..).zip(&canaries) {
        let target = format!("/delivered/{canary}");
        let trace_id = TraceId(u128::to_be_bytes(number + 1));
        running.writers[0].end(&RequestRecord { target: target.as_bytes(), ..record(trace_id) });
    }
    running.writers[0].tick();
    running.writers[0].tick();
    let spooled = |signal| running.account(signal).spooled;
    eventually("both wait on disk", SOON, || spooled(Signal::Traces) == 2 * REQUESTS && spooled(Signal::Logs) == 1)
        .await;

    let rows = rows(folder.path(), Signal::Traces).await;
    let text: Vec<u8> = rows.iter().flat_map(|row| zstd::stream::decode_all(row.as_slice()).expect("zstd")).collect();
    assert!(canaries.iter().all(|canary| memchr::memmem::find(&text, canary.as_bytes()).is_some()), "they were there");
    let mut pieces: Vec<Vec<u8>> = rows.iter().flat_map(|row| row.chunks_exact(PIECE)).map(<[u8]>::to_vec).collect();
    assert!(pieces.len() > 100 && found(folder.path(), &pieces).is_some(), "{} pieces", pieces.len());
    pieces.extend(canaries.iter().map(|canary| canary.as_bytes().to_vec()));

    taking.with(|seen| seen.otherwise = None);
    eventually("the spans are delivered", SOON, || running.account(Signal::Traces).delivered == 2 * REQUESTS).await;
    assert_eq!(running.account(Signal::Logs).spooled, 1);
    let folder_has = || found(folder.path(), &pieces);
    eventually("no file remembers", SOON, || folder_has().is_none()).await;
    running.stop(Duration::from_secs(2)).await;
    assert_eq!(running.account(Signal::Logs).spooled, 1, "what waits is kept");
    assert_eq!(found(folder.path(), &pieces), None);
}
