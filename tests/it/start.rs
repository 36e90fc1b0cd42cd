//! What may be missing or broken at start leaves the proxy serving; what is there is counted, and stops cleanly.

use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use crate::proxy_world::Client;
use crate::rig::{Sidecar, echo_application, echo_application_at, get, own_loopback};

/// An address where connections are accepted and nothing is ever said.
async fn black_hole() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    (listener, address)
}

/// Of a start, from its begin to its first answer.
const PROMISED: Duration = Duration::from_secs(1);

/// A start that took longer is tried again: a busy machine is no fault of what is missing.
const STARTS: usize = 5;

/// Starts it until the first request is answered in time, with this status.
async fn serves_in_time(upstream: &str, row: (&str, &str), status: u16) -> Sidecar {
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let begun = Instant::now();
        let sidecar = Sidecar::in_front_of(upstream, &[], &[row]).await;
        let answer = get(sidecar.proxy, "/x").await.expect("an answer");
        times.push(begun.elapsed());
        assert_eq!(answer.0, status, "{row:?}: {}", answer.1);
        if times.last() < Some(&PROMISED) {
            return sidecar;
        }
    }
    panic!("{row:?}: from start to first answer {times:?}");
}

#[tokio::test]
async fn whatever_is_missing_at_start_the_proxy_serves_within_a_second() {
    let (_kept, hole) = black_hole().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a-file");
    std::fs::write(&file, "no database").unwrap();
    let sqlite = format!("sqlite://{}", file.display());
    let missing = format!("sqlite://{}/missing.db", folder.path().display());
    let (redis_hole, postgres_hole) = (format!("redis://{hole}/0"), format!("postgresql://u:p@{hole}/d"));
    let collector_hole = format!("http://{hole}");
    let rows: &[(&str, &str)] = &[
        ("DATABASE_URL", &sqlite),
        ("DATABASE_URL", &missing),
        ("DATABASE_URL", "postgresql://u:p@127.0.0.1:1/d"),
        ("DATABASE_URL", &postgres_hole),
        ("DATABASE_URL", "postgresql://u:p@no-such-host.invalid/d"),
        ("REDIS_URL", "redis://127.0.0.1:1/0"),
        ("REDIS_URL", &redis_hole),
        ("REDIS_URL", "redis://no-such-host.invalid/0"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://no-such-host.invalid:4317"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector_hole),
        ("SIDECAR_EXTERNAL_API__URL", "http://no-such-host.invalid/"),
    ];
    let application = format!("http://{}", echo_application().await);
    for row in rows {
        let sidecar = serves_in_time(&application, *row, 200).await;
        assert_eq!(sidecar.ask("/livez").await.0, 200, "{row:?}");
    }
}

#[tokio::test]
async fn a_data_folder_that_cannot_be_had_is_said_and_the_proxy_serves_within_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a-file").display().to_string();
    std::fs::write(&file, "no folder").unwrap();
    let taken = folder.path().join("taken").display().to_string();
    let application = echo_application().await;
    let _owner = Sidecar::start(application, &["--data-dir", &taken], &[]).await;
    let rows = [
        ("/proc/nowhere", "cannot be written"),
        (&*file, "cannot be written"),
        (&*taken, "is used by another process, expected a folder of its own (set data_dir)"),
    ];
    for (path, reason) in rows {
        let sidecar = serves_in_time(&format!("http://{application}"), ("SIDECAR_DATA_DIR", path), 200).await;
        sidecar.says(&["everything is kept in memory until the folder can be used", path, reason]).await;
        assert_eq!(sidecar.ask("/livez").await.0, 200, "{path}");
    }
}

#[tokio::test]
async fn a_second_process_on_the_same_folder_works_in_memory_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data").display().to_string();
    let application = echo_application().await;
    let mut first = Sidecar::start(application, &["--data-dir", &path], &[]).await;
    let second = Sidecar::start(application, &["--data-dir", &path], &[]).await;
    assert_eq!(get(second.proxy, "/x").await.unwrap().0, 200);
    second.says(&["everything is kept in memory", &path, "is used by another process"]).await;
    assert!(!first.log().contains("kept in memory"), "{}", first.log());
    // and takes it over from who leaves it
    first.signal("TERM").await;
    assert_eq!(first.ended().await, Some(0));
    second.says(&["the data folder is used from now on", &path]).await;
}

#[tokio::test]
async fn an_application_whose_name_has_no_address_is_a_quick_503_that_names_the_setting() {
    let sidecar = serves_in_time("http://no-such-host.invalid:8000", ("SIDECAR_PROXY__WORKERS", "1"), 503).await;
    let (_, body) = get(sidecar.proxy, "/x").await.unwrap();
    assert!(body.contains("upstream_unresolved") && body.contains("proxy.upstream"), "{body}");
    assert_eq!(sidecar.ask("/livez").await.0, 200);
    sidecar.eventually("/metrics", |_, page| page.contains(r#"error_type="upstream_unresolved""#)).await;
}

#[tokio::test]
async fn an_application_that_is_away_is_a_quick_503_and_is_found_when_it_comes() {
    let address = TcpListener::bind((own_loopback(), 0)).await.unwrap().local_addr().unwrap();
    let checks = [("SIDECAR_CHECKS__APPLICATION__PERIOD", "200ms"), ("SIDECAR_CHECKS__APPLICATION__TIMEOUT", "190ms")];
    let sidecar = Sidecar::start(address, &[], &checks).await;
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let started = Instant::now();
        let (status, body) = get(sidecar.proxy, "/x").await.unwrap();
        times.push(started.elapsed());
        assert_eq!(status, 503, "{body}");
        assert!(body.contains("upstream_refused"), "{body}");
    }
    // a wait of the sidecar's own would be in each of them, one of the machine is not
    assert!(times.iter().min() < Some(&PROMISED), "{times:?}");
    sidecar.eventually("/metrics", |_, page| page.contains(r#"error_type="upstream_refused""#)).await;
    sidecar.eventually("/health", |_, page| page.contains("Application check failed: refused")).await;
    echo_application_at(address).await;
    // at once: nobody remembers that it was away
    assert_eq!(get(sidecar.proxy, "/x").await.unwrap().0, 200);
    sidecar.eventually("/health", |_, page| page.contains("Application connection successful")).await;
}

#[tokio::test]
async fn a_client_that_has_its_answer_finds_its_request_counted() {
    let application = echo_application().await;
    let sidecar = Sidecar::start(application, &[], &[]).await;
    for sent in 1..=50_u64 {
        assert_eq!(get(sidecar.proxy, "/x").await.unwrap().0, 200);
        let (_, body) = sidecar.ask("/api/v1/monitoring/metrics").await;
        let value: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(value["request_count"], sent, "{body}");
        let (_, page) = sidecar.ask("/metrics").await;
        let counted: f64 = page
            .lines()
            .filter(|line| line.starts_with("http_server_request_duration_seconds_count"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum();
        assert_eq!(counted as u64, sent, "{page}");
    }
}

#[tokio::test]
async fn sigterm_ends_it_cleanly() {
    let application = echo_application().await;
    let mut sidecar = Sidecar::start(application, &[], &[]).await;
    assert_eq!(get(sidecar.proxy, "/x").await.unwrap().0, 200);
    sidecar.signal("TERM").await;
    assert_eq!(sidecar.ended().await, Some(0));
    assert_eq!(sidecar.line().await, None, "nothing but the addresses is printed");
}

#[tokio::test]
async fn without_the_proxy_only_the_endpoints_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let (host, application) = (own_loopback(), echo_application().await);
    let port = TcpListener::bind((host, 0)).await.unwrap().local_addr().unwrap();
    let mut command = crate::rig::command(&folder);
    command
        .args(["run", "--admin", "127.0.0.1:0", "--otlp", "http://127.0.0.1:1", "--listen", &port.to_string()])
        .args(["--upstream", &format!("http://{application}")])
        .env("SIDECAR_PROXY__ENABLED", "false");
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let stdout = child.stdout.take().unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(stdout));
    let line = timeout(crate::rig::PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
    let admin = line.strip_prefix("admin http://").expect("the first line is the admin port").parse().unwrap();
    assert_eq!(get(admin, "/readyz").await.unwrap().0, 200);
    let refused = TcpStream::connect(port).await.expect_err("nothing listens on the proxy's port");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    // whoever is not proxied is not judged
    let health: serde_json::Value = serde_json::from_str(&get(admin, "/health").await.unwrap().1).unwrap();
    let service = &health["services"]["application"];
    assert_eq!((&service["status"], &service["message"]), (&"unknown".into(), &"not configured".into()), "{health}");
    assert_ne!(health["status"], "unhealthy", "{health}");
}

#[tokio::test]
async fn a_low_soft_limit_of_open_files_is_raised_to_the_hard_one() {
    let application = echo_application().await;
    let sidecar = Sidecar::start_after("ulimit -Sn 256", application).await;
    let mut clients = Vec::new();
    for _ in 0..400 {
        clients.push(Client::connect(sidecar.proxy).await.unwrap());
    }
    // all at once: those that were there first are still there, and none was refused
    for _ in 0..2 {
        for client in &mut clients {
            client.get("/x").await.unwrap();
            assert_eq!(client.answer().await, Some((200, true)));
        }
    }
}

#[tokio::test]
async fn a_low_hard_limit_of_open_files_is_said_and_kept() {
    let application = echo_application().await;
    let sidecar = Sidecar::start_after("ulimit -n 256", application).await;
    let log = sidecar.log();
    assert!(log.contains("proxy.limits.connections") && log.contains("found=96 expected=8192"), "{log}");
    let mut clients = Vec::new();
    for _ in 0..96 {
        let mut client = Client::connect(sidecar.proxy).await.unwrap();
        client.get("/x").await.unwrap();
        assert_eq!(client.answer().await, Some((200, true)));
        clients.push(client);
    }
    let mut late = Client::connect(sidecar.proxy).await.unwrap();
    assert_eq!(late.answer().await, Some((503, false)));
    assert_eq!(sidecar.ask("/livez").await.0, 200, "descriptors are left for everything else");
}
