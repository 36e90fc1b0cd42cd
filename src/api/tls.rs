//! The settings below `admin.tls`: what the admin port shows, and whose clients it knows.
//!
//! What cannot be read or does not fit together is a mistake of the configuration, named at start. Opens no connections.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};

use crate::credentials::{self, Misfit};
use crate::redact::Secret;
use crate::settings::Section;

/// TLS at the admin port, in PEM that was found to be right.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsConfig {
    certificate: Secret<String>,
    key: Secret<String>,
    /// Whose certificates make a client known; `None` asks for none.
    client_ca: Option<Secret<String>>,
    files: Files,
}

/// Files that may change while the process runs.
#[derive(Clone, Debug, Default, PartialEq)]
struct Files {
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
}

const CERTIFICATE: &str = "certificate";
const KEY: &str = "key";
const CLIENT_CA: &str = "client_ca";

impl TlsConfig {
    /// Reads the section; `None` when it is empty, and HTTP is served in clear text.
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let about = "The admin port's certificate with those that lead to its authority, in PEM; with it the port speaks HTTPS alone.";
        let certificate = section.secret(CERTIFICATE, about);
        let key = section.secret(KEY, "The certificate's key, in PEM.");
        let about = "Authorities in PEM: a client with a certificate of theirs reads everything. Others need none, as the kubelet's probes.";
        let client_ca = section.secret(CLIENT_CA, about);
        let is_set = [CERTIFICATE, KEY, CLIENT_CA].map(|name| section.is_secret_set(name));
        match is_set {
            [true, false, _] => section.problem(KEY, "nothing", "the key of certificate"),
            [false, true, _] => section.problem(CERTIFICATE, "nothing", "the certificate of key"),
            [false, false, true] => section.problem(CERTIFICATE, "nothing", "a certificate, or no client_ca"),
            _ => {}
        }
        if let Some(mistake) = client_ca.as_ref().and_then(|ca| credentials::authorities(ca.expose()).err()) {
            section.wrong_secret(CLIENT_CA, &mistake);
        }
        let (certificate, key) = certificate.zip(key)?;
        let files = Files {
            certificate: section.secret_file(CERTIFICATE),
            key: section.secret_file(KEY),
            client_ca: section.secret_file(CLIENT_CA),
        };
        let read = Self { certificate, key, client_ca, files };
        for (name, mistake) in read.misfits() {
            section.wrong_secret(name, &mistake);
        }
        Some(read)
    }

    /// Whether any of it comes from a file.
    pub(super) fn is_of_files(&self) -> bool {
        self.files != Files::default()
    }

    /// The same with what its files hold now; `read` gives the content of one.
    ///
    /// # Errors
    /// A file cannot be read, or what it holds is wrong: which, and what was expected.
    pub(super) fn reread(&self, read: impl Fn(&Path) -> Result<String, String>) -> Result<Self, String> {
        let again = |file: &Option<PathBuf>, was: &Secret<String>| match file {
            Some(file) => read(file).map(Secret::new),
            None => Ok(was.clone()),
        };
        let client_ca = self.client_ca.as_ref().map(|ca| again(&self.files.client_ca, ca)).transpose()?;
        let (certificate, key) =
            (again(&self.files.certificate, &self.certificate)?, again(&self.files.key, &self.key)?);
        let again = Self { certificate, key, client_ca, files: self.files.clone() };
        let named = |file: &Option<PathBuf>, name: &str| {
            file.as_ref().map_or_else(|| format!("admin.tls.{name}"), |file| file.display().to_string())
        };
        if let Some(expected) = again.client_ca.as_ref().and_then(|ca| credentials::authorities(ca.expose()).err()) {
            return Err(format!("{}: expected {expected}", named(&self.files.client_ca, CLIENT_CA)));
        }
        if let Some((name, expected)) = again.misfits().first() {
            let file = if *name == KEY { &self.files.key } else { &self.files.certificate };
            return Err(format!("{}: expected {expected}", named(file, name)));
        }
        Ok(again)
    }

    /// The server's side of TLS 1.2 and 1.3. A client without a certificate is let in, and is known by none.
    ///
    /// # Errors
    /// What is wrong with it, in the words of TLS.
    pub(super) fn server(&self) -> Result<Arc<ServerConfig>, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| error.to_string())?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let roots = Arc::new(credentials::authorities(ca.expose())?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).allow_unauthenticated();
                builder.with_client_cert_verifier(verifier.build().map_err(|error| error.to_string())?)
            }
        };
        let chain = credentials::certificates(self.certificate.expose())?;
        let key = credentials::private_key(self.key.expose())?;
        let mut server = builder.with_single_cert(chain, key).map_err(|error| error.to_string())?;
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(server))
    }

    /// What is wrong with the certificate and its key, each by the name of its setting.
    fn misfits(&self) -> Vec<(&'static str, String)> {
        let fit = credentials::certified(self.certificate.expose(), self.key.expose(), CERTIFICATE);
        let named = |misfit| match misfit {
            Misfit::Certificate(expected) => (CERTIFICATE, expected),
            Misfit::Key(expected) => (KEY, expected),
        };
        fit.err().unwrap_or_default().into_iter().map(named).collect()
    }
}
