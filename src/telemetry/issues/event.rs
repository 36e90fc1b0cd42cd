//! A request or a task that failed, or an exception that was logged, as an event of Sentry: grouped by what failed, linked to its
//! trace. Pure.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use sentry::protocol::{Event, Exception, Frame, Level, Map, Stacktrace, TraceContext};

use crate::model::incident::{Incident, Mishap};
use crate::model::trace::{SpanId, TraceId};
use crate::model::traffic::Failure;
use crate::redact::Clean;
use crate::telemetry::resource::Resource;

/// The application as its events name it.
#[derive(Clone, Debug)]
pub(super) struct Application {
    service: String,
    release: Option<String>,
    environment: Option<String>,
    instance: Option<String>,
}

/// What was left out before an event.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LeftOut {
    /// Of the same issue.
    pub(super) alike: u64,
    /// Of any, as more failed at once than are kept.
    pub(super) any: u64,
}

impl Application {
    pub(super) fn new(identity: &Resource) -> Self {
        let find = |name: &str| identity.attributes().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned());
        let service = find("service.name").unwrap_or_default();
        Self {
            release: find("service.version").map(|version| format!("{service}@{version}")),
            environment: find("deployment.environment.name"),
            instance: find("service.instance.id"),
            service,
        }
    }

    /// `service.name`.
    pub(super) fn service(&self) -> &str {
        &self.service
    }

    /// The environment, when it is known.
    pub(super) fn environment(&self) -> Option<String> {
        self.environment.clone()
    }

    /// The instance, when it is known.
    pub(super) fn instance(&self) -> Option<String> {
        self.instance.clone()
    }

    /// The event of a failure.
    pub(super) fn event(&self, failure: &Failure, left_out: LeftOut) -> Event<'static> {
        let [method, route, status] = issue(failure);
        let reason = failure.error_type.as_str();
        // 500 is told as itself; what broke an answer off has a name
        let kind = if reason == failure.status.to_string() { format!("HTTP {reason}") } else { reason.to_owned() };
        let mut event = self.blank("content_factory.proxy", Some(failure.at), left_out);
        event.transaction = Some(format!("{method} {route}"));
        let exception = Exception { ty: kind, value: Some(format!("{method} {route}")), ..Exception::default() };
        event.exception.values.push(exception);
        let tags =
            [("service", &self.service), ("http.method", &method), ("http.route", &route), ("http.status", &status)];
        event.tags = tags.map(|(key, value)| (key.to_owned(), value.clone())).into_iter().collect();
        event.tags.insert("error.type".to_owned(), reason.to_owned());
        event.extra.insert("duration_seconds".to_owned(), failure.duration.as_secs_f64().into());
        event.fingerprint = vec![method.into(), route.into(), status.into()].into();
        link(&mut event, failure.trace_id.filter(|_| failure.span_id.is_some()), failure.span_id);
        event
    }

    /// The event of an incident: without the text of any exception, as nobody here has it.
    pub(super) fn event_of(&self, incident: &Incident, left_out: LeftOut) -> Event<'static> {
        let mut event = match &incident.what {
            Mishap::Task { name, fault, error_type, .. } => {
                let mut event = self.blank("content_factory.tasks", incident.at, left_out);
                let kind =
                    error_type.as_ref().map_or_else(|| format!("task {}", fault.label()), |class| class.to_string());
                event.exception.values.push(exception(&kind, name.as_str(), None));
                event.transaction = Some(name.to_string());
                event.tags.insert("task".to_owned(), name.to_string());
                event.tags.insert("task.outcome".to_owned(), fault.label().to_owned());
                event.tags.insert("error.type".to_owned(), kind);
                event
            }
            Mishap::Logged { error_type, logger, frame } => {
                let logger = logger.as_ref().map_or("content_factory.logs", Clean::as_str);
                let mut event = self.blank(logger, incident.at, left_out);
                let place = frame.as_ref().map(|frame| Frame {
                    function: Some(frame.function.to_string()),
                    filename: Some(frame.file.to_string()),
                    in_app: Some(true),
                    ..Frame::default()
                });
                event.exception.values.push(exception(error_type.as_str(), logger, place));
                event.tags.insert("error.type".to_owned(), error_type.to_string());
                event
            }
        };
        event.tags.insert("service".to_owned(), self.service.clone());
        event.fingerprint = fingerprint(incident).map(Cow::Owned).to_vec().into();
        link(&mut event, incident.trace_id, incident.span_id);
        event
    }

    fn blank(&self, logger: &str, at: Option<f64>, left_out: LeftOut) -> Event<'static> {
        let known = at.and_then(|at| Duration::try_from_secs_f64(at).ok());
        Event {
            level: Level::Error,
            logger: Some(logger.to_owned()),
            platform: Cow::Borrowed("python"),
            timestamp: known.map_or_else(SystemTime::now, |since| SystemTime::UNIX_EPOCH + since),
            release: self.release.clone().map(Cow::Owned),
            environment: self.environment.clone().map(Cow::Owned),
            extra: extra(left_out),
            ..Event::default()
        }
    }
}

fn exception(kind: &str, value: &str, place: Option<Frame>) -> Exception {
    let stacktrace = place.map(|frame| Stacktrace { frames: vec![frame], ..Stacktrace::default() });
    Exception { ty: kind.to_owned(), value: Some(value.to_owned()), stacktrace, ..Exception::default() }
}

/// What makes two incidents the same issue: of a task its name and the class of its error, of a log record the class, the logger
/// and the frame. Never a text.
pub(super) fn fingerprint(incident: &Incident) -> [String; 4] {
    let text = |clean: &Option<Clean<'_>>| clean.as_ref().map(Clean::to_string);
    match &incident.what {
        Mishap::Task { name, fault, error_type, .. } => {
            let kind = text(error_type).unwrap_or_default();
            ["task".to_owned(), name.to_string(), fault.label().to_owned(), kind]
        }
        Mishap::Logged { error_type, logger, frame } => {
            let place = frame.as_ref().map(|frame| format!("{} {}", frame.function.as_str(), frame.file.as_str()));
            ["log".to_owned(), error_type.to_string(), text(logger).unwrap_or_default(), place.unwrap_or_default()]
        }
    }
}

/// Links an event to its trace; Sentry wants a span, too, and takes one that nobody knows.
fn link(event: &mut Event<'_>, trace: Option<TraceId>, span: Option<SpanId>) {
    let Some(trace) = trace else { return };
    let mut context = TraceContext { trace_id: trace.0.into(), ..TraceContext::default() };
    if let Some(span) = span {
        context.span_id = span.0.into();
    }
    event.contexts.insert("trace".to_owned(), context.into());
}

/// What makes two failures the same issue: method, route and status; all paths without a route are one.
pub(super) fn issue(failure: &Failure) -> [String; 3] {
    let route = failure.route.as_ref().map_or("(no route)", |route| route.as_str());
    // an answer that broke off began with a good status: what broke it off is the issue
    let status =
        if failure.status >= 500 { failure.status.to_string() } else { failure.error_type.as_str().to_owned() };
    [failure.method.label().to_owned(), route.to_owned(), status]
}

fn extra(left_out: LeftOut) -> Map<String, serde_json::Value> {
    let mut extra = Map::new();
    for (name, count) in [("alike_left_out", left_out.alike), ("failures_not_kept", left_out.any)] {
        if count > 0 {
            extra.insert(name.to_owned(), count.into());
        }
    }
    extra
}
