//! What the application says of itself: asked once in each of its lives, shown on `/status`, harmless whatever it is.
//!
//! The application here is a socket that answers as it is told, ends, and begins again on the same port.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::rig::{PATIENCE, Sidecar, get, own_loopback};

/// Its ends are seen within a tenth of a second.
const QUICK: [(&str, &str); 4] = [
    ("SIDECAR_CHECKS__APPLICATION__PERIOD", "100ms"),
    ("SIDECAR_CHECKS__APPLICATION__TIMEOUT", "90ms"),
    ("SIDECAR_CHECKS__APPLICATION__FAILURE_THRESHOLD", "1"),
    ("SIDECAR_CHECKS__APPLICATION__SUCCESS_THRESHOLD", "1"),
];

/// How `/status` is answered.
#[derive(Clone)]
enum Answer {
    /// With these bytes.
    Bytes(Vec<u8>),
    /// With a body that never ends.
    Endless,
    /// Not at all.
    Silence,
}

/// What the application saw in all its lives.
#[derive(Default)]
struct Seen {
    /// Questions for `/status`.
    asked: watch::Sender<u64>,
    /// Questions for `/openapi.json`.
    documents: watch::Sender<u64>,
    /// Connections that ended without a word, as those of its check do: how many, and when the last one began.
    looks: watch::Sender<(u64, Option<Instant>)>,
    /// Questions for anything else but `/x`.
    strays: AtomicU64,
    /// Bytes of an endless body that were taken.
    taken: AtomicU64,
    /// Endless bodies that the sidecar would hear no more of.
    cut_off: watch::Sender<u64>,
    agent: Mutex<String>,
}

/// One application, in as many lives as a test gives it.
struct Application {
    address: SocketAddr,
    seen: Arc<Seen>,
    /// The life of now; what it holds ends with it.
    life: JoinSet<()>,
}

impl Application {
    /// One that is away.
    async fn away() -> Self {
        let listener = TcpListener::bind((own_loopback(), 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        Self { address, seen: Arc::default(), life: JoinSet::new() }
    }

    async fn start(answer: Answer) -> Self {
        let mut application = Self::away().await;
        application.begin(answer, "/x").await;
        application
    }

    /// Begins a life, in which it has one route.
    async fn begin(&mut self, answer: Answer, route: &'static str) {
        let listener = TcpListener::bind(self.address).await.expect("its port is still free");
        let seen = self.seen.clone();
        self.life.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, seen.clone(), answer.clone(), route));
            }
        });
    }

    /// Ends at once, and waits until the sidecar has seen it.
    async fn end(&mut self, sidecar: &Sidecar) {
        self.life.shutdown().await;
        let away = |_, body: &str| body.contains("Application check failed: refused");
        sidecar.eventually("/health", away).await;
    }

    fn asked(&self) -> u64 {
        *self.seen.asked.borrow()
    }

    async fn until_asked(&self, times: u64) {
        let mut asked = self.seen.asked.subscribe();
        let seen = timeout(PATIENCE, asked.wait_for(|asked| *asked >= times)).await;
        assert!(seen.is_ok(), "asked {} times, expected {times}", self.asked());
    }

    /// Waits until so many more checks of it have come and gone, the last of which began after this call.
    async fn until_checked(&self, times: u64) {
        let (mut looks, called) = (self.seen.looks.subscribe(), Instant::now());
        let before = looks.borrow().0;
        let checked =
            looks.wait_for(|(count, last)| *count >= before + times && last.is_some_and(|begun| begun > called));
        timeout(PATIENCE, checked).await.expect("it is checked in time").expect("the application lives");
    }
}

async fn serve(mut stream: TcpStream, seen: Arc<Seen>, answer: Answer, route: &'static str) {
    let (mut head, begun) = (Vec::new(), Instant::now());
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) if head.is_empty() => {
                return seen.looks.send_modify(|(count, last)| (*count, *last) = (*count + 1, Some(begun)));
            }
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).expect("heads are ASCII");
    match head.split(' ').nth(1).unwrap_or_default() {
        "/status" => {
            *seen.agent.lock().expect("no panic while held") = agent(&head).to_owned();
            seen.asked.send_modify(|asked| *asked += 1);
            answer_status(&mut stream, &seen, answer).await;
        }
        "/openapi.json" => {
            seen.documents.send_modify(|documents| *documents += 1);
            let _ = stream.write_all(&ok(&json!({"paths": {route: {}}}).to_string())).await;
        }
        path => {
            seen.strays.fetch_add(u64::from(path != "/x"), Ordering::Relaxed);
            let _ = stream.write_all(&ok("hello")).await;
        }
    }
}

async fn answer_status(stream: &mut TcpStream, seen: &Seen, answer: Answer) {
    match answer {
        Answer::Bytes(bytes) => drop(stream.write_all(&bytes).await),
        Answer::Silence => drop(stream.read_u8().await),
        Answer::Endless => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n{\"version\": \"").await;
            while let Ok(written) = stream.write(&[b'x'; 16_384]).await {
                seen.taken.fetch_add(written as u64, Ordering::Relaxed);
            }
            seen.cut_off.send_modify(|bodies| *bodies += 1);
        }
    }
}

fn agent(head: &str) -> &str {
    let agent = |line: &'_ str| line.to_ascii_lowercase().starts_with("user-agent: ");
    head.lines().find(|line| agent(line)).map_or("", |line| &line["user-agent: ".len()..])
}

fn ok(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").into_bytes()
}

fn tells(version: &str) -> Answer {
    let system = json!({"cpu_usage": "1.0%", "platform": "Linux-of-the-application", "python_version": "3.11.7"});
    Answer::Bytes(ok(&json!({"health": {}, "system": system, "version": version}).to_string()))
}

fn empty(status: &str) -> Answer {
    Answer::Bytes(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into_bytes())
}

async fn status(sidecar: &Sidecar) -> Value {
    serde_json::from_str(&sidecar.ask("/status").await.1).expect("JSON")
}

async fn until_version(sidecar: &Sidecar, version: &str) -> Value {
    let wanted = format!("\"version\":\"{version}\"");
    let body = sidecar.eventually("/status", |_, body| body.contains(&wanted)).await;
    serde_json::from_str(&body).expect("JSON")
}

/// Waits for the sidecar's own platform, with which come its own version and no interpreter.
async fn until_own(sidecar: &Sidecar) {
    let platform = format!("{}\"}},", std::env::consts::ARCH);
    let body = sidecar.eventually("/status", |_, body| body.contains(&platform)).await;
    let own = format!("\"version\":\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert!(body.ends_with(&own) && !body.contains("python_version"), "{body}");
}

#[tokio::test]
async fn the_application_is_asked_once_however_often_its_words_are_read() {
    let application = Application::start(tells("1.0.0")).await;
    let sidecar = Sidecar::start(application.address, &[], &QUICK).await;
    let body = until_version(&sidecar, "1.0.0").await;
    assert_eq!(body["system"]["platform"], "Linux-of-the-application");
    assert_eq!(body["system"]["python_version"], "3.11.7");
    // as long as several checks of the application take
    for _ in 0..50 {
        assert_eq!(status(&sidecar).await["version"], "1.0.0");
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(application.asked(), 1);
    let agent = application.seen.agent.lock().expect("no panic while held").clone();
    assert!(agent.starts_with("content-factory-sidecar/"), "{agent}");
    let (_, counts) = sidecar.ask("/api/v1/monitoring/metrics").await;
    assert!(counts.contains("\"request_count\":0,"), "{counts}");
}

#[tokio::test]
async fn a_restarted_application_is_asked_once_more_and_its_routes_are_read() {
    let mut application = Application::start(tells("1.0.0")).await;
    let sidecar = Sidecar::start(application.address, &[], &QUICK).await;
    until_version(&sidecar, "1.0.0").await;
    application.end(&sidecar).await;
    assert_eq!(status(&sidecar).await["version"], "1.0.0", "while it is away, what it said last");
    application.begin(tells("2.0.0"), "/new").await;
    until_version(&sidecar, "2.0.0").await;
    until_routed(&sidecar, "/new").await;
    assert_eq!(application.asked(), 2);
    assert_eq!(*application.seen.documents.borrow(), 2);
}

#[tokio::test]
async fn a_restart_between_two_checks_that_a_request_met_is_seen() {
    let slow = [("SIDECAR_CHECKS__APPLICATION__PERIOD", "2500ms"), ("SIDECAR_TRAFFIC__ROUTES__REFRESH", "1h")];
    let mut application = Application::start(tells("1.0.0")).await;
    let sidecar = Sidecar::start(application.address, &[], &slow).await;
    until_version(&sidecar, "1.0.0").await;
    // one that began after the application was first met
    application.until_checked(1).await;
    application.life.shutdown().await;
    assert_eq!(get(sidecar.proxy, "/x").await.expect("an answer").0, 503);
    application.begin(tells("2.0.0"), "/new").await;
    until_version(&sidecar, "2.0.0").await;
    until_routed(&sidecar, "/new").await;
    assert_eq!(application.asked(), 2);
}

#[tokio::test]
async fn an_application_that_came_late_is_asked_once() {
    let mut application = Application::away().await;
    let sidecar = Sidecar::start(application.address, &[], &QUICK).await;
    let away = |_, body: &str| body.contains("Application check failed: refused");
    sidecar.eventually("/health", away).await;
    until_own(&sidecar).await;
    application.begin(tells("1.0.0"), "/x").await;
    until_version(&sidecar, "1.0.0").await;
    let back = |_, body: &str| body.contains("Application connection successful");
    sidecar.eventually("/health", back).await;
    assert_eq!(application.asked(), 1);
}

#[tokio::test]
async fn whatever_the_page_answers_harms_nothing() {
    let long = format!(r#"{{"version": "{}"}}"#, "x".repeat(10_000_000));
    let moved = b"HTTP/1.1 307 Moved\r\nLocation: /elsewhere\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let rows = [
        ("no such page", empty("404 Not Found")),
        ("a redirect", Answer::Bytes(moved.to_vec())),
        ("no JSON", Answer::Bytes(ok("<html>"))),
        ("nested without end", Answer::Bytes(ok(&"[".repeat(60_000)))),
        ("wrong types", Answer::Bytes(ok(r#"{"system": {"platform": 1, "python_version": ["3"]}, "version": {}}"#))),
        ("an error's body", Answer::Bytes(ok(r#"{"error": "psycopg2: connection refused"}"#))),
        ("a long text in a short body", Answer::Bytes(ok(&json!({"version": "x".repeat(201)}).to_string()))),
        ("ten million bytes", Answer::Bytes(ok(&long))),
        ("no answer", Answer::Silence),
        ("no HTTP", Answer::Bytes(b"\0\x1b[31m\r\n\r\n".to_vec())),
    ];
    for (what, answer) in rows {
        let mut application = Application::start(answer).await;
        let sidecar = Sidecar::start(application.address, &[], &QUICK).await;
        application.until_asked(1).await;
        let before = sidecar.resident_kib();
        assert_eq!(get(sidecar.proxy, "/x").await.expect("an answer").0, 200, "{what}");
        until_own(&sidecar).await;
        // the next life is asked as if nothing had been
        application.end(&sidecar).await;
        application.begin(tells("1.0.0"), "/x").await;
        until_version(&sidecar, "1.0.0").await;
        let grown = sidecar.resident_kib().saturating_sub(before);
        assert!(grown < 8 << 10, "{what}: grown by {grown} KiB");
        assert_eq!(application.seen.strays.load(Ordering::Relaxed), 0, "{what}: a redirect was followed");
    }
}

#[tokio::test]
async fn a_body_without_end_is_cut_off_early() {
    let application = Application::start(Answer::Endless).await;
    let sidecar = Sidecar::start(application.address, &[], &QUICK).await;
    let mut cut_off = application.seen.cut_off.subscribe();
    timeout(PATIENCE, cut_off.wait_for(|bodies| *bodies == 1)).await.expect("an end in time").expect("it lives");
    let taken = application.seen.taken.load(Ordering::Relaxed);
    assert!(taken < 16 << 20, "{taken} bytes, expected no more than sockets hold");
    assert!(sidecar.resident_kib() < 64 << 10, "{} KiB", sidecar.resident_kib());
    until_own(&sidecar).await;
    assert_eq!((application.asked(), get(sidecar.proxy, "/x").await.expect("an answer").0), (1, 200));
}

#[tokio::test]
async fn control_characters_and_secrets_are_not_shown() {
    let page =
        r#"{"system": {"python_version": "3.11.7\r\n\u001b[2J\u0000"}, "version": "redis://:hunter2-hunter2@h/0"}"#;
    let application = Application::start(Answer::Bytes(ok(page))).await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let body = sidecar.eventually("/status", |_, body| body.contains("python_version")).await;
    assert!(body.contains(r#""python_version":"3.11.7[2J"}"#), "{body}");
    assert!(!body.contains("hunter2"), "{body}");
}

#[tokio::test]
async fn an_application_that_is_not_ready_is_tried_three_times_and_then_left_alone() {
    let application = Application::start(empty("503 Service Unavailable")).await;
    let sidecar = Sidecar::start(application.address, &[], &QUICK).await;
    application.until_asked(3).await;
    sidecar.says(&["the application does not tell its platform and versions"]).await;
    // each is a chance to take it for a new life, and to ask again
    application.until_checked(10).await;
    assert_eq!(application.asked(), 3);
    until_own(&sidecar).await;
}

#[tokio::test]
async fn an_application_is_not_asked_when_the_settings_say_so() {
    let application = Application::start(tells("1.0.0")).await;
    let off = [("SIDECAR_APPLICATION__STATUS__ENABLED", "false"), ("SIDECAR_TRAFFIC__ROUTES__REFRESH", "1s")];
    let sidecar = Sidecar::start(application.address, &[], &[QUICK[0], QUICK[1], off[0], off[1]]).await;
    let mut documents = application.seen.documents.subscribe();
    let read_again = documents.wait_for(|documents| *documents >= 2);
    timeout(PATIENCE, read_again).await.expect("the routes are read in time").expect("the application lives");
    assert_eq!(application.asked(), 0);
    until_own(&sidecar).await;
}

#[tokio::test]
async fn another_page_is_asked_at_once_and_a_switched_off_one_is_forgotten() {
    let application = Application::start(tells("1.0.0")).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("sidecar.yaml");
    let write = |status: &str| std::fs::write(&file, format!("application: {{status: {status}}}\n")).expect("a file");
    write("{path: /x}");
    let arguments = ["--config", file.to_str().expect("a path")];
    let sidecar = Sidecar::start(application.address, &arguments, &QUICK).await;
    sidecar.says(&["does not tell its platform and versions"]).await;
    assert_eq!(application.asked(), 0, "it is another page that was asked");
    write("{path: /status}");
    sidecar.signal("HUP").await;
    until_version(&sidecar, "1.0.0").await;
    assert_eq!(application.asked(), 1, "in the same life");
    write("{enabled: false}");
    sidecar.signal("HUP").await;
    let own = format!("\"version\":\"{}\"", env!("CARGO_PKG_VERSION"));
    sidecar.eventually("/status", |_, body| body.contains(&own) && !body.contains("python_version")).await;
    let reload = &status(&sidecar).await["reload"];
    assert_eq!((&reload["restart_needed"], application.asked()), (&json!([]), 1));
}

/// Sends requests until one has a route; gives how many it took.
async fn until_routed(sidecar: &Sidecar, path: &str) -> u32 {
    let route = format!("http_route=\"{path}\"");
    for asks in 1..=400 {
        get(sidecar.proxy, path).await.expect("an answer");
        if sidecar.metrics().await.contains(&route) {
            return asks;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("no request for {path} has a route");
}

#[tokio::test]
async fn the_routes_of_an_application_that_came_late_are_known_at_once() {
    let mut application = Application::away().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    // long enough for pauses that double without a limit to have grown to seconds
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(3_500) {
        assert_eq!(get(sidecar.proxy, "/x").await.expect("an answer").0, 503);
        sleep(Duration::from_millis(50)).await;
    }
    application.begin(empty("404 Not Found"), "/x").await;
    // twenty in a second: half a second is the longest pause, the rest is for a busy machine
    let asks = until_routed(&sidecar, "/x").await;
    assert!(asks <= 30, "{asks} requests until one had a route");
}
