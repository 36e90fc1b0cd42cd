//! A bell for each part of a task: whoever wakes a part rings it, and the task looks after that part alone.
//!
//! While the task is at work a ring does not wake it: it hears its bells before it rests. So parts that wake each other all the
//! time, such as a connection's frames and its streams, cost no turn of the thread for each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

/// The bells of a task that has as many parts.
pub(crate) struct Bells<const PARTS: usize> {
    bells: [(Arc<Bell>, Waker); PARTS],
    task: Arc<Task>,
}

/// Wakes the task, unless it is at work.
struct Task {
    is_at_work: AtomicBool,
    waker: Waker,
}

struct Bell {
    is_rung: AtomicBool,
    task: Arc<Task>,
}

impl<const PARTS: usize> Bells<PARTS> {
    /// All are rung: each part is looked at once, to begin with. The task must be that of `cx` for good.
    pub(crate) fn new(cx: &Context<'_>) -> Self {
        let task = Arc::new(Task { is_at_work: AtomicBool::new(false), waker: cx.waker().clone() });
        let bells = std::array::from_fn(|_| {
            let bell = Arc::new(Bell { is_rung: AtomicBool::new(true), task: Arc::clone(&task) });
            (Arc::clone(&bell), Waker::from(bell))
        });
        Self { bells, task }
    }

    /// The task goes to work.
    pub(crate) fn work(&self) {
        self.task.is_at_work.store(true, Ordering::SeqCst);
    }

    /// The task rests: who has rung and was not looked after wakes it at once.
    pub(crate) fn rest(&self) {
        self.task.is_at_work.store(false, Ordering::SeqCst);
        if self.bells.iter().any(|(bell, _)| bell.is_rung.load(Ordering::SeqCst)) {
            self.task.waker.wake_by_ref();
        }
    }

    /// Whether this part has rung since it was last asked for.
    pub(crate) fn answer(&self, part: usize) -> bool {
        self.bells[part].0.is_rung.swap(false, Ordering::SeqCst)
    }

    /// What rings for this part.
    pub(crate) fn waker(&self, part: usize) -> Waker {
        self.bells[part].1.clone()
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_rung.store(true, Ordering::SeqCst);
        if !self.task.is_at_work.load(Ordering::SeqCst) {
            self.task.waker.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_ring_wakes_a_task_that_rests_and_is_heard_by_one_at_work() {
        let count = Arc::new(Count::default());
        let woken = || count.0.load(Ordering::SeqCst);
        let task = Waker::from(Arc::clone(&count));
        let bells = Bells::<2>::new(&Context::from_waker(&task));
        bells.work();
        assert!(bells.answer(0) && bells.answer(1) && !bells.answer(0), "each is looked at once");
        bells.waker(1).wake_by_ref();
        assert_eq!(woken(), 0);
        assert!(bells.answer(1) && !bells.answer(0));
        bells.rest();
        assert_eq!(woken(), 0);
        bells.waker(0).wake();
        assert_eq!(woken(), 1);
        bells.work();
        bells.waker(1).wake();
        bells.rest();
        assert_eq!(woken(), 2, "nobody has answered");
    }
}
