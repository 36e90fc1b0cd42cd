//! Counted exactly once: a client that behaves in every bad way keeps its own tally, and the metrics must equal it.
//!
//! What counts is what the product promises to count: a head that has come whole, or that was refused with an answer.
//! A connection that ends within a head is none. Where the order of events decides how a request ends, the client
//! waits until the application has the request, so that its tally is no guess.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex as Locked};

use fastrand::Rng;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::counting_http2::{STREAMS, Stream};
use crate::page::{self, End, Kind, Tally};
use crate::proxy_world::{Application, Client};
use crate::rig::{PATIENCE, Sidecar};
use crate::scale::{among_others, scaled, seed};

/// Clients at once.
const LANES: u64 = 16;

/// Deadlines and sizes that are met within seconds.
pub(crate) const LIMITS: [(&str, &str); 4] = [
    ("SIDECAR_PROXY__TIMEOUTS__HEADER", "2s"),
    ("SIDECAR_PROXY__TIMEOUTS__BODY_IDLE", "2s"),
    ("SIDECAR_PROXY__TIMEOUTS__FIRST_BYTE", "2s"),
    ("SIDECAR_PROXY__LIMITS__BODY", "65536"),
];

/// One thing that a client does on a connection of its own.
#[derive(Clone, Copy, Debug)]
enum Act {
    Kept,
    Pipelined,
    LastOfSeveral,
    Probed,
    Missing,
    Error,
    Uploaded,
    Refused(&'static [u8], u16, &'static str),
    TargetTooLong,
    HeadTooLarge,
    BodyTooLarge,
    ChunksTooLarge,
    BadChunk,
    AnsweredThenRefused,
    NoHead(Leaving),
    HalfHead(Leaving),
    HalfBody(Leaving),
    HalfChunk,
    GoneWhileItWorks(Leaving),
    GoneWhileItAnswers(Leaving),
    Broken(&'static str, &'static str),
    CutAnswer(&'static str),
    Socket(Leaving),
    Events,
    EventsLeft(Leaving),
    Stream(Stream),
    // those that wait for a deadline
    HeadStalls,
    BodyStalls,
    NeverAnswered,
}

/// How a client leaves.
#[derive(Clone, Copy, Debug)]
enum Leaving {
    Fin,
    Rst,
}

use Leaving::{Fin, Rst};

const QUICK: [Act; 41] = [
    Act::Kept,
    Act::Pipelined,
    Act::LastOfSeveral,
    Act::Probed,
    Act::Missing,
    Act::Error,
    Act::Uploaded,
    Act::Refused(b"GET / HTTP/1.1\r\n\r\n", 400, "malformed_request"),
    Act::Refused(b"GET / HTTP/1.1\r\nHost: h\r\nX: \0\r\n\r\n", 400, "malformed_request"),
    Act::Refused(b"GET / HTTP/1.1\nHost: h\n\n", 400, "malformed_request"),
    Act::Refused(b"\x16\x03\x01\x02\x00\x01\x00", 400, "malformed_request"),
    Act::Refused(
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
        "malformed_request",
    ),
    Act::Refused(b"CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n", 405, "method_not_allowed"),
    Act::Refused(b"TRACE / HTTP/1.1\r\nHost: h\r\n\r\n", 405, "method_not_allowed"),
    Act::Refused(b"GET / HTTP/1.1\r\nHost: h\r\nExpect: tea\r\n\r\n", 417, "expectation_failed"),
    Act::Refused(
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        501,
        "unknown_transfer_coding",
    ),
    Act::Refused(b"GET / HTTP/3.0\r\nHost: h\r\n\r\n", 505, "version_not_supported"),
    Act::TargetTooLong,
    Act::HeadTooLarge,
    Act::BodyTooLarge,
    Act::ChunksTooLarge,
    Act::BadChunk,
    Act::AnsweredThenRefused,
    Act::NoHead(Fin),
    Act::NoHead(Rst),
    Act::HalfHead(Fin),
    Act::HalfHead(Rst),
    Act::HalfBody(Fin),
    Act::HalfChunk,
    Act::GoneWhileItWorks(Fin),
    Act::GoneWhileItWorks(Rst),
    Act::GoneWhileItAnswers(Fin),
    Act::GoneWhileItAnswers(Rst),
    Act::Broken("/vanish", "upstream_broken"),
    Act::Broken("/garbage", "upstream_bad_answer"),
    Act::CutAnswer("/cut"),
    Act::CutAnswer("/cut/chunked"),
    Act::Socket(Fin),
    Act::Socket(Rst),
    Act::Events,
    Act::EventsLeft(Fin),
];

const SLOW: [Act; 5] = [Act::HalfBody(Rst), Act::HeadStalls, Act::BodyStalls, Act::NeverAnswered, Act::EventsLeft(Rst)];

/// Each quick thing once, in both protocols.
fn quick() -> Vec<Act> {
    QUICK.into_iter().chain(STREAMS.map(Act::Stream)).collect()
}

/// Clients that do all of it, and what they have done.
pub(crate) struct Chaos {
    pub(crate) application: Arc<Application>,
    pub(crate) proxy: SocketAddr,
    tally: Locked<Tally>,
    /// One request at a time waits for the application's word that it has come.
    pub(crate) turn: Mutex<()>,
}

type Done = std::io::Result<()>;

impl Chaos {
    /// Clients of this proxy.
    pub(crate) fn new(application: Arc<Application>, proxy: SocketAddr) -> Arc<Self> {
        Arc::new(Self { application, proxy, tally: Locked::default(), turn: Mutex::new(()) })
    }

    /// What has been done so far.
    pub(crate) fn tally(&self) -> Tally {
        self.tally.lock().expect("no client panics here").clone()
    }

    /// Does every quick thing once, in an order of its own.
    pub(crate) async fn round(&self, random: &mut Rng) {
        let mut acts = quick();
        random.shuffle(&mut acts);
        self.perform(&acts).await;
    }

    async fn perform(&self, acts: &[Act]) {
        for act in acts {
            self.act(*act).await.unwrap_or_else(|error| panic!("{act:?}: {error}"));
        }
    }

    fn counts(&self, kind: Kind, status: u16, error_type: &str) {
        let end: End = (kind, status, error_type.to_owned());
        *self.tally.lock().expect("no client panics here").entry(end).or_default() += 1;
    }

    /// One more that ended so.
    pub(crate) fn ordinary(&self, status: u16, error_type: &str) {
        self.counts(Kind::Ordinary, status, error_type);
    }

    async fn act(&self, act: Act) -> Done {
        if let Act::Stream(stream) = act {
            return self.stream(stream).await.map_err(std::io::Error::other);
        }
        let client = Client::connect(self.proxy).await?;
        match act {
            Act::Kept | Act::Pipelined | Act::LastOfSeveral | Act::Probed => self.several(act, client).await,
            Act::Missing => self.asks(client, "GET", "/missing", (404, "")).await,
            Act::Error => self.asks(client, "GET", "/error", (500, "500")).await,
            Act::Uploaded => self.uploads(client).await,
            Act::Refused(bytes, status, reason) => self.refused(client, bytes, (status, reason)).await,
            Act::TargetTooLong => {
                let line = format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(90_000));
                self.refused(client, line.as_bytes(), (414, "target_too_long")).await
            }
            Act::HeadTooLarge => {
                let head = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "a".repeat(90_000));
                self.refused(client, head.as_bytes(), (431, "head_too_large")).await
            }
            Act::BodyTooLarge => {
                let head = b"POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 65537\r\n\r\n";
                self.refused(client, head, (413, "body_too_large")).await
            }
            Act::ChunksTooLarge => {
                let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000)).repeat(3);
                let head = "POST /upload HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
                self.refused(client, format!("{head}{chunk}").as_bytes(), (413, "body_too_large")).await
            }
            Act::BadChunk => {
                let bytes =
                    b"POST /upload HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n-1\r\n";
                self.refused(client, bytes, (400, "malformed_request")).await
            }
            Act::AnsweredThenRefused => {
                self.ordinary(200, "");
                let bytes = b"GET /first HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
                self.answered_then(client, bytes, (400, "malformed_request")).await
            }
            Act::NoHead(leaving) => leave(client, leaving),
            Act::HalfHead(leaving) => {
                let mut client = client;
                client.send(b"GET /half HTTP/1.1\r\nHo").await?;
                leave(client, leaving)
            }
            _ => self.worse(act, client).await,
        }
    }

    /// Requests that are cut off on one side or the other, and those that outlive their head.
    async fn worse(&self, act: Act, mut client: Client) -> Done {
        match act {
            Act::HalfBody(leaving) => self.leaves_within_body(client, leaving).await,
            Act::HalfChunk => {
                client.send(b"POST /upload HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf").await?;
                self.ordinary(0, "client_gone");
                Ok(())
            }
            Act::GoneWhileItWorks(leaving) => self.gone_while_it_works(client, leaving).await,
            Act::GoneWhileItAnswers(leaving) => {
                client.get("/endless").await?;
                client.bytes(100_000).await;
                self.ordinary(200, "client_gone");
                leave(client, leaving)
            }
            // a method that is not sent again: else whether it is depends on the connection it found
            Act::Broken(path, reason) => self.asks(client, "POST", path, (502, reason)).await,
            Act::CutAnswer(path) => {
                client.get(path).await?;
                self.ordinary(200, "upstream_broken");
                assert_eq!(client.answer().await, None, "{path}: an answer that was cut off looks whole");
                Ok(())
            }
            Act::Socket(leaving) => self.socket(client, leaving).await,
            Act::Events => {
                client.get("/events").await?;
                self.counts(Kind::Stream, 200, "");
                assert_eq!(client.answer().await, Some((200, true)));
                Ok(())
            }
            Act::EventsLeft(leaving) => {
                client.get("/events/endless").await?;
                client.bytes(300).await;
                self.counts(Kind::Stream, 200, "client_gone");
                leave(client, leaving)
            }
            Act::HeadStalls => self.refused(client, b"GET /stalls HTTP/1.1\r\nHo", (408, "header_timeout")).await,
            Act::BodyStalls => {
                let bytes = b"POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nhalf";
                self.refused(client, bytes, (408, "body_timeout")).await
            }
            Act::NeverAnswered => self.asks(client, "GET", "/never", (504, "upstream_timeout")).await,
            _ => unreachable!("{act:?} has been dealt with"),
        }
    }

    /// Whole requests on one connection.
    async fn several(&self, act: Act, mut client: Client) -> Done {
        if let Act::Kept | Act::Probed = act {
            let (kind, path) = if let Act::Kept = act { (Kind::Ordinary, "/kept") } else { (Kind::Probe, "/livez") };
            for _ in 0..3 {
                client.get(path).await?;
                self.counts(kind, 200, "");
                assert_eq!(client.answer().await, Some((200, true)));
            }
            return Ok(());
        }
        // what follows a request that ends the connection is no request
        let closing = if let Act::LastOfSeveral = act { 2 } else { 5 };
        for number in 0..5 {
            let word = if number == closing - 1 { "Connection: close\r\n" } else { "" };
            client.send(format!("GET /{number} HTTP/1.1\r\nHost: h\r\n{word}\r\n").as_bytes()).await?;
        }
        for number in 0..closing {
            self.ordinary(200, "");
            assert_eq!(client.answer().await, Some((200, number < closing - 1)));
        }
        assert_eq!(client.head().await, None);
        Ok(())
    }

    async fn asks(&self, mut client: Client, method: &str, path: &str, end: (u16, &str)) -> Done {
        let length = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: h\r\n{length}\r\n").as_bytes()).await?;
        self.ordinary(end.0, end.1);
        assert_eq!(client.answer().await.map(|(status, _)| status), Some(end.0), "{method} {path}");
        Ok(())
    }

    async fn uploads(&self, mut client: Client) -> Done {
        client.send(b"POST /upload HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
        for piece in ["5\r\nhello\r\n", "1\r\n!\r\n", "0\r\n\r\n"] {
            client.send(piece.as_bytes()).await?;
        }
        self.ordinary(200, "");
        assert_eq!(client.answer().await, Some((200, true)));
        Ok(())
    }

    async fn refused(&self, mut client: Client, bytes: &[u8], end: (u16, &str)) -> Done {
        client.send(bytes).await?;
        self.ordinary(end.0, end.1);
        assert_eq!(client.answer().await, Some((end.0, false)), "{end:?}");
        Ok(())
    }

    async fn answered_then(&self, mut client: Client, bytes: &[u8], end: (u16, &str)) -> Done {
        client.send(bytes).await?;
        assert_eq!(client.answer().await, Some((200, true)));
        self.ordinary(end.0, end.1);
        assert_eq!(client.answer().await, Some((end.0, false)));
        Ok(())
    }

    /// A reset makes the kernel forget what was not read yet: before it, the client waits until it is told to go on,
    /// which it is within a second.
    async fn leaves_within_body(&self, mut client: Client, leaving: Leaving) -> Done {
        if let Rst = leaving {
            let head = b"POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n";
            client.send(head).await?;
            assert!(client.head().await.expect("a word").starts_with("HTTP/1.1 100 "));
        } else {
            client.send(b"POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nhalf").await?;
        }
        self.ordinary(0, "client_gone");
        leave(client, leaving)
    }

    async fn gone_while_it_works(&self, mut client: Client, leaving: Leaving) -> Done {
        let _turn = self.turn.lock().await;
        client.get("/hold").await?;
        self.application.held.acquire().await.expect("open").forget();
        self.ordinary(0, "client_gone");
        leave(client, leaving)?;
        let told = timeout(PATIENCE, self.application.abandoned.acquire()).await;
        told.expect("the application is told that nobody waits").expect("open").forget();
        Ok(())
    }

    async fn socket(&self, mut client: Client, leaving: Leaving) -> Done {
        let head = b"GET /socket HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        client.send(head).await?;
        let answer = client.head().await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        self.counts(Kind::Stream, 101, "");
        for _ in 0..3 {
            client.send(b"\x81\x05hello").await?;
            assert_eq!(client.bytes(7).await, b"\x81\x05hello");
        }
        leave(client, leaving)
    }
}

fn leave(client: Client, leaving: Leaving) -> Done {
    match leaving {
        Fin => drop(client),
        Rst => client.reset(),
    }
    Ok(())
}

/// Row 11: equality by kind, status and `error.type`; refusals by reason; the gauge of requests in flight back to 0.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_that_misbehave_tally_is_what_the_metrics_say() {
    let _machine = among_others().await;
    let (rounds, seed) = (scaled(6, 60), seed());
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &LIMITS).await;
    let chaos = Chaos::new(application, sidecar.proxy);
    let mut lanes = JoinSet::new();
    for lane in 0..LANES {
        let chaos = Arc::clone(&chaos);
        lanes.spawn(async move {
            let mut acts = quick().repeat(rounds);
            acts.extend(SLOW.repeat(rounds.div_ceil(10)));
            Rng::with_seed(seed.wrapping_add(lane)).shuffle(&mut acts);
            chaos.perform(&acts).await;
        });
    }
    while let Some(lane) = lanes.join_next().await {
        lane.unwrap();
    }
    let wanted = chaos.tally();
    let sent: u64 = wanted.values().sum();
    let page = page::settled(&sidecar, sent).await;
    assert_eq!(page::tally(&page), wanted, "left: the metrics, right: the clients' own tally");
    let is_refusal = |status: u16| (400..=431).contains(&status) || [501, 505].contains(&status);
    for ((_, status, reason), count) in wanted.iter().filter(|((_, status, _), _)| is_refusal(*status)) {
        if *status != 404 {
            let part = format!("error_type=\"{reason}\"");
            let refusals = page::sum(&page, "content_factory_proxy_refusals_total", &part);
            assert_eq!(refusals as u64, *count, "{reason}");
        }
    }
    println!("{sent} requests in {} ways, each counted once", wanted.len());
}
