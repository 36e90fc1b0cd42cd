//! A process that is measured or that serves the measurement: how it is started, what the kernel knows of it, its end.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::receiver::Receiver;

/// A command line and its environment, which holds nothing else but `PATH`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line {
    words: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Line {
    /// A program and its arguments.
    pub(crate) fn new<T: Into<String>>(words: impl IntoIterator<Item = T>) -> Self {
        Self { words: words.into_iter().map(Into::into).collect(), environment: Vec::new() }
    }

    /// With a variable.
    pub(crate) fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Behind another program with its arguments, which runs it.
    pub(crate) fn under(mut self, wrapper: &[&str]) -> Self {
        self.words.splice(0..0, wrapper.iter().map(|&word| word.to_owned()));
        self
    }
}

/// A running process; killed with the value unless it was stopped.
pub(crate) struct Running {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Where it takes HTTP/2, if that is another port.
    pub(crate) h2c: SocketAddr,
    /// Where its own files are; `valgrind` writes there too.
    pub(crate) folder: PathBuf,
    child: Child,
    receiver: Option<Receiver>,
}

/// A port that nobody listens on, below those that the kernel gives to outgoing connections: a load that ends leaves
/// thousands of them behind.
pub(crate) fn free_port() -> SocketAddr {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    // two runs at once begin apart
    let first = std::process::id() as usize * 251;
    let ports = (0..12_000).map(|_| 20_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000);
    let mut listeners = ports.filter_map(|port| TcpListener::bind(("127.0.0.1", port as u16)).ok());
    listeners.find_map(|listener| listener.local_addr().ok()).expect("a free port")
}

/// A folder for one process: several may run at once.
pub(crate) fn fresh_folder() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("cost-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).expect("a writable target folder");
    folder
}

impl Running {
    /// Starts it in this folder; it will listen there.
    pub(crate) fn spawn(line: Line, folder: PathBuf, address: SocketAddr) -> Self {
        let output = fs::File::create(folder.join("stdout")).expect("a writable folder");
        let errors = fs::File::create(folder.join("stderr")).expect("a writable folder");
        let child = Command::new(&line.words[0])
            .args(&line.words[1..])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(line.environment)
            .current_dir(&folder)
            .stdout(output)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", line.words[0]));
        Self { address, h2c: address, folder, child, receiver: None }
    }

    /// Starts it and waits until it listens.
    pub(crate) fn start(line: Line, folder: PathBuf, address: SocketAddr) -> Self {
        let running = Self::spawn(line, folder, address);
        running.wait();
        running
    }

    /// With what takes its telemetry, and the port for HTTP/2.
    pub(crate) fn with(mut self, receiver: Receiver, h2c: SocketAddr) -> Self {
        (self.receiver, self.h2c) = (Some(receiver), h2c);
        self
    }

    /// Waits until it listens.
    pub(crate) fn wait(&self) {
        let until = Instant::now() + Duration::from_secs(90);
        while TcpStream::connect(self.address).is_err() {
            assert!(Instant::now() < until, "it does not listen; it said:\n{}", self.errors());
            thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Its process id; under a wrapper, the wrapper's, which for `valgrind` is the same.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard error.
    pub(crate) fn errors(&self) -> String {
        fs::read_to_string(self.folder.join("stderr")).unwrap_or_default()
    }

    /// The address of its admin port, if it is the sidecar.
    pub(crate) fn admin(&self) -> String {
        let until = Instant::now() + Duration::from_secs(90);
        loop {
            let said = fs::read_to_string(self.folder.join("stdout")).expect("a readable folder");
            let address = said.lines().find_map(|line| line.strip_prefix("admin http://"));
            // it listens before it says so, and a line is whole once its end is written
            if let Some(address) = address.filter(|_| said.ends_with('\n')) {
                return address.to_owned();
            }
            assert!(Instant::now() < until, "it has no admin port; it said:\n{said}{}", self.errors());
            thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// A value of `/proc/PID/status` in KiB.
    pub(crate) fn status_kib(&self, key: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("the kernel knows the key");
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Time on a processor so far, of all its threads: in nanoseconds, where ticks of 10 ms would blur a short turn.
    pub(crate) fn cpu(&self) -> Duration {
        let threads = fs::read_dir(format!("/proc/{}/task", self.id())).expect("it runs").flatten();
        let of_thread = |folder: PathBuf| {
            let text = fs::read_to_string(folder.join("schedstat")).ok()?; // a thread may end meanwhile
            text.split(' ').next()?.parse::<u64>().ok()
        };
        Duration::from_nanos(threads.filter_map(|thread| of_thread(thread.path())).sum())
    }

    /// Bytes of spans that it has sent.
    pub(crate) fn trace_bytes(&self) -> u64 {
        self.receiver.as_ref().map_or(0, Receiver::trace_bytes)
    }

    /// Asks it to end, and waits; its folder goes away with the value.
    pub(crate) fn stop(&mut self) {
        self.signal();
        let until = Instant::now() + Duration::from_secs(90);
        while matches!(self.child.try_wait(), Ok(None)) {
            assert!(Instant::now() < until, "it does not end; it said:\n{}", self.errors());
            thread::park_timeout(Duration::from_millis(10));
        }
    }

    fn signal(&self) {
        let sent = Command::new("kill").args(["-TERM", &self.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -TERM failed");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone_is_fine = self.child.kill();
        let _gone_is_fine = self.child.wait();
        let _leftovers_are_harmless = fs::remove_dir_all(&self.folder);
    }
}

/// Runs `strace -c -f` on a process while `work` goes on; returns its counts by system call, `total` included.
pub(crate) fn traced(id: u32, work: impl FnOnce()) -> Vec<(String, u64)> {
    let mut tracer = Command::new("strace")
        .args(["-c", "-f", "-p", &id.to_string()])
        .stderr(Stdio::piped())
        .spawn()
        .expect("strace is installed (apt-get install strace)");
    let mut lines = BufReader::new(tracer.stderr.take().expect("piped")).lines().map_while(Result::ok);
    let attached = lines.find(|line| line.contains("attached")).expect("strace may attach");
    work();
    let _gone_is_fine = Command::new("kill").args(["-INT", &tracer.id().to_string()]).status();
    let counts = lines.filter_map(|line| counted(&line)).collect();
    let _status_is_that_of_a_signal = tracer.wait();
    assert!(!attached.is_empty());
    counts
}

/// `% time, seconds, usecs/call, calls, [errors], syscall`; the line of the total has the same order.
fn counted(line: &str) -> Option<(String, u64)> {
    let parts: Vec<&str> = line.split_whitespace().collect();
    let [_, _, _, calls, .., name] = parts.as_slice() else { return None };
    Some(((*name).to_owned(), calls.parse().ok()?))
}
