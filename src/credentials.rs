//! Credentials as files hold them: certificates and keys in PEM, and how a small file is read again while the process runs.
//!
//! Says what was found in place of what was expected, never its text. Owns nothing and watches nothing.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// Between two looks at the files: they are small, and a rotation leaves the old ones valid for a while.
pub const LOOK: Duration = Duration::from_secs(2);
/// A disk that does not answer for so long is as good as none.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// A file larger than this holds no token and no certificates.
const LARGEST: u64 = 1 << 20;

/// Which of two files that belong together is wrong, and what was expected of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// The certificate.
    Certificate(String),
    /// The key.
    Key(String),
}

/// What a file's text holds: without the line breaks at its end, which editors and `echo` put there.
#[must_use]
pub fn content(text: &str) -> &str {
    text.trim_end_matches(['\r', '\n'])
}

/// The content of a small file. Blocks while it reads.
///
/// # Errors
/// It cannot be read, or is too large to be one: its name, and what was expected.
pub fn read(file: &Path) -> Result<String, String> {
    let mut text = String::new();
    let length = File::open(file).and_then(|opened| opened.take(LARGEST + 1).read_to_string(&mut text));
    match length {
        Ok(length) if length as u64 <= LARGEST => {
            text.truncate(content(&text).len());
            Ok(text)
        }
        Ok(_) => Err(format!("{}: expected at most {LARGEST} bytes", file.display())),
        Err(error) => Err(format!("{}: expected a readable file ({error})", file.display())),
    }
}

/// The certificates of a PEM text, in its order; at least one.
///
/// # Errors
/// What completes the sentence "…, expected …".
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
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

/// The certificates of a PEM text as those to trust.
///
/// # Errors
/// What completes the sentence "…, expected …".
pub fn authorities(pem: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|error| format!("certificates in PEM (found one that is none: {error})"))?;
    }
    Ok(roots)
}

/// The first private key of a PEM text.
///
/// # Errors
/// What completes the sentence "…, expected …".
pub fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>, String> {
    const EXPECTED: &str = "a private key in PEM, not encrypted";
    let found = sections(pem).map_err(|found| format!("{EXPECTED} (found {found})"))?;
    let key = found.iter().find_map(|(kind, der)| PrivateKeyDer::from_pem(*kind, der.clone()));
    key.ok_or_else(|| format!("{EXPECTED} (found only {})", kinds(&found)))
}

/// A certificate, with those that lead to its authority, and its key.
///
/// # Errors
/// Each of the two that is wrong; of two that are right and do not fit, the key. `name` is what the certificate is called.
pub fn certified(certificate: &str, key: &str, name: &str) -> Result<CertifiedKey, Vec<Misfit>> {
    match (certificates(certificate), private_key(key)) {
        (Ok(chain), Ok(private_key)) => {
            CertifiedKey::from_der(chain, private_key, &ring::default_provider()).map_err(|error| {
                let expected = format!("the private key of the certificate in {name} (found another: {error})");
                vec![Misfit::Key(expected)]
            })
        }
        (chain, private_key) => {
            let certificate = chain.err().map(Misfit::Certificate);
            Err(certificate.into_iter().chain(private_key.err().map(Misfit::Key)).collect())
        }
    }
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
