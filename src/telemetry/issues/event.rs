//! A request that failed, as an event of Sentry: grouped by what failed, linked to its trace. Pure.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use sentry::protocol::{Event, Exception, Level, Map, TraceContext};

use crate::model::traffic::Failure;
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
        let kind = if reason == status { format!("HTTP {status}") } else { reason.to_owned() };
        let mut event = Event {
            level: Level::Error,
            logger: Some("content_factory.proxy".to_owned()),
            transaction: Some(format!("{method} {route}")),
            platform: Cow::Borrowed("python"),
            timestamp: SystemTime::UNIX_EPOCH + Duration::try_from_secs_f64(failure.at).unwrap_or_default(),
            release: self.release.clone().map(Cow::Owned),
            environment: self.environment.clone().map(Cow::Owned),
            ..Event::default()
        };
        let exception = Exception { ty: kind, value: Some(format!("{method} {route}")), ..Exception::default() };
        event.exception.values.push(exception);
        let tags =
            [("service", &self.service), ("http.method", &method), ("http.route", &route), ("http.status", &status)];
        event.tags = tags.map(|(key, value)| (key.to_owned(), value.clone())).into_iter().collect();
        event.tags.insert("error.type".to_owned(), reason.to_owned());
        event.extra = extra(failure, left_out);
        event.fingerprint = vec![method.into(), route.into(), status.into()].into();
        if let Some((trace, span)) = failure.trace_id.zip(failure.span_id) {
            let trace = TraceContext { trace_id: trace.0.into(), span_id: span.0.into(), ..TraceContext::default() };
            event.contexts.insert("trace".to_owned(), trace.into());
        }
        event
    }
}

/// What makes two failures the same issue: method, route and status; all paths without a route are one.
pub(super) fn issue(failure: &Failure) -> [String; 3] {
    let route = failure.route.as_ref().map_or("(no route)", |route| route.as_str());
    // an answer that broke off began with a good status: what broke it off is the issue
    let status =
        if failure.status >= 500 { failure.status.to_string() } else { failure.error_type.as_str().to_owned() };
    [failure.method.label().to_owned(), route.to_owned(), status]
}

fn extra(failure: &Failure, left_out: LeftOut) -> Map<String, serde_json::Value> {
    let mut extra = Map::new();
    extra.insert("duration_seconds".to_owned(), failure.duration.as_secs_f64().into());
    for (name, count) in [("alike_left_out", left_out.alike), ("failures_not_kept", left_out.any)] {
        if count > 0 {
            extra.insert(name.to_owned(), count.into());
        }
    }
    extra
}
