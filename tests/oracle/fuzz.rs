//! Mutated entries: what no person thought of. Every case follows from the seed and its number, so a finding can be
//! repeated, and belongs into the corpus once it is understood.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::corpus::{Entry, Kind, Step};
use crate::peer::Kind as PeerKind;
use crate::random::Random;
use crate::run::{LANES, Lane};
use crate::verdict::Judgement;

/// Larger entries test limits, which mutation does not move.
const LARGEST: usize = 2048;
/// After that many findings there is enough to read.
const ENOUGH: usize = 40;
/// Bytes that parsers disagree about.
const SEPARATORS: [&[u8]; 16] = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\0",
    b"\t",
    b"\x0b",
    b"\x0c",
    b" ",
    b":",
    b",",
    b";",
    b"\x7f",
    b"\x80",
    b"\r\n ",
    b"0",
    b"\r\n\r\n",
];
/// Whole lines that decide about framing and routing.
const LINES: [&[u8]; 12] = [
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Host: evil.example\r\n",
    b"Connection: close\r\n",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    b"Connection: Content-Length\r\n",
    b"Expect: 100-continue\r\n",
    b"0\r\n\r\n",
    b"GET /smuggled HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON",
];

/// Fewer cases than these prove little, however long they took: on a slow machine they take longer.
const LEAST: u64 = 2_000;

/// How long, or how many.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    seed: u64,
    time: Duration,
    /// So many at least, and at most.
    cases: (u64, u64),
}

impl Budget {
    /// From `ORACLE_FUZZ_SECONDS` and `ORACLE_SEED`, else half a minute of seed 1.
    pub(crate) fn from_environment() -> Self {
        let number = |name: &str, otherwise: u64| match std::env::var(name) {
            Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text}, expected a whole number")),
            Err(_) => otherwise,
        };
        let time = Duration::from_secs(number("ORACLE_FUZZ_SECONDS", 30));
        Self { seed: number("ORACLE_SEED", 1), time, cases: (LEAST, u64::MAX) }
    }

    /// A third of it.
    pub(crate) fn a_third(self) -> Self {
        let (least, most) = self.cases;
        Self { time: self.time / 3, cases: (least / 3, most), ..self }
    }

    /// A fixed number of cases.
    pub(crate) fn cases(cases: u64) -> Self {
        Self { seed: 1, time: Duration::from_secs(60), cases: (cases, cases) }
    }
}

/// Runs mutated entries until the budget is used up; for each finding what is wrong, and an entry for the corpus.
///
/// # Panics
/// When ten times its time was not enough for the least number of cases.
pub(crate) fn run<J>(peer: PeerKind, corpus: &[Entry], budget: Budget, judge: J) -> Vec<String>
where
    J: Fn(&Lane, &Entry) -> Judgement + Sync,
{
    let small: Vec<&Entry> = corpus.iter().filter(|entry| entry.bytes().len() <= LARGEST).collect();
    let (next, findings) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let started = Instant::now();
    let (least, most) = budget.cases;
    // of a slow machine; no wait is without an end
    let (until, patience) = (started + budget.time, started + 10 * budget.time);
    let goes_on = || Instant::now() < until || (next.load(Ordering::Relaxed) < least && Instant::now() < patience);
    thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                let mut lane = Lane::start(peer);
                let full = || findings.lock().expect("not poisoned").len() >= ENOUGH;
                while goes_on() && !(peer == PeerKind::Sidecar && full()) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= most {
                        break;
                    }
                    let entry = mutated(&small, budget.seed, number);
                    let judgement = judge(&lane, &entry);
                    if !judgement.holds() {
                        let faults = judgement.faults.join("; ");
                        findings.lock().expect("not poisoned").push(format!("# {faults}\n{}", entry.text()));
                    }
                }
                lane.assert_well();
            });
        }
    });
    let (tried, findings) = (next.into_inner(), findings.into_inner().expect("not poisoned"));
    println!("seed {}: {tried} cases in {} s", budget.seed, started.elapsed().as_secs());
    assert!(tried >= least || !findings.is_empty(), "only {tried} cases, expected {least} at least");
    findings
}

fn mutated(corpus: &[&Entry], seed: u64, number: u64) -> Entry {
    let mut random = Random::of(seed, number);
    let mut entry = corpus[random.below(corpus.len())].clone();
    let mut bytes = entry.bytes();
    for _ in 0..=random.below(3) {
        if random.below(10) == 0 {
            cross(&mut bytes, &corpus[random.below(corpus.len())].bytes(), &mut random);
        } else {
            mutate(&mut bytes, &mut random);
        }
    }
    entry.name = format!("seed {seed}, case {number}, from: {}", entry.name);
    entry.kind = Kind::May;
    entry.steps = vec![Step::Send(bytes)];
    entry
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    if bytes.is_empty() {
        bytes.extend_from_slice(LINES[random.below(LINES.len())]);
        return;
    }
    let at = random.below(bytes.len());
    match random.below(9) {
        0 => insert(bytes, at, SEPARATORS[random.below(SEPARATORS.len())]),
        1 => {
            bytes.remove(at);
        }
        2 => bytes[at] ^= 0x20,
        3 => bytes[at] = u8::try_from(random.below(256)).expect("a byte"),
        4 => {
            let line = line_at(bytes, at);
            let copy = bytes[line.clone()].to_vec();
            insert(bytes, line.start, &copy);
        }
        5 => {
            let line = line_at(bytes, at);
            bytes.drain(line);
        }
        6 => {
            let (line, other) = (line_at(bytes, at), random.below(bytes.len()));
            let moved: Vec<u8> = bytes.drain(line).collect();
            let target = line_at(bytes, other.min(bytes.len().saturating_sub(1))).start;
            insert(bytes, target, &moved);
        }
        7 => {
            let line = line_at(bytes, at);
            insert(bytes, line.end, LINES[random.below(LINES.len())]);
        }
        _ => pad(bytes, at, random),
    }
}

/// Puts a line of another entry in.
fn cross(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    if bytes.is_empty() || other.is_empty() {
        return;
    }
    let target = line_at(bytes, random.below(bytes.len())).start;
    insert(bytes, target, &other[line_at(other, random.below(other.len()))]);
}

/// Repeats one byte, as padding of numbers and names does.
fn pad(bytes: &mut Vec<u8>, at: usize, random: &mut Random) {
    let padding = vec![bytes[at]; 1 + random.below(20)];
    insert(bytes, at, &padding);
}

fn insert(bytes: &mut Vec<u8>, at: usize, what: &[u8]) {
    bytes.splice(at..at, what.iter().copied());
}

/// The line around a place, with its line end.
fn line_at(bytes: &[u8], at: usize) -> std::ops::Range<usize> {
    let start = bytes[..at].iter().rposition(|&byte| byte == b'\n').map_or(0, |found| found + 1);
    let end = bytes[at..].iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |found| at + found + 1);
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::load;

    #[test]
    fn a_case_follows_from_seed_and_number() {
        let corpus = load("requests");
        let small: Vec<&Entry> = corpus.iter().collect();
        let bytes = |seed, number| mutated(&small, seed, number).bytes();
        assert_eq!(bytes(7, 3), bytes(7, 3));
        let different = (0..100).filter(|&number| bytes(1, number) != bytes(2, number)).count();
        assert!(different > 90);
    }
}
