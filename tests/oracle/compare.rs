//! The verdicts of other people's proxies on the same corpus, beside ours.

use std::fmt::Write;
use std::process::Command;
use std::thread;

use crate::client::Pace;
use crate::corpus::{self, Entry, Kind};
use crate::peer::Kind as Peer;
use crate::run::{self, Lane};
use crate::verdict::{Demand, Judgement, Verdict};

/// Whom the table compares.
const PEERS: [Peer; 3] = [Peer::Sidecar, Peer::Nginx, Peer::HaProxy];

/// Whom the table of HTTP/2 compares: HAProxy takes it by prior knowledge only where it takes nothing else.
const PEERS_OF_HTTP2: [Peer; 2] = [Peer::Sidecar, Peer::NginxHttp2];

/// A table of requests, one of requests of HTTP/2 and one of responses; a peer that is not installed has no line.
///
/// # Panics
/// Where CI is set, when one is not installed: there the table is whole.
pub(crate) fn tables() -> String {
    let (here, absent): (Vec<Peer>, Vec<Peer>) = PEERS.into_iter().partition(|peer| version(*peer).is_some());
    let ci = std::env::var("CI").as_deref() == Ok("true");
    assert!(absent.is_empty() || !ci, "not installed: {absent:?}, expected all in CI: see tests/setup/debian.sh");
    // all at once: most of the time is waiting for proxies that wait themselves
    let mut text: String = thread::scope(|scope| {
        let requests =
            scope.spawn(|| table("requests", &here, |lane, entry, demand| lane.request(entry, Pace::Whole, demand)));
        let http2: Vec<Peer> = PEERS_OF_HTTP2.into_iter().filter(|peer| version(*peer).is_some()).collect();
        let streams =
            scope.spawn(move || table("http2", &http2, |lane, entry, demand| lane.http2(entry, Pace::Whole, demand)));
        let responses = scope.spawn(|| table("responses", &here, Lane::response));
        [requests, streams, responses].map(|table| table.join().expect("a table")).concat()
    });
    for peer in absent {
        let _never_fails = writeln!(text, "{peer:?} is not installed");
    }
    text
}

/// How an entry is judged.
type Ask = fn(&Lane, &Entry, Demand) -> Judgement;

/// The lines of one half of the corpus.
fn table(folder: &str, peers: &[Peer], ask: Ask) -> String {
    let entries = corpus::load(folder);
    let count = format!("{} {folder}", entries.len());
    let head = row(&count, ["refused", "closed", "clean", "truncated", "DIRTY", "repaired", "withheld"]);
    let judge = |lane: &Lane, entry: &Entry| ask(lane, entry, Demand::Cleanliness);
    let lines = thread::scope(|scope| {
        let judged: Vec<_> = peers
            .iter()
            .map(|&peer| {
                scope.spawn({
                    let entries = &entries;
                    move || run::judge_all(peer, entries, judge)
                })
            })
            .collect();
        let lines = peers.iter().zip(judged).map(|(&peer, judged)| {
            line(&version(peer).unwrap_or_default(), &entries, &judged.join().expect("judgements"))
        });
        lines.collect::<String>()
    });
    head + &lines
}

/// Repaired are those of the dirty that parse, though what was sent does not; withheld are lawful ones.
fn line(name: &str, entries: &[Entry], judgements: &[Judgement]) -> String {
    let count = |verdict: Verdict| judgements.iter().filter(|judgement| judgement.verdict == verdict).count();
    let verdicts = [Verdict::Refused, Verdict::Closed, Verdict::Clean, Verdict::Truncated, Verdict::Dirty];
    let [refused, closed, clean, truncated, dirty] = verdicts.map(count);
    let repaired = judgements.iter().filter(|judgement| judgement.is_repaired()).count();
    let withheld = |(entry, judgement): (&Entry, &Judgement)| {
        entry.kind == Kind::Lawful && matches!(judgement.verdict, Verdict::Refused | Verdict::Closed)
    };
    let withheld = entries.iter().zip(judgements).filter(|pair| withheld(*pair)).count();
    row(name, [refused, closed, clean, truncated, dirty, repaired, withheld])
}

fn row<T: std::fmt::Display>(name: &str, columns: [T; 7]) -> String {
    let [refused, closed, clean, truncated, dirty, repaired, withheld] = columns;
    format!("{name:<16}{refused:>9}{closed:>8}{clean:>7}{truncated:>11}{dirty:>7}{repaired:>10}{withheld:>10}\n")
}

/// Name and version, if it is installed.
fn version(peer: Peer) -> Option<String> {
    let (program, flag) = match peer {
        Peer::Sidecar => return Some("sidecar".to_owned()),
        Peer::Nginx | Peer::NginxHttp2 => ("nginx", "-v"),
        Peer::HaProxy => ("haproxy", "-v"),
        Peer::Relay => return None,
    };
    let said = Command::new(program).arg(flag).env("PATH", crate::peer::path()).output().ok()?;
    let said = [said.stdout, said.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    // `nginx version: nginx/1.22.1`, `HAProxy version 2.6.12-1+deb12u2 2025/04/15 - …`
    let version = said.split([' ', '/', '\n']).find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
    Some(format!("{program} {}", version.split('-').next().unwrap_or(version)))
}
