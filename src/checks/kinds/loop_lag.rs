//! The check of the application's event loop: the kernel accepts a connection, but a cheap answer takes long.
//!
//! Asks the application itself, not through the proxy: it is no traffic, and is not counted.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::Client;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::checks::check::{Check, Finding};
use crate::checks::failure::Failure;
use crate::checks::plan::{Kind, Plan, Reading};
use crate::checks::service::Pace;
use crate::fetch;
use crate::model::health::HealthStatus;
use crate::redact::Clean;
use crate::settings::show_duration;

/// Connects, then asks.
struct LoopLag {
    /// Host and port.
    target: String,
    url: String,
    client: Client,
    above: Duration,
}

pub(super) const KIND: Kind = Kind {
    word: "loop_lag",
    about: "the application's event loop: connections are accepted, but a cheap answer takes long",
    pace: Pace::seconds(15, 5),
    read,
};

fn read(reading: &mut Reading<'_, '_>) -> Option<Plan> {
    let about = "A page that costs the application nothing; whatever it answers counts as an answer.";
    let path = reading.section.text("path", "/", about);
    if !path.starts_with('/') {
        reading.section.problem("path", &path, "a path that begins with a slash, such as /");
    }
    let about = "An answer that takes longer means that the event loop is held up; below the timeout.";
    let above = reading.section.duration("above", Duration::from_secs(1), about);
    if above >= reading.timeout || above.is_zero() {
        reading.section.problem("above", show_duration(above), "a duration above 0 and below the timeout");
    }
    Some(Plan::perhaps(move |means| {
        let target = means.application.clone()?;
        let url = format!("http://{target}{path}");
        Some(LoopLag { client: fetch::client(above).ok()?, url, target, above })
    }))
}

#[async_trait]
impl Check for LoopLag {
    async fn run(&self) -> Result<Finding, Failure> {
        // the kernel accepts for a process whose loop stands still; who is not there at all is the other check's concern
        TcpStream::connect(&self.target).await.map_err(|error| Failure::of(&error))?;
        match timeout(self.above, self.client.get(&self.url).send()).await {
            Ok(Ok(_)) => Ok(Finding::Works),
            Ok(Err(error)) if !error.is_timeout() => Err(Failure::of(&error.without_url())),
            _ => {
                let words = "application accepts, but a cheap answer takes too long: its event loop is held up";
                Ok(Finding::Told(HealthStatus::Degraded, Clean::literal(words)))
            }
        }
    }
}
