//! Whoever leaves, the other side is told: the application that nobody waits, the client that its answer is not whole.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::origin::{Head, Origin, Site, Stream, connect};
use crate::page::{self, Kind};
use crate::rig::{PATIENCE, Sidecar};
use crate::scale::{among_others, scaled};

/// Clients that leave at once.
const LANES: usize = 10;

/// Ways to leave: three kinds of requests, each by FIN and by RST.
const WAYS: usize = 6;

/// Does something for each number below `count`, in lanes of one after the other; gives all results.
async fn in_lanes<T, F>(count: usize, each: impl Fn(usize) -> F + Clone + Send + 'static) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send,
{
    let mut lanes = JoinSet::new();
    for lane in 0..LANES {
        let each = each.clone();
        lanes.spawn(async move {
            let mut results = Vec::new();
            for number in (lane..count).step_by(LANES) {
                results.push(each(number).await);
            }
            results
        });
    }
    lanes.join_all().await.into_iter().flatten().collect()
}

/// One request, as the application sees it come and be left.
#[derive(Default)]
struct Visit {
    has_come: Notify,
    was_left: Notify,
}

/// Works on each request for ever, until it is told that nobody waits.
struct Patient {
    visits: Vec<Visit>,
}

impl Site for Patient {
    async fn answer(&self, head: &Head, stream: &mut Stream) -> std::io::Result<()> {
        let (kind, number) = head.path()[1..].split_once('/').expect("two segments");
        let visit = &self.visits[number.parse::<usize>().expect("a number")];
        visit.has_come.notify_one();
        let left = match kind {
            "silent" | "upload" => tokio::io::copy(stream, &mut tokio::io::sink()).await.map(|_| ()),
            _ => talk(stream).await,
        };
        visit.was_left.notify_one();
        left
    }
}

/// Answers for ever.
async fn talk(stream: &mut Stream) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
    loop {
        stream.write_all(b"5\r\nhello\r\n").await?;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Leaves a request of each kind by FIN or by RST; gives how long it took until the application was told.
async fn leave(proxy: SocketAddr, visits: Arc<Patient>, number: usize) -> std::io::Result<Duration> {
    let visit = &visits.visits[number];
    let mut stream = connect(proxy).await?;
    let kind = ["silent", "upload", "talk"][number % 3];
    let (method, field) = if kind == "upload" { ("POST", "Content-Length: 1000000\r\n") } else { ("GET", "") };
    stream.write_all(format!("{method} /{kind}/{number} HTTP/1.1\r\nHost: h\r\n{field}\r\n").as_bytes()).await?;
    timeout(PATIENCE, visit.has_come.notified()).await.expect("the request reaches the application");
    if kind == "talk" {
        stream.read_exact(&mut [0; 100]).await?;
    }
    if number.is_multiple_of(2) {
        stream.get_ref().set_zero_linger()?;
    }
    let left = Instant::now();
    drop(stream);
    timeout(PATIENCE, visit.was_left.notified()).await.expect("the application is told that nobody waits");
    Ok(left.elapsed())
}

/// Row 18: each client that leaves, before the first byte, within the request or within the answer, is passed on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_is_told_of_every_client_that_leaves() {
    let _machine = among_others().await;
    let count = scaled(200, 1_000);
    let site = Arc::new(Patient { visits: (0..count).map(|_| Visit::default()).collect() });
    let application = Origin::start(Arc::clone(&site)).await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let proxy = sidecar.proxy;
    let mut waits = in_lanes(count, move |number| {
        let site = Arc::clone(&site);
        async move { (leave(proxy, site, number).await.expect("the proxy is there"), number % WAYS) }
    })
    .await;
    waits.sort();
    println!("{count} of {count} told; half within {:?}, the last after {:?}", waits[count / 2].0, waits[count - 1].0);
    assert_eq!(waits.len(), count);
    for way in 0..WAYS {
        let of_way: Vec<_> = waits.iter().filter(|(_, found)| *found == way).map(|(wait, _)| *wait).collect();
        // a pause of the sidecar's own would be in each of them, one of the machine is not
        let judged = of_way[of_way.len() / scaled(10, 2)];
        assert!(judged < Duration::from_millis(100), "way {way}: told after {of_way:?}");
    }
    let page = page::settled(&sidecar, count as u64).await;
    let gone: u64 = page::tally(&page)
        .into_iter()
        .map(|((kind, _, reason), many)| {
            assert_eq!((kind, reason.as_str()), (Kind::Ordinary, "client_gone"));
            many
        })
        .sum();
    assert_eq!(gone, count as u64);
}

/// Answers in part, and breaks.
struct Fragile {
    /// That the client has a part of its answer, by the number of the request.
    arrived: Vec<Notify>,
}

const BREAKS: [&str; 8] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
    "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    "HTTP/1.1 200 OK\r\n\r\nuntil the end",
    "HTTP/1.1 200 OK\r\nContent-Le",
    "",
];

/// The first of those that break before a whole head.
const HEADLESS: usize = 6;

/// The one whose end is the end of the connection: only a reset breaks it.
const UNTIL_CLOSE: usize = 5;

impl Site for Fragile {
    async fn answer(&self, head: &Head, stream: &mut Stream) -> std::io::Result<()> {
        let number: usize = head.path()[1..].parse().expect("a number");
        let which = number % BREAKS.len();
        stream.write_all(BREAKS[which].as_bytes()).await?;
        if which < HEADLESS {
            // a reset makes the kernel throw away what was not read yet
            self.arrived[number].notified().await;
        }
        if which == UNTIL_CLOSE || (number / BREAKS.len()).is_multiple_of(2) {
            stream.get_ref().set_zero_linger()?;
        }
        Err(std::io::ErrorKind::ConnectionAborted.into())
    }
}

/// Whether what the client got is an answer that looks whole, by its framing.
fn looks_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    if head.contains("transfer-encoding: chunked") {
        return body.ends_with("0\r\n\r\n");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    length.is_none_or(|length| body.len() >= length)
}

/// Asks, says when the answer has begun, and gives what came until the end of the connection.
async fn broken_answer(proxy: SocketAddr, number: usize, arrived: &Notify) -> std::io::Result<Vec<u8>> {
    let mut stream = connect(proxy).await?;
    let fields = "Host: h\r\nContent-Length: 0\r\nConnection: close\r\n";
    stream.write_all(format!("POST /{number} HTTP/1.1\r\n{fields}\r\n").as_bytes()).await?;
    let mut answer = vec![timeout(PATIENCE, stream.read_u8()).await.expect("an answer begins in time")?];
    arrived.notify_one();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end in time")?;
    Ok(answer)
}

/// Row 18: a break of the application is a break at the client, or 502 when no answer had begun.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_sees_that_its_answer_is_not_whole() {
    let _machine = among_others().await;
    let count = scaled(200, 1_000);
    let site = Arc::new(Fragile { arrived: (0..count).map(|_| Notify::new()).collect() });
    let application = Origin::start(Arc::clone(&site)).await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let proxy = sidecar.proxy;
    in_lanes(count, move |number| {
        let site = Arc::clone(&site);
        async move {
            match broken_answer(proxy, number, &site.arrived[number]).await {
                Ok(whole) if number % BREAKS.len() >= HEADLESS => {
                    assert!(whole.starts_with(b"HTTP/1.1 502 ") && looks_whole(&whole), "{number}: {whole:?}");
                }
                Ok(part) => assert!(!looks_whole(&part), "{number} looks whole: {part:?}"),
                Err(_) => assert!(number % BREAKS.len() < HEADLESS, "{number}: no 502"),
            }
        }
    })
    .await;
    let page = page::settled(&sidecar, count as u64).await;
    let headless = (0..count).filter(|number| number % BREAKS.len() >= HEADLESS).count() as u64;
    let broken = |status| (Kind::Ordinary, status, "upstream_broken".to_owned());
    let wanted = [(broken(200), count as u64 - headless), (broken(502), headless)].into();
    assert_eq!(page::tally(&page), wanted);
}
