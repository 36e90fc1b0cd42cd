//! The connection on which Celery is heard: what is published is read, counted and gone.
//!
//! There is no queue of ours in between: what is not read in time waits in the server's buffer for this client, which is
//! bounded, and whose overflow ends the connection. Whatever ends it, the gap is counted, and a new connection is opened
//! with growing waits.

use std::convert::Infallible;
use std::time::Duration;

use redis::{ConnectionInfo, cmd};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep, timeout};

use crate::lifecycle::{Drain, Pulse};
use crate::model::lease::{Heard, Marks};
use crate::redis_link::resp::{self, Reply};
use crate::redis_link::{Arrival, Incoming, Link, LinkError, Outgoing};
use crate::tasks::celery::config::Config;
use crate::tasks::celery::event::TaskIds;
use crate::tasks::celery::state::Shared;
use crate::tasks::celery::wire::{self, Refusal};

/// The server is asked for a sign of life this often, and given up when none has come for `SILENCE`.
const PING: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(12);
/// All subscriptions together.
const SUBSCRIBE_LIMIT: Duration = Duration::from_secs(3);
/// Waits before a new connection double from the first to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// What stands before the id of a task in the channel of its result.
const RESULTS: &str = "celery-task-meta-";
/// What is not allowed where marks of the lease may not be heard.
const MARKS: &str = "marks";

/// Listens, for as long as the room lives.
pub(super) struct Listener {
    shared: Shared,
    channels: Channels,
    ids: TaskIds,
}

/// The patterns that are subscribed to.
struct Channels {
    events: String,
    /// kombu before 5.4 does not put the database into its names on Sentinel.
    events_of_old: String,
    results: String,
    results_prefix: String,
}

impl Channels {
    fn new(config: &Config, database: i64) -> Self {
        let Config { key_prefix: prefix, event_exchange: exchange, .. } = config;
        Self {
            events: format!("{prefix}/{database}.{exchange}/*"),
            events_of_old: format!("{prefix}/{{db}}.{exchange}/*"),
            results: format!("{prefix}{RESULTS}*"),
            results_prefix: format!("{prefix}{RESULTS}"),
        }
    }
}

impl Listener {
    /// Listens to what this configuration names.
    pub(super) fn new(config: &Config, database: i64, ids: TaskIds, shared: Shared) -> Self {
        Self { channels: Channels::new(config, database), ids, shared }
    }

    /// Listens until the process drains.
    pub(super) async fn run(&self, server: &ConnectionInfo, marks: Option<&Marks>, mut drain: Drain) {
        let mut wait = FIRST_WAIT;
        loop {
            let ended = tokio::select! {
                ended = self.listen(server, marks) => ended,
                _ = drain.begun() => return,
            };
            let Err(error) = ended;
            let problem = error.class();
            let lasted = self.shared.lock().hearing.up_since().map(|since| since.elapsed());
            if lasted.is_some_and(|lasted| lasted > LONGEST_WAIT) {
                wait = FIRST_WAIT;
            }
            tracing::debug!(class = problem, "Celery is not heard");
            self.shared.lock().deaf(problem, Instant::now());
            if let Some(marks) = marks.filter(|_| lasted.is_some()) {
                (marks.heard)(Heard::Gap);
            }
            tokio::select! {
                () = sleep(wait) => {}
                _ = drain.begun() => return,
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Opens a connection, and follows it to its end; gives why it ended.
    async fn listen(&self, server: &ConnectionInfo, marks: Option<&Marks>) -> Result<Infallible, LinkError> {
        let (mut incoming, mut outgoing) = Link::open(server, Arrival::Gathered).await?.into_halves();
        let subscribed = self.subscribe(&mut incoming, &mut outgoing, marks);
        timeout(SUBSCRIBE_LIMIT, subscribed).await.map_err(|_| LinkError::Late)??;
        self.shared.lock().hears(Instant::now());
        let heard = Pulse::new("celery");
        // two futures, because an answer that is half read must not be dropped for a timer
        tokio::select! {
            ended = self.read(&mut incoming, marks, &heard) => ended,
            ended = keep_alive(&mut outgoing, &heard) => ended,
        }
    }

    /// Subscribes to events, and to the rest as far as the server allows it; messages come in between already.
    async fn subscribe(
        &self,
        incoming: &mut Incoming,
        outgoing: &mut Outgoing,
        marks: Option<&Marks>,
    ) -> Result<(), LinkError> {
        let Channels { events, events_of_old, results, .. } = &self.channels;
        let wanted = [(Some("events"), events), (Some("results"), results), (None, events_of_old)];
        let wanted = || wanted.into_iter().chain(marks.map(|marks| (Some(MARKS), &marks.channel)));
        // one by one, because one that is not allowed refuses all
        for (_, pattern) in wanted() {
            outgoing.write_all(&cmd("PSUBSCRIBE").arg(pattern).get_packed_command()).await?;
        }
        outgoing.flush().await?;
        for (what, _) in wanted() {
            loop {
                match resp::read(incoming).await? {
                    Reply::List(parts) if parts.first() == Some(&Reply::Text(b"psubscribe".to_vec())) => break,
                    Reply::List(parts) => self.message(parts, marks),
                    Reply::Error(word) if what == Some("events") => return Err(LinkError::Refused(word)),
                    Reply::Error(_) => {
                        what.into_iter().for_each(|what| self.shared.lock().may_not(what));
                        if let Some(marks) = marks.filter(|_| what == Some(MARKS)) {
                            (marks.heard)(Heard::Refused);
                        }
                        break;
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    async fn read(
        &self,
        incoming: &mut Incoming,
        marks: Option<&Marks>,
        heard: &Pulse,
    ) -> Result<Infallible, LinkError> {
        loop {
            let reply = resp::read(incoming).await?;
            heard.beat();
            match reply {
                Reply::List(parts) => self.message(parts, marks),
                Reply::Error(word) => return Err(LinkError::Refused(word)),
                Reply::Word | Reply::Number(_) | Reply::Text(_) | Reply::TooLong | Reply::Nothing => {}
            }
        }
    }

    /// A published message, or an answer to one of our pings.
    pub(super) fn message(&self, parts: Vec<Reply>, marks: Option<&Marks>) {
        let Ok([Reply::Text(kind), _, Reply::Text(channel), payload]) = <[Reply; 4]>::try_from(parts) else { return };
        if kind != b"pmessage" {
            return;
        }
        if let Some(marks) = marks.filter(|marks| marks.channel.as_bytes() == channel) {
            mark_of(&payload).into_iter().for_each(|number| (marks.heard)(Heard::Mark(number)));
            return;
        }
        let id = channel.strip_prefix(self.channels.results_prefix.as_bytes()).map(String::from_utf8_lossy);
        let read = match (&payload, &id) {
            (Reply::Text(payload), Some(id)) => wire::result(id, payload, &self.ids).map(Vec::from_iter),
            (Reply::Text(payload), None) => wire::events(payload, &self.ids),
            _ => Err(Refusal::TooLong),
        };
        let now = Instant::now();
        let mut state = self.shared.lock();
        state.messages += 1;
        match read {
            Ok(events) => {
                state.is_found = true;
                events.into_iter().for_each(|event| state.ledger.take(event, now));
            }
            Err(refusal) => state.refused[refusal as usize] += 1,
        }
    }
}

/// The number of a mark.
fn mark_of(payload: &Reply) -> Option<u64> {
    let Reply::Text(number) = payload else { return None };
    std::str::from_utf8(number).ok()?.parse().ok()
}

/// Asks for signs of life, and ends when there are none.
async fn keep_alive(outgoing: &mut Outgoing, heard: &Pulse) -> Result<Infallible, LinkError> {
    let ping = cmd("PING").get_packed_command();
    loop {
        sleep(PING).await;
        if heard.age() > SILENCE {
            return Err(LinkError::Late);
        }
        let sent = async {
            outgoing.write_all(&ping).await?;
            outgoing.flush().await
        };
        timeout(PING, sent).await.map_err(|_| LinkError::Late)??;
    }
}
