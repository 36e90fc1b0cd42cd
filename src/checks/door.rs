//! The door of one check: who wants a run now knocks, and waits for the run that is in flight or that the knock brings.

use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

/// Between the end of a run and the next one that somebody asks for: a loop of a client must not load what is checked.
const SHORTEST: Duration = Duration::from_secs(1);
/// For the wait for a place, besides the time of the run.
const SLACK: Duration = Duration::from_secs(5);
/// No client waits longer.
const LONGEST: Duration = Duration::from_secs(60);

/// Between the runner, which opens, and those who knock.
#[derive(Debug)]
pub(super) struct Door {
    knock: Notify,
    turn: watch::Sender<Turn>,
    /// How long one waits at it.
    limit: Duration,
}

/// Runs so far.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    begun: u64,
    ended: u64,
    ended_at: Option<Instant>,
}

/// What became of the wish for a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ran {
    /// A run was made for it.
    Made,
    /// It has got the run that was in flight.
    Joined,
    /// The last run ended within the last second, and is the answer.
    Recent,
    /// No run ended in time.
    Late,
}

impl Ran {
    /// The word in the answer.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::Joined => "joined",
            Self::Recent => "recent",
            Self::Late => "late",
        }
    }
}

impl Door {
    /// The door of a check whose runs are cut off after `timeout`.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { knock: Notify::new(), turn: watch::Sender::default(), limit: (timeout + SLACK).min(LONGEST) }
    }

    /// Whether it is that of a check whose runs are cut off after `timeout`.
    pub(super) fn fits(&self, timeout: Duration) -> bool {
        self.limit == (timeout + SLACK).min(LONGEST)
    }

    /// Wants a run, and waits for its end.
    pub(super) async fn ask(&self) -> Ran {
        let mut turns = self.turn.subscribe();
        let turn = *turns.borrow_and_update();
        let (asked, wanted) = match turn {
            Turn { begun, ended, .. } if begun > ended => (Ran::Joined, begun),
            turn if turn.is_recent() => return Ran::Recent,
            turn => (Ran::Made, turn.begun + 1),
        };
        if asked == Ran::Made {
            self.knock();
        }
        match timeout(self.limit, turns.wait_for(|turn| turn.ended >= wanted)).await {
            Ok(Ok(_)) => asked,
            _ => Ran::Late,
        }
    }

    /// Wants a run, and does not wait.
    pub(super) fn knock(&self) {
        self.knock.notify_one();
    }

    /// The runner waits until this time, or until somebody knocks.
    pub(super) async fn wait(&self, until: Instant) {
        loop {
            tokio::select! {
                () = sleep_until(until) => return,
                () = self.knock.notified() => if !self.turn.borrow().is_recent() { return },
            }
        }
    }

    /// A run begins.
    pub(super) fn begin(&self) {
        self.turn.send_modify(|turn| turn.begun += 1);
    }

    /// The runner begins, perhaps anew: a run in flight was lost, and is no answer to anybody.
    pub(super) fn open(&self) {
        self.turn.send_modify(|turn| turn.ended = turn.begun);
    }

    /// It has ended.
    pub(super) fn end(&self) {
        self.turn.send_modify(|turn| (turn.ended, turn.ended_at) = (turn.begun, Some(Instant::now())));
    }
}

impl Turn {
    fn is_recent(&self) -> bool {
        self.ended_at.is_some_and(|at| at.elapsed() < SHORTEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::task::JoinSet;
    use tokio::time::sleep;

    #[tokio::test(start_paused = true)]
    async fn all_who_knock_at_once_share_one_run_and_the_next_comes_a_second_later() {
        let door = Arc::new(Door::new(Duration::from_secs(2)));
        let mut askers = JoinSet::new();
        for _ in 0..10 {
            let door = Arc::clone(&door);
            askers.spawn(async move { door.ask().await });
        }
        let far = Instant::now() + Duration::from_secs(3_600);
        door.wait(far).await;
        door.begin();
        sleep(Duration::from_millis(100)).await;
        let joined = {
            let door = Arc::clone(&door);
            askers.spawn(async move { door.ask().await })
        };
        sleep(Duration::from_millis(100)).await;
        door.end();
        let asked = askers.join_all().await;
        assert_eq!(asked.iter().filter(|asked| **asked == Ran::Made).count(), 10);
        assert_eq!((asked.len(), joined.is_finished()), (11, true));
        assert_eq!(door.ask().await, Ran::Recent);
        door.knock();
        let before = Instant::now();
        door.wait(before + Duration::from_secs(10)).await;
        assert_eq!(before.elapsed(), Duration::from_secs(10), "a knock within the second is no run");
    }

    #[tokio::test(start_paused = true)]
    async fn before_the_first_run_a_wish_is_not_answered_with_none() {
        let door = Door::new(Duration::from_secs(2));
        door.open();
        assert_eq!(door.ask().await, Ran::Late, "nobody opens, and there is no recent run");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_run_that_never_ends_is_told_so() {
        let door = Door::new(Duration::from_secs(2));
        door.begin();
        assert_eq!(door.ask().await, Ran::Late);
        assert_eq!(Door::new(Duration::from_secs(600)).limit, LONGEST);
    }
}
