//! The settings below `telemetry.tls`: whom to trust, what to show, and which name to expect.
//!
//! What cannot be read or does not fit together is a mistake of the configuration, named at start: a handshake could
//! only say later that it failed. Does not open files or connections.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;

use crate::redact::Secret;
use crate::settings::Section;

/// TLS to a receiver, in PEM that was found to be right.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TlsConfig {
    /// The only certificates to trust; without them those of the system.
    pub ca: Option<Secret<String>>,
    /// The client's certificate and its key.
    pub identity: Option<(Secret<String>, Secret<String>)>,
    /// The receiver's name, when it is not the endpoint's: in its certificate, and as the authority of requests.
    pub server_name: Option<String>,
    /// Where `ca`, the certificate and the key are read from again; the values stay when there is no file.
    files: Files,
}

/// Files that may change while the process runs.
#[derive(Clone, Debug, Default, PartialEq)]
struct Files {
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl TlsConfig {
    /// Reads the generic settings, or those of one signal, which default to the generic ones.
    pub(crate) fn read(section: &mut Section<'_>, generic: Option<&Self>) -> Self {
        let generic = generic.cloned().unwrap_or_default();
        let ca = section.secret("ca", "certificates to trust, in PEM, instead of the system's");
        if let Some(mistake) = ca.as_ref().and_then(|ca| trusted(ca.expose()).err()) {
            section.wrong_secret("ca", &mistake);
        }
        let mut files = generic.files;
        if ca.is_some() {
            files.ca = section.secret_file("ca");
        }
        let identity = read_identity(section);
        if identity.is_some() {
            files.certificate = section.secret_file(CERTIFICATE);
            files.key = section.secret_file(KEY);
        }
        let identity = identity.or(generic.identity);
        let about = "the receiver's name when the endpoint has another one: in its certificate, and as the authority";
        let server_name = section.optional_text("server_name", about);
        if let Some(name) = server_name.as_ref().filter(|name| !is_dns_name(name)) {
            section.problem("server_name", name, "a DNS name such as collector.example.com");
        }
        Self { ca: ca.or(generic.ca), identity, server_name: server_name.or(generic.server_name), files }
    }

    /// Whether any of it comes from a file.
    pub(crate) fn is_of_files(&self) -> bool {
        self.files != Files::default()
    }

    /// The same with what its files hold now; `read` gives the content of one.
    ///
    /// # Errors
    /// A file cannot be read, or what it holds is wrong: which, and what was expected.
    pub(crate) fn reread(&self, read: impl Fn(&Path) -> Result<String, String>) -> Result<Self, String> {
        let mut again = self.clone();
        let again_secret = |file: &Option<PathBuf>, was: &Secret<String>| match file {
            Some(file) => read(file).map(Secret::new),
            None => Ok(was.clone()),
        };
        if let (Some(file), Some(was)) = (&self.files.ca, &self.ca) {
            let ca = again_secret(&self.files.ca, was)?;
            trusted(ca.expose()).map_err(|expected| format!("{}: expected {expected}", file.display()))?;
            again.ca = Some(ca);
        }
        if let Some((certificate, key)) = &self.identity {
            let certificate = again_secret(&self.files.certificate, certificate)?;
            let key = again_secret(&self.files.key, key)?;
            if let Some((name, expected)) = misfits(&certificate, &key).first() {
                let file = if *name == KEY { &self.files.key } else { &self.files.certificate };
                let file = file.as_ref().map_or_else(|| (*name).to_owned(), |file| file.display().to_string());
                return Err(format!("{file}: expected {expected}"));
            }
            again.identity = Some((certificate, key));
        }
        Ok(again)
    }

    /// Whether anything is set that only TLS uses.
    pub(crate) fn is_set(&self) -> bool {
        *self != Self::default()
    }
}

const CERTIFICATE: &str = "client_certificate";
const KEY: &str = "client_key";

fn read_identity(section: &mut Section<'_>) -> Option<(Secret<String>, Secret<String>)> {
    let certificate = section.secret(CERTIFICATE, "the certificate to show to the receiver, in PEM");
    let key = section.secret(KEY, "its key, in PEM");
    // one that is set and cannot be read has been named by then
    match (section.is_secret_set(CERTIFICATE), section.is_secret_set(KEY)) {
        (true, false) => section.problem(KEY, "nothing", "the key of client_certificate"),
        (false, true) => section.problem(CERTIFICATE, "nothing", "the certificate of client_key"),
        _ => {}
    }
    let (certificate, key) = certificate.zip(key)?;
    for (name, mistake) in misfits(&certificate, &key) {
        section.wrong_secret(name, &mistake);
    }
    Some((certificate, key))
}

/// What is wrong with a certificate and its key, each by the name of its setting.
fn misfits(certificate: &Secret<String>, key: &Secret<String>) -> Vec<(&'static str, String)> {
    match (certificates(certificate.expose()), private_key(key.expose())) {
        (Ok(chain), Ok(private_key)) => match CertifiedKey::from_der(chain, private_key, &ring::default_provider()) {
            Ok(_) => Vec::new(),
            Err(error) => {
                let expected = format!("the private key of the certificate in {CERTIFICATE} (found another: {error})");
                vec![(KEY, expected)]
            }
        },
        (chain, private_key) => {
            let certificate = chain.err().map(|mistake| (CERTIFICATE, mistake));
            certificate.into_iter().chain(private_key.err().map(|mistake| (KEY, mistake))).collect()
        }
    }
}

/// The mistake completes the sentence "…, expected …".
fn trusted(pem: &str) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|error| format!("certificates in PEM (found one that is none: {error})"))?;
    }
    Ok(())
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = sections(pem).map_err(|found| format!("certificates in PEM (found {found})"))?;
    let certificates: Vec<_> = found
        .iter()
        .filter(|(kind, _)| *kind == SectionKind::Certificate)
        .map(|(_, der)| CertificateDer::from(der.clone()))
        .collect();
    if certificates.is_empty() {
        return Err(format!("certificates in PEM (found only {})", kinds(&found)));
    }
    Ok(certificates)
}

fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>, String> {
    const EXPECTED: &str = "a private key in PEM, not encrypted";
    let found = sections(pem).map_err(|found| format!("{EXPECTED} (found {found})"))?;
    let key = found.iter().find_map(|(kind, der)| PrivateKeyDer::from_pem(*kind, der.clone()));
    key.ok_or_else(|| format!("{EXPECTED} (found only {})", kinds(&found)))
}

/// The sections that TLS knows; at least one. The error says what was found in their place, never its text.
fn sections(pem: &str) -> Result<Vec<(SectionKind, Vec<u8>)>, String> {
    let sections: Result<Vec<_>, _> = <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes()).collect();
    match sections {
        Ok(sections) if sections.is_empty() => Err(format!("none in its {} bytes", pem.len())),
        Ok(sections) => Ok(sections),
        Err(_) => Err(format!("broken PEM in its {} bytes", pem.len())),
    }
}

fn kinds(sections: &[(SectionKind, Vec<u8>)]) -> String {
    let kinds: Vec<_> = sections
        .iter()
        .map(|(kind, _)| match kind {
            SectionKind::Certificate => "a certificate",
            SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => "a private key",
            SectionKind::PublicKey => "a public key",
            _ => "something else",
        })
        .collect();
    kinds.join(", ")
}

fn is_dns_name(text: &str) -> bool {
    matches!(ServerName::try_from(text), Ok(ServerName::DnsName(_)))
}
