//! The check of Redis: PING on a connection of its own.

use std::io;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use redis::{Client, ConnectionInfo};

use crate::checks::check::{Check, Finding};
use crate::checks::failure::Failure;
use crate::checks::plan::{Kind, Plan, Reading};
use crate::checks::service::Pace;
use crate::model::trouble::Trouble;
use crate::redact::Secret;
use crate::redis_link::resp::Reply;
use crate::redis_link::{Arrival, Link, LinkError};
use crate::settings::Section;

/// Keeps its connection between runs; a run that is cut off takes the connection with it.
pub(in crate::checks) struct Redis {
    server: ConnectionInfo,
    kept: Mutex<Option<Link>>,
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
    match Client::open(url.expose().as_str()) {
        Ok(client) => Some(Secret::new(client)),
        Err(_) => {
            section.problem("url", &url, EXPECTED);
            None
        }
    }
}

impl Redis {
    /// Checks the server of this client.
    pub(in crate::checks) fn new(client: Client) -> Self {
        Self { server: client.get_connection_info().clone(), kept: Mutex::default() }
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Link>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Check for Redis {
    async fn run(&self) -> Result<Finding, Failure> {
        let kept = self.slot().take();
        // a server that was restarted closes the kept connection; that alone is no failure of today
        if let Some(mut link) = kept
            && ping(&mut link).await.is_ok()
        {
            *self.slot() = Some(link);
            return Ok(Finding::Works);
        }
        let mut link = Link::greeted(&self.server, Arrival::Told).await.map_err(|error| failure(&error))?;
        ping(&mut link).await.map_err(|error| failure(&error))?;
        *self.slot() = Some(link);
        Ok(Finding::Works)
    }
}

async fn ping(link: &mut Link) -> Result<(), LinkError> {
    // the runner's limit is the only one: two limits would need two settings
    match link.answer(&redis::cmd("PING")).await? {
        Reply::Word => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "an answer that is no PONG").into()),
    }
}

fn failure(error: &LinkError) -> Failure {
    let class = match error {
        LinkError::Late => Some(Trouble::Timeout),
        LinkError::Tls(_) => Some(Trouble::Tls),
        LinkError::Refused(word) => match word.as_str() {
            "NOAUTH" | "WRONGPASS" | "NOPERM" => Some(Trouble::Auth),
            "MAXCLIENTS" => Some(Trouble::Quota),
            _ => None,
        },
        LinkError::Io(_) => None,
    };
    Failure::known(class, error)
}
