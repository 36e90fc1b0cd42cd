//! Once per cluster: of several sidecars on one Redis one exports what is true of all of them.
//!
//! The lease is a key in Redis that expires. Its holder renews it, and stops speaking by its own clock before anybody else
//! can have taken it. Levels (queues, tables) are exported while it speaks. Counts (tasks) are told in stretches: before each
//! export the holder publishes a mark, which every replica hears between the same two messages, notes what it had counted
//! there, and claims the stretch up to it in the same step in which it renews. What is claimed is its own to tell, whenever it
//! comes to it; what is not is told by whoever speaks next. So no stretch is told twice, whoever is killed or stopped when.
//!
//! Owns the term and what was told. Deliberately absent: who may serve endpoints. Every replica shows all that it knows.

pub mod config;
mod server;
mod share;
pub mod speaker;
mod state;

use std::sync::Arc;
use std::time::Duration;

use redis::Client;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep_until, timeout};

use crate::lease::config::Config;
use crate::lease::server::{Problem, Server, Wish, Word};
use crate::lease::speaker::Speaker;
use crate::lease::state::{Ask, Shared};
use crate::lifecycle::Drain;
use crate::model::lease::{Hearing, Turn};
use crate::model::sample::SampleSource;
use crate::redact::{Redactor, Secret};

/// A mark comes back within milliseconds, or Celery is not heard at the moment.
const HEARD_LIMIT: Duration = Duration::from_millis(500);
/// Telemetry asks for its last claim once workers and the SDK have ended, for which it has their limits.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// Exports wait one after the other; one that is late and the last one.
const ASKS: usize = 2;

/// Holds the lease, or waits for it; owns the term.
pub struct Lease {
    config: Config,
    client: Secret<Client>,
    id: String,
    shared: Arc<Shared>,
    /// Held by `run` for its whole life, so that it can be started again after a panic.
    asks: Mutex<mpsc::Receiver<Ask>>,
}

/// Makes the room, `None` for a sidecar that is alone; `sources` are those of the cluster's numbers.
#[must_use]
pub fn build(
    config: &Config,
    sources: Vec<SampleSource>,
    hearing: Hearing,
    redactor: Arc<Redactor>,
) -> (Option<Lease>, Speaker) {
    let Some(client) = config.server.clone() else { return (None, Speaker::new(None)) };
    let channel = format!("/{}.{}", client.expose().get_connection_info().redis_settings().db(), config.key);
    let (sender, asks) = mpsc::channel(ASKS);
    let shared = Arc::new(Shared::new(sources, sender, channel, hearing, redactor));
    let id = format!("{}-{:08x}", config.name, fastrand::u32(..));
    let lease = Lease { config: config.clone(), client, id, shared: Arc::clone(&shared), asks: Mutex::new(asks) };
    (Some(lease), Speaker::new(Some(shared)))
}

impl Lease {
    /// Holds the lease or waits for it until the process drains, and gives it back. May be called again after a panic.
    pub async fn run(&self, mut drain: Drain) {
        let mut asks = self.asks.lock().await;
        let channel = self.shared.channel.clone();
        let mut server =
            Server::new(&self.config, self.client.expose().get_connection_info().clone(), self.id.clone(), channel);
        let (mut due, mut end) = (Instant::now(), None);
        loop {
            tokio::select! {
                Some((turn, answer)) = asks.recv() => {
                    self.claim(&mut server).await;
                    let _ = answer.send(()); // an export that waits no more
                    if turn == Turn::Last {
                        break;
                    }
                }
                () = sleep_until(due) => due = Instant::now() + self.turn(&mut server).await,
                _ = drain.begun(), if end.is_none() => end = Some(Instant::now() + LAST_WORDS),
                () = sleep_until(end.unwrap_or(due)), if end.is_some() => break,
            }
        }
        self.shared.lock().term = None;
        self.shared.over.send_replace(true);
        match server.release().await {
            Ok(()) => tracing::info!("the lease is given back"),
            Err(problem) => tracing::info!(reason = problem, "the lease is not given back, and expires"),
        }
    }

    /// Renews the lease, or tries to take it; gives the time to the next turn.
    async fn turn(&self, server: &mut Server) -> Duration {
        let duration = self.config.duration;
        let wish = if self.shared.lock().term.is_some() { Wish::Keep } else { Wish::Take };
        match self.ask(server, wish).await {
            Ok(_) if self.shared.lock().term.is_some() => duration / 3,
            Ok(_) => duration / 5,
            Err(_) => duration / 10,
        }
    }

    /// Claims what was counted up to now, if we speak.
    async fn claim(&self, server: &mut Server) {
        if !self.shared.lock().speaks(Instant::now()) {
            return;
        }
        let (number, hearing) = {
            let state = self.shared.lock();
            (state.share.next(None), state.hearing)
        };
        if hearing == Hearing::ByMarks {
            if let Err(problem) = server.publish(number).await {
                return self.shared.lock().failed(problem);
            }
            if timeout(HEARD_LIMIT, self.heard(number)).await.is_err() {
                return tracing::debug!("a mark did not come back: what was counted is told later");
            }
        } else {
            self.shared.mark(number);
        }
        let _ = self.ask(server, Wish::Claim(number)).await; // it has said and noted what is wrong
    }

    async fn heard(&self, number: u64) {
        while !self.shared.lock().share.knows(number) {
            self.shared.heard.notified().await;
        }
    }

    /// Asks Redis, and takes in what it says.
    async fn ask(&self, server: &mut Server, wish: Wish) -> Result<(), Problem> {
        // before the question: the key lives at least as long from when it was asked
        let until = Instant::now() + self.config.duration * 9 / 10;
        let answer = server.ask(wish).await;
        // a term begins at what is counted now; before the lock, which the sources are asked without
        let samples = if matches!(wish, Wish::Take) { self.shared.samples() } else { Vec::new() };
        let now = Instant::now();
        match answer {
            Ok(Word { holder, claimed }) => {
                self.shared.held_by(holder.as_deref());
                let mut state = self.shared.lock();
                match (holder.as_deref() == Some(&*self.id), wish) {
                    (true, Wish::Take) => state.begin(until, claimed, samples),
                    (true, Wish::Keep | Wish::Claim(_)) => {
                        state.renew(until);
                        // also where the answer to the claim was lost
                        claimed.into_iter().for_each(|number| state.share.claimed(number));
                    }
                    (false, _) => state.end("another one took the lease, or it has expired"),
                }
                Ok(())
            }
            Err(problem) => {
                let mut state = self.shared.lock();
                state.failed(problem);
                if !state.speaks(now) {
                    state.end("the lease could not be renewed");
                }
                Err(problem)
            }
        }
    }
}
