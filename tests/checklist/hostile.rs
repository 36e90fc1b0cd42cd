//! An application that speaks HTTP/2 and answers as no honest one does: frame by frame, by a script.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use crate::h2_fate::code;
use crate::h2_world::{
    Answer, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, RST_STREAM, SETTINGS, ask, block, connect, encode,
    request,
};
use crate::proxy_world::spawn;
use crate::rig::Sidecar;

/// A frame of an answer; on stream 0 it is of the connection.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) kind: (u8, u8),
    pub(crate) payload: Vec<u8>,
    pub(crate) is_of_connection: bool,
}

/// What is done behind the last piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Serve,
    Close,
    /// Writes this frame again and again, to the end of the connection.
    Flood(Vec<u8>),
}

/// One answer.
pub(crate) type Script = (Vec<Piece>, Then);

/// A frame of the answer's stream.
pub(crate) fn piece(kind: (u8, u8), payload: &[u8]) -> Piece {
    Piece { kind, payload: payload.to_vec(), is_of_connection: false }
}

/// A frame of the connection.
pub(crate) fn of_all(kind: (u8, u8), payload: &[u8]) -> Piece {
    Piece { is_of_connection: true, ..piece(kind, payload) }
}

/// A head.
pub(crate) fn head(flags: u8, fields: &[(&str, &str)]) -> Piece {
    piece((HEADERS, END_HEADERS | flags), &block(fields))
}

/// 200 with further fields.
pub(crate) fn answer(flags: u8, fields: &[(&'static str, &'static str)]) -> Piece {
    let fields: Vec<_> = [(":status", "200")].into_iter().chain(fields.iter().copied()).collect();
    head(flags, &fields)
}

/// A piece of a body.
pub(crate) fn data(flags: u8, bytes: &[u8]) -> Piece {
    piece((DATA, flags), bytes)
}

/// The application, and what it was told.
#[derive(Debug, Default)]
struct Hostile {
    /// The settings that it greets with.
    settings: Vec<u8>,
    script: Mutex<Option<Script>>,
    /// The codes of each RST_STREAM and GOAWAY.
    told: Mutex<Vec<&'static str>>,
    /// Connections that brought HTTP/2.
    connections: AtomicUsize,
}

impl Hostile {
    async fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut preface = [0; PREFACE.len()];
        stream.read_exact(&mut preface).await?;
        if preface != *PREFACE {
            return Ok(()); // the sidecar's own questions
        }
        self.connections.fetch_add(1, Ordering::SeqCst);
        stream.write_all(&encode((SETTINGS, 0), 0, &self.settings)).await?;
        let (mut reader, mut writer) = stream.into_split();
        loop {
            let id = self.next_request(&mut reader).await?;
            let good = (vec![answer(0, &[]), data(END_STREAM, b"good")], Then::Serve);
            let (pieces, then) = self.script.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or(good);
            for Piece { kind, payload, is_of_connection } in pieces {
                writer.write_all(&encode(kind, if is_of_connection { 0 } else { id }, &payload)).await?;
            }
            match then {
                Then::Serve => {}
                Then::Close => return Ok(()),
                Then::Flood(frame) => return self.flood(&mut reader, &mut writer, &frame.repeat(1_000)).await,
            }
        }
    }

    /// Reads to the next head; gives its stream.
    async fn next_request(&self, reader: &mut OwnedReadHalf) -> std::io::Result<u32> {
        loop {
            let mut head = [0; 9];
            reader.read_exact(&mut head).await?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            reader.read_exact(&mut payload).await?;
            match head[3] {
                HEADERS => return Ok(u32::from_be_bytes([head[5], head[6], head[7], head[8]])),
                RST_STREAM => self.tell(code(&payload)),
                GOAWAY => self.tell(code(&payload[4..])),
                _ => {}
            }
        }
    }

    async fn flood(
        &self,
        reader: &mut OwnedReadHalf,
        writer: &mut OwnedWriteHalf,
        frames: &[u8],
    ) -> std::io::Result<()> {
        let write = async { while writer.write_all(frames).await.is_ok() {} };
        let read = async { while self.next_request(reader).await.is_ok() {} };
        tokio::select! { () = write => {} () = read => {} }
        Ok(())
    }

    fn tell(&self, code: &'static str) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push(code);
    }
}

/// The application with the sidecar in front of it.
pub(crate) struct House {
    pub(crate) sidecar: Sidecar,
    application: Arc<Hostile>,
}

impl House {
    /// An application that greets with these settings.
    pub(crate) async fn start(settings: &[u8], environment: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address: SocketAddr = listener.local_addr().expect("bound");
        let application = Arc::new(Hostile { settings: settings.to_vec(), ..Hostile::default() });
        let serving = Arc::clone(&application);
        spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = Arc::clone(&serving);
                spawn(async move {
                    let _the_other_side_may_go_at_any_time = serving.serve(stream).await;
                });
            }
        });
        let environment = [&[("SIDECAR_PROXY__UPSTREAM_PROTOCOL", "h2c")], environment].concat();
        Self { sidecar: Sidecar::start(address, &[], &environment).await, application }
    }

    /// The next request is answered by this; those behind it as they should be.
    pub(crate) fn play(&self, script: Script) {
        *self.application.script.lock().unwrap_or_else(PoisonError::into_inner) = Some(script);
    }

    /// A POST without a body, on a connection of its own.
    pub(crate) async fn ask(&self) -> Result<Answer, h2::Error> {
        let client = connect(self.sidecar.proxy).await?;
        ask(&client, request("POST", "/asked")).await
    }

    /// Plays the script; its answer is not whole, and the next request is served.
    pub(crate) async fn never_whole(&self, what: &str, script: Script) {
        self.play(script);
        match self.ask().await {
            Ok(answer) => assert_eq!(answer.status, 502, "{what}: {answer:?}"),
            Err(error) => assert!(error.is_reset(), "{what}: {error}"),
        }
        let left = self.application.script.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        assert!(!left, "{what}: it was not asked");
        self.serves(what).await;
    }

    /// The next request is served.
    pub(crate) async fn serves(&self, what: &str) {
        let answer = self.ask().await.unwrap_or_else(|error| panic!("behind {what}: {error}"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "good"), "behind {what}");
    }

    /// The codes of each RST_STREAM and GOAWAY that the application has been told.
    pub(crate) fn told(&self) -> Vec<&'static str> {
        self.application.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connections that the application was brought.
    pub(crate) fn connections(&self) -> usize {
        self.application.connections.load(Ordering::SeqCst)
    }

    /// So many requests ended with this `error.type`; with an empty one, so many in all.
    pub(crate) async fn counted(&self, kind: &str, requests: u64) {
        let label = format!("error_type=\"{kind}");
        let wanted = |line: &&str| {
            let is_count = line.starts_with("http_server_request_duration_seconds_count");
            is_count && (kind.is_empty() || line.contains(&label))
        };
        let count = |page: &str| -> u64 {
            page.lines().filter(wanted).filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
        };
        let page = self.sidecar.eventually("/metrics", |_, page| count(page) >= requests).await;
        assert_eq!(count(&page), requests, "{kind:?} in {page}");
    }
}
