//! TLS to a server of PostgreSQL by the modes of its clients: `require` looks at no certificate, `verify-ca` at who signed it,
//! `verify-full` at its name, too.
//!
//! Trusts the authorities of the web, and those of `sslrootcert` besides; shows the certificate of `sslcert`, if there is one. Files
//! are read for each connection, so that new ones are taken.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A file larger than this holds no certificates.
const LARGEST: u64 = 1 << 20;
/// How the options print a file; the text itself stands without.
const FILE: &str = "file: ";

/// Certificates and keys as the options name them: files, or the text itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct Named {
    authorities: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

/// The same as it was read.
struct Pem {
    authorities: Vec<u8>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// Shakes hands.
///
/// # Errors
/// A certificate of ours cannot be used, or that of the server is refused.
pub(super) async fn over<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    host: &str,
    to: &PgConnectOptions,
) -> Result<TlsStream<S>, sqlx::Error> {
    let (named, mode) = (Named::by(to), to.get_ssl_mode());
    let read = spawn_blocking(move || named.read()).await;
    let pem = read.map_err(|_| sqlx::Error::WorkerCrashed)??;
    let name = ServerName::try_from(host.to_owned()).map_err(|error| sqlx::Error::Tls(error.into()))?;
    let config = config(&pem, mode).map_err(|error| sqlx::Error::Tls(error.into()))?;
    Ok(TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
}

impl Named {
    /// The options tell these in their URL only; what else stands there is replaced, because not all of it makes a URL.
    fn by(options: &PgConnectOptions) -> Self {
        let plain = options.clone().host("localhost").username("none").password("").database("none");
        let mut named = Self::default();
        for (key, value) in plain.to_url_lossy().query_pairs() {
            match &*key {
                "sslrootcert" => named.authorities = Some(value.into_owned()),
                "sslcert" => named.certificate = Some(value.into_owned()),
                "sslkey" => named.key = Some(value.into_owned()),
                _ => {}
            }
        }
        named
    }

    /// Blocks while it reads.
    fn read(&self) -> Result<Pem, sqlx::Error> {
        let authorities = self.authorities.as_deref().map_or(Ok(Vec::new()), content)?;
        let identity = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Some((content(certificate)?, content(key)?)),
            (None, None) => None,
            _ => return Err(sqlx::Error::Configuration("sslcert and sslkey, expected both or none".into())),
        };
        Ok(Pem { authorities, identity })
    }
}

fn content(named: &str) -> io::Result<Vec<u8>> {
    let Some(file) = named.strip_prefix(FILE) else { return Ok(named.as_bytes().to_vec()) };
    let mut content = Vec::new();
    File::open(file)?.take(LARGEST).read_to_end(&mut content)?;
    Ok(content)
}

fn config(pem: &Pem, mode: PgSslMode) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let trusting = match mode {
        PgSslMode::VerifyFull => builder.with_root_certificates(trusted(&pem.authorities)?),
        _ => {
            let chain = matches!(mode, PgSslMode::VerifyCa).then(|| chain(&pem.authorities, &provider)).transpose()?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyName { chain, provider }))
        }
    };
    let Some((certificate, key)) = &pem.identity else { return Ok(trusting.with_no_client_auth()) };
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| Error::General(error.to_string()))?;
    trusting.with_client_auth_cert(certificates(certificate)?, key)
}

fn trusted(authorities: &[u8]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for authority in certificates(authorities)? {
        roots.add(authority)?;
    }
    Ok(roots)
}

fn chain(authorities: &[u8], provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, Error> {
    let roots = Arc::new(trusted(authorities)?);
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider)).build();
    verifier.map_err(|error| Error::General(error.to_string()))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read: Result<_, _> = CertificateDer::pem_slice_iter(pem).collect();
    read.map_err(|error| Error::General(error.to_string()))
}

/// Takes a certificate of any name: of any signer, too, where no chain is asked for.
#[derive(Debug)]
struct AnyName {
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(certificate, between, name, ocsp, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(url: &str) -> Named {
        Named::by(&url.parse().unwrap())
    }

    #[test]
    fn the_files_of_an_address_are_found_whatever_else_it_holds() {
        let files = "sslrootcert=/run/ca.pem&sslcert=/run/my%20own.pem&sslkey=key.pem";
        let expected = Named {
            authorities: Some("file: /run/ca.pem".into()),
            certificate: Some("file: /run/my own.pem".into()),
            key: Some("file: key.pem".into()),
        };
        for place in ["u:p%40ss@db:6432/x?", "a%2Fb%3Ac:%23@[::1]/a%3Fb?", "/x?host=/var/run/postgresql&"] {
            assert_eq!(named(&format!("postgresql://{place}{files}")), expected, "{place}");
        }
        assert_eq!(named("postgresql://u@db/x?sslmode=require"), Named::default());
    }

    #[test]
    fn a_certificate_may_stand_in_its_variable_itself() {
        let text = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----";
        let options: PgConnectOptions = "postgresql://u@db/x".parse().unwrap();
        let found = Named::by(&options.ssl_root_cert_from_pem(text.as_bytes().to_vec()));
        assert_eq!(content(&found.authorities.unwrap()).unwrap(), text.as_bytes());
    }

    #[test]
    fn a_file_that_is_not_there_and_half_an_identity_are_told() {
        let missing = named("postgresql://u@db/x?sslrootcert=/nowhere/ca.pem").read();
        assert!(matches!(missing, Err(sqlx::Error::Io(error)) if error.kind() == io::ErrorKind::NotFound));
        let half = named("postgresql://u@db/x?sslcert=/nowhere/own.pem").read();
        assert!(matches!(half, Err(sqlx::Error::Configuration(_))));
    }
}
