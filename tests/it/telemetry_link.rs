//! A link before a receiver that a test spoils and cuts, and names whose addresses a test chooses.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use content_factory_sidecar::telemetry::resolver::Resolver;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::telemetry_receiver::{Receiver, eventually, free_listener};

/// What a link does with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conduct {
    Pass,
    /// Takes everything and says nothing.
    Swallow,
    /// Takes something, and breaks the connection off by RST.
    Reset,
    /// Answers what no receiver says.
    Babble,
}

/// What a link has seen.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    connections: AtomicU64,
    ended: AtomicU64,
    pings: AtomicU64,
}

/// A link; when dropped, nobody listens there, and its connections are broken off.
pub(crate) struct Link {
    pub(crate) address: SocketAddr,
    conduct: watch::Sender<Conduct>,
    traffic: Arc<Traffic>,
    _tasks: JoinSet<()>,
}

impl Link {
    /// On a free port.
    pub(crate) async fn before(receiver: &Receiver) -> Self {
        Self::on(free_listener().await, receiver)
    }

    pub(crate) fn on(listener: TcpListener, receiver: &Receiver) -> Self {
        let address = listener.local_addr().expect("a listener has an address");
        let (conduct, seen) = watch::channel(Conduct::Pass);
        let (traffic, mut tasks) = (Arc::<Traffic>::default(), JoinSet::new());
        tasks.spawn(serve(listener, receiver.address, seen, Arc::clone(&traffic)));
        Self { address, conduct, traffic, _tasks: tasks }
    }

    /// Breaks off what there is, and does otherwise from now on.
    pub(crate) fn turn(&self, conduct: Conduct) {
        self.conduct.send_replace(conduct);
    }

    /// Breaks off what there is, and returns once that is done; new connections pass.
    pub(crate) async fn cut(&self) {
        self.turn(Conduct::Pass);
        let ended = || self.traffic.ended.load(Ordering::Relaxed) == self.connections();
        eventually("all connections are broken off", Duration::from_secs(10), ended).await;
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> u64 {
        self.traffic.connections.load(Ordering::Relaxed)
    }

    /// PINGs of clients so far, their answers to ours not counted.
    pub(crate) fn pings(&self) -> u64 {
        self.traffic.pings.load(Ordering::Relaxed)
    }
}

async fn serve(listener: TcpListener, receiver: SocketAddr, conduct: watch::Receiver<Conduct>, traffic: Arc<Traffic>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        traffic.connections.fetch_add(1, Ordering::Relaxed);
        let (mut conduct, traffic) = (conduct.clone(), Arc::clone(&traffic));
        connections.spawn(async move {
            client.set_zero_linger().expect("a socket takes it");
            let now = *conduct.borrow_and_update();
            tokio::select! {
                // the peer may go at any time
                _ = carry(client, receiver, now, &traffic) => {}
                _ = conduct.changed() => {}
            }
            traffic.ended.fetch_add(1, Ordering::Relaxed);
        });
    }
}

async fn carry(mut client: TcpStream, receiver: SocketAddr, conduct: Conduct, traffic: &Traffic) -> io::Result<()> {
    match conduct {
        Conduct::Pass => {
            let (from_receiver, to_receiver) = TcpStream::connect(receiver).await?.into_split();
            client.set_nodelay(true)?;
            let (from_client, mut to_client) = client.into_split();
            let mut back = from_receiver;
            tokio::select! {
                forth = forward(from_client, to_receiver, traffic) => forth,
                back = copy(&mut back, &mut to_client) => back.map(drop),
            }
        }
        Conduct::Swallow => copy(&mut client, &mut tokio::io::sink()).await.map(drop),
        Conduct::Reset => client.read(&mut [0; 64]).await.map(drop),
        Conduct::Babble => {
            let mut buffer = [0; 4_096];
            while client.read(&mut buffer).await? > 0 {
                client.write_all(b"\x00\xffwelcome to the hotel\r\n\r\n").await?;
            }
            Ok(())
        }
    }
}

/// Counts PINGs on the way, as far as it is HTTP/2.
async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, traffic: &Traffic) -> io::Result<()> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let (mut buffer, mut seen, mut is_begun) = ([0; 16 << 10], Vec::new(), false);
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..read]).await?;
        seen.extend_from_slice(&buffer[..read]);
        if !is_begun && seen.starts_with(PREFACE) {
            seen.drain(..PREFACE.len());
            is_begun = true;
        }
        // RFC 9113, section 4.1: length of 24 bits, type, flags, stream
        while let Some(&[a, b, c, kind, flags, ..]) = seen.get(..9).filter(|_| is_begun) {
            let length = 9 + u32::from_be_bytes([0, a, b, c]) as usize;
            if seen.len() < length {
                break;
            }
            if kind == 6 && flags & 1 == 0 {
                traffic.pings.fetch_add(1, Ordering::Relaxed);
            }
            seen.drain(..length);
        }
    }
}

/// Listeners on different addresses of loopback that share one port.
pub(crate) async fn listeners_of_one_port<const N: usize>() -> [TcpListener; N] {
    loop {
        let port = free_listener().await.local_addr().expect("an address").port();
        let mut listeners = Vec::new();
        for last in 1..=N as u8 {
            listeners.extend(TcpListener::bind((Ipv4Addr::new(127, 0, 0, last), port)).await.ok());
        }
        if let Ok(listeners) = listeners.try_into() {
            return listeners; // else somebody has the port on one of them
        }
    }
}

/// The addresses of every name.
#[derive(Clone, Default)]
pub(crate) struct Names {
    addresses: Arc<Mutex<Vec<SocketAddr>>>,
    lookups: Arc<AtomicU64>,
}

impl Names {
    pub(crate) fn of(addresses: &[SocketAddr]) -> Self {
        let names = Self::default();
        names.become_those_of(addresses);
        names
    }

    pub(crate) fn become_those_of(&self, addresses: &[SocketAddr]) {
        *self.addresses.lock().expect("no test panics while it holds the addresses") = addresses.to_vec();
    }

    /// How often somebody asked.
    pub(crate) fn lookups(&self) -> u64 {
        self.lookups.load(Ordering::Relaxed)
    }

    pub(crate) fn resolver(&self) -> Resolver {
        let names = self.clone();
        Resolver::new(move |_, _| {
            names.lookups.fetch_add(1, Ordering::Relaxed);
            let addresses = names.addresses.lock().expect("no test panics while it holds the addresses").clone();
            Box::pin(
                async move { if addresses.is_empty() { Err(io::Error::other("no such name")) } else { Ok(addresses) } },
            )
        })
    }
}
