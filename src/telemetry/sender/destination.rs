//! A receiver: what all signals that go there share. Its breaker, its compression, and what is logged about it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use crate::model::export::Volume;
use crate::model::telemetry::{ExportCondition, Signal};
use crate::redact::{Clean, Outlet, Redactor};
use crate::telemetry::config::{Compression, DestinationConfig, Transport};
use crate::telemetry::sender::answer::Answer;
use crate::telemetry::sender::breaker::{Breaker, Change, Permit};
use crate::telemetry::sender::compression::{FRAME, Form};
use crate::telemetry::sender::grpc::Grpc;
use crate::telemetry::sender::handshake;
use crate::telemetry::sender::http::Http;

/// Why a destination cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    /// For gRPC.
    #[error(
        "cannot set up OTLP over gRPC to {0}, expected authorities to trust in telemetry.tls.ca, or on the system (ca-certificates, or a file named by SSL_CERT_FILE)"
    )]
    Grpc(String, #[source] tonic::transport::Error),
    /// For HTTP.
    #[error(
        "cannot set up OTLP over HTTP to {0}, expected authorities to trust in telemetry.tls.ca, or on the system (ca-certificates, or a file named by SSL_CERT_FILE)"
    )]
    Http(String, #[source] reqwest::Error),
    /// For Sentry.
    #[error(
        "cannot set up the way to Sentry at {0}, expected authorities to trust on the system (ca-certificates, or a file named by SSL_CERT_FILE)"
    )]
    Sentry(String, #[source] reqwest::Error),
}

/// By signal; `None` when it is switched off.
pub(crate) type Destinations = [Option<Arc<Destination>>; Signal::ALL.len()];

/// One receiver.
#[derive(Debug)]
pub(crate) struct Destination {
    config: DestinationConfig,
    client: Client,
    redactor: Arc<Redactor>,
    state: Mutex<State>,
    /// The breaker's state is another one.
    changed: Notify,
    /// Requests that will be sent again, by `Signal`.
    retries: [AtomicU64; Signal::ALL.len()],
    /// What was taken, by `Signal`.
    taken: [Taken; Signal::ALL.len()],
}

/// What was taken of one signal; see `Volume`.
#[derive(Debug, Default)]
struct Taken {
    requests: AtomicU64,
    bytes: AtomicU64,
    compressed_bytes: AtomicU64,
}

#[derive(Debug)]
enum Client {
    Grpc(Box<Grpc>),
    Http(Http),
}

#[derive(Debug)]
struct State {
    breaker: Breaker,
    compression: Compression,
    last_delivered: Option<SystemTime>,
    /// What was logged last of refusals, so that a line is written once.
    last_refusal: String,
    /// What failed or was refused last, until something is taken.
    problem: Option<Clean<'static>>,
}

impl Destination {
    /// # Errors
    /// When there is nobody to trust, neither in the settings nor on the system.
    pub(crate) fn new(config: DestinationConfig, redactor: Arc<Redactor>) -> Result<Self, DestinationError> {
        let headers: HeaderMap = config.headers.expose().iter().cloned().collect();
        let name = || config.address();
        let client = match config.transport {
            Transport::Grpc => {
                let grpc = Grpc::new(&config, headers).map_err(|error| DestinationError::Grpc(name(), error))?;
                Client::Grpc(Box::new(grpc))
            }
            Transport::HttpProtobuf => {
                Client::Http(Http::new(&config, headers).map_err(|error| DestinationError::Http(name(), error))?)
            }
            Transport::Envelopes => {
                Client::Http(Http::new(&config, headers).map_err(|error| DestinationError::Sentry(name(), error))?)
            }
        };
        let compression = config.compression;
        let state = State {
            breaker: Breaker::default(),
            compression,
            last_delivered: None,
            last_refusal: String::new(),
            problem: None,
        };
        Ok(Self {
            config,
            client,
            redactor,
            state: Mutex::new(state),
            changed: Notify::new(),
            retries: Default::default(),
            taken: Default::default(),
        })
    }

    /// What it was made from.
    pub(crate) fn config(&self) -> &DestinationConfig {
        &self.config
    }

    /// How long an attempt may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.config.timeout
    }

    pub(crate) fn permit(&self) -> Permit {
        if let Client::Http(http) = &self.client
            && let Some(until) = http.held_until()
        {
            return Permit::Wait(until);
        }
        self.state().breaker.permit(Instant::now())
    }

    /// A permit to probe was not used.
    pub(crate) fn unused(&self) {
        self.state().breaker.unused();
        self.changed.notify_waiters();
    }

    /// Ends when the breaker's state changes after this call.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Sends a request; tries a simpler compression when it may be that which the receiver does not know.
    pub(crate) async fn attempt(&self, signal: Signal, form: &Form, limit: Duration) -> Answer {
        let preferred = self.state().compression;
        let mut compression = preferred;
        loop {
            let answer = match (form.framed(compression), form) {
                (Ok(framed), _) => {
                    let answer = self.exchange(signal, &framed, compression, limit).await;
                    if matches!(answer, Answer::Accepted { .. }) {
                        self.count_taken(signal, form.raw_len(), framed.len() - FRAME);
                    }
                    answer
                }
                (Err(error), Form::Raw(_)) => Answer::none(format!("cannot compress: {error}")),
                (Err(error), Form::Stored { .. }) => {
                    return Answer::Refused(format!("the disk gave it back broken: {error}"));
                }
            };
            match (answer, compression.simpler()) {
                (Answer::UnknownCoding(_), Some(simpler)) => compression = simpler,
                (Answer::UnknownCoding(reason), None) => return Answer::Refused(reason),
                (answer, _) => {
                    if compression != preferred && matches!(answer, Answer::Accepted { .. }) {
                        self.settle_on(compression);
                    }
                    return answer;
                }
            }
        }
    }

    async fn exchange(&self, signal: Signal, framed: &Bytes, compression: Compression, limit: Duration) -> Answer {
        let answer = match &self.client {
            Client::Grpc(grpc) => timeout(limit, grpc.send(signal, framed, compression)).await,
            Client::Http(http) => timeout(limit, http.send(self.config.url(signal), framed, compression)).await,
        };
        answer.unwrap_or_else(|_| {
            if let Client::Grpc(grpc) = &self.client {
                grpc.forget(); // what swallowed one request would swallow the next
            }
            Answer::none(format!("no answer within {limit:?}"))
        })
    }

    /// For good: a receiver does not learn a coding while it runs, and asking again costs a request each time.
    fn settle_on(&self, compression: Compression) {
        self.state().compression = compression;
        let coding = compression.coding().unwrap_or("none");
        info!(
            endpoint = self.config.address(),
            coding, "the receiver does not know the compression: going on with a simpler one"
        );
    }

    /// The receiver took a request.
    pub(crate) fn accepted(&self, signal: Signal, rejected: u64, message: &str) {
        let change = {
            let mut state = self.state();
            state.last_delivered = Some(SystemTime::now());
            state.problem = None;
            state.breaker.answered()
        };
        self.tell(change, "");
        if rejected > 0 || !message.is_empty() {
            self.tell_refusal(signal, &format!("{rejected} items rejected: {message}"));
        }
    }

    /// The receiver answered, and does not want this request.
    pub(crate) fn refused(&self, signal: Signal, reason: &str) {
        let change = self.state().breaker.answered();
        self.tell(change, "");
        self.tell_refusal(signal, reason);
    }

    /// No answer, none that can be read, or a request to wait.
    pub(crate) async fn failed(&self, floor: Option<Duration>, reason: &str) {
        let change = self.state().breaker.failed(Instant::now(), floor, fastrand::f64());
        self.state().problem = Some(self.clean(reason).cut(300).into_owned());
        self.changed.notify_waiters();
        let fault = match change {
            Some(Change::Opened) => handshake::fault(&self.config).await,
            _ => None,
        };
        self.tell(change, fault.as_deref().unwrap_or(reason));
    }

    /// A request of this signal goes again.
    pub(crate) fn count_retry(&self, signal: Signal) {
        self.retries[signal as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that were to be sent again, since the start.
    pub(crate) fn retries(&self, signal: Signal) -> u64 {
        self.retries[signal as usize].load(Ordering::Relaxed)
    }

    fn count_taken(&self, signal: Signal, bytes: usize, compressed_bytes: usize) {
        let taken = &self.taken[signal as usize];
        for (count, more) in [(&taken.requests, 1), (&taken.bytes, bytes), (&taken.compressed_bytes, compressed_bytes)]
        {
            count.fetch_add(more as u64, Ordering::Relaxed);
        }
    }

    /// How much of a signal the receiver took, since the start.
    pub(crate) fn volume(&self, signal: Signal) -> Volume {
        let Taken { requests, bytes, compressed_bytes } = &self.taken[signal as usize];
        let [requests, bytes, compressed_bytes] =
            [requests, bytes, compressed_bytes].map(|count| count.load(Ordering::Relaxed));
        Volume { requests, bytes, compressed_bytes }
    }

    /// Whether the receiver is only asked whether it is back.
    pub(crate) fn is_given_up(&self) -> bool {
        self.state().breaker.is_open()
    }

    /// How deliveries fare.
    pub(crate) fn condition(&self) -> ExportCondition {
        let state = self.state();
        match (state.breaker.is_failing(), state.last_delivered) {
            (true, _) => ExportCondition::Failing,
            (false, None) => ExportCondition::Idle,
            (false, Some(_)) => ExportCondition::Delivering,
        }
    }

    /// What failed or was refused last, unless something was taken since.
    pub(crate) fn problem(&self) -> Option<Clean<'static>> {
        self.state().problem.clone()
    }

    /// When the last request was taken.
    pub(crate) fn last_delivered(&self) -> Option<SystemTime> {
        self.state().last_delivered
    }

    fn tell(&self, change: Option<Change>, reason: &str) {
        let endpoint = self.config.address();
        match change {
            Some(Change::Opened) => {
                warn!(endpoint, reason = %self.clean(reason), "telemetry cannot be delivered: it waits, and is tried again");
            }
            Some(Change::Closed) => info!(endpoint, "telemetry is delivered again"),
            None => return,
        }
        self.changed.notify_waiters();
    }

    fn tell_refusal(&self, signal: Signal, reason: &str) {
        let reason = self.clean(reason).cut(300).into_owned();
        let is_new = {
            let mut state = self.state();
            let is_new = state.last_refusal != reason.as_str();
            state.last_refusal = reason.as_str().to_owned();
            state.problem = Some(reason.clone());
            is_new
        };
        if is_new {
            warn!(endpoint = self.config.address(), signal = signal.label(), %reason, "the receiver refuses telemetry");
        }
    }

    fn clean<'a>(&self, text: &'a str) -> Clean<'a> {
        self.redactor.text(Outlet::OwnLog, text.as_bytes())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the destination")
    }
}
