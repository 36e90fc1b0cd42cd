//! Many connections that do little: idle ones cost next to nothing, slow ones hold up the application and nobody else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::body;
use crate::memory::{Memory, descriptors_at_rest};
use crate::origin::{Head, Origin, Site, Stream, connect, exporting, say};
use crate::pace::Turns;
use crate::page;
use crate::rig::{PATIENCE, Sidecar};
use crate::scale::{alone, among_others, scaled};

/// Of a body that a slow reader asks for.
const BIG: u64 = 100_000_000;
/// What the kernel's buffers between the application and one client may hold, by far.
const BETWEEN: u64 = 16_000_000;

/// Answers little at once, and much as fast as it is taken.
#[derive(Default)]
struct Library {
    written: AtomicU64,
    cut_off: AtomicU64,
}

impl Site for Library {
    async fn answer(&self, head: &Head, stream: &mut Stream) -> std::io::Result<()> {
        if head.path() == "/silent" {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).await?;
            return Head::read(stream).await.map(drop); // which never comes
        }
        if head.path() != "/big" {
            return say(stream, 200, "{}").await;
        }
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {BIG}\r\n\r\n").as_bytes()).await?;
        let mut at = 0;
        while at < BIG {
            let piece = body::piece(at, BIG - at);
            if let Err(error) = stream.write_all(piece).await {
                self.cut_off.fetch_add(1, Ordering::Relaxed);
                return Err(error);
            }
            at += piece.len() as u64;
            self.written.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// One small request and its answer.
async fn ask(stream: &mut Stream) -> std::io::Result<u16> {
    stream.write_all(b"GET /small HTTP/1.1\r\nHost: h\r\n\r\n").await?;
    let head = timeout(PATIENCE, Head::read(stream)).await.expect("an answer in time")?;
    let head = head.ok_or(std::io::ErrorKind::UnexpectedEof)?;
    stream.read_exact(&mut [0; 2]).await?;
    Ok(head.status())
}

/// As many connections as both processes may have, up to 8,000; the sidecar takes no more than half of its descriptors.
fn connections() -> usize {
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard }).expect("up to the hard limit");
    let most = usize::try_from(hard.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let connections = 8_000.min(most / 2 - 256);
    assert!(connections >= 2_000, "{most} file descriptors allow for {connections} connections, expected 2,000");
    connections
}

async fn active(sidecar: &Sidecar, wanted: usize) {
    let is_reached = |_, page: &str| page::sum(page, "content_factory_proxy_connections_active", "") as usize == wanted;
    sidecar.eventually("/metrics", is_reached).await;
}

/// Row 15: an idle connection holds at most 4 KiB, whether it was used before or not; the next one is served at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_idle_connections_cost_next_to_nothing() {
    let _machine = among_others().await;
    let count = connections();
    let application = Origin::start(Arc::new(Library::default())).await;
    let sidecar = exporting(application.address, &application, &[]).await;
    for _ in 0..100 {
        ask(&mut connect(sidecar.proxy).await.unwrap()).await.unwrap();
    }
    active(&sidecar, 0).await;
    let memory = Memory::watch(&sidecar);
    let mut idle = Vec::with_capacity(count);
    for number in 0..count {
        let stream = connect(sidecar.proxy).await.unwrap();
        let mut stream = BufReader::with_capacity(512, stream.into_inner());
        if number % 2 == 0 {
            assert_eq!(ask(&mut stream).await.unwrap(), 200);
        }
        idle.push(stream);
    }
    active(&sidecar, count).await;
    let bytes = memory.growth_kib() * 1024 / count as u64;
    println!("{count} idle connections: {bytes} bytes each, {} KiB more at the highest", memory.peak_growth_kib());
    assert!(bytes <= 4 << 10, "{bytes} bytes for each of {count} connections");
    let mut waits = Vec::new();
    for _ in 0..50 {
        let started = Instant::now();
        assert_eq!(ask(&mut connect(sidecar.proxy).await.unwrap()).await.unwrap(), 200);
        waits.push(started.elapsed());
    }
    waits.sort();
    println!("the next ones were served after {:?} to {:?}, half of them within {:?}", waits[0], waits[49], waits[25]);
    // what the crowd costs a newcomer would be in each of them, a pause of the machine is not
    assert!(waits[0] < Duration::from_millis(5), "the next ones had to wait for {waits:?}");
    for stream in idle.iter_mut().step_by(97) {
        assert_eq!(ask(stream).await.unwrap(), 200, "an idle connection is as good as a new one");
    }
    drop(idle);
    active(&sidecar, 0).await;
    descriptors_at_rest(&sidecar).await;
}

/// A client whose kernel takes little, so that what it does not read waits further up; it has read the head of an answer.
async fn narrow(proxy: SocketAddr, path: &str) -> std::io::Result<Stream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4 << 10)?;
    let mut stream = BufReader::with_capacity(1 << 10, socket.connect(proxy).await?);
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).await?;
    let head = timeout(PATIENCE, Head::read(&mut stream)).await.expect("an answer in time")?.expect("an answer");
    assert_eq!(head.status(), 200);
    Ok(stream)
}

/// Reads a kB in a second until it is told that it is enough; gives the bytes read.
async fn dawdle(mut stream: Stream, enough: Arc<AtomicBool>) -> std::io::Result<(Stream, u64)> {
    let (mut read, mut bytes) = (0, [0; 20]);
    while !enough.load(Ordering::Relaxed) {
        let count = stream.read_exact(&mut bytes).await?;
        assert!(bytes[..] == *body::piece(read, count as u64), "other bytes than were sent");
        read += count as u64;
        sleep(Duration::from_millis(20)).await;
    }
    Ok((stream, read))
}

/// Asks by both in turns, each as often first, because the first one after a pause waits to be woken; how long that took.
async fn in_turns(turns: u64, streams: &mut [Stream; 2]) -> Turns {
    let mut taken = Turns::default();
    for number in 0..turns {
        let mut took = [Duration::ZERO; 2];
        for place in if number.is_multiple_of(2) { [0, 1] } else { [1, 0] } {
            let started = Instant::now();
            assert_eq!(ask(&mut streams[place]).await.expect("an answer"), 200);
            took[place] = started.elapsed();
        }
        taken.took(took[0], took[1]);
        sleep(Duration::from_millis(5)).await;
    }
    taken
}

/// Row 16: memory grows by at most 128 KiB for each slow reader, the application has to wait, nobody else does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_slow_the_application_and_nobody_else() {
    let _machine = among_others().await;
    let (count, asked) = (scaled(50, 200), scaled(300, 3_000));
    let library = Arc::new(Library::default());
    let application = Origin::start(Arc::clone(&library)).await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let alone = Sidecar::start(application.address, &[], &[]).await; // without slow readers
    let mut others = [connect(alone.proxy).await.unwrap(), connect(sidecar.proxy).await.unwrap()];
    in_turns(1, &mut others).await;
    let memory = Memory::watch(&sidecar);
    let enough = Arc::new(AtomicBool::new(false));
    let mut readers = JoinSet::new();
    for _ in 0..count {
        readers.spawn(dawdle(narrow(sidecar.proxy, "/big").await.unwrap(), Arc::clone(&enough)));
    }
    let turns = in_turns(asked, &mut others).await;
    enough.store(true, Ordering::Relaxed);
    let mut halfway = Vec::new();
    while let Some(reader) = readers.join_next().await {
        halfway.push(reader.unwrap().unwrap());
    }
    let (written, grown) = (library.written.load(Ordering::Relaxed), memory.peak_growth_kib());
    println!(
        "{count} slow readers: {grown} KiB more, {written} bytes taken; of {asked} others without and with them half \
         within {:?}, 99 % within {:?}",
        turns.within(50),
        turns.within(99)
    );
    assert!(grown <= count * 128, "{grown} KiB more for {count} slow readers");
    assert!(written < count * BETWEEN, "the application wrote {written} bytes for readers that do not read");
    let unharmed = |(without, with): (Duration, Duration)| with <= without.mul_f64(1.2);
    assert!(turns.stretches(50).any(unharmed), "half of the others had to wait: {:?}", turns.within(50));
    // in the short form a stretch has too few for that
    let slowest = scaled(50, 99);
    assert!(
        turns.stretches(slowest).any(unharmed),
        "{slowest} % of the others had to wait: {:?}",
        turns.within(slowest)
    );
    let whole = halfway.pop().expect("readers");
    assert_eq!(the_rest(whole).await.unwrap(), BIG, "who reads on gets all of it");
    drop(halfway);
    let left = count - 1;
    let page = page::settled(&sidecar, asked + 1 + count).await;
    let gone = page::tally(&page).into_iter().find(|((_, _, reason), _)| reason == "client_gone");
    assert_eq!(gone.map(|(_, count)| count), Some(left));
    assert_eq!(library.cut_off.load(Ordering::Relaxed), left, "the application is told of each that left");
}

/// Reads a body on from where it was; gives its length.
async fn the_rest((mut stream, read): (Stream, u64)) -> std::io::Result<u64> {
    let mut at = read;
    let mut bytes = vec![0; 32 << 10];
    while at < BIG {
        let count = stream.read(&mut bytes).await?;
        assert!(count > 0, "the body ends after {at} bytes");
        assert!(bytes[..count] == *body::piece(at, count as u64), "other bytes than were sent, at {at}");
        at += count as u64;
    }
    Ok(at)
}

/// What is taken until nothing more is: all that stands between the application and its clients is full.
async fn standstill(library: &Library) {
    let (mut last, deadline) = (u64::MAX, Instant::now() + PATIENCE);
    loop {
        let written = library.written.load(Ordering::Relaxed);
        if written == last {
            return;
        }
        assert!(Instant::now() < deadline, "the application is still writing for readers that do not read");
        last = written;
        sleep(Duration::from_millis(300)).await;
    }
}

/// Bytes that each further client of this path holds, once there are many of them.
async fn bytes_for_each(path: &str) -> u64 {
    let library = Arc::new(Library::default());
    let application = Origin::start(Arc::clone(&library)).await;
    // the last of them shall come before the first is given up, however slow the machine is
    let patient = [("SIDECAR_PROXY__TIMEOUTS__WRITE_STALL", "10m")];
    let sidecar = exporting(application.address, &application, &patient).await;
    let memory = Memory::watch(&sidecar);
    let (mut clients, mut grown) = (Vec::new(), Vec::new());
    for count in [200, 1_000] {
        while clients.len() < count {
            clients.push(narrow(sidecar.proxy, path).await.expect("the proxy takes a client"));
        }
        standstill(&library).await;
        grown.push(memory.growth_kib());
    }
    println!(
        "{path}: {} KiB more for 200 clients, {} for 1,000; {} KiB in all",
        grown[0],
        grown[1],
        sidecar.resident_kib()
    );
    (grown[1].saturating_sub(grown[0]) << 10) / 800
}

/// Row 16: who reads nothing of a large answer holds one buffer of 16 KiB, and who listens to a silent stream none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_that_wait_hold_no_more_than_is_on_its_way_to_them() {
    // what waits for so many in the kernel is all that it has for sockets: it would reset those of others
    let _machine = alone().await;
    connections();
    for (path, most) in [("/big", 24 << 10), ("/silent", 8 << 10)] {
        let bytes = bytes_for_each(path).await;
        assert!(bytes <= most, "{bytes} bytes for each client of {path}, expected at most {most}");
    }
}
