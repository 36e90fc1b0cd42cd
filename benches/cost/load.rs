//! The clients: kept connections, each with one request under way.
//!
//! Closed loop: each asks again when it has its answer. Open loop: requests are due at their times, whether or not the
//! answers before have come, and a wait for them counts.

use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::request::{Body, Protocol};

/// Asks `count` times on each of `connections` connections.
pub(crate) fn ask(address: SocketAddr, connections: usize, count: usize) {
    thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(move || {
                let mut client = Client::connect(address, Protocol::Http1, Body::Small);
                (0..count).for_each(|_| client.ask());
            });
        }
    });
}

/// An open loop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) protocol: Protocol,
    pub(crate) body: Body,
    pub(crate) connections: usize,
    /// Requests a second, of all connections together.
    pub(crate) rate: u32,
}

impl Pace {
    /// Asks for this long; how long each request took, from the time at which it was due.
    ///
    /// A request that is due while the connection waits for the answer before has begun to wait then, whenever it is sent
    /// (else a proxy that stalls would be asked less, and look better). One whose connection is free begins when it is
    /// sent: that this program was woken late is not the proxy's fault.
    pub(crate) fn latencies(&self, address: SocketAddr, time: Duration) -> Vec<Duration> {
        let pause = Duration::from_secs(1) * u32::try_from(self.connections).expect("few") / self.rate;
        thread::scope(|scope| {
            // all connect before the first asks
            let clients: Vec<_> =
                (0..self.connections).map(|_| Client::connect(address, self.protocol, self.body)).collect();
            let (start, step) = (Instant::now(), Duration::from_secs(1) / self.rate);
            let running: Vec<_> = (0u32..)
                .zip(clients)
                .map(|(place, client)| scope.spawn(move || paced(client, start + step * place, (pause, start + time))))
                .collect();
            running.into_iter().flat_map(|client| client.join().expect("a client does not fail")).collect()
        })
    }
}

/// One connection of an open loop: due at `first`, and then after each `pause`.
fn paced(mut client: Client, first: Instant, (pause, until): (Duration, Instant)) -> Vec<Duration> {
    let (mut due, mut free_since) = (first, first);
    let mut latencies = Vec::new();
    while due < until {
        if let Some(left) = due.checked_duration_since(Instant::now()) {
            thread::sleep(left);
        }
        let begun = if free_since > due { due } else { Instant::now() };
        client.ask();
        free_since = Instant::now();
        latencies.push(free_since - begun);
        due += pause;
    }
    latencies
}

/// Connects as soon as somebody listens, asks, and returns at the end of the answer.
pub(crate) fn first_answer(address: SocketAddr, patience: Duration) {
    let until = Instant::now() + patience;
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < until, "nobody listens within {patience:?}");
        thread::park_timeout(Duration::from_micros(200));
    }
    Client::connect(address, Protocol::Http1, Body::Small).ask();
}
