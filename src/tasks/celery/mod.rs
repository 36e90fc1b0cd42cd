//! Celery, watched through its Redis, with no change to the application.
//!
//! One connection listens to what workers, senders and the result backend publish; another one reads the queues, tells
//! workers to send events and asks them what they consume. Both are opened again when they break. What was heard is
//! counted in one account, which readers see from memory. Redis is never waited for by anybody else.
//!
//! Deliberately absent: arguments, results and the texts of exceptions; anything that takes a message from a queue.

mod board;
pub mod config;
mod control;
mod desk;
mod event;
mod ledger;
mod link;
mod listen;
mod mishaps;
mod moment;
mod names;
pub mod reader;
mod resp;
mod state;
mod task;
mod totals;
mod wire;
mod workers;

use std::sync::Arc;
use std::time::Duration;

use redis::ConnectionInfo;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::lifecycle::Drain;
use crate::model::incident::IncidentSink;
use crate::model::lease::Marks;
use crate::model::reload::Retune;
use crate::redact::{Redactor, Secret};
use config::Config;
use desk::Desk;
use listen::Listener;
use reader::Reader;
use state::Shared;

/// Runs are judged and counts settled this often.
const TICK: Duration = Duration::from_secs(1);

/// Watches Celery; owns the account.
pub struct Celery {
    server: Secret<ConnectionInfo>,
    listener: Listener,
    settings: Tuner,
    shared: Shared,
    /// Hears of tasks that ended badly; `None` when nobody does.
    incidents: Option<IncidentSink>,
}

/// Takes other settings while the room watches: what is read and asked, and how often. What is heard stays as it is.
#[derive(Clone)]
pub struct Tuner(watch::Sender<Config>);

impl Retune for Tuner {
    type Config = Config;
    const LIVE: &'static [&'static str] =
        &["celery.queues", "celery.period", "celery.consumers_period", "celery.enable_events", "celery.ask_consumers"];

    fn retune(&self, config: &Config) -> Result<(), String> {
        self.0.send_modify(|used| used.take_questions(config));
        Ok(())
    }
}

/// Makes the room; `None` where there is nothing to watch. Tasks that end badly are told to `incidents`, if there is one.
#[must_use]
pub fn build(config: &Config, redactor: Arc<Redactor>, incidents: Option<IncidentSink>) -> (Option<Celery>, Reader) {
    let Some(server) = config.server.clone() else { return (None, Reader::off()) };
    let database = server.expose().redis_settings().db();
    let shared = Shared::new(config, &redactor);
    let settings = Tuner(watch::Sender::new(config.clone()));
    let reader = Reader::new(shared.clone(), settings.0.subscribe(), redactor);
    let listener = Listener::new(config, database, shared.clone());
    (Some(Celery { server, listener, settings, shared, incidents }), reader)
}

impl Celery {
    /// Watches until the process drains, and hears marks of the lease, if there is one. May be called again after a panic.
    pub async fn run(&self, marks: Option<&Marks>, drain: Drain) {
        let server = self.server.expose();
        let database = server.redis_settings().db();
        let mut desk = Desk::new(self.settings.0.subscribe(), database, self.shared.clone());
        tokio::join!(
            self.listener.run(server, marks, drain.clone()),
            desk.run(server, drain.clone()),
            self.pass_time(drain)
        );
    }

    /// Takes other settings.
    #[must_use]
    pub fn tuner(&self) -> Tuner {
        self.settings.clone()
    }

    async fn pass_time(&self, mut drain: Drain) {
        let mut turns = interval(TICK);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = turns.tick() => {
                    let mut state = self.shared.lock();
                    state.tick(Instant::now());
                    mishaps::tell(&mut state.ledger, self.incidents.as_ref());
                }
                _ = drain.begun() => return,
            }
        }
    }
}
