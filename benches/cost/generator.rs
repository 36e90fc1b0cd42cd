//! Closed loops at full speed: `wrk` for HTTP/1.1, `h2load` for HTTP/2, each on one thread.

use std::process::Command;
use std::time::Duration;

use crate::process::Running;
use crate::request::{Body, Protocol};

/// The processor core of everything that is not measured; proxies have the other one.
pub(crate) const CORE: &str = "1";

/// Connections that ask again when they have their answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) protocol: Protocol,
    pub(crate) body: Body,
    pub(crate) connections: usize,
}

impl Load {
    /// Asks for this long; returns the number of whole answers. A turn without any, on a busy machine, is had again.
    ///
    /// # Panics
    /// When an answer is not 200, because what does not work is not timed; and after three turns without any.
    pub(crate) fn run(&self, proxy: &Running, time: Duration) -> u64 {
        let answers = (0..3).map(|_| self.once(proxy, time)).find(|answers| *answers > 0);
        answers.unwrap_or_else(|| panic!("no answer within {time:?}, three times: {self:?}"))
    }

    fn once(&self, proxy: &Running, time: Duration) -> u64 {
        let connections = format!("-c{}", self.connections);
        let seconds = time.as_secs().max(1);
        let path = self.body.path();
        let (address, program, words) = match self.protocol {
            Protocol::Http1 => {
                let words = vec!["-t1".into(), connections, format!("-d{seconds}s"), "--timeout".into(), "10s".into()];
                (proxy.address, "wrk", words)
            }
            Protocol::H2c => {
                (proxy.h2c, "h2load", vec!["-t1".into(), connections, "-m1".into(), format!("-D{seconds}")])
            }
        };
        let url = format!("http://{address}{path}?page=2");
        let fields = ["-H", "Accept: application/json", "-H", "User-Agent: cost/1"];
        let output = Command::new("taskset")
            .args(["-c", CORE, program])
            .args(words)
            .args(fields)
            .arg(url)
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error} (apt-get install wrk nghttp2-client util-linux)"));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let answers = match self.protocol {
            Protocol::Http1 => by_wrk(&said),
            Protocol::H2c => by_h2load(&said),
        };
        answers.unwrap_or_else(|| panic!("{program} found answers that are not 200:\n{said}"))
    }
}

/// `  12345 requests in 1.00s, 1.23MB read`, and a line of its own for answers that are not 2xx or 3xx.
fn by_wrk(said: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.contains(" requests in "))?;
    let answers = line.split_whitespace().next()?.parse().ok()?;
    (!said.contains("Non-2xx")).then_some(answers)
}

/// `status codes: 12345 2xx, 0 3xx, 0 4xx, 0 5xx`.
fn by_h2load(said: &str) -> Option<u64> {
    let counts = said.lines().find_map(|line| line.strip_prefix("status codes: "))?;
    let counts: Vec<u64> = counts.split(", ").filter_map(|part| part.split(' ').next()?.parse().ok()).collect();
    matches!(counts[..], [_, 0, 0, 0]).then(|| counts[0])
}
