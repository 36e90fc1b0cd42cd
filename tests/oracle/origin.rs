//! An application that records every byte it is sent, for each connection, and answers.
//!
//! Requests are answered as the target says (`/early/close`, `/ws` …); a scripted raw response is played instead
//! when the entry is one. The origin owns its records; `settle` closes its connections and hands them out, so that
//! each entry starts with none.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::corpus::{End, Entry, Step};
use crate::grammar::{Grammar, Stop, lists};
use crate::requests::{self, Request};

/// The target of the request that follows each entry.
pub(crate) const FOLLOWER: &[u8] = b"/oracle-follower";
/// The body that answers it.
pub(crate) const FOLLOWER_BODY: &[u8] = b"follower";
/// The target of a request that is no part of an entry: when it is answered, the proxy has dealt with what came before.
pub(crate) const BARRIER: &[u8] = b"/oracle-barrier";
/// How long this process may need to see a connection that the kernel has accepted.
const SETTLE: Duration = Duration::from_secs(2);

/// What came in on one connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    /// Every byte.
    pub(crate) bytes: Vec<u8>,
    /// Where a tunnel began: the origin has answered 101.
    pub(crate) tunnel_at: Option<usize>,
}

/// A listening origin.
pub(crate) struct Origin {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    accepted: Condvar,
}

#[derive(Default)]
struct State {
    script: Option<Script>,
    open: Vec<(TcpStream, JoinHandle<Record>)>,
}

/// A raw response.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    steps: Vec<Step>,
    end: End,
}

impl Script {
    /// The bytes of a response entry.
    pub(crate) fn of(entry: &Entry) -> Self {
        Self { steps: entry.steps.clone(), end: entry.end }
    }
}

impl Origin {
    /// Starts on a free port of the loopback.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut state = accepting.lock();
                let Ok(handle) = stream.try_clone() else { continue };
                let script = state.script.clone();
                state.open.push((handle, thread::spawn(move || serve(stream, script))));
                accepting.accepted.notify_all();
            }
        });
        Self { address, shared }
    }

    /// From now on, new connections are answered with this.
    pub(crate) fn play(&self, script: Option<Script>) {
        self.shared.lock().script = script;
    }

    /// Ends all connections and returns what came in on them, in order of arrival.
    ///
    /// A socket that is shut down for reading still gives what has arrived, then its end: nothing is lost, and
    /// nobody waits for a proxy that keeps its idle connections.
    pub(crate) fn settle(&self) -> Vec<Record> {
        let open = self.take_open();
        for (stream, _) in &open {
            let _gone_is_fine = stream.shutdown(Shutdown::Both);
        }
        open.into_iter().map(|(_, thread)| thread.join().expect("the origin does not panic")).collect()
    }

    /// All connections so far, those included that the kernel has accepted and this process has not yet seen:
    /// one of our own queues behind them.
    fn take_open(&self) -> Vec<(TcpStream, JoinHandle<Record>)> {
        let last = TcpStream::connect(self.address).and_then(|stream| stream.local_addr()).expect("it listens");
        let mut state = self.shared.lock();
        while !state.open.iter().any(|(stream, _)| stream.peer_addr().is_ok_and(|peer| peer == last)) {
            let (waited, late) = self.shared.accepted.wait_timeout(state, SETTLE).expect("not poisoned");
            state = waited;
            if late.timed_out() {
                break;
            }
        }
        std::mem::take(&mut state.open)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }
}

/// What the connection does after a request was looked at.
enum Next {
    /// Read on.
    Read,
    /// Close the writing side, and read what still comes.
    Close,
}

struct Connection {
    stream: TcpStream,
    record: Record,
    script: Option<Script>,
    /// Where the request that is now being read begins.
    start: usize,
    /// Whether the head of that request has been answered already (100, or an early final answer).
    answered: Answered,
}

#[derive(PartialEq, Eq)]
enum Answered {
    Nothing,
    Continue,
    Final,
}

fn serve(stream: TcpStream, script: Option<Script>) -> Record {
    let _best_effort = stream.set_nodelay(true);
    // A peer that neither closes nor sends must not hold the whole run.
    let _best_effort = stream.set_read_timeout(Some(Duration::from_secs(20)));
    let mut connection =
        Connection { stream, record: Record::default(), script, start: 0, answered: Answered::Nothing };
    let mut buffer = vec![0; 64 * 1024];
    let mut closed = false;
    loop {
        match connection.stream.read(&mut buffer) {
            Ok(0) | Err(_) => return connection.record,
            Ok(count) => connection.record.bytes.extend_from_slice(&buffer[..count]),
        }
        if !closed && matches!(connection.look(), Next::Close) {
            closed = true;
            let _gone_is_fine = connection.stream.shutdown(Shutdown::Write);
        }
    }
}

impl Connection {
    /// Answers what can be answered.
    fn look(&mut self) -> Next {
        if self.record.tunnel_at.is_some() {
            return self.echo();
        }
        let reading = requests::read(&self.record.bytes[self.start..], Grammar::Canonical);
        for request in &reading.requests {
            if self.answered == Answered::Final {
                self.answered = Answered::Nothing;
                continue;
            }
            self.answered = Answered::Nothing;
            let next = self.answer(request);
            if self.record.tunnel_at.is_some() {
                return self.echo();
            }
            if matches!(next, Next::Close) || !request.persists() {
                return Next::Close;
            }
        }
        self.start += reading.used;
        match (reading.stop, reading.partial) {
            (Stop::Bad(_), _) => {
                self.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
                Next::Close
            }
            (_, Some(partial)) => self.answer_head(&partial),
            (_, None) => Next::Read,
        }
    }

    /// A head whose body is still to come.
    fn answer_head(&mut self, request: &Request) -> Next {
        if self.answered != Answered::Nothing {
            return Next::Read;
        }
        let early: &[u8] = match request.target.as_slice() {
            b"/early/close" => b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 5\r\n\r\nearly",
            b"/early/keep" => b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nearly",
            b"/early/expect" => b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 5\r\n\r\nearly",
            b"/expect/silent" => return Next::Read,
            _ if lists(&request.fields, "expect", "100-continue") => {
                self.answered = Answered::Continue;
                self.write(b"HTTP/1.1 100 Continue\r\n\r\n");
                return Next::Read;
            }
            _ => return Next::Read,
        };
        self.answered = Answered::Final;
        self.write(early);
        if request.target == b"/early/close" { Next::Close } else { Next::Read }
    }

    fn answer(&mut self, request: &Request) -> Next {
        if request.target == FOLLOWER || request.target == BARRIER {
            self.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 8\r\n\r\n");
            self.write(FOLLOWER_BODY);
            return Next::Read;
        }
        if let Some(script) = self.script.clone().filter(|_| !requests::is_own(request)) {
            return self.perform(&script);
        }
        if request.target == b"/ws" && request.upgrades() {
            self.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
            self.record.tunnel_at = Some(self.record.bytes.len().min(self.start + self.head_length()));
            return Next::Read;
        }
        let body = if request.method == b"HEAD" { &b""[..] } else { b"answered" };
        self.write(b"HTTP/1.1 200 OK\r\nX-Origin: yes\r\nContent-Type: text/plain\r\nContent-Length: 8\r\n\r\n");
        self.write(body);
        Next::Read
    }

    /// The length of the head that begins at `start`; upgrades have no body.
    fn head_length(&self) -> usize {
        let rest = &self.record.bytes[self.start..];
        rest.windows(4).position(|end| end == b"\r\n\r\n").map_or(rest.len(), |at| at + 4)
    }

    fn perform(&mut self, script: &Script) -> Next {
        for step in &script.steps {
            match step {
                Step::Send(bytes) => self.write(bytes),
                // In a script a wait is a pause: what follows arrives in a segment of its own.
                Step::Wait => thread::park_timeout(Duration::from_millis(30)),
            }
        }
        if script.end == End::Close { Next::Close } else { Next::Read }
    }

    /// Sends back what came through the tunnel; `BYE` ends it.
    fn echo(&mut self) -> Next {
        let from = self.start.max(self.record.tunnel_at.unwrap_or_default());
        let bytes = self.record.bytes[from..].to_vec();
        self.start = self.record.bytes.len();
        self.write(&bytes);
        if self.record.bytes.ends_with(b"BYE") { Next::Close } else { Next::Read }
    }

    fn write(&mut self, bytes: &[u8]) {
        // A peer that has gone away is judged by what it sent.
        let _gone_is_fine = self.stream.write_all(bytes);
    }
}
