//! The byte oracle: raw messages go through the proxy as a black box, and a strict reader judges what comes out.
//!
//! It shares no code with the proxy. `ORACLE_PEER=nginx` or `haproxy` judges that one instead, entry by entry; for other
//! people's proxies the table is printed, and nothing fails.

#![expect(clippy::print_stdout, reason = "the table of verdicts is the result")]
#![expect(clippy::disallowed_methods, reason = "plain threads and sockets, in real time: there is no runtime to pause")]

mod client;
mod compare;
mod corpus;
mod fidelity;
mod frames;
mod fuzz;
mod grammar;
mod http2;
mod origin;
mod peer;
mod random;
mod replies;
mod requests;
mod responses;
mod run;
mod verdict;

use std::thread;

use client::Pace;
use corpus::{End, Entry, Kind};
use grammar::{Grammar, Stop};
use peer::Kind as Peer;
use verdict::{Demand, Judgement};

/// Other people's proxies owe us no order of fields and no particular status.
fn demand(peer: Peer) -> Demand {
    if matches!(peer, Peer::Nginx | Peer::NginxHttp2 | Peer::HaProxy) {
        Demand::Cleanliness
    } else {
        Demand::Everything
    }
}

/// Prints the table; fails on anything that does not hold, if the peer is ours.
fn conclude(peer: Peer, entries: &[Entry], judgements: &[Judgement]) {
    let report = run::report(entries, judgements);
    println!("{report}");
    if peer == Peer::Sidecar {
        assert!(judgements.iter().all(Judgement::holds), "{report}");
    }
}

/// Nor does the application ever see more requests than a strict reader finds in what was sent, whatever else an entry
/// leaves open.
#[test]
fn every_raw_request_is_forwarded_clean_or_refused() {
    let (peer, entries) = (Peer::from_environment(), corpus::load("requests"));
    let judge = |lane: &run::Lane, entry: &Entry| lane.request(entry, Pace::Whole, demand(peer));
    conclude(peer, &entries, &run::judge_all(peer, &entries, judge));
}

#[test]
fn requests_in_small_pieces_are_read_like_whole_ones() {
    let (peer, entries) = (Peer::from_environment(), corpus::load("requests"));
    let judge = |lane: &run::Lane, entry: &Entry| lane.request(entry, Pace::Pieces, demand(peer));
    conclude(peer, &entries, &run::judge_all(peer, &entries, judge));
}

/// HTTP/2 by prior knowledge, frame by frame: by the same verdicts, behind the same origin.
#[test]
fn every_request_of_http2_is_forwarded_clean_or_refused() {
    let (peer, entries) = (Peer::from_environment().of_http2(), corpus::load("http2"));
    let judge = |lane: &run::Lane, entry: &Entry| lane.http2(entry, Pace::Whole, demand(peer));
    conclude(peer, &entries, &run::judge_all(peer, &entries, judge));
}

#[test]
fn frames_in_small_pieces_are_read_like_whole_ones() {
    let (peer, entries) = (Peer::from_environment().of_http2(), corpus::load("http2"));
    let judge = |lane: &run::Lane, entry: &Entry| lane.http2(entry, Pace::Pieces, demand(peer));
    conclude(peer, &entries, &run::judge_all(peer, &entries, judge));
}

#[test]
fn every_raw_response_is_passed_on_clean_or_refused() {
    let (peer, entries) = (Peer::from_environment(), corpus::load("responses"));
    let judge = |lane: &run::Lane, entry: &Entry| lane.response(entry, demand(peer));
    conclude(peer, &entries, &run::judge_all(peer, &entries, judge));
}

/// An oracle that cannot fail proves nothing: through a relay that copies bytes nothing is refused.
#[test]
fn a_blind_relay_fails_every_entry_that_must_be_refused() {
    let requests: Vec<Entry> =
        corpus::load("requests").into_iter().filter(|entry| entry.kind == Kind::MustRefuse).collect();
    let judge = |lane: &run::Lane, entry: &Entry| lane.request(entry, Pace::Whole, Demand::Everything);
    let judgements = run::judge_all(Peer::Relay, &requests, judge);
    for (entry, judgement) in requests.iter().zip(&judgements) {
        assert!(!judgement.holds(), "{} / {} passed over a blind relay: {judgement:?}", entry.class, entry.name);
    }
    assert!(run::dirty(&judgements) > requests.len() / 2, "{} dirty of {}", run::dirty(&judgements), requests.len());
}

#[test]
fn a_blind_relay_fails_every_response_that_must_be_refused() {
    // A response that is cut off is right to arrive cut off.
    let refusable = |entry: &Entry| entry.kind == Kind::MustRefuse && !replies::is_cut(entry);
    let responses: Vec<Entry> = corpus::load("responses").into_iter().filter(refusable).collect();
    let judge = |lane: &run::Lane, entry: &Entry| lane.response(entry, Demand::Everything);
    let judgements = run::judge_all(Peer::Relay, &responses, judge);
    for (entry, judgement) in responses.iter().zip(&judgements) {
        assert!(!judgement.holds(), "{} / {} passed over a blind relay: {judgement:?}", entry.class, entry.name);
    }
}

/// Printed for people. What is asked of ours is asked above; of others only that the same run works with them.
#[test]
fn the_same_corpus_through_nginx_and_haproxy() {
    let tables = compare::tables();
    println!("{tables}");
    let ours: Vec<&str> = tables.lines().filter(|line| line.starts_with("sidecar")).collect();
    for line in &ours {
        let columns: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(columns[5..], ["0", "0", "0"], "dirty, or lawful and not passed on:\n{tables}");
    }
    assert_eq!(ours.len(), 3, "{tables}");
}

/// Half a minute of mutated entries, or `ORACLE_FUZZ_SECONDS`; `ORACLE_SEED` begins elsewhere. What fails is printed as an
/// entry for the corpus.
///
/// One test for both halves at once: the tests that mostly wait find the other thread free.
#[test]
fn nothing_dirty_comes_out_of_mutated_messages() {
    let found = thread::scope(|scope| {
        let halves = [scope.spawn(mutated_requests), scope.spawn(mutated_responses)];
        halves.map(|half| half.join().expect("no lane panics")).concat()
    });
    assert!(found.is_empty() || Peer::from_environment() != Peer::Sidecar, "{}", found.join("\n"));
}

/// A third of that time for the texts of HTTP/2: each means frames that are valid, of requests that need not be.
#[test]
fn nothing_dirty_comes_out_of_mutated_http2() {
    let peer = Peer::from_environment().of_http2();
    let judge = |lane: &run::Lane, entry: &Entry| lane.http2(entry, Pace::Whole, Demand::Cleanliness);
    let found = fuzz::run(peer, &corpus::load("http2"), fuzz::Budget::from_environment().a_third(), judge);
    assert!(found.is_empty() || peer != Peer::Sidecar, "{}", found.join("\n"));
}

fn mutated_requests() -> Vec<String> {
    let judge = |lane: &run::Lane, entry: &Entry| lane.request(entry, Pace::Whole, Demand::Cleanliness);
    fuzz::run(Peer::from_environment(), &corpus::load("requests"), fuzz::Budget::from_environment(), judge)
}

fn mutated_responses() -> Vec<String> {
    let judge = |lane: &run::Lane, entry: &Entry| lane.response(entry, Demand::Cleanliness);
    let mut entries = corpus::load("responses");
    // Else a response that mutation made incomplete would be waited for.
    entries.iter_mut().for_each(|entry| entry.end = End::Close);
    fuzz::run(Peer::from_environment(), &entries, fuzz::Budget::from_environment(), judge)
}

#[test]
fn mutations_find_the_dirt_of_a_blind_relay() {
    let judge = |lane: &run::Lane, entry: &Entry| lane.request(entry, Pace::Whole, Demand::Cleanliness);
    let found = fuzz::run(Peer::Relay, &corpus::load("requests"), fuzz::Budget::cases(200), judge);
    assert!(found.len() > 20, "only {} of 200 mutated requests are dirty", found.len());
}

/// What the corpus calls lawful, the strict reader finds lawful: two witnesses for each entry.
#[test]
fn every_lawful_entry_is_read_by_the_strict_reader() {
    for entry in corpus::load("requests").iter().filter(|entry| entry.kind == Kind::Lawful) {
        let reading = requests::read(&entry.bytes(), Grammar::Lawful);
        let ignored = reading.requests.iter().any(|request| !request.persists() || request.upgrades());
        let answered_early = entry.bytes().starts_with(b"POST /early/");
        assert!(reading.stop == Stop::Clean || ignored || answered_early, "{}: {:?}", entry.name, reading.stop);
    }
    for entry in corpus::load("responses").iter().filter(|entry| entry.kind == Kind::Lawful) {
        assert!(replies::is_whole(entry), "{}", entry.name);
    }
}
