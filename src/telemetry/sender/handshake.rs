//! One bare TLS handshake after a failure, to name its fault and the setting that would mend it.
//!
//! The clients of both transports often cannot: in TLS 1.3 a client has finished before the receiver looks at its
//! certificate (RFC 8446, section 2), so a refusal arrives when HTTP has begun, which reports a closed connection.
//! Sends nothing, and trusts whom the deliveries trust.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, Error};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::telemetry::config::DestinationConfig;
use crate::telemetry::resolver::Resolver;
use crate::telemetry::sender::tls;
use crate::telemetry::tls::TlsConfig;

/// A receiver that is well says something, or waits for us; so this is how long a fault may take.
const LIMIT: Duration = Duration::from_secs(2);

/// What is wrong with TLS to this receiver, if anything is.
pub(crate) async fn fault(config: &DestinationConfig, resolver: &Resolver) -> Option<String> {
    if config.endpoint.scheme() != "https" {
        return None;
    }
    let error = timeout(LIMIT, shake_hands(config, resolver)).await.ok()?.err()?;
    // alerts and bad certificates come as the source of an I/O error
    let fault = error.get_ref()?.downcast_ref::<Error>()?;
    Some(named(fault, &config.tls))
}

/// Ends when the receiver has said something or closed the connection: by then it has seen our certificate.
async fn shake_hands(config: &DestinationConfig, resolver: &Resolver) -> io::Result<()> {
    let host = config.host();
    let name = config.tls.server_name.clone().unwrap_or_else(|| host.clone());
    let name = ServerName::try_from(name).map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::new(tls::client(config).map_err(io::Error::other)?));
    let addresses = resolver.addresses(&host, config.port()).await?;
    let stream = TcpStream::connect(&*addresses).await?;
    connector.connect(name, stream).await?.read(&mut [0]).await.map(drop)
}

/// What was found, what was expected, and where to change it.
fn named(fault: &Error, tls: &TlsConfig) -> String {
    match fault {
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the receiver wants a client certificate, expected one in telemetry.tls.client_certificate".to_owned()
        }
        Error::AlertReceived(alert) if tls.identity.is_some() => format!(
            "the receiver does not accept our client certificate ({alert:?}), expected one that it knows in telemetry.tls.client_certificate"
        ),
        // the signature is what tells two authorities of the same name apart
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            let trusted = if tls.ca.is_some() { "telemetry.tls.ca" } else { "the system, or telemetry.tls.ca set" };
            format!("the receiver's certificate is of an unknown authority, expected one of {trusted}")
        }
        Error::InvalidCertificate(
            error @ (CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }),
        ) => format!(
            "the receiver has another name ({error}), expected that of the endpoint or of telemetry.tls.server_name"
        ),
        other => other.to_string(),
    }
}
