//! Attackers on a thread of their own beside clients that ask in peace.
//!
//! Peace and attack take turns within one run, so that whatever else the machine does falls on both; in peace the attackers
//! hang up.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::memory::Memory;
use crate::origin::{Head, Origin, Site, Stream, connect, exporting, say};
use crate::page;
use crate::rig::PATIENCE;
use crate::scale::scaled;

/// Clients that ask in peace.
const CLIENTS: usize = 16;
/// Connections of the attackers.
const LANES: usize = 4;
/// Peace and attack take turns so often in a stretch of time, and a slice of either is so long.
const SLICES: usize = 2;
const SLICE: Duration = Duration::from_millis(200);
/// So many stretches at least, in the long form 20 s of attack; and so many at most, while somebody else needs the machine. Their
/// median is judged.
const STRETCHES: (usize, usize) = (5, 50);
/// Memory that an attack may take.
const GROWTH_KIB: u64 = 32 << 10;

/// Of this many requests in peace at least one is answered under attack. Attackers, clients, application and sidecar share what
/// cores there are: on two of them the attackers alone take a good part from all others, and only a machine with a core for
/// each shows the half that is the aim, which the long form asks of a build as it is released or shipped.
fn share() -> u64 {
    let is_fast = Path::new(crate::binary())
        .components()
        .any(|part| ["release", "dist"].iter().any(|fast| part.as_os_str() == *fast));
    if is_fast { scaled(8, 2) } else { scaled(8, 5) }
}

/// Answers little, and much where that is asked for.
pub(crate) struct Small;

impl Site for Small {
    async fn answer(&self, head: &Head, stream: &mut Stream) -> std::io::Result<()> {
        if head.path() == "/big" {
            return say(stream, 200, &"x".repeat(256 << 10)).await;
        }
        say(stream, 200, "{}").await
    }
}

/// What one connection sends: at its begin, and then until it is cut off.
#[derive(Clone)]
pub(crate) struct Flood {
    pub(crate) name: &'static str,
    pub(crate) begin: Vec<u8>,
    pub(crate) then: Then,
}

/// What follows the begin of a connection.
#[derive(Clone, Copy)]
pub(crate) enum Then {
    /// This, again and again.
    Again(fn(&mut u32) -> Vec<u8>),
    /// Nothing; it stays open.
    Stay,
    /// Its end.
    Leave,
}

/// The attackers' thread.
struct Attack {
    on: watch::Sender<bool>,
    bytes: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Attack {
    fn begin(proxy: SocketAddr, flood: &Flood) -> Self {
        let (on, told) = watch::channel(false);
        let (bytes, connections) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (flood, sent, made) = (flood.clone(), Arc::clone(&bytes), Arc::clone(&connections));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let mut lanes = JoinSet::new();
                for _ in 0..LANES {
                    lanes.spawn(lane(proxy, flood.clone(), told.clone(), (Arc::clone(&sent), Arc::clone(&made))));
                }
                lanes.join_all().await;
            });
        });
        Self { on, bytes, connections, thread: Some(thread) }
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.on = watch::channel(false).0; // the lanes end when nobody can tell them to go on
        let _its_panic_shows_elsewhere = self.thread.take().map(JoinHandle::join);
    }
}

/// Attacks whenever it is on, and comes again when it is cut off.
async fn lane(
    proxy: SocketAddr,
    flood: Flood,
    mut on: watch::Receiver<bool>,
    (bytes, connections): (Arc<AtomicU64>, Arc<AtomicU64>),
) {
    while on.wait_for(|on| *on).await.is_ok() {
        let mut off = on.clone();
        tokio::select! {
            _ = off.wait_for(|on| !*on) => {}
            () = flood_once(proxy, &flood, &bytes) => { connections.fetch_add(1, Ordering::Relaxed); }
        }
    }
}

async fn flood_once(proxy: SocketAddr, flood: &Flood, bytes: &AtomicU64) {
    let Ok(stream) = TcpStream::connect(proxy).await else { return };
    let (mut reader, mut writer) = stream.into_split();
    let read = async {
        let mut sink = vec![0; 64 << 10];
        while reader.read(&mut sink).await.is_ok_and(|count| count > 0) {}
    };
    let write = async {
        let (mut next, mut piece) = (1, flood.begin.clone());
        while writer.write_all(&piece).await.is_ok() {
            bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
            match flood.then {
                Then::Again(piece_of) => piece = piece_of(&mut next),
                Then::Stay => std::future::pending().await,
                Then::Leave => return,
            }
        }
    };
    tokio::select! { () = read => {} () = write => {} }
}

/// Answers in peace and under attack.
#[derive(Default)]
struct Tally([AtomicU64; 2]);

impl Tally {
    /// What came since the last time.
    fn take(&self) -> [u64; 2] {
        [0, 1].map(|place: usize| self.0[place].swap(0, Ordering::Relaxed))
    }
}

/// One flood at a time, each with all that the machine can give to a test.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Attacks beside clients that ask in peace, and asks that they keep their share in the median of all stretches of time.
pub(crate) async fn withstands(flood: Flood) {
    let _alone = ALONE.lock().await;
    let application = Origin::start(Arc::new(Small)).await;
    let sidecar = exporting(application.address, &application, &[]).await;
    let clients = Clients::start(sidecar.proxy);
    sleep(SLICE).await; // to open its connections
    let memory = Memory::watch(&sidecar);
    let attack = Attack::begin(sidecar.proxy, &flood);
    clients.tally.take();
    let mut stretches = Vec::new();
    let (least, most) = (scaled(STRETCHES.0, STRETCHES.1), STRETCHES.1);
    while stretches.len() < least || (stretches.len() < most && !holds(median(&stretches))) {
        for _ in 0..SLICES {
            sleep(SLICE).await;
            attack.on.send_replace(true);
            clients.attacked.store(true, Ordering::Relaxed);
            sleep(SLICE).await;
            attack.on.send_replace(false);
            clients.attacked.store(false, Ordering::Relaxed);
        }
        stretches.push(clients.tally.take());
    }
    clients.end().await;
    let (bytes, made) = (attack.bytes.load(Ordering::Relaxed), attack.connections.load(Ordering::Relaxed));
    drop(attack);
    let ([in_peace, under_attack], grown, stretches) = (median(&stretches), memory.peak_growth_kib(), stretches.len());
    let share = under_attack * 100 / in_peace.max(1);
    println!(
        "{}: {in_peace} answers in peace, {under_attack} under attack ({share} %); {made} connections of the attackers, \
         {} KiB; {stretches} stretches; {grown} KiB more at the highest",
        flood.name,
        bytes >> 10
    );
    assert!(bytes + made > 100, "no attack");
    assert!(
        holds([in_peace, under_attack]),
        "{under_attack} requests under attack, {in_peace} in peace, in the median of {stretches} stretches"
    );
    assert!(grown < GROWTH_KIB, "{grown} KiB more");
    sidecar.eventually("/metrics", |_, page| page::in_flight(page) == 0.0).await;
}

/// The stretch in the middle, by what was left under attack.
fn median(stretches: &[[u64; 2]]) -> [u64; 2] {
    let mut sorted = stretches.to_vec();
    let share = |[in_peace, under_attack]: [u64; 2]| under_attack * 1_000 / in_peace.max(1);
    sorted.sort_unstable_by_key(|stretch| share(*stretch));
    // the worse one of two in the middle
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

/// Whether enough was answered under attack.
fn holds([in_peace, under_attack]: [u64; 2]) -> bool {
    in_peace > 0 && under_attack * share() >= in_peace
}

/// The clients that ask in peace.
struct Clients {
    asking: JoinSet<()>,
    attacked: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
    tally: Arc<Tally>,
}

impl Clients {
    fn start(proxy: SocketAddr) -> Self {
        let (attacked, over, tally) = (Arc::default(), Arc::default(), Arc::default());
        let mut clients = Self { asking: JoinSet::new(), attacked, over, tally };
        for _ in 0..CLIENTS {
            let (attacked, over) = (Arc::clone(&clients.attacked), Arc::clone(&clients.over));
            clients.asking.spawn(ask_on(proxy, (attacked, over), Arc::clone(&clients.tally)));
        }
        clients
    }

    async fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        self.asking.join_all().await;
    }
}

/// Asks until it is over; counts the answers in peace and under attack.
async fn ask_on(proxy: SocketAddr, (attacked, over): (Arc<AtomicBool>, Arc<AtomicBool>), tally: Arc<Tally>) {
    let mut stream = connect(proxy).await.expect("the proxy accepts");
    while !over.load(Ordering::Relaxed) {
        stream.write_all(b"GET /small HTTP/1.1\r\nHost: h\r\n\r\n").await.expect("the connection holds");
        let head = timeout(PATIENCE, Head::read(&mut stream)).await.expect("an answer in time").expect("an answer");
        assert_eq!(head.expect("an answer").status(), 200);
        stream.read_exact(&mut [0; 2]).await.expect("a body");
        tally.0[usize::from(attacked.load(Ordering::Relaxed))].fetch_add(1, Ordering::Relaxed);
    }
}
