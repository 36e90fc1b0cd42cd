//! The check of a URL: a request whose answer is as expected. Redirects are not followed, and a body is read when a condition
//! speaks of it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::tls::TlsInfo;
use reqwest::{Client, Method, Response, Url};
use tokio::net::lookup_host;
use tokio::time::Instant;

use crate::checks::check::{Check, Finding};
use crate::checks::failure::{Class, Failure};
use crate::checks::kinds::expect::Expect;
use crate::checks::kinds::tls::{ends_soon, left};
use crate::checks::plan::{Kind, Plan, Reading};
use crate::checks::service::Pace;
use crate::fetch::{USER_AGENT, provide_cryptography};
use crate::model::trouble::Trouble;
use crate::redact::Secret;
use crate::settings::Section;
use crate::trust::{self, Trust};

/// Asks one URL, on a new connection each time: it is the way there that is checked.
pub(in crate::checks) struct Http {
    client: Client,
    asks: Asks,
}

/// What is asked for, and what the answer must be.
#[derive(Clone)]
struct Asks {
    url: Url,
    method: Method,
    authorization: Option<HeaderValue>,
    expect: Expect,
}

pub(super) const KIND: Kind =
    Kind { word: "http", about: "a URL whose answer is as expected", pace: Pace::seconds(30, 5), read };

fn read(reading: &mut Reading<'_, '_>) -> Option<Plan> {
    let section = &mut *reading.section;
    let about = "The URL. It may hold a key, so it is never shown.";
    let url = read_url(section, about);
    if url.is_none() && !section.is_secret_set("url") {
        section.problem("url", "nothing", EXPECTED);
    }
    let about = "How it is asked: GET, or HEAD where a body is long.";
    let method = section.choice("method", Way::Get, &[("GET", Way::Get), ("HEAD", Way::Head)], about);
    let authorization = read_authorization(section);
    let authorities = trust::read(section);
    let expect = Expect::read(&mut section.section("expect"));
    let method = match method {
        Way::Get => Method::GET,
        Way::Head => Method::HEAD,
    };
    let asks = Asks { url: url?.expose().clone(), method, authorization, expect };
    Some(Plan::perhaps(move |means| {
        let client = client(&asks.url, &means.trust, authorities.as_ref())?;
        Some(Http { client, asks: asks.clone() })
    }))
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Get,
    Head,
}

const EXPECTED: &str = "a URL such as https://api.example.com/health, not of a link-local address";

/// Reads the key `url` of this section.
pub(in crate::checks) fn read_url(section: &mut Section<'_>, about: &'static str) -> Option<Secret<Url>> {
    let text = section.secret_url("url", about)?;
    let url = Url::parse(text.expose()).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let outward = |url: &Url| match url.host() {
        Some(url::Host::Ipv4(address)) => is_allowed(address.into()),
        Some(url::Host::Ipv6(address)) => is_allowed(address.into()),
        Some(url::Host::Domain(_)) => true,
        None => false,
    };
    let url = url.filter(outward);
    if url.is_none() {
        section.problem("url", &text, EXPECTED);
    }
    url.map(Secret::new)
}

fn read_authorization(section: &mut Section<'_>) -> Option<HeaderValue> {
    let about = "The value of the header Authorization, such as Bearer and a token.";
    let text = section.secret("authorization", about)?;
    let Ok(mut value) = HeaderValue::from_str(text.expose()) else {
        section.wrong_secret("authorization", "one line of text");
        return None;
    };
    if let Some((_, token)) = text.expose().split_once(' ') {
        section.remember_secret(token);
    }
    value.set_sensitive(true);
    Some(value)
}

/// A client that asks this URL; `None` when nobody is to be trusted.
pub(super) fn client(url: &Url, trust: &Trust, authorities: Option<&Secret<String>>) -> Option<Client> {
    provide_cryptography();
    let builder = Client::builder()
        .user_agent(USER_AGENT)
        .redirect(Policy::none())
        .pool_max_idle_per_host(0)
        .no_proxy()
        .tls_info(true)
        .dns_resolver(Arc::new(Outward));
    let builder = match url.scheme() {
        "https" => builder.tls_backend_preconfigured((*trust.client(authorities)?).clone()),
        _ => builder.tls_certs_only([]),
    };
    builder.build().ok()
}

impl Http {
    /// Checks that this URL answers with a success; `None` when the system has no usable certificates.
    pub(in crate::checks) fn new(url: Url, trust: &Trust) -> Option<Self> {
        let client = client(&url, trust, None)?;
        Some(Self { client, asks: Asks { url, method: Method::GET, authorization: None, expect: Expect::default() } })
    }
}

#[async_trait]
impl Check for Http {
    async fn run(&self) -> Result<Finding, Failure> {
        let Asks { url, method, authorization, expect } = &self.asks;
        let started = Instant::now();
        let mut request = self.client.request(method.clone(), url.clone());
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let mut response = request.send().await.map_err(failure)?;
        expect.judge_head(response.status(), response.headers())?;
        if expect.wants_body() {
            let body = body(&mut response).await?;
            expect.judge_body(&body)?;
        }
        expect.judge_latency(started.elapsed())?;
        match expect.certificate.zip(certificate(&response)) {
            Some((least, left)) if left < least => Ok(ends_soon(left)),
            _ => Ok(Finding::Works),
        }
    }
}

/// How long the certificate of the other side lasts; `None` without TLS.
fn certificate(response: &Response) -> Option<Duration> {
    left(response.extensions().get::<TlsInfo>()?.peer_certificate()?)
}

/// What is longer is no answer to a check.
const LARGEST_BODY: usize = 64 * 1024;

async fn body(response: &mut Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failure)? {
        if body.len() + chunk.len() > LARGEST_BODY {
            return Err(Failure::new(Class::Condition("body_too_large"), "more than 64 KiB"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

pub(super) fn failure(error: reqwest::Error) -> Failure {
    let class = match () {
        () if error.is_timeout() => Some(Trouble::Timeout),
        () if error.is_dns() => Some(Trouble::Dns),
        () => None,
    };
    // the URL may hold a key
    Failure::known(class, &error.without_url())
}

/// Whether an address may be asked: link-local ones answer with the machine's own credentials.
fn is_allowed(address: IpAddr) -> bool {
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
