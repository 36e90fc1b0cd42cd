//! Whom our clients trust: the system's authorities, or those that the settings name instead.

use std::sync::{Arc, OnceLock};

use rustls::client::WantsClientCert;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

use crate::redact::Secret;
use crate::settings::Section;

/// The clients' side of TLS before it is known what they show of themselves.
pub type Trusting = ConfigBuilder<ClientConfig, WantsClientCert>;

/// Makes the side of TLS of clients that show nothing of themselves; the system's authorities are read when the first of them needs
/// them, and shared. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Trust(Arc<OnceLock<Option<Arc<ClientConfig>>>>);

impl Trust {
    /// Trusts the authorities of this PEM, else the system's; `None` when there are none.
    pub fn client(&self, authorities: Option<&Secret<String>>) -> Option<Arc<ClientConfig>> {
        match authorities {
            Some(_) => anonymous(authorities),
            None => self.0.get_or_init(|| anonymous(None)).clone(),
        }
    }
}

/// Trusts the authorities of this PEM, else the system's, which takes milliseconds to read; `None` when there are none.
pub fn trusting(authorities: Option<&Secret<String>>) -> Option<Trusting> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(match authorities {
        Some(pem) => certificates(pem.expose()),
        None => rustls_native_certs::load_native_certs().certs,
    });
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().ok()?;
    (!roots.is_empty()).then(|| builder.with_root_certificates(roots))
}

/// Reads the key of a section that names other authorities.
pub fn read(section: &mut Section<'_>) -> Option<Secret<String>> {
    let about = "Certificates to trust instead of the system's, in PEM.";
    let pem = section.secret("ca", about)?;
    if certificates(pem.expose()).is_empty() {
        section.wrong_secret("ca", "certificates in PEM");
    }
    Some(pem)
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).flatten().collect()
}

fn anonymous(authorities: Option<&Secret<String>>) -> Option<Arc<ClientConfig>> {
    Some(Arc::new(trusting(authorities)?.with_no_client_auth()))
}
