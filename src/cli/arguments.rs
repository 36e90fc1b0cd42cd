//! The shape of the command line. What it says in `--help` is the first documentation that people read.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::sources::Sources;
use crate::demo;
use crate::settings::parse_duration;

const EXAMPLES: &str = "\
Examples:
  content-factory-sidecar --upstream http://127.0.0.1:8000
      stand in front of an application, on port 18000; endpoints on http://127.0.0.1:18090
  content-factory-sidecar demo
      try everything without an application and without a collector
  content-factory-sidecar check-config --config sidecar.yaml
      list every mistake of a configuration at once
  content-factory-sidecar check-export --config sidecar.yaml
      see one span, metric and log record accepted by the collector and each vendor

SIGHUP reads the configuration again, as does a change of its file; what needs a restart is named in the log and in /status.
SIGTERM and SIGINT drain, a second one ends at once.

Exit codes: 0 stopped cleanly, 1 could not start, 64 the configuration or the command line is wrong.";

/// A telemetry sidecar for a Python web application: proxies its traffic, measures every request once,
/// exports traces, metrics and logs by OTLP, and answers for its health.
#[derive(Debug, Parser)]
#[command(name = "content-factory-sidecar", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    #[command(flatten)]
    pub(super) run: RunFlags,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Stand in front of an application (the default command)
    Run(RunFlags),
    /// A built-in application, the sidecar, a receiver and some traffic, in one process
    Demo(DemoFlags),
    /// Read the configuration and list every mistake at once
    CheckConfig(RunFlags),
    /// Send one marked span, metric and log record, and tell what each hop says up to the vendors
    ///
    /// The vendors' word is the collector's: set telemetry.receipts.url to its own metrics. Nothing is queued, kept on disk or
    /// tried again. Exits 0 when every hop that could be asked has accepted, else 1.
    CheckExport(CheckExportFlags),
    /// Print the configuration in force as YAML, secrets masked
    PrintConfig(RunFlags),
    /// Ask a running sidecar for its health; exits 0 when healthy or degraded, else 1
    Health(HealthTarget),
    /// Print the description of the admin port (OpenAPI 3.1)
    Openapi,
    /// Print a page of the documentation that is made from the code
    Docs {
        /// Which page
        page: Page,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Page {
    /// docs/metrics.md
    Metrics,
    /// docs/configuration.md
    Configuration,
}

#[derive(Debug, Default, Args)]
pub(super) struct RunFlags {
    /// The configuration file [default: ./sidecar.yaml if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The application [default: http://127.0.0.1:8000]
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Where the application's clients connect [default: 0.0.0.0:18000]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Where the endpoints are served [default: 127.0.0.1:18090]
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    /// Where telemetry goes, by OTLP [default: http://127.0.0.1:4317]
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
    /// A folder for files of our own [default: ./sidecar-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl RunFlags {
    pub(super) fn sources(self, environment: BTreeMap<String, String>) -> Sources {
        let data_dir = self.data_dir.map(|path| path.display().to_string());
        let flags = [
            ("--upstream", "proxy.upstream", self.upstream),
            ("--listen", "proxy.listen", self.listen),
            ("--admin", "admin.listen", self.admin),
            ("--otlp", "telemetry.endpoint", self.otlp),
            ("--data-dir", "data_dir", data_dir),
        ];
        let flags = flags.into_iter().filter_map(|(flag, path, value)| Some((flag, path, value?))).collect();
        Sources { file: self.config, environment, flags }
    }
}

#[derive(Debug, Args)]
pub(super) struct CheckExportFlags {
    #[command(flatten)]
    pub(super) run: RunFlags,
    /// How long the vendors may take: samplers and batches of a gateway need some 15 seconds
    #[arg(long = "wait", value_name = "TIME", default_value = "45s", value_parser = duration)]
    pub(super) patience: Duration,
}

#[derive(Debug, Args)]
pub(super) struct DemoFlags {
    /// Send to this collector instead of the built-in receiver
    #[arg(long, value_name = "URL")]
    collector: Option<String>,
    /// End by itself after this time, such as 10s
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// Where the application's clients connect
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:18000")]
    listen: std::net::SocketAddr,
    /// Where the endpoints are served
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:18090")]
    admin: std::net::SocketAddr,
    /// Where the built-in application listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:18080")]
    app: std::net::SocketAddr,
}

impl DemoFlags {
    pub(super) fn options(self, environment: BTreeMap<String, String>) -> demo::Options {
        let Self { collector, duration, listen, admin, app } = self;
        demo::Options { collector, duration, listen, admin, app, environment }
    }
}

#[derive(Debug, Args)]
pub(super) struct HealthTarget {
    /// The address to ask; https:// where admin.tls is set
    #[arg(default_value = "http://127.0.0.1:18090/health")]
    pub(super) url: String,
    /// Certificates to trust, in PEM [default: the system's; a loopback address is asked without looking at its certificate]
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// A file that begins with a token of admin.tokens; without one the answer is the bare word
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "expected a duration such as 10s or 2m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn flags_work_with_and_without_the_word_run() {
        for line in [vec!["x", "--upstream", "http://a:1"], vec!["x", "run", "--upstream", "http://a:1"]] {
            let parsed = Arguments::try_parse_from(line).unwrap();
            let flags = match parsed.command {
                Some(Command::Run(flags)) => flags,
                None => parsed.run,
                Some(other) => unreachable!("{other:?}"),
            };
            let sources = flags.sources(BTreeMap::new());
            assert_eq!(sources.flags, [("--upstream", "proxy.upstream", "http://a:1".to_owned())]);
        }
    }
}
