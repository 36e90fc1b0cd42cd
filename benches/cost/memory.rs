//! Resident memory: idle, at full speed with few and with many connections, and a minute after that.

use std::thread;
use std::time::Duration;

use crate::figure::{Figure, ratio};
use crate::generator::{self, Load};
use crate::origin;
use crate::process::Running;
use crate::proxy::Proxy;
use crate::request::{Body, Protocol};

const FEW: usize = 32;
const MANY: usize = 1_000;
const TURN: Duration = Duration::from_secs(5);

/// What is measured of each, in MiB, and what it should be with everything on.
const ROWS: [(&str, f64); 4] = [
    ("idle RSS", 8.0),
    ("peak RSS at 32 connections and full speed", 20.0),
    ("peak RSS at 1,000 connections and full speed", 32.0),
    ("RSS a minute after that", f64::INFINITY),
];

/// Memory of each, one after the other under load, and then all left alone for a minute.
pub(crate) fn memory(proxies: &[Proxy]) -> Vec<Figure> {
    let origin = origin::start(generator::CORE);
    let running: Vec<(Proxy, Running)> =
        proxies.iter().map(|&proxy| (proxy, proxy.start(origin.address, &[]))).collect();
    thread::park_timeout(Duration::from_secs(3));
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
        }
    }
    figures
}

/// The highest so far after few and after many connections.
fn peaks(running: &Running) -> [f64; 2] {
    [FEW, MANY].map(|connections| {
        let load = Load { protocol: Protocol::Http1, body: Body::Small, connections };
        load.run(running, TURN);
        mebibytes(running, "VmHWM")
    })
}

fn mebibytes(running: &Running, key: &str) -> f64 {
    ratio(running.status_kib(key), 1024)
}
