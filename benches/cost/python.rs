//! The application's own cost: FastAPI under uvicorn with uvloop, plain, with OpenTelemetry's SDK in its process, and plain
//! behind the sidecar.

use std::fs;
use std::time::Duration;

use crate::figure::{Figure, Spread, number, ratio};
use crate::generator::Load;
use crate::load::Pace;
use crate::process::{Line, Running, free_port, fresh_folder};
use crate::proxy::{Proxy, python_program};
use crate::receiver::Receiver;
use crate::request::{Body, Protocol};
use crate::table::Table;
use crate::turns::{Results, in_turns};

const APPLICATION: &str = include_str!("application.py");
const LOAD: Load = Load { protocol: Protocol::Http1, body: Body::Small, connections: 8 };
/// Below what the slowest of them manages.
const PACE: Pace = Pace { protocol: Protocol::Http1, body: Body::Small, connections: 8, rate: 300 };
const ROUNDS: usize = 9;
const TURN: Duration = Duration::from_secs(2);
/// The application has the core that proxies have elsewhere, and the sidecar that of the load: each beside, not instead.
const APPLICATION_CORE: [&str; 3] = ["taskset", "-c", "0"];
const SIDECAR_CORE: [&str; 3] = ["taskset", "-c", "1"];

#[derive(Debug, Clone, Copy)]
struct Turn {
    rate: f64,
    cpu: f64,
    sidecar: f64,
    median: f64,
    p99: f64,
}

/// What each of the three answers and costs.
pub(crate) fn application(_: &[Proxy]) -> Results {
    let Some(uvicorn) = python_program("uvicorn") else { return Results::default() };
    let arguments = ["application:app", "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--port"];
    let line =
        |port: u16| Line::new([uvicorn.as_str()].into_iter().chain(arguments).chain([port.to_string().as_str()]));
    let (plain, behind) = (start(line, Receiver::start()), start(line, Receiver::start()));
    let receiver = Receiver::start();
    let instrumented = python_program("opentelemetry-instrument").unwrap_or_default();
    let endpoint = format!("http://{}", receiver.address);
    let with_sdk = |port: u16| {
        line(port)
            .under(&[&instrumented])
            .env("OTEL_SERVICE_NAME", "application")
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.clone())
            .env("OTEL_TRACES_EXPORTER", "otlp")
            .env("OTEL_METRICS_EXPORTER", "otlp")
            .env("OTEL_LOGS_EXPORTER", "none")
    };
    let with_sdk = start(with_sdk, receiver);
    let sidecar = Proxy::Sidecar.start(behind.address, &SIDECAR_CORE);
    let asked = [&plain, &with_sdk, &sidecar];
    let serving = [&plain, &with_sdk, &behind];
    let turns = in_turns(3, ROUNDS, |place| turn(asked[place], serving[place], &sidecar));
    assert!(with_sdk.trace_bytes() > 0, "no span came from the SDK:\n{}", with_sdk.errors());
    let memory = asked.map(|process| ratio(process.status_kib("VmHWM"), 1024));
    report(&turns, memory)
}

fn start(line: impl Fn(u16) -> Line, receiver: Receiver) -> Running {
    let (folder, address) = (fresh_folder(), free_port());
    fs::write(folder.join("application.py"), APPLICATION).expect("a writable folder");
    let running = Running::start(line(address.port()).under(&APPLICATION_CORE), folder, address);
    running.with(receiver, address)
}

fn turn(asked: &Running, serving: &Running, sidecar: &Running) -> Turn {
    let before = (serving.cpu(), sidecar.cpu());
    let answers = LOAD.run(asked, TURN);
    let of = |used: Duration| used.as_secs_f64() * 1e6 / ratio(answers, 1);
    let (cpu, beside) = (of(serving.cpu() - before.0), of(sidecar.cpu() - before.1));
    let mut latencies = PACE.latencies(asked.address, TURN);
    latencies.sort();
    let at = |hundredths: usize| latencies[(latencies.len() - 1) * hundredths / 100].as_secs_f64() * 1e3;
    let rate = ratio(answers, 1) / TURN.as_secs_f64();
    Turn { rate, cpu, sidecar: if std::ptr::eq(asked, sidecar) { beside } else { 0.0 }, median: at(50), p99: at(99) }
}

fn report(turns: &[Vec<Turn>], memory: [f64; 3]) -> Results {
    let of = |place: usize, value: fn(&Turn) -> f64| Spread::of(turns.iter().map(|round| value(&round[place])));
    let columns = [
        "FastAPI under uvicorn with uvloop, 8 connections",
        "answers per second",
        "CPU of the application, µs",
        "CPU of the sidecar, µs",
        "at 300 requests/s: median / 99 %, ms",
        "peak RSS, MiB",
    ];
    let mut table = Table::new("The application itself", columns);
    for (place, name) in
        ["plain", "with OpenTelemetry's SDK in process", "plain, behind the sidecar"].into_iter().enumerate()
    {
        let cells = [
            of(place, |turn| turn.rate).to_string(),
            of(place, |turn| turn.cpu).to_string(),
            if place == 2 { of(place, |turn| turn.sidecar).to_string() } else { "–".to_owned() },
            [of(place, |turn| turn.median), of(place, |turn| turn.p99)].map(|spread| number(spread.median)).join(" / "),
            if place == 2 { format!("{} (the sidecar)", number(memory[2])) } else { number(memory[place]) },
        ];
        table.row(name, cells);
    }
    let throughput = Spread::of(turns.iter().map(|round| round[2].rate / round[0].rate)).median;
    let share = Spread::of(turns.iter().map(|round| round[2].sidecar / (round[1].cpu - round[0].cpu))).median;
    let figures = vec![
        Figure::new("answers of the application behind the sidecar, as a part of plain", throughput, "")
            .target_at_least(0.97),
        Figure::new("CPU of the sidecar, as a part of what the SDK in process adds", share, "").target(0.125),
    ];
    Results { figures, tables: vec![table], bars: Vec::new() }
}
