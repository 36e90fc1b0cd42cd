//! More than the application can carry: it carries on at its pace, the rest is told at once to come again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};

use crate::origin::{Head, Origin, Site, Stream, connect, say};
use crate::page::{self, End, Kind};
use crate::rig::{PATIENCE, Sidecar, get};
use crate::scale::{alone, scaled};

/// Requests that the application works on at once, and how long each takes.
const PLACES: usize = 8;
const WORK: Duration = Duration::from_millis(40);
/// Requests in a second that it can do at most, whatever the machine is busy with beside it.
const CAPACITY: u32 = 200;

/// Of these at most the best one is judged.
const TURNS: u32 = 5;

/// Requests in flight that the sidecar allows.
const LIMIT: &str = "16";

/// An application that can do so much and no more.
struct Busy {
    places: Semaphore,
}

impl Site for Busy {
    async fn answer(&self, _: &Head, stream: &mut Stream) -> std::io::Result<()> {
        let _place = self.places.acquire().await.expect("open");
        sleep(WORK).await;
        say(stream, 200, "").await
    }
}

/// What the clients have seen, and the connections that they may use again.
#[derive(Default)]
struct Clients {
    idle: Mutex<Vec<Stream>>,
    good: AtomicU64,
    refused: AtomicU64,
    other: AtomicU64,
}

impl Clients {
    async fn ask(&self, proxy: SocketAddr) -> std::io::Result<()> {
        let kept = self.idle.lock().await.pop();
        let mut stream = match kept {
            Some(stream) => stream,
            None => connect(proxy).await?,
        };
        stream.write_all(b"GET /work HTTP/1.1\r\nHost: h\r\n\r\n").await?;
        let head = timeout(PATIENCE, Head::read(&mut stream)).await.expect("an answer in time")?;
        let head = head.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let count = match (head.status(), head.field("retry-after")) {
            (200, _) => &self.good,
            (503, Some("1")) => &self.refused,
            _ => &self.other,
        };
        count.fetch_add(1, Ordering::Relaxed);
        let length: usize = head.field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        stream.read_exact(&mut vec![0; length]).await?;
        if head.field("connection") != Some("close") {
            self.idle.lock().await.push(stream);
        }
        Ok(())
    }
}

/// Answers in a second when as many clients as may ask again at once.
async fn peak(proxy: SocketAddr, seconds: u64) -> f64 {
    let clients = Arc::new(Clients::default());
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut lanes = JoinSet::new();
    for _ in 0..PLACES * 2 {
        let clients = Arc::clone(&clients);
        lanes.spawn(async move {
            while Instant::now() < until {
                clients.ask(proxy).await.expect("an answer");
            }
        });
    }
    lanes.join_all().await;
    assert_eq!(clients.refused.load(Ordering::Relaxed), 0, "nothing is refused below the limit");
    clients.good.load(Ordering::Relaxed) as f64 / seconds as f64
}

/// Asks the admin port all the time; gives the time within which half of the answers come.
async fn probe(admin: SocketAddr, ends: Arc<AtomicBool>) -> Duration {
    let mut waits = Vec::new();
    while !ends.load(Ordering::Relaxed) {
        let started = Instant::now();
        assert_eq!(get(admin, "/livez").await.expect("the admin port answers").0, 200);
        waits.push(started.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
    waits.sort();
    println!("the admin port answers within {:?}, half of the time within {:?}", waits.last(), waits[waits.len() / 2]);
    waits[waits.len() / 2]
}

/// What the sidecar does at three times too much.
struct Found {
    peak: f64,
    goodput: f64,
    /// The share of requests that were too many.
    refused: f64,
    admin: Duration,
}

/// An open loop: who asks does not wait for the answers of others. Each request is answered and counted.
async fn press(sidecar: &Sidecar, peak: f64, long: Duration) -> Found {
    let before = page::settled(sidecar, 1).await;
    let ends = Arc::new(AtomicBool::new(false));
    let mut probing = JoinSet::new();
    probing.spawn(probe(sidecar.admin, Arc::clone(&ends)));
    let clients = Arc::new(Clients::default());
    let mut asking = JoinSet::new();
    let mut ticks = interval(Duration::from_secs(1) / (3 * CAPACITY));
    let started = Instant::now();
    while started.elapsed() < long {
        ticks.tick().await;
        let (clients, proxy) = (Arc::clone(&clients), sidecar.proxy);
        asking.spawn(async move { clients.ask(proxy).await.expect("an answer") });
    }
    let goodput = clients.good.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64();
    let sent = asking.len() as u64;
    asking.join_all().await;
    ends.store(true, Ordering::Relaxed);
    let admin = probing.join_all().await[0];
    let [good, refused, other] = [&clients.good, &clients.refused, &clients.other].map(|n| n.load(Ordering::Relaxed));
    println!("{sent} asked, {good} answered, {refused} refused; {goodput:.0}/s of {peak:.0}/s; admin {admin:?}");
    assert_eq!((good + refused, other), (sent, 0), "each is answered with 200, or 503 and Retry-After");
    let total = page::total(&before) + sent;
    let page = page::settled(sidecar, total).await;
    let overload: End = (Kind::Ordinary, 503, "overload".to_owned());
    let counted = |page| page::tally(page).get(&overload).copied().unwrap_or(0);
    assert_eq!((counted(&page) - counted(&before), page::total(&page)), (refused, total));
    Found { peak, goodput, refused: refused as f64 / sent as f64, admin }
}

/// Row 19: at three times what the application can do, at least 80 % of that is done; the rest is 503 with Retry-After.
///
/// What the machine does beside it can only worsen the figures, so the best of five turns is what the sidecar can do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_times_too_much_still_gets_the_work_done() {
    let _machine = alone().await;
    let (short, long) = (scaled(2, 10), scaled(4, 40));
    let application = Origin::start(Arc::new(Busy { places: Semaphore::new(PLACES) })).await;
    let limit = [("SIDECAR_PROXY__LIMITS__IN_FLIGHT", LIMIT)];
    let sidecar = Sidecar::start(application.address, &[], &limit).await;
    for turn in 1..=TURNS {
        let peak = peak(sidecar.proxy, short).await;
        let Found { peak, goodput, refused, admin } = press(&sidecar, peak, Duration::from_secs(long)).await;
        let is_overload = refused > 0.6; // two of three, unless the clients themselves had no turn
        if is_overload && goodput >= 0.8 * peak && admin < Duration::from_millis(100) {
            return;
        }
        assert!(
            turn < TURNS,
            "{goodput:.0}/s of {peak:.0}/s, {refused:.2} of all refused, the admin port took {admin:?}"
        );
    }
}
