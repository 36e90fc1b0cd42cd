//! How much longer something takes in one way than in another: both in turns, so that whatever else the machine does falls
//! on both.

use std::time::Duration;

/// What costs time of the sidecar's own is in each of so many stretches, a pause of the machine is not.
const STRETCHES: usize = 10;

/// How long the same took without and with what is tried, in turns.
#[derive(Default)]
pub(crate) struct Turns(Vec<(Duration, Duration)>);

impl Turns {
    /// One turn of both.
    pub(crate) fn took(&mut self, without: Duration, with: Duration) {
        self.0.push((without, with));
    }

    /// What so many of a hundred do not exceed, without and with it.
    pub(crate) fn within(&self, percent: usize) -> (Duration, Duration) {
        within(&self.0, percent)
    }

    /// The same of each of ten stretches.
    pub(crate) fn stretches(&self, percent: usize) -> impl Iterator<Item = (Duration, Duration)> {
        self.0.chunks(self.0.len().div_ceil(STRETCHES)).map(move |stretch| within(stretch, percent))
    }
}

fn within(turns: &[(Duration, Duration)], percent: usize) -> (Duration, Duration) {
    let (mut without, mut with): (Vec<_>, Vec<_>) = turns.iter().copied().unzip();
    without.sort_unstable();
    with.sort_unstable();
    let place = turns.len() * percent / 100;
    (without[place], with[place])
}
