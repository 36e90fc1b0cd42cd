//! Certificates, made while a test runs, and a front that speaks TLS before a receiver.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::telemetry_receiver::{Over, Receiver, free_listener};

/// Who signs certificates.
pub(crate) struct Authority {
    /// Its own certificate, in PEM.
    pub(crate) certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = key();
        let certificate = params.self_signed(&key).expect("an authority signs itself").pem();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// The certificate of a server with this name, or address.
    pub(crate) fn server(&self, name: &str) -> Identity {
        self.sign(&[name.to_owned()], ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// The certificate of a client.
    pub(crate) fn client(&self) -> Identity {
        self.sign(&[], ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, names: &[String], usage: ExtendedKeyUsagePurpose) -> Identity {
        let mut params = CertificateParams::new(names).expect("names that certificates may hold");
        params.extended_key_usages = vec![usage];
        // of the issuer's own name it would pass for one that signed itself
        params.distinguished_name.push(DnType::CommonName, "signed");
        let key = key();
        let certificate = params.signed_by(&key, &self.issuer).expect("the authority signs");
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

/// Speaks TLS and hands what it decrypts to a receiver; ends when dropped.
pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Mutex<Handshakes>>,
    _tasks: JoinSet<()>,
}

/// What the front has seen.
#[derive(Debug, Default)]
pub(crate) struct Handshakes {
    /// The names that clients asked for.
    pub(crate) names: Vec<String>,
    /// The different certificates that clients showed.
    pub(crate) shown: BTreeSet<Vec<u8>>,
    /// Handshakes that came to nothing, whoever broke them off.
    pub(crate) failed: u64,
}

impl Front {
    /// Shows `identity`, and lets only clients of the authority in, if there is one.
    pub(crate) async fn before(
        receiver: &Receiver,
        over: Over,
        identity: &Identity,
        clients: Option<&Authority>,
    ) -> Self {
        let listener = free_listener().await;
        let address = listener.local_addr().expect("a listener has an address");
        let mut config = server_config(identity, clients);
        config.alpn_protocols = match over {
            Over::Grpc => vec![b"h2".to_vec()],
            Over::Http => vec![b"http/1.1".to_vec()],
        };
        let seen = Arc::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), receiver.address, Arc::clone(&seen)));
        Self { address, seen, _tasks: tasks }
    }

    pub(crate) fn with<T>(&self, read: impl FnOnce(&Handshakes) -> T) -> T {
        read(&self.seen.lock().expect("no test panics while it holds what was seen"))
    }
}

fn server_config(identity: &Identity, clients: Option<&Authority>) -> ServerConfig {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider knows the versions");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(certificate(&authority.certificate)).expect("an authority's certificate");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
    };
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("a key in PEM");
    builder.with_single_cert(vec![certificate(&identity.certificate)], key).expect("a certificate and its key")
}

fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate in PEM")
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, receiver: SocketAddr, seen: Arc<Mutex<Handshakes>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
        connections.spawn(async move {
            let accepted = acceptor.accept(stream).await;
            let mut client = {
                let mut seen = seen.lock().expect("no test panics while it holds what was seen");
                let Ok(client) = accepted else {
                    seen.failed += 1;
                    return;
                };
                let session = client.get_ref().1;
                seen.names.push(session.server_name().unwrap_or("none").to_owned());
                seen.shown.extend(session.peer_certificates().and_then(|chain| Some(chain.first()?.to_vec())));
                client
            };
            let mut plain = TcpStream::connect(receiver).await.expect("the receiver listens");
            // both sides may go whenever they like
            let _ = copy_bidirectional(&mut client, &mut plain).await;
        });
    }
}
