//! The fuzz targets without a fuzzer: each file of the corpora, then some seconds of seeded mutations of them.
//!
//! libFuzzer runs the same targets from `fuzz/` (`make fuzz ARGS=headers`), which needs a nightly compiler; this needs none.

#![expect(clippy::print_stdout, reason = "how much was tried is part of the result")]
#![expect(clippy::disallowed_methods, reason = "plain threads and sockets, in real time: there is no runtime to pause")]

#[path = "../oracle/client.rs"]
#[expect(dead_code, reason = "the oracle uses the rest")]
mod client;
#[path = "../oracle/corpus.rs"]
mod corpus;
#[path = "../oracle/fidelity.rs"]
#[expect(dead_code, reason = "the oracle uses the rest")]
mod fidelity;
#[path = "../oracle/grammar.rs"]
mod grammar;
mod mutate;
#[path = "../oracle/origin.rs"]
#[expect(dead_code, reason = "the oracle uses the rest")]
mod origin;
#[path = "../oracle/random.rs"]
mod random;
#[path = "../oracle/requests.rs"]
mod requests;
#[path = "../oracle/responses.rs"]
mod responses;
mod targets;
#[path = "../oracle/verdict.rs"]
#[expect(dead_code, reason = "the oracle uses the rest")]
mod verdict;

use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, thread};

use targets::Fate;

/// How many seconds each target's mutations run; `FUZZ_SECONDS` asks for more.
const SECONDS: u64 = 5;
/// Fewer mutations than these prove little: on a slow machine they take longer, but not ten times as long.
const LEAST: u64 = 1_000;
/// The sequence of mutations; `FUZZ_SEED` asks for another one.
const SEED: u64 = 1;

#[test]
fn traceparent() {
    replay("traceparent", targets::traceparent::check);
}

#[test]
fn forwarded() {
    replay("forwarded", targets::forwarded::check);
}

#[test]
fn routes() {
    replay("routes", targets::routes::check);
}

#[test]
fn celery() {
    replay("celery", targets::celery::check);
}

#[test]
fn configuration() {
    replay("configuration", targets::configuration::check);
}

#[test]
fn headers() {
    replay("headers", targets::headers::check);
}

#[test]
fn redaction() {
    replay("redaction", targets::redaction::check);
}

#[test]
fn otlp() {
    replay("otlp", targets::otlp::check);
}

#[test]
fn proxy() {
    replay("proxy", targets::proxy::check);
}

#[test]
fn usage() {
    replay("usage", targets::usage::check);
}

/// Runs the corpus, in which both fates must occur, or the target sees nothing; then mutations of it.
fn replay(name: &str, check: fn(&[u8]) -> Fate) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let listing = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = listing.map(|file| file.expect("a readable folder").path()).collect();
    files.sort();
    let seeds: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).expect("a readable file")).collect();
    let fates: Vec<Fate> = seeds.iter().map(|seed| tried(name, check, seed)).collect();
    for fate in [Fate::Accepted, Fate::Refused] {
        assert!(fates.contains(&fate), "{name}: no file of {} is {fate:?}", folder.display());
    }
    let (seconds, seed) = (asked("FUZZ_SECONDS", SECONDS), asked("FUZZ_SEED", SEED));
    let (started, time) = (Instant::now(), Duration::from_secs(seconds));
    let mut number = 0;
    while started.elapsed() < time || (number < LEAST && started.elapsed() < 10 * time) {
        tried(name, check, &mutate::mutated(&seeds, seed, number));
        number += 1;
    }
    println!("{name}: {} files, {number} mutations of seed {seed} in {} s", seeds.len(), started.elapsed().as_secs());
    assert!(number >= LEAST, "{name}: only {number} mutations, expected {LEAST} at least");
}

fn asked(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text}, expected a whole number")),
        Err(_) => otherwise,
    }
}

/// Runs one input; when it fails, the input is kept for the corpus.
fn tried(name: &str, check: fn(&[u8]) -> Fate, data: &[u8]) -> Fate {
    panic::catch_unwind(AssertUnwindSafe(|| check(data))).unwrap_or_else(|_| {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}"));
        fs::write(&kept, data).expect("a writable target folder");
        let thread = thread::current().name().unwrap_or_default().to_owned();
        let (kept, text) = (kept.display(), data.escape_ascii());
        panic!("{thread}: this input, now in {kept}, belongs into tests/fuzz/corpus/{name}: \"{text}\"");
    })
}
