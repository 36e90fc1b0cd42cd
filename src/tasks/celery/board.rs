//! The queues: how long each is, who consumes it, and what is wrong with that. Pure: time is an argument.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// Queues that are shown; those of the configuration come first.
pub(super) const MOST_QUEUES: usize = 50;

/// What a reading of Redis gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Depths {
    pub(super) queues: Vec<Depth>,
    /// Messages that workers have taken and not acknowledged; `None` when it may not be read.
    pub(super) unacked: Option<u64>,
    /// When the oldest of them was taken, in seconds since the Unix epoch.
    pub(super) oldest_unacked: Option<f64>,
}

/// One queue of a reading.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Depth {
    pub(super) name: String,
    /// Over all priorities.
    pub(super) messages: u64,
    /// What tells the next message from others.
    pub(super) head: Option<u64>,
}

/// A queue.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    pub(super) messages: u64,
    /// Live workers that consume it; `None` as long as they could not be asked.
    pub(super) consumers: Option<u64>,
    head: Option<(u64, Instant)>,
    unserved_since: Option<Instant>,
}

impl Queue {
    /// How long its next message has been the next.
    pub(super) fn head_age(&self, now: Instant) -> Duration {
        self.head.map_or(Duration::ZERO, |(_, since)| now.saturating_duration_since(since))
    }

    /// How long it has held messages without a consumer; `None` when it is served, empty, or nobody knows.
    pub(super) fn unserved(&self, now: Instant) -> Option<Duration> {
        self.unserved_since.map(|since| now.saturating_duration_since(since))
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Board {
    queues: BTreeMap<String, Queue>,
    pub(super) unacked: Option<u64>,
    pub(super) oldest_unacked: Option<f64>,
    /// Messages taken and not acknowledged, by queue; `None` when unknown, or more than are looked at.
    pub(super) unacked_by_queue: Option<BTreeMap<String, u64>>,
    /// When the queues were read.
    pub(super) read_at: Option<Instant>,
    /// What each worker consumes, by its own answer, and when they were asked.
    consumed: Option<(BTreeMap<String, Vec<String>>, Instant)>,
    /// Whether a worker lives that has never answered: nobody knows then that a queue has no consumer.
    is_any_silent: bool,
    /// Queues for which there was no room.
    pub(super) not_taken: u64,
}

impl Board {
    /// Takes in a reading.
    pub(super) fn read(&mut self, depths: Depths, now: Instant) {
        for Depth { name, messages, head } in depths.queues {
            if !self.queues.contains_key(&name) && self.queues.len() >= MOST_QUEUES {
                self.not_taken += 1;
                continue;
            }
            let nothing = Queue { messages: 0, consumers: None, head: None, unserved_since: None };
            let queue = self.queues.entry(name).or_insert(nothing);
            queue.messages = messages;
            queue.head = head.map(|head| match queue.head {
                Some((known, since)) if known == head => (known, since),
                _ => (head, now),
            });
        }
        (self.unacked, self.oldest_unacked) = (depths.unacked, depths.oldest_unacked);
        self.read_at = Some(now);
        self.judge(now);
    }

    /// Takes in what workers answered that they consume. One that lives and does not answer, as while it works in the pool
    /// `solo`, consumes what it did before.
    pub(super) fn consume(&mut self, mut answers: BTreeMap<String, Vec<String>>, alive: &[Arc<str>], now: Instant) {
        let before = self.consumed.take().map(|(before, _)| before).unwrap_or_default();
        let silent = before.into_iter().filter(|(host, _)| alive.iter().any(|one| **one == **host));
        for (host, queues) in silent {
            answers.entry(host).or_insert(queues);
        }
        self.is_any_silent = alive.iter().any(|host| !answers.contains_key(&**host));
        self.consumed = Some((answers, now));
        self.judge(now);
    }

    /// The consumers are not known any more.
    pub(super) fn forget_consumers(&mut self, now: Instant) {
        self.consumed = None;
        self.judge(now);
    }

    /// Says anew of each queue who consumes it.
    fn judge(&mut self, now: Instant) {
        for (name, queue) in &mut self.queues {
            let consumes = |queues: &&Vec<String>| queues.contains(name);
            let consumers =
                |consumed: &BTreeMap<String, Vec<String>>| consumed.values().filter(consumes).count() as u64;
            let known = self.consumed.as_ref().map(|(consumed, _)| consumers(consumed));
            queue.consumers = known.filter(|known| *known > 0 || !self.is_any_silent);
            let is_unserved = queue.consumers == Some(0) && queue.messages > 0;
            queue.unserved_since = is_unserved.then(|| queue.unserved_since.unwrap_or(now));
        }
    }

    /// What a worker consumes, by its own answer.
    pub(super) fn consumed_by(&self, host: &str) -> Option<&Vec<String>> {
        self.consumed.as_ref()?.0.get(host)
    }

    /// When the workers were asked last what they consume.
    pub(super) fn asked_at(&self) -> Option<Instant> {
        self.consumed.as_ref().map(|(_, at)| *at)
    }

    /// Since when a message has waited that this worker could take: the longest such head of its queues, or of all queues
    /// when it is not known what it consumes.
    pub(super) fn waits_for(&self, host: &str, now: Instant) -> Duration {
        let consumes = |name: &String| self.consumed_by(host).is_none_or(|queues| queues.contains(name));
        let waiting = self.queues.iter().filter(|(name, _)| consumes(name));
        waiting.map(|(_, queue)| queue.head_age(now)).max().unwrap_or_default()
    }

    /// Messages of a queue that workers have taken and not acknowledged.
    pub(super) fn unacked_of(&self, name: &str) -> Option<u64> {
        self.unacked_by_queue.as_ref().map(|queues| queues.get(name).copied().unwrap_or_default())
    }

    /// Every queue, by name.
    pub(super) fn queues(&self) -> impl Iterator<Item = (&String, &Queue)> {
        self.queues.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(10);

    fn depths(name: &str, messages: u64, head: Option<u64>) -> Depths {
        Depths { queues: vec![Depth { name: name.into(), messages, head }], ..Depths::default() }
    }

    fn consumed(queues: &[&str]) -> BTreeMap<String, Vec<String>> {
        BTreeMap::from([("w@h".to_owned(), queues.iter().map(|queue| (*queue).to_owned()).collect())])
    }

    fn queue(board: &Board) -> &Queue {
        board.queues().next().unwrap().1
    }

    #[tokio::test]
    async fn a_queue_is_unserved_from_when_it_holds_messages_without_a_consumer() {
        let (mut board, now) = (Board::default(), Instant::now());
        board.read(depths("q", 3, Some(1)), now);
        assert_eq!((queue(&board).consumers, queue(&board).unserved(now)), (None, None), "nobody was asked");
        board.consume(consumed(&["other"]), &[], now + PERIOD);
        board.read(depths("q", 4, Some(1)), now + PERIOD * 2);
        assert_eq!(queue(&board).unserved(now + PERIOD * 2), Some(PERIOD));
        board.read(depths("q", 0, None), now + PERIOD * 3);
        assert_eq!(queue(&board).unserved(now + PERIOD * 3), None, "an empty queue needs no consumer");
        board.read(depths("q", 1, Some(2)), now + PERIOD * 4);
        assert_eq!(queue(&board).unserved(now + PERIOD * 5), Some(PERIOD));
        board.consume(consumed(&["q"]), &[], now + PERIOD * 5);
        assert_eq!((queue(&board).consumers, queue(&board).unserved(now + PERIOD * 6)), (Some(1), None));
    }

    #[tokio::test]
    async fn without_a_worker_every_queue_is_unserved() {
        let (mut board, now) = (Board::default(), Instant::now());
        board.read(depths("q", 1, Some(1)), now);
        board.consume(BTreeMap::new(), &[], now);
        assert_eq!(queue(&board).unserved(now + PERIOD), Some(PERIOD));
        board.forget_consumers(now);
        assert_eq!(queue(&board).unserved(now + PERIOD), None, "it is not known any more");
    }

    #[tokio::test]
    async fn a_worker_that_lives_and_does_not_answer_is_no_missing_consumer() {
        let (mut board, now) = (Board::default(), Instant::now());
        let alive: [Arc<str>; 1] = ["w@h".into()];
        board.read(depths("q", 1, Some(1)), now);
        board.consume(BTreeMap::new(), &alive, now);
        assert_eq!((queue(&board).consumers, queue(&board).unserved(now + PERIOD)), (None, None));
        board.consume(consumed(&["q"]), &alive, now);
        board.consume(BTreeMap::new(), &alive, now);
        assert_eq!(queue(&board).consumers, Some(1), "as it was before");
        board.consume(BTreeMap::new(), &[], now);
        assert_eq!(queue(&board).consumers, Some(0), "it is gone");
    }

    #[tokio::test]
    async fn a_head_ages_as_long_as_it_is_the_same() {
        let (mut board, now) = (Board::default(), Instant::now());
        board.read(depths("q", 5, Some(1)), now);
        board.read(depths("q", 9, Some(1)), now + PERIOD);
        assert_eq!(board.waits_for("w@h", now + PERIOD), PERIOD);
        board.consume(consumed(&["other"]), &[], now + PERIOD);
        assert_eq!(board.waits_for("w@h", now + PERIOD), Duration::ZERO, "it is no queue of this worker's");
        board.read(depths("q", 8, Some(2)), now + PERIOD * 2);
        assert_eq!(queue(&board).head_age(now + PERIOD * 2), Duration::ZERO);
    }

    #[tokio::test]
    async fn there_is_room_for_so_many_queues_and_the_rest_is_counted() {
        let (mut board, now) = (Board::default(), Instant::now());
        for number in 0..MOST_QUEUES + 3 {
            board.read(depths(&number.to_string(), 0, None), now);
        }
        assert_eq!((board.queues().count(), board.not_taken), (MOST_QUEUES, 3));
    }
}
