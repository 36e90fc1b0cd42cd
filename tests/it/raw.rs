//! Raw bytes on both sides of the proxy: an application that the test scripts byte by byte, and clients.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// No test waits longer for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// An application that does what the test says with each connection, numbered from 0.
pub(crate) fn origin(script: impl Fn(usize, Client) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("port 0 is always free");
    let address = listener.local_addr().expect("a bound socket has an address");
    let script = Arc::new(script);
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let script = Arc::clone(&script);
            std::thread::spawn(move || script(number, Client::of(stream)));
        }
    });
    address
}

/// Answers each request of a connection with its head and its body.
pub(crate) fn echo_all(client: &mut Client) {
    while let Some(message) = client.try_message() {
        let body = [message.head.as_bytes(), &message.body].concat();
        client.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()));
        client.send(body);
    }
}

/// An end of a connection, and what has been read from it.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    reader: BufReader<Recorded>,
}

/// Every byte that was read from a connection, to be looked at while it is open and behind its end.
pub(crate) type Record = Arc<Mutex<Vec<u8>>>;

/// Keeps what is read.
struct Recorded(TcpStream, Record);

impl Read for Recorded {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.0.read(buffer)?;
        self.1.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..count]);
        Ok(count)
    }
}

/// A message as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// The first line and the fields, with the blank line.
    pub(crate) head: String,
    /// The body, without its framing.
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// The status of an answer.
    pub(crate) fn status(&self) -> u16 {
        self.head.get(9..12).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// The value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    /// A client of the proxy.
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).expect("the proxy listens"))
    }

    fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_nodelay(true).expect("the option exists");
        let record = Record::default();
        let reader = BufReader::new(Recorded(stream.try_clone().expect("a socket can be shared"), record));
        Self { stream, reader }
    }

    /// All that is read from it, now and later.
    pub(crate) fn record(&self) -> Record {
        Arc::clone(&self.reader.get_ref().1)
    }

    /// Writes; an end that is gone is seen when reading.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Sends a GET request and reads its answer.
    pub(crate) fn get(&mut self, target: &str) -> Message {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        self.message()
    }

    /// The next message; there must be one.
    pub(crate) fn message(&mut self) -> Message {
        self.try_message().expect("a whole message, not the end of the connection")
    }

    /// The next message; `None` if the connection ends before it is whole.
    pub(crate) fn try_message(&mut self) -> Option<Message> {
        let head = self.head()?;
        let message = Message { head, body: Vec::new() };
        let status = message.status();
        let is_answer = message.head.starts_with("HTTP/");
        let bodiless = is_answer && (status < 200 || status == 204 || status == 304);
        let body = if bodiless {
            Vec::new()
        } else if message.field("transfer-encoding").is_some() {
            self.chunked()?
        } else if let Some(length) = message.field("content-length").and_then(|text| text.parse().ok()) {
            self.bytes(length)?
        } else if is_answer {
            let mut body = Vec::new();
            self.reader.read_to_end(&mut body).ok()?;
            body
        } else {
            Vec::new()
        };
        Some(Message { body, ..message })
    }

    /// The next head alone.
    pub(crate) fn head(&mut self) -> Option<String> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        Some(head)
    }

    /// So many bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }

    fn chunked(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line).ok()?;
            let size = usize::from_str_radix(line.trim_end(), 16).ok()?;
            if size == 0 {
                while line != "\r\n" {
                    line.clear();
                    if self.reader.read_line(&mut line).ok()? == 0 {
                        return None;
                    }
                }
                return Some(body);
            }
            body.extend(self.bytes(size)?);
            self.bytes(2)?;
        }
    }

    /// Everything up to the end of the connection.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.reader.read_to_end(&mut rest);
        rest
    }

    /// Whether the connection has ended with nothing more to read.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.rest().is_empty()
    }
}
