//! TLS to a receiver as rustls takes it, made from the settings: for HTTP, and for the handshake that names a fault.
//!
//! Made once and shared: to read the system's authorities takes milliseconds and memory.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, Error};

use crate::telemetry::config::{DestinationConfig, Transport};
use crate::trust;

/// Trusts whom the settings name, else the system's authorities; shows our certificate, if there is one.
///
/// # Errors
/// There is nobody to trust, or the certificate and its key do not fit.
pub(crate) fn client(config: &DestinationConfig) -> Result<ClientConfig, Error> {
    let trusting = trust::trusting(config.tls.ca.as_ref());
    let trusting = trusting.ok_or_else(|| Error::General("found no authority".to_owned()))?;
    let mut client = match &config.tls.identity {
        None => trusting.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = CertificateDer::pem_slice_iter(certificate.expose().as_bytes()).flatten().collect();
            let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes())
                .map_err(|error| Error::General(error.to_string()))?;
            trusting.with_client_auth_cert(chain, key)?
        }
    };
    client.alpn_protocols = match config.transport {
        Transport::Grpc => vec![b"h2".to_vec()],
        Transport::HttpProtobuf | Transport::Envelopes => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
    };
    Ok(client)
}
