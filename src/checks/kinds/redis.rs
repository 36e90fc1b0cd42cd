//! The check of Redis: PING on a connection of its own.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisError, RedisResult, TlsCertificates};

use crate::checks::check::{Check, Finding};
use crate::checks::failure::Failure;
use crate::checks::plan::{Kind, Plan, Reading};
use crate::checks::service::Pace;
use crate::model::base64;
use crate::model::trouble::Trouble;
use crate::redact::Secret;
use crate::settings::Section;

/// Keeps its connection between runs; a run that is cut off takes the connection with it.
pub(in crate::checks) struct Redis {
    client: Client,
    kept: Mutex<Option<MultiplexedConnection>>,
}

pub(super) const KIND: Kind =
    Kind { word: "redis", about: "a Redis that answers PING", pace: Pace::seconds(10, 2), read };

fn read(reading: &mut Reading<'_, '_>) -> Option<Plan> {
    let about = "The Redis, as redis://[:password@]host:port/db; rediss:// with TLS.";
    let client = read_url(reading.section, about);
    if client.is_none() && !reading.section.is_secret_set("url") {
        reading.section.problem("url", "nothing", EXPECTED);
    }
    let client = client?;
    Some(Plan::new(move |_| Redis::new(client.expose().clone())))
}

const EXPECTED: &str = "a URL such as redis://:password@127.0.0.1:6379/0";

/// Reads the key `url` of this section.
pub(in crate::checks) fn read_url(section: &mut Section<'_>, about: &'static str) -> Option<Secret<Client>> {
    let url = section.secret_url("url", about)?;
    match open(url.expose()) {
        Ok(client) => Some(Secret::new(client)),
        Err(_) => {
            section.problem("url", &url, EXPECTED);
            None
        }
    }
}

/// A client that trusts the system's authorities, where `SSL_CERT_FILE` may name one's own, and those of the web where the
/// system has none.
fn open(url: &str) -> RedisResult<Client> {
    let is_tls = url.starts_with("rediss:");
    let system = if is_tls { rustls_native_certs::load_native_certs().certs } else { Vec::new() };
    if system.is_empty() {
        return Client::open(url);
    }
    let pem = |der: &[u8]| format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", base64::encode(der));
    let root_cert = Some(system.iter().map(|certificate| pem(certificate)).collect::<String>().into_bytes());
    Client::build_with_tls(url, TlsCertificates { client_tls: None, root_cert })
}

impl Redis {
    /// Checks the server of this client.
    pub(in crate::checks) fn new(client: Client) -> Self {
        Self { client, kept: Mutex::default() }
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<MultiplexedConnection>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Check for Redis {
    async fn run(&self) -> Result<Finding, Failure> {
        let kept = self.slot().take();
        // a server that was restarted closes the kept connection; that alone is no failure of today
        if let Some(mut connection) = kept
            && ping(&mut connection).await.is_ok()
        {
            *self.slot() = Some(connection);
            return Ok(Finding::Works);
        }
        // the runner's limit is the only one: two limits would need two settings
        let limits = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let opened = self.client.get_multiplexed_async_connection_with_config(&limits).await;
        let mut connection = opened.map_err(|error| failure(&error))?;
        ping(&mut connection).await.map_err(|error| failure(&error))?;
        *self.slot() = Some(connection);
        Ok(Finding::Works)
    }
}

async fn ping(connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
    redis::cmd("PING").query_async(connection).await
}

fn failure(error: &RedisError) -> Failure {
    let class = match (error.kind(), error.code()) {
        (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS" | "NOPERM")) => Some(Trouble::Auth),
        _ if error.is_timeout() => Some(Trouble::Timeout),
        _ if error.is_connection_refusal() => Some(Trouble::Refused),
        // the server says how many it takes
        _ if error.to_string().contains("max number of clients") => Some(Trouble::Quota),
        _ => None,
    };
    Failure::known(class, error)
}
