//! Servers of PostgreSQL that lie, flood or drip: each costs its own reading, and nobody memory.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use content_factory_sidecar::model::trouble::Trouble;

use crate::checks_endpoints::until;
use crate::database_room::troubles;
use crate::rig::{Sidecar, echo_application, get};

/// What the process may hold for all of them together, in KiB.
const MOST_KIB: u64 = 8 << 10;

/// How a server behaves to one connection; an end of it ends the connection.
type Conduct = fn(&mut TcpStream) -> io::Result<()>;

/// A server, the mode of TLS in which it is asked, how it behaves, and what is told of it.
type Case = (&'static str, &'static str, Conduct, Trouble);

const CASES: &[Case] = &[
    ("claim", "disable", claim, Trouble::TooLarge),
    ("flood", "disable", flood, Trouble::TooLarge),
    ("rows", "disable", rows, Trouble::TooLarge),
    ("columns", "disable", columns, Trouble::TooLarge),
    ("notices", "disable", notices, Trouble::TooLarge),
    ("parameters", "disable", parameters, Trouble::TooLarge),
    ("passwords", "disable", passwords, Trouble::TooLarge),
    ("web", "disable", web, Trouble::TooLarge),
    ("unknown", "disable", unknown, Trouble::Protocol),
    ("short", "disable", short, Trouble::Protocol),
    ("work", "disable", work, Trouble::Protocol),
    ("drip", "disable", drip, Trouble::Timeout),
    ("plain", "prefer", web, Trouble::Protocol),
    ("handshake", "prefer", handshake, Trouble::Tls),
];

fn claim(stream: &mut TcpStream) -> io::Result<()> {
    startup(stream)?;
    stream.write_all(b"R\x7f\xff\xff\xff")?;
    rest(stream)
}

fn flood(stream: &mut TcpStream) -> io::Result<()> {
    log_in(stream)?;
    question(stream)?;
    stream.write_all(b"D\x7f\xff\xff\xff")?;
    forever(stream, &[0; 64 << 10])
}

fn rows(stream: &mut TcpStream) -> io::Result<()> {
    log_in(stream)?;
    question(stream)?;
    stream.write_all(&message(b'T', &[&1_u16.to_be_bytes(), &column(b"a")[..]].concat()))?;
    forever(stream, &message(b'D', b"\0\x01\0\0\0\x011").repeat(1_000))
}

fn columns(stream: &mut TcpStream) -> io::Result<()> {
    log_in(stream)?;
    question(stream)?;
    let many = 3_000_u16;
    let columns = column(b"a").repeat(many.into());
    forever(stream, &message(b'T', &[&many.to_be_bytes(), &columns[..]].concat()))
}

fn notices(stream: &mut TcpStream) -> io::Result<()> {
    startup(stream)?;
    forever(stream, &message(b'N', b"SWARNING\0C01000\0Mcanary-canary\0\0").repeat(1_000))
}

fn parameters(stream: &mut TcpStream) -> io::Result<()> {
    startup(stream)?;
    for number in 0_u64.. {
        stream.write_all(&message(b'S', format!("{number:x}\0\0").as_bytes()))?;
    }
    Ok(())
}

fn passwords(stream: &mut TcpStream) -> io::Result<()> {
    startup(stream)?;
    forever(stream, &message(b'R', b"\0\0\0\x03"))
}

fn web(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")?;
    rest(stream)
}

fn unknown(stream: &mut TcpStream) -> io::Result<()> {
    startup(stream)?;
    forever(stream, &message(b'?', b"").repeat(1_000))
}

/// A demand for nothing: the driver reads past its end.
fn short(stream: &mut TcpStream) -> io::Result<()> {
    startup(stream)?;
    stream.write_all(&message(b'R', b""))?;
    rest(stream)
}

/// A password that would cost hours.
fn work(stream: &mut TcpStream) -> io::Result<()> {
    startup(stream)?;
    stream.write_all(&message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"))?;
    question(stream)?;
    stream.write_all(&message(b'R', b"\0\0\0\x0br=n,s=c2FsdA==,i=4294967295"))?;
    rest(stream)
}

fn drip(stream: &mut TcpStream) -> io::Result<()> {
    startup(stream)?;
    // who waits for the next byte reads, and what comes meanwhile is none
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    for byte in message(b'N', &[b'x'; 1_000]) {
        stream.write_all(&[byte])?;
        match stream.read(&mut [0; 1_024]) {
            Ok(0) => return Ok(()),
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn handshake(stream: &mut TcpStream) -> io::Result<()> {
    startup(stream)?;
    stream.write_all(b"S")?;
    forever(stream, &[b'x'; 64 << 10])
}

/// A row that claims more than it has, in an answer that is whole.
fn lying_row(stream: &mut TcpStream) -> io::Result<()> {
    log_in(stream)?;
    loop {
        question(stream)?;
        let mut answer = message(b'T', &[&1_u16.to_be_bytes(), &column(b"a")[..]].concat());
        answer.extend(message(b'D', b"\0\x01\0\0\x10\x001"));
        answer.extend(message(b'C', b"SELECT 1\0"));
        answer.extend(message(b'Z', b"I"));
        stream.write_all(&answer)?;
    }
}

fn message(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len() + 4).expect("a message of a test");
    [&[kind], &length.to_be_bytes()[..], content].concat()
}

/// Of `int4`, as a text.
fn column(name: &[u8]) -> Vec<u8> {
    [name, b"\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0"].concat()
}

/// Reads what a client says first.
fn startup(stream: &mut TcpStream) -> io::Result<()> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut content = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut content)
}

fn log_in(stream: &mut TcpStream) -> io::Result<()> {
    startup(stream)?;
    stream.write_all(&[message(b'R', &[0; 4]), message(b'Z', b"I")].concat())
}

fn question(stream: &mut TcpStream) -> io::Result<()> {
    stream.read_exact(&mut [0])?;
    startup(stream)
}

fn forever(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    loop {
        stream.write_all(bytes)?;
    }
}

/// Reads until the client goes.
fn rest(stream: &mut TcpStream) -> io::Result<()> {
    io::copy(stream, &mut io::sink()).map(drop)
}

/// A server that behaves to each connection as the next of these, and from the beginning again.
fn server(conducts: Vec<Conduct>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("port 0 is free");
    let address = listener.local_addr().expect("a bound listener");
    std::thread::spawn(move || {
        let turn = AtomicUsize::new(0);
        for mut stream in listener.incoming().flatten() {
            let conduct = conducts[turn.fetch_add(1, Ordering::Relaxed) % conducts.len()];
            std::thread::spawn(move || conduct(&mut stream));
        }
    });
    address
}

fn url(address: SocketAddr, mode: &str) -> String {
    format!("postgresql://u:canary-canary@{address}/x?sslmode={mode}")
}

/// A sidecar with these settings, and the folder that holds them.
async fn configured(yaml: &str, limit: Option<&str>) -> (Sidecar, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("sidecar.yaml");
    std::fs::write(&file, yaml).expect("a file in a new folder");
    let (config, application) = (file.display().to_string(), echo_application().await);
    let arguments = ["--config", &config];
    let sidecar = match limit {
        Some(limit) => Sidecar::start_within(limit, application, &arguments).await,
        None => Sidecar::start(application, &arguments, &[]).await,
    };
    (sidecar, folder)
}

#[tokio::test]
async fn hostile_servers_cost_their_own_check_a_failure_and_no_memory() {
    let mut yaml = String::from("checks:\n");
    for (name, mode, conduct, _) in CASES {
        let url = url(server(vec![*conduct]), mode);
        yaml += &format!("  {name}: {{kind: sql, url: \"{url}\", period: 1s, timeout: 900ms, failure_threshold: 1}}\n");
    }
    let well = server(vec![rest]);
    yaml += &format!("  live: {{kind: tcp, address: \"{well}\", period: 200ms, timeout: 190ms}}\n");
    // what is read for the database room behaves in all these ways in turn
    let all = server(CASES.iter().map(|(_, _, conduct, _)| *conduct).collect());
    let periods =
        ["activity_period", "period", "statistics_period", "storage_period"].map(|name| format!(", {name}: 1s"));
    yaml += &format!("database: {{url: \"{}\"{}}}\n", url(all, "disable"), periods.concat());
    let (sidecar, _folder) = configured(&yaml, None).await;
    let before = sidecar.memory_kib("RssAnon:");
    for (name, _, _, trouble) in CASES {
        let message = format!("{name} check failed: {}", trouble.word());
        let is_told = |check: &serde_json::Value| check["message"] == *message && check["streak"].as_u64() >= Some(3);
        until(&sidecar, name, is_told).await;
    }
    until(&sidecar, "live", |check| check["status"] == "healthy" && check["streak"].as_u64() >= Some(10)).await;
    sidecar.eventually("/api/v1/monitoring/database", |_, body| body.contains("\"problem\":\"too_large\"")).await;
    let (status, _) = get(sidecar.proxy, "/").await.expect("the application's traffic goes on");
    assert_eq!(status, 200);
    // the most that was ever held, without what is mapped from files: code that was run for the first time
    let most = sidecar.peak_kib().saturating_sub(sidecar.memory_kib("RssFile:"));
    let grown = most.saturating_sub(before);
    assert!(grown < MOST_KIB, "{grown} KiB more than the {before} KiB of the start");
    let log = sidecar.log();
    assert!(!log.contains("canary-canary"), "{log}");
}

#[tokio::test]
async fn where_memory_is_short_the_claim_of_two_gibibytes_ends_nothing() {
    let url = url(server(vec![claim]), "disable");
    let yaml = format!(
        "checks:\n  claim: {{kind: sql, url: \"{url}\", period: 1s, timeout: 900ms, failure_threshold: 1}}\ndatabase: {{url: \"{url}\"}}\n"
    );
    // less than is claimed, and more than the process maps
    let (sidecar, _folder) = configured(&yaml, Some("ulimit -v 1800000")).await;
    until(&sidecar, "claim", |check| check["message"] == "claim check failed: too_large").await;
    sidecar.eventually("/api/v1/monitoring/database", |_, body| body.contains("\"problem\":\"too_large\"")).await;
    assert_eq!(get(sidecar.proxy, "/").await.expect("it serves").0, 200);
}

#[tokio::test]
async fn each_part_of_the_database_tells_what_a_hostile_server_is() {
    for (name, mode, conduct, trouble) in
        CASES.iter().copied().chain([("lying row", "disable", lying_row as Conduct, Trouble::Protocol)])
    {
        let told = troubles(&url(server(vec![conduct]), mode)).await;
        assert_eq!(told, [Some(trouble); 7], "{name}");
    }
}
