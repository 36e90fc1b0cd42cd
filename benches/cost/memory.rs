//! Resident memory: idle, at full speed with few and with many connections, and a minute after that.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::figure::{Figure, ratio};
use crate::generator::{self, Load};
use crate::origin;
use crate::process::Running;
use crate::proxy::{self, Proxy};
use crate::request::{Body, Protocol};

const FEW: usize = 32;
const MANY: usize = 1_000;
const TURN: Duration = Duration::from_secs(5);

const SETTLED: Duration = Duration::from_secs(3);
/// The first two rows, also of the short form.
const IDLE: &str = "idle RSS";
const BUSY: &str = "peak RSS at 32 connections and full speed";
/// What they should be in MiB with everything on, and what they may be: the promise for an idle one is 10, the target lower.
const IDLE_TARGET: f64 = 8.0;
const MOST_IDLE: f64 = 10.0;
const MOST_BUSY: f64 = 20.0;
const STALLED: &str = "peak RSS with 1,000 clients that ask for 4 MiB each and read nothing, all of the above before";
/// What the worst case may take: the chart's limit is 64, and a kill stops traffic.
const MOST_STALLED: f64 = 48.0;
/// Bodies of 64 KiB that a client asks for.
const ASKED: usize = 64;
/// The same number of connections over HTTP/2, where each takes more of the library's memory, and a body waits in it by itself.
const MULTIPLEXED: [(Body, &str); 2] = [
    (Body::Small, "peak RSS at 1,000 connections of HTTP/2 and full speed, all of the above before"),
    (Body::Large, "… with bodies of 64 KiB"),
];
/// How much code is resident depends on how it is built and laid out, and is right in the profile `dist` alone; what the
/// process makes for itself is the same in all.
const MOST_OWN: f64 = 5.0;

/// What is measured of each, in MiB, and what it should be with everything on.
const ROWS: [(&str, f64); 4] = [
    (IDLE, IDLE_TARGET),
    (BUSY, MOST_BUSY),
    ("peak RSS at 1,000 connections and full speed", 32.0),
    ("RSS a minute after that", f64::INFINITY),
];

/// The first two rows of the sidecar alone, with their limits: seconds instead of a minute and a half.
pub(crate) fn footprint(_: &[Proxy]) -> Vec<Figure> {
    let origin = origin::start(generator::CORE);
    let running = Proxy::Sidecar.start(origin.address, &[]);
    thread::park_timeout(SETTLED);
    let (idle, own) = (mebibytes(&running, "VmRSS"), mebibytes(&running, "RssAnon"));
    let busy = peak(&running, plain(FEW));
    let idle = Figure::new(IDLE, idle, "MiB");
    vec![
        if proxy::is_as_shipped() { idle.target(IDLE_TARGET).limit(MOST_IDLE) } else { idle },
        Figure::new("… without code and files", own, "MiB").limit(MOST_OWN),
        Figure::new(BUSY, busy, "MiB").target(MOST_BUSY).limit(MOST_BUSY),
    ]
}

/// Memory of each, one after the other under load, and then all left alone for a minute.
pub(crate) fn memory(proxies: &[Proxy]) -> Vec<Figure> {
    let origin = origin::start(generator::CORE);
    let running: Vec<(Proxy, Running)> =
        proxies.iter().map(|&proxy| (proxy, proxy.start(origin.address, &[]))).collect();
    thread::park_timeout(SETTLED);
    let idle: Vec<f64> = running.iter().map(|(_, running)| mebibytes(running, "VmRSS")).collect();
    let peaks: Vec<[f64; 2]> = running.iter().map(|(_, running)| peaks(running)).collect();
    thread::park_timeout(Duration::from_secs(60));
    let mut figures = Vec::new();
    for (((proxy, running), idle), [few, many]) in running.iter().zip(idle).zip(peaks) {
        let later = mebibytes(running, "VmRSS");
        for ((what, target), value) in ROWS.into_iter().zip([idle, few, many, later]) {
            let figure = Figure::new(format!("{what}, {}", proxy.name()), value, "MiB");
            figures.push(if *proxy == Proxy::Sidecar && target.is_finite() { figure.target(target) } else { figure });
        }
        if *proxy == Proxy::Sidecar {
            figures.push(Figure::new("… as a multiple of idle", later / idle, "").target(1.5));
            figures.push(Figure::new(STALLED, peak_of_the_stalled(running), "MiB").target(MOST_STALLED));
        }
        for (body, what) in MULTIPLEXED {
            let load = Load { protocol: Protocol::H2c, body, connections: MANY };
            let figure = Figure::new(format!("{what}, {}", proxy.name()), peak(running, load), "MiB");
            figures.push(if *proxy == Proxy::Sidecar { figure.target(MOST_STALLED) } else { figure });
        }
    }
    figures
}

/// The highest so far after few and after many connections.
fn peaks(running: &Running) -> [f64; 2] {
    [FEW, MANY].map(|connections| peak(running, plain(connections)))
}

/// The highest so far while many clients ask for far more than fits into the kernel's buffers, and read nothing of it.
fn peak_of_the_stalled(running: &Running) -> f64 {
    let request = format!("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", Body::Large.path());
    let ask = |_| {
        let mut client = TcpStream::connect(running.address).expect("the proxy takes connections");
        client.write_all(request.repeat(ASKED).as_bytes()).expect("the requests fit into the kernel's buffers");
        client
    };
    let clients: Vec<TcpStream> = (0..MANY).map(ask).collect();
    thread::park_timeout(SETTLED);
    drop(clients);
    mebibytes(running, "VmHWM")
}

fn plain(connections: usize) -> Load {
    Load { protocol: Protocol::Http1, body: Body::Small, connections }
}

/// The highest so far after a turn of this load.
fn peak(running: &Running, load: Load) -> f64 {
    load.run(running, TURN);
    mebibytes(running, "VmHWM")
}

fn mebibytes(running: &Running, key: &str) -> f64 {
    ratio(running.status_kib(key), 1024)
}
