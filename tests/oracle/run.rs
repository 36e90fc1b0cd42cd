//! Runs entries against a peer: several peers at once, each with an origin of its own, one entry at a time in each.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::client::{self, Pace};
use crate::corpus::{End, Entry, Step};
use crate::grammar::{Grammar, Stop};
use crate::origin::{Origin, Script};
use crate::peer::{Kind as PeerKind, Peer};
use crate::replies::{self, Reply};
use crate::requests;
use crate::verdict::{self, Case, Demand, FOLLOWING, Judgement, Verdict};

/// How many peers run at once: more than there are cores, because most of the time is waiting for a silence to last.
pub(crate) const LANES: usize = 8;

/// A peer with its origin.
pub(crate) struct Lane {
    /// The application.
    pub(crate) origin: Origin,
    /// The proxy.
    pub(crate) peer: Peer,
}

impl Lane {
    /// Starts both.
    pub(crate) fn start(kind: PeerKind) -> Self {
        let origin = Origin::start();
        let peer = kind.start(origin.address);
        Self { origin, peer }
    }

    /// The peer has neither ended nor panicked.
    ///
    /// # Panics
    /// When it has; the message holds its log.
    pub(crate) fn assert_well(&mut self) {
        let log = self.peer.log();
        assert!(!self.peer.is_gone(), "the peer ended by itself:\n{log}");
        assert!(!log.contains("panicked"), "the peer panicked:\n{log}");
    }

    /// Sends a request entry and judges what became of it.
    pub(crate) fn request(&self, entry: &Entry, pace: Pace, demand: Demand) -> Judgement {
        let mut steps = entry.steps.clone();
        if entry.end == End::Follow {
            append(&mut steps, FOLLOWING);
        }
        // Where a strict reader would wait for more, only the end of the input can end the exchange.
        let open_ended = matches!(requests::read(&verdict::wire(entry), Grammar::Lawful).stop, Stop::Short(_));
        let end = if open_ended && entry.end == End::Follow { End::Close } else { entry.end };
        let seen = client::exchange(self.peer.address, &steps, end, pace);
        self.barrier();
        let records = self.origin.settle();
        verdict::judge(&Case { entry, records: &records, seen: &seen }, demand)
    }

    /// What the proxy still does for the last client, such as connecting to the origin, happens before this returns.
    fn barrier(&self) {
        let request = b"GET /oracle-barrier HTTP/1.1\r\nHost: barrier.example\r\nConnection: close\r\n\r\n";
        client::exchange(self.peer.address, &[Step::Send(request.to_vec())], End::Follow, Pace::Whole);
    }

    /// Has the origin play a response entry, and judges what two clients saw.
    pub(crate) fn response(&self, entry: &Entry, demand: Demand) -> Judgement {
        self.origin.play(Some(Script::of(entry)));
        let asked = [Step::Send([&replies::ask(&entry.ask), FOLLOWING].concat())];
        let first = client::exchange(self.peer.address, &asked, End::Follow, Pace::Whole);
        let next = client::exchange(self.peer.address, &[Step::Send(FOLLOWING.to_vec())], End::Follow, Pace::Whole);
        self.origin.play(None);
        self.barrier();
        self.origin.settle();
        replies::judge(&Reply { entry, first: &first, next: &next }, demand)
    }
}

fn append(steps: &mut Vec<Step>, bytes: &[u8]) {
    match steps.last_mut() {
        Some(Step::Send(sent)) => sent.extend_from_slice(bytes),
        _ => steps.push(Step::Send(bytes.to_vec())),
    }
}

/// Judges every entry; the judgements are in the order of the entries.
///
/// # Panics
/// When a peer ends by itself, or its log tells of a panic.
pub(crate) fn judge_all<J>(kind: PeerKind, entries: &[Entry], judge: J) -> Vec<Judgement>
where
    J: Fn(&Lane, &Entry) -> Judgement + Sync,
{
    let next = AtomicUsize::new(0);
    let judged = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                let mut lane = Lane::start(kind);
                while let Some((at, entry)) = {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    entries.get(at).map(|entry| (at, entry))
                } {
                    let judgement = judge(&lane, entry);
                    judged.lock().expect("not poisoned").insert(at, judgement);
                }
                lane.assert_well();
            });
        }
    });
    judged.into_inner().expect("not poisoned").into_values().collect()
}

/// A table of verdicts by class, and below it each entry that does not hold.
pub(crate) fn report(entries: &[Entry], judgements: &[Judgement]) -> String {
    let mut classes: BTreeMap<&str, [usize; 7]> = BTreeMap::new();
    let mut wrong = String::new();
    for (entry, judgement) in entries.iter().zip(judgements) {
        let bad = !judgement.holds();
        for class in [entry.class.as_str(), "~ all"] {
            let row = classes.entry(class).or_default();
            row[0] += 1;
            row[1 + judgement.verdict as usize] += 1;
            row[6] += usize::from(bad);
        }
        if bad {
            let faults = judgement.faults.join("; ");
            let bytes = crate::grammar::show(&entry.bytes());
            wrong += &format!(
                "{:?} {} / {} (RFC {}, {:?}): {faults}\n    {bytes}\n",
                judgement.verdict, entry.class, entry.name, entry.rfc, entry.kind
            );
        }
    }
    let mut table = format!(
        "{:<22}{:>8}{:>9}{:>8}{:>7}{:>11}{:>7}{:>7}\n",
        "class", "entries", "refused", "closed", "clean", "truncated", "DIRTY", "wrong"
    );
    for (class, row) in &classes {
        let [all, refused, closed, clean, truncated, dirty, bad] = row;
        table += &format!("{class:<22}{all:>8}{refused:>9}{closed:>8}{clean:>7}{truncated:>11}{dirty:>7}{bad:>7}\n");
    }
    table + &wrong
}

/// How many are dirty.
pub(crate) fn dirty(judgements: &[Judgement]) -> usize {
    judgements.iter().filter(|judgement| judgement.verdict == Verdict::Dirty).count()
}
