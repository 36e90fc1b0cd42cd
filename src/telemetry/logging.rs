//! The set-up of `tracing`: lines on standard error, and the same events and spans through our own way out.
//!
//! Every line passes the redactor. What the transports below the sender log never goes out by OTLP, or delivering it
//! would make more of it.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use sentry_tracing::{BreadcrumbLayer, ErrorLayer};
use tracing::Subscriber;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry, reload};

use crate::model::reload::Retune;
use crate::redact::{Outlet, Redactor};
use crate::settings::{Described, Section};
use crate::telemetry::issues::Issues;
use crate::telemetry::own::OwnTelemetry;

/// The settings below `log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Which events are written: a level, or directives of `tracing`.
    pub level: String,
    /// How they are written.
    pub format: LogFormat,
}

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; in colours on a terminal.
    Text,
    /// For programs.
    Json,
}

/// Libraries whose word only matters when something is wrong. The SDK warns of each line that is logged after its
/// shutdown, which is how our last lines are meant to be; h2 warns of frames, and any client could fill the log with them;
/// so could a database with its notices.
const LIBRARIES: &str = "hyper=warn,h2=error,tonic=warn,tower=warn,reqwest=warn,rustls=warn,opentelemetry=warn,\
     opentelemetry_sdk=error,sqlx=warn,sqlx::postgres::notice=off";
/// What goes out by OTLP: nothing of the libraries that carry it.
const EXPORTED: &str = "info,hyper=off,h2=off,tonic=off,tower=off,reqwest=off,rustls=off,opentelemetry=off,\
     sqlx::postgres::notice=off";
/// The same libraries, for errors alone.
const QUIET: &str =
    "hyper=off,h2=off,tonic=off,tower=off,reqwest=off,rustls=off,opentelemetry=off,opentelemetry_sdk=off";

impl LogConfig {
    /// Reads the section `log`.
    pub fn read(section: &mut Section<'_>) -> Self {
        let about = "what is logged: error, warn, info, debug, trace, or directives such as info,content_factory_sidecar::proxy=debug";
        let key = Described { name: "level", default: "info".to_owned(), default_text: "info".to_owned(), about };
        let level = section.parsed(key, "a level or directives of tracing", |text| {
            text.parse::<Targets>().is_ok().then(|| text.to_owned())
        });
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        let about = "form of the lines on standard error: text for people, json for programs";
        Self { level, format: section.choice("format", LogFormat::Text, &formats, about) }
    }
}

/// What `tracing` is to be set up with, on standard error; see `subscriber`.
#[must_use]
pub(crate) fn on_stderr(
    config: &LogConfig,
    redactor: &Arc<Redactor>,
    own: Option<&OwnTelemetry>,
    issues: Option<&Issues>,
) -> (impl Subscriber + Send + Sync + 'static, LogTuner) {
    if let Some(issues) = issues {
        issues.listen();
    }
    let colours = if io::stderr().is_terminal() { Colours::On } else { Colours::Off };
    let writer = Redacting { redactor: Arc::clone(redactor), open: io::stderr };
    let (lines, tuner) = subscriber(config, writer, colours, own);
    (lines.with(issues.map(|_| errors_to_sentry())), tuner)
}

/// Takes another level while lines are written; the form of a line is of the process.
#[derive(Debug)]
pub struct LogTuner(reload::Handle<Targets, Registry>);

impl Retune for LogTuner {
    type Config = LogConfig;
    const LIVE: &'static [&'static str] = &["log.level"];

    fn retune(&self, config: &LogConfig) -> Result<(), String> {
        self.0.reload(written(&config.level)).map_err(|error| error.to_string())
    }
}

/// What is written on standard error.
fn written(level: &str) -> Targets {
    directives(&format!("{LIBRARIES},{level}"))
}

/// Errors become events of Sentry, and what was logged before is told with them. What the way out says of itself makes no
/// event, or an outage of Sentry would make more of them.
fn errors_to_sentry<S>() -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'s> LookupSpan<'s>,
{
    let breadcrumbs = BreadcrumbLayer::new().with_filter(directives(EXPORTED));
    let errors = format!("error,{QUIET},content_factory_sidecar::telemetry=off");
    ErrorLayer::new().with_filter(directives(&errors)).and_then(breadcrumbs)
}

/// Whether lines are coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Colours {
    On,
    Off,
}

fn subscriber<W>(
    config: &LogConfig,
    writer: W,
    colours: Colours,
    own: Option<&OwnTelemetry>,
) -> (impl Subscriber + for<'s> LookupSpan<'s> + Send + Sync + 'static, LogTuner)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(written(&config.level));
    let lines = lines(config.format, writer, colours).with_filter(filter);
    let spans = own.map(|own| {
        tracing_opentelemetry::layer()
            .with_tracer(own.tracer())
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_target(false)
            .with_filter(directives(EXPORTED))
    });
    let records =
        own.map(|own| OpenTelemetryTracingBridge::new(own.logger_provider()).with_filter(directives(EXPORTED)));
    (Registry::default().with(lines).with(spans).with(records), LogTuner(handle))
}

/// Levels by target alone: directives about the fields of spans would bring a regex engine with them.
fn directives(text: &str) -> Targets {
    text.parse().expect("directives are read before they are used")
}

fn lines<S, W>(format: LogFormat, writer: W, colours: Colours) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colours == Colours::On);
    match format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    }
}

/// Opens a writer whose every line passes the redactor.
struct Redacting<F> {
    redactor: Arc<Redactor>,
    open: F,
}

impl<'w, W: Write, F: Fn() -> W> MakeWriter<'w> for Redacting<F> {
    type Writer = Line<'w, W>;

    fn make_writer(&'w self) -> Self::Writer {
        Line { redactor: &self.redactor, inner: (self.open)() }
    }
}

/// A line on its way. The formatter writes each event whole, so a secret is never cut in two.
struct Line<'w, W> {
    redactor: &'w Redactor,
    inner: W,
}

impl<W: Write> Write for Line<'_, W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let clean = self.redactor.text(Outlet::OwnLog, line);
        self.inner.write_all(clean.as_str().as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// A place to write to that a test reads.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, log: impl FnOnce()) -> String {
        let page = Page::default();
        let redactor = Arc::new(Redactor::new(["hunter2-secret"]));
        let open = {
            let page = page.clone();
            move || page.clone()
        };
        let config = LogConfig { level: "info".into(), format };
        let (subscriber, _tuner) = subscriber(&config, Redacting { redactor, open }, Colours::Off, None);
        tracing::subscriber::with_default(subscriber, log);
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn no_secret_reaches_a_line() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = logged(format, || {
                tracing::info!(url = "redis://user:hunter2-secret@h/0", "opened with hunter2-secret");
                tracing::debug!("not written");
            });
            assert!(text.contains("opened with [REDACTED:secret]"), "{text}");
            assert!(!text.contains("hunter2") && !text.contains("not written"), "{text}");
            assert_eq!(text.lines().count(), 1, "{text}");
        }
    }

    #[test]
    fn no_line_tells_who_a_url_is_used_as_or_the_secrets_of_its_query() {
        let url = "https://user:of-nobody@h:8443/v1?token=of-nobody&page=2&api_key=of-nobody#part";
        let failure = io::Error::other(format!("cannot ask {url}: refused"));
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = logged(format, || {
                let span = tracing::info_span!("ask", url = %url);
                let _entered = span.enter();
                tracing::info!("asking {url} now");
                tracing::warn!(%url, "as a field");
                tracing::warn!(?url, "as a field of Debug");
                tracing::error!(error = &failure as &dyn std::error::Error, reason = ?failure, "as an error");
            });
            assert_eq!(text.lines().count(), 4, "{text}");
            assert!(!text.contains("of-nobody") && !text.contains("user:"), "{text}");
            let told =
                text.matches("https://REDACTED:REDACTED@h:8443/v1?token=REDACTED&page=2&api_key=REDACTED").count();
            assert!(told >= 8, "all else of a URL stays: {told} times in {text}");
        }
    }

    #[test]
    fn json_lines_are_json() {
        let text = logged(LogFormat::Json, || tracing::warn!(items = 3, "left"));
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&line["items"], &line["message"]), (&3.into(), &"left".into()));
    }

    #[test]
    fn libraries_are_quiet_unless_asked_for() {
        let text = logged(LogFormat::Text, || {
            tracing::info!(target: "hyper::client", "connected");
            tracing::warn!(target: "hyper::client", "broken");
        });
        assert!(!text.contains("connected") && text.contains("broken"), "{text}");
    }
}
