//! The check of the application itself: does it accept, and does what the proxy saw say that it answers?
//!
//! A connection is all that it costs the application; whether it answers is known from real traffic.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::checks::check::{Check, Finding};
use crate::checks::failure::{Class, Failure};
use crate::model::health::HealthStatus;
use crate::model::traffic::Totals;
use crate::redact::Clean;

/// Connects, and compares the traffic with that of the last run.
pub(super) struct Application {
    /// Host and port.
    target: String,
    totals: Arc<dyn Fn() -> Totals + Send + Sync>,
    completed: AtomicU64,
    errors: AtomicU64,
    /// Tells when it was away.
    refused: watch::Sender<Option<Instant>>,
}

impl Application {
    /// Checks this host and port; `totals` tells what the proxy saw, and `refused` takes when it was away.
    pub(super) fn new(
        target: String,
        totals: Arc<dyn Fn() -> Totals + Send + Sync>,
        refused: watch::Sender<Option<Instant>>,
    ) -> Self {
        Self { target, totals, completed: AtomicU64::new(0), errors: AtomicU64::new(0), refused }
    }

    async fn connect(&self) -> Result<(), Failure> {
        let started = Instant::now();
        let failure = match TcpStream::connect(&self.target).await {
            Ok(_) => return Ok(()),
            Err(error) => Failure::of(&error),
        };
        // a busy application lets one wait; only one that is gone turns everybody away
        if failure.class == Class::Refused {
            self.refused.send_replace(Some(started));
        }
        Err(failure)
    }
}

#[async_trait]
impl Check for Application {
    async fn run(&self) -> Result<Finding, Failure> {
        // first, so that what failed in an outage is not held against the time after it
        let totals = (self.totals)();
        let completed = totals.completed.saturating_sub(self.completed.swap(totals.completed, Ordering::Relaxed));
        let errors = totals.errors.saturating_sub(self.errors.swap(totals.errors, Ordering::Relaxed));
        self.connect().await?;
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
    use std::sync::Mutex;

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
        drop(listener);
        *seen.lock().expect("no panic while held") = Totals { completed: 30, errors: 27, ..Totals::default() };
        assert_eq!(check.run().await.map_err(|failure| failure.class), Err(Class::Refused));
        assert!(refusals.borrow().is_some(), "it was seen away");
        let _again = tokio::net::TcpListener::bind(&check.target).await.expect("the port is free again");
        assert_eq!(check.run().await, Ok(Finding::Works), "what failed in the outage is past");
    }
}
