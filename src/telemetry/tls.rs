//! The settings below `telemetry.tls`: whom to trust, what to show, and which name to expect.
//!
//! What cannot be read or does not fit together is a mistake of the configuration, named at start: a handshake could
//! only say later that it failed. Does not open files or connections.

use std::path::{Path, PathBuf};

use rustls::pki_types::ServerName;

use crate::credentials::{self, Misfit};
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
        if let Some(mistake) = ca.as_ref().and_then(|ca| credentials::authorities(ca.expose()).err()) {
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
            credentials::authorities(ca.expose())
                .map_err(|expected| format!("{}: expected {expected}", file.display()))?;
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
    let misfits = credentials::certified(certificate.expose(), key.expose(), CERTIFICATE).err().unwrap_or_default();
    let named = |misfit| match misfit {
        Misfit::Certificate(expected) => (CERTIFICATE, expected),
        Misfit::Key(expected) => (KEY, expected),
    };
    misfits.into_iter().map(named).collect()
}

fn is_dns_name(text: &str) -> bool {
    matches!(ServerName::try_from(text), Ok(ServerName::DnsName(_)))
}
