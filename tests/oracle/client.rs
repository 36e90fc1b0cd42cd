//! A client that writes raw bytes and keeps everything that comes back.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use crate::corpus::{End, Step};
use crate::responses::Closing;

/// How long a silence may last before the client closes its side, and again before it gives up.
const SILENCE: Duration = Duration::from_millis(2500);
/// How long `~ wait` waits.
const WAIT: Duration = Duration::from_secs(1);

/// What the client saw.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Every byte.
    pub(crate) bytes: Vec<u8>,
    /// How it ended; `Open` when the other side neither answered nor closed in time.
    pub(crate) closing: Closing,
}

/// How the bytes of one step are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// As one write.
    Whole,
    /// As many small ones.
    Pieces,
}

struct Inbox {
    seen: Mutex<Seen>,
    changed: Condvar,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("not poisoned")
    }

    /// Waits until something changes; `false` after this time without a change.
    fn wait(&self, known: usize, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut seen = self.lock();
        loop {
            if seen.bytes.len() > known || seen.closing != Closing::Open {
                return true;
            }
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                return false;
            };
            seen = self.changed.wait_timeout(seen, left).expect("not poisoned").0;
        }
    }

    /// Waits for the end of the stream; `false` after a silence.
    fn ended(&self) -> bool {
        loop {
            let (known, closing) = {
                let seen = self.lock();
                (seen.bytes.len(), seen.closing)
            };
            if closing != Closing::Open {
                return true;
            }
            if !self.wait(known, SILENCE) {
                return false;
            }
        }
    }
}

/// Performs the steps against `address` and reads to the end.
pub(crate) fn exchange(address: SocketAddr, steps: &[Step], end: End, pace: Pace) -> Seen {
    let stream = TcpStream::connect(address).expect("the peer listens");
    let _best_effort = stream.set_nodelay(true);
    let _best_effort = stream.set_write_timeout(Some(Duration::from_secs(3)));
    let mut reading = stream.try_clone().expect("a second handle");
    let seen = Mutex::new(Seen { bytes: Vec::new(), closing: Closing::Open });
    let inbox = Arc::new(Inbox { seen, changed: Condvar::new() });
    let filled = Arc::clone(&inbox);
    let reader = thread::spawn(move || fill(&mut reading, &filled));
    perform(&stream, steps, pace, &inbox);
    if end == End::Close {
        let _gone_is_fine = stream.shutdown(Shutdown::Write);
    }
    if !inbox.ended() {
        let _gone_is_fine = stream.shutdown(Shutdown::Write);
        let _open_is_reported = inbox.ended();
    }
    let seen = inbox.lock().clone();
    let _gone_is_fine = stream.shutdown(Shutdown::Both);
    reader.join().expect("the reader does not panic");
    seen
}

fn perform(mut stream: &TcpStream, steps: &[Step], pace: Pace, inbox: &Inbox) {
    for step in steps {
        match (step, pace) {
            // A refused request may lose its connection while it is still being written: the answer tells.
            (Step::Send(bytes), Pace::Whole) => {
                if stream.write_all(bytes).is_err() {
                    return;
                }
            }
            (Step::Send(bytes), Pace::Pieces) => {
                for piece in bytes.chunks(bytes.len().div_ceil(40).max(1)) {
                    if stream.write_all(piece).is_err() {
                        return;
                    }
                    thread::yield_now();
                }
            }
            (Step::Wait, _) => {
                let known = inbox.lock().bytes.len();
                inbox.wait(known, WAIT);
            }
        }
    }
}

fn fill(stream: &mut TcpStream, inbox: &Inbox) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = stream.read(&mut buffer);
        let mut seen = inbox.lock();
        match read {
            Ok(0) => seen.closing = Closing::Finished,
            Ok(count) => seen.bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => seen.closing = Closing::Broken,
        }
        inbox.changed.notify_all();
        if seen.closing != Closing::Open {
            return;
        }
    }
}
