//! Signals from the first moment on: one that comes before the configuration is read is kept, and none ends the process by itself.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use crate::rig::{PATIENCE, command};

/// Starts that are disturbed, each at another moment.
const STARTS: usize = 10;

/// A process that starts: its ports are free ones, and what it says is in a file of its folder.
struct Starting {
    folder: TempDir,
    child: Child,
    /// Kept to the end: it names its addresses one by one.
    lines: Lines<BufReader<ChildStdout>>,
}

impl Starting {
    /// With the file that `prepare` makes of this path.
    async fn with(prepare: impl AsyncFn(&Path)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = folder.path().join("sidecar.yaml");
        prepare(&config).await;
        let log = File::create(folder.path().join("log")).expect("a file in a new folder");
        let ports = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--otlp", "http://127.0.0.1:1"];
        let mut command = command(&folder);
        command.arg("--config").arg(&config).args(ports).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("the binary starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { folder, child, lines }
    }

    /// With a file that nobody has written yet: whoever reads it waits.
    async fn with_a_slow_file() -> Self {
        Self::with(async |config| {
            let made = Command::new("mkfifo").arg(config).status().await.expect("mkfifo runs");
            assert!(made.success());
        })
        .await
    }

    fn pid(&self) -> i32 {
        self.child.id().and_then(|pid| i32::try_from(pid).ok()).expect("it runs")
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.pid()).expect("a number of a process"), signal).expect("it runs");
    }

    /// Waits until a signal would not end it by itself. Before that nobody can help it: the program has only been loaded.
    async fn catches(&self, signal: Signal) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
            let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("the kernel tells it");
            let mask = u64::from_str_radix(mask.trim(), 16).expect("a mask");
            if mask >> (signal.as_raw() - 1) & 1 == 1 {
                return;
            }
            assert!(Instant::now() < deadline, "{signal:?} is never caught:\n{status}");
            sleep(Duration::from_micros(100)).await;
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).expect("its log can be read")
    }

    async fn code(&mut self) -> Option<i32> {
        timeout(PATIENCE, self.child.wait()).await.expect("it ends in time").expect("it can be waited for").code()
    }

    /// Waits until it serves, and sends a signal meanwhile, again and again.
    async fn serves_despite(&mut self, signal: Option<Signal>) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(signal) = signal {
                self.signal(signal);
            }
            if let Ok(line) = timeout(Duration::from_millis(1), self.lines.next_line()).await {
                let line = line.expect("a readable line").unwrap_or_else(|| panic!("it has ended:\n{}", self.log()));
                assert!(line.starts_with("proxy "), "{line}");
                return;
            }
            assert!(Instant::now() < deadline, "it never serves:\n{}", self.log());
        }
    }
}

/// An empty configuration.
async fn plain(config: &Path) {
    std::fs::write(config, "{}\n").expect("a file");
}

#[tokio::test]
async fn a_hangup_while_the_configuration_is_read_is_remembered() {
    let mut one = Starting::with_a_slow_file().await;
    one.catches(Signal::HUP).await;
    one.signal(Signal::HUP);
    let config = one.folder.path().join("sidecar.yaml");
    let written = spawn_blocking(move || {
        let mut slow = OpenOptions::new().write(true).open(&config).expect("it is being read");
        // what is read at the signal is an ordinary file
        std::fs::remove_file(&config).expect("it is there");
        std::fs::write(&config, "{}\n").expect("a file");
        slow.write_all(b"{}\n").expect("it is being read");
    });
    written.await.expect("it is written");
    one.serves_despite(None).await;
    let deadline = Instant::now() + PATIENCE;
    while !one.log().contains("SIGHUP: the configuration is read again") {
        assert!(Instant::now() < deadline, "{}", one.log());
        sleep(Duration::from_millis(10)).await;
    }
    one.signal(Signal::TERM);
    assert_eq!(one.code().await, Some(0));
}

#[tokio::test]
async fn what_is_told_to_end_while_the_configuration_is_read_ends_well() {
    // more than once: at first one was forgotten that came between two steps of taking it over
    for signal in [Signal::TERM, Signal::INT].repeat(STARTS / 2) {
        let mut one = Starting::with_a_slow_file().await;
        one.catches(signal).await;
        one.signal(signal);
        assert_eq!(one.code().await, Some(0), "{}", one.log());
    }
}

#[tokio::test]
async fn hangups_during_the_start_harm_nothing() {
    for _ in 0..STARTS {
        let mut one = Starting::with(plain).await;
        one.catches(Signal::HUP).await;
        one.serves_despite(Some(Signal::HUP)).await;
        one.signal(Signal::TERM);
        assert_eq!(one.code().await, Some(0), "{}", one.log());
    }
}

#[tokio::test]
async fn what_is_told_to_end_during_the_start_ends_well() {
    for start in 0..STARTS {
        let mut one = Starting::with(plain).await;
        one.catches(Signal::TERM).await;
        sleep(Duration::from_millis(10 * start as u64)).await; // each at another moment
        one.signal(Signal::TERM);
        assert_eq!(one.code().await, Some(0), "{}", one.log());
    }
}
