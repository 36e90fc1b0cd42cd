//! A spool that another version wrote: an earlier one's is taken over, a later one's is kept as it is under another name, and the
//! log says which.

use std::path::Path;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message;
use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};
use tempfile::TempDir;

use crate::rig::{Sidecar, echo_application};
use crate::telemetry_receiver::{Codings, Receiver, eventually};

const SOON: Duration = Duration::from_secs(30);

/// The table as the first version made it.
const VERSION_1: &str = "
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
CREATE TABLE spool (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  signal INTEGER NOT NULL,
  created_ms INTEGER NOT NULL,
  worth INTEGER NOT NULL,
  items INTEGER NOT NULL,
  raw_len INTEGER NOT NULL,
  body BLOB NOT NULL
) STRICT;
CREATE INDEX spool_by_age ON spool (signal, id);
CREATE INDEX spool_by_worth ON spool (signal, worth, id);
PRAGMA user_version = 1;
";

async fn opened(path: &Path) -> SqliteConnection {
    let url = format!("sqlite://{}?mode=rwc", path.display());
    SqliteConnection::connect(&url).await.expect("a file of SQLite")
}

fn record(text: &str) -> Vec<u8> {
    let body = Some(AnyValue { value: Some(any_value::Value::StringValue(text.to_owned())) });
    let scope_logs =
        vec![ScopeLogs { log_records: vec![LogRecord { body, ..LogRecord::default() }], ..ScopeLogs::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
    ExportLogsServiceRequest { resource_logs }.encode_to_vec()
}

/// A spool with three log records, left a moment ago, then changed in this way.
async fn left(path: &Path, changes: &str) {
    let mut file = opened(path).await;
    sqlx::raw_sql(VERSION_1).execute(&mut file).await.expect("a table");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis();
    for text in ["one", "two", "three"] {
        let raw = record(text);
        let insert = "INSERT INTO spool (signal, created_ms, worth, items, raw_len, body) VALUES (2, ?, 0, 1, ?, ?)";
        let row = sqlx::query(insert).bind(i64::try_from(now).expect("a date")).bind(raw.len() as i64);
        let body = zstd::stream::encode_all(&*raw, 1).expect("zstd");
        row.bind(body).execute(&mut file).await.expect("a row");
    }
    sqlx::raw_sql(AssertSqlSafe(changes.to_owned())).execute(&mut file).await.expect("changed");
    file.close().await.expect("closed");
}

fn texts(receiver: &Receiver) -> Vec<String> {
    receiver.with(|seen| {
        let texts = seen.logs.iter().filter_map(|log| match &log.body.as_ref()?.value {
            Some(any_value::Value::StringValue(text)) => Some(text.clone()),
            _ => None,
        });
        texts.filter(|text| ["one", "two", "three"].contains(&text.as_str())).collect()
    })
}

async fn sidecar(folder: &TempDir, receiver: &Receiver) -> Sidecar {
    let data_dir = folder.path().to_string_lossy().into_owned();
    let otlp = format!("http://{}", receiver.address);
    Sidecar::start(echo_application().await, &["--otlp", &otlp], &[("SIDECAR_DATA_DIR", &data_dir)]).await
}

#[tokio::test]
async fn what_an_earlier_version_left_is_delivered_and_its_file_goes_on_as_ours() {
    let (folder, receiver) =
        (TempDir::new().expect("a folder"), Receiver::grpc(Codings::All, Default::default()).await);
    let path = folder.path().join("spool.db");
    left(&path, "").await;
    let mut sidecar = sidecar(&folder, &receiver).await;
    eventually("all three are delivered", SOON, || texts(&receiver).len() == 3).await;
    assert_eq!(texts(&receiver), ["one", "two", "three"]);
    let is_told = |_, page: &str| page.contains("content_factory_telemetry_queued{signal=\"logs\",place=\"disk\"} 0\n");
    sidecar.eventually("/metrics", is_told).await;
    sidecar.signal("TERM").await;
    assert_eq!(sidecar.ended().await, Some(0));
    let log = sidecar.log();
    assert!(log.contains("the spool of an earlier version is taken over") && log.contains("spool.db"), "{log}");
    let names = || std::fs::read_dir(folder.path()).expect("a folder").flatten().map(|entry| entry.file_name());
    assert!(!names().any(|name| name.to_string_lossy().starts_with("spool.db.")), "nothing was set aside");
    let version: i64 =
        sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut opened(&path).await).await.expect("one");
    assert!(version > 1, "{version}");
}

#[tokio::test]
async fn what_a_later_version_left_is_kept_whole_under_a_name_that_tells_it() {
    let (folder, receiver) =
        (TempDir::new().expect("a folder"), Receiver::grpc(Codings::All, Default::default()).await);
    let path = folder.path().join("spool.db");
    left(&path, "ALTER TABLE spool RENAME COLUMN body TO content; PRAGMA user_version = 1000").await;
    let mut sidecar = sidecar(&folder, &receiver).await;
    let aside = folder.path().join("spool.db.version-1000");
    eventually("it is set aside", SOON, || aside.exists()).await;
    let alive = sidecar.ask("/livez").await;
    assert_eq!(alive.0, 200);
    sidecar.signal("TERM").await;
    assert_eq!(sidecar.ended().await, Some(0));
    let log = sidecar.log();
    let line = log.lines().find(|line| line.contains("spool.db.version-1000")).expect("a line names the file");
    assert!(line.contains("it has version 1000"), "{line}");
    assert!(texts(&receiver).is_empty(), "nobody guesses what a later version means");
    let mut file = opened(&aside).await;
    let rows = sqlx::query("SELECT content, raw_len FROM spool ORDER BY id").fetch_all(&mut file).await.expect("rows");
    let bodies = rows.iter().map(|row| zstd::stream::decode_all(row.get::<&[u8], _>(0)).expect("zstd"));
    assert_eq!(bodies.collect::<Vec<_>>(), ["one", "two", "three"].map(record));
    let version: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut file).await.expect("one");
    assert_eq!(version, 1_000);
}
