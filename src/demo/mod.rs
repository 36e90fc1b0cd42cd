//! The demo: an application, the sidecar in front of it, a receiver and some traffic, all in one process.
//!
//! The sidecar is the real one, composed by `app` as `run` does; only what stands around it is built in.
//! Everything is bounded, on loopback unless asked otherwise, and gone at the end: one temporary folder is removed.

mod factory;
mod folder;
mod options;
mod receiver;
mod screen;
mod sidecar;
mod trickle;

use std::io::{self, Write};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::app::signals::StopSignals;
use crate::app::{self, StartError};
use crate::config::ConfigError;
use crate::demo::factory::{Factory, FactoryError};
use crate::demo::folder::Folder;
use crate::demo::receiver::{Counter, Receiver};
use crate::demo::screen::{Reading, Screen, Style, TICK};
use crate::demo::sidecar::{Sidecar, Site};
use crate::demo::trickle::Tally;

pub use options::Options;

/// Why there is no demo, or no more of it.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The temporary folder could not be made.
    #[error("cannot make a temporary folder, expected TMPDIR to name a writable one")]
    Folder(#[source] io::Error),
    /// The built-in application does not start.
    #[error(transparent)]
    Factory(#[from] FactoryError),
    /// The built-in receiver does not start.
    #[error("cannot open a port on loopback for the built-in receiver")]
    Receiver(#[source] io::Error),
    /// What was asked for makes no configuration of the sidecar.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The sidecar does not start: a port is taken, most likely.
    #[error(transparent)]
    Sidecar(#[from] StartError),
    /// The visitors have no client.
    #[error("cannot make the client of the built-in traffic")]
    Traffic(#[source] reqwest::Error),
    /// The output is closed.
    #[error("cannot write to standard output")]
    Output(#[from] io::Error),
}

/// Runs until a signal or the end of the time asked for.
///
/// # Errors
/// When a port is taken or something else cannot start; and when `out` is closed.
pub fn run(options: Options, out: &mut (dyn Write + Send)) -> Result<(), DemoError> {
    let signals = StopSignals::take_over().map_err(StartError::Runtime)?;
    let runtime = app::control_runtime()?;
    let screen = Screen::new(out, Style::of_stdout(&options.environment));
    runtime.block_on(play(&options, signals, screen))
}

/// Opens everything, lets it run, and ends it in the order in which nothing is lost.
async fn play(options: &Options, signals: StopSignals, mut screen: Screen<'_>) -> Result<(), DemoError> {
    let folder = Folder::make().map_err(DemoError::Folder)?;
    let factory = Factory::open(options.app, folder.path()).await?;
    let receiver = match options.collector {
        Some(_) => None,
        None => Some(Receiver::open().await.map_err(DemoError::Receiver)?),
    };
    let endpoint = receiver.as_ref().map(Receiver::endpoint);
    let site = Site {
        options,
        folder: folder.path(),
        application: factory.address(),
        database: factory.database(),
        env_file: factory.env_file(),
        endpoint,
    };
    let sidecar = Sidecar::start(site.config()?, options).await?;
    screen.addresses(&addresses(&sidecar, &site))?;

    let counter = receiver.as_ref().map(Receiver::counter);
    let (ended, ends) = watch::channel(false);
    let around = async {
        let stop = || async { drop(ends.clone().wait_for(|ended| *ended).await) };
        let receiver = async {
            match receiver {
                Some(receiver) => receiver.serve_until(stop()).await,
                None => stop().await,
            }
        };
        tokio::join!(factory.serve_until(stop()), receiver);
    };
    let show = Show { sidecar: sidecar.view(), counter, screen, signals, ends_at: options.duration };
    let inside = async {
        let shown = show.and_drain(sidecar).await;
        ended.send_replace(true);
        shown
    };
    let ((), shown) = tokio::join!(around, inside);
    shown
}

/// What to open, the dashboard first.
fn addresses(sidecar: &Sidecar, site: &Site<'_>) -> Vec<(&'static str, String)> {
    let (proxy, admin) = (sidecar.view().proxy(), sidecar.view().admin());
    let telemetry = site.endpoint.clone().or_else(|| site.options.collector.clone()).unwrap_or_default();
    vec![
        ("dashboard", format!("{admin}/dashboard")),
        ("health", format!("{admin}/health")),
        ("status", format!("{admin}/status")),
        ("metrics", format!("{admin}/metrics")),
        ("application, through the sidecar", format!("{proxy}/api/v1/products")),
        ("application, directly", format!("http://{}/openapi.json", site.application)),
        ("telemetry goes to", telemetry),
    ]
}

/// The demo while it runs.
struct Show<'a> {
    sidecar: sidecar::View,
    /// `None` when a collector takes the telemetry.
    counter: Option<Counter>,
    screen: Screen<'a>,
    signals: StopSignals,
    ends_at: Option<Duration>,
}

impl Show<'_> {
    /// Traffic and the live line until the end; then the drain, and the summary once all telemetry has left.
    async fn and_drain(mut self, sidecar: Sidecar) -> Result<(), DemoError> {
        let (over, is_over) = oneshot::channel();
        let (impatient, is_impatient) = oneshot::channel();
        let performing = async {
            let tally = self.perform().await;
            // the sidecar drains even when the show broke off
            let _ = over.send(());
            tally
        };
        let serving = sidecar.serve_until(is_over, is_impatient);
        tokio::pin!(serving);
        let tally = tokio::select! {
            tally = performing => tally,
            () = &mut serving => Ok(Tally::default()),
        };
        tokio::select! {
            () = &mut serving => {}
            _ = self.signals.next() => {
                let _ = impatient.send(());
                serving.await;
            }
        }
        let reading = self.reading();
        let received = self.counter.as_ref().map(Counter::received);
        self.screen.summary(&reading, tally?.sent, received)?;
        Ok(())
    }

    /// Sends traffic and shows it, until a signal or the end of the time.
    async fn perform(&mut self) -> Result<Tally, DemoError> {
        let (stop, stopped) = watch::channel(false);
        let traffic = trickle::run(self.sidecar.proxy(), stopped);
        tokio::pin!(traffic);
        let ends_at = self.ends_at.map(|duration| Instant::now() + duration);
        let time = async move {
            match ends_at {
                Some(instant) => sleep_until(instant).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(time);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                tally = &mut traffic => return tally.map_err(DemoError::Traffic),
                _ = ticks.tick() => {
                    let reading = self.reading();
                    self.screen.live(&reading)?;
                }
                () = &mut time, if !*stop.borrow() => drop(stop.send_replace(true)),
                _ = self.signals.next(), if !*stop.borrow() => drop(stop.send_replace(true)),
            }
        }
    }

    fn reading(&self) -> Reading {
        let (requests, errors, p95) = self.sidecar.traffic();
        let (spans, verb) = match &self.counter {
            Some(counter) => (counter.received().request_spans, "received"),
            None => (self.sidecar.spans_delivered(), "delivered"),
        };
        Reading { requests, errors, p95, spans, verb }
    }
}
