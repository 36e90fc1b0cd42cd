//! The process that is measured: the sidecar, or a peer as a plain proxy.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::receiver::Receiver;

/// Which proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proxy {
    /// The sidecar, with metrics and all spans.
    Sidecar,
    /// The sidecar without export: it counts, and writes no span.
    Quiet,
    /// nginx without any telemetry: the mark to beat.
    Nginx,
    /// HAProxy without any telemetry.
    Haproxy,
}

/// A running proxy; killed with the value unless it was stopped.
pub(crate) struct Running {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Where its own files are; `valgrind` writes there too.
    pub(crate) folder: PathBuf,
    child: Child,
    receiver: Receiver,
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

/// A folder for one process: several may run at once.
fn fresh_folder() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("cost-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).expect("a writable target folder");
    folder
}

impl Proxy {
    /// Whether it is the sidecar, with whatever is on.
    pub(crate) fn is_ours(self) -> bool {
        self.peer().is_none()
    }

    /// The program of a peer.
    fn peer(self) -> Option<&'static str> {
        match self {
            Self::Sidecar | Self::Quiet => None,
            Self::Nginx => Some("nginx"),
            Self::Haproxy => Some("haproxy"),
        }
    }

    /// The sidecar alone.
    pub(crate) fn own() -> Vec<Self> {
        vec![Self::Sidecar, Self::Quiet]
    }

    /// The sidecar, and the peers that are installed: they are a comparison, not a requirement.
    pub(crate) fn all() -> Vec<Self> {
        let is_there = |program: &str| Command::new(program).arg("-v").output().is_ok();
        let all = [Self::Sidecar, Self::Quiet, Self::Nginx, Self::Haproxy];
        all.into_iter().filter(|proxy| proxy.peer().is_none_or(is_there)).collect()
    }

    /// Starts it in front of `application`, under `wrapper` (a program with its arguments) if that is not empty.
    pub(crate) fn spawn(self, application: SocketAddr, wrapper: &[String]) -> Running {
        let folder = fresh_folder();
        let (address, receiver) = (free_port(), Receiver::start());
        let own = match self {
            Self::Sidecar | Self::Quiet => sidecar(application, address, &receiver),
            Self::Nginx => nginx(application, address, &folder),
            Self::Haproxy => haproxy(application, address, &folder),
        };
        let exports = if self == Self::Quiet { "false" } else { "true" };
        let line: Vec<String> = wrapper.iter().cloned().chain(own).collect();
        let output = fs::File::create(folder.join("stdout")).expect("a writable folder");
        let errors = fs::File::create(folder.join("stderr")).expect("a writable folder");
        let child = Command::new(&line[0])
            .args(&line[1..])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
            .env("SIDECAR_TELEMETRY__ENABLED", exports)
            .current_dir(&folder)
            .stdout(output)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", line[0]));
        Running { address, folder, child, receiver }
    }

    /// Starts it and waits until it listens.
    pub(crate) fn start(self, application: SocketAddr, wrapper: &[String]) -> Running {
        let running = self.spawn(application, wrapper);
        let until = Instant::now() + Duration::from_secs(90);
        while TcpStream::connect(running.address).is_err() {
            assert!(Instant::now() < until, "{self:?} does not listen; it said:\n{}", running.errors());
            thread::park_timeout(Duration::from_millis(5));
        }
        running
    }
}

fn sidecar(application: SocketAddr, address: SocketAddr, receiver: &Receiver) -> Vec<String> {
    let upstream = format!("http://{application}");
    let (listen, otlp) = (address.to_string(), format!("http://{}", receiver.address));
    // cargo would build the binary once more, with the features of the tests; `make test` has it already, without
    let chosen = std::env::var_os("SIDECAR_BIN").map(|path| path.to_string_lossy().into_owned());
    let program = chosen.as_deref().unwrap_or(env!("CARGO_BIN_EXE_content-factory-sidecar"));
    let arguments = ["run", "--upstream", &upstream, "--listen", &listen, "--admin", "127.0.0.1:0", "--otlp", &otlp];
    [program].iter().chain(&arguments).chain(&["--data-dir", "data"]).map(|&text| text.to_owned()).collect()
}

fn nginx(application: SocketAddr, address: SocketAddr, folder: &Path) -> Vec<String> {
    let root = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {root}/{name};\n"))
        .concat();
    let config = format!(
        "daemon off; master_process off; pid {root}/pid; error_log {root}/errors crit;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; {temporary} keepalive_requests 1000000000;\n\
         upstream application {{ server {application}; keepalive 64; keepalive_requests 1000000000; }}\n\
         server {{ listen {address}; location / {{ proxy_pass http://application; proxy_http_version 1.1;\n\
         proxy_set_header Connection ''; proxy_set_header Host $http_host; }} }} }}\n"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, config).expect("a writable folder");
    ["nginx", "-e", "stderr", "-c", &file.display().to_string()].map(str::to_owned).to_vec()
}

fn haproxy(application: SocketAddr, address: SocketAddr, folder: &Path) -> Vec<String> {
    let config = format!(
        "global\n  nbthread 1\n  maxconn 4096\n\
         defaults\n  mode http\n  http-reuse always\n  timeout connect 1s\n  timeout client 75s\n  timeout server 75s\n\
         listen proxy\n  bind {address}\n  server application {application}\n"
    );
    let file = folder.join("haproxy.cfg");
    fs::write(&file, config).expect("a writable folder");
    ["haproxy", "-db", "-f", &file.display().to_string()].map(str::to_owned).to_vec()
}

impl Running {
    /// Its process id; under a wrapper, the wrapper's, which for `valgrind` is the same.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard error.
    pub(crate) fn errors(&self) -> String {
        fs::read_to_string(self.folder.join("stderr")).unwrap_or_default()
    }

    /// A value of `/proc/PID/status` in KiB.
    pub(crate) fn status_kib(&self, key: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("the kernel knows the key");
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// User and system time so far, in clock ticks of 10 ms.
    pub(crate) fn ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).expect("it runs");
        // The name in brackets may hold blanks; utime and stime are the 12th and 13th fields after it.
        let fields = stat.rsplit(") ").next().expect("a name in brackets").split(' ').map(str::to_owned);
        fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("ticks")).sum()
    }

    /// Bytes of spans that it has sent.
    pub(crate) fn trace_bytes(&self) -> u64 {
        self.receiver.trace_bytes()
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
