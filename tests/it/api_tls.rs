//! HTTPS at the admin port, by the binary: what it shows, whom it knows by a certificate, files that change, and who is refused.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::rig::{PATIENCE, Sidecar, echo_application, get, output};
use crate::telemetry_certificates::{Authority, Identity};

const NAME: &str = "sidecar.example";
const READER: &str = "reader-0123456789abcdef";
const BOTH: &[&SupportedProtocolVersion] = &[&TLS12, &TLS13];

/// As a mounted secret changes: at once.
fn write(folder: &Path, name: &str, content: &str) {
    let new = folder.join("new");
    std::fs::write(&new, content).expect("a file in a folder of ours");
    std::fs::rename(new, folder.join(name)).expect("a file in the same folder");
}

fn write_identity(folder: &Path, Identity { certificate, key }: &Identity) {
    write(folder, "tls.crt", certificate);
    write(folder, "tls.key", key);
}

/// A sidecar that shows a certificate of this authority, and the folder of its files.
struct World {
    folder: TempDir,
    authority: Authority,
    sidecar: Sidecar,
}

impl World {
    /// It knows its clients by their certificates, or by a token.
    async fn start() -> Self {
        let (folder, authority) = (TempDir::new().expect("a folder"), Authority::new());
        write_identity(folder.path(), &authority.server(NAME));
        write(folder.path(), "ca.crt", &authority.certificate);
        write(folder.path(), "tokens", READER);
        let path = |name: &str| folder.path().join(name).display().to_string();
        let files = ["tls.crt", "tls.key", "ca.crt", "tokens"].map(path);
        let environment = [
            ("SIDECAR_ADMIN__TLS__CERTIFICATE_FILE", files[0].as_str()),
            ("SIDECAR_ADMIN__TLS__KEY_FILE", files[1].as_str()),
            ("SIDECAR_ADMIN__TLS__CLIENT_CA_FILE", files[2].as_str()),
            ("SIDECAR_ADMIN__TOKENS_FILE", files[3].as_str()),
        ];
        let sidecar = Sidecar::start(echo_application().await, &[], &environment).await;
        Self { folder, authority, sidecar }
    }

    fn client(&self) -> Client<'_> {
        Client { trusts: &self.authority, shows: None, versions: BOTH, protocols: &[b"http/1.1"] }
    }
}

/// A client of TLS.
#[derive(Clone, Copy)]
struct Client<'a> {
    trusts: &'a Authority,
    shows: Option<&'a Identity>,
    versions: &'static [&'static SupportedProtocolVersion],
    protocols: &'static [&'static [u8]],
}

impl Client<'_> {
    async fn connect(self, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate in PEM");
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&self.trusts.certificate)).expect("an authority's certificate");
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(self.versions)
            .expect("the provider knows the versions")
            .with_root_certificates(roots);
        let mut config = match self.shows {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("a key in PEM");
                builder.with_client_auth_cert(vec![certificate(&identity.certificate)], key).expect("they fit")
            }
        };
        config.alpn_protocols = self.protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from(NAME).expect("a name");
        timeout(PATIENCE, TlsConnector::from(Arc::new(config)).connect(name, stream)).await.expect("in time")
    }

    /// One request on a connection of its own: the status and the body.
    async fn get(self, address: SocketAddr, target: &str, token: Option<&str>) -> std::io::Result<(u16, String)> {
        let mut stream = self.connect(address).await?;
        let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let request = format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n{token}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("in time")?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok((answer[9..12].parse().expect("a status"), body.to_owned()))
    }
}

/// Asks on a connection that stays.
async fn ask_again(stream: &mut TlsStream<TcpStream>) -> String {
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await.expect("it reads");
    let mut answer = vec![0; 4_096];
    let length = timeout(PATIENCE, stream.read(&mut answer)).await.expect("in time").expect("it answers");
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

fn shown(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().expect("a server shows one")[0].to_vec()
}

async fn refusals(world: &World, reason: &str) -> f64 {
    let (_, page) = world.client().get(world.sidecar.admin, "/metrics", Some(READER)).await.expect("it answers");
    let series = format!("content_factory_admin_refusals_total{{reason=\"{reason}\"}} ");
    let value = page.lines().find_map(|line| line.strip_prefix(&series)).expect("the series");
    value.parse().expect("a number")
}

#[tokio::test]
async fn both_versions_of_tls_and_of_http_are_spoken_and_no_older_one() {
    let world = World::start().await;
    let address = world.sidecar.admin;
    for version in BOTH {
        let client = Client { versions: std::slice::from_ref(version), ..world.client() };
        assert_eq!(client.get(address, "/livez", None).await.expect("it answers").0, 200, "{version:?}");
    }
    let h2 = Client { protocols: &[b"h2", b"http/1.1"], ..world.client() }.connect(address).await.expect("a handshake");
    assert_eq!(h2.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (sender, connection) = h2::client::handshake(h2).await.expect("HTTP/2");
    let mut connections = tokio::task::JoinSet::new();
    connections.spawn(async move { drop(connection.await) });
    let mut sender = timeout(PATIENCE, sender.ready()).await.expect("in time").expect("it is ready");
    let request = http::Request::get("https://127.0.0.1/livez").body(()).expect("a request");
    let (answer, _) = sender.send_request(request, true).expect("a stream");
    assert_eq!(timeout(PATIENCE, answer).await.expect("in time").expect("an answer").status(), 200);
    // a ClientHello of TLS 1.1 with one suite of its time, and the alert protocol_version (RFC 8446, section 6.2)
    let mut hello = vec![3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0, 47, 1, 0]);
    hello.extend([0, 8, 0, 13, 0, 4, 0, 2, 4, 3]); // signature_algorithms, without which nobody looks at the version
    let length = hello.len() as u8;
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(hello);
    let mut stream = TcpStream::connect(address).await.expect("it accepts");
    stream.write_all(&record).await.expect("it reads");
    let mut alert = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut alert)).await.expect("in time").expect("an alert");
    assert_eq!((alert.first(), alert.last()), (Some(&21), Some(&70)), "{alert:?}");
}

#[tokio::test]
async fn a_certificate_of_the_clients_authority_reads_and_without_one_probes_and_tokens_go_on() {
    let world = World::start().await;
    let address = world.sidecar.admin;
    let own = world.authority.client();
    let certified = Client { shows: Some(&own), ..world.client() };
    for (client, token, [status, health, probe]) in [
        (certified, None, [200, 200, 200]),
        (world.client(), Some(READER), [200, 200, 200]),
        (world.client(), None, [401, 200, 200]),
    ] {
        for (target, expected) in [("/status", status), ("/health", health), ("/startupz", probe)] {
            let (found, _) = client.get(address, target, token).await.expect("it answers");
            assert_eq!(found, expected, "{target} {token:?}");
        }
    }
    let foreign = Authority::new().client();
    let stranger = Client { shows: Some(&foreign), ..world.client() };
    assert!(stranger.get(address, "/livez", None).await.is_err(), "a certificate of somebody else is no certificate");
    world.sidecar.says(&["did not come to terms on TLS"]).await;
    assert_eq!(refusals(&world, "handshake").await, 1.0);
    // it reads, and does not write
    let mut stream = certified.connect(address).await.expect("a handshake");
    let run = "POST /api/v1/monitoring/checks/database/run HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    stream.write_all(run.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("in time").expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}

#[tokio::test]
async fn certificates_change_with_their_files_and_what_is_open_stays() {
    let world = World::start().await;
    let (address, folder) = (world.sidecar.admin, world.folder.path());
    let mut old = world.client().connect(address).await.expect("a handshake");
    let first = shown(&old);
    assert!(ask_again(&mut old).await.starts_with("HTTP/1.1 200 "));
    let next = world.authority.server(NAME);
    write(folder, "tls.crt", &next.certificate);
    world
        .sidecar
        .says(&["is wrong: what was in use stays", "tls.key: expected the private key of the certificate"])
        .await;
    assert_eq!(shown(&world.client().connect(address).await.expect("a handshake")), first);
    write(folder, "tls.key", &next.key);
    let deadline = Instant::now() + PATIENCE;
    while shown(&world.client().connect(address).await.expect("a handshake")) == first {
        assert!(Instant::now() < deadline, "{}", world.sidecar.log());
        sleep(Duration::from_millis(20)).await;
    }
    assert!(ask_again(&mut old).await.starts_with("HTTP/1.1 200 "), "the connection of before is dropped");
    // another authority of the clients
    let (other, own) = (Authority::new(), world.authority.client());
    write(folder, "ca.crt", &other.certificate);
    let theirs = other.client();
    let certified = Client { shows: Some(&theirs), ..world.client() };
    let deadline = Instant::now() + PATIENCE;
    while !certified.get(address, "/status", None).await.is_ok_and(|(status, _)| status == 200) {
        assert!(Instant::now() < deadline, "{}", world.sidecar.log());
        sleep(Duration::from_millis(20)).await;
    }
    assert!(Client { shows: Some(&own), ..world.client() }.get(address, "/status", None).await.is_err());
    assert!(!world.sidecar.log().contains("PRIVATE KEY"), "{}", world.sidecar.log());
}

#[tokio::test]
async fn clear_text_is_refused_in_clear_text_and_told_once() {
    let world = World::start().await;
    for _ in 0..3 {
        let (status, body) = get(world.sidecar.admin, "/health").await.expect("an answer");
        assert_eq!(status, 400);
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(
            (&body["error"], &body["expected"]),
            (&"HTTP in clear text".into(), &"HTTPS: admin.tls is set".into())
        );
    }
    assert_eq!(refusals(&world, "plain_http").await, 3.0);
    assert_eq!(world.sidecar.log().matches("expected HTTPS: admin.tls is set").count(), 1, "{}", world.sidecar.log());
}

#[tokio::test]
async fn handshakes_that_never_end_hold_up_nobody_and_are_cut_off() {
    let world = World::start().await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(world.sidecar.admin).await.expect("it accepts");
        stream.write_all(&[22, 3, 1]).await.expect("it reads");
        silent.push(stream);
    }
    assert_eq!(world.client().get(world.sidecar.admin, "/livez", None).await.expect("it answers").0, 200);
    assert_eq!(refusals(&world, "handshake_timeout").await, 0.0);
    for mut stream in silent {
        let end = timeout(PATIENCE, stream.read(&mut [0; 64])).await.expect("it is cut off");
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
    assert_eq!(refusals(&world, "handshake_timeout").await, 20.0);
}

#[tokio::test]
async fn health_asks_by_https_and_looks_at_the_certificate_when_it_is_told_whom_to_trust() {
    let world = World::start().await;
    let url = format!("https://{}/health", world.sidecar.admin);
    let path = |name: &str| world.folder.path().join(name).display().to_string();
    let (tokens, ca) = (path("tokens"), path("ca.crt"));
    let bare = output(&["health", &url], &[]).await;
    let word: Value = serde_json::from_slice(&bare.stdout).expect("JSON");
    assert_eq!((bare.status.success(), word.as_object().map(serde_json::Map::len)), (true, Some(1)), "{bare:?}");
    let detail = output(&["health", &url, "--token-file", &tokens], &[]).await;
    assert!(String::from_utf8_lossy(&detail.stdout).contains(r#""services":{"#), "{detail:?}");
    // the certificate is of another name than the address
    let named = output(&["health", &url, "--ca", &ca], &[]).await;
    assert_eq!(named.status.code(), Some(1), "{named:?}");
    write_identity(world.folder.path(), &world.authority.server("127.0.0.1"));
    let deadline = Instant::now() + PATIENCE;
    while !output(&["health", &url, "--ca", &ca], &[]).await.status.success() {
        assert!(Instant::now() < deadline, "{}", world.sidecar.log());
    }
    write(world.folder.path(), "other.crt", &Authority::new().certificate);
    let foreign = output(&["health", &url, "--ca", &path("other.crt")], &[]).await;
    assert_eq!(foreign.status.code(), Some(1), "{foreign:?}");
    let plain = output(&["health", &url.replace("https", "http")], &[]).await;
    assert_eq!(plain.status.code(), Some(1), "{plain:?}");
    assert!(String::from_utf8_lossy(&plain.stdout).contains("HTTPS: admin.tls is set"), "{plain:?}");
}

#[tokio::test]
async fn certificates_that_are_wrong_are_mistakes_at_start() {
    let (folder, authority) = (TempDir::new().expect("a folder"), Authority::new());
    write_identity(folder.path(), &authority.server(NAME));
    write(folder.path(), "other.key", &authority.server(NAME).key);
    write(folder.path(), "none", "no PEM at all");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (certificate, key, other, none) = (path("tls.crt"), path("tls.key"), path("other.key"), path("none"));
    let names = ["CERTIFICATE", "KEY", "CLIENT_CA"].map(|name| format!("SIDECAR_ADMIN__TLS__{name}_FILE"));
    for (files, expected) in [
        ([Some(&certificate), None, None], "admin.tls.key: nothing, expected the key of certificate"),
        ([None, Some(&key), None], "admin.tls.certificate: nothing, expected the certificate of key"),
        ([None, None, Some(&certificate)], "admin.tls.certificate: nothing, expected a certificate, or no client_ca"),
        ([Some(&certificate), Some(&other), None], "expected the private key of the certificate in certificate"),
        ([Some(&none), Some(&key), None], "expected certificates in PEM (found none in its 13 bytes)"),
        ([Some(&certificate), Some(&key), Some(&none)], "admin.tls.client_ca_file: "),
    ] {
        let pairs = names.iter().zip(files).filter_map(|(name, file)| Some((name.as_str(), file?.as_str())));
        let checked = output(&["check-config"], &pairs.collect::<Vec<_>>()).await;
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert_eq!(checked.status.code(), Some(64), "{said}");
        assert!(said.contains(expected), "{expected:?} is missing in:\n{said}");
    }
}
