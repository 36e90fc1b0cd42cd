//! The check of the application itself: does it accept, and does what the proxy saw say that it answers?
//!
//! A connection is all that it costs the application; whether it answers is known from real traffic.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::checks::check::{Check, Finding};
use crate::checks::failure::Failure;
use crate::model::health::HealthStatus;
use crate::model::traffic::Totals;
use crate::model::trouble::Trouble;
use crate::redact::Clean;

/// Connects, and compares the traffic with that of the last run.
pub(in crate::checks) struct Application {
    /// Host and port.
    target: String,
    totals: Arc<dyn Fn() -> Totals + Send + Sync>,
    last: Mutex<Look>,
    /// Tells when it was away.
    refused: watch::Sender<Option<Instant>>,
}

/// What a run saw of the traffic, and when it began.
#[derive(Clone, Copy)]
struct Look {
    totals: Totals,
    at: Instant,
}

impl Application {
    /// Checks this host and port; `totals` tells what the proxy saw, and `refused` takes when it was away.
    pub(in crate::checks) fn new(
        target: String,
        totals: Arc<dyn Fn() -> Totals + Send + Sync>,
        refused: watch::Sender<Option<Instant>>,
    ) -> Self {
        let last = Mutex::new(Look { totals: Totals::default(), at: Instant::now() });
        Self { target, totals, last, refused }
    }

    async fn connect(&self, started: Instant) -> Result<(), Failure> {
        let failure = match TcpStream::connect(&self.target).await {
            Ok(_) => return Ok(()),
            Err(error) => Failure::of(&error),
        };
        // a busy application lets one wait; only one that is gone turns everybody away
        if failure.class == Trouble::Refused.into() {
            self.refused.send_replace(Some(started));
        }
        Err(failure)
    }
}

#[async_trait]
impl Check for Application {
    async fn run(&self) -> Result<Finding, Failure> {
        // first, so that what failed in an outage is not held against the time after it
        let now = Look { totals: (self.totals)(), at: Instant::now() };
        let before = std::mem::replace(&mut *self.last.lock().unwrap_or_else(PoisonError::into_inner), now);
        let completed = now.totals.completed.saturating_sub(before.totals.completed);
        let errors = now.totals.errors.saturating_sub(before.totals.errors);
        if now.totals.upstream_refused > before.totals.upstream_refused {
            // a request met a restart that was over before this run; it was sent after the last one
            self.refused.send_replace(Some(before.at));
        }
        self.connect(now.at).await?;
        if errors > 0 && errors >= completed {
            // degraded only: on a quiet day it may be one broken route
            let words = Clean::literal("Application accepts connections, but every request fails");
            return Ok(Finding::Told(HealthStatus::Degraded, words));
        }
        Ok(Finding::Works)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_application_that_accepts_works_unless_all_of_its_traffic_fails() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("port 0 is free");
        let seen = Arc::new(Mutex::new(Totals::default()));
        let reader = seen.clone();
        let totals = Arc::new(move || *reader.lock().expect("no panic while held"));
        let address = listener.local_addr().expect("a bound listener").to_string();
        let (refused, refusals) = watch::channel(None);
        let check = Application::new(address, totals, refused);
        let degraded = |finding| matches!(finding, Ok(Finding::Told(HealthStatus::Degraded, _)));
        for (completed, errors, expected) in [(0, 0, false), (5, 5, true), (5, 5, false), (9, 6, false), (10, 7, true)]
        {
            *seen.lock().expect("no panic while held") = Totals { completed, errors, ..Totals::default() };
            assert_eq!(degraded(check.run().await), expected, "{completed} {errors}");
        }
        assert_eq!(*refusals.borrow(), None);
        let before = Instant::now();
        assert_eq!(check.run().await, Ok(Finding::Works));
        let between = Instant::now();
        seen.lock().expect("no panic while held").upstream_refused = 1;
        assert!(check.run().await.is_ok(), "it is back already");
        let at = refusals.borrow().expect("the traffic saw it away");
        assert!(before <= at && at <= between, "not before the run that the refusal followed");
        drop(listener);
        *seen.lock().expect("no panic while held") = Totals { completed: 30, errors: 27, ..Totals::default() };
        assert_eq!(check.run().await.map_err(|failure| failure.class), Err(Trouble::Refused.into()));
        assert!(refusals.borrow().is_some_and(|at| at > between), "it was seen away again");
        let _again = tokio::net::TcpListener::bind(&check.target).await.expect("the port is free again");
        assert_eq!(check.run().await, Ok(Finding::Works), "what failed in the outage is past");
    }
}
