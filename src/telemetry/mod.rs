//! The way out: spans of requests, metrics, and the sidecar's own telemetry, to an OTLP receiver.
//!
//! Owns the queues and their accounts, the sender, and the set-up of `tracing`. Bounded in bytes: what cannot be
//! kept is dropped and counted. Nothing here ever makes a worker wait.

mod ai_span;
pub mod config;
pub mod container;
pub mod environment;
pub mod export_check;
mod hand_off;
mod headers;
pub mod intake;
pub mod issues;
pub mod limits;
pub mod logging;
mod lone_span;
mod metrics;
mod otlp;
mod own;
pub mod privacy;
mod queue;
mod reader;
mod receipt;
pub mod receipts;
pub mod resolver;
pub mod resource;
mod sealed;
mod sender;
mod span;
mod span_writer;
mod spool;
mod tail;
mod task_span;
pub mod tls;
mod wire;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, timeout_at};
use tracing::{Subscriber, info, warn};

use crate::lifecycle::{Drain, Phase};
use crate::model::lease::{Ahead, Turn};
use crate::model::sample::SampleSource;
use crate::model::telemetry::{DropReason, Signal};
use crate::model::trace::Sampling;
use crate::redact::Redactor;
use crate::telemetry::config::{Config, TailConfig};
use crate::telemetry::hand_off::{CHUNKS_PER_WORKER, Chunk, HandOff, WorkerCount};
use crate::telemetry::intake::Intake;
use crate::telemetry::issues::{Envelopes, Issues};
use crate::telemetry::logging::{LogConfig, LogTuner};
use crate::telemetry::metrics::MetricsExporter;
use crate::telemetry::metrics::interval::Reading;
use crate::telemetry::otlp::Origin;
use crate::telemetry::own::OwnTelemetry;
use crate::telemetry::privacy::{Personal, Privacy};
use crate::telemetry::queue::Queue;
use crate::telemetry::receipts::ReceiptsReader;
use crate::telemetry::resource::Resource;
use crate::telemetry::sender::compression::Press;
use crate::telemetry::sender::delivery::{Delivery, Stage};
use crate::telemetry::sender::destination::{Destination, Destinations};
use crate::telemetry::span::SpanEncoder;
use crate::telemetry::spool::Spool;
use crate::telemetry::tail::TailKeep;
use crate::wall_clock::since_epoch;

pub use crate::telemetry::ai_span::AiSpans;
pub use crate::telemetry::reader::Reader;
pub use crate::telemetry::sender::DestinationError;
pub use crate::telemetry::span::Upstream;
pub use crate::telemetry::span_writer::SpanWriter;
pub use crate::telemetry::task_span::TaskSpans;

/// Workers tick about every 100 ms, so after this time no span is left in their chunks.
const LAST_CHUNKS: Duration = Duration::from_millis(400);

/// Of what is left for the last deliveries the part that is the disk's alone: all the while it takes what nobody else does, and a disk
/// that others keep busy needs seconds for what an idle one does in milliseconds.
const SHARE_OF_THE_DISK: u32 = 3;

/// What it has in any case, even when the process is to end at once, and what a commit under way has after the deadline.
const FOR_THE_DISK: Duration = Duration::from_millis(500);

/// The SDK hands over within milliseconds, or never.
const OWN_SHUTDOWN: Duration = Duration::from_millis(500);

/// Takes another sampling, but for the decision on requests, which is the proxy's.
#[derive(Clone, Debug)]
pub struct Samplers {
    /// Whether spans say that the head keeps them.
    says_head: Arc<AtomicBool>,
    /// What the workers' tails keep.
    tail: watch::Sender<TailConfig>,
    /// Of what is no request.
    other: watch::Sender<Sampling>,
}

impl Samplers {
    fn of(config: &Config) -> Self {
        let says_head = Arc::new(AtomicBool::new(!config.sampling.keeps_all()));
        Self { says_head, tail: watch::Sender::new(config.tail), other: watch::Sender::new(config.sampling) }
    }

    /// Requests are sampled so from now on.
    pub fn sample(&self, config: &Config) {
        self.says_head.store(!config.sampling.keeps_all(), Ordering::Relaxed);
        self.tail.send_replace(config.tail);
        self.other.send_replace(config.sampling);
    }
}

/// The way out of telemetry. One for the process; `app` runs it on the control runtime.
pub struct Telemetry {
    config: Config,
    resource: Vec<u8>,
    scope: Vec<u8>,
    queues: [Arc<Queue>; Signal::ALL.len()],
    /// By signal; `None` when it is switched off.
    deliveries: [Option<Delivery>; Signal::ALL.len()],
    destinations: Destinations,
    /// `None` when nothing is kept on disk.
    spool: Option<Arc<Spool>>,
    /// `None` when the collector is not asked.
    receipts: Option<Arc<ReceiptsReader>>,
    reader: Reader,
    metrics: Mutex<MetricsExporter>,
    /// What is waited for before metrics are taken; `None` when nothing is.
    ahead: Option<Ahead>,
    samplers: Samplers,
    privacy: Privacy,
    /// `None` when nothing is exported.
    own: Option<OwnTelemetry>,
    /// Held by `run` for its whole life, so that it can be started again after a panic.
    chunks: Mutex<mpsc::Receiver<Chunk>>,
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telemetry").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Telemetry {
    /// Sets the way out up, and makes one span writer for each worker; sends nothing before `run`.
    ///
    /// # Errors
    /// When TLS is to be spoken and there is nobody to trust, neither in the settings nor on the system.
    pub fn new(
        config: Config,
        identity: &Resource,
        redactor: &Arc<Redactor>,
        upstream: &Upstream,
        workers: usize,
    ) -> Result<(Self, Vec<SpanWriter>), DestinationError> {
        let queues = Signal::ALL
            .map(|signal| Arc::new(Queue::new(signal, config.queue_bytes[signal as usize], config.request_bytes)));
        let identity = &identity.cleaned(redactor);
        let press = Arc::default();
        let destinations = destinations(&config, redactor, &press)?;
        let spool = Spool::new(&config.spool, &queues, &destinations, &press).map(Arc::new);
        let deliveries = Signal::ALL.map(|signal| {
            let destination = destinations[signal as usize].clone()?;
            let queue = Arc::clone(&queues[signal as usize]);
            Some(Delivery::new(queue, spool.clone(), destination))
        });
        let (sender, chunks) = mpsc::channel(CHUNKS_PER_WORKER * workers.max(1));
        let samplers = Samplers::of(&config);
        let privacy = Privacy::new(config.privacy);
        let (limits, personal) = (config.limits, Some(Personal::new(privacy.clone())));
        let writers = (0..workers).map(|_| {
            let count = Arc::new(WorkerCount::default());
            queues[Signal::Traces as usize].adopt(Arc::clone(&count));
            let hand_off = destinations[Signal::Traces as usize].is_some();
            let hand_off = hand_off.then(|| HandOff::new(sender.clone(), count));
            let encoder = SpanEncoder::new(upstream, Arc::clone(redactor), config.sampling);
            let encoder = encoder.within(limits, personal.clone()).saying(Arc::clone(&samplers.says_head));
            SpanWriter::new(encoder, TailKeep::new(samplers.tail.subscribe(), workers), hand_off)
        });
        let writers = writers.collect();
        let receipts = config.receipts.as_ref().map(|config| Arc::new(ReceiptsReader::new(config, redactor)));
        let seen = receipts.as_ref().map(|receipts| receipts.watch());
        let (resource, scope) = (identity.encoded(), otlp::own_scope());
        let metrics = MetricsExporter::new(config.metrics, resource.clone(), scope.clone(), reading());
        let sending = (destinations.clone(), press);
        let reader = Reader::new(queues.clone(), sending, spool.clone(), seen, metrics.series());
        let (chunks, metrics) = (Mutex::new(chunks), Mutex::new(metrics));
        let own = own_telemetry(&config, identity, &queues, redactor);
        let room = Self {
            config,
            resource,
            scope,
            queues,
            deliveries,
            destinations,
            spool,
            receipts,
            reader,
            metrics,
            ahead: None,
            samplers,
            privacy,
            own,
            chunks,
        };
        Ok((room, writers))
    }

    /// Waits for this before metrics are taken.
    #[must_use]
    pub fn after(self, ahead: Option<Ahead>) -> Self {
        Self { ahead, ..self }
    }

    /// Takes another sampling.
    #[must_use]
    pub fn samplers(&self) -> Samplers {
        self.samplers.clone()
    }

    /// The sampling in force of what is no request.
    #[must_use]
    pub fn sampling(&self) -> watch::Receiver<Sampling> {
        self.samplers.other.subscribe()
    }

    /// What may leave of people, for all that takes this way.
    #[must_use]
    pub fn privacy(&self) -> Privacy {
        self.privacy.clone()
    }

    /// Reads the accounts and the state; cheap to clone.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// Takes in whole export requests of this process; cheap to clone.
    #[must_use]
    pub fn intake(&self) -> Intake {
        Intake::new(enabled(&self.config, &self.queues))
    }

    /// The way out for tasks of the application; cheap to clone.
    #[must_use]
    pub fn task_spans(&self) -> TaskSpans {
        TaskSpans::new(self.intake(), self.resource.clone(), self.scope.clone())
    }

    /// The way out for calls of AI services; cheap to clone.
    #[must_use]
    pub fn ai_spans(&self) -> AiSpans {
        AiSpans::new(self.intake(), self.resource.clone(), self.scope.clone())
    }

    /// What reads the collector's word of the vendors, when it is asked.
    #[must_use]
    pub fn receipts(&self) -> Option<Arc<ReceiptsReader>> {
        self.receipts.clone()
    }

    /// The way in for envelopes, when they have somewhere to go; cheap to clone.
    #[must_use]
    pub fn envelopes(&self) -> Option<Envelopes> {
        self.destinations[Signal::Envelopes as usize].as_ref()?;
        Some(Envelopes::new(Arc::clone(&self.queues[Signal::Envelopes as usize])))
    }

    /// The subscriber of `tracing`: lines on standard error, the sidecar's own spans and logs into the queues, and its
    /// errors to Sentry, as far as each is configured; and what takes another level for it.
    #[must_use]
    pub fn subscriber(
        &self,
        config: &LogConfig,
        redactor: &Arc<Redactor>,
        issues: Option<&Issues>,
    ) -> (impl Subscriber + Send + Sync + 'static, LogTuner) {
        logging::on_stderr(config, redactor, self.own.as_ref(), issues)
    }

    /// What cannot be delivered waits in this folder from now on, and what an earlier process left there is delivered.
    ///
    /// The caller holds its lock until `run` has ended. Without one all waits in memory.
    pub fn keep_in(&self, folder: &Path) {
        if let Some(spool) = &self.spool {
            spool.keep_in(folder);
        }
    }

    /// Delivers until the drain begins, then what is left until its deadline, at most `telemetry.shutdown`.
    ///
    /// The drain given here should begin when the workers have ended: their last spans are still taken.
    /// What cannot be delivered by then goes to the disk, and the next process finds it; what the disk does not take is counted as
    /// dropped (`shutdown`), and never what it may have taken.
    pub async fn run(&self, sources: &[SampleSource], drain: Drain) {
        let (stage, seen) = watch::channel(Stage::Running);
        // who is woken looks, and no other
        let deliveries: FuturesUnordered<_> =
            Signal::ALL.map(|signal| self.deliver(signal, seen.clone())).into_iter().collect();
        let mut deliveries = Box::pin(deliveries.collect::<()>());
        let mut keeping = Box::pin(self.keep(seen.clone()));
        let deadline = tokio::select! {
            deadline = self.produce(sources, drain) => deadline,
            // neither ends before it is told to
            _ = async { tokio::join!(&mut deliveries, &mut keeping) } => return,
        };
        stage.send_replace(Stage::Finishing);
        let has_disk = self.spool.as_ref().is_some_and(|spool| spool.has_place());
        let left = deadline.saturating_duration_since(Instant::now());
        let reserve = if has_disk { (left / SHARE_OF_THE_DISK).max(FOR_THE_DISK) } else { Duration::ZERO };
        tokio::select! {
            () = &mut deliveries => {}
            () = &mut keeping => {}
            () = tokio::time::sleep_until(deadline.checked_sub(reserve).unwrap_or(deadline)) => {}
        }
        drop(deliveries); // what was on its way waits again
        self.queues.iter().for_each(|queue| queue.close());
        stage.send_replace(Stage::Leaving);
        let deadline = deadline.max(Instant::now() + FOR_THE_DISK);
        if timeout_at(deadline, keeping).await.is_err() {
            warn!("the disk did not take what was left of telemetry in time");
        }
        if let Some(spool) = &self.spool {
            spool.last_word(deadline.max(Instant::now() + FOR_THE_DISK)).await;
        }
        self.leave();
    }

    /// Keeps on disk what must not be lost, and all that is left once nothing is delivered any more.
    async fn keep(&self, mut stage: watch::Receiver<Stage>) {
        match &self.spool {
            Some(spool) => spool.run(stage).await,
            None => drop(stage.wait_for(|stage| *stage == Stage::Leaving).await),
        }
    }

    /// Says what became of what is left.
    fn leave(&self) {
        for queue in &self.queues {
            let (signal, on_disk) = (queue.signal().label(), queue.on_disk().0);
            if on_disk > 0 {
                info!(signal, items = on_disk, "telemetry was left at the end: the next start delivers it");
            }
            let items = queue.drop_waiting(DropReason::Shutdown);
            if items > 0 {
                warn!(signal, items, "telemetry was left at the end, and is dropped");
            }
            let items = queue.on_its_way();
            if items > 0 {
                warn!(
                    signal,
                    items, "the disk does not say whether it has what was left: the next start delivers it if so"
                );
            }
        }
    }

    async fn deliver(&self, signal: Signal, mut stage: watch::Receiver<Stage>) {
        match &self.deliveries[signal as usize] {
            Some(delivery) => delivery.run(stage).await,
            None => drop(stage.wait_for(|stage| *stage != Stage::Running).await),
        }
    }

    /// Fills the queues until the drain begins; then takes what is left, and returns the deadline of its delivery.
    async fn produce(&self, sources: &[SampleSource], mut drain: Drain) -> Instant {
        let mut chunks = self.chunks.lock().await;
        let mut metrics = self.metrics.lock().await;
        let interval = self.config.metrics.interval;
        let mut export = tokio::time::interval_at(Instant::now() + interval, interval);
        export.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let phase = loop {
            // chunks do not wait for what is waited for
            let ready = async {
                export.tick().await;
                self.wait_for(Turn::Next).await;
            };
            tokio::pin!(ready);
            let phase = loop {
                tokio::select! {
                    Some(chunk) = chunks.recv() => self.take_over(chunk),
                    () = &mut ready => break None,
                    phase = drain.begun() => break Some(phase),
                }
            };
            match phase {
                None => self.export_metrics(&mut metrics, sources),
                Some(phase) => break phase,
            }
        };
        let now = Instant::now();
        let deadline = match phase {
            Phase::Draining { deadline } => deadline.min(now + self.config.shutdown),
            Phase::Running => now + self.config.shutdown,
            Phase::Aborting => now,
        };
        let limit = deadline.saturating_duration_since(now);
        info!(limit_seconds = limit.as_secs_f64(), "delivering what is left of telemetry");
        while let Ok(Some(chunk)) = timeout_at(deadline.min(now + LAST_CHUNKS), chunks.recv()).await {
            self.take_over(chunk);
        }
        self.stop_own_telemetry(deadline).await;
        let _ = timeout_at(deadline, self.wait_for(Turn::Last)).await;
        self.export_metrics(&mut metrics, sources);
        deadline
    }

    async fn wait_for(&self, turn: Turn) {
        if let Some(ahead) = &self.ahead {
            ahead(turn).await;
        }
    }

    /// Takes what the SDK still holds; its shutdown blocks, so it has a thread of its own.
    async fn stop_own_telemetry(&self, deadline: Instant) {
        let Some(own) = self.own.clone() else { return };
        let stopped = tokio::task::spawn_blocking(move || own.shutdown(OWN_SHUTDOWN));
        if timeout_at(deadline.min(Instant::now() + 2 * OWN_SHUTDOWN), stopped).await.is_err() {
            warn!("the sidecar's own last spans and logs may be lost");
        }
    }

    fn export_metrics(&self, exporter: &mut MetricsExporter, sources: &[SampleSource]) {
        if self.deliveries[Signal::Metrics as usize].is_none() {
            return;
        }
        if let Some(request) = exporter.export(sources, reading()) {
            self.queues[Signal::Metrics as usize].push(request.into());
        }
    }

    fn take_over(&self, chunk: Chunk) {
        let origin = Origin { resource: &self.resource, scope: &self.scope };
        self.queues[Signal::Traces as usize].push_handed_over(&origin, &chunk);
        chunk.give_back();
    }
}

/// The queues of the signals that are exported.
fn enabled(config: &Config, queues: &[Arc<Queue>; Signal::ALL.len()]) -> [Option<Arc<Queue>>; Signal::ALL.len()] {
    Signal::ALL.map(|signal| {
        config.destinations[signal as usize].as_ref()?;
        Some(Arc::clone(&queues[signal as usize]))
    })
}

/// The providers behind `tracing`, unless neither spans nor logs are exported.
fn own_telemetry(
    config: &Config,
    identity: &Resource,
    queues: &[Arc<Queue>; Signal::ALL.len()],
    redactor: &Arc<Redactor>,
) -> Option<OwnTelemetry> {
    let queues = enabled(config, queues);
    if queues[Signal::Traces as usize].is_none() && queues[Signal::Logs as usize].is_none() {
        return None;
    }
    let intake = Intake::new(queues);
    OwnTelemetry::new(&identity.of_the_sidecar(), &intake, redactor, config.limits).ok()
}

/// The time of now.
fn reading() -> Reading {
    let since = since_epoch();
    Reading { at: Instant::now(), unix_nanos: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX) }
}

/// One destination for all signals that go to the same place in the same way.
fn destinations(
    config: &Config,
    redactor: &Arc<Redactor>,
    press: &Arc<Press>,
) -> Result<Destinations, DestinationError> {
    let mut made = Destinations::default();
    for signal in Signal::ALL {
        let Some(wanted) = &config.destinations[signal as usize] else { continue };
        let known = made.iter().flatten().find(|known| known.config() == wanted).cloned();
        made[signal as usize] = Some(match known {
            Some(known) => known,
            None => {
                let (connection, resolver) = (config.connection, config.resolver.clone());
                let (redactor, press) = (Arc::clone(redactor), Arc::clone(press));
                Arc::new(Destination::new(wanted.clone(), connection, resolver, redactor, press)?)
            }
        });
    }
    Ok(made)
}
