//! Whom our clients trust: the system's authorities, read when the first of them needs them and shared, or a file's.

use std::sync::{Arc, OnceLock};

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::redact::Secret;
use crate::settings::Section;

/// Makes the clients' side of TLS. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Trust(Arc<OnceLock<Option<Arc<ClientConfig>>>>);

impl Trust {
    /// Trusts the authorities of this PEM, else the system's; `None` when there are none.
    pub fn client(&self, authorities: Option<&Secret<String>>) -> Option<Arc<ClientConfig>> {
        match authorities {
            Some(pem) => client(certificates(pem.expose())),
            None => self.0.get_or_init(|| client(rustls_native_certs::load_native_certs().certs)).clone(),
        }
    }
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

fn client(certificates: Vec<CertificateDer<'static>>) -> Option<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().ok()?;
    (!roots.is_empty()).then(|| Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}
