//! The measurements themselves, each a few figures with their limits.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::application;
use crate::load;
use crate::process::{Proxy, traced};

/// Keep-alive connections while instructions are counted.
const CONNECTIONS: usize = 8;
/// The shorter and the longer run, in requests; the difference is free of start and end.
const RUNS: [usize; 2] = [400, 2400];
/// Both runs last that long at least, so that what runs by the clock is the same in both and cancels out.
const RUN: Duration = Duration::from_secs(20);

/// A guard against regressions. The target is 20,000 in the profile `dist`; `release`, with which `make test` counts, needs
/// some 700 more, and one run differs from the next by some 500.
const MOST_INSTRUCTIONS: f64 = 21_000.0;
/// The same without export, where the target is 14,000.
const MOST_QUIET_INSTRUCTIONS: f64 = 15_000.0;
/// Two to receive, two to send, and a margin below one more.
const MOST_MOVING_CALLS: f64 = 4.5;
/// Connections of the larger measurement of memory.
const MANY_CONNECTIONS: usize = 1_000;

/// One measured value.
pub(crate) struct Figure {
    what: String,
    value: f64,
    unit: &'static str,
    limit: Option<f64>,
}

impl Figure {
    fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { what: what.into(), value, unit, limit: None }
    }

    fn at_most(self, limit: f64) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// Whether it is within its limit, if it has one.
    pub(crate) fn verdict(&self) -> Option<bool> {
        self.limit.map(|limit| self.value <= limit)
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, form: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = if self.value < 100.0 { 2 } else { 0 };
        write!(form, "| {} | {:.digits$} {} | ", self.what, self.value, self.unit)?;
        match self.limit {
            Some(limit) if self.value <= limit => write!(form, "{limit} |"),
            Some(limit) => write!(form, "{limit} **exceeded** |"),
            None => write!(form, "– |"),
        }
    }
}

/// User instructions per request, by callgrind.
pub(crate) fn instructions(proxies: &[Proxy]) -> Vec<Figure> {
    let mut figures = Vec::new();
    for &proxy in proxies {
        // side by side: most of a run is waiting
        let [few, many] = thread::scope(|scope| {
            let runs = RUNS.map(|requests| scope.spawn(move || collected(proxy, requests)));
            runs.map(|run| run.join().expect("a run does not fail"))
        });
        let per_thread: Vec<f64> = many
            .iter()
            .map(|(thread, count)| difference(few.get(thread).copied().unwrap_or_default(), *count))
            .collect();
        let (all, busiest) = (per_thread.iter().sum(), per_thread.iter().copied().fold(0.0, f64::max));
        let figure = Figure::new(format!("user instructions per request, {proxy:?}"), all, "");
        match proxy {
            Proxy::Sidecar => {
                figures.push(figure.at_most(MOST_INSTRUCTIONS));
                figures.push(Figure::new("of these on the busiest thread, which proxies", busiest, ""));
            }
            Proxy::Quiet => figures.push(figure.at_most(MOST_QUIET_INSTRUCTIONS)),
            Proxy::Nginx | Proxy::Haproxy => figures.push(figure),
        }
    }
    figures
}

#[expect(clippy::cast_precision_loss, reason = "a count of instructions is far below 2^52")]
fn difference(few: u64, many: u64) -> f64 {
    many.saturating_sub(few) as f64 / (RUNS[1] - RUNS[0]) as f64
}

/// Instructions of one run, by thread.
fn collected(proxy: Proxy, requests: usize) -> BTreeMap<String, u64> {
    let arguments = ["valgrind", "--tool=callgrind", "--separate-threads=yes", "--callgrind-out-file=profile"];
    let mut running = proxy.start(application::start(), &arguments.map(str::to_owned));
    let until = Instant::now() + RUN;
    load::ask(running.address, CONNECTIONS, requests / CONNECTIONS);
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        thread::park_timeout(left);
    }
    assert_eq!(proxy == Proxy::Sidecar, running.trace_bytes() > 0, "spans come from the sidecar with everything on");
    running.stop();
    keep(&running.folder, proxy, requests);
    totals(&running.folder)
}

/// The total of each thread: callgrind writes a file for each, numbered in the order in which they began.
fn totals(folder: &Path) -> BTreeMap<String, u64> {
    let total = |text: String| {
        let line = text.lines().rev().find_map(|line| line.strip_prefix("totals: ").map(str::to_owned));
        line.and_then(|count| count.split(' ').next().and_then(|count| count.parse().ok())).unwrap_or(0)
    };
    let files = fs::read_dir(folder).expect("the folder of the run").flatten();
    let named = files.map(|file| (file.file_name().to_string_lossy().into_owned(), file.path()));
    let profiles = named.filter(|(name, _)| name.starts_with("profile"));
    let totals: BTreeMap<_, _> =
        profiles.filter_map(|(name, path)| Some((name, total(fs::read_to_string(path).ok()?)))).collect();
    assert!(totals.values().any(|&total| total > 0), "callgrind wrote no profile");
    totals
}

/// Profiles of the last runs stay, for `callgrind_annotate`.
fn keep(folder: &Path, proxy: Proxy, requests: usize) {
    let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("profile-{proxy:?}-{requests}"));
    let _there_may_be_none = fs::remove_dir_all(&to);
    fs::create_dir_all(&to).expect("a writable target folder");
    for file in fs::read_dir(folder).expect("the folder of the run").flatten() {
        if file.file_name().to_string_lossy().starts_with("profile") {
            fs::copy(file.path(), to.join(file.file_name())).expect("a writable target folder");
        }
    }
}

/// System calls per request, by strace, over 3000 requests after 200.
///
/// The target is 4.4. How often it waits for events depends on how many connections are ready at once, so the limit is for
/// the rest: two to receive, two to send, and what the clock asks for, of which a slow machine sees more.
pub(crate) fn system_calls(proxies: &[Proxy]) -> Vec<Figure> {
    let mut figures = Vec::new();
    for &proxy in proxies {
        let running = proxy.start(application::start(), &[]);
        load::ask(running.address, CONNECTIONS, 200 / CONNECTIONS);
        let counts = traced(running.id(), || load::ask(running.address, CONNECTIONS, 3000 / CONNECTIONS));
        let calls = |wanted: fn(&str) -> bool| {
            ratio(counts.iter().filter(|(name, _)| wanted(name)).map(|(_, calls)| calls).sum(), 3000)
        };
        let all = calls(|name| name == "total");
        let moving = all - calls(|name| name.contains("wait") || name.contains("poll") || name == "futex");
        figures.push(Figure::new(format!("system calls per request, {proxy:?}"), all, ""));
        let moving = Figure::new(format!("… without waiting for events, {proxy:?}"), moving, "");
        figures.push(if proxy.is_ours() { moving.at_most(MOST_MOVING_CALLS) } else { moving });
    }
    figures
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// Resident memory: idle, at full speed with few and with many connections, and a minute after that.
pub(crate) fn memory(proxies: &[Proxy]) -> Vec<Figure> {
    let mut figures = Vec::new();
    for &proxy in proxies.iter().filter(|proxy| **proxy != Proxy::Quiet) {
        let running = proxy.start(application::start(), &[]);
        thread::park_timeout(Duration::from_secs(3));
        let mebibytes = |key| ratio(running.status_kib(key), 1024);
        let idle = mebibytes("VmRSS");
        load::press(running.address, 32, Duration::from_secs(10));
        let few = mebibytes("VmHWM");
        load::press(running.address, MANY_CONNECTIONS, Duration::from_secs(10));
        let many = mebibytes("VmHWM");
        thread::park_timeout(Duration::from_secs(60));
        let rows = [
            ("idle RSS", idle, "MiB", 10.0),
            ("peak RSS at 32 connections and full speed", few, "MiB", 20.0),
            ("peak RSS at 1,000 connections and full speed", many, "MiB", 32.0),
            ("RSS a minute later, as a multiple of idle", mebibytes("VmRSS") / idle, "", 1.5),
        ];
        figures.extend(rows.map(|(what, value, unit, limit)| {
            let figure = Figure::new(format!("{what}, {proxy:?}"), value, unit);
            if proxy == Proxy::Sidecar { figure.at_most(limit) } else { figure }
        }));
    }
    figures
}

/// Time from exec to the first byte proxied, median of 11.
pub(crate) fn start(_: &[Proxy]) -> Vec<Figure> {
    let application = application::start();
    let mut times: Vec<Duration> = (0..11)
        .map(|_| {
            let begun = Instant::now();
            let running = Proxy::Sidecar.spawn(application, &[]);
            load::first_byte(running.address, Duration::from_secs(10));
            begun.elapsed()
        })
        .collect();
    times.sort();
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    vec![
        Figure::new("from exec to the first byte proxied, median of 11", milliseconds(times[5]), "ms").at_most(100.0),
        Figure::new("the slowest of them", milliseconds(times[10]), "ms"),
    ]
}

/// CPU per request at 32 connections, in turns of two seconds, and the ratio inside each turn.
pub(crate) fn cpu(proxies: &[Proxy]) -> Vec<Figure> {
    let application = application::start();
    let running: Vec<_> = proxies.iter().map(|proxy| (proxy, proxy.start(application, &[]))).collect();
    let mut costs: Vec<Vec<f64>> = vec![Vec::new(); running.len()];
    for _ in 0..7 {
        for (at, (_, proxy)) in running.iter().enumerate() {
            let before = proxy.ticks();
            let answers = load::press(proxy.address, 32, Duration::from_secs(2));
            let microseconds = (proxy.ticks() - before) * 10_000;
            costs[at].push(ratio(microseconds, answers as u64));
        }
    }
    let mut figures: Vec<Figure> = running
        .iter()
        .zip(&costs)
        .map(|((proxy, _), costs)| Figure::new(format!("CPU per request, {proxy:?}, median"), median(costs), "µs"))
        .collect();
    for (at, (proxy, _)) in running.iter().enumerate().skip(1) {
        let ratios: Vec<f64> = costs[0].iter().zip(&costs[at]).map(|(ours, theirs)| ours / theirs).collect();
        figures.push(Figure::new(format!("CPU, Sidecar / {proxy:?}, median"), median(&ratios), ""));
    }
    figures
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
