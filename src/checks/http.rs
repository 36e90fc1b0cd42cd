//! The check of a URL: a GET whose status is a success. The body is not read, redirects are not followed.

use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use tokio::net::lookup_host;

use crate::checks::check::{Check, Finding};
use crate::checks::failure::{Class, Failure};
use crate::fetch::{USER_AGENT, provide_cryptography};

/// Asks one URL, on a new connection each time: it is the way there that is checked.
pub(super) struct Http {
    client: Client,
    url: Url,
}

impl Http {
    /// Checks this URL; `None` when the system has no usable certificates.
    pub(super) fn new(url: Url) -> Option<Self> {
        provide_cryptography();
        let client = Client::builder()
            .user_agent(USER_AGENT)
            .redirect(Policy::none())
            .pool_max_idle_per_host(0)
            .no_proxy()
            .dns_resolver(std::sync::Arc::new(Outward))
            .build();
        Some(Self { client: client.ok()?, url })
    }
}

#[async_trait]
impl Check for Http {
    async fn run(&self) -> Result<Finding, Failure> {
        let response = self.client.get(self.url.clone()).send().await.map_err(failure)?;
        let status = response.status();
        match status.as_u16() {
            _ if status.is_success() || status.is_redirection() => Ok(Finding::Works),
            401 | 403 => Err(Failure::plain(Class::Auth)),
            429 => Err(Failure::plain(Class::Quota)),
            code => Err(Failure::plain(Class::Status(code))),
        }
    }
}

fn failure(error: reqwest::Error) -> Failure {
    let class = match () {
        () if error.is_timeout() => Some(Class::Timeout),
        () if error.is_dns() => Some(Class::Dns),
        () => None,
    };
    // the URL may hold a key
    Failure::known(class, &error.without_url())
}

/// Whether an address may be asked: link-local ones answer with the machine's own credentials.
pub(super) fn is_allowed(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => !address.is_link_local(),
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    }
}

/// Resolves names, and leaves out what may not be asked: checked here, so that the checked address is the one used.
struct Outward;

impl Resolve for Outward {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<SocketAddr> = found.into_iter().filter(|address| is_allowed(address.ip())).collect();
            if allowed.is_empty() {
                return Err("the name has link-local addresses only".into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}
