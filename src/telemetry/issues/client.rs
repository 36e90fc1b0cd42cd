//! The client of Sentry: it makes envelopes of events, and hands them to our own queue. Every text passes the redactor.

use std::sync::{Arc, Mutex};

use sentry::protocol::Event;
use sentry::{Client, ClientOptions};
use serde_json::Value;
use tokio::time::Instant;

use crate::redact::{Outlet, Redactor};
use crate::telemetry::issues::config::IssuesConfig;
use crate::telemetry::issues::event::Application;
use crate::telemetry::issues::limit::{Limiter, Verdict};
use crate::telemetry::issues::transport::Envelopes;
use crate::telemetry::limits::VALUE_LIMIT;

/// What led to one of our own errors; each thread keeps so many.
const BREADCRUMBS: usize = 20;
/// Ids, which no rule may take for a secret: events without them are nobody's.
const IDS: &[&str] = &["event_id", "trace_id", "span_id", "timestamp"];

/// Makes the client; it starts no thread.
pub(super) fn client(
    config: &IssuesConfig,
    application: &Application,
    redactor: &Arc<Redactor>,
    out: Envelopes,
) -> Client {
    let (redactor, service) = (Arc::clone(redactor), application.service().to_owned());
    let own = Mutex::new(Limiter::new(config.burst, config.interval));
    let mut options = ClientOptions::new()
        .release(concat!("content-factory-sidecar@", env!("CARGO_PKG_VERSION")))
        .send_default_pii(false)
        .default_integrations(false)
        .attach_stacktrace(false)
        .max_breadcrumbs(BREADCRUMBS)
        .before_send(move |event| before_send(event, &redactor, &own, &service))
        .transport(Arc::new(out));
    options.dsn = Some(config.dsn());
    options.environment = application.environment().map(Into::into);
    options.server_name = application.instance().map(Into::into);
    Client::from_config(options)
}

/// The last that sees an event: our own errors are told as rarely as the application's, and nothing leaves unread.
fn before_send(
    mut event: Event<'static>,
    redactor: &Redactor,
    own: &Mutex<Limiter>,
    service: &str,
) -> Option<Event<'static>> {
    if !event.tags.contains_key("service") {
        let issue = format!("{:?} {:?}", event.logger, event.message);
        match own.lock().ok()?.judge(&issue, Instant::now()) {
            Verdict::LeaveOut => return None,
            Verdict::Tell { left_out: 0 } => {}
            Verdict::Tell { left_out } => {
                event.extra.insert("alike_left_out".to_owned(), left_out.into());
            }
        }
        event.tags.insert("service".to_owned(), format!("{service}-sidecar"));
    }
    let mut value = serde_json::to_value(&event).ok()?;
    clean(redactor, "", &mut value);
    serde_json::from_value(value).ok() // what cannot be read again is not sent
}

/// Redacts every text, then cuts what is too long.
fn clean(redactor: &Redactor, key: &str, value: &mut Value) {
    match value {
        Value::String(text) if !IDS.contains(&key) => {
            let cleaned = redactor.field(Outlet::Telemetry, key, text.as_bytes()).cut(VALUE_LIMIT);
            if cleaned.as_str() != text {
                *text = cleaned.as_str().to_owned();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| clean(redactor, key, item)),
        Value::Object(fields) => fields.iter_mut().for_each(|(key, value)| clean(redactor, key, value)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_part_of_an_event_holds_a_secret_or_is_longer_than_a_value_may_be() {
        let redactor = Redactor::new(["hunter2-secret"]);
        let mut event = json!({
            "event_id": "0af7651916cd43dd8448eb211c80319c",
            "message": "http://u:of-nobody@h/?page=2&token=of-nobody",
            "tags": {"http.route": "/made/with/hunter2-secret", "api_key": "of-nobody"},
            "breadcrumbs": [{"data": {"list": ["Authorization: Bearer of-nobody"]}}],
            "extra": {"long": "é".repeat(3_000), "count": 7},
        });
        clean(&redactor, "", &mut event);
        assert_eq!(
            event,
            json!({
                "event_id": "0af7651916cd43dd8448eb211c80319c",
                "message": "http://REDACTED:REDACTED@h/?page=2&token=REDACTED",
                "tags": {"http.route": "/made/with/[REDACTED:secret]", "api_key": "[REDACTED:key]"},
                "breadcrumbs": [{"data": {"list": ["Authorization: [REDACTED:key]"]}}],
                "extra": {"long": "é".repeat(2_047), "count": 7},
            })
        );
    }
}
