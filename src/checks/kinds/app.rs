//! The check that asks the application's own `/health`, and passes its word on.
//!
//! Each call costs the application its event loop for a while, so it is made seldom, and only when it is asked for. Of the
//! answer the words of status are told, and the names of the services that are not well; never its texts, which may hold
//! anything.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Client;
use serde_json::Value;

use crate::checks::check::{Check, Finding};
use crate::checks::failure::{Class, Failure};
use crate::checks::plan::{Kind, Plan, Reading};
use crate::checks::service::Pace;
use crate::fetch::{self, NoDocument};
use crate::model::health::HealthStatus;
use crate::model::trouble::Trouble;
use crate::redact::{Clean, Outlet, Redactor};
use crate::settings::show_duration;

/// Asks.
struct App {
    client: Client,
    url: String,
    redactor: Arc<Redactor>,
}

pub(super) const KIND: Kind = Kind {
    word: "app",
    about: "the application's own /health, passed on",
    pace: Pace::seconds(60, 15).at_once(),
    read,
};

/// What it costs the application is told in `docs/configuration.md`.
const SHORTEST: Duration = Duration::from_secs(60);
const LARGEST_BODY: usize = 64 * 1024;
/// Names that are told.
const MOST_NAMES: usize = 8;
const LONGEST_NAME: usize = 40;

fn read(reading: &mut Reading<'_, '_>) -> Option<Plan> {
    let about =
        "The page that tells. Its period is 60s at least: in many applications an answer holds up the event loop.";
    let path = reading.section.text("path", "/health", about);
    if !path.starts_with('/') {
        reading.section.problem("path", &path, "a path that begins with a slash, such as /health");
    }
    let timeout = reading.timeout;
    if reading.period < SHORTEST {
        reading.section.problem(
            "period",
            show_duration(reading.period),
            "60s or more: each call holds the application up",
        );
    }
    Some(Plan::perhaps(move |means| {
        let url = format!("http://{}{path}", means.application.as_ref()?);
        Some(App { client: fetch::client(timeout).ok()?, url, redactor: means.redactor.clone() })
    }))
}

#[async_trait]
impl Check for App {
    async fn run(&self) -> Result<Finding, Failure> {
        let body = fetch::document(&self.client, &self.url, LARGEST_BODY).await.map_err(|none| match none {
            NoDocument::NoAnswer(error) if error.is_timeout() => Failure::plain(Trouble::Timeout),
            NoDocument::NoAnswer(error) => Failure::of(&error),
            NoDocument::Status(status) => Failure::plain(Class::Status(status)),
            NoDocument::TooLarge => Failure::plain(Class::Condition("body_too_large")),
        })?;
        let document: Value = serde_json::from_slice(&body).map_err(|error| Failure::of(&error))?;
        finding(&document, &self.redactor)
    }
}

fn finding(document: &Value, redactor: &Redactor) -> Result<Finding, Failure> {
    let word = |value: &Value| {
        let word = value.get("status").and_then(Value::as_str)?;
        HealthStatus::ALL.into_iter().find(|status| status.label() == word)
    };
    let status = word(document).ok_or(Failure::new(Trouble::Protocol, "no status that is known"))?;
    let services = document.get("services").and_then(Value::as_object).into_iter().flatten();
    let sick = services.filter(|(_, service)| word(service).is_some_and(|word| word > HealthStatus::Healthy));
    let names = sick.take(MOST_NAMES).enumerate().flat_map(|(turn, (name, _))| {
        let name: String = name.chars().filter(|c| !c.is_control()).take(LONGEST_NAME).collect();
        let name = redactor.text(Outlet::Endpoint, name.as_bytes()).into_owned();
        [Clean::literal(if turn == 0 { ": " } else { ", " }), name]
    });
    let lead = [Clean::literal("application says "), Clean::literal(status.label())];
    Ok(Finding::Told(status, Clean::concat(&lead.into_iter().chain(names).collect::<Vec<_>>())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(document: Value) -> Result<(HealthStatus, String), Class> {
        match finding(&document, &Redactor::new(["hunter2-hunter2"])) {
            Ok(Finding::Told(status, words)) => Ok((status, words.to_string())),
            Ok(Finding::Works) => panic!("it has words of its own"),
            Err(failure) => Err(failure.class),
        }
    }

    #[test]
    fn its_word_and_the_names_of_what_is_not_well_are_passed_on_and_no_text() {
        let services = json!({
            "database": {"status": "unhealthy", "message": "postgresql://u:hunter2-hunter2@db refused"},
            "redis": {"status": "healthy"}, "hunter2-hunter2\n": {"status": "degraded"}, "odd": 5,
        });
        assert_eq!(
            told(json!({"status": "degraded", "services": services})),
            Ok((HealthStatus::Degraded, "application says degraded: database, [REDACTED:secret]".into()))
        );
        assert_eq!(told(json!({"status": "healthy"})), Ok((HealthStatus::Healthy, "application says healthy".into())));
        for document in [json!({"error": "x"}), json!([1]), json!({"status": "fine"}), json!({"status": 1})] {
            assert_eq!(told(document), Err(Trouble::Protocol.into()));
        }
    }
}
