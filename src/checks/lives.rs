//! The lives of the application: each begins when it accepts, for the first time or after it was away.
//!
//! While it is away it is tried often, which costs nobody anything; while it is there it is left alone, and the
//! check of it tells when it turned a connection away, its own or a request's. One that does not accept in time is busy,
//! not gone, and a restart between two checks that no request met is not seen. Owns the count.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::lifecycle::Drain;

/// How soon an application that is away is tried again; doubles up to `LONGEST_WAIT`.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// For one connection; a host that drops packets would hold it for minutes.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// Counts the lives of the application.
pub struct Lives {
    /// Host and port.
    target: String,
    /// A moment after which a connection was turned away, as the check of the application saw it.
    refused: watch::Receiver<Option<Instant>>,
    begun: watch::Sender<u64>,
}

impl Lives {
    /// Of the application at this host and port; the reader tells how many lives have begun, 0 until it accepts.
    #[must_use]
    pub fn new(target: String, refused: watch::Receiver<Option<Instant>>) -> (Self, watch::Receiver<u64>) {
        let (begun, reader) = watch::channel(0);
        (Self { target, refused, begun }, reader)
    }

    /// Counts until the process drains. May be called again after a panic, which begins a life.
    pub async fn run(&self, mut drain: Drain) {
        tokio::select! {
            () = self.count() => {}
            _ = drain.begun() => {}
        }
    }

    async fn count(&self) {
        let mut refused = self.refused.clone();
        loop {
            self.accepts().await;
            let accepted = Instant::now();
            self.begun.send_modify(|begun| *begun += 1);
            // an attempt of before, whose end is told late, says nothing of this life
            let is_away = |at: &Option<Instant>| at.is_some_and(|at| at > accepted);
            if refused.wait_for(is_away).await.is_err() {
                return;
            }
        }
    }

    /// Ends once it accepts a connection.
    async fn accepts(&self) {
        let mut wait = FIRST_WAIT;
        while !matches!(timeout(CONNECT_LIMIT, TcpStream::connect(&self.target)).await, Ok(Ok(_))) {
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
}
