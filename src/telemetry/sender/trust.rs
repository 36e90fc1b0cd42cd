//! TLS as rustls takes it, made from the settings: for HTTP, and for the handshake that names a fault.
//!
//! Made once and shared: to read the system's authorities takes milliseconds and memory.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, Error, RootCertStore};

use crate::telemetry::config::{DestinationConfig, Transport};

/// Trusts whom the settings name, else the system's authorities; shows our certificate, if there is one.
///
/// # Errors
/// There is nobody to trust, or the certificate and its key do not fit.
pub(crate) fn client(config: &DestinationConfig) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    let trusted = match &config.tls.ca {
        Some(ca) => CertificateDer::pem_slice_iter(ca.expose().as_bytes()).flatten().collect(),
        None => rustls_native_certs::load_native_certs().certs,
    };
    roots.add_parsable_certificates(trusted);
    if roots.is_empty() {
        return Err(Error::General("found no authority".to_owned()));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut client = match &config.tls.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = CertificateDer::pem_slice_iter(certificate.expose().as_bytes()).flatten().collect();
            let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes())
                .map_err(|error| Error::General(error.to_string()))?;
            builder.with_client_auth_cert(chain, key)?
        }
    };
    client.alpn_protocols = match config.transport {
        Transport::Grpc => vec![b"h2".to_vec()],
        Transport::HttpProtobuf | Transport::Envelopes => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
    };
    Ok(client)
}
