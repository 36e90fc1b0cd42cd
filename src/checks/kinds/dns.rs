//! The check of a name: does the system's resolver find an address for it, and one of those that it should?

use std::net::IpAddr;

use async_trait::async_trait;
use tokio::net::lookup_host;

use crate::checks::check::{Check, Finding};
use crate::checks::failure::{Class, Failure};
use crate::checks::plan::{Kind, Plan, Reading};
use crate::checks::service::Pace;
use crate::model::trouble::Trouble;

/// Resolves.
struct Dns {
    host: String,
    /// One of these must be found; empty when any will do.
    expected: Vec<IpAddr>,
}

pub(super) const KIND: Kind = Kind { word: "dns", about: "a name that resolves", pace: Pace::seconds(30, 5), read };

fn read(reading: &mut Reading<'_, '_>) -> Option<Plan> {
    let host = reading.required("host", "The name to resolve, as the application does.", "a name such as db.internal");
    let about = "Addresses of which one must be found; any will do without them.";
    let mut expected = Vec::new();
    for text in reading.section.list("addresses", &[], about) {
        match text.parse::<IpAddr>() {
            Ok(address) => expected.push(address.to_canonical()),
            Err(_) => reading.section.problem("addresses", text, "addresses such as 10.0.0.7"),
        }
    }
    let host = host?;
    Some(Plan::new(move |_| Dns { host: host.clone(), expected: expected.clone() }))
}

#[async_trait]
impl Check for Dns {
    async fn run(&self) -> Result<Finding, Failure> {
        let found = lookup_host((self.host.as_str(), 0)).await.map_err(|error| Failure::of(&error))?;
        let found: Vec<IpAddr> = found.map(|address| address.ip().to_canonical()).collect();
        match &self.expected[..] {
            _ if found.is_empty() => Err(Failure::plain(Trouble::Dns)),
            expected if expected.is_empty() || found.iter().any(|address| expected.contains(address)) => {
                Ok(Finding::Works)
            }
            _ => Err(Failure::new(Class::Condition("address"), format!("found {found:?}"))),
        }
    }
}
