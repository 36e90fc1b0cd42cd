//! Idle connections to the application, the last used first: hot ones stay hot, cold ones age out.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::proxy::timers::{Tick, ticks_of};

/// The idle connections of a worker.
#[derive(Debug)]
pub(crate) struct Pool {
    /// Oldest first.
    idle: RefCell<VecDeque<Idle>>,
    capacity: usize,
    longest_ticks: Cell<Tick>,
}

#[derive(Debug)]
struct Idle {
    stream: TcpStream,
    since: Tick,
}

/// A connection that idled longer than this is looked at in the kernel, not only in what epoll has told.
const LOOK_AFTER_TICKS: Tick = 2;

impl Pool {
    /// A pool of at most so many connections, each kept unused for so long.
    pub(crate) fn new(capacity: usize, longest: Duration) -> Self {
        Self { idle: RefCell::default(), capacity, longest_ticks: Cell::new(ticks_of(longest)) }
    }

    /// Keeps each unused for so long from now on.
    pub(crate) fn keep_for(&self, longest: Duration) {
        self.longest_ticks.set(ticks_of(longest));
    }

    /// A connection that is alive as far as one can know, without a system call when it was used just now.
    pub(crate) fn take(&self, now: Tick) -> Option<TcpStream> {
        loop {
            let Idle { stream, since } = self.idle.borrow_mut().pop_back()?;
            let age = now.saturating_sub(since);
            // bytes or an end on an idle connection: it is not ours any more
            let quiet = stream.try_read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
            if quiet && age <= self.longest_ticks.get() && (age < LOOK_AFTER_TICKS || is_quiet_in_kernel(&stream)) {
                return Some(stream);
            }
        }
    }

    /// Keeps a connection whose last answer was read to its end.
    pub(crate) fn put(&self, stream: TcpStream, now: Tick) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= self.capacity {
            idle.pop_front();
        }
        if self.capacity > 0 {
            idle.push_back(Idle { stream, since: now });
        }
    }

    /// Closes what has idled too long.
    pub(crate) fn sweep(&self, now: Tick) {
        let mut idle = self.idle.borrow_mut();
        while idle.front().is_some_and(|oldest| now.saturating_sub(oldest.since) > self.longest_ticks.get()) {
            idle.pop_front();
        }
    }

    /// Closes all.
    pub(crate) fn clear(&self) {
        self.idle.borrow_mut().clear();
    }
}

fn is_quiet_in_kernel(stream: &TcpStream) -> bool {
    let mut byte = [std::mem::MaybeUninit::uninit()];
    let peeked = socket2::SockRef::from(stream).peek(&mut byte);
    peeked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}
