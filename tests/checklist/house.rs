//! The real sidecar between raw clients and an application whose every byte is kept.
//!
//! The sidecar is another process and the application has threads of its own: the tests may block on their sockets.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use tokio::time::{Duration, Instant, sleep};

use crate::raw::{Client, Message, PATIENCE, Record, echo_all, origin};
use crate::rig::Sidecar;

/// What the sidecar asks of the application itself, as whether it is there, is no traffic.
const OWN_USER_AGENT: &[u8] = b"content-factory-sidecar/";

/// So that it asks once, at its start.
const QUIET: [(&str, &str); 2] =
    [("SIDECAR_TRAFFIC__ROUTES__ENABLED", "false"), ("SIDECAR_CHECKS__APPLICATION__PERIOD", "1h")];

/// Status and reason of what is refused in front of the application.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused(pub(crate) u16, pub(crate) &'static str);

/// The reason for most of them.
pub(crate) const MALFORMED: Refused = Refused(400, "malformed_request");

/// An application, the sidecar in front of it, and what went between them.
pub(crate) struct House {
    pub(crate) sidecar: Sidecar,
    traffic: Arc<Traffic>,
}

/// What the sidecar has brought to the application, without what it asked itself.
#[derive(Default)]
struct Traffic {
    connections: AtomicUsize,
    records: Mutex<Vec<Record>>,
}

impl House {
    /// An application that does with each connection what the script says; connections are numbered from 0.
    pub(crate) async fn scripted(
        settings: &[(&str, &str)],
        script: impl Fn(usize, Client) + Send + Sync + 'static,
    ) -> Self {
        Self::started(&[], settings, script).await
    }

    /// The same with arguments for the sidecar.
    pub(crate) async fn started(
        arguments: &[&str],
        settings: &[(&str, &str)],
        script: impl Fn(usize, Client) + Send + Sync + 'static,
    ) -> Self {
        let traffic = Arc::new(Traffic::default());
        let seen = Arc::clone(&traffic);
        let address = origin(move |_, mut client| {
            if is_own(&client) {
                return answer_all(&mut client, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
            seen.records.lock().unwrap_or_else(PoisonError::into_inner).push(client.record());
            script(seen.connections.fetch_add(1, Ordering::SeqCst), client);
        });
        let sidecar = Sidecar::start(address, arguments, &[settings, &QUIET].concat()).await;
        Self { sidecar, traffic }
    }

    /// An application that answers each request with what it saw of it.
    pub(crate) async fn echoing(settings: &[(&str, &str)]) -> Self {
        Self::scripted(settings, |_, mut client| echo_all(&mut client)).await
    }

    /// An application that answers the request for `/7` with the eighth of these, raw, and then closes its side.
    pub(crate) async fn answering(answers: &[&str]) -> Self {
        let answers: Vec<Vec<u8>> = answers.iter().map(|answer| answer.as_bytes().to_vec()).collect();
        Self::scripted(&[], move |_, mut client| {
            while let Some(message) = client.try_message() {
                let place: usize = target(&message)[1..].parse().expect("a request for a numbered answer");
                client.send(&answers[place]);
                let _gone_is_fine = client.stream.shutdown(std::net::Shutdown::Write);
            }
        })
        .await
    }

    /// A client of its own.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.sidecar.proxy)
    }

    /// All that the application was sent, its connections one behind the other.
    pub(crate) fn seen(&self) -> String {
        let records = self.traffic.records.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = |record: &Record| record.lock().unwrap_or_else(PoisonError::into_inner).clone();
        String::from_utf8_lossy(&records.iter().flat_map(bytes).collect::<Vec<u8>>()).into_owned()
    }

    /// How many connections the application was brought.
    pub(crate) fn connections(&self) -> usize {
        self.traffic.connections.load(Ordering::SeqCst)
    }

    /// What an application that echoes saw of this request, which must reach it.
    pub(crate) fn passed(&self, request: impl AsRef<[u8]>) -> String {
        let mut client = self.client();
        client.send(&request);
        let answer = client.message();
        assert_eq!(answer.status(), 200, "{:?}: {}", String::from_utf8_lossy(request.as_ref()), answer.text());
        answer.text()
    }

    /// Each of these requests gets this status and the end of its connection, reaches nobody, and is counted by reason.
    pub(crate) async fn refuses<R: AsRef<[u8]>>(&self, refused: Refused, requests: &[R]) {
        let before = self.refusals().await;
        let Refused(status, reason) = refused;
        let known = self.seen();
        for request in requests {
            let mut client = self.client();
            client.send(request);
            let shown = String::from_utf8_lossy(request.as_ref()).chars().take(200).collect::<String>();
            let answer = client.try_message().unwrap_or_else(|| panic!("no answer to {shown:?}"));
            assert_eq!((answer.status(), answer.field("connection")), (status, Some("close")), "{shown:?}");
            assert!(answer.text().contains(&format!("\"type\":\"{reason}\"")), "{shown:?}: {}", answer.text());
            assert!(client.is_closed(), "{shown:?}: more behind the answer");
            assert_eq!(self.seen(), known, "{shown:?} reached the application");
        }
        let mut expected = before;
        *expected.entry(reason.to_owned()).or_default() += requests.len() as u64;
        assert_eq!(self.refusals().await, expected, "at /metrics");
    }

    /// The refusals that `/metrics` shows, by reason.
    async fn refusals(&self) -> BTreeMap<String, u64> {
        let page = self.sidecar.metrics().await;
        let row = |line: &str| {
            let (reason, count) =
                line.strip_prefix("content_factory_proxy_refusals_total{error_type=\"")?.split_once("\"} ")?;
            Some((reason.to_owned(), count.parse().ok()?))
        };
        page.lines().filter_map(row).collect()
    }

    /// Waits until `/metrics` shows so many requests of this `error.type`.
    pub(crate) async fn counted(&self, kind: &str, requests: u64) {
        let deadline = Instant::now() + PATIENCE;
        let label = format!("error_type=\"{kind}\"");
        loop {
            let page = self.sidecar.metrics().await;
            let rows = page.lines().filter(|line| {
                line.starts_with("http_server_request_duration_seconds_count{") && line.contains(&label)
            });
            let count: u64 = rows.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum();
            if count == requests {
                return;
            }
            assert!(Instant::now() < deadline, "{count} requests with {label}, expected {requests}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Each of these answers becomes 502 in front of the client, and the connection that brought it is closed.
    pub(crate) async fn replaces(answers: &[&str]) {
        let all: Vec<Vec<u8>> = answers.iter().map(|answer| answer.as_bytes().to_vec()).collect();
        let (tell, told) = mpsc::channel();
        let house = Self::scripted(&[], move |number, mut client| {
            client.try_message();
            client.send(&all[number]);
            tell.send(client.is_closed()).expect("the test waits");
        })
        .await;
        for (place, answer) in answers.iter().enumerate() {
            let shown: String = answer.chars().take(200).collect();
            let got = house.client().get("/");
            assert_eq!(got.status(), 502, "{shown:?}");
            assert!(got.text().contains("\"type\":\"upstream_bad_answer\""), "{shown:?}: {}", got.text());
            let closed = told.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{shown:?}: its connection stays"));
            assert!(closed && house.connections() == place + 1, "{shown:?}: its connection was used again");
        }
        house.counted("upstream_bad_answer", answers.len() as u64).await;
    }
}

/// Whether the sidecar asks on its own account: it says so, or only looks whether somebody accepts.
fn is_own(client: &Client) -> bool {
    let mut start = [0; 4_096];
    let count = client.stream.peek(&mut start).unwrap_or(0);
    count == 0 || start[..count].windows(OWN_USER_AGENT.len()).any(|part| part == OWN_USER_AGENT)
}

/// Answers each request with these bytes.
pub(crate) fn answer_all(client: &mut Client, answer: &str) {
    while client.try_message().is_some() {
        client.send(answer);
    }
}

/// The target of a request.
pub(crate) fn target(message: &Message) -> &str {
    message.head.split(' ').nth(1).unwrap_or_default()
}

/// A GET with these fields, each with its CR LF.
pub(crate) fn get(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n")
}

/// A POST with these fields, each with its CR LF, and a body.
pub(crate) fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n{body}")
}

/// The values of a field in a head, in order.
pub(crate) fn values<'h>(head: &'h str, name: &str) -> Vec<&'h str> {
    let fields = head.split("\r\n\r\n").next().unwrap_or_default().lines().filter_map(|line| line.split_once(": "));
    fields.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}
