//! TLS to a receiver, by the binary: whom it trusts, what it shows, and what is said when either side says no.

use std::path::Path;

use tempfile::TempDir;

use crate::rig::{PATIENCE, Sidecar, echo_application, get};
use crate::telemetry_certificates::{Authority, Front, Identity};
use crate::telemetry_receiver::{Codings, Over, Receiver, eventually};

/// What is set of TLS.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Given {
    /// The authority of the receiver's certificate.
    Ca,
    /// Another authority.
    ForeignCa,
    /// The receiver's authority, as one that the system trusts: it trusts the other one otherwise.
    SystemCa,
    /// A certificate that the receiver's authority signed, and its key.
    Client,
    /// The same of another authority.
    ForeignClient,
    /// The name in the receiver's certificate.
    ServerName,
}

/// How it is set.
#[derive(Clone, Copy, Debug)]
enum By {
    Variables,
    File,
}

/// Who may connect to the receiver.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Clients {
    Anyone,
    Known,
}

/// A receiver at 127.0.0.1, and what the sidecar is told about it.
struct Row {
    clients: Clients,
    /// The name in the receiver's certificate.
    name: &'static str,
    given: &'static [Given],
}

/// One authority for the receiver and one for others, with their files.
struct World {
    folder: TempDir,
    authority: Authority,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (authority, foreign) = (Authority::new(), Authority::new());
        write(folder.path(), "ca.pem", &authority.certificate);
        write(folder.path(), "foreign-ca.pem", &foreign.certificate);
        for (name, Identity { certificate, key }) in [("client", authority.client()), ("foreign", foreign.client())] {
            write(folder.path(), &format!("{name}.pem"), &certificate);
            write(folder.path(), &format!("{name}.key"), &key);
        }
        Self { folder, authority }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// The authorities that the system trusts: a variable that stands in for its folder of them.
    fn system(&self, row: &Row) -> (&'static str, String) {
        let name = if row.given.contains(&Given::SystemCa) { "ca.pem" } else { "foreign-ca.pem" };
        ("SSL_CERT_FILE", self.file(name))
    }

    /// Keys below `telemetry.tls` and their values.
    fn keys(&self, row: &Row) -> Vec<(&'static str, String)> {
        let identity = |name: &str| {
            let (certificate, key) = (self.file(&format!("{name}.pem")), self.file(&format!("{name}.key")));
            vec![("client_certificate_file", certificate), ("client_key_file", key)]
        };
        let keys = |given: &Given| match given {
            Given::Ca => vec![("ca_file", self.file("ca.pem"))],
            Given::ForeignCa => vec![("ca_file", self.file("foreign-ca.pem"))],
            Given::SystemCa => vec![],
            Given::Client => identity("client"),
            Given::ForeignClient => identity("foreign"),
            Given::ServerName => vec![("server_name", row.name.to_owned())],
        };
        row.given.iter().flat_map(keys).collect()
    }
}

fn write(folder: &Path, name: &str, content: &str) {
    std::fs::write(folder.join(name), content).expect("a file in a new folder");
}

/// OpenTelemetry's variable where there is one.
fn variable(key: &str) -> &'static str {
    match key {
        "ca_file" => "OTEL_EXPORTER_OTLP_CERTIFICATE",
        "client_certificate_file" => "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
        "client_key_file" => "OTEL_EXPORTER_OTLP_CLIENT_KEY",
        _ => "SIDECAR_TELEMETRY__TLS__SERVER_NAME",
    }
}

/// A sidecar before an application, and a receiver behind TLS.
struct Export {
    receiver: Receiver,
    front: Front,
    sidecar: Sidecar,
    /// The files are read again while the sidecar runs.
    _world: World,
}

impl Export {
    async fn start(world: World, row: &Row, over: Over, by: By) -> Self {
        let receiver = Receiver::over(over, Codings::All, Default::default()).await;
        let clients = (row.clients == Clients::Known).then_some(&world.authority);
        let front = Front::before(&receiver, over, &world.authority.server(row.name), clients).await;
        let (endpoint, keys) = (format!("https://{}", front.address), world.keys(row));
        let (system, trusted) = world.system(row);
        let application = echo_application().await;
        let sidecar = match by {
            By::Variables => {
                let mut environment = vec![
                    (system, trusted.as_str()),
                    ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
                    ("OTEL_EXPORTER_OTLP_PROTOCOL", over.protocol()),
                    ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=hunter2-secret"),
                ];
                environment.extend(keys.iter().map(|(key, value)| (variable(key), value.as_str())));
                Sidecar::start(application, &[], &environment).await
            }
            By::File => {
                let tls: serde_json::Map<_, _> =
                    keys.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
                // JSON is YAML
                let file = serde_json::json!({"telemetry": {"protocol": over.protocol(), "tls": tls}}).to_string();
                write(world.folder.path(), "sidecar.yaml", &file);
                Sidecar::start(
                    application,
                    &["--otlp", &endpoint, "--config", &world.file("sidecar.yaml")],
                    &[(system, &trusted)],
                )
                .await
            }
        };
        let (status, _) = get(sidecar.proxy, "/x").await.expect("the proxy answers");
        assert_eq!(status, 200);
        Self { receiver, front, sidecar, _world: world }
    }

    async fn is_delivered(&self) {
        eventually("spans arrive", PATIENCE, || self.receiver.with(|seen| seen.spans.len() >= 2)).await;
        self.sidecar.eventually("/metrics", |_, page| account(page, "delivered_total{", "traces") >= 2).await;
    }

    /// Nothing is delivered and all is kept, the log says why in `words`, and neither secrets nor requests are touched.
    async fn is_refused(&self, words: &str) {
        const SAID: &str = "telemetry cannot be delivered";
        eventually("the log says so", PATIENCE, || self.sidecar.log().contains(SAID)).await;
        let (status, _) = get(self.sidecar.proxy, "/x").await.expect("the proxy answers");
        assert_eq!(status, 200);
        let log = self.sidecar.log();
        let line = log.lines().find(|line| line.contains(SAID)).expect("found above");
        assert!(line.contains(words), "{words:?} is expected in: {line}");
        assert!(line.contains(&self.front.address.to_string()), "{line}");
        assert_eq!(self.receiver.with(|seen| seen.calls), 0);
        let (_, dashboard) = self.sidecar.ask("/dashboard").await;
        assert!(dashboard.contains("Failing: telemetry waits and is sent later"), "{dashboard}");
        let page = self.sidecar.eventually("/metrics", |_, page| account(page, "queued{", "traces") >= 4).await;
        for signal in ["traces", "metrics", "logs"] {
            assert_eq!(account(&page, "delivered_total{", signal), 0, "{page}");
            assert_eq!(account(&page, "dropped_total{", signal), 0, "{page}");
        }
        for output in [log, page, dashboard] {
            assert!(!output.contains("hunter2"), "{output}");
            assert!(!output.contains("PRIVATE KEY"), "{output}");
        }
    }
}

/// The sum of the account's lines of one signal.
fn account(page: &str, name: &str, signal: &str) -> u64 {
    let (prefix, label) = (format!("content_factory_telemetry_{name}"), format!("signal=\"{signal}\""));
    let lines = page.lines().filter(|line| line.starts_with(&prefix) && line.contains(&label));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}

#[tokio::test]
async fn telemetry_is_delivered_to_whom_the_settings_trust() {
    let rows = [
        Row { clients: Clients::Anyone, name: "127.0.0.1", given: &[Given::Ca] },
        Row { clients: Clients::Anyone, name: "127.0.0.1", given: &[Given::SystemCa] },
        Row { clients: Clients::Known, name: "127.0.0.1", given: &[Given::Ca, Given::Client] },
        Row { clients: Clients::Known, name: "collector.test", given: &[Given::Ca, Given::Client, Given::ServerName] },
    ];
    for over in Over::ALL {
        for row in &rows {
            for by in [By::Variables, By::File] {
                let export = Export::start(World::new(), row, over, by).await;
                export.is_delivered().await;
                let log = export.sidecar.log();
                assert!(!log.contains("::telemetry::"), "{over:?} {:?} {by:?}: {log}", row.given);
                let asked = if row.given.contains(&Given::ServerName) { row.name } else { "none" };
                export.front.with(|seen| assert!(seen.names.iter().all(|name| name == asked), "{seen:?}"));
            }
        }
    }
}

async fn nothing_is_delivered(row: Row, words: &str) {
    for over in Over::ALL {
        let export = Export::start(World::new(), &row, over, By::Variables).await;
        export.is_refused(words).await;
    }
}

#[tokio::test]
async fn a_receiver_of_another_authority_gets_nothing() {
    for (given, trusted) in
        [(&[][..], "the system, or telemetry.tls.ca set"), (&[Given::ForeignCa], "telemetry.tls.ca")]
    {
        let row = Row { clients: Clients::Anyone, name: "127.0.0.1", given };
        nothing_is_delivered(row, &format!("is of an unknown authority, expected one of {trusted}")).await;
    }
}

#[tokio::test]
async fn a_receiver_with_another_name_gets_nothing() {
    let row = Row { clients: Clients::Anyone, name: "collector.test", given: &[Given::Ca] };
    nothing_is_delivered(
        row,
        "valid for DnsName(\"collector.test\")), expected that of the endpoint or of telemetry.tls.server_name",
    )
    .await;
}

#[tokio::test]
async fn a_receiver_that_wants_a_certificate_and_sees_none_gets_nothing() {
    let row = Row { clients: Clients::Known, name: "127.0.0.1", given: &[Given::Ca] };
    nothing_is_delivered(row, "wants a client certificate, expected one in telemetry.tls.client_certificate").await;
}

#[tokio::test]
async fn a_receiver_that_does_not_know_the_certificate_gets_nothing() {
    let row = Row { clients: Clients::Known, name: "127.0.0.1", given: &[Given::Ca, Given::ForeignClient] };
    nothing_is_delivered(row, "does not accept our client certificate").await;
}
