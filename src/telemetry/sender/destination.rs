//! A receiver: what all signals that go there share. Its breaker, its compression, and what is logged about it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::model::export::Volume;
use crate::model::telemetry::{ExportCondition, Signal};
use crate::redact::{Clean, Outlet, Redactor};
use crate::telemetry::config::{Compression, ConnectionConfig, DestinationConfig};
use crate::telemetry::resolver::Resolver;
use crate::telemetry::sealed::Form;
use crate::telemetry::sender::access::{Access, DestinationError, Look};
use crate::telemetry::sender::answer::Answer;
use crate::telemetry::sender::breaker::{Breaker, Change, Permit};
use crate::telemetry::sender::compression::Press;

/// By signal; `None` when it is switched off.
pub(crate) type Destinations = [Option<Arc<Destination>>; Signal::ALL.len()];

/// One receiver.
#[derive(Debug)]
pub(crate) struct Destination {
    config: DestinationConfig,
    access: Access,
    redactor: Arc<Redactor>,
    press: Arc<Press>,
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
    pub(crate) fn new(
        config: DestinationConfig,
        connection: ConnectionConfig,
        resolver: Resolver,
        redactor: Arc<Redactor>,
        press: Arc<Press>,
    ) -> Result<Self, DestinationError> {
        let state = State {
            breaker: Breaker::default(),
            compression: config.compression,
            last_delivered: None,
            last_refusal: String::new(),
            problem: None,
        };
        let (state, changed, retries, taken) =
            (Mutex::new(state), Notify::new(), Default::default(), Default::default());
        let access = Access::new(config.clone(), connection, resolver)?;
        Ok(Self { config, access, redactor, press, state, changed, retries, taken })
    }

    /// What it was made from.
    pub(crate) fn config(&self) -> &DestinationConfig {
        &self.config
    }

    /// In which coding the receiver gets requests, as far as it knows it.
    pub(crate) fn compression(&self) -> Compression {
        self.state().compression
    }

    /// What compresses them.
    pub(crate) fn press(&self) -> &Press {
        &self.press
    }

    /// How long an attempt may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.config.timeout
    }

    pub(crate) fn permit(&self) -> Permit {
        match self.access.current().held_until() {
            Some(until) => Permit::Wait(until),
            None => self.state().breaker.permit(Instant::now()),
        }
    }

    /// Whether nothing may be sent now, permit or not: an answer that came since may have asked for that.
    pub(crate) fn must_wait(&self) -> bool {
        self.access.current().held_until().is_some() || self.state().breaker.wait(Instant::now()).is_some()
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

    /// Sends a request as it is; tries a simpler compression when it may be that which the receiver does not know, and once more
    /// when it does not accept our token and there is a new one.
    pub(crate) async fn attempt(&self, signal: Signal, form: &Form, limit: Duration) -> Answer {
        self.access.look(Look::InTurn, &self.access.current()).await;
        let preferred = self.state().compression;
        let (mut compression, mut is_renewed) = (preferred, false);
        loop {
            let current = self.access.current();
            let answer = match form.in_coding(signal, compression, &self.press) {
                Ok(sent) => {
                    let answer = current.exchange(signal, sent.framed(), compression, limit).await;
                    if matches!(answer, Answer::Accepted { .. }) {
                        self.count_taken(signal, form.raw_len(), sent.len());
                    }
                    answer
                }
                Err(error) if form.coding() == Compression::None => Answer::none(format!("cannot compress: {error}")),
                // from the disk: what was compressed in memory can be read
                Err(error) => return Answer::Refused(format!("the disk gave it back broken: {error}")),
            };
            match (answer, compression.simpler()) {
                (Answer::UnknownCoding(_), Some(simpler)) => compression = simpler,
                (Answer::UnknownCoding(reason), None) => return Answer::Refused(reason),
                (Answer::Unauthorized(reason), _) => {
                    if std::mem::replace(&mut is_renewed, true) || !self.access.look(Look::Now, &current).await {
                        return Answer::Refused(reason);
                    }
                }
                (answer, _) => {
                    if compression != preferred && matches!(answer, Answer::Accepted { .. }) {
                        self.settle_on(compression);
                    }
                    return answer;
                }
            }
        }
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
        let problem = self.clean(reason).cut(300).into_owned();
        self.state().problem = Some(problem);
        self.changed.notify_waiters();
        let fault = match change {
            Some(Change::Opened) => self.fault().await,
            _ => None,
        };
        self.tell(change, fault.as_deref().unwrap_or(reason));
    }

    /// What is wrong with TLS to the receiver, if anything is.
    pub(crate) async fn fault(&self) -> Option<String> {
        self.access.fault().await
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

    /// Without secrets, those that came in by a file included.
    fn clean(&self, text: &str) -> Clean<'static> {
        let text = self.access.current().clean(text);
        self.redactor.text(Outlet::OwnLog, text.as_bytes()).into_owned()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the destination")
    }
}
