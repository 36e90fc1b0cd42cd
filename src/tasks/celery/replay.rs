//! A recording of what a Redis said, heard as the room hears it, without a Redis: for whoever tries what bytes can do.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::model::celery::CeleryState;
use crate::redact::Redactor;
use crate::redis_link::resp::{self, Reply};
use crate::tasks::celery::config::Config;
use crate::tasks::celery::event::TaskIds;
use crate::tasks::celery::glance;
use crate::tasks::celery::listen::Listener;
use crate::tasks::celery::reader::Reader;
use crate::tasks::celery::state::Shared;
use crate::tasks::celery::traces::Traces;

/// What a recording came to.
#[derive(Debug)]
pub struct Heard {
    /// All that is known after it.
    pub state: CeleryState,
    /// Answers that were read.
    pub answers: u64,
    /// Whether it was read to its end: else it holds what is no answer, or one that is cut.
    pub is_whole: bool,
}

/// Reads a recording: what is published is taken in, and all else looked into as messages that wait.
pub async fn replay(recording: &[u8], config: &Config, redactor: Arc<Redactor>) -> Heard {
    let shared = Shared::new(config, &redactor);
    let ids = TaskIds::default();
    let listener = Listener::new(config, 0, ids.clone(), shared.clone());
    let now = Instant::now();
    shared.lock().hears(now);
    shared.lock().ledger.traces = Traces::on();
    let (mut rest, mut answers, mut is_whole) = (recording, 0, true);
    while !rest.is_empty() && is_whole {
        match resp::read(&mut rest).await {
            Ok(Reply::List(parts)) => {
                for sent in parts.iter().filter_map(|part| glance::into(part, &ids)) {
                    shared.lock().ledger.traces.seen(sent.id, sent.context);
                }
                listener.message(parts, None);
                answers += 1;
            }
            Ok(_) => answers += 1,
            Err(_) => is_whole = false,
        }
    }
    // what waits for a better word is counted, what runs is judged, and what has ended is a span
    for turn in 1..=3 {
        shared.lock().tick(now + Duration::from_secs(60 * turn));
    }
    drop(shared.lock().ledger.traces.take());
    let (_, settings) = watch::channel(config.clone());
    Heard { state: Reader::new(shared, settings, redactor).state(), answers, is_whole }
}
