//! TLS to a real PostgreSQL by each mode of its clients, client certificates, and the other ways to its address.

use content_factory_sidecar::model::health::HealthStatus;

use crate::checks_databases::patient;
use crate::checks_endpoints::until;
use crate::database_servers::{PASSWORD, Postgres};
use crate::rig::{Sidecar, echo_application};
use crate::telemetry_certificates::Authority;

/// Whether our connection is encrypted, as the server sees it.
const ENCRYPTED: &str = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                         WHERE application_name = 'cf-sidecar' AND ssl";

const WELL: &str = "Database connection successful";
const TLS: &str = "Database check failed: tls";

/// What the check says of this address.
async fn said_of(url: &str) -> String {
    let known = |status: HealthStatus| status == HealthStatus::Healthy || status == HealthStatus::Unhealthy;
    let mut checks = patient(url);
    checks.until("database", |report| known(report.status)).await.message.to_string()
}

/// A server with TLS, its authority, and the file of that.
async fn with_tls(name: &str) -> (Postgres, Authority, tempfile::TempDir, String) {
    let (postgres, authority) = (Postgres::start(&[]).await, Authority::new());
    let identity = authority.server(name);
    postgres
        .encrypt(&[
            ("server.crt", &identity.certificate),
            ("server.key", &identity.key),
            ("ca.crt", &authority.certificate),
        ])
        .await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, &authority.certificate).expect("a file in a new folder");
    let file = file.display().to_string();
    (postgres, authority, folder, file)
}

#[tokio::test]
async fn a_server_without_tls_is_read_where_tls_may_be_missing_and_refused_where_not() {
    let postgres = Postgres::start(&[]).await;
    let url = postgres.url("cf_sidecar");
    for (mode, message) in [
        ("disable", WELL),
        ("allow", WELL),
        ("prefer", WELL),
        ("require", TLS),
        ("verify-ca", TLS),
        ("verify-full", TLS),
    ] {
        assert_eq!(said_of(&format!("{url}?sslmode={mode}")).await, message, "{mode}");
    }
}

#[tokio::test]
async fn each_mode_looks_at_as_much_of_the_certificate_as_it_says() {
    let (postgres, _authority, _folder, ca) = with_tls("localhost").await;
    let by_address = postgres.url("cf_sidecar");
    let by_name = by_address.replace("127.0.0.1", "localhost");
    let trusting = format!("&sslrootcert={ca}");
    for (url, mode, more, message) in [
        (&by_address, "require", "", WELL),
        (&by_address, "verify-ca", "", TLS),
        (&by_address, "verify-ca", &*trusting, WELL),
        (&by_address, "verify-full", &trusting, TLS),
        (&by_name, "verify-full", "", TLS),
        (&by_name, "verify-full", &trusting, WELL),
        (&by_name, "verify-full", "&sslrootcert=/nowhere/ca.pem", "Database check failed: not_found"),
    ] {
        assert_eq!(said_of(&format!("{url}?sslmode={mode}{more}")).await, message, "{url} {mode} {more}");
    }
}

#[tokio::test]
async fn a_connection_is_encrypted_where_the_server_offers_it_unless_the_mode_says_no() {
    let (postgres, ..) = with_tls("localhost").await;
    for (mode, encrypted) in
        [("?sslmode=disable", 0), ("?sslmode=allow", 0), ("?sslmode=prefer", 1), ("", 1), ("?sslmode=require", 1)]
    {
        let mut checks = patient(&format!("{}{mode}", postgres.url("cf_sidecar")));
        assert_eq!(checks.message("database", HealthStatus::Healthy).await, WELL);
        assert_eq!(postgres.number(ENCRYPTED).await, encrypted, "{mode}");
    }
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_takes_the_one_of_the_address() {
    let (postgres, authority, folder, _) = with_tls("localhost").await;
    let hosts = "hostssl all cf_sidecar all scram-sha-256 clientcert=verify-ca\nhost all factory all scram-sha-256\n";
    postgres.admit(hosts).await;
    let own = authority.client();
    let [certificate, key] = [("own.pem", &own.certificate), ("own.key", &own.key)].map(|(name, pem)| {
        let file = folder.path().join(name);
        std::fs::write(&file, pem).expect("a file in a new folder");
        file.display().to_string()
    });
    let url = postgres.url("cf_sidecar");
    for (more, message) in [
        ("sslmode=disable".to_owned(), "Database check failed: auth"),
        ("sslmode=require".to_owned(), "Database check failed: auth"),
        (format!("sslmode=require&sslcert={certificate}&sslkey={key}"), WELL),
    ] {
        assert_eq!(said_of(&format!("{url}?{more}")).await, message, "{more}");
    }
}

#[tokio::test]
async fn what_the_address_leaves_out_is_taken_from_the_variables_of_postgresqls_clients() {
    let (postgres, _authority, _folder, ca) = with_tls("localhost").await;
    let by_address = postgres.url("cf_sidecar");
    for (url, message) in [(by_address.replace("127.0.0.1", "localhost"), WELL), (by_address, TLS)] {
        let environment = [
            ("DATABASE_URL", &*url),
            ("PGSSLMODE", "verify-full"),
            ("PGSSLROOTCERT", &ca),
            ("SIDECAR_CHECKS__DATABASE__PERIOD", "2s"),
            ("SIDECAR_CHECKS__DATABASE__TIMEOUT", "1900ms"),
            ("SIDECAR_CHECKS__DATABASE__DEGRADED_ABOVE", "1900ms"),
            ("SIDECAR_CHECKS__DATABASE__FAILURE_THRESHOLD", "1"),
        ];
        let sidecar = Sidecar::start(echo_application().await, &[], &environment).await;
        until(&sidecar, "database", |check| check["message"] == message).await;
    }
}

#[tokio::test]
async fn a_server_is_reached_by_its_socket_in_the_file_system() {
    let postgres = Postgres::start(&[]).await;
    let (folder, port) = (postgres.folder().display().to_string(), postgres.address.port());
    for mode in ["disable", "prefer"] {
        let url = format!(
            "postgresql:///postgres?host={folder}&port={port}&user=cf_sidecar&password={PASSWORD}&sslmode={mode}"
        );
        assert_eq!(said_of(&url).await, WELL);
    }
}
