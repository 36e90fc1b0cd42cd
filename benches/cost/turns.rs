//! All proxies side by side, in turns of a second or two and in random order: what disturbs the machine meets all of them.
//!
//! A ratio is taken inside a round, where both had the same machine, and then the median over the rounds.

use std::net::SocketAddr;
use std::time::Duration;

use crate::figure::{Figure, Spread, number, ratio};
use crate::generator::{self, Load};
use crate::load::Pace;
use crate::origin;
use crate::process::Running;
use crate::proxy::Proxy;
use crate::request::{Body, Protocol};
use crate::table::Table;

/// Where proxies run; everything else has the other core.
const PROXY_CORE: [&str; 3] = ["taskset", "-c", "0"];
/// The load that targets speak of, and how often it is measured.
const MAIN: Load = Load { protocol: Protocol::Http1, body: Body::Small, connections: 32 };
const MAIN_ROUNDS: usize = 9;
const OTHER_ROUNDS: usize = 3;
const TURN: Duration = Duration::from_secs(1);
/// With so many connections a second would go by with connecting.
const CROWD: usize = 1_000;
const CROWDED_TURN: Duration = Duration::from_secs(2);
/// Open loops ask so often.
const RATE: u32 = 3_000;
const PACED_TURN: Duration = Duration::from_millis(1_600);
const MAIN_PACED_ROUNDS: usize = 9;

/// What a part of the program has measured.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) figures: Vec<Figure>,
    pub(crate) tables: Vec<Table>,
    /// Of the main load, by proxy: what the plot shows.
    pub(crate) bars: Vec<(&'static str, Spread)>,
}

impl From<Vec<Figure>> for Results {
    fn from(figures: Vec<Figure>) -> Self {
        Self { figures, ..Self::default() }
    }
}

/// One turn at full speed.
#[derive(Debug, Clone, Copy)]
struct Closed {
    rate: f64,
    /// Microseconds of the proxy's own CPU for a request.
    cpu: f64,
}

/// One turn at a fixed rate, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Open {
    median: f64,
    p99: f64,
    p999: f64,
    cpu: f64,
}

/// Rounds of one load, each with a turn of every contestant, in their order.
type Rounds<T> = Vec<Vec<T>>;

fn loads() -> Vec<Load> {
    let mut loads = vec![MAIN];
    for protocol in [Protocol::Http1, Protocol::H2c] {
        for body in Body::ALL {
            let each = [8, 32, CROWD].map(|connections| Load { protocol, body, connections });
            loads.extend(each.into_iter().filter(|load| *load != MAIN));
        }
    }
    loads
}

/// Each load at full speed through each proxy: how many answers, and how much CPU for one.
pub(crate) fn closed(proxies: &[Proxy]) -> Results {
    let origin = origin::start(generator::CORE);
    let running: Vec<Running> = proxies.iter().map(|proxy| proxy.start(origin.address, &PROXY_CORE)).collect();
    let names: Vec<&str> = proxies.iter().map(|proxy| proxy.name()).collect();
    let columns = || std::iter::once("load").chain(names.iter().copied());
    let mut cpu = Table::new("CPU of the proxy per request, µs", columns());
    let mut rates = Table::new("Answers per second, in thousands", columns());
    let mut ratios = Table::new(
        "CPU per request: the sidecar with everything on, as a multiple of",
        columns().filter(|name| *name != names[0]),
    );
    let mut results = Results::default();
    for load in loads() {
        let rounds = if load == MAIN { MAIN_ROUNDS } else { OTHER_ROUNDS };
        let turns: Rounds<Closed> = in_turns(running.len(), rounds, |place| closed_turn(&running[place], &load));
        let of = |place: usize, value: fn(&Closed) -> f64| Spread::of(turns.iter().map(|round| value(&round[place])));
        let all = 0..running.len();
        cpu.row(load.name(), all.clone().map(|place| number(of(place, |turn| turn.cpu).median)));
        rates.row(load.name(), all.clone().map(|place| number(of(place, |turn| turn.rate / 1000.0).median)));
        let ratio_to = |place: usize| Spread::of(turns.iter().map(|round| round[0].cpu / round[place].cpu));
        ratios.row(load.name(), all.clone().skip(1).map(|place| ratio_to(place).to_string()));
        if load == MAIN {
            results.bars = all.clone().map(|place| (names[place], of(place, |turn| turn.cpu))).collect();
            results.figures = all.skip(1).map(|place| cpu_target(proxies[place], ratio_to(place))).collect();
        }
    }
    results.tables = vec![cpu, ratios, rates];
    results
}

fn cpu_target(other: Proxy, ratio: Spread) -> Figure {
    let what = format!("CPU per request of the sidecar, everything on, as a multiple of {}", other.name());
    let figure = Figure::new(what, ratio.median, "");
    match other {
        Proxy::Quiet => figure.target(1.1),
        Proxy::Nginx => figure.target(1.0),
        Proxy::TracingEnvoy => figure.target(0.2),
        _ => figure,
    }
}

fn closed_turn(proxy: &Running, load: &Load) -> Closed {
    let time = if load.connections < CROWD { TURN } else { CROWDED_TURN };
    let before = proxy.cpu();
    let answers = load.run(proxy, time);
    let used = proxy.cpu() - before;
    Closed { rate: ratio(answers, 1) / time.as_secs_f64(), cpu: used.as_secs_f64() * 1e6 / ratio(answers, 1) }
}

impl Load {
    fn name(&self) -> String {
        name(self.protocol, self.body, self.connections)
    }
}

fn name(protocol: Protocol, body: Body, connections: usize) -> String {
    format!("{}, {}, {} connections", protocol.name(), body.name(), number(ratio(connections as u64, 1)))
}

/// Loads of the open loop; the first is the one that targets speak of.
fn paces() -> [Pace; 5] {
    let pace = |protocol, body, connections| Pace { protocol, body, connections, rate: RATE };
    [
        pace(Protocol::Http1, Body::Small, 32),
        pace(Protocol::Http1, Body::Small, 8),
        pace(Protocol::Http1, Body::Small, CROWD),
        pace(Protocol::Http1, Body::Large, 32),
        pace(Protocol::H2c, Body::Small, 32),
    ]
}

/// Requests at a fixed rate through each proxy and, for comparison, through none: how long each takes.
pub(crate) fn open(proxies: &[Proxy]) -> Results {
    let origin = origin::start(generator::CORE);
    let running: Vec<Running> = proxies.iter().map(|proxy| proxy.start(origin.address, &PROXY_CORE)).collect();
    let mut results = Results::default();
    let names = proxies.iter().map(|proxy| proxy.name());
    let title = format!("Latency at {} requests/s: median / 99 % / 99.9 %, ms", number(f64::from(RATE)));
    let mut latencies = Table::new(&title, ["load", "no proxy"].into_iter().chain(names.clone()));
    let title = format!("CPU of the proxy per request at {} requests/s, µs", number(f64::from(RATE)));
    let mut cpu = Table::new(&title, std::iter::once("load").chain(names.clone()));
    for (number_of, pace) in paces().iter().enumerate() {
        let direct = (pace.protocol == Protocol::Http1).then_some(&origin);
        let contestants: Vec<&Running> = direct.into_iter().chain(&running).collect();
        let rounds = if number_of == 0 { MAIN_PACED_ROUNDS } else { OTHER_ROUNDS };
        let turns: Rounds<Open> = in_turns(contestants.len(), rounds, |place| open_turn(contestants[place], pace));
        let of =
            |place: usize, value: fn(&Open) -> f64| Spread::of(turns.iter().map(|round| value(&round[place]))).median;
        let cell = |place: usize| {
            let each = [of(place, |turn| turn.median), of(place, |turn| turn.p99), of(place, |turn| turn.p999)];
            each.map(number).join(" / ")
        };
        let missing = direct.is_none().then(|| "–".to_owned());
        let row = name(pace.protocol, pace.body, pace.connections);
        latencies.row(row.clone(), missing.into_iter().chain((0..contestants.len()).map(cell)));
        let first = usize::from(direct.is_some());
        cpu.row(row, (first..contestants.len()).map(|place| number(of(place, |turn| turn.cpu))));
        if number_of == 0 {
            results.figures = latency_targets(proxies, &turns);
            results.bars =
                proxies.iter().zip(1..).map(|(proxy, place)| (proxy.name(), p99_spread(&turns, place))).collect();
        }
    }
    results.tables = vec![latencies, cpu];
    results
}

fn p99_spread(turns: &Rounds<Open>, place: usize) -> Spread {
    Spread::of(turns.iter().map(|round| round[place].p99))
}

/// No proxy is the first of a round, the sidecar the second.
fn latency_targets(proxies: &[Proxy], turns: &Rounds<Open>) -> Vec<Figure> {
    let added = Spread::of(turns.iter().map(|round| round[1].median - round[0].median));
    let p99 = p99_spread(turns, 1).median;
    let mut figures = vec![Figure::new("latency that the sidecar adds, median", added.median, "ms").target(0.15)];
    if let Some(place) = proxies.iter().position(|proxy| *proxy == Proxy::Nginx) {
        let theirs = p99_spread(turns, place + 1).median;
        figures
            .push(Figure::new("latency through the sidecar, 99 % (nginx's is the target)", p99, "ms").target(theirs));
    }
    figures
}

fn open_turn(proxy: &Running, pace: &Pace) -> Open {
    let address: SocketAddr = if pace.protocol == Protocol::H2c { proxy.h2c } else { proxy.address };
    let before = proxy.cpu();
    let mut latencies = pace.latencies(address, PACED_TURN);
    let used = proxy.cpu() - before;
    latencies.sort();
    let at = |thousandths: usize| latencies[(latencies.len() - 1) * thousandths / 1000].as_secs_f64() * 1e3;
    let cpu = used.as_secs_f64() * 1e6 / ratio(latencies.len() as u64, 1);
    Open { median: at(500), p99: at(990), p999: at(999), cpu }
}

/// Rounds of turns in random order; the values stand in the order of the contestants.
pub(crate) fn in_turns<T: Copy>(contestants: usize, rounds: usize, turn: impl Fn(usize) -> T) -> Rounds<T> {
    let mut random = fastrand::Rng::with_seed(1);
    let round = |_| {
        let mut order: Vec<usize> = (0..contestants).collect();
        random.shuffle(&mut order);
        let mut values: Vec<(usize, T)> = order.into_iter().map(|place| (place, turn(place))).collect();
        values.sort_by_key(|(place, _)| *place);
        values.into_iter().map(|(_, value)| value).collect()
    };
    (0..rounds).map(round).collect()
}
