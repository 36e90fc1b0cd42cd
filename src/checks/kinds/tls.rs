//! The check of a certificate: a handshake, and how long what is shown will last. Sends nothing.

use std::time::Duration;

use async_trait::async_trait;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::checks::certificate::{days, not_after};
use crate::checks::check::{Check, Finding};
use crate::checks::failure::Failure;
use crate::checks::plan::{Kind, Plan, Reading};
use crate::checks::service::Pace;
use crate::model::health::HealthStatus;
use crate::model::trouble::Trouble;
use crate::redact::Clean;
use crate::trust;
use crate::wall_clock::since_epoch;

/// Shakes hands.
struct Tls {
    /// Host and port.
    address: String,
    name: ServerName<'static>,
    connector: TlsConnector,
    /// A certificate that ends sooner is told of.
    least: Duration,
}

pub(super) const KIND: Kind = Kind {
    word: "tls",
    about: "a certificate that is trusted and lasts for a while yet",
    pace: Pace::seconds(300, 10),
    read,
};

fn read(reading: &mut Reading<'_, '_>) -> Option<Plan> {
    let address = reading.address("The host and port that speaks TLS.");
    let about = "The name in the certificate, when it is not the host of the address.";
    let given = reading.section.optional_text("server_name", about);
    let authorities = trust::read(reading.section);
    let about = "Days that the certificate must last: below, the service is degraded; at its end, it is down.";
    let least = days(reading.section.number("certificate_days", 14, 0..=3_650, about));
    let address = address?;
    let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host).trim_matches(['[', ']']);
    let Ok(name) = ServerName::try_from(given.clone().unwrap_or_else(|| host.to_owned())) else {
        reading.section.problem("server_name", given.unwrap_or_default(), "a name such as api.example.com");
        return None;
    };
    Some(Plan::perhaps(move |means| {
        let connector = TlsConnector::from(means.trust.client(authorities.as_ref())?);
        Some(Tls { address: address.clone(), name: name.clone(), connector, least })
    }))
}

#[async_trait]
impl Check for Tls {
    async fn run(&self) -> Result<Finding, Failure> {
        let stream = TcpStream::connect(&self.address).await.map_err(|error| Failure::of(&error))?;
        let stream = self.connector.connect(self.name.clone(), stream).await.map_err(|error| Failure::of(&error))?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let left = shown.and_then(|certificate| left(certificate)).ok_or(Failure::plain(Trouble::Tls))?;
        Ok(if left < self.least { ends_soon(left) } else { Finding::Works })
    }
}

/// How long a certificate will last; `None` when it is none.
pub(super) fn left(der: &[u8]) -> Option<Duration> {
    let now = since_epoch();
    let end = Duration::from_secs(u64::try_from(not_after(der)?).unwrap_or(0));
    Some(end.saturating_sub(now))
}

/// It works, and somebody has to do something.
pub(super) fn ends_soon(left: Duration) -> Finding {
    let parts =
        [Clean::literal("certificate ends in "), Clean::number(left.as_secs() / 86_400), Clean::literal(" days")];
    Finding::Told(HealthStatus::Degraded, Clean::concat(&parts))
}
