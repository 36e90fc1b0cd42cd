//! Endpoints cost the application nothing: counted where it would cost, at a real PostgreSQL and a real Redis.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::database_servers::Postgres;
use crate::port::Port;
use crate::rig::{PATIENCE, Sidecar, echo_application};

/// Connections at once, and requests on each.
const CLIENTS: usize = 20;
const REQUESTS: usize = 500;

/// Nothing is asked in the background while it is counted: the first round is done, and the next one is hours away.
const SETTINGS: &str = "
admin: {rate_per_peer: 1000000, rate: 1000000}
checks:
  database: {period: 10h}
  redis: {period: 10h}
  external_api: {period: 10h}
database: {period: 10h, activity_period: 10h, statistics_period: 10h, storage_period: 10h}
celery: {enabled: false}
";

struct Redis {
    server: Child,
    port: Port,
}

impl Redis {
    fn start() -> Self {
        let port = Port::reserve();
        let number = port.address().port().to_string();
        let arguments = ["--port", &number, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        let server = Command::new("redis-server").args(arguments).stdout(Stdio::null()).spawn();
        Self { server: server.expect("redis-server is on the PATH; tests/setup/debian.sh installs it"), port }
    }

    fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Calls of each command so far, but of the one that tells them.
    async fn commands(&self) -> Vec<String> {
        let mut stream = TcpStream::connect(self.address()).await.expect("Redis listens");
        stream.write_all(b"INFO commandstats\r\nQUIT\r\n").await.expect("Redis reads");
        let mut text = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut text)).await.expect("in time").expect("a text");
        let lines = text.lines().filter(|line| line.starts_with("cmdstat_"));
        let ours = |line: &&str| !line.starts_with("cmdstat_info:") && !line.starts_with("cmdstat_quit:");
        lines.filter(ours).map(|line| line.split(",usec=").next().unwrap_or_default().to_owned()).collect()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Calls of all statements of the sidecar so far, and the sessions it has opened.
async fn statements(postgres: &Postgres) -> (i64, i64) {
    let calls = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements WHERE userid = 'cf_sidecar'::regrole";
    let transactions = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'cf_sidecar'";
    (postgres.number(calls).await, postgres.number(transactions).await)
}

/// Asks for a page again and again, as fast as it comes; gives how many answers were 200.
async fn ask(admin: SocketAddr, target: &'static str) -> usize {
    let mut stream = TcpStream::connect(admin).await.expect("the port accepts");
    let request = format!("GET {target} HTTP/1.1\r\nHost: {admin}\r\n\r\n").repeat(REQUESTS - 1);
    let last = format!("GET {target} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    let (mut reader, mut writer) = stream.split();
    let send = async {
        writer.write_all(format!("{request}{last}").as_bytes()).await.expect("the port reads");
        writer.flush().await.expect("the port reads");
    };
    let mut answers = String::new();
    let read = async { reader.read_to_string(&mut answers).await.expect("the port answers") };
    timeout(PATIENCE * 3, async { tokio::join!(send, read) }).await.expect("all in time");
    answers.matches("HTTP/1.1 200 OK\r\n").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_for_the_health_cause_no_query_and_no_command() {
    let postgres = Postgres::start(&["shared_preload_libraries=pg_stat_statements"]).await;
    postgres.run("CREATE EXTENSION pg_stat_statements").await;
    let redis = Redis::start();
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("sidecar.yaml");
    std::fs::write(&file, SETTINGS).expect("a file in a new folder");
    let (file, database) = (file.display().to_string(), postgres.url("cf_sidecar"));
    let cache = format!("redis://{}/0", redis.address());
    let environment = [("DATABASE_URL", database.as_str()), ("REDIS_URL", cache.as_str())];
    let sidecar = Sidecar::start(echo_application().await, &["--config", &file], &environment).await;
    let run = |name: &str| format!("/api/v1/monitoring/checks/{name}?refresh=1");
    for name in ["database", "redis"] {
        sidecar.eventually(&run(name), |_, body| body.contains(r#""status":"healthy""#)).await;
    }
    sidecar.eventually("/status", |_, body| body.contains(r#""products":0"#)).await;
    let before = settled(&postgres, &redis).await;
    for target in ["/health", "/health?strict=1"] {
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS / 2 {
            clients.spawn(ask(sidecar.admin, target));
        }
        let mut answered = 0;
        while let Some(count) = clients.join_next().await {
            answered += count.expect("a client that ends well");
        }
        assert_eq!(answered, CLIENTS / 2 * REQUESTS, "{target}");
    }
    assert_eq!(counts(&postgres, &redis).await, before);
    // one that does ask is seen by both
    for (name, other) in [("database", "redis"), ("redis", "database")] {
        let (queries, commands) = counts(&postgres, &redis).await;
        sidecar.eventually(&run(name), |_, body| body.contains(r#""run":"made""#)).await;
        let (more_queries, more_commands) = counts(&postgres, &redis).await;
        let grown = if name == "database" { more_queries > queries } else { more_commands != commands };
        assert!(grown, "a run of {name} is not seen, so nothing is proved ({other})");
    }
}

type Counts = ((i64, i64), Vec<String>);

async fn counts(postgres: &Postgres, redis: &Redis) -> Counts {
    (statements(postgres).await, redis.commands().await)
}

/// The counts, once what was asked at the start has come to its end.
async fn settled(postgres: &Postgres, redis: &Redis) -> Counts {
    let mut last = counts(postgres, redis).await;
    let mut still = 0;
    for _ in 0..200 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let now = counts(postgres, redis).await;
        still = if now == last { still + 1 } else { 0 };
        if still == 20 {
            return last;
        }
        last = now;
    }
    panic!("the sidecar asks again and again: {last:?}");
}
