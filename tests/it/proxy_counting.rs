//! Every request is counted exactly once, whatever its end: clients that behave in every bad way keep their own tally.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::proxy_world::{Application, Client};
use crate::rig::{PATIENCE, Sidecar};

/// Series that together hold every request; probes are not among those sent here.
const COUNTS: [&str; 2] =
    ["http_server_request_duration_seconds_count", "content_factory_http_server_stream_duration_seconds_count"];

/// Requests after the last one of a tally.
const LATER: u64 = 20;

/// The sum of a metric over its labels, with those samples that hold `label`.
fn sum(page: &str, metric: &str, label: &str) -> f64 {
    let samples = page.lines().filter(|line| line.starts_with(metric) && line.contains(label));
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn counted(page: &str) -> f64 {
    COUNTS.iter().map(|metric| sum(page, metric, "")).sum()
}

/// Waits until as many are counted as were sent and none is in flight; then nothing more may come but what is sent then.
async fn settled(sidecar: &Sidecar, sent: u64) -> String {
    let is_settled =
        |page: &str, sent| counted(page) as u64 == sent && sum(page, "http_server_active_requests", "") == 0.0;
    let page = sidecar.eventually("/metrics", |_, page| is_settled(page, sent)).await;
    // the one worker has turned over for each of these: an end that was told late, or twice, has been counted by now
    for _ in 0..LATER {
        let mut client = Client::connect(sidecar.proxy).await.expect("it listens");
        client.get("/later").await.expect("it reads");
        client.answer().await.expect("an answer");
    }
    let later = sidecar.metrics().await;
    assert_eq!(counted(&later) as u64, sent + LATER, "counted more than once: {later}");
    page
}

struct Chaos {
    application: Arc<Application>,
    proxy: std::net::SocketAddr,
    /// Requests that count: their head was complete, or they were refused with an answer.
    sent: AtomicU64,
    /// One hold at a time, so that the application's signal belongs to this client.
    hold: Mutex<()>,
}

impl Chaos {
    fn count(&self, requests: u64) {
        self.sent.fetch_add(requests, Ordering::Relaxed);
    }

    async fn act(&self, which: usize) -> std::io::Result<()> {
        let mut client = Client::connect(self.proxy).await?;
        match which {
            0 => self.kept(client).await,
            1 => self.pipelined(client).await,
            2 => self.refused(client, b"GET / HTTP/1.1\r\n\r\n", 400).await,
            3 => self.refused(client, b"GET / HTTP/1.1\r\nHost: h\r\nX: \0\r\n\r\n", 400).await,
            4 => self.refused(client, b"CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n", 405).await,
            5 => self.refused(client, format!("GET /{} HTTP/1.1\r\n", "a".repeat(90_000)).as_bytes(), 414).await,
            6 => self.refused(client, &huge_head(), 431).await,
            7 => client.send(b"GET /half HTTP/1.1\r\nHo").await,
            8 => Ok(()),
            9 => self.answered(client, "/garbage", 502).await,
            10 => self.answered(client, "/vanish", 502).await,
            11 => self.cut(client).await,
            12 => self.gone_while_it_works(client).await,
            13 => self.gone_while_it_sends(client).await,
            14 => self.gone_with_half_a_body(client).await,
            15 => self.upgraded(client).await,
            16 => self.streamed(client).await,
            17 => self.uploaded(client).await,
            _ => self.answered_then_refused(client).await,
        }
    }

    async fn kept(&self, mut client: Client) -> std::io::Result<()> {
        for _ in 0..3 {
            self.count(1);
            client.get("/kept").await?;
            assert_eq!(client.answer().await, Some((200, true)));
        }
        Ok(())
    }

    async fn pipelined(&self, mut client: Client) -> std::io::Result<()> {
        self.count(3);
        client.send(&b"GET /pipelined HTTP/1.1\r\nHost: h\r\n\r\n".repeat(3)).await?;
        for _ in 0..3 {
            assert_eq!(client.answer().await, Some((200, true)));
        }
        Ok(())
    }

    async fn refused(&self, mut client: Client, bytes: &[u8], status: u16) -> std::io::Result<()> {
        self.count(1);
        client.send(bytes).await?;
        assert_eq!(client.answer().await, Some((status, false)));
        Ok(())
    }

    async fn answered(&self, mut client: Client, path: &str, status: u16) -> std::io::Result<()> {
        self.count(1);
        client.send(format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").as_bytes()).await?;
        assert_eq!(client.answer().await.map(|(status, _)| status), Some(status));
        Ok(())
    }

    async fn answered_then_refused(&self, mut client: Client) -> std::io::Result<()> {
        self.count(2);
        client.send(b"GET /first HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await?;
        assert_eq!(client.answer().await, Some((200, true)));
        assert_eq!(client.answer().await, Some((400, false)));
        Ok(())
    }

    async fn cut(&self, mut client: Client) -> std::io::Result<()> {
        self.count(1);
        client.get("/cut").await?;
        assert_eq!(client.answer().await, None, "a body that was cut off looks complete");
        Ok(())
    }

    async fn gone_while_it_works(&self, mut client: Client) -> std::io::Result<()> {
        let _alone = self.hold.lock().await;
        self.count(1);
        client.get("/hold").await?;
        self.application.held.acquire().await.expect("open").forget();
        client.reset();
        let noticed = timeout(PATIENCE, self.application.abandoned.acquire()).await;
        noticed.expect("the application is told that nobody waits").expect("open").forget();
        Ok(())
    }

    async fn gone_while_it_sends(&self, mut client: Client) -> std::io::Result<()> {
        self.count(1);
        client.get("/endless").await?;
        client.bytes(100_000).await;
        client.reset();
        Ok(())
    }

    async fn gone_with_half_a_body(&self, mut client: Client) -> std::io::Result<()> {
        self.count(1);
        client.send(b"POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nhalf").await
    }

    async fn upgraded(&self, mut client: Client) -> std::io::Result<()> {
        self.count(1);
        let head = b"GET /socket HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        client.send(head).await?;
        let answer = client.head().await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        for _ in 0..3 {
            client.send(b"\x81\x05hello").await?;
            assert_eq!(client.bytes(7).await, b"\x81\x05hello");
        }
        Ok(())
    }

    async fn streamed(&self, mut client: Client) -> std::io::Result<()> {
        self.count(1);
        client.get("/events").await?;
        assert_eq!(client.answer().await.map(|(status, _)| status), Some(200));
        Ok(())
    }

    async fn uploaded(&self, mut client: Client) -> std::io::Result<()> {
        self.count(1);
        client.send(b"POST /upload HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
        for piece in ["5\r\nhello\r\n", "1\r\n!\r\n", "0\r\n\r\n"] {
            client.send(piece.as_bytes()).await?;
        }
        assert_eq!(client.answer().await, Some((200, true)));
        Ok(())
    }
}

fn huge_head() -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: h\r\nX-Big: {}\r\n\r\n", "a".repeat(90_000)).into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_tally_is_what_the_metrics_say() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let chaos = Chaos { application, proxy: sidecar.proxy, sent: AtomicU64::new(0), hold: Mutex::new(()) };
    let chaos = Arc::new(chaos);
    let mut clients = JoinSet::new();
    for lane in 0..8_usize {
        let chaos = Arc::clone(&chaos);
        clients.spawn(async move {
            // Each lane takes all actions in an order of its own.
            for step in 0..19 * 4 {
                let action = (step * 7 + lane * 5) % 19;
                chaos.act(action).await.unwrap_or_else(|error| panic!("action {action}: {error}"));
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    let sent = chaos.sent.load(Ordering::Relaxed);
    let page = settled(&sidecar, sent).await;
    assert!(sent > 500, "{sent}");
    let abandoned = sum(&page, COUNTS[0], r#"error_type="client_gone""#);
    assert!(abandoned >= 8.0 * 4.0, "{abandoned} counted as gone: {page}");
}

#[tokio::test]
async fn an_application_that_refuses_connections_is_counted_too() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let sidecar = Sidecar::start(closed, &[], &[]).await;
    let mut client = Client::connect(sidecar.proxy).await.unwrap();
    for _ in 0..20 {
        client.get("/x").await.unwrap();
        let (status, stays) = client.answer().await.expect("an answer");
        assert_eq!(status, 503);
        if !stays {
            client = Client::connect(sidecar.proxy).await.unwrap();
        }
    }
    let page = settled(&sidecar, 20).await;
    assert_eq!(sum(&page, COUNTS[0], r#"error_type="upstream_refused""#), 20.0, "{page}");
}
