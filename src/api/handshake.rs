//! From an accepted connection to one that requests are read from: by TLS where there is a certificate, else as it is.
//!
//! Bounded in time and in number, because a handshake is work that a stranger can ask for. Who speaks clear text where TLS is
//! spoken is told so in clear text.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::warn;

use crate::api::contract;
use crate::api::places::Places;
use crate::api::refusals::{Refusal, Refusals};
use crate::api::rulebook::Rulebook;

/// The way in. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    rulebook: Rulebook,
    handshakes: Places,
    refusals: Arc<Refusals>,
}

/// A connection that requests are read from.
pub(super) enum Wire {
    /// As it came.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

/// A client on the same continent needs a tenth of it; who takes longer is cut off.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// At once: a signature takes about a millisecond, so more would only hold a core.
const AT_ONCE: usize = 32;
/// What each connection of TLS begins with (RFC 8446, section 5.1).
const HANDSHAKE_RECORD: u8 = 22;
/// As much of a request in clear text is read as lets its client see the answer.
const LARGEST_HEAD: u64 = 64 * 1024;

impl Gate {
    pub(super) fn new(rulebook: Rulebook, refusals: Arc<Refusals>) -> Self {
        Self { rulebook, handshakes: Places::new(AT_ONCE), refusals }
    }

    /// Opens a connection; `None` when it came to nothing.
    pub(super) async fn open(&self, stream: TcpStream, peer: IpAddr) -> Option<Wire> {
        let Some(acceptor) = self.rulebook.in_force().acceptor.clone() else { return Some(Wire::Plain(stream)) };
        match timeout(HANDSHAKE, self.shake_hands(&acceptor, stream, peer)).await {
            Ok(wire) => wire,
            Err(_) => {
                self.refusals.count(Refusal::HandshakeTimeout);
                None
            }
        }
    }

    async fn shake_hands(&self, acceptor: &TlsAcceptor, stream: TcpStream, peer: IpAddr) -> Option<Wire> {
        let _ = stream.set_nodelay(true); // an answer is one write; without it nothing breaks
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(1) if first[0] == HANDSHAKE_RECORD => {}
            // a probe of TCP, or a balancer's: it was never meant to be more
            Ok(0) | Err(_) => return None,
            Ok(_) => {
                if self.refusals.count_and_tell(Refusal::PlainHttp) {
                    warn!("somebody speaks HTTP in clear text at the admin port, expected HTTPS: admin.tls is set");
                }
                refuse_clear_text(stream).await;
                return None;
            }
        }
        let Some(_place) = self.handshakes.take(self.handshakes.free().await, peer) else {
            self.refusals.count(Refusal::Connections);
            return None;
        };
        match acceptor.accept(stream).await {
            Ok(stream) => Some(Wire::Tls(Box::new(stream))),
            Err(error) => {
                if self.refusals.count_and_tell(Refusal::Handshake) {
                    warn!(%error, "a client of the admin port did not come to terms on TLS");
                }
                None
            }
        }
    }
}

/// Answers, and reads what the client still sends: a connection that is closed before would take the answer with it.
async fn refuse_clear_text(mut stream: TcpStream) {
    let body = contract::error("HTTP in clear text", "HTTPS: admin.tls is set");
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let answer = [head.as_bytes(), &body].concat();
    if stream.write_all(&answer).await.is_ok() && stream.shutdown().await.is_ok() {
        let mut rest = stream.take(LARGEST_HEAD);
        let mut chunk = [0; 4_096];
        while rest.read(&mut chunk).await.is_ok_and(|read| read > 0) {}
    }
}
