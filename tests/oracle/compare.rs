//! The verdicts of other people's proxies on the same corpus, beside ours.

use std::fmt::Write;
use std::process::Command;

use crate::client::Pace;
use crate::corpus::{self, Entry, Kind};
use crate::peer::Kind as Peer;
use crate::run::{self, Lane};
use crate::verdict::{Demand, Judgement, Verdict};

/// Whom the table compares.
const PEERS: [Peer; 3] = [Peer::Sidecar, Peer::Nginx, Peer::HaProxy];

/// A table of requests and one of responses; a peer that is not installed has no line.
///
/// # Panics
/// Where CI is set, when one is not installed: there the table is whole.
pub(crate) fn tables() -> String {
    let (here, absent): (Vec<Peer>, Vec<Peer>) = PEERS.into_iter().partition(|peer| version(*peer).is_some());
    let ci = std::env::var("CI").as_deref() == Ok("true");
    assert!(absent.is_empty() || !ci, "not installed: {absent:?}, expected all in CI: see tests/setup/debian.sh");
    let mut text = String::new();
    for (folder, request) in [("requests", true), ("responses", false)] {
        let entries = corpus::load(folder);
        let count = format!("{} {folder}", entries.len());
        text += &row(&count, ["refused", "closed", "clean", "truncated", "DIRTY", "repaired", "withheld"]);
        for &peer in &here {
            let judge = |lane: &Lane, entry: &Entry| match request {
                true => lane.request(entry, Pace::Whole, Demand::Cleanliness),
                false => lane.response(entry, Demand::Cleanliness),
            };
            let judgements = run::judge_all(peer, &entries, judge);
            text += &line(&version(peer).unwrap_or_default(), &entries, &judgements);
        }
    }
    for peer in absent {
        let _never_fails = writeln!(text, "{peer:?} is not installed");
    }
    text
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
        Peer::Nginx => ("nginx", "-v"),
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
