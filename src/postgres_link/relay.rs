//! Carries bytes between the driver and the server while somebody waits for an answer, and lets no more through than an answer may have.
//!
//! Is polled with the question, in its task: there is none of its own, and what a server says unasked stays with the kernel.

use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::{Context, Poll};

use tokio::net::UnixStream;

use crate::postgres_link::frames::Frames;
use crate::postgres_link::lane::Lane;
use crate::postgres_link::server::Stream;

/// Of a question, in bytes: the longest of ours have fifty rows.
const ANSWER: u64 = 1 << 20;

/// Both ends, and what is between them.
pub(crate) struct Relay {
    server: Box<dyn Stream>,
    driver: UnixStream,
    down: Lane,
    up: Lane,
    frames: Frames,
    /// Why the connection ended, until it is told.
    fault: Option<io::Error>,
}

impl Relay {
    /// Between this server and this driver.
    pub(super) fn new(server: Box<dyn Stream>, driver: UnixStream) -> Self {
        let (down, up) = (Lane::new(), Lane::new());
        Self { server, driver, down, up, frames: Frames::new(), fault: None }
    }

    /// Waits for the answer to a question that was made with this link's connection. A future that is dropped leaves a
    /// connection of no use.
    ///
    /// # Errors
    /// Those of the question, or why the connection ended: an answer beyond its bounds is one reason.
    pub(crate) async fn answer<T>(
        &mut self,
        question: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        self.carry(ANSWER, question).await
    }

    /// Carries until the question is answered, by at most so many bytes.
    ///
    /// # Errors
    /// Those of the question; when the connection ended, the reason for it. After all but a refusal by the server the connection
    /// is of no use.
    pub(super) async fn carry<T>(
        &mut self,
        most: u64,
        question: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        self.frames.allow(most);
        let mut question = pin!(question);
        let answer = poll_fn(|context| {
            self.turn(context);
            // the driver indexes into whatever the server says, and takes its word for lengths within a message
            catch_unwind(AssertUnwindSafe(|| question.as_mut().poll(context)))
                .unwrap_or_else(|_| Poll::Ready(Err(sqlx::Error::Protocol("the driver cannot read this".into()))))
        });
        match (answer.await, self.fault.take()) {
            // to the driver that is an end like any other
            (Err(sqlx::Error::Io(_)), Some(fault)) => Err(sqlx::Error::Io(fault)),
            (answer, fault) => {
                self.fault = fault;
                answer
            }
        }
    }

    fn turn(&mut self, context: &mut Context<'_>) {
        let Self { server, driver, down, up, frames, fault } = self;
        let judge =
            |bytes: &[u8]| frames.pass(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
        let outcomes = [down.poll(context, server, driver, judge), up.poll(context, driver, server, |_| Ok(()))];
        for outcome in outcomes {
            if let Poll::Ready(Err(error)) = outcome {
                fault.get_or_insert(error);
            }
        }
    }
}
