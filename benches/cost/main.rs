//! What the sidecar costs: instructions and system calls per request, memory, time to the first byte, CPU.
//!
//! Without arguments it measures all of it, and beside the sidecar the peers that are installed, as the table of
//! `docs/performance.md`. `-- instructions` measures that alone, of the sidecar alone, and fails when it is above its
//! limit; so do `syscalls`, `start` and `footprint`. `-- order` prints the linker script of `build/text.ld` instead.
//! Metrics are on, and a SERVER and a CLIENT span for each request, sent to a small receiver. Needs `valgrind`, `strace`.

#![expect(clippy::print_stdout, reason = "the tables are the result")]
#![expect(clippy::disallowed_methods, reason = "plain threads and sockets, in real time: there is no runtime to pause")]

mod application;
mod client;
mod counts;
mod figure;
mod generator;
mod health;
mod load;
mod memory;
mod order;
mod origin;
mod page;
mod plot;
mod process;
mod proxy;
mod python;
mod receiver;
mod request;
mod table;
mod turns;

use std::process::{Command, ExitCode};

use proxy::Proxy;
use turns::Results;

/// A part of the measurement: its name on the command line, and what it does for these proxies.
type Part = (&'static str, fn(&[Proxy]) -> Results);

const PARTS: [Part; 7] = [
    ("instructions", |proxies| counts::instructions(proxies).into()),
    ("syscalls", |proxies| counts::system_calls(proxies).into()),
    ("memory", |proxies| memory::memory(proxies).into()),
    ("start", |proxies| counts::start(proxies).into()),
    ("closed", turns::closed),
    ("open", turns::open),
    ("application", python::application),
];

/// A short form of `memory`, for `make test`: only what is asked for by name.
const SHORT: Part = ("footprint", |proxies| memory::footprint(proxies).into());

fn main() -> ExitCode {
    // `cargo bench` passes `--bench` along.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if wanted == ["order"] {
        print!("{}", order::script());
        return ExitCode::SUCCESS;
    }
    let (peers, wanted): (Vec<String>, Vec<String>) = wanted.into_iter().partition(|name| name == "peers");
    let parts = PARTS.iter().chain([&SHORT]);
    if let Some(unknown) = wanted.iter().find(|name| parts.clone().all(|(known, _)| known != name)) {
        println!("{unknown}: expected {}, {}, peers or order", PARTS.map(|(name, _)| name).join(", "), SHORT.0);
        return ExitCode::from(64);
    }
    // what is asked for by name is a limit to hold; all of it together is a comparison
    let whole = wanted.is_empty();
    let proxies = if whole || !peers.is_empty() { Proxy::all() } else { Proxy::OWN.to_vec() };
    let machine = machine();
    println!("{machine}\n");
    let mut results = Vec::new();
    let is_wanted = |name: &str| if whole { name != SHORT.0 } else { wanted.iter().any(|one| one == name) };
    for (name, measure) in parts.filter(|(name, _)| is_wanted(name)) {
        let part = measure(&proxies);
        println!("{}", page::part(&part));
        results.push((*name, part));
    }
    if whole {
        page::write(&machine, &results);
    }
    let verdicts: Vec<bool> =
        results.iter().flat_map(|(_, part)| &part.figures).filter_map(|one| one.verdict()).collect();
    let (passed, failed) =
        (verdicts.iter().filter(|held| **held).count(), verdicts.iter().filter(|held| !**held).count());
    // In the words of cargo's own tests, because a limit is one: `make test` adds them up.
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {result}. {passed} passed; {failed} failed; 0 ignored");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One line that says where the figures come from.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown processor");
    let cores = info.lines().filter(|line| line.starts_with("processor")).count();
    let envoy = proxy::python_program("envoy").unwrap_or_else(|| "envoy".to_owned());
    let programs = [
        ("date", "+%-d %B %Y"),
        ("uname", "-sr"),
        ("rustc", "--version"),
        ("valgrind", "--version"),
        ("nginx", "-v"),
        ("haproxy", "-v"),
        (&envoy, "--version"),
        ("wrk", "-v"),
        ("h2load", "--version"),
    ];
    let versions = programs.map(|(program, flag)| first_line(program, flag)).join(", ");
    format!("{cores} cores of {}; {versions}", model.trim_start_matches(['\t', ' ', ':']))
}

fn first_line(program: &str, flag: &str) -> String {
    let Ok(output) = Command::new(program).arg(flag).output() else {
        return format!("no {program}");
    };
    // nginx prints its version to standard error.
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    // Envoy's: `envoy  version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL`
    if let Some((_, rest)) = line.split_once("envoy  version: ") {
        return format!("Envoy {}", rest.split('/').nth(1).unwrap_or(rest));
    }
    // what comes behind it is an address or a copyright
    let line = line.split(" - ").next().unwrap_or_default().split(" Copyright").next().unwrap_or_default();
    line.trim().to_owned()
}
