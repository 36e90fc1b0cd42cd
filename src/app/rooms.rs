//! The rooms, made and tied together: who needs what, and nothing else.
//!
//! Ports first, so that a taken one fails at once; then the data path, which needs nobody; then what stands behind.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::api;
use crate::app::addresses::Addresses;
use crate::app::data_dir::Claim;
use crate::app::descriptors;
use crate::app::live::{PublishWords, Tracing};
use crate::app::reload::{self, Origin, Reload, Takers};
use crate::app::supervisor::Supervisor;
use crate::checks::{self, Archive, Introduction, Lives, Page, Targets};
use crate::config::Config;
use crate::lease::speaker::Speaker;
use crate::lifecycle::{self, Drain, Latch, Pulse};
use crate::model::ai::{AiCall, CallSink};
use crate::model::ai_outcomes::AiOutcomes;
use crate::model::application::About;
use crate::model::catalogue::REDACTIONS;
use crate::model::incident::{IncidentSink, IncidentSource, incidents};
use crate::model::lease::Hearing;
use crate::model::route::RouteTable;
use crate::model::sample::{Sample, SampleSource};
use crate::model::task::TaskSpan;
use crate::model::trace::SpanModel;
use crate::proxy::{self, Deps, Terms, TracePolicy};
use crate::redact::{Outlet, Redactor};
use crate::tasks::Tasks;
use crate::tasks::celery::spans::SpanOut;
use crate::telemetry::intake::{self, Door, Policy};
use crate::telemetry::issues::{Issues, Sources};
use crate::telemetry::receipts::ReceiptsReader;
use crate::telemetry::resource::Resource;
use crate::telemetry::{SpanWriter, Telemetry, Upstream};
use crate::traffic::publishes::{self, PublishReader, PublishSink};
use crate::traffic::routes::Templates;
use crate::traffic::shard::Shard;
use crate::{database, egress, lease, system, tasks, telemetry, traffic};

/// Why a room could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum RoomError {
    /// The proxy's port.
    #[error(transparent)]
    Proxy(#[from] proxy::BindError),
    /// The admin port.
    #[error(transparent)]
    Admin(#[from] api::BindError),
    /// A port for the application's own telemetry.
    #[error(transparent)]
    Intake(#[from] intake::BindError),
    /// The port for calls of an AI service.
    #[error(transparent)]
    Egress(#[from] egress::BindError),
    /// The way out.
    #[error(transparent)]
    Telemetry(#[from] telemetry::DestinationError),
}

/// Handles for whoever shows what goes on.
#[derive(Clone)]
pub struct Readers {
    /// Counts, windows and failures.
    pub traffic: traffic::reader::Reader,
    /// What the application answered when it was asked to publish.
    pub published: PublishReader,
    /// The state of the export.
    pub telemetry: telemetry::Reader,
}

/// The rooms at work.
pub(super) struct Rooms {
    pub(super) supervisor: Supervisor,
    pub(super) drain_limit: Duration,
    pub(super) shutdown_limit: Duration,
    proxy: Option<proxy::Running>,
}

/// What all rooms are made from.
struct Ground {
    config: Config,
    redactor: Arc<Redactor>,
    started: Instant,
    /// The drain of the data path.
    data: Drain,
    /// The end of everything behind it.
    control: Drain,
    /// How calls of the AI service ended, as far as they pass the egress port.
    outcomes: AiOutcomes,
}

/// All that takes the finished requests of a worker.
type Sinks = ((Shard, SpanWriter), PublishSink);

/// What telemetry takes, and what tells Sentry by it when that is configured.
type WayOut = (Telemetry, Option<Arc<Issues>>);

/// Ports of the control plane, open and not yet served.
struct Ports {
    admin: api::Bound,
    /// `None` when the application's SDKs have no way in.
    intake: Option<intake::Bound>,
    /// `None` when the application calls its AI service without us.
    egress: Option<egress::Bound>,
}

/// What the others need of the data path at work.
struct DataPath {
    address: Option<SocketAddr>,
    table: watch::Sender<Arc<RouteTable>>,
    pulses: Vec<Pulse>,
    /// `None` when the proxy is switched off.
    counters: Option<Arc<proxy::Counters>>,
    /// Who takes settings while the data path is at work.
    takers: Takers,
}

impl Rooms {
    /// Binds every port, then starts every room.
    pub(super) async fn start(
        config: Config,
        origin: Option<Origin>,
        data: Drain,
        control: Drain,
    ) -> Result<(Self, Addresses, Readers), RoomError> {
        let port = config.proxy.enabled.then(|| proxy::bind(&config.proxy)).transpose()?;
        let admin = api::bind(config.admin.clone())?;
        let intake = config.telemetry.intake.as_ref().map(intake::bind).transpose()?;
        let ports = Ports { admin, intake, egress: config.egress.as_ref().map(egress::bind).transpose()? };
        let redactor = Arc::new(Redactor::new(config.secrets.expose().iter().map(String::as_str)));
        let outcomes = AiOutcomes::default();
        let ground = Ground { config, redactor, started: Instant::now(), data, control, outcomes };
        let mut takers = Takers::new(origin);
        let workers = if port.is_some() { ground.config.proxy.workers } else { 0 };
        let (way_out, writers) = ground.telemetry(workers, &mut takers)?;
        let (shards, reader) = traffic::open(&ground.config.traffic, workers, &ground.redactor);
        descriptors::raise_limit();
        let (policy, tracing) = Tracing::new(&ground.config.telemetry, way_out.0.samplers());
        takers.add(policy, |config| &config.telemetry);
        let (tuner, terms) = proxy::Tuner::new(&ground.config.proxy);
        takers.add(tuner, |config| &config.proxy);
        takers.add(way_out.0.privacy(), |config| &config.telemetry.privacy);
        let (words, in_force) = PublishWords::new(&ground.config.database);
        takers.add(words, |config| &config.database);
        let (counters, published) = publishes::open(&in_force, workers);
        let sinks = shards.into_iter().zip(writers).zip(counters).collect();
        let (running, path) = ground.serve(port, sinks, (tracing, terms));
        let path = DataPath { takers, ..path };
        let addresses = Addresses {
            proxy: path.address.map(|address| (address, ground.upstream())),
            admin: ports.admin.addresses(),
            admin_scheme: ports.admin.scheme(),
            intake: ports.intake.as_ref().map(intake::Bound::addresses).unwrap_or_default(),
            egress: ports.egress.as_ref().and_then(egress::Bound::address),
        };
        let readers = Readers { traffic: reader, published, telemetry: way_out.0.reader() };
        let supervisor = ground.supervise(way_out, ports, path, &readers);
        let rooms = Self {
            supervisor,
            drain_limit: ground.config.proxy.drain_delay + ground.config.proxy.drain_timeout,
            shutdown_limit: ground.config.telemetry.shutdown,
            proxy: running,
        };
        Ok((rooms, addresses, readers))
    }

    /// Waits for the proxy's end, and watches the rooms meanwhile.
    pub(super) async fn proxy_finished(&mut self) {
        let Some(proxy) = self.proxy.take() else { return };
        tokio::select! {
            () = proxy.finished() => {}
            () = self.supervisor.watch() => unreachable!("the rooms are watched for ever"),
        }
    }
}

impl Ground {
    /// The application, as a URL.
    fn upstream(&self) -> String {
        format!("http://{}", self.config.proxy.upstream.text())
    }

    /// Who sends, as it may leave by any door.
    fn identity(&self) -> Resource {
        Resource::new(&self.config.service, &self.config.environment).cleaned(&self.redactor)
    }

    /// The way out, what tells Sentry by it, and our own log, which takes it too.
    fn telemetry(&self, workers: usize, takers: &mut Takers) -> Result<(WayOut, Vec<SpanWriter>), RoomError> {
        let Config { proxy, telemetry, log, .. } = &self.config;
        let upstream = Upstream { host: proxy.upstream.host.clone(), port: proxy.upstream.port };
        let identity = self.identity();
        let (room, writers) = Telemetry::new(telemetry.clone(), &identity, &self.redactor, &upstream, workers)?;
        // one log for the process: whoever set one up before, as a test does, keeps it
        let issues = self.config.sentry.as_ref().zip(room.envelopes());
        let issues = issues.map(|(config, out)| Arc::new(Issues::new(config, &identity, &self.redactor, out)));
        let (subscriber, level) = room.subscriber(log, &self.redactor, issues.as_deref());
        let _ = tracing::subscriber::set_global_default(subscriber);
        takers.add(level, |config| &config.log);
        for remark in &telemetry.remarks {
            tracing::info!("{remark}");
        }
        Ok(((room, issues), writers))
    }

    /// Starts the workers.
    fn serve(
        &self,
        port: Option<proxy::Bound>,
        sinks: Vec<Sinks>,
        (tracing, terms): (watch::Receiver<TracePolicy>, watch::Receiver<Terms>),
    ) -> (Option<proxy::Running>, DataPath) {
        let (table, routes) = watch::channel(Arc::new(RouteTable::default()));
        let pulses: Vec<Pulse> = sinks.iter().map(|_| Pulse::new("proxy")).collect();
        let deps = Deps { routes, tracing, terms, drain: self.data.clone(), pulses: pulses.clone() };
        let address = port.as_ref().map(proxy::Bound::address);
        let running = port.map(|port| port.serve(deps, sinks));
        let counters = running.as_ref().map(proxy::Running::counters);
        (running, DataPath { address, table, pulses, counters, takers: Takers::default() })
    }

    /// Makes the rooms behind the data path, and starts them.
    fn supervise(
        &self,
        (telemetry, issues): WayOut,
        ports: Ports,
        mut path: DataPath,
        readers: &Readers,
    ) -> Supervisor {
        let mut rooms = Supervisor::default();
        let control = &self.control;
        let (refused, refusals) = watch::channel(None);
        let (system, usage) = system::build(&self.config.system, self.config.data_dir.clone());
        let targets = self.targets(&path, (readers, usage.clone()), refused);
        let (checks, reports) = checks::build(&self.config.checks, targets, self.redactor.clone());
        let (database, seen) = database::build(self.config.database.clone(), self.redactor.clone());
        let (sink, incidents) = issues.as_ref().map(|_| incidents()).unzip();
        let tasks = self.tasks(&telemetry, sink.clone());
        let (door, ways) =
            self.ways(&mut rooms, (&telemetry, sink.clone()), (ports.intake, ports.egress), &mut path.takers);
        path.takers.add_rooms((&checks, &database), (&system, &tasks), &ports.admin);
        let told = (Some(self.task_spans(&telemetry, door.as_deref())), sink);
        let (celery, speaker) = self.watch_celery(&mut rooms, database::samples(seen.clone()), told, &mut path.takers);
        let about = self.acquaint(&mut rooms, &mut path, refusals);
        let reloads = self.follow(&mut rooms, std::mem::take(&mut path.takers));
        let mut samples: Vec<SampleSource> = vec![
            source(&readers.traffic, traffic::reader::Reader::samples),
            source(&readers.published, PublishReader::samples),
            source(&readers.telemetry, telemetry::Reader::samples),
            system::samples(&system.tuner(), usage.clone()),
            database::samples(seen.clone()),
            checks::samples(reports.clone(), self.redactor.clone()),
            source(&tasks, Tasks::samples),
            source(&celery, tasks::celery::reader::Reader::samples),
            source(&speaker, Speaker::samples),
            source(&reloads, |reloads, out| reloads.iter().for_each(|reader| reload::samples(reader, out))),
            ports.admin.samples(),
            self.redactions(),
            rooms.restarts(),
        ];
        self.read_receipts(&mut rooms, &telemetry);
        if let Some((issues, incidents)) = issues.zip(incidents) {
            samples.push(self.report_failures(&mut rooms, issues, (readers, incidents)));
        }
        samples.extend(ways);
        samples.extend(path.counters.iter().map(|counters| source(counters, |counters, out| counters.samples(out))));
        self.turn_windows(&mut rooms, readers);
        let shown = Shown {
            reports,
            about,
            usage,
            database: seen,
            celery,
            speaker: speaker.clone(),
            reloads,
            tasks,
            samples: samples.clone(),
            desk: checks.desk(),
            control_pulse: checks.pulse(),
        };
        let served = (ports.admin, self.state(shown, path, readers));
        let archive = checks.archive();
        rooms.add("admin", again(control, served, answer));
        rooms.add("checks", again(control, checks, |room, drain| async move { room.run(drain).await }));
        rooms.add("system", again(control, system, |room, drain| async move { room.run(drain).await }));
        rooms.add("database", again(control, database, |room, drain| async move { room.run(drain).await }));
        let way_out = (telemetry.after(speaker.ahead()), speaker.exported(samples), (self.claim(), archive));
        rooms.add("telemetry", again(control, way_out, deliver));
        rooms
    }

    /// What the application tells of its tasks; those in a trace become spans.
    fn tasks(&self, telemetry: &Telemetry, incidents: Option<IncidentSink>) -> Tasks {
        let spans = telemetry.task_spans();
        let sink = Arc::new(move |span: TaskSpan| spans.push(&span));
        tasks::open(&self.config.tasks, self.redactor.clone(), Some(sink), incidents)
    }

    /// Opens the ways in and out that are switched on; gives the one in, and what both count.
    fn ways(
        &self,
        rooms: &mut Supervisor,
        (telemetry, incidents): (&Telemetry, Option<IncidentSink>),
        (intake, egress): (Option<intake::Bound>, Option<egress::Bound>),
        takers: &mut Takers,
    ) -> (Option<Arc<Door>>, Vec<SampleSource>) {
        let door = intake.map(|bound| self.take_in(rooms, (telemetry, incidents), bound));
        let egress = egress.map(|port| self.lead_out(rooms, telemetry, port, takers));
        let samples = door.iter().map(|door| source(door, |door, out| door.samples(out))).chain(egress).collect();
        (door, samples)
    }

    /// Starts what turns the windows of the traffic's counts.
    fn turn_windows(&self, rooms: &mut Supervisor, readers: &Readers) {
        let turn = |reader: Arc<_>, drain| traffic::reader::run(Clone::clone(&*reader), drain);
        rooms.add("windows", again(&self.control, readers.traffic.clone(), turn));
    }

    /// Opens the way in for the application's own telemetry.
    fn take_in(
        &self,
        rooms: &mut Supervisor,
        (telemetry, incidents): (&Telemetry, Option<IncidentSink>),
        ports: intake::Bound,
    ) -> Arc<Door> {
        let config = &self.config.telemetry;
        let policy = Policy { spans: config.spans, privacy: telemetry.privacy(), limits: config.limits };
        let door = ports.door(policy, self.identity(), self.redactor.clone(), (telemetry.intake(), incidents));
        let door = Arc::new(door);
        let serve = |room: Arc<Arc<Door>>, drain| async move { room.serve(drain).await };
        rooms.add("intake", again(&self.control, Arc::clone(&door), serve));
        door
    }

    /// Opens the way out to the AI service; gives what it counts.
    fn lead_out(
        &self,
        rooms: &mut Supervisor,
        telemetry: &Telemetry,
        port: egress::Bound,
        takers: &mut Takers,
    ) -> SampleSource {
        let config = &self.config.telemetry;
        let spans = telemetry.ai_spans();
        let sink: CallSink = Arc::new(move |call: AiCall| spans.push(&call));
        // an application that makes its own spans makes those of its calls, too
        let sink = Some(sink).filter(|_| config.spans != SpanModel::PropagateOnly);
        let door = Arc::new(port.door(telemetry.sampling(), self.redactor.clone(), (sink, self.outcomes.clone())));
        takers.add(door.tuner(), |config| &config.egress);
        let serve = |room: Arc<Arc<egress::Door>>, drain| async move { room.serve(drain).await };
        rooms.add("egress", again(&self.control, Arc::clone(&door), serve));
        Arc::new(move |out| door.samples(out))
    }

    /// Starts what tells Sentry of failures; gives what it counts.
    fn report_failures(
        &self,
        rooms: &mut Supervisor,
        issues: Arc<Issues>,
        (readers, incidents): (&Readers, IncidentSource),
    ) -> SampleSource {
        let (traffic, counted, mut seen) = (readers.traffic.clone(), Arc::clone(&issues), Vec::new());
        let sources = Sources { failures: Box::new(move || traffic.failures_since(&mut seen)), incidents };
        let tell = |room: Arc<(Arc<Issues>, Mutex<Sources>)>, drain| async move { room.0.run(&room.1, drain).await };
        rooms.add("issues", again(&self.control, (issues, Mutex::new(sources)), tell));
        Arc::new(move |out| counted.samples(out))
    }

    /// Where tasks of Celery become spans, unless an SDK in the workers tells of them at the door.
    fn task_spans(&self, telemetry: &Telemetry, door: Option<&Door>) -> SpanOut {
        let spans = telemetry.task_spans();
        let sink = Arc::new(move |span: TaskSpan| spans.push(&span));
        SpanOut { sink, sampling: telemetry.sampling(), sdk: door.map(Door::celery) }
    }

    /// Starts what watches Celery, where there is a Redis, and what decides who exports it; gives what they know.
    fn watch_celery(
        &self,
        rooms: &mut Supervisor,
        tables: SampleSource,
        told: (Option<SpanOut>, Option<IncidentSink>),
        takers: &mut Takers,
    ) -> (tasks::celery::reader::Reader, Speaker) {
        let (room, reader) = tasks::celery::build(&self.config.celery, self.redactor.clone(), told);
        let hearing = if room.is_some() { Hearing::ByMarks } else { Hearing::Off };
        let sources = vec![source(&reader, tasks::celery::reader::Reader::samples), tables];
        let (lease, speaker) = lease::build(&self.config.lease, sources, hearing, self.redactor.clone());
        if let Some(room) = room {
            takers.add(room.tuner(), |config| &config.celery);
            let listen = |room: Arc<(tasks::celery::Celery, Speaker)>, drain| async move {
                let (celery, speaker) = &*room;
                let marks = speaker.marks();
                let (conductor, last) = lifecycle::drain(); // the last mark is heard, too
                tokio::join!(celery.run(marks.as_ref(), last), async {
                    speaker.over(drain).await;
                    conductor.abort();
                });
            };
            rooms.add("celery", again(&self.control, (room, speaker.clone()), listen));
        }
        if let Some(lease) = lease {
            rooms.add("lease", again(&self.control, lease, |room, drain| async move { room.run(drain).await }));
        }
        (reader, speaker)
    }

    /// The data folder, which another process may still have.
    fn claim(&self) -> Claim {
        Claim::new(self.config.data_dir.clone())
    }

    /// Starts what asks the collector for the vendors' word, if it is asked.
    fn read_receipts(&self, rooms: &mut Supervisor, telemetry: &Telemetry) {
        if let Some(receipts) = telemetry.receipts() {
            let read = |room: Arc<Arc<ReceiptsReader>>, drain| async move { room.run(drain).await };
            rooms.add("receipts", again(&self.control, receipts, read));
        }
    }

    /// Starts what reads the configuration again, where it comes from somewhere; gives what became of that.
    fn follow(&self, rooms: &mut Supervisor, takers: Takers) -> Option<reload::Reader> {
        let (room, reader) = Reload::new(takers, self.redactor.clone())?;
        rooms.add("reload", again(&self.data, room, |room, drain| async move { room.run(drain).await }));
        Some(reader)
    }

    /// Starts what asks the application for its routes, where requests come in.
    fn learn_routes(&self, rooms: &mut Supervisor, path: &mut DataPath, begun: watch::Receiver<u64>) {
        let (config, table) = (&self.config.traffic.routes, path.table.clone());
        let routes = Templates::new(config, &self.upstream(), begun, self.redactor.clone(), table);
        if path.address.is_some() {
            path.takers.add(routes.tuner(), |config| &config.traffic.routes);
            rooms.add("routes", again(&self.control, routes, |room, drain| (*room).clone().run(drain)));
        }
    }

    /// Starts what sees the application come and asks it of itself; gives its words.
    fn acquaint(
        &self,
        rooms: &mut Supervisor,
        path: &mut DataPath,
        refusals: watch::Receiver<Option<Instant>>,
    ) -> watch::Receiver<About> {
        let page = Page::new(&self.config.checks, self.upstream());
        let (lives, begun) = Lives::new(self.config.proxy.upstream.text(), refusals);
        let (introduction, about) = Introduction::new(page.clone(), begun.clone(), self.redactor.clone());
        if path.address.is_some() {
            path.takers.add(page, |config| &config.checks);
            rooms.add("lives", again(&self.control, lives, |room, drain| async move { room.run(drain).await }));
            rooms.add("about", again(&self.control, introduction, |room, drain| async move { room.run(drain).await }));
        }
        self.learn_routes(rooms, path, begun);
        about
    }

    /// What the checks look at.
    fn targets(
        &self,
        path: &DataPath,
        (readers, usage): (&Readers, system::Reader),
        refused: watch::Sender<Option<Instant>>,
    ) -> Targets {
        let (reader, routes) = (readers.traffic.clone(), readers.traffic.clone());
        Targets {
            database: self.config.database.address.clone(),
            application: path.address.map(|_| self.config.proxy.upstream.text()),
            totals: Arc::new(move || reader.totals()),
            refused,
            calls: self.config.egress.as_ref().map(|_| self.outcomes.clone()),
            routes: Arc::new(move || routes.routes()),
            cpu: Arc::new(move || usage.borrow().recent_cpu(Instant::now())),
        }
    }

    /// What the admin port shows.
    fn state(&self, shown: Shown, path: DataPath, readers: &Readers) -> api::State {
        let export = readers.telemetry.clone();
        let listening = Latch::new("listener");
        listening.open(); // all ports are bound, or nothing would have started
        api::State {
            checks: shown.reports,
            desk: shown.desk,
            system: shown.usage,
            about: shown.about,
            database: shown.database,
            celery: shown.celery,
            standing: Arc::new(move || shown.speaker.standing()),
            reloads: shown.reloads,
            traffic: api::Traffic::from(readers.traffic.clone()),
            tasks: shown.tasks,
            samples: shown.samples,
            export: Arc::new(move || export.state()),
            latches: vec![listening],
            pulses: path.pulses.into_iter().chain([shown.control_pulse]).collect(),
            drain: self.data.clone(),
            started: self.started,
            proxy: path.address,
            upstream: self.upstream(),
            service: self.redactor.text(Outlet::Endpoint, self.config.service.name.as_bytes()).into_owned(),
        }
    }

    /// The redactor's count.
    fn redactions(&self) -> SampleSource {
        let redactor = self.redactor.clone();
        Arc::new(move |out| {
            for outlet in Outlet::ALL {
                let count = Sample::count(&REDACTIONS, redactor.redactions(outlet));
                out.push(count.with_literal("outlet", outlet.label()));
            }
        })
    }
}

impl Takers {
    /// Adds those of the control plane that hand out where settings are taken.
    fn add_rooms(
        &mut self,
        (checks, database): (&checks::Runner, &database::Database),
        (system, tasks): (&system::System, &Tasks),
        admin: &api::Bound,
    ) {
        self.add(checks.tuner(), |config| &config.checks);
        self.add(database.tuner(), |config| &config.database);
        self.add(system.tuner(), |config| &config.system);
        self.add(tasks.clone(), |config| &config.tasks);
        self.add(admin.rulebook(), |config| &config.admin);
    }
}

/// What the rooms of the control plane show.
struct Shown {
    reports: checks::Reader,
    desk: checks::Desk,
    about: watch::Receiver<About>,
    usage: system::Reader,
    database: database::Reader,
    tasks: Tasks,
    celery: tasks::celery::reader::Reader,
    speaker: Speaker,
    reloads: Option<reload::Reader>,
    samples: Vec<SampleSource>,
    control_pulse: Pulse,
}

/// A reader as a source of samples.
fn source<R: Clone + Send + Sync + 'static>(reader: &R, samples: fn(&R, &mut Vec<Sample>)) -> SampleSource {
    let reader = reader.clone();
    Arc::new(move |out| samples(&reader, out))
}

/// Answers at the admin port.
async fn answer(served: Arc<(api::Bound, api::State)>, drain: Drain) {
    served.0.serve(served.1.clone(), drain).await;
}

/// Delivers, and keeps what cannot be delivered as soon as there is a folder for it.
async fn deliver(room: Arc<(Telemetry, Vec<SampleSource>, (Claim, Archive))>, drain: Drain) {
    let (telemetry, samples, (claim, archive)) = &*room;
    let kept = async {
        let folder = claim.granted().await.path();
        telemetry.keep_in(folder);
        archive.keep_in(folder);
        pending::<()>().await; // the folder is held until the delivery has ended
    };
    tokio::select! {
        () = telemetry.run(samples, drain) => {}
        () = kept => {}
    }
}

/// Makes a room's future anew for each start.
fn again<T, R, F>(control: &Drain, room: T, run: R) -> impl Fn() -> F + use<T, R, F>
where
    R: Fn(Arc<T>, Drain) -> F,
{
    let (room, drain) = (Arc::new(room), control.clone());
    move || run(room.clone(), drain.clone())
}
