//! The same of clients of HTTP/2: a request is a stream, and counts like one of HTTP/1.1; what is no request counts as an
//! error that its client was told.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use fastrand::Rng;
use h2::RecvStream;
use http::Request;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::counting::{Chaos, LIMITS};
use crate::grpc_world::{self, call};
use crate::h2_fate::{CALM, Fate, GET};
use crate::h2_world::{Answer, GOAWAY, PING, Raw, ask, connect, encode, open, push, read, request, send};
use crate::page::{self, Kind, Tally};
use crate::rig::{PATIENCE, Sidecar};
use crate::scale::{among_others, scaled, seed};

/// One thing that a client of HTTP/2 does on a connection of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stream {
    Answered,
    Uploaded,
    Failed,
    Refused,
    ListTooLong,
    Malformed,
    Reset,
    ResetWhileItAnswers,
    Left,
    Cut,
    CutAnswer,
    Flooding,
}

/// All of it.
pub(crate) const STREAMS: [Stream; 12] = [
    Stream::Answered,
    Stream::Uploaded,
    Stream::Failed,
    Stream::Refused,
    Stream::ListTooLong,
    Stream::Malformed,
    Stream::Reset,
    Stream::ResetWhileItAnswers,
    Stream::Left,
    Stream::Cut,
    Stream::CutAnswer,
    Stream::Flooding,
];

impl Chaos {
    /// Does one of them.
    pub(crate) async fn stream(&self, stream: Stream) -> Result<(), h2::Error> {
        match stream {
            Stream::Answered => {
                let client = connect(self.proxy).await?;
                for _ in 0..3 {
                    self.ordinary(200, "");
                    assert_eq!(ask(&client, request("GET", "/stream")).await?.status, 200);
                }
            }
            Stream::Uploaded => {
                let (answer, mut body) = open(&connect(self.proxy).await?, request("POST", "/upload")).await?;
                push(&mut body, Bytes::from_static(b"hello")).await?;
                body.send_data(Bytes::new(), true)?;
                self.ordinary(200, "");
                assert_eq!(read(answer).await?.status, 200);
            }
            Stream::Failed => {
                self.ordinary(502, "upstream_broken");
                assert_eq!(ask(&connect(self.proxy).await?, request("POST", "/vanish")).await?.status, 502);
            }
            Stream::Refused | Stream::ListTooLong | Stream::Malformed | Stream::Left => self.by_hand(stream).await,
            Stream::Reset | Stream::Cut | Stream::Flooding => self.gives_up(stream).await?,
            Stream::ResetWhileItAnswers => {
                let client = connect(self.proxy).await?;
                let mut body = begun(&client, request("GET", "/endless")).await?;
                take(&mut body, 100_000).await?;
                self.ordinary(200, "client_gone");
                drop(body);
            }
            Stream::CutAnswer => {
                self.ordinary(200, "upstream_broken");
                let error =
                    ask(&connect(self.proxy).await?, request("GET", "/cut")).await.expect_err("no whole answer");
                assert!(error.is_reset(), "{error}");
            }
        }
        Ok(())
    }

    /// What no library sends.
    async fn by_hand(&self, stream: Stream) {
        let mut raw = Raw::greet(self.proxy).await;
        let with = |name: &'static str, value: &'static str| [&GET[..], &[(name, value)]].concat();
        match stream {
            Stream::Refused => {
                self.ordinary(400, "malformed_request");
                raw.asks(1, &with("host", "other.example")).await;
                assert_eq!(raw.fate(1).await, Fate::answer(400, "malformed_request"));
            }
            Stream::ListTooLong => {
                let long: Vec<(String, String)> =
                    (0..17).map(|number| (format!("x-{number}"), "x".repeat(120))).collect();
                let long: Vec<(&str, &str)> =
                    long.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                let fields = [&GET[..], &long.repeat(7)].concat();
                self.ordinary(431, "head_too_large");
                raw.asks(1, &fields).await;
                assert_eq!(raw.fate(1).await, Fate::answer(431, ""));
            }
            // no request: an error of the stream
            Stream::Malformed => {
                raw.asks(1, &with("connection", "close")).await;
                assert_eq!(raw.fate(1).await, Fate::Reset("protocol_error"));
            }
            _ => {
                raw.asks(1, &GET).await;
                raw.frame((GOAWAY, 0), 0, &[0; 8]).await;
                self.ordinary(200, "");
                assert_eq!(raw.fate(1).await, Fate::answer(200, ""));
            }
        }
    }

    /// The application has the request when its client gives it up, alone or with its connection.
    async fn gives_up(&self, stream: Stream) -> Result<(), h2::Error> {
        let _turn = self.turn.lock().await;
        let mut raw = Raw::greet(self.proxy).await;
        raw.asks(1, &[GET[0], GET[1], (":path", "/hold"), GET[3]]).await;
        timeout(PATIENCE, self.application.held.acquire()).await.expect("it arrives").expect("open").forget();
        self.ordinary(0, "client_gone");
        match stream {
            Stream::Reset => raw.frame((crate::h2_world::RST_STREAM, 0), 1, &[0, 0, 0, 8]).await,
            Stream::Flooding => {
                raw.bytes(&encode((PING, 0), 0, b"12345678").repeat(900)).await;
                assert_eq!(raw.farewell().await, CALM);
            }
            _ => {}
        }
        if !matches!(stream, Stream::Reset) {
            drop(raw);
        }
        let told = timeout(PATIENCE, self.application.abandoned.acquire()).await;
        told.expect("the application is told that nobody waits").expect("open").forget();
        Ok(())
    }
}

/// The body of an answer that has begun.
async fn begun(client: &h2::client::SendRequest<Bytes>, request: Request<()>) -> Result<RecvStream, h2::Error> {
    let answer = send(client, request).await?;
    Ok(timeout(PATIENCE, answer).await.expect("an answer in time")?.into_body())
}

/// Takes at least so many bytes of it.
async fn take(body: &mut RecvStream, count: usize) -> Result<(), h2::Error> {
    let mut taken = 0;
    while taken < count {
        let piece = timeout(PATIENCE, body.data()).await.expect("more in time").expect("more")?;
        body.flow_control().release_capacity(piece.len())?;
        taken += piece.len();
    }
    Ok(())
}

/// Callers of gRPC.
struct Callers {
    application: Arc<grpc_world::Application>,
    sidecar: Sidecar,
    tally: std::sync::Mutex<Tally>,
    turn: Mutex<()>,
}

/// One call.
#[derive(Clone, Copy, Debug)]
enum Call {
    Echoed,
    Bare,
    CancelledBefore,
    CancelledWithin,
    ResetByTheApplication,
}

const CALLS: [Call; 5] =
    [Call::Echoed, Call::Bare, Call::CancelledBefore, Call::CancelledWithin, Call::ResetByTheApplication];

impl Callers {
    fn counts(&self, status: u16, error_type: &str) {
        let mut tally = self.tally.lock().expect("no client panics here");
        *tally.entry((Kind::Ordinary, status, error_type.to_owned())).or_default() += 1;
    }

    async fn call(&self, kind: Call) -> Result<(), h2::Error> {
        let client = connect(self.sidecar.proxy).await?;
        match kind {
            Call::Echoed => {
                let (answer, mut body) = open(&client, call("/echo")).await?;
                body.send_data(Bytes::from_static(b"hello"), true)?;
                self.counts(200, "");
                let answer: Answer = read(answer).await?;
                assert_eq!((answer.body.as_slice(), answer.trailers.is_some()), (&b"hello"[..], true));
            }
            Call::Bare => {
                self.counts(200, "");
                assert_eq!(ask(&client, call("/bare")).await?.headers["grpc-status"], "5");
            }
            Call::CancelledBefore | Call::CancelledWithin => {
                let _turn = self.turn.lock().await;
                let is_within = matches!(kind, Call::CancelledWithin);
                let answer = send(&client, call(if is_within { "/open" } else { "/hold" })).await?;
                self.application.held.acquire().await.expect("open").forget();
                self.counts(if is_within { 200 } else { 0 }, "client_gone");
                // dropped, it is cancelled by the library
                if is_within {
                    let mut body = timeout(PATIENCE, answer).await.expect("a head in time")?.into_body();
                    take(&mut body, 1).await?;
                } else {
                    drop(answer);
                }
                let told = timeout(PATIENCE, self.application.cancelled.acquire()).await;
                let Ok(told) = told else {
                    let connections = self.application.connections.load(Ordering::SeqCst);
                    let page = self.sidecar.metrics().await;
                    panic!("{kind:?}: the application, with {connections} connections so far, is not told: {page}");
                };
                told.expect("open").forget();
            }
            Call::ResetByTheApplication => {
                self.counts(200, "upstream_broken");
                // whether its head is sent before is a race within the application: a break in either form counts alike
                match ask(&client, call("/reset/2")).await {
                    Ok(answer) => assert_eq!(answer.headers["grpc-status"], "14"),
                    Err(error) => assert!(error.is_reset(), "{error}"),
                }
            }
        }
        Ok(())
    }
}

/// Row 11 for gRPC, over HTTP/2 on both sides: calls that end well, that are cancelled on either side of their head, and that
/// the application breaks off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_callers_of_grpc_tally_is_what_the_metrics_say() {
    let _machine = among_others().await;
    let (rounds, seed) = (scaled(6, 60), seed());
    let application = grpc_world::Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &LIMITS).await;
    let callers = Callers { application, sidecar, tally: std::sync::Mutex::default(), turn: Mutex::new(()) };
    let callers = Arc::new(callers);
    let mut lanes = JoinSet::new();
    for lane in 0..8 {
        let callers = Arc::clone(&callers);
        lanes.spawn(async move {
            let mut calls = CALLS.repeat(rounds);
            Rng::with_seed(seed.wrapping_add(lane)).shuffle(&mut calls);
            for call in calls {
                callers.call(call).await.unwrap_or_else(|error| panic!("{call:?}: {error}"));
            }
        });
    }
    while let Some(lane) = lanes.join_next().await {
        lane.unwrap();
    }
    let wanted = callers.tally.lock().expect("no client panics here").clone();
    let page = page::settled(&callers.sidecar, wanted.values().sum()).await;
    assert_eq!(page::tally(&page), wanted, "left: the metrics, right: the callers' own tally");
}

/// Calls at once that are broken off.
const LANES: u64 = 40;

/// Row 11 for gRPC: what is asked renews an application's credit, so one that breaks off call after call is not taken for one
/// that floods, which would cost all others their connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_breaks_off_call_after_call_keeps_its_connection() {
    let _machine = among_others().await;
    let calls = scaled(1_000, 10_000);
    let application = grpc_world::Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let client = connect(sidecar.proxy).await.unwrap();
    let open = begun(&client, call("/open")).await.unwrap();
    application.held.acquire().await.expect("open").forget();
    let mut lanes = JoinSet::new();
    for _ in 0..LANES {
        let client = client.clone();
        lanes.spawn(async move {
            for _ in 0..calls / LANES {
                match ask(&client, call("/reset/2")).await {
                    Ok(answer) => assert_eq!(answer.headers["grpc-status"], "14"),
                    Err(error) => assert!(error.is_reset(), "{error}"),
                }
            }
        });
    }
    lanes.join_all().await;
    drop(open);
    let told = timeout(PATIENCE, application.cancelled.acquire()).await;
    told.expect("the call beside them was still there").expect("open").forget();
    let page = page::settled(&sidecar, calls + 1).await;
    let broken = |reason: &str| (Kind::Ordinary, 200, reason.to_owned());
    assert_eq!(page::tally(&page), [(broken("upstream_broken"), calls), (broken("client_gone"), 1)].into());
    assert_eq!(page::sum(&page, "content_factory_proxy_upstream_connections_total", ""), 1.0);
}
