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
