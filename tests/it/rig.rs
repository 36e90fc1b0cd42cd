//! The binary as a child process, as its users start it: ports of its own, a folder of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The sidecar's standard error, in its folder.
const LOG: &str = "log";

/// A running sidecar; killed when dropped.
pub(crate) struct Sidecar {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    pub(crate) proxy: SocketAddr,
    pub(crate) admin: SocketAddr,
    folder: TempDir,
}

/// A command with the binary's path, a clean environment and its own folder to stand in.
pub(crate) fn command(folder: &TempDir) -> Command {
    let mut command = Command::new(crate::binary());
    command.env_clear().current_dir(folder.path()).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs the binary to its end.
pub(crate) async fn output(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = command(&folder);
    command.args(arguments).envs(environment.iter().copied());
    timeout(PATIENCE, command.output()).await.expect("the command ends in time").expect("the binary starts")
}

impl Sidecar {
    /// Starts it in front of `upstream`, with further arguments, and waits until it serves.
    pub(crate) async fn start(upstream: SocketAddr, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::in_front_of(&format!("http://{upstream}"), arguments, environment).await
    }

    /// The same in front of an application that is given as a URL.
    pub(crate) async fn in_front_of(upstream: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let command = command(&folder);
        Self::start_by((command, folder), upstream, arguments, environment).await
    }

    /// The same behind a word to the shell, such as `ulimit`.
    pub(crate) async fn start_after(word: &str, upstream: SocketAddr) -> Self {
        Self::start_within(word, upstream, &[]).await
    }

    /// The same with further arguments.
    pub(crate) async fn start_within(word: &str, upstream: SocketAddr, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!(r#"{word} && exec "$0" "$@""#)]).arg(crate::binary());
        command.env_clear().current_dir(folder.path()).stdin(Stdio::null()).kill_on_drop(true);
        Self::start_by((command, folder), &format!("http://{upstream}"), arguments, &[]).await
    }

    async fn start_by(
        (mut command, folder): (Command, TempDir),
        upstream: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        // nothing listens on port 1: telemetry that is not looked at must not disturb
        command.args(["run", "--upstream", upstream, "--admin", "127.0.0.1:0"]);
        if !arguments.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let is_told = environment.iter().any(|(name, _)| *name == "OTEL_EXPORTER_OTLP_ENDPOINT");
        if !is_told && !arguments.contains(&"--otlp") {
            command.args(["--otlp", "http://127.0.0.1:1"]);
        }
        let log = std::fs::File::create(folder.path().join(LOG)).expect("a file in a new folder");
        command.args(arguments).envs(environment.iter().copied()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("the binary starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let proxy = address(&mut lines, "proxy ").await;
        let admin = address(&mut lines, "admin http").await;
        Self { child, lines, proxy, admin, folder }
    }

    /// Sends a signal.
    pub(crate) async fn signal(&self, name: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().await.expect("kill runs");
        assert!(status.success(), "kill -s {name} {pid}");
    }

    /// The same with no other process between, for what counts from this moment on.
    pub(crate) fn signal_at_once(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("the number of a process");
        kill_process(pid, signal).expect("it runs");
    }

    /// Waits for its end and gives the exit code.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        timeout(PATIENCE, self.child.wait()).await.expect("it ends in time").expect("it can be waited for").code()
    }

    /// The body of an answer of the admin port, and its status.
    pub(crate) async fn ask(&self, target: &str) -> (u16, String) {
        get(self.admin, target).await.expect("the admin port answers")
    }

    /// Asks until the answer is as wanted, within `PATIENCE`.
    pub(crate) async fn eventually(&self, target: &str, wanted: impl Fn(u16, &str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (status, body) = self.ask(target).await;
            if wanted(status, &body) {
                return body;
            }
            assert!(Instant::now() < deadline, "{target} never came to what was wanted; last: {status} {body}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The page of metrics.
    pub(crate) async fn metrics(&self) -> String {
        self.ask("/metrics").await.1
    }

    /// What it has logged by now.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join(LOG)).expect("its log can be read")
    }

    /// Waits until a line of its log holds all of these.
    pub(crate) async fn says(&self, words: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().lines().any(|line| words.iter().all(|word| line.contains(word))) {
            assert!(Instant::now() < deadline, "no line of its log holds {words:?}:\n{}", self.log());
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Its number among the processes.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Memory that it holds, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.memory_kib("VmRSS:")
    }

    /// The most that it ever held, in KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        self.memory_kib("VmHWM:")
    }

    /// A line of what the kernel says of its memory, such as `VmRSS:`, in KiB.
    pub(crate) fn memory_kib(&self, name: &str) -> u64 {
        let pid = self.pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel tells it");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// The address of the egress port, whose line is the next one.
    pub(crate) async fn egress(&mut self) -> SocketAddr {
        address(&mut self.lines, "egress http").await
    }

    /// The next line of standard output.
    pub(crate) async fn line(&mut self) -> Option<String> {
        timeout(PATIENCE, self.lines.next_line()).await.expect("a line in time").expect("a readable line")
    }
}

async fn address(lines: &mut Lines<BufReader<ChildStdout>>, prefix: &str) -> SocketAddr {
    let line = timeout(PATIENCE, lines.next_line()).await.expect("a line in time").expect("a readable line");
    let line = line.expect("the sidecar names its addresses");
    let rest = line.strip_prefix(prefix).unwrap_or_else(|| panic!("a line that starts with {prefix:?}, not {line:?}"));
    // of a URL the part behind its scheme
    rest.trim_start_matches("s")
        .trim_start_matches("://")
        .split_whitespace()
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("an address in {line:?}"))
}

/// One GET over a connection of its own: the status and the body.
pub(crate) async fn get(address: SocketAddr, target: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await??;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, body.to_owned()))
}

/// A loopback address of its own: a port that is left there for a while is not taken by somebody else meanwhile.
pub(crate) fn own_loopback() -> Ipv4Addr {
    static LAST: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high | 1, low, LAST.fetch_add(1, Ordering::Relaxed))
}

/// An application that answers 200 with its request's head to each request, on a thread of its own.
pub(crate) async fn echo_application() -> SocketAddr {
    echo_application_at((Ipv4Addr::LOCALHOST, 0).into()).await
}

/// The same at this address.
pub(crate) async fn echo_application_at(address: SocketAddr) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind(address).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let serve = async move {
        while let Ok((stream, _)) = listener.accept().await {
            spawn(answer_requests(stream));
        }
    };
    spawn(serve);
    address
}

async fn answer_requests(mut stream: TcpStream) {
    let mut buffer = Vec::new();
    let mut chunk = [0; 4_096];
    while let Ok(read) = stream.read(&mut chunk).await {
        if read == 0 {
            return;
        }
        buffer.extend_from_slice(&chunk[..read]);
        while let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head: Vec<u8> = buffer.drain(..end + 4).collect();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", head.len());
            if stream.write_all(&[answer.as_bytes(), &head].concat()).await.is_err() {
                return;
            }
        }
    }
}

/// A task that ends with its test's runtime.
#[expect(clippy::disallowed_methods, reason = "the runtime of a test ends with the test")]
fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(future);
}
