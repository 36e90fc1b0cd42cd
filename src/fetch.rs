//! One question by plain HTTP: for what the application tells of itself.
//!
//! Bounded in bytes and time, on a connection of its own, without redirects, proxies or certificates.

use std::time::Duration;

use reqwest::{Client, StatusCode, redirect};

/// How we name ourselves to whom we ask.
pub const USER_AGENT: &str = concat!("content-factory-sidecar/", env!("CARGO_PKG_VERSION"));

/// Why there is no document.
#[derive(Debug)]
pub enum NoDocument {
    /// No connection, or no whole answer in time. Without the URL, which may hold a key.
    NoAnswer(reqwest::Error),
    /// A status other than 200; redirects are not followed.
    Status(u16),
    /// More bytes than are read.
    TooLarge,
}

impl From<reqwest::Error> for NoDocument {
    fn from(error: reqwest::Error) -> Self {
        Self::NoAnswer(error.without_url())
    }
}

/// A client of plain HTTP, with `limit` for one answer, all told: it trusts no certificate, so it loads none.
///
/// # Errors
/// The system lets none be made.
pub fn client(limit: Duration) -> reqwest::Result<Client> {
    provide_cryptography();
    Client::builder()
        .user_agent(USER_AGENT)
        .redirect(redirect::Policy::none())
        .timeout(limit)
        .pool_max_idle_per_host(0) // a connection a minute is not worth one of the application's
        .no_proxy()
        .http1_only()
        .tls_certs_only([])
        .build()
}

/// Installs the one TLS provider of the process, which every client wants, also one that speaks no TLS; may be called again.
pub fn provide_cryptography() {
    // whoever comes first installs it; all of us bring the same one
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The body of a 200, of `most` bytes at most.
///
/// # Errors
/// There is no such answer.
pub async fn document(client: &Client, url: &str, most: usize) -> Result<Vec<u8>, NoDocument> {
    let mut response = client.get(url).send().await?;
    if response.status() != StatusCode::OK {
        return Err(NoDocument::Status(response.status().as_u16()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > most {
            return Err(NoDocument::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
