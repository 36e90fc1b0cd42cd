//! The end of the process as clients of HTTP/2 see it: two GOAWAYs, and no request that is neither served nor given back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::h2_fate::{Fate, GET};
use crate::h2_world::{GOAWAY, PING, Raw};
use crate::origin::{Head, Origin, Site, Stream, say};
use crate::rig::{PATIENCE, Sidecar};
use crate::scale::among_others;

/// The highest stream that there can be, in the first GOAWAY: all that is on its way is still taken.
const ALL: u32 = (1 << 31) - 1;

/// Answers at once, but `/held` only when it is allowed to.
struct Host {
    requests: AtomicUsize,
    held: Semaphore,
    allowed: Semaphore,
}

impl Host {
    fn new() -> Arc<Self> {
        Arc::new(Self { requests: AtomicUsize::new(0), held: Semaphore::new(0), allowed: Semaphore::new(0) })
    }
}

impl Site for Host {
    async fn answer(&self, head: &Head, stream: &mut Stream) -> std::io::Result<()> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if head.path() == "/held" {
            self.held.add_permits(1);
            self.allowed.acquire().await.expect("open").forget();
        }
        say(stream, 200, "{}").await
    }
}

/// A GOAWAY without an error: the last stream that it names.
async fn last_stream(raw: &mut Raw) -> u32 {
    let payload = loop {
        let frame = raw.next_of(0).await.expect("GOAWAY comes before the end");
        if frame.kind == GOAWAY {
            break frame.payload;
        }
    };
    let [last, code] = [&payload[..4], &payload[4..8]].map(|word| word.try_into().expect("four bytes"));
    assert_eq!(u32::from_be_bytes(code), 0, "no error");
    u32::from_be_bytes(last)
}

/// Row 6: the first GOAWAY ends nothing, so what is on its way is served; the second names the last stream that was, and what
/// comes behind it reaches nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_http_2_is_told_twice_and_what_it_sent_before_the_second_word_is_served() {
    let _machine = among_others().await;
    let host = Host::new();
    let application = Origin::start(Arc::clone(&host)).await;
    let for_ever = [("SIDECAR_PROXY__DRAIN_TIMEOUT", "10m")];
    let mut sidecar = Sidecar::start(application.address, &[], &for_ever).await;
    let mut raw = Raw::greet(sidecar.proxy).await;
    // under way during all of it, so that no deadline of an idle connection is in play
    raw.asks(1, &[GET[0], GET[1], (":path", "/held"), GET[3]]).await;
    timeout(PATIENCE, host.held.acquire()).await.expect("it arrives").expect("open").forget();
    sidecar.signal("TERM").await;
    assert_eq!(last_stream(&mut raw).await, ALL, "the first word");
    let ping = raw.next_of(0).await.expect("a PING behind it");
    assert_eq!((ping.kind, ping.flags), (PING, 0));
    raw.asks(3, &GET).await;
    assert_eq!(raw.fate(3).await, Fate::answer(200, ""), "it was on its way");
    raw.frame((PING, 1), 0, &ping.payload).await;
    assert_eq!(last_stream(&mut raw).await, 3, "the second word");
    raw.asks(5, &GET).await;
    host.allowed.add_permits(1);
    assert_eq!(raw.next_of(1).await.map(|frame| frame.kind), Some(1), "its answer");
    let _the_rest_of_it = raw.rest().await;
    assert_eq!(sidecar.ended().await, Some(0));
    assert_eq!(host.requests.load(Ordering::Relaxed), 2, "what came behind the second word is its client's to repeat");
}

/// Row 6: a client that never says that it has seen the first word is given the second one before the end, and so learns
/// which of its requests nobody has looked at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_http_2_that_does_not_listen_is_told_twice_too() {
    let _machine = among_others().await;
    let application = Origin::start(Host::new()).await;
    let for_ever = [("SIDECAR_PROXY__DRAIN_TIMEOUT", "10m")];
    let mut sidecar = Sidecar::start(application.address, &[], &for_ever).await;
    let mut mute = Raw::greet(sidecar.proxy).await;
    mute.asks(1, &GET).await;
    assert_eq!(mute.fate(1).await, Fate::answer(200, ""));
    sidecar.signal("TERM").await;
    assert_eq!(last_stream(&mut mute).await, ALL, "the first word");
    assert_eq!(last_stream(&mut mute).await, 1, "the second word");
    mute.rest().await;
    assert_eq!(sidecar.ended().await, Some(0));
}
