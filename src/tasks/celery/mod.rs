//! Celery, watched through its Redis, with no change to the application.
//!
//! One connection listens to what workers, senders and the result backend publish; another one reads the queues, tells
//! workers to send events and asks them what they consume. Both are opened again when they break. What was heard is
//! counted in one account, which readers see from memory. Redis is never waited for by anybody else.
//!
//! Deliberately absent: arguments, results and the texts of exceptions; anything that takes a message from a queue.

mod adrift;
mod board;
mod calm;
pub mod config;
mod control;
mod desk;
mod event;
mod glance;
mod ledger;
mod listen;
mod message;
mod mishaps;
mod moment;
mod names;
pub mod reader;
pub mod replay;
pub mod spans;
mod state;
mod task;
mod totals;
mod traces;
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
use event::TaskIds;
use listen::Listener;
use reader::Reader;
use spans::{Held, SpanOut, Spans};
use state::Shared;
use traces::Traces;

/// Runs are judged and counts settled this often.
const TICK: Duration = Duration::from_secs(1);

/// Watches Celery; owns the account.
pub struct Celery {
    server: Secret<ConnectionInfo>,
    listener: Listener,
    settings: Tuner,
    ids: TaskIds,
    /// `None` where tasks become none.
    spans: Option<Spans>,
    shared: Shared,
    /// Hears of tasks that ended badly; `None` when nobody does.
    incidents: Option<IncidentSink>,
}

/// Takes other settings while the room watches: what is read and asked, how often, and how it is judged. What is heard stays as it is.
#[derive(Clone)]
pub struct Tuner(watch::Sender<Config>, Shared);

impl Retune for Tuner {
    type Config = Config;
    const LIVE: &'static [&'static str] = &[
        "celery.queues",
        "celery.period",
        "celery.consumers_period",
        "celery.enable_events",
        "celery.ask_consumers",
        "celery.lost_after",
    ];

    fn retune(&self, config: &Config) -> Result<(), String> {
        self.0.send_modify(|used| used.take_questions(config));
        self.1.lock().ledger.lose_after(config.lost_after);
        Ok(())
    }
}

/// Makes the room; `None` where there is nothing to watch. Tasks become no spans where nobody takes them, and those that end
/// badly are told to who hears of incidents, if there is one.
#[must_use]
pub fn build(
    config: &Config,
    redactor: Arc<Redactor>,
    (out, incidents): (Option<SpanOut>, Option<IncidentSink>),
) -> (Option<Celery>, Reader) {
    let Some(server) = config.server.clone() else { return (None, Reader::off()) };
    let database = server.expose().redis_settings().db();
    let shared = Shared::new(config, &redactor);
    let spans = Spans::new(config.spans, out, &redactor, &shared);
    if spans.is_some() {
        shared.lock().ledger.traces = Traces::on();
    }
    let settings = Tuner(watch::Sender::new(config.clone()), shared.clone());
    let reader = Reader::new(shared.clone(), settings.0.subscribe(), redactor);
    let ids = TaskIds::default();
    let listener = Listener::new(config, database, ids.clone(), shared.clone());
    (Some(Celery { server, listener, settings, ids, spans, shared, incidents }), reader)
}

impl Celery {
    /// Watches until the process drains, and hears marks of the lease, if there is one. May be called again after a panic.
    pub async fn run(&self, marks: Option<&Marks>, drain: Drain) {
        let server = self.server.expose();
        let database = server.redis_settings().db();
        let mut desk = Desk::new(self.settings.0.subscribe(), database, self.ids.clone(), self.shared.clone());
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
        let mut held = Held::default();
        loop {
            tokio::select! {
                _ = turns.tick() => {}
                _ = drain.begun() => {
                    self.spans.iter().for_each(|spans| spans.let_go(&mut held));
                    return;
                }
            }
            let now = Instant::now();
            {
                let mut state = self.shared.lock();
                state.tick(now);
                mishaps::tell(&mut state.ledger, self.spans.as_ref(), self.incidents.as_ref(), now);
            }
            if let Some(spans) = &self.spans {
                spans.turn(&mut held, now);
            }
        }
    }
}
