//! What the sidecar costs: instructions and system calls per request, memory, time to the first byte, CPU.
//!
//! Without arguments it measures all of it, and beside the sidecar the peers that are installed, as the table of
//! `docs/performance.md`. `-- instructions` measures that alone, of the sidecar alone, and fails when it is above its
//! limit; so do `syscalls`, `memory`, `start` and `cpu`. `-- order` prints the linker script of `build/text.ld` instead.
//! Metrics are on, and a SERVER and a CLIENT span for each request, sent to a small receiver. Needs `valgrind`, `strace`.

#![expect(clippy::print_stdout, reason = "the tables are the result")]
#![expect(clippy::disallowed_methods, reason = "plain threads and sockets, in real time: there is no runtime to pause")]

mod application;
mod load;
mod measure;
mod order;
mod process;
mod receiver;

use std::process::{Command, ExitCode};

use measure::Figure;
use process::Proxy;

/// A measurement and its name on the command line.
type Measure = (&'static str, fn(&[Proxy]) -> Vec<Figure>);

fn main() -> ExitCode {
    // `cargo bench` passes `--bench` along.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if wanted == ["order"] {
        print!("{}", order::script());
        return ExitCode::SUCCESS;
    }
    let measures: [Measure; 5] = [
        ("instructions", measure::instructions),
        ("syscalls", measure::system_calls),
        ("memory", measure::memory),
        ("start", measure::start),
        ("cpu", measure::cpu),
    ];
    if let Some(unknown) = wanted.iter().find(|name| measures.iter().all(|(known, _)| known != name)) {
        println!("{unknown}: expected instructions, syscalls, memory, start, cpu or order");
        return ExitCode::from(64);
    }
    println!("{}\n", machine());
    println!("| measured | figure | limit |\n|---|---|---|");
    let chosen = measures.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|one| one == name));
    // what is asked for by name is a limit to hold; all of it together is a comparison
    let proxies = if wanted.is_empty() { Proxy::all() } else { Proxy::own() };
    let (mut passed, mut failed) = (0, 0);
    for figure in chosen.flat_map(|(_, run)| run(&proxies)) {
        println!("{figure}");
        match figure.verdict() {
            Some(true) => passed += 1,
            Some(false) => failed += 1,
            None => {}
        }
    }
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
    let versions =
        [("uname", "-r"), ("rustc", "--version"), ("valgrind", "--version"), ("nginx", "-v"), ("haproxy", "-v")];
    let versions: Vec<String> = versions.iter().map(|(program, flag)| first_line(program, flag)).collect();
    format!("{cores} cores of {}; Linux {}", model.trim_start_matches(['\t', ' ', ':']), versions.join(", "))
}

fn first_line(program: &str, flag: &str) -> String {
    let Ok(output) = Command::new(program).arg(flag).output() else {
        return format!("no {program}");
    };
    // nginx prints its version to standard error.
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned()
}
