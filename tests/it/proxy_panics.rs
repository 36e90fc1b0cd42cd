//! Panics on the data path: what panics ends, and nothing else, and nothing is lost from the count.
//!
//! The engine offers no way to make it panic, and the panic of a sink is caught where the sink is called. But one
//! thing gets through `catch_unwind`: a payload that panics once more when it is dropped. So a sink with such a
//! payload panics in the midst of the engine, in the task of a connection or in the worker itself.

use std::panic::panic_any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use content_factory_sidecar::model::request::{CutOff, Method, Outcome};
use serde_json::json;
use tokio::time::Instant;

use crate::proxy_room::{Moment, Room, config, echo};
use crate::raw::{PATIENCE, origin};

/// Gets through `catch_unwind`.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "a bug of the engine"); // a panic within a panic would end the process
    }
}

/// A sink that panics where it is told to: at the begin of each DELETE, over the last write of each PATCH, and at
/// the next tick of one worker once `at_tick` is set.
fn explosive(at_tick: &Arc<AtomicBool>) -> impl FnMut(Moment<'_>) + Send + 'static {
    let (at_tick, mut at_last_write) = (Arc::clone(at_tick), false);
    move |moment| match moment {
        Moment::Begin(head) => {
            at_last_write = head.method == Method::Patch;
            if head.method == Method::Delete {
                panic_any(Bomb);
            }
        }
        Moment::LastWrite if at_last_write => panic_any(Bomb),
        Moment::End(_) => at_last_write = false,
        Moment::Tick if at_tick.swap(false, Ordering::Relaxed) => panic_any(Bomb),
        Moment::LastWrite | Moment::Tick => {}
    }
}

/// Waits for what another thread is about to do.
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn a_panic_in_the_task_of_a_connection_harms_no_other() {
    let never = Arc::default();
    let room = Room::with_sink(&config(echo(), json!({})), |ledger| ledger.and(explosive(&never)));
    let (mut idle, mut half) = (room.client(), room.client());
    assert_eq!(idle.get("/1").status(), 200);
    half.send("POST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhe");
    for method in ["DELETE", "PATCH", "DELETE", "PATCH"] {
        let mut hit = room.client();
        hit.send(format!("{method} /3 HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert!(hit.try_message().is_none(), "{method}: the connection ends without an answer");
    }
    half.send("llo");
    assert_eq!(half.message().status(), 200, "who was in the midst of a request");
    assert_eq!(idle.get("/4").status(), 200, "who was idle");
    assert_eq!(room.client().get("/5").status(), 200, "who comes later");
    let ended = room.ledger.ended(8);
    let panicked = ended.iter().filter(|ended| ended.outcome == Outcome::CutOff(CutOff::Panic)).count();
    let answered = ended.iter().filter(|ended| ended.outcome == Outcome::Answered).count();
    assert_eq!((panicked, answered, room.ledger.in_flight()), (4, 4, 0));
    let counters = &room.counters;
    assert_eq!(
        (counters.connection_panics.load(Ordering::Relaxed), counters.sink_panics.load(Ordering::Relaxed)),
        (4, 4)
    );
    assert_eq!(counters.worker_restarts.load(Ordering::Relaxed), 0);
    drop((idle, half));
    eventually("every connection is told to have ended, those that panicked too", || {
        counters.connections.load(Ordering::Relaxed) == counters.connections_closed.load(Ordering::Relaxed)
    });
}

#[test]
fn a_worker_that_panics_begins_again_and_each_request_is_counted_once() {
    let (tell, told) = mpsc::channel();
    let application = origin(move |_, mut client| {
        while let Some(request) = client.try_message() {
            if request.head.starts_with("GET /held ") {
                tell.send(()).expect("the test waits");
                client.rest(); // answers nothing
                return;
            }
            client.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let at_tick = Arc::new(AtomicBool::new(false));
    let room = Room::with_sink(&config(application, json!({})), |ledger| ledger.and(explosive(&at_tick)));
    for round in 1..=3_u64 {
        let (mut idle, mut held) = (room.client(), room.client());
        assert_eq!(idle.get("/1").status(), 200, "round {round}");
        held.send("GET /held HTTP/1.1\r\nHost: h\r\n\r\n");
        told.recv_timeout(PATIENCE).expect("the application has it");
        assert_eq!(room.ledger.in_flight(), 1);
        at_tick.store(true, Ordering::Relaxed);
        assert!(held.try_message().is_none() && idle.is_closed(), "its connections end with it");
        let mut later = room.client();
        assert_eq!(later.get("/2").status(), 200, "the same port accepts again");
        let counted = usize::try_from(round * 3).expect("few");
        let ended = room.ledger.ended(counted);
        let cut_off: Vec<_> = ended.iter().filter(|ended| ended.target == "/held").map(|ended| ended.outcome).collect();
        assert_eq!(cut_off, vec![Outcome::CutOff(CutOff::Panic); counted / 3]);
        assert_eq!(room.ledger.in_flight(), 0);
        let counters = &room.counters;
        // once each: not once more for every connection that the worker took with it
        assert_eq!(counters.worker_panics.load(Ordering::Relaxed), round);
        assert_eq!(counters.connection_panics.load(Ordering::Relaxed), 0);
        assert_eq!(counters.worker_restarts.load(Ordering::Relaxed), round);
        let open =
            || counters.connections.load(Ordering::Relaxed) - counters.connections_closed.load(Ordering::Relaxed);
        drop(later);
        eventually("no connection is left open in the count", || open() == 0);
    }
}

#[test]
fn a_worker_that_panics_takes_no_other_worker_with_it_and_still_drains() {
    let at_tick = Arc::new(AtomicBool::new(false));
    let settings = config(echo(), json!({"workers": 2}));
    let room = Room::with_sink(&settings, |ledger| ledger.and(explosive(&at_tick)));
    let mut clients: Vec<_> = (0..32).map(|_| room.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").status(), 200);
    }
    at_tick.store(true, Ordering::Relaxed);
    eventually("one worker begins again", || room.counters.worker_restarts.load(Ordering::Relaxed) == 1);
    let mut left = 0;
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        left += usize::from(client.try_message().is_some());
    }
    // the kernel shares 32 connections among two listeners: that one gets all of them happens once in 2^31 runs
    assert!(left > 0 && left < 32, "{left} of 32 connections are left");
    for _ in 0..32 {
        assert_eq!(room.client().get("/").status(), 200, "both accept");
    }
    room.ledger.ended(32 + left + 32);
    room.stop(Duration::from_secs(8));
}

/// A log that is kept.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

/// Keeps what the worker's thread logs: the sink is the one thing of ours that runs there.
fn listening(log: &Log) -> impl FnMut() + Send + 'static {
    let (log, mut listens) = (log.clone(), false);
    move || {
        if !listens {
            let log = log.clone();
            let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || log.clone()).finish();
            std::mem::forget(tracing::subscriber::set_default(subscriber)); // until the thread ends
            listens = true;
        }
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let line = String::from_utf8_lossy(bytes).into_owned();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn panics_are_logged_without_anything_of_the_request() {
    // while `tracing` knows of one subscriber alone, an event that another test's thread is the first to log is off for all
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let (log, at_tick) = (Log::default(), Arc::new(AtomicBool::new(false)));
    let room = Room::with_sink(&config(echo(), json!({})), |ledger| {
        let (mut listen, mut explode) = (listening(&log), explosive(&at_tick));
        ledger.and(move |moment| {
            listen();
            explode(moment);
        })
    });
    let logged =
        |text: &str| log.0.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|line| line.contains(text));
    let mut hit = room.client();
    hit.send(
        "DELETE /s3cret?token=s3cret HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer s3cret\r\nCookie: s3cret\r\n\r\n",
    );
    assert!(hit.try_message().is_none());
    eventually("the panic of a connection is logged", || logged("ERROR") && logged("a connection's task panicked"));
    at_tick.store(true, Ordering::Relaxed);
    eventually("the panic of a worker is logged", || {
        logged("a proxy worker ended before its time") && logged("it panicked")
    });
    assert!(!logged("s3cret"));
}
