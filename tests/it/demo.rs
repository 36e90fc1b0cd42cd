//! The demo, as its users start it: what it prints is true, what it names answers, and it ends cleanly.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::rig::{self, PATIENCE};

/// A demo on ports of its own, whose temporary files go to a folder of this test.
struct Demo {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    folder: TempDir,
}

/// The numbers of the last line.
struct Summary {
    requests: u64,
    errors: u64,
    spans: u64,
    sent: u64,
    line: String,
}

impl Demo {
    async fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = rig::command(&folder);
        command.args(["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--app", "127.0.0.1:0"]);
        // an endpoint in the environment is somebody else's
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1").env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip");
        command.args(arguments).env("TMPDIR", folder.path()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, lines, folder }
    }

    async fn line(&mut self) -> Option<String> {
        timeout(PATIENCE, self.lines.next_line()).await.expect("a line in time").expect("a readable line")
    }

    /// The addresses that it names, in their order, as (what it is, URL).
    async fn addresses(&mut self) -> Vec<(String, String)> {
        let mut addresses = Vec::new();
        while let Some(line) = self.line().await {
            match line.split_once("  ") {
                Some(("to end", _)) => return addresses,
                Some((what, url)) => addresses.push((what.to_owned(), url.trim().to_owned())),
                None => panic!("expected an address, found {line:?}"),
            }
        }
        panic!("it ended before it served; it named {addresses:?}");
    }

    /// Presses Ctrl-C.
    async fn interrupt(&self) {
        let pid = self.child.id().expect("it runs").to_string();
        assert!(Command::new("kill").args(["-s", "INT", &pid]).status().await.expect("kill runs").success());
    }

    /// Waits for its end: the exit code, and the summary.
    async fn end(&mut self) -> (Option<i32>, Summary) {
        let mut last = String::new();
        while let Some(line) = self.line().await {
            last = line;
        }
        let status =
            timeout(PATIENCE, self.child.wait()).await.expect("it ends in time").expect("it can be waited for");
        (status.code(), Summary::of(last))
    }
}

impl Summary {
    fn of(line: String) -> Self {
        let before = |word: &str| {
            let mut words = line.split_whitespace().peekable();
            while let Some(number) = words.next() {
                if words.peek().is_some_and(|next| next.starts_with(word)) && number.parse::<u64>().is_ok() {
                    return number.parse().expect("a number");
                }
            }
            panic!("no number before {word:?} in {line:?}");
        };
        let (_, tail) = line.split_once("; ").unwrap_or_else(|| panic!("no summary: {line:?}"));
        let sent =
            tail.split_whitespace().next().and_then(|text| text.parse().ok()).expect("a number of requests sent");
        Self { requests: before("request"), errors: before("error"), spans: before("span"), sent, line }
    }
}

/// GET of a URL with an address in it.
async fn open(url: &str) -> (u16, String) {
    let rest = url.strip_prefix("http://").unwrap_or_else(|| panic!("a URL, not {url:?}"));
    let (authority, path) = rest.split_once('/').unwrap_or_else(|| panic!("a path in {url:?}"));
    let address: SocketAddr = authority.parse().unwrap_or_else(|_| panic!("an address in {url:?}"));
    rig::get(address, &format!("/{path}")).await.expect("the address answers")
}

#[tokio::test]
async fn every_request_is_counted_once_and_both_its_spans_arrive() {
    let mut demo = Demo::start(&["--duration", "3s"]).await;
    let addresses = demo.addresses().await;
    assert_eq!(addresses[0].0, "dashboard", "the dashboard comes first");
    let mut proxied = 0;
    for (what, url) in addresses.iter().filter(|(what, _)| what != "telemetry goes to") {
        assert_eq!(open(url).await.0, 200, "{what}: {url}");
        proxied += u64::from(what.contains("through the sidecar"));
    }
    assert_eq!(proxied, 1);
    let (code, seen) = demo.end().await;
    assert_eq!(code, Some(0), "{}", seen.line);
    assert!(seen.sent > 10, "{}", seen.line);
    assert_eq!(seen.requests, seen.sent + proxied, "{}", seen.line);
    assert_eq!(seen.spans, 2 * seen.requests, "a SERVER and a CLIENT span each: {}", seen.line);
    assert!((1..seen.requests / 4).contains(&seen.errors), "every tenth script is refused: {}", seen.line);
    let left: Vec<_> = demo.folder.path().read_dir().expect("the folder is there").collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[tokio::test]
async fn ctrl_c_ends_it_cleanly() {
    let mut demo = Demo::start(&[]).await;
    let addresses = demo.addresses().await;
    let (_, dashboard) = &addresses[0];
    assert!(open(dashboard).await.1.contains("<html"), "{dashboard}");
    demo.interrupt().await;
    let (code, seen) = demo.end().await;
    assert_eq!(code, Some(0), "{}", seen.line);
    assert_eq!((seen.requests, seen.spans), (seen.sent, 2 * seen.sent), "{}", seen.line);
}

#[tokio::test]
async fn the_rows_of_its_tables_grow_before_ones_eyes() {
    let mut demo = Demo::start(&[]).await;
    let addresses = demo.addresses().await;
    let (_, status) = addresses.iter().find(|(what, _)| what == "status").expect("the address of /status");
    let rows = async || -> Option<u64> {
        let body: serde_json::Value = serde_json::from_str(&open(status).await.1).expect("JSON");
        body["database_stats"]["products"].as_u64()
    };
    let mut first = None;
    let deadline = Instant::now() + PATIENCE;
    // less than the minute between two counts of a factory at work
    loop {
        let now = rows().await;
        first = first.or(now);
        if now > first {
            break;
        }
        assert!(Instant::now() < deadline, "still {first:?} products");
        sleep(Duration::from_millis(100)).await;
    }
    demo.interrupt().await;
    assert_eq!(demo.end().await.0, Some(0));
}

#[tokio::test]
async fn a_collector_gets_what_the_receiver_would() {
    // the receiver of one demo is as good a collector as any for another
    let mut receiving = Demo::start(&[]).await;
    let addresses = receiving.addresses().await;
    let (_, endpoint) = addresses.iter().find(|(what, _)| what == "telemetry goes to").expect("an endpoint");
    let mut sending = Demo::start(&["--duration", "2s", "--collector", endpoint]).await;
    let (code, sent) = sending.end().await;
    assert_eq!((code, sent.requests), (Some(0), sent.sent), "{}", sent.line);
    assert!(sent.spans >= 2 * sent.requests, "the sidecar may add spans of its own: {}", sent.line);
    receiving.interrupt().await;
    let (code, received) = receiving.end().await;
    assert_eq!(code, Some(0), "{}", received.line);
    assert_eq!(received.spans, 2 * (sent.requests + received.requests), "{}\n{}", sent.line, received.line);
}

#[tokio::test]
async fn a_collector_that_is_away_disturbs_nothing() {
    // nothing listens on port 1
    let mut demo = Demo::start(&["--duration", "1s", "--collector", "http://127.0.0.1:1"]).await;
    let addresses = demo.addresses().await;
    assert!(addresses.contains(&("telemetry goes to".into(), "http://127.0.0.1:1".into())), "{addresses:?}");
    let (code, seen) = demo.end().await;
    assert_eq!(code, Some(0), "{}", seen.line);
    assert!(seen.sent > 0 && seen.requests == seen.sent, "{}", seen.line);
    assert!(seen.line.contains(" 0 spans delivered"), "{}", seen.line);
}

#[tokio::test]
async fn a_collector_that_is_no_url_is_a_mistake_of_the_command_line() {
    let ports = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--app", "127.0.0.1:0"];
    let ended = rig::output(&[&["demo", "--collector", "nonsense"][..], &ports].concat(), &[]).await;
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(64), "{said}");
    assert!(said.starts_with("the configuration has 1 mistake:"), "{said}");
    assert!(said.contains("nonsense, expected") && said.contains("(set in --collector)"), "{said}");
    assert!(ended.stdout.is_empty(), "no address is named that does not serve");
}

#[tokio::test]
async fn a_busy_port_is_one_line_with_the_port_and_the_setting() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--listen", "--admin", "--app"] {
        let mut arguments = vec!["demo", "--duration", "1s"];
        for each in ["--listen", "--admin", "--app"] {
            arguments.extend([each, if each == flag { &address } else { "127.0.0.1:0" }]);
        }
        let ended = rig::output(&arguments, &[]).await;
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{flag}: {said}");
        assert_eq!(said.lines().count(), 1, "{flag}: {said}");
        assert!(said.contains(&format!("{address} is in use")) && said.contains(flag), "{flag}: {said}");
    }
}
