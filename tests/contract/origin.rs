//! An application behind the sidecar: a test says what it answers, and can stop and start it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::rig::Sidecar;

/// One side of a connection, read through a buffer.
pub(crate) type Stream = BufReader<TcpStream>;

/// What the sidecar asks of its own accord is no traffic; this is how it names itself.
const OWN_USER_AGENT: &str = "content-factory-sidecar/";

/// The routes that the application has.
const OPENAPI: &str = r#"{"openapi":"3.1.0","paths":{"/items/{id}":{},"/users/{user}/posts/{post}":{},"/flat":{}}}"#;

/// The first line and the fields of a message.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    text: String,
}

impl Head {
    /// The next one; `None` when the connection ends before it.
    pub(crate) async fn read(stream: &mut Stream) -> std::io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            if stream.read_until(b'\n', &mut bytes).await? == 0 {
                return Ok(None);
            }
        }
        Ok(Some(Self { text: String::from_utf8_lossy(&bytes).into_owned() }))
    }

    /// A word of the first line.
    fn word(&self, place: usize) -> &str {
        self.text.split_ascii_whitespace().nth(place).unwrap_or_default()
    }

    /// Of a request.
    pub(crate) fn method(&self) -> &str {
        self.word(0)
    }

    /// Of a request, without its query.
    pub(crate) fn path(&self) -> &str {
        self.word(1).split('?').next().unwrap_or_default()
    }

    /// Of an answer.
    pub(crate) fn status(&self) -> u16 {
        self.word(1).parse().unwrap_or(0)
    }

    /// The value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.text.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// What an application answers.
pub(crate) trait Site: Send + Sync + 'static {
    /// Answers one request; its body, if any, is still to be read. An error ends the connection.
    fn answer(&self, head: &Head, stream: &mut Stream) -> impl Future<Output = std::io::Result<()>> + Send;
}

/// A running application; dropping it closes the port and every connection.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    serving: JoinSet<()>,
    /// Shared by each connection.
    open: Arc<()>,
}

impl Origin {
    /// On a free port.
    pub(crate) async fn start<S: Site>(site: Arc<S>) -> Self {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0)), site).await
    }

    /// On a port that is kept for it.
    pub(crate) async fn start_on<S: Site>(address: SocketAddr, site: Arc<S>) -> Self {
        let listener = TcpListener::bind(address).await.expect("the port is free");
        let address = listener.local_addr().expect("bound");
        let (mut serving, open) = (JoinSet::new(), Arc::new(()));
        let each = Arc::clone(&open);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (site, open) = (Arc::clone(&site), Arc::clone(&each));
                connections.spawn(async move {
                    let _open = open;
                    let _the_peer_may_go_at_any_time = serve(&*site, stream).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, serving, open }
    }

    /// Closes the port and every connection, and returns once that is done.
    pub(crate) async fn stop(mut self) {
        self.serving.shutdown().await;
        while Arc::strong_count(&self.open) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn serve<S: Site>(site: &S, stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::with_capacity(64 << 10, stream);
    while let Some(head) = Head::read(&mut stream).await? {
        if head.method() == "POST" && head.path().starts_with("/v1/") {
            let length = head.field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            tokio::io::copy(&mut (&mut stream).take(length), &mut tokio::io::sink()).await?;
            // no partial success: an empty message
            let accepted = "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(accepted.as_bytes()).await?;
        } else if head.field("user-agent").is_some_and(|agent| agent.starts_with(OWN_USER_AGENT)) {
            say(&mut stream, 200, OPENAPI).await?;
        } else {
            site.answer(&head, &mut stream).await?;
        }
    }
    Ok(())
}

/// A sidecar whose telemetry this application takes: what is not delivered is kept in memory, and would be measured
/// along.
pub(crate) async fn exporting(upstream: SocketAddr, receiver: &Origin, more: &[(&str, &str)]) -> Sidecar {
    let receiver = format!("http://{}", receiver.address);
    let environment = [&[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")], more].concat();
    Sidecar::start(upstream, &["--otlp", &receiver], &environment).await
}

/// Writes a small JSON answer.
pub(crate) async fn say(stream: &mut Stream, status: u16, body: &str) -> std::io::Result<()> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(format!("{head}{body}").as_bytes()).await
}

/// A client's connection to the proxy.
pub(crate) async fn connect(address: SocketAddr) -> std::io::Result<Stream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(BufReader::with_capacity(64 << 10, stream))
}
