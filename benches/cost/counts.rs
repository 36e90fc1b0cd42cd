//! What is counted and not timed: instructions and system calls; and how soon the sidecar serves.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::application;
use crate::figure::{Figure, Spread, ratio};
use crate::health::{self, Silent};
use crate::load;
use crate::process::traced;
use crate::proxy::Proxy;

/// Keep-alive connections while instructions are counted.
const CONNECTIONS: usize = 8;
/// The shorter and the longer run, in requests; the difference is free of start and end.
const RUNS: [usize; 2] = [400, 2400];
/// Both runs last that long at least, so that what runs by the clock is the same in both and cancels out.
const RUN: Duration = Duration::from_secs(20);

/// The same for system calls.
const TRACED_RUNS: [usize; 2] = [400, 6400];
/// Twice the pause between two looks at the system, each of some hundred calls, so that both runs have as many of them.
const TRACED: Duration = Duration::from_secs(10);
/// What a start brings with it is over by then.
const SETTLED: Duration = Duration::from_secs(3);

/// A guard against regressions. The target is 20,000 in the profile `dist`; `release`, with which `make test` counts, needs
/// some 700 more, and one run differs from the next by some 500.
const MOST_INSTRUCTIONS: f64 = 21_000.0;
/// The same without export, where the target is 14,000.
const MOST_QUIET_INSTRUCTIONS: f64 = 15_000.0;
/// Two to receive, two to send, and a margin below one more.
const MOST_MOVING_CALLS: f64 = 4.3;

/// User instructions per request, by callgrind.
pub(crate) fn instructions(proxies: &[Proxy]) -> Vec<Figure> {
    // Envoy under callgrind takes minutes
    let counted = proxies.iter().copied().filter(|proxy| !matches!(proxy, Proxy::Envoy | Proxy::TracingEnvoy));
    let costs: Vec<(Proxy, f64, f64)> = counted.map(instructions_of).collect();
    let of = |wanted| costs.iter().find(|(proxy, ..)| *proxy == wanted).map_or(f64::NAN, |(_, all, _)| *all);
    let (on, off) = (of(Proxy::Sidecar), of(Proxy::Quiet));
    let mut figures: Vec<Figure> = costs
        .iter()
        .map(|(proxy, all, _)| {
            let figure = Figure::new(format!("user instructions per request, {}", proxy.name()), *all, "");
            match proxy {
                Proxy::Sidecar => figure.target(20_000.0).limit(MOST_INSTRUCTIONS),
                Proxy::Quiet => figure.target(14_000.0).limit(MOST_QUIET_INSTRUCTIONS),
                _ => figure,
            }
        })
        .collect();
    figures.push(Figure::new("instructions that telemetry adds", on - off, "").target(8_000.0));
    figures.push(Figure::new("with everything on, instructions of the thread that proxies", costs[0].2, ""));
    figures
}

/// Those of all threads, and of the busiest one.
fn instructions_of(proxy: Proxy) -> (Proxy, f64, f64) {
    // side by side: most of a run is waiting
    let [few, many] = thread::scope(|scope| {
        let runs = RUNS.map(|requests| scope.spawn(move || collected(proxy, requests)));
        runs.map(|run| run.join().expect("a run does not fail"))
    });
    let per_thread: Vec<f64> =
        many.iter().map(|(thread, count)| difference(few.get(thread).copied().unwrap_or_default(), *count)).collect();
    // of the sums: the threads behind the data path take each other's work, so that one does in this run what another did in that
    let all = difference(few.values().sum(), many.values().sum());
    (proxy, all, per_thread.iter().copied().fold(0.0, f64::max))
}

#[expect(clippy::cast_precision_loss, reason = "a count of instructions is far below 2^52")]
fn difference(few: u64, many: u64) -> f64 {
    many.saturating_sub(few) as f64 / (RUNS[1] - RUNS[0]) as f64
}

/// Instructions of one run, by thread.
fn collected(proxy: Proxy, requests: usize) -> BTreeMap<String, u64> {
    let arguments = ["valgrind", "--tool=callgrind", "--separate-threads=yes", "--callgrind-out-file=profile"];
    let mut running = proxy.start(application::start(), &arguments);
    let until = Instant::now() + RUN;
    load::ask(running.address, CONNECTIONS, requests / CONNECTIONS);
    wait_until(until);
    assert_eq!(proxy.traces(), running.trace_bytes() > 0, "{}: spans come from whom has them on", proxy.name());
    running.stop();
    keep(&running.folder, proxy, requests);
    totals(&running.folder)
}

fn wait_until(time: Instant) {
    while let Some(left) = time.checked_duration_since(Instant::now()) {
        thread::park_timeout(left);
    }
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

/// System calls per request, by strace: the difference of two runs of the same length of time, as with instructions.
///
/// The target is 4.4. How often it waits for events depends on how many connections are ready at once, so the limit is for
/// the rest: two to receive, two to send, and a margin below one more.
pub(crate) fn system_calls(proxies: &[Proxy]) -> Vec<Figure> {
    let counts: Vec<(Proxy, f64, f64)> = proxies.iter().map(|&proxy| system_calls_of(proxy)).collect();
    let mut figures = Vec::new();
    for (proxy, all, moving) in &counts {
        let all = Figure::new(format!("system calls per request, {}", proxy.name()), *all, "");
        figures.push(if *proxy == Proxy::Sidecar { all.target(4.4) } else { all });
        let moving = Figure::new(format!("… without waits for events, {}", proxy.name()), *moving, "");
        figures.push(if proxy.is_ours() { moving.limit(MOST_MOVING_CALLS) } else { moving });
    }
    figures
}

/// All of them, and those that do not wait for events.
fn system_calls_of(proxy: Proxy) -> (Proxy, f64, f64) {
    let running = proxy.start(application::start(), &[]);
    let ask_for = |time, requests| {
        let until = Instant::now() + time;
        load::ask(running.address, CONNECTIONS, requests / CONNECTIONS);
        wait_until(until);
    };
    ask_for(SETTLED, 200);
    let [few, many] = TRACED_RUNS.map(|requests| traced(running.id(), || ask_for(TRACED, requests)));
    let of = |counts: &[(String, u64)], wanted: fn(&str) -> bool| -> u64 {
        counts.iter().filter(|(name, _)| wanted(name)).map(|(_, calls)| calls).sum()
    };
    let calls = |wanted: fn(&str) -> bool| {
        let more = of(&many, wanted).saturating_sub(of(&few, wanted));
        ratio(more, (TRACED_RUNS[1] - TRACED_RUNS[0]) as u64)
    };
    let all = calls(|name| name == "total");
    (proxy, all, all - calls(|name| name.contains("wait") || name.contains("poll") || name == "futex"))
}

/// The promises of time have a margin of some fifteen starts, and of some ten answers, so their targets are limits too.
const MOST_START_MILLISECONDS: f64 = 100.0;
const MOST_HEALTH_MILLISECONDS: f64 = 1.0;
/// Whatever the application's Redis and PostgreSQL do.
const MOST_BESIDE_SILENCE_MILLISECONDS: f64 = 5.0;
/// Answers of `/health` that are timed.
const ANSWERS: usize = 500;
/// Between the questions beside silent peers, so that they are asked for five seconds: runs begin, hang, are cut off and begin again meanwhile.
const BETWEEN: Duration = Duration::from_millis(10);

/// Time from exec to the first answer proxied, median of 11; and for an answer of `/health`, median of 500.
pub(crate) fn start(_: &[Proxy]) -> Vec<Figure> {
    let application = application::start();
    let times = Spread::of((0..11).map(|_| {
        let begun = Instant::now();
        let running = Proxy::Sidecar.spawn(application, &[]);
        load::first_answer(running.address, Duration::from_secs(10));
        begun.elapsed().as_secs_f64() * 1000.0
    }));
    let running = Proxy::Sidecar.start(application, &[]);
    let answers = Spread::of(health::milliseconds(&running.admin(), ANSWERS, Duration::ZERO));
    let mut figures = vec![
        Figure::new("from exec to the first answer proxied, median of 11", times.median, "ms")
            .target(MOST_START_MILLISECONDS)
            .limit(MOST_START_MILLISECONDS),
        Figure::new("an answer of /health on a kept connection, median of 500", answers.median, "ms")
            .target(MOST_HEALTH_MILLISECONDS)
            .limit(MOST_HEALTH_MILLISECONDS),
    ];
    figures.extend(beside_silence(application));
    figures
}

/// The same while Redis and PostgreSQL take connections and never answer. The slowest one has no limit: it tells of the machine, too.
fn beside_silence(application: SocketAddr) -> [Figure; 2] {
    let (redis, database) = (Silent::start(), Silent::start());
    let environment = [
        ("REDIS_URL", format!("redis://{}/0", redis.address)),
        ("DATABASE_URL", format!("postgresql://u@{}/x", database.address)),
    ];
    let running = Proxy::Sidecar.spawn_with(application, &[], &environment);
    running.wait();
    [&redis, &database].into_iter().for_each(Silent::wait);
    let answers = health::milliseconds(&running.admin(), ANSWERS, BETWEEN);
    let slowest = answers.iter().copied().fold(0.0, f64::max);
    [
        Figure::new("… beside a Redis and a PostgreSQL that never answer", Spread::of(answers).median, "ms")
            .target(MOST_BESIDE_SILENCE_MILLISECONDS)
            .limit(MOST_BESIDE_SILENCE_MILLISECONDS),
        Figure::new("… the slowest of these 500", slowest, "ms").target(MOST_BESIDE_SILENCE_MILLISECONDS),
    ]
}
