//! What the application's database tells of itself, and the rows of the business, by two connections of our own.
//!
//! Read-only, in the background, with a limit on every statement: the application never waits for us. Each part has its
//! turns, a deadline, and an age; a turn that is due while another one of its connection is under way is skipped. One
//! connection looks at what goes on, so that nothing slow is in its way; the other one reads all that may be slow.
//! A server that is away, slow or hostile changes the readings only. Owns the two connections and the sums of counters.

mod activity;
mod business;
mod chains;
pub mod config;
mod counts;
mod deltas;
mod fault;
mod literals;
mod server;
mod session;
mod statements;
mod statistics;
mod texts;
mod top;

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};

use crate::lifecycle::Drain;
use crate::model::database::business::Business;
use crate::model::database::samples::samples as samples_of;
use crate::model::database::statements::StatementSource;
use crate::model::database::values::{Activity, Server, Storage, Visibility};
use crate::model::database::{DatabaseKind, DatabaseState, Periods};
use crate::model::dsn::{DatabaseAddress, SqliteFile};
use crate::model::reload::Retune;
use crate::model::sample::SampleSource;
use crate::model::trouble::Trouble;
use crate::model::usage::BusinessRows;
use crate::redact::{Outlet, Redactor};

use business::Asker;
use config::Config;
use deltas::Meter;
use fault::Fault;
use session::Session;

/// Reads what was read last, from memory.
pub type Reader = watch::Receiver<DatabaseState>;

/// Reads, and keeps what was read last.
pub struct Database {
    settings: Tuner,
    last: watch::Sender<DatabaseState>,
    redactor: Arc<Redactor>,
    /// What is remembered of the server, also over a change of settings.
    memory: tokio::sync::Mutex<Memory>,
}

/// Takes other settings while the room reads.
#[derive(Clone)]
pub struct Tuner(watch::Sender<Config>);

impl Retune for Tuner {
    type Config = Config;
    const LIVE: &'static [&'static str] = &[
        "database.period",
        "database.activity_period",
        "database.statistics_period",
        "database.storage_period",
        "database.statements",
        "database.business.",
    ];

    fn retune(&self, config: &Config) -> Result<(), String> {
        self.0.send_modify(|used| *used = Config { address: used.address.clone(), ..config.clone() });
        Ok(())
    }
}

/// The reading by these settings.
struct Work<'r> {
    config: Config,
    last: &'r watch::Sender<DatabaseState>,
    redactor: &'r Redactor,
    memory: &'r tokio::sync::Mutex<Memory>,
}

/// What is remembered from turn to turn.
struct Memory {
    started: Instant,
    meter: Meter,
    statements: statements::Memory,
    asker: Asker,
}

/// All statements of a turn together; each has its own, shorter limit.
const TURN_LIMIT: Duration = Duration::from_secs(10);

/// Makes the room; nothing is known until it is read.
#[must_use]
pub fn build(config: Config, redactor: Arc<Redactor>) -> (Database, Reader) {
    let kind = match &config.address {
        Some(DatabaseAddress::Postgres(_)) => DatabaseKind::Postgres,
        Some(DatabaseAddress::Sqlite(_)) => DatabaseKind::Sqlite,
        Some(DatabaseAddress::InProcess) => DatabaseKind::InProcess,
        None => DatabaseKind::None,
    };
    let (last, reader) = watch::channel(DatabaseState::new(kind, &paces(kind, &config)));
    let memory = tokio::sync::Mutex::new(Memory::new(&config));
    (Database { settings: Tuner(watch::Sender::new(config)), last, redactor, memory }, reader)
}

/// The periods of the readings: a file is looked into in one turn.
fn paces(kind: DatabaseKind, config: &Config) -> Periods {
    let Config { periods, .. } = config;
    if kind == DatabaseKind::Sqlite { Periods { storage: periods.rows, ..*periods } } else { *periods }
}

/// The samples of what was read last.
#[must_use]
pub fn samples(reader: Reader) -> SampleSource {
    Arc::new(move |out| samples_of(&reader.borrow(), Instant::now(), out))
}

impl Database {
    /// Reads until the process drains. May be called again after a panic.
    pub async fn run(&self, mut drain: Drain) {
        let mut settings = self.settings.0.subscribe();
        loop {
            let config = settings.borrow_and_update().clone();
            self.last.send_modify(|state| state.pace(&paces(state.kind, &config)));
            let (last, redactor, memory) = (&self.last, &*self.redactor, &self.memory);
            let work = Work { config, last, redactor, memory };
            tokio::select! {
                () = work.read() => {}
                _ = settings.changed() => {}
                _ = drain.begun() => return,
            }
        }
    }

    /// Takes other settings.
    #[must_use]
    pub fn tuner(&self) -> Tuner {
        self.settings.clone()
    }
}

impl Work<'_> {
    async fn read(&self) {
        match &self.config.address {
            Some(DatabaseAddress::Postgres(options)) => {
                tokio::join!(self.watch_activity(options), self.watch_the_rest(options));
            }
            Some(DatabaseAddress::Sqlite(file)) => self.watch_file(file).await,
            Some(DatabaseAddress::InProcess) | None => std::future::pending().await,
        }
    }

    /// The quick part, over a connection of its own.
    async fn watch_activity(&self, options: &PgConnectOptions) {
        let (mut session, mut turns) = (Session::new(options, self.last), turns(self.config.periods.activity));
        loop {
            turns.tick().await;
            let seen = self.turn("activity", self.look(&mut session)).await;
            let (server, activity) = match seen {
                Ok((server, activity)) => (Ok(server), activity),
                Err(trouble) => (Err(trouble), Err(trouble)),
            };
            self.tell_visibility(server.as_ref().ok());
            self.last.send_modify(|state| {
                state.server.turn(server, Instant::now());
                state.activity.turn(activity, Instant::now());
            });
        }
    }

    /// The server, and what goes on at it: that may fail alone.
    async fn look(&self, session: &mut Session) -> Result<(Server, Result<Activity, Trouble>), Fault> {
        let (version, server) = server::read(session, self.redactor).await?;
        match activity::read(session, version, self.redactor).await {
            Ok(activity) => Ok((server, Ok(activity))),
            Err(fault) if fault.is_answer => {
                self.log("activity", &fault);
                Ok((server, Err(fault.trouble)))
            }
            Err(fault) => Err(fault),
        }
    }

    /// Whatever may be slow, one after the other over one connection.
    async fn watch_the_rest(&self, options: &PgConnectOptions) {
        let (mut session, mut memory) = (Session::new(options, self.last), self.memory.lock().await);
        memory.asker = Asker::new(&self.config.questions);
        let memory = &mut *memory;
        let periods = &self.config.periods;
        let [mut rows, mut statistics, mut storage] = [periods.rows, periods.statistics, periods.storage].map(turns);
        loop {
            tokio::select! {
                _ = rows.tick() => self.read_rows(&mut session, memory).await,
                _ = statistics.tick() => {
                    let read = statistics::read(&mut session, &mut memory.meter, self.redactor, memory.started);
                    let read = self.turn("statistics", read).await;
                    self.last.send_modify(|state| state.statistics.turn(read, Instant::now()));
                    self.read_statements(&mut session, memory).await;
                }
                _ = storage.tick() => {
                    let read = self.turn("storage", statistics::storage(&mut session)).await;
                    self.last.send_modify(|state| state.storage.turn(read, Instant::now()));
                }
            }
        }
    }

    async fn read_rows(&self, session: &mut Session, memory: &mut Memory) {
        let counted = self.turn("rows", counts::in_postgres(session)).await;
        let business = match &counted {
            Ok(tables) => {
                let asked = memory.asker.in_postgres(session, tables.readable, self.redactor);
                self.turn("business", asked).await
            }
            Err(trouble) => Err(*trouble),
        };
        self.last.send_modify(|state| {
            state.rows.turn(counted.map(|tables| tables.rows), Instant::now());
            state.business.turn(business, Instant::now());
        });
    }

    async fn read_statements(&self, session: &mut Session, memory: &mut Memory) {
        let read = if self.config.statements {
            let at = memory.started.elapsed().as_secs_f64();
            self.turn("statements", statements::read(session, &mut memory.statements, self.redactor, at)).await
        } else {
            Ok(statements::none(StatementSource::Off))
        };
        self.last.send_modify(|state| state.statements.turn(read, Instant::now()));
    }

    async fn watch_file(&self, file: &SqliteFile) {
        let (mut turns, mut memory) = (turns(self.config.periods.rows), self.memory.lock().await);
        memory.asker = Asker::new(&self.config.questions);
        loop {
            turns.tick().await;
            let read = self.turn("file", self.look_into(file, &mut memory.asker)).await;
            let now = Instant::now();
            self.last.send_modify(|state| match read {
                Ok((rows, business, storage)) => {
                    state.rows.turn(Ok(rows), now);
                    state.business.turn(Ok(business), now);
                    state.storage.turn(Ok(storage), now);
                }
                Err(trouble) => {
                    state.rows.turn(Err(trouble), now);
                    state.business.turn(Err(trouble), now);
                    state.storage.turn(Err(trouble), now);
                }
            });
        }
    }

    /// A file that was replaced is opened as it is now: nothing is kept between two turns.
    async fn look_into(
        &self,
        file: &SqliteFile,
        asker: &mut Asker,
    ) -> Result<(BusinessRows, Business, Storage), Fault> {
        let mut connection = SqliteConnection::connect_with(&file.options()).await?;
        let tables = counts::in_sqlite(&mut connection).await?;
        let business = asker.in_sqlite(&mut connection, tables.readable, self.redactor).await?;
        let storage = counts::size_of_sqlite(&mut connection).await?;
        connection.close().await?;
        Ok((tables.rows, business, storage))
    }

    /// One turn of a part, within its deadline.
    async fn turn<T>(&self, part: &'static str, ask: impl Future<Output = Result<T, Fault>>) -> Result<T, Trouble> {
        let begun = Instant::now();
        let outcome = timeout(TURN_LIMIT, ask).await.unwrap_or_else(|_| Err(Fault::plain(Trouble::Timeout)));
        let trouble = outcome.as_ref().err().map(|fault| fault.trouble);
        self.last.send_modify(|state| state.asked.add(part, trouble, begun.elapsed()));
        outcome.map_err(|fault| {
            self.log(part, &fault);
            fault.trouble
        })
    }

    fn log(&self, part: &'static str, fault: &Fault) {
        let detail = self.redactor.text(Outlet::OwnLog, fault.detail.as_bytes());
        let (class, code) = (fault.trouble.word(), fault.code.as_deref());
        tracing::debug!(part, class, code, %detail, "a part of the database's numbers cannot be read");
    }

    /// Once, and again when it changes: what is missing then is missing without an error.
    fn tell_visibility(&self, now: Option<&Server>) {
        let Some(now) = now else { return };
        let before = self.last.borrow().server.last().map(|server| server.visibility);
        if now.visibility == Visibility::Partial && before != Some(Visibility::Partial) {
            tracing::warn!("the database shows us our own sessions and statements only: grant pg_monitor to our role");
        }
    }
}

impl Memory {
    fn new(config: &Config) -> Self {
        Self {
            started: Instant::now(),
            meter: Meter::default(),
            statements: statements::Memory::default(),
            asker: Asker::new(&config.questions),
        }
    }
}

fn turns(period: Duration) -> Interval {
    let mut turns = interval(period);
    turns.set_missed_tick_behavior(MissedTickBehavior::Skip);
    turns
}
