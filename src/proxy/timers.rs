//! The deadlines of a worker's connections: a wheel with a tick of 100 ms.
//!
//! A tokio timer per request would cost more than parsing it. Here a connection owns one slot; moving its
//! deadline further away is one store, and only a nearer one is put into the wheel again.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

/// How long a tick is.
pub(crate) const TICK: Duration = Duration::from_millis(TICK_MILLIS);
const TICK_MILLIS: u64 = 100;

/// The number of a tick since the worker's start.
pub(crate) type Tick = u64;

/// No deadline.
pub(crate) const NEVER: Tick = Tick::MAX;

/// One that never comes, of someone who is still to be woken with all others.
pub(crate) const FAR: Tick = NEVER - 1;

const BUCKETS: u64 = 1_024;

/// The wheel of a worker.
#[derive(Debug)]
pub(crate) struct Timers {
    now: Cell<Tick>,
    buckets: RefCell<Vec<Vec<Rc<Slot>>>>,
}

#[derive(Debug)]
struct Slot {
    deadline: Cell<Tick>,
    /// The tick at which the wheel will look at it; other entries of it in the wheel are stale.
    queued: Cell<Tick>,
    waker: RefCell<Option<Waker>>,
}

/// The deadline of one connection. Dropped with it; the wheel forgets it when it next comes by.
#[derive(Debug)]
pub(crate) struct Deadline {
    slot: Rc<Slot>,
    timers: Rc<Timers>,
}

/// So long in whole ticks.
pub(crate) fn ticks_of(length: Duration) -> Tick {
    u64::try_from(length.as_millis() / u128::from(TICK_MILLIS)).unwrap_or(Tick::MAX)
}

impl Timers {
    /// A wheel at tick 0.
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self { now: Cell::new(0), buckets: RefCell::new((0..BUCKETS).map(|_| Vec::new()).collect()) })
    }

    /// The tick of now.
    pub(crate) fn now(&self) -> Tick {
        self.now.get()
    }

    /// The tick at which a wait of this length is over: never early, at most two ticks late. Zero is never.
    pub(crate) fn after(&self, wait: Duration) -> Tick {
        if wait.is_zero() {
            return NEVER;
        }
        // in 64 bits: a division of 128 bits would cost more than all the rest
        let ticks = u64::try_from(wait.as_millis()).unwrap_or(NEVER / 2).div_ceil(TICK_MILLIS);
        self.now.get() + ticks + 1
    }

    /// Turns the wheel to this tick and wakes whose deadline is over.
    pub(crate) fn advance(&self, to: Tick) {
        while self.now.get() < to {
            let now = self.now.get() + 1;
            self.now.set(now);
            let due = std::mem::take(&mut self.buckets.borrow_mut()[(now % BUCKETS) as usize]);
            for slot in due {
                self.look_at(slot, now);
            }
        }
    }

    /// Wakes everyone who has a deadline: something has changed for all.
    pub(crate) fn wake_all(&self) {
        for slot in self.buckets.borrow().iter().flatten() {
            if let Some(waker) = slot.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }

    fn look_at(&self, slot: Rc<Slot>, now: Tick) {
        if Rc::strong_count(&slot) == 1 || slot.queued.get() != now {
            return; // its connection is gone, or it stands elsewhere in the wheel too
        }
        slot.queued.set(NEVER);
        if slot.deadline.get() <= now {
            if let Some(waker) = slot.waker.borrow_mut().take() {
                waker.wake();
            }
        } else if slot.deadline.get() != NEVER {
            self.queue(slot);
        }
    }

    fn queue(&self, slot: Rc<Slot>) {
        // beyond the wheel's reach it is looked at on the way
        let at = slot.deadline.get().clamp(self.now.get() + 1, self.now.get() + BUCKETS - 1);
        slot.queued.set(at);
        self.buckets.borrow_mut()[(at % BUCKETS) as usize].push(slot);
    }
}

impl Deadline {
    /// A deadline that never comes.
    pub(crate) fn new(timers: &Rc<Timers>) -> Self {
        let slot = Slot { deadline: Cell::new(NEVER), queued: Cell::new(NEVER), waker: RefCell::new(None) };
        Self { slot: Rc::new(slot), timers: Rc::clone(timers) }
    }

    /// Wakes the task of `cx` at this tick. Replaces the deadline before.
    pub(crate) fn set(&self, at: Tick, cx: &Context<'_>) {
        self.slot.deadline.set(at);
        if at == NEVER {
            return;
        }
        let mut waker = self.slot.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        drop(waker);
        if at < self.slot.queued.get() {
            self.timers.queue(Rc::clone(&self.slot));
        }
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        // the waker holds the task, and the wheel may hold the slot for minutes
        self.slot.waker.borrow_mut().take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_deadline_wakes_once_at_its_tick_however_often_it_was_moved() {
        let (timers, count) = (Timers::new(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let cx = Context::from_waker(&waker);
        let deadline = Deadline::new(&timers);
        for at in [50, 5_000, 20, 30] {
            deadline.set(at, &cx);
        }
        timers.advance(29);
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        timers.advance(30);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        timers.advance(9_000);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_far_deadline_is_reached_and_a_dropped_one_is_forgotten() {
        let (timers, count) = (Timers::new(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let cx = Context::from_waker(&waker);
        let (far, dropped) = (Deadline::new(&timers), Deadline::new(&timers));
        far.set(3 * BUCKETS, &cx);
        dropped.set(10, &cx);
        drop(dropped);
        timers.advance(3 * BUCKETS - 1);
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        timers.advance(3 * BUCKETS);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_wait_is_never_cut_short() {
        let timers = Timers::new();
        assert_eq!(timers.after(Duration::from_millis(250)), 4);
        assert_eq!(timers.after(Duration::ZERO), NEVER);
    }
}
