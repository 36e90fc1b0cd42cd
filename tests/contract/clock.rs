//! A clock that is set while the sidecar runs, an hour ahead and an hour back.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tonic::Code;

use crate::page;
use crate::proxy_world::{Application, Client};
use crate::restarts::{Interval, ask, intervals_of, now_unix_nanos, until};
use crate::rig::{PATIENCE, Sidecar};
use crate::scale::among_others;
use crate::telemetry_receiver::{Codings, Receiver, Reply};

/// Longer than anything here takes, and far less than what the clock is set by.
const MINUTE: u64 = 60_000_000_000;
const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// Seconds by which the sidecar's clock is wrong, one after the other.
const OFFSETS: [i64; 5] = [0, HOUR, 0, -HOUR, 0];

/// Requests at each offset; one of them fails.
const REQUESTS: u64 = 5;

/// The time of day of one process; its monotonic clock is left alone.
struct Clock {
    folder: TempDir,
}

impl Clock {
    fn right() -> Self {
        let clock = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        clock.set(0);
        clock
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("offset")
    }

    /// From now on it is wrong by so many seconds.
    fn set(&self, offset: i64) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, format!("{offset:+}\n")).expect("a file in a new folder");
        // at once: an empty file would end the process that reads it
        std::fs::rename(&new, self.file()).expect("a file in the same folder");
    }

    /// What makes a process take its time from here.
    fn environment(&self) -> Vec<(&'static str, String)> {
        let folders = std::fs::read_dir("/usr/lib").expect("a Linux system").flatten().map(|entry| entry.path());
        let library = folders.map(|folder| folder.join("faketime/libfaketime.so.1")).find(|library| library.exists());
        let library = library.expect("libfaketime, which `make tools` installs");
        vec![
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }
}

/// Whether a time of the sidecar is one of now by its own clock.
fn is_now(unix_nanos: u64, offset: i64) -> bool {
    let now = now_unix_nanos().checked_add_signed(offset * 1_000_000_000).expect("hours after 1970");
    unix_nanos.abs_diff(now) < MINUTE
}

/// Waits for metrics that are made at this offset; gives the intervals of all that came since it was asked last.
async fn told(receiver: &Receiver, offset: i64) -> Vec<Interval> {
    let deadline = Instant::now() + PATIENCE;
    while !receiver.with(|seen| intervals_of(&seen.metrics).iter().any(|interval| is_now(interval.end, offset))) {
        assert!(Instant::now() < deadline, "no metrics are delivered at {offset:+} s");
        sleep(Duration::from_millis(20)).await;
    }
    intervals_of(&receiver.with(|seen| std::mem::take(&mut seen.metrics)))
}

/// A request that is under way while the clock is set, and some more; one of them fails.
async fn requests(application: &Application, sidecar: &Sidecar, set: impl FnOnce()) {
    let before = application.requests.load(Ordering::Relaxed);
    let mut late = Client::connect(sidecar.proxy).await.expect("the proxy is there");
    late.get("/late").await.expect("it takes requests");
    until(|| application.requests.load(Ordering::Relaxed) > before, "it is under way").await;
    set();
    assert_eq!(late.answer().await, Some((200, true)));
    for path in ["/", "/error", "/", "/"] {
        let wanted = if path == "/error" { 500 } else { 200 };
        assert_eq!(ask(sidecar.proxy, "GET", path).await.expect("an answer").status(), wanted);
    }
}

/// What the sidecar shows of itself does not know of the other clock.
async fn shown(sidecar: &Sidecar, asked: u64) {
    let page = page::settled(sidecar, asked).await;
    assert_eq!(page::total(&page), asked);
    let seconds = page::sum(&page, "http_server_request_duration_seconds_sum", "");
    assert!((0.0..60.0).contains(&seconds), "{asked} requests took {seconds} s");
    assert_eq!(page::sum(&page, "content_factory_room_restarts_total", ""), 0.0, "{page}");
    let metrics: serde_json::Value =
        serde_json::from_str(&sidecar.ask("/api/v1/monitoring/metrics").await.1).expect("JSON");
    assert!((0.0..600.0).contains(&metrics["uptime_seconds"].as_f64().expect("a number")), "{metrics}");
    let dashboard = sidecar.ask("/dashboard").await.1;
    let (_, table) = dashboard.split_once("Sliding windows").expect("a table of windows");
    let rows: Vec<&str> = table.lines().skip(1).take(3).collect();
    for row in rows {
        // a young sidecar's windows are as long as it lives
        assert!(row.contains(" s</th>"), "{row}");
        assert!(row.contains("<td>20.0 %</td>") && !row.contains("<td>0.0</td>"), "one in five fails: {row}");
    }
}

/// Row 21: durations are of the monotonic clock, windows too, and no interval is negative or as long as the step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_changes_no_duration_no_window_and_no_interval() {
    let _machine = among_others().await;
    for temporality in ["delta", "cumulative"] {
        let (clock, application) = (Clock::right(), Application::start().await);
        let receiver = Receiver::grpc(Codings::All, Default::default()).await;
        let endpoint = format!("http://{}", receiver.address);
        let faked = clock.environment();
        let mut environment: Vec<(&str, &str)> = faked.iter().map(|(name, value)| (*name, value.as_str())).collect();
        environment.push(("SIDECAR_TELEMETRY__METRICS__INTERVAL", "100ms"));
        environment.push(("SIDECAR_TELEMETRY__METRICS__TEMPORALITY", temporality));
        let mut sidecar = Sidecar::start(application.address, &["--otlp", &endpoint], &environment).await;
        let (mut intervals, mut asked) = (told(&receiver, 0).await, 0);
        for offset in OFFSETS {
            requests(&application, &sidecar, || clock.set(offset)).await;
            intervals.extend(told(&receiver, offset).await);
            asked += REQUESTS;
        }
        shown(&sidecar, asked).await;
        sidecar.signal("TERM").await;
        assert_eq!(sidecar.ended().await, Some(0));
        assert!(!sidecar.log().contains("panick"), "{}", sidecar.log());
        intervals.extend(intervals_of(&receiver.with(|seen| std::mem::take(&mut seen.metrics))));
        for Interval { start, end, is_delta } in &intervals {
            assert!(start <= end, "{temporality}: from {start} to {end}");
            // what counts since the start keeps that start as it was told: another one would say that it began anew
            assert!(!is_delta || end - start < MINUTE, "{temporality}: from {start} to {end}");
        }
        let spans = receiver.with(|seen| std::mem::take(&mut seen.spans));
        assert!(spans.len() as u64 >= 2 * asked, "{} spans of {asked} requests", spans.len());
        for span in &spans {
            let (start, end) = (span.start_time_unix_nano, span.end_time_unix_nano);
            assert!(start <= end && end - start < MINUTE, "{temporality}: {} from {start} to {end}", span.name);
        }
    }
}

/// Row 21: what waits on disk is as old as it is. A clock that is set ahead by days, twice, makes nothing of it too old, and all of
/// it is delivered once the receiver is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_ahead_deletes_nothing_that_waits_on_disk() {
    let _machine = among_others().await;
    let (clock, application) = (Clock::right(), Application::start().await);
    let receiver = Receiver::grpc(Codings::All, Default::default()).await;
    receiver.with(|seen| seen.otherwise = Some(Reply::Fail(Code::Unavailable, 503)));
    let endpoint = format!("http://{}", receiver.address);
    let faked = clock.environment();
    let environment: Vec<(&str, &str)> = faked.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let sidecar = Sidecar::start(application.address, &["--otlp", &endpoint], &environment).await;
    let on_disk = |page: &str| page::sum(page, "content_factory_telemetry_queued", r#"signal="traces",place="disk""#);
    let mut asked = 0;
    for offset in [0, 2 * DAY, 4 * DAY] {
        clock.set(offset);
        for _ in 0..REQUESTS {
            assert_eq!(ask(sidecar.proxy, "GET", "/").await.expect("an answer").status(), 200);
        }
        asked += REQUESTS;
        // two spans each; those of the next offset come to the disk behind a look at what is too old by this one
        sidecar.eventually("/metrics", |_, page| on_disk(page) >= 2.0 * asked as f64).await;
    }
    receiver.with(|seen| seen.otherwise = None);
    let page = sidecar.eventually("/metrics", |_, page| on_disk(page) == 0.0).await;
    assert_eq!(page::sum(&page, "content_factory_telemetry_dropped_total", r#"reason="too_old""#), 0.0, "{page}");
    let is_whole = || receiver.with(|seen| seen.spans.len() as u64 >= 2 * asked);
    until(is_whole, "all spans are delivered").await;
}
