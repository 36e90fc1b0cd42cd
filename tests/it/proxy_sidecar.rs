//! The binary as a child process, for tests of the data path from outside.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running sidecar; killed when dropped.
pub(crate) struct Sidecar {
    /// Where it proxies.
    pub(crate) proxy: SocketAddr,
    admin: SocketAddr,
    child: Child,
    _folder: TempDir,
}

impl Sidecar {
    /// Starts it in front of `upstream` and waits until it serves.
    pub(crate) fn start(upstream: SocketAddr, environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let upstream = format!("http://{upstream}");
        let mut child = Command::new(env!("CARGO_BIN_EXE_content-factory-sidecar"))
            .env_clear()
            .envs(environment.iter().copied())
            .current_dir(folder.path())
            .args(["run", "--upstream", &upstream, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            // nothing listens on port 1: telemetry that is not looked at must not disturb
            .args(["--otlp", "http://127.0.0.1:1", "--data-dir", "data"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let output = child.stdout.take().expect("a pipe");
        let (found, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _nobody_may_listen = found.send(line);
            }
        });
        let address = |prefix: &str| -> SocketAddr {
            let line = lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no line that starts with {prefix:?}"));
            let rest = line.strip_prefix(prefix).and_then(|rest| rest.split(' ').next());
            rest.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{line:?}, expected {prefix:?}"))
        };
        let proxy = address("proxy ");
        Self { proxy, admin: address("admin http://"), child, _folder: folder }
    }

    /// Tells it to end.
    pub(crate) fn terminate(&self) {
        let sent = Command::new("kill").args(["-s", "TERM", &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill failed");
    }

    /// Waits for its end and gives the exit code.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Memory that it holds, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel tells it");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// The page of metrics.
    pub(crate) async fn metrics(&self) -> String {
        let read = async {
            let mut stream = TcpStream::connect(self.admin).await?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        timeout(PATIENCE, read).await.expect("an answer in time").expect("the admin port answers")
    }

    /// The page, once it is as wanted.
    pub(crate) async fn eventually(&self, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let page = self.metrics().await;
            if wanted(&page) {
                return page;
            }
            assert!(Instant::now() < deadline, "the metrics never came to what was wanted:\n{page}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _gone_is_fine = self.child.kill();
        let _gone_is_fine = self.child.wait();
    }
}
