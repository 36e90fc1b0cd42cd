//! A connection to a Redis: opened by its URL, asked in pipelines, with a limit on every wait and on the length of every answer.
//!
//! Does not connect again by itself; who uses it knows what a lost connection means. Reads only while somebody waits for an
//! answer, so that what a hostile server sends unasked stays with the kernel.

mod gathered;
pub(crate) mod resp;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, ConnectionAddr, ConnectionInfo, Pipeline, cmd};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf, WriteHalf, split};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::redis_link::gathered::Gathered;
use crate::redis_link::resp::Reply;

/// Address, TLS and password together.
const OPEN_LIMIT: Duration = Duration::from_secs(3);
/// One pipeline; its answers are short.
const ASK_LIMIT: Duration = Duration::from_secs(1);

/// What holds for one pipeline.
#[derive(Clone, Copy)]
struct Limits {
    time: Duration,
    /// Of a text, in bytes.
    longest: u64,
}

const ANY: Limits = Limits { time: ASK_LIMIT, longest: resp::LONGEST_TEXT };

/// What a connection runs over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// How what arrives is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// At once.
    Told,
    /// When it is looked for, together with what came meanwhile.
    Gathered,
}

/// The half that is read.
pub(crate) type Incoming = BufReader<ReadHalf<Box<dyn Stream>>>;
/// The half that is written.
pub(crate) type Outgoing = WriteHalf<Box<dyn Stream>>;

/// An open connection.
pub(crate) struct Link {
    incoming: Incoming,
    outgoing: Outgoing,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// The connection could not be opened, or broke.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// An answer did not come in time.
    #[error("no answer in time")]
    Late,
    /// TLS, for the reason that is the source.
    #[error("no TLS with the server")]
    Tls(#[source] io::Error),
    /// The server refused, with this word.
    #[error("the server refused: {0}")]
    Refused(String),
}

impl LinkError {
    /// A refusal of a password, which older servers have no word for.
    fn of_credentials(self) -> Self {
        match self {
            Self::Refused(word) if word == "ERR" => Self::Refused("WRONGPASS".into()),
            other => other,
        }
    }

    /// The class that is shown: a word of ours, never the server's text.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Self::Late => "timeout",
            Self::Tls(_) => "tls",
            Self::Refused(word) => match word.as_str() {
                "NOAUTH" | "WRONGPASS" => "auth",
                "NOPERM" => "not_allowed",
                "LOADING" => "loading",
                "READONLY" => "read_only",
                _ => "refused_by_server",
            },
            Self::Io(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused => "refused",
                io::ErrorKind::TimedOut => "timeout",
                io::ErrorKind::InvalidData => "protocol",
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "closed",
                _ => "unreachable",
            },
        }
    }
}

impl Link {
    /// Connects, and says who we are.
    ///
    /// # Errors
    /// When the server is not there, not in time, or does not know us.
    pub(crate) async fn open(to: &ConnectionInfo, arrival: Arrival) -> Result<Self, LinkError> {
        timeout(OPEN_LIMIT, Self::greeted(to, arrival)).await.map_err(|_| LinkError::Late)?
    }

    /// The same without a limit: whoever asks has one.
    ///
    /// # Errors
    /// As `open`.
    pub(crate) async fn greeted(to: &ConnectionInfo, arrival: Arrival) -> Result<Self, LinkError> {
        let (incoming, outgoing) = split(connect(to.addr(), arrival).await?);
        let mut link = Self { incoming: BufReader::with_capacity(16 << 10, incoming), outgoing };
        let settings = to.redis_settings();
        if let Some(password) = settings.password() {
            let mut auth = cmd("AUTH");
            if let Some(user) = settings.username() {
                auth.arg(user);
            }
            link.order(auth.arg(password)).await.map_err(LinkError::of_credentials)?;
        }
        if settings.db() != 0 {
            link.order(cmd("SELECT").arg(settings.db())).await?;
        }
        Ok(link)
    }

    /// Sends one command whose answer holds nothing that is needed.
    ///
    /// # Errors
    /// The server's refusal is one.
    pub(crate) async fn order(&mut self, command: &Cmd) -> Result<(), LinkError> {
        timeout(ASK_LIMIT, self.answer(command)).await.map_err(|_| LinkError::Late)?.map(drop)
    }

    /// Sends these commands at once; gives an answer for each, refusals among them.
    ///
    /// # Errors
    /// The connection is of no use any more.
    pub(crate) async fn ask(&mut self, commands: &Pipeline) -> Result<Vec<Reply>, LinkError> {
        self.ask_within(&commands.get_packed_pipeline(), commands.len(), ANY).await
    }

    /// As `ask`, and reads past each text that is longer than `longest`.
    ///
    /// # Errors
    /// As `ask`.
    pub(crate) async fn ask_shortly(&mut self, commands: &Pipeline, longest: u64) -> Result<Vec<Reply>, LinkError> {
        self.ask_within(&commands.get_packed_pipeline(), commands.len(), Limits { longest, ..ANY }).await
    }

    /// Sends one command that the server answers when it likes, but within `limit`.
    ///
    /// # Errors
    /// As `ask`.
    pub(crate) async fn await_answer(&mut self, command: &Cmd, limit: Duration) -> Result<Reply, LinkError> {
        let mut replies = self.ask_within(&command.get_packed_command(), 1, Limits { time: limit, ..ANY }).await?;
        Ok(replies.pop().unwrap_or(Reply::Nothing))
    }

    /// Sends one command without a limit: whoever asks has one.
    ///
    /// # Errors
    /// The server's refusal is one.
    pub(crate) async fn answer(&mut self, command: &Cmd) -> Result<Reply, LinkError> {
        let mut replies = self.exchange(&command.get_packed_command(), 1, resp::LONGEST_TEXT).await?;
        match replies.pop() {
            Some(Reply::Error(word)) => Err(LinkError::Refused(word)),
            reply => Ok(reply.unwrap_or(Reply::Nothing)),
        }
    }

    async fn ask_within(&mut self, bytes: &[u8], answers: usize, limits: Limits) -> Result<Vec<Reply>, LinkError> {
        let answered = self.exchange(bytes, answers, limits.longest);
        timeout(limits.time, answered).await.map_err(|_| LinkError::Late)?
    }

    async fn exchange(&mut self, bytes: &[u8], answers: usize, longest: u64) -> Result<Vec<Reply>, LinkError> {
        self.outgoing.write_all(bytes).await?;
        self.outgoing.flush().await?;
        let mut replies = Vec::with_capacity(answers);
        for _ in 0..answers {
            replies.push(resp::read_shortly(&mut self.incoming, longest).await?);
        }
        Ok(replies)
    }

    /// The two halves, for who listens.
    pub(crate) fn into_halves(self) -> (Incoming, Outgoing) {
        (self.incoming, self.outgoing)
    }
}

async fn connect(to: &ConnectionAddr, arrival: Arrival) -> Result<Box<dyn Stream>, LinkError> {
    match to {
        ConnectionAddr::Tcp(host, port) => tcp(host, *port, arrival).await,
        ConnectionAddr::Unix(path) => {
            let stream = UnixStream::connect(path).await?;
            match arrival {
                Arrival::Told => Ok(Box::new(stream)),
                Arrival::Gathered => Ok(Box::new(Gathered::new(stream.into_std()?))),
            }
        }
        ConnectionAddr::TcpTls { host, port, .. } => {
            let name = ServerName::try_from(host.clone()).map_err(|error| LinkError::Tls(io::Error::other(error)))?;
            let stream = tcp(host, *port, arrival).await?;
            let stream = TlsConnector::from(trusting().map_err(LinkError::Tls)?).connect(name, stream).await;
            Ok(Box::new(stream.map_err(LinkError::Tls)?))
        }
        _ => Err(LinkError::Io(io::ErrorKind::Unsupported.into())),
    }
}

async fn tcp(host: &str, port: u16, arrival: Arrival) -> Result<Box<dyn Stream>, LinkError> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    match arrival {
        Arrival::Told => Ok(Box::new(stream)),
        Arrival::Gathered => Ok(Box::new(Gathered::new(stream.into_std()?))),
    }
}

/// Trusts the authorities of the web and those of the system, where `SSL_CERT_FILE` may name one's own.
fn trusting() -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}
