//! Encoded once, compressed once, sent as stored: whatever happens on the way, the bytes are those of the first attempt.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use content_factory_sidecar::model::request::RequestSink;
use content_factory_sidecar::model::sample::{LabelValue, Sample, SampleValue};
use content_factory_sidecar::model::telemetry::Signal;
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value, json};
use sqlx::{Connection, Row, SqliteConnection};
use tempfile::TempDir;

use crate::raw_receiver::RawReceiver;
use crate::telemetry_receiver::eventually;
use crate::telemetry_setup::{Running, assert_balanced, failed_request, request};

const SOON: Duration = Duration::from_secs(30);

fn settings(receiver: &RawReceiver, compression: &str) -> Value {
    json!({
        "endpoint": format!("http://{}", receiver.address),
        "protocol": "http/protobuf",
        "compression": compression,
    })
}

/// Batches of spans that were compressed: for the first time, halved, and for another coding.
fn compressions(running: &Running) -> [u64; 3] {
    let mut samples = Vec::new();
    running.reader.samples(&mut samples);
    ["first", "halved", "other_coding"].map(|reason| {
        let is_it = |sample: &&Sample| {
            let label = |name: &str, value: &str| {
                let is_value = |label: &LabelValue| matches!(label, LabelValue::Text(text) if text.as_str() == value);
                sample.labels.iter().any(|(key, label)| *key == name && is_value(label))
            };
            sample.metric.name == "content_factory.telemetry.compressions"
                && label("signal", "traces")
                && label("reason", reason)
        };
        match samples.iter().find(is_it).expect("it is counted").value {
            SampleValue::Count(count) => count,
            ref other => panic!("{other:?}, expected a count"),
        }
    })
}

/// Some requests of which each third fails; so few that they are one batch.
fn produce(running: &mut Running, requests: u64) {
    for number in 0..requests {
        match number % 3 {
            0 => failed_request(&mut running.writers[0], number),
            _ => request(&mut running.writers[0], number),
        }
    }
    running.writers[0].tick();
    running.writers[0].tick();
}

fn spans(receiver: &RawReceiver) -> Vec<Span> {
    let scopes = receiver.resource_spans().into_iter().flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).collect()
}

/// The rows of the file, oldest first: their bodies, and how they are compressed.
async fn rows(folder: &Path) -> Vec<(Vec<u8>, i64)> {
    let url = format!("sqlite://{}?mode=ro", folder.join("spool.db").display());
    let mut file = SqliteConnection::connect(&url).await.expect("a file of SQLite");
    let rows = sqlx::query("SELECT body, coding FROM spool ORDER BY id").fetch_all(&mut file).await.expect("rows");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_attempt_from_memory_sends_the_bytes_of_the_first() {
    let receiver = RawReceiver::away().await;
    let mut more = settings(&receiver, "zstd");
    more["spool"] = json!({"enabled": false});
    let mut running = Running::start(more, 1, Vec::new());
    produce(&mut running, 90);
    eventually("some attempts have failed", SOON, || receiver.asked().len() >= 4).await;
    receiver.back();
    running.settled(SOON).await;
    let asked: BTreeSet<Vec<u8>> = receiver.asked().into_iter().map(|(_, body)| body).collect();
    assert_eq!(asked.len(), 2, "what tells of errors and the rest, and in each attempt the same bytes");
    assert_eq!(compressions(&running), [2, 0, 0]);
    assert_eq!(spans(&receiver).len(), 180);
    running.stop(SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_keeps_and_sends_the_bytes_of_the_first_attempt_in_whatever_coding() {
    for (compression, coding) in [("zstd", 0), ("gzip", 1)] {
        let (folder, receiver) = (TempDir::new().expect("a folder"), RawReceiver::away().await);
        let mut running = Running::start_in(folder.path(), settings(&receiver, compression));
        produce(&mut running, 90);
        let is_on_disk = |running: &Running| {
            let account = running.account(Signal::Traces);
            assert_balanced(&account);
            account.spooled == 180
        };
        eventually("it is on disk", SOON, || is_on_disk(&running)).await;
        // once more from the disk, to be refused there too
        let asked = receiver.asked().len();
        eventually("it is asked again", SOON, || receiver.asked().len() > asked + 1).await;
        running.stop(SOON).await;
        assert_eq!(compressions(&running), [2, 0, 0], "{compression}: what tells of errors, and the rest");
        drop(running);

        let stored = rows(folder.path()).await;
        let of_coding = stored.iter().filter(|(_, stored)| *stored == coding).count();
        assert_eq!((stored.len(), of_coding), (2, 2), "what tells of errors, and the rest");
        let stored: Vec<Vec<u8>> = stored.into_iter().map(|(body, _)| body).collect();
        // from disk both may be one request, of frames one after the other, where the coding allows that
        let both = [stored.concat(), [&stored[1][..], &stored[0]].concat()];
        let joined = if compression == "zstd" { &both[..] } else { &[] };
        let requests: BTreeSet<Vec<u8>> = stored.iter().chain(joined).cloned().collect();
        let asked: BTreeSet<Vec<u8>> = receiver.asked().into_iter().map(|(_, body)| body).collect();
        assert!(!asked.is_empty() && asked.is_subset(&requests), "{compression}: what was tried is what is stored");
        receiver.back();
        let mut running = Running::start_in(folder.path(), settings(&receiver, compression));
        eventually("it is taken", SOON, || running.account(Signal::Traces).delivered == 180).await;
        let asked: BTreeSet<Vec<u8>> = receiver.asked().into_iter().map(|(_, body)| body).collect();
        assert!(asked.is_subset(&requests), "{compression}: what is stored is what is sent");
        assert_eq!(compressions(&running), [0, 0, 0], "another process compresses nothing");
        running.stop(SOON).await;
        assert_eq!(spans(&receiver).len(), 180);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_of_another_coding_gets_what_is_stored_made_anew_and_that_is_counted() {
    let (folder, receiver) = (TempDir::new().expect("a folder"), RawReceiver::away().await);
    let mut running = Running::start_in(folder.path(), settings(&receiver, "zstd"));
    produce(&mut running, 30);
    eventually("it is on disk", SOON, || running.account(Signal::Traces).spooled == 60).await;
    running.stop(SOON).await;
    drop(running);
    for compression in ["none", "gzip"] {
        let copy = TempDir::new().expect("a folder");
        std::fs::copy(folder.path().join("spool.db"), copy.path().join("spool.db")).expect("copied");
        let receiver = RawReceiver::start().await;
        let mut running = Running::start_in(copy.path(), settings(&receiver, compression));
        eventually("it is taken", SOON, || running.account(Signal::Traces).delivered == 60).await;
        assert_eq!(spans(&receiver).len(), 60);
        let [first, halved, other] = compressions(&running);
        assert_eq!((first, halved), (0, 0));
        assert_eq!(other > 0, compression == "gzip", "to undo it is not to compress it");
        running.stop(SOON).await;
    }
}
