//! The sidecar of the demo: its settings, its start, and what is read from it. Nothing else here knows `app`.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::app::{App, Readers, StartError};
use crate::config::{self, Config, ConfigError};
use crate::demo::options::Options;
use crate::model::telemetry::Signal;
use crate::problem::Problem;
use crate::settings::{Place, Tree};
use crate::telemetry;

/// The tables are small, and whoever looks at `/status` twice wants to see them grow.
const ROWS_PERIOD: &str = "2s";

/// What the sidecar finds around it.
pub(super) struct Site<'a> {
    pub(super) options: &'a Options,
    /// For its files.
    pub(super) folder: &'a Path,
    /// The built-in application.
    pub(super) application: SocketAddr,
    /// The application's SQLite file.
    pub(super) database: &'a Path,
    /// The application's `.env`.
    pub(super) env_file: &'a Path,
    /// The built-in receiver, if it takes the telemetry.
    pub(super) endpoint: Option<String>,
}

/// A sidecar that serves.
pub(super) struct Sidecar {
    app: App,
    view: View,
}

/// What is read from a sidecar, during its life and after it.
#[derive(Clone)]
pub(super) struct View {
    proxy: String,
    admin: String,
    readers: Readers,
}

impl Site<'_> {
    /// The settings: as one would write them, but for this site.
    ///
    /// # Errors
    /// What was asked for is no value of its setting.
    pub(super) fn config(&self) -> Result<Config, ConfigError> {
        let mut tree = Tree::default();
        let application = format!("http://{}", self.application);
        let document = json!({
            "proxy": {"upstream": application},
            "data_dir": self.folder.join("sidecar-data"),
            "database": {"url": format!("sqlite:///{}", self.database.display()), "period": ROWS_PERIOD},
            "external_api": {"url": format!("{application}/health")},
            "ai_services": {"env_file": self.env_file},
            // a demo may last seconds
            "telemetry": {"metrics": {"interval": "2s"}},
            // each line of the log would break the live line
            "log": {"level": "warn"},
        });
        tree.merge(document, &Place("the demo".into()));
        let Options { listen, admin, collector, .. } = self.options;
        tree.set("proxy.listen", Value::from(listen.to_string()), &Place("--listen".into()));
        tree.set("admin.listen", Value::from(admin.to_string()), &Place("--admin".into()));
        let problems = if collector.is_some() { self.words_to_a_collector(&mut tree) } else { Vec::new() };
        if !problems.is_empty() {
            return Err(ConfigError(problems));
        }
        if let Some(endpoint) = self.endpoint.as_ref().or(collector.as_ref()) {
            tree.set("telemetry.endpoint", Value::from(endpoint.clone()), &Place("--collector".into()));
        }
        config::read(tree, &self.options.environment, |path| Err(format!("{path} is not read by the demo")))
            .map(|(config, _)| config)
    }
}

impl Site<'_> {
    /// A collector may want a token or a protocol: those are taken from the standard variables, its address is not.
    fn words_to_a_collector(&self, tree: &mut Tree) -> Vec<Problem> {
        let wanted = |name: &str| name.starts_with("OTEL_") && !name.contains("ENDPOINT");
        let environment = self.options.environment.iter().filter(|(name, _)| wanted(name));
        let environment = environment.map(|(name, value)| (name.clone(), value.clone())).collect();
        telemetry::environment::apply(&environment, tree).problems
    }
}

impl Sidecar {
    pub(super) async fn start(config: Config, options: &Options) -> Result<Self, StartError> {
        let app = App::start(config).await?;
        let addresses = app.addresses();
        let proxy = addresses.proxy.as_ref().map_or(options.listen, |(address, _)| *address);
        let admin = addresses.admin.first().copied().unwrap_or(options.admin);
        let view = View { proxy: reachable(proxy), admin: reachable(admin), readers: app.readers() };
        Ok(Self { app, view })
    }

    pub(super) fn view(&self) -> View {
        self.view.clone()
    }

    /// Serves until the show is over, then drains; `impatient` ends the drain at once.
    pub(super) async fn serve_until(self, over: oneshot::Receiver<()>, impatient: oneshot::Receiver<()>) {
        let mut waiting = vec![("interrupted", impatient), ("the demo is over", over)];
        let stop = async move || match waiting.pop() {
            Some((reason, told)) => match told.await {
                Ok(()) => reason,
                // the show is gone without a word: nobody is left to wait for
                Err(_) => reason,
            },
            None => std::future::pending().await,
        };
        self.app.serve_until(stop).await;
    }
}

impl View {
    /// The base of URLs through the proxy.
    pub(super) fn proxy(&self) -> String {
        self.proxy.clone()
    }

    /// The base of the admin port's URLs.
    pub(super) fn admin(&self) -> String {
        self.admin.clone()
    }

    /// Requests, errors among them, and the 95th percentile of the last minute.
    pub(super) fn traffic(&self) -> (u64, u64, Option<Duration>) {
        let totals = self.readers.traffic.totals();
        let [minute, ..] = self.readers.traffic.windows();
        (totals.requests, totals.errors, minute.p95_seconds.map(Duration::from_secs_f64))
    }

    /// Spans that the collector acknowledged.
    pub(super) fn spans_delivered(&self) -> u64 {
        self.readers.telemetry.state().accounts[Signal::Traces as usize].delivered
    }
}

/// A URL that opens on this machine, also for a port that is open on all addresses.
fn reachable(mut address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("http://{address}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_open_on_all_addresses_is_shown_as_one_that_opens() {
        assert_eq!(reachable("0.0.0.0:1".parse().unwrap()), "http://127.0.0.1:1");
        assert_eq!(reachable("[::]:1".parse().unwrap()), "http://[::1]:1");
        assert_eq!(reachable("10.0.0.7:1".parse().unwrap()), "http://10.0.0.7:1");
    }
}
