//! The connection on which queues are read and workers are told and asked: a pipeline now and then, each with a limit.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use redis::{ConnectionInfo, Pipeline, cmd};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::lifecycle::Drain;
use crate::redis_link::resp::Reply;
use crate::redis_link::{Arrival, Link, LinkError};
use crate::tasks::celery::board::{Depth, Depths, MOST_QUEUES};
use crate::tasks::celery::config::Config;
use crate::tasks::celery::control::Control;
use crate::tasks::celery::event::TaskIds;
use crate::tasks::celery::glance;
use crate::tasks::celery::state::Shared;
use crate::tasks::celery::wire;
use crate::wall_clock::since_epoch;

/// What is due is looked for this often.
const TURN: Duration = Duration::from_secs(1);
/// Waits before a new connection double from the first to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// Queues are looked for this often, in so many steps of so many keys: a Redis may hold millions.
const DISCOVERY: Duration = Duration::from_secs(60);
const STEPS: usize = 50;
const KEYS: usize = 1_000;
/// Bindings whose queues are read in one discovery.
const MOST_BINDINGS: usize = 100;
/// Workers answer within a second or not at all.
const ANSWERS_LIMIT: Duration = Duration::from_secs(2);
/// `BRPOP` itself ends after a second.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// What separates the parts of a binding and the priority of a list.
const SEPARATOR: &str = "\u{6}\u{16}";

/// Reads, tells and asks, for as long as the room lives.
pub(super) struct Desk {
    shared: Shared,
    control: Control,
    settings: watch::Receiver<Config>,
    /// The settings in force.
    config: Config,
    /// Tells heads of queues apart without keeping them.
    hash: RandomState,
    ids: TaskIds,
}

/// What one connection has found and when.
struct Visit {
    link: Link,
    queues: Vec<String>,
    discovered: Option<Instant>,
    read: Option<Instant>,
    asked: Option<Instant>,
    /// Messages on the other connection when waiting ones were last looked at.
    messages: u64,
    may_tell: bool,
    may_ask: bool,
}

impl Desk {
    /// For these settings, as they are and as they will be.
    pub(super) fn new(settings: watch::Receiver<Config>, database: i64, ids: TaskIds, shared: Shared) -> Self {
        let config = settings.borrow().clone();
        let control = Control::new(&config.key_prefix, database, &config.control_exchange);
        Self { shared, control, settings, config, hash: RandomState::new(), ids }
    }

    /// Works until the process drains.
    pub(super) async fn run(&mut self, server: &ConnectionInfo, mut drain: Drain) {
        let mut wait = FIRST_WAIT;
        loop {
            let opened = Instant::now();
            self.config = self.settings.borrow_and_update().clone();
            let ended = tokio::select! {
                ended = self.visit(server) => ended,
                _ = drain.begun() => return,
            };
            let Err(error) = ended else { continue };
            self.shared.lock().glances.failed();
            tracing::debug!(class = error.class(), "the queues of Celery cannot be read");
            self.shared.lock().asking.failed(error.class(), Instant::now());
            wait = if opened.elapsed() > LONGEST_WAIT { FIRST_WAIT } else { wait };
            tokio::select! {
                () = sleep(wait) => {}
                _ = drain.begun() => return,
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Ends between two turns, when there are other settings.
    async fn visit(&self, server: &ConnectionInfo) -> Result<(), LinkError> {
        let link = Link::open(server, Arrival::Told).await?;
        self.shared.lock().asking.opened(Instant::now());
        let Config { queues, enable_events, ask_consumers, .. } = &self.config;
        let mut visit = Visit {
            link,
            queues: queues.clone(),
            discovered: None,
            read: None,
            asked: None,
            messages: 0,
            may_tell: *enable_events,
            may_ask: *ask_consumers,
        };
        if visit.may_tell {
            self.tell(&mut visit, &[]).await?;
        }
        let mut turns = interval(TURN);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            if self.settings.has_changed().unwrap_or(false) {
                return Ok(());
            }
            self.turn(&mut visit, Instant::now()).await?;
        }
    }

    async fn turn(&self, visit: &mut Visit, now: Instant) -> Result<(), LinkError> {
        let is_due = |last, period| is_due(last, period, now);
        if visit.may_tell {
            let hosts = self.shared.lock().ledger.workers.due_for_asking(now);
            if !hosts.is_empty() {
                let hosts: Vec<&str> = hosts.iter().map(|host| &**host).collect();
                self.tell(visit, &hosts).await?;
            }
        }
        if is_due(visit.discovered, DISCOVERY) {
            self.discover(visit).await?;
            visit.discovered = Some(now);
        }
        self.look(visit, now).await?;
        if is_due(visit.read, self.config.period) {
            let depths = self.depths(visit).await?;
            let mut state = self.shared.lock();
            state.is_found |= depths.queues.iter().any(|queue| queue.messages > 0);
            state.board.read(depths, Instant::now());
            visit.read = Some(now);
        }
        if visit.may_ask && is_due(visit.asked, self.config.consumers_period) {
            visit.asked = Some(now);
            self.ask(visit).await?;
        }
        Ok(())
    }

    /// Looks into messages that wait: with each reading, and after each turn in which something went on.
    async fn look(&self, visit: &mut Visit, now: Instant) -> Result<(), LinkError> {
        let prefix = &self.config.key_prefix;
        let lists: Vec<String> = {
            let mut state = self.shared.lock();
            let news = state.messages != visit.messages && state.ledger.traces.is_on();
            visit.messages = state.messages;
            if !(news || is_due(visit.read, self.config.period, now)) || !state.glances.begun() {
                return Ok(());
            }
            let waiting = state.board.queues().filter(|(_, queue)| queue.messages > 0 && news);
            waiting.map(|(name, _)| format!("{prefix}{name}")).collect()
        };
        let seen = glance::look(&mut visit.link, &format!("{prefix}unacked"), &lists, &self.ids).await?;
        let mut state = self.shared.lock();
        state.glances.succeeded();
        seen.sent.into_iter().for_each(|sent| state.ledger.traces.seen(sent.id, sent.context));
        state.board.unacked_by_queue = seen.unacked;
        if let Some(what) = seen.refused {
            state.may_not(what);
            state.glances.refused();
        }
        Ok(())
    }

    /// Tells workers to send the events of tasks.
    async fn tell(&self, visit: &mut Visit, hosts: &[&str]) -> Result<(), LinkError> {
        match visit.link.order(&self.control.enable_events(hosts, since_epoch().as_secs_f64())).await {
            Err(LinkError::Refused(_)) => {
                visit.may_tell = false;
                self.shared.lock().may_not("enable_events");
                Ok(())
            }
            other => other,
        }
    }

    /// Asks the workers what they consume, and leaves nothing behind.
    async fn ask(&self, visit: &mut Visit) -> Result<(), LinkError> {
        let mut consumed = BTreeMap::new();
        let alive = self.shared.lock().alive(Instant::now());
        let answered = self.answers(visit, alive.len(), &mut consumed).await;
        let closed = visit.link.ask(&self.control.close()).await.map(drop);
        let now = Instant::now();
        match answered {
            Err(LinkError::Refused(_)) => {
                visit.may_ask = false;
                let mut state = self.shared.lock();
                state.may_not("ask_consumers");
                state.board.forget_consumers(now);
            }
            other => {
                other?;
                self.shared.lock().board.consume(consumed, &alive, now);
            }
        }
        closed
    }

    async fn answers(
        &self,
        visit: &mut Visit,
        expected: usize,
        consumed: &mut BTreeMap<String, Vec<String>>,
    ) -> Result<(), LinkError> {
        let until = Instant::now() + ANSWERS_LIMIT;
        visit.link.order(&self.control.open()).await?;
        visit.link.order(&self.control.ask_queues(since_epoch().as_secs_f64())).await?;
        while Instant::now() < until && (expected == 0 || consumed.len() < expected) {
            match visit.link.await_answer(&self.control.next(), ANSWER_LIMIT).await? {
                Reply::Error(word) => return Err(LinkError::Refused(word)),
                Reply::List(parts) => {
                    if let Some(Reply::Text(answer)) = parts.get(1) {
                        consumed.extend(wire::active_queues(answer).unwrap_or_default());
                    }
                }
                _ => {}
            }
            visit.link.order(&self.control.expire()).await?;
        }
        Ok(())
    }

    /// Looks for queues: whatever an exchange is bound to.
    async fn discover(&self, visit: &mut Visit) -> Result<(), LinkError> {
        let prefix = &self.config.key_prefix;
        let (mut cursor, mut bindings) = ("0".to_owned(), Vec::new());
        for _ in 0..STEPS {
            let mut scan = Pipeline::new();
            scan.cmd("SCAN").arg(&cursor).arg("MATCH").arg(format!("{prefix}_kombu.binding.*")).arg("COUNT").arg(KEYS);
            let mut parts = match visit.link.ask(&scan).await?.pop() {
                Some(Reply::List(parts)) => parts.into_iter(),
                _ => break,
            };
            cursor = parts.next().and_then(text).unwrap_or_default();
            if let Some(Reply::List(keys)) = parts.next() {
                bindings.extend(keys.into_iter().filter_map(text).filter(|key| is_of_queues(key, prefix)));
            }
            if cursor == "0" || bindings.len() >= MOST_BINDINGS {
                break;
            }
        }
        bindings.truncate(MOST_BINDINGS);
        let mut members = Pipeline::new();
        for binding in &bindings {
            members.cmd("SMEMBERS").arg(binding);
        }
        let found = if bindings.is_empty() { Vec::new() } else { visit.link.ask(&members).await? };
        let found = found.into_iter().filter_map(|reply| match reply {
            Reply::List(members) => Some(members),
            _ => None,
        });
        let names = found.flatten().filter_map(text).filter_map(|member| queue_of(&member));
        for name in names {
            if !visit.queues.contains(&name) && visit.queues.len() < MOST_QUEUES {
                visit.queues.push(name);
            }
        }
        if !bindings.is_empty() {
            self.shared.lock().is_found = true;
        }
        Ok(())
    }

    /// Reads how long each queue is, and what stands at its head.
    async fn depths(&self, visit: &mut Visit) -> Result<Depths, LinkError> {
        let Config { key_prefix: prefix, priority_steps: steps, .. } = &self.config;
        let list = |queue: &str, step: u8| match step {
            0 => format!("{prefix}{queue}"),
            step => format!("{prefix}{queue}{SEPARATOR}{step}"),
        };
        let lists: Vec<Vec<String>> =
            visit.queues.iter().map(|queue| steps.iter().map(|step| list(queue, *step)).collect()).collect();
        let mut lengths = Pipeline::new();
        for list in lists.iter().flatten() {
            lengths.cmd("LLEN").arg(list);
        }
        lengths.cmd("HLEN").arg(format!("{prefix}unacked"));
        lengths.cmd("ZRANGE").arg(format!("{prefix}unacked_index")).arg(0).arg(0).arg("WITHSCORES");
        let mut replies = visit.link.ask(&lengths).await?;
        let oldest_unacked = replies.pop().and_then(score);
        let unacked = replies.pop().and_then(number);
        let mut heads = Pipeline::new();
        let mut depths = Vec::new();
        for ((name, lists), lengths) in visit.queues.iter().zip(&lists).zip(replies.chunks(steps.len())) {
            // one that may not be read is not shown as empty
            let lengths: Vec<Option<u64>> = lengths.iter().cloned().map(number).collect();
            let Some(messages) = lengths.iter().copied().sum::<Option<u64>>() else {
                self.shared.lock().may_not("queues");
                continue;
            };
            if let Some((list, _)) = lists.iter().zip(&lengths).find(|(_, length)| **length > Some(0)) {
                heads.add_command(head_of(list));
            }
            depths.push(Depth { name: name.clone(), messages, head: None });
        }
        if !heads.is_empty() {
            let mut heads = visit.link.ask(&heads).await?.into_iter();
            for depth in depths.iter_mut().filter(|depth| depth.messages > 0) {
                depth.head = heads.next().and_then(|reply| self.told_apart(&reply));
            }
        }
        Ok(Depths { queues: depths, unacked, oldest_unacked })
    }

    /// What tells a message from others; of one that is too long to be read only that.
    fn told_apart(&self, head: &Reply) -> Option<u64> {
        match head {
            Reply::Text(message) => Some(self.hash.hash_one(message)),
            Reply::TooLong => Some(0),
            _ => None,
        }
    }
}

fn is_due(last: Option<Instant>, period: Duration, now: Instant) -> bool {
    last.is_none_or(|last| now.duration_since(last) >= period)
}

fn head_of(list: &str) -> redis::Cmd {
    let mut head = cmd("LINDEX");
    head.arg(list).arg(-1);
    head
}

/// Whether the exchange of a binding is one of tasks, and not kombu's own.
fn is_of_queues(key: &str, prefix: &str) -> bool {
    let exchange = key.strip_prefix(prefix).and_then(|key| key.strip_prefix("_kombu.binding."));
    exchange.is_some_and(|exchange| !exchange.ends_with(".pidbox") && !exchange.starts_with("reply."))
}

/// The queue of a binding: routing key, pattern, queue.
fn queue_of(member: &str) -> Option<String> {
    let queue = member.rsplit(SEPARATOR).next().filter(|queue| !queue.is_empty() && queue.len() <= 120)?;
    let is_own = queue.ends_with(".pidbox") || queue.starts_with("celeryev.") || queue.contains(".reply.");
    (!is_own).then(|| queue.to_owned())
}

fn text(reply: Reply) -> Option<String> {
    match reply {
        Reply::Text(text) => String::from_utf8(text).ok(),
        _ => None,
    }
}

fn number(reply: Reply) -> Option<u64> {
    match reply {
        // more than any list holds: sums of it must not overflow
        Reply::Number(number) => u64::try_from(number).ok().map(|number| number.min(1 << 48)),
        _ => None,
    }
}

/// The score of the first of a sorted set.
fn score(reply: Reply) -> Option<f64> {
    match reply {
        Reply::List(parts) => text(parts.into_iter().nth(1)?)?.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_found_behind_their_bindings_and_kombus_own_are_not() {
        assert!(is_of_queues("_kombu.binding.main-queue", "") && is_of_queues("x:_kombu.binding.q", "x:"));
        for key in
            ["_kombu.binding.celery.pidbox", "_kombu.binding.reply.celery.pidbox", "_kombu.binding_permanent.q", "q"]
        {
            assert!(!is_of_queues(key, ""), "{key}");
        }
        assert_eq!(queue_of("main-queue\u{6}\u{16}\u{6}\u{16}main-queue").as_deref(), Some("main-queue"));
        for member in [
            "\u{6}\u{16}\u{6}\u{16}w1@vm.celery.pidbox",
            "a\u{6}\u{16}\u{6}\u{16}",
            "worker.#\u{6}\u{16}\u{6}\u{16}celeryev.7b1",
        ] {
            assert_eq!(queue_of(member), None, "{member}");
        }
    }
}
