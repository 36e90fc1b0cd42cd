//! Who makes whom wait: chains of sessions, from those that wait to the one at the head. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::database::values::{Chain, SessionState, Waiting};

/// What is known of a session at the head of a chain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Head {
    /// What it does.
    pub(super) state: SessionState,
    /// The age of its transaction.
    pub(super) transaction_seconds: f64,
}

/// The chains, those with most sessions first. A circle, which the server will break as a deadlock, has no head and is left out.
pub(super) fn chains(waiting: &[Waiting], heads: &BTreeMap<i64, Head>) -> Vec<Chain> {
    let mut behind: BTreeMap<i64, Vec<&Waiting>> = BTreeMap::new();
    for session in waiting {
        for blocker in &session.blockers {
            behind.entry(*blocker).or_default().push(session);
        }
    }
    let mut chains: Vec<Chain> = roots(waiting).into_iter().map(|root| chain(root, &behind, heads)).collect();
    chains.sort_by_key(|chain| std::cmp::Reverse(chain.sessions));
    chains
}

/// Those that others wait for, and that wait for nobody.
pub(super) fn roots(waiting: &[Waiting]) -> BTreeSet<i64> {
    let waits: BTreeSet<i64> = waiting.iter().map(|session| session.pid).collect();
    let blockers = waiting.iter().flat_map(|session| session.blockers.iter().copied());
    blockers.filter(|pid| !waits.contains(pid)).collect()
}

fn chain(root: i64, behind: &BTreeMap<i64, Vec<&Waiting>>, heads: &BTreeMap<i64, Head>) -> Chain {
    let head = heads.get(&root).copied().unwrap_or(Head { state: SessionState::Unknown, transaction_seconds: 0.0 });
    let mut found = BTreeSet::from([root]);
    let mut row = vec![root];
    let (mut depth, mut longest_seconds) = (0, 0.0_f64);
    // row by row: each session is met once, so that a circle further back ends too
    loop {
        let next: Vec<&Waiting> = row.iter().flat_map(|pid| behind.get(pid).into_iter().flatten().copied()).collect();
        row = next.iter().map(|session| session.pid).filter(|pid| found.insert(*pid)).collect();
        if row.is_empty() {
            break;
        }
        depth += 1;
        longest_seconds = next.iter().map(|session| session.seconds).fold(longest_seconds, f64::max);
    }
    Chain {
        root,
        state: head.state,
        transaction_seconds: head.transaction_seconds,
        sessions: found.len() as u64 - 1,
        depth,
        longest_seconds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::Clean;

    /// Root, sessions and depth of each chain.
    fn found(waits: &[(i64, &[i64])]) -> Vec<(i64, u64, u64)> {
        let (lock, mode) = (Clean::literal("relation"), Clean::literal("AccessExclusiveLock"));
        let session = |(pid, blockers): &(i64, &[i64])| Waiting {
            pid: *pid,
            blockers: blockers.to_vec(),
            seconds: *pid as f64,
            lock: lock.clone(),
            mode: mode.clone(),
        };
        let waiting: Vec<Waiting> = waits.iter().map(session).collect();
        let chains = chains(&waiting, &BTreeMap::new());
        chains.iter().map(|chain| (chain.root, chain.sessions, chain.depth)).collect()
    }

    #[test]
    fn every_form_of_waiting_has_its_chains() {
        for (waits, expected) in [
            (&[][..], &[][..]),
            (&[(2, &[1][..])], &[(1, 1, 1)]),
            (&[(2, &[1]), (3, &[1])], &[(1, 2, 1)]),
            (&[(2, &[1]), (3, &[2]), (4, &[3])], &[(1, 3, 3)]),
            // a queue for one lock: the last one waits for all before it
            (&[(2, &[1]), (3, &[1, 2])], &[(1, 2, 1)]),
            (&[(2, &[1]), (5, &[4]), (6, &[4])], &[(4, 2, 1), (1, 1, 1)]),
            // a circle alone, and one behind a head
            (&[(1, &[2]), (2, &[1])], &[]),
            (&[(2, &[1, 3]), (3, &[2])], &[(1, 2, 2)]),
            // a prepared transaction is process 0
            (&[(2, &[0])], &[(0, 1, 1)]),
        ] {
            assert_eq!(found(waits), expected, "{waits:?}");
        }
    }

    #[test]
    fn the_head_is_told_with_what_it_does_and_the_longest_wait() {
        let (lock, mode) = (Clean::literal("transactionid"), Clean::literal("ShareLock"));
        let waiting = [Waiting { pid: 9, blockers: vec![4], seconds: 12.5, lock, mode }];
        let head = Head { state: SessionState::IdleInTransaction, transaction_seconds: 40.0 };
        let chains = chains(&waiting, &BTreeMap::from([(4, head)]));
        let expected = Chain {
            root: 4,
            state: SessionState::IdleInTransaction,
            transaction_seconds: 40.0,
            sessions: 1,
            depth: 1,
            longest_seconds: 12.5,
        };
        assert_eq!(chains, [expected]);
    }
}
