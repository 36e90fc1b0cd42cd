//! Mistakes in the settings of TLS: each is named at start, by its key, its file, what was found and what is expected.

use crate::rig::{PATIENCE, Sidecar, echo_application, output};
use crate::telemetry_certificates::Authority;
use crate::telemetry_receiver::{Over, eventually};

const CA: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE";
const CERTIFICATE: &str = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE";
const KEY: &str = "OTEL_EXPORTER_OTLP_CLIENT_KEY";

const BROKEN: &str = "-----BEGIN CERTIFICATE-----\nMIIBhunter2\n";
const NO_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
const ENCRYPTED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";

/// The variables that are set, each to the file of that name; and what is said about the last of them.
type Row = (&'static [(&'static str, &'static str)], &'static str, &'static str);

const ROWS: &[Row] = &[
    (&[(CA, "missing")], "telemetry.tls.ca_file", "a readable file (No such file or directory"),
    (&[(CA, "folder")], "telemetry.tls.ca_file", "a readable file (Is a directory"),
    (&[(CA, "binary")], "telemetry.tls.ca_file", "a readable file ("),
    (&[(CA, "text")], "telemetry.tls.ca_file", "certificates in PEM (found none in its 14 bytes)"),
    (&[(CA, "broken")], "telemetry.tls.ca_file", "certificates in PEM (found broken PEM in its 39 bytes)"),
    (&[(CA, "no-certificate")], "telemetry.tls.ca_file", "certificates in PEM (found one that is none: "),
    (&[(CA, "key")], "telemetry.tls.ca_file", "certificates in PEM (found only a private key)"),
    (&[(KEY, "key"), (CERTIFICATE, "missing")], "telemetry.tls.client_certificate_file", "a readable file ("),
    (
        &[(KEY, "key"), (CERTIFICATE, "text")],
        "telemetry.tls.client_certificate_file",
        "certificates in PEM (found none",
    ),
    (&[(KEY, "key"), (CERTIFICATE, "key")], "telemetry.tls.client_certificate_file", "found only a private key"),
    (&[(CERTIFICATE, "certificate"), (KEY, "missing")], "telemetry.tls.client_key_file", "a readable file ("),
    (
        &[(CERTIFICATE, "certificate"), (KEY, "text")],
        "telemetry.tls.client_key_file",
        "a private key in PEM, not encrypted",
    ),
    (&[(CERTIFICATE, "certificate"), (KEY, "encrypted")], "telemetry.tls.client_key_file", "not encrypted (found none"),
    (
        &[(CERTIFICATE, "certificate"), (KEY, "certificate")],
        "telemetry.tls.client_key_file",
        "a private key in PEM, not encrypted (found only a certificate)",
    ),
    (
        &[(CERTIFICATE, "certificate"), (KEY, "other-key")],
        "telemetry.tls.client_key_file",
        "the private key of the certificate in client_certificate (found another: ",
    ),
    (
        &[(CA, "certificate"), ("OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE", "text")],
        "telemetry.logs.tls.ca_file",
        "certificates in PEM (found none in its 14 bytes)",
    ),
];

#[tokio::test]
async fn a_file_that_is_wrong_is_named_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (ours, other) = (authority.client(), authority.client());
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    for (name, content) in [
        ("binary", &b"\x30\x82\x01\x8a\xff"[..]),
        ("text", b"no certificate\n"),
        ("broken", BROKEN.as_bytes()),
        ("no-certificate", NO_CERTIFICATE.as_bytes()),
        ("encrypted", ENCRYPTED.as_bytes()),
        ("certificate", ours.certificate.as_bytes()),
        ("key", ours.key.as_bytes()),
        ("other-key", other.key.as_bytes()),
    ] {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    for (files, path, expected) in ROWS {
        let file = |name: &str| folder.path().join(name).display().to_string();
        let set: Vec<(&str, String)> = files.iter().map(|(variable, name)| (*variable, file(name))).collect();
        let environment: Vec<(&str, &str)> = set.iter().map(|(variable, file)| (*variable, file.as_str())).collect();
        let ended = output(&["run", "--otlp", "https://127.0.0.1:1"], &environment).await;
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(64), "{files:?}: {said}");
        let (place, found) = environment.last().expect("each row sets a variable");
        for part in [&format!("{path}: {found}, expected "), *expected, &format!("(set in {place})")] {
            assert!(said.contains(part), "{part:?} is expected in: {said}");
        }
        let mistakes = said.lines().filter(|line| line.contains(", expected ")).count();
        assert_eq!(mistakes, 1, "{said}");
        for line in ours.key.lines().chain(other.key.lines()).chain(["hunter2"]) {
            assert!(!said.contains(line), "{line:?} is secret: {said}");
        }
    }
}

#[tokio::test]
async fn a_value_that_is_wrong_is_named_at_start_and_not_shown() {
    for (variable, value, said) in [
        (
            "SIDECAR_TELEMETRY__TLS__CA",
            "hunter2",
            "telemetry.tls.ca: ***, expected certificates in PEM (found none in its 7 bytes)",
        ),
        (
            "SIDECAR_TELEMETRY__TLS__CLIENT_KEY",
            "hunter2",
            "telemetry.tls.client_certificate: nothing, expected the certificate of client_key",
        ),
        ("SIDECAR_TELEMETRY__TLS__SERVER_NAME", "10.0.0.1", "telemetry.tls.server_name: 10.0.0.1, expected a DNS name"),
        ("SIDECAR_TELEMETRY__TLS__SERVER_NAME", "a b", "telemetry.tls.server_name: a b, expected a DNS name"),
    ] {
        let ended = output(&["run", "--otlp", "https://127.0.0.1:1"], &[(variable, value)]).await;
        let text = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(64), "{variable}: {text}");
        assert!(text.contains(said), "{said:?} is expected in: {text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn a_system_without_authorities_is_named_at_start() {
    for over in Over::ALL {
        let nowhere = [("SSL_CERT_FILE", "/nowhere"), ("SSL_CERT_DIR", "/nowhere")];
        let environment = [nowhere[0], nowhere[1], ("OTEL_EXPORTER_OTLP_PROTOCOL", over.protocol())];
        let ended = output(&["run", "--otlp", "https://127.0.0.1:1"], &environment).await;
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(1), "{said}");
        let expected = "expected authorities to trust in telemetry.tls.ca, or on the system (ca-certificates, or a file named by SSL_CERT_FILE)";
        assert!(said.contains(expected), "{said}");
    }
}

#[tokio::test]
async fn tls_that_an_endpoint_does_not_speak_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, Authority::new().certificate).unwrap();
    let file = file.display().to_string();
    let sidecar = Sidecar::start(echo_application().await, &[], &[(CA, file.as_str())]).await;
    let said = "the settings of TLS have no effect on http://127.0.0.1:1: expected https:// there";
    eventually("the log says so", PATIENCE, || sidecar.log().contains(said)).await;
}
