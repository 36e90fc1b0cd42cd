//! What the heartbeats of a worker prove of its runs. Pure: time is an argument.
//!
//! An end that was told while nobody could hear is told by nobody again, so a run from before such a time may be over.
//! A heartbeat says how many tasks a worker works on: if these are no fewer than the runs that are known of it, then all
//! of these run. Only a calm proves it, between two heartbeats at their pace without a word of a task: a worker that
//! connects anew sends in one burst what it could not send before, and events of tasks come a little later than what
//! they tell.

use std::time::Duration;

use tokio::time::Instant;

/// Events of tasks wait in a worker for no longer than this.
const FLUSHED: Duration = Duration::from_secs(1);

/// The last heartbeat of a life, and what may be behind it.
#[derive(Clone, Debug, Default)]
pub(super) struct Calm {
    /// Tasks at most that it works on and that nobody told us of.
    unknown: u64,
    /// When its last sign was heard, if we have heard ever since.
    heard: Option<Instant>,
    /// Tasks that it works on by that sign, if it came at its pace and nothing was told since.
    active: Option<u64>,
}

impl Calm {
    /// Of a life that works on so many tasks when it is met.
    pub(super) fn met(active: u64) -> Self {
        Self { unknown: active, ..Self::default() }
    }

    /// A heartbeat: it works on so many, and has started so many more that nobody told us of. Gives how many of the runs
    /// that are known were on at the heartbeat before, if this was a calm.
    pub(super) fn beat(&mut self, active: u64, missed: u64, period: Duration, now: Instant) -> Option<u64> {
        let pace = FLUSHED.max(period / 2);
        let is_at_pace = self.heard.is_some_and(|heard| now.saturating_duration_since(heard) >= pace);
        self.unknown += missed;
        let proved = self.active.filter(|_| is_at_pace).map(|active| active.saturating_sub(self.unknown));
        self.unknown = if active == 0 { 0 } else { self.unknown };
        (self.heard, self.active) = (Some(now), is_at_pace.then_some(active));
        proved
    }

    /// Something was told of one of its tasks.
    pub(super) fn stirred(&mut self) {
        self.active = None;
    }

    /// What it told may not have been heard.
    pub(super) fn interrupted(&mut self) {
        (self.heard, self.active) = (None, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: Duration = Duration::from_secs(2);

    /// What each of these heartbeats proves; a beat's distance from the one before in milliseconds, its tasks, and those
    /// that were missed by then.
    fn proved(mut calm: Calm, beats: &[(u64, u64, u64)]) -> Vec<Option<u64>> {
        let mut now = Instant::now();
        let mut prove = |&(after, active, missed): &(u64, u64, u64)| {
            now += Duration::from_millis(after);
            calm.beat(active, missed, BEAT, now)
        };
        beats.iter().map(&mut prove).collect()
    }

    #[tokio::test]
    async fn two_heartbeats_at_their_pace_prove_what_the_first_of_them_told() {
        let beats = [(0, 3, 0), (2_000, 2, 0), (2_000, 1, 0), (2_000, 1, 0)];
        assert_eq!(proved(Calm::default(), &beats), [None, None, Some(2), Some(1)]);
    }

    #[tokio::test]
    async fn a_burst_proves_nothing() {
        let beats = [(0, 3, 0), (10, 3, 0), (10, 3, 0), (2_000, 2, 0), (10, 2, 0), (2_000, 2, 0)];
        assert_eq!(proved(Calm::default(), &beats), [None; 6]);
    }

    #[tokio::test]
    async fn tasks_that_nobody_told_us_of_prove_nothing_of_those_that_are_known() {
        let beats = [(0, 3, 0), (2_000, 3, 0), (2_000, 3, 1), (2_000, 0, 0), (2_000, 2, 0), (2_000, 2, 0)];
        // of two that it worked on when it was met; once it has nothing to do, none of these is left
        assert_eq!(proved(Calm::met(2), &beats), [None, None, Some(0), Some(0), Some(0), Some(2)]);
    }

    #[tokio::test]
    async fn a_word_of_a_task_or_a_time_without_hearing_ends_the_calm() {
        for disturb in [Calm::stirred, Calm::interrupted] {
            let (mut calm, now) = (Calm::default(), Instant::now());
            for beats in 0..2 {
                calm.beat(1, 0, BEAT, now + BEAT * beats);
            }
            disturb(&mut calm);
            assert_eq!(calm.beat(1, 0, BEAT, now + BEAT * 2), None);
        }
    }
}
