//! What an exchange is waiting for, and until when: the nearest of them is the connection's deadline.

use crate::proxy::timers::{NEVER, Tick};

/// A wait with a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The client sends the next piece of its body.
    Body,
    /// The client takes bytes.
    ClientWrite,
    /// The application takes bytes.
    HopWrite,
    /// The head of the answer comes, or an interim one.
    FirstByte,
    /// 100 (Continue) comes.
    Continue,
}

const ALL: [Wait; 5] = [Wait::Body, Wait::ClientWrite, Wait::HopWrite, Wait::FirstByte, Wait::Continue];

/// The waits of one exchange.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waits([Tick; ALL.len()]);

impl Default for Waits {
    fn default() -> Self {
        Self([NEVER; ALL.len()])
    }
}

impl Waits {
    /// Begins a wait; one that has begun keeps its deadline.
    pub(crate) fn begin(&mut self, wait: Wait, until: Tick) {
        let slot = &mut self.0[wait as usize];
        *slot = (*slot).min(until);
    }

    /// It came.
    pub(crate) fn end(&mut self, wait: Wait) {
        self.0[wait as usize] = NEVER;
    }

    /// The nearest deadline.
    pub(crate) fn next(&self) -> Tick {
        self.0.into_iter().min().unwrap_or(NEVER)
    }

    /// A wait that has lasted too long.
    pub(crate) fn over(&self, now: Tick) -> Option<Wait> {
        if self.next() > now {
            return None;
        }
        ALL.into_iter().find(|wait| self.0[*wait as usize] <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_wait_is_over_first_and_is_not_prolonged() {
        let mut waits = Waits::default();
        assert_eq!((waits.next(), waits.over(1_000)), (NEVER, None));
        waits.begin(Wait::Body, 20);
        waits.begin(Wait::Body, 30);
        waits.begin(Wait::FirstByte, 25);
        assert_eq!((waits.next(), waits.over(19), waits.over(20)), (20, None, Some(Wait::Body)));
        waits.end(Wait::Body);
        assert_eq!(waits.over(25), Some(Wait::FirstByte));
    }
}
