//! Tokens and certificates that change while the sidecar runs: used when they are right, and never at the cost of what works.

use std::path::Path;
use std::time::Duration;

use content_factory_sidecar::model::telemetry::{DropReason, Signal};
use serde_json::json;
use tempfile::TempDir;

use crate::rig::{PATIENCE, Sidecar, echo_application, get};
use crate::telemetry_certificates::{Authority, Front, Identity};
use crate::telemetry_receiver::{Codings, Over, Receiver, eventually};
use crate::telemetry_setup::Running;

const SOON: Duration = Duration::from_secs(30);
const CHANGED: &str = "have changed: the new ones are used";
const WRONG: &str = "is wrong: what was in use stays";

/// Two spans for each.
const REQUESTS: u64 = 10;
const SPANS: u64 = 2 * REQUESTS;

/// As a mounted secret changes: at once.
fn write(folder: &Path, name: &str, content: &str) {
    let new = folder.join("new");
    std::fs::write(&new, content).expect("a file in a folder of ours");
    std::fs::rename(new, folder.join(name)).expect("a file in the same folder");
}

/// A receiver that lets only this key in, and a sender whose keys are in a file.
async fn start(over: Over, folder: &TempDir, wanted: &str) -> (Receiver, Running) {
    let receiver = Receiver::over(over, Codings::All, Default::default()).await;
    receiver.with(|seen| seen.wanted_key = Some(wanted.to_owned()));
    write(folder.path(), "headers", "api-key=first-key\n");
    let endpoint = format!("http://{}", receiver.address);
    let settings =
        json!({"endpoint": endpoint, "protocol": over.protocol(), "headers_file": folder.path().join("headers")});
    let running = Running::start(settings, 1, Vec::new());
    (receiver, running)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_changed_is_used_for_the_request_that_the_old_one_could_not_deliver() {
    for over in Over::ALL {
        let folder = TempDir::new().expect("a folder");
        let (receiver, mut running) = start(over, &folder, "second-key").await;
        write(folder.path(), "headers", "api-key=second-key\n");
        running.produce(REQUESTS);
        running.settled(SOON).await;
        assert_eq!(running.account(Signal::Traces).delivered, SPANS, "{over:?}");
        receiver.with(|seen| assert_eq!(seen.keys, ["first-key", "second-key"], "{over:?}"));
        running.stop(SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_did_not_change_is_not_tried_again() {
    for over in Over::ALL {
        let folder = TempDir::new().expect("a folder");
        let (receiver, mut running) = start(over, &folder, "second-key").await;
        running.produce(REQUESTS);
        running.settled(SOON).await;
        assert_eq!(running.account(Signal::Traces).dropped[DropReason::Permanent as usize], SPANS, "{over:?}");
        receiver.with(|seen| assert_eq!(seen.keys, ["first-key"], "{over:?}"));
        // nor one that changed, and is wrong too, more than once
        write(folder.path(), "headers", "api-key=third-key\n");
        running.produce(REQUESTS);
        running.settled(SOON).await;
        assert_eq!(running.account(Signal::Traces).dropped[DropReason::Permanent as usize], 2 * SPANS, "{over:?}");
        receiver.with(|seen| assert_eq!(seen.keys.len() as u64, seen.calls));
        let calls = receiver.with(|seen| seen.calls);
        assert!((2..=3).contains(&calls), "{over:?}: {calls} calls");
        running.stop(SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_changes_is_used_before_the_old_one_ends() {
    for over in Over::ALL {
        let folder = TempDir::new().expect("a folder");
        let (receiver, mut running) = start(over, &folder, "first-key").await;
        running.produce(REQUESTS);
        running.settled(SOON).await;
        receiver.with(|seen| seen.wanted_key = None);
        write(folder.path(), "headers", "api-key=second-key\n");
        let deadline = tokio::time::Instant::now() + SOON;
        while receiver.with(|seen| seen.keys.last().is_none_or(|key| key != "second-key")) {
            assert!(tokio::time::Instant::now() < deadline, "{over:?}: the file is not read again");
            running.produce(REQUESTS);
            running.settled(SOON).await;
        }
        let account = running.account(Signal::Traces);
        assert_eq!(account.delivered, account.produced);
        running.stop(SOON).await;
    }
}

fn count(log: &str, words: &str) -> usize {
    log.lines().filter(|line| line.contains(words)).count()
}

#[tokio::test]
async fn a_wrong_file_changes_nothing_and_is_told_once_and_no_secret_is_told() {
    let folder = TempDir::new().expect("a folder");
    let receiver = Receiver::grpc(Codings::All, Default::default()).await;
    write(folder.path(), "headers", "api-key=hunter2-first");
    let file = folder.path().join("headers").display().to_string();
    let environment = [("SIDECAR_TELEMETRY__HEADERS_FILE", file.as_str())];
    let application = echo_application().await;
    let sidecar = Sidecar::start(application, &["--otlp", &format!("http://{}", receiver.address)], &environment).await;
    let deliver = async || {
        let calls = receiver.with(|seen| seen.calls);
        get(sidecar.proxy, "/x").await.expect("the proxy answers");
        eventually("it is delivered", PATIENCE, || receiver.with(|seen| seen.calls) > calls).await;
    };
    deliver().await;
    write(folder.path(), "headers", "hunter2-without-a-name");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while count(&sidecar.log(), WRONG) == 0 {
        assert!(tokio::time::Instant::now() < deadline, "{}", sidecar.log());
        deliver().await;
    }
    std::fs::remove_file(&file).expect("it is there");
    while count(&sidecar.log(), WRONG) < 2 {
        assert!(tokio::time::Instant::now() < deadline, "another mistake is another line: {}", sidecar.log());
        deliver().await;
    }
    receiver.with(|seen| assert!(seen.keys.iter().all(|key| key == "hunter2-first"), "{:?}", seen.keys));
    write(folder.path(), "headers", "api-key=hunter2-second");
    // one that repeats what it was shown
    receiver.with(|seen| seen.wanted_key = Some("hunter2-second".to_owned()));
    while receiver.with(|seen| seen.keys.last().is_none_or(|key| key != "hunter2-second")) {
        assert!(tokio::time::Instant::now() < deadline + PATIENCE, "{}", sidecar.log());
        deliver().await;
    }
    let log = sidecar.log();
    assert_eq!((count(&log, WRONG), count(&log, CHANGED)), (2, 1), "{log}");
    assert!(log.contains("expected headers, key=value pairs") && log.contains("expected a readable file"), "{log}");
    assert!(!log.contains("hunter2"), "{log}");
}

fn write_identity(folder: &Path, Identity { certificate, key }: &Identity) {
    write(folder, "client.pem", certificate);
    write(folder, "client.key", key);
}

#[tokio::test]
async fn certificates_that_change_are_used_without_a_restart() {
    for over in Over::ALL {
        let (folder, authority, foreign) = (TempDir::new().expect("a folder"), Authority::new(), Authority::new());
        let receiver = Receiver::over(over, Codings::All, Default::default()).await;
        let front = Front::before(&receiver, over, &authority.server("127.0.0.1"), Some(&authority)).await;
        write(folder.path(), "ca.pem", &foreign.certificate);
        write_identity(folder.path(), &foreign.client());
        let file = |name: &str| folder.path().join(name).display().to_string();
        let files = ["ca.pem", "client.pem", "client.key"].map(file);
        let environment = [
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", files[0].as_str()),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", files[1].as_str()),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", files[2].as_str()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", over.protocol()),
        ];
        let otlp = format!("https://{}", front.address);
        let sidecar = Sidecar::start(echo_application().await, &["--otlp", &otlp], &environment).await;
        get(sidecar.proxy, "/x").await.expect("the proxy answers");
        eventually("we do not trust it", PATIENCE, || front.with(|seen| seen.failed) > 0).await;
        // whom to trust, and then what to show
        write(folder.path(), "ca.pem", &authority.certificate);
        eventually("it does not trust us", SOON, || count(&sidecar.log(), CHANGED) == 1).await;
        assert_eq!(receiver.with(|seen| seen.calls), 0);
        let (ours, other) = (authority.client(), authority.client());
        write_identity(folder.path(), &Identity { certificate: ours.certificate.clone(), key: other.key.clone() });
        eventually("what does not fit is told", SOON, || count(&sidecar.log(), WRONG) > 0).await;
        assert_eq!(receiver.with(|seen| seen.calls), 0);
        write_identity(folder.path(), &ours);
        eventually("spans arrive", SOON, || receiver.with(|seen| seen.spans.len() >= 2)).await;
        assert_eq!(count(&sidecar.log(), CHANGED), 2, "{}", sidecar.log());
        // and while all is well: the next connection shows the new one
        write_identity(folder.path(), &authority.client());
        let deadline = tokio::time::Instant::now() + SOON;
        while front.with(|seen| seen.shown.len()) < 2 {
            assert!(tokio::time::Instant::now() < deadline, "{}", sidecar.log());
            let calls = receiver.with(|seen| seen.calls);
            get(sidecar.proxy, "/x").await.expect("the proxy answers");
            eventually("it is delivered", PATIENCE, || receiver.with(|seen| seen.calls) > calls).await;
        }
        let log = sidecar.log();
        for secret in ours.key.lines().chain(other.key.lines()).filter(|line| !line.starts_with('-')) {
            assert!(!log.contains(secret), "{log}");
        }
    }
}
