//! Which statements took most of the time between two readings. Pure.

use std::collections::BTreeMap;

/// What tells one entry of `pg_stat_statements` from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// Whose it is.
    pub(super) user: i64,
    /// In which database.
    pub(super) database: i64,
    /// The form of the statement.
    pub(super) query: i64,
    /// Whether a client asked for it.
    pub(super) is_top_level: bool,
}

/// What was counted of one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counted {
    pub(super) calls: u64,
    pub(super) total_seconds: f64,
    pub(super) rows: u64,
    pub(super) blocks_hit: u64,
    pub(super) blocks_read: u64,
    pub(super) temp_blocks: u64,
}

/// One reading: the entries with the longest time since their reset.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    /// When it was read, in seconds of any clock that does not go back.
    pub(super) at: f64,
    pub(super) entries: BTreeMap<Key, Counted>,
    /// Whether there may be entries that it does not hold.
    pub(super) is_cut: bool,
}

/// What is new in a reading.
#[derive(Debug, PartialEq)]
pub(super) struct New {
    pub(super) seconds: f64,
    /// By their time, longest first.
    pub(super) top: Vec<(Key, Counted)>,
}

/// What is new between two readings, of at most so many entries.
pub(super) fn since(before: &Snapshot, now: &Snapshot, most: usize) -> New {
    let mut top: Vec<(Key, Counted)> = now
        .entries
        .iter()
        .filter_map(|(key, counted)| Some((*key, new_of(before, key, counted)?)))
        .filter(|(_, new)| new.calls > 0)
        .collect();
    top.sort_by(|(_, left), (_, right)| right.total_seconds.total_cmp(&left.total_seconds));
    top.truncate(most);
    New { seconds: (now.at - before.at).max(0.0), top }
}

fn new_of(before: &Snapshot, key: &Key, now: &Counted) -> Option<Counted> {
    match before.entries.get(key) {
        // it was thrown out and came back, or somebody reset it: all of it is new
        Some(old) if now.calls < old.calls || now.total_seconds < old.total_seconds => Some(*now),
        Some(old) => Some(Counted {
            calls: now.calls - old.calls,
            total_seconds: now.total_seconds - old.total_seconds,
            rows: now.rows.saturating_sub(old.rows),
            blocks_hit: now.blocks_hit.saturating_sub(old.blocks_hit),
            blocks_read: now.blocks_read.saturating_sub(old.blocks_read),
            temp_blocks: now.temp_blocks.saturating_sub(old.temp_blocks),
        }),
        // it may have been there before, only not among the longest: how much of it is new shows next time
        None if before.is_cut => None,
        None => Some(*now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(query: i64) -> Key {
        Key { user: 10, database: 5, query, is_top_level: true }
    }

    fn snapshot(at: f64, entries: &[(i64, u64, f64)]) -> Snapshot {
        let entry = |(query, calls, total_seconds): &(i64, u64, f64)| {
            (key(*query), Counted { calls: *calls, total_seconds: *total_seconds, ..Counted::default() })
        };
        Snapshot { at, is_cut: false, entries: entries.iter().map(entry).collect() }
    }

    /// Number, calls and time of what is new.
    fn new(before: &Snapshot, now: &Snapshot) -> Vec<(i64, u64, f64)> {
        let new = since(before, now, 2);
        new.top.iter().map(|(key, counted)| (key.query, counted.calls, counted.total_seconds)).collect()
    }

    #[test]
    fn only_what_is_new_counts_longest_first() {
        let before = snapshot(0.0, &[(1, 100, 50.0), (2, 10, 1.0), (3, 5, 9.0)]);
        for (now, expected) in [
            (snapshot(60.0, &[(1, 100, 50.0), (2, 12, 1.5), (3, 6, 10.0)]), &[(3, 1, 1.0), (2, 2, 0.5)][..]),
            // nothing new
            (snapshot(60.0, &[(1, 100, 50.0)]), &[]),
            // an entry that was reset, or thrown out meanwhile
            (snapshot(60.0, &[(1, 3, 0.25)]), &[(1, 3, 0.25)]),
            // more of them than are wanted
            (snapshot(60.0, &[(1, 101, 51.0), (2, 11, 3.0), (3, 6, 12.0)]), &[(3, 1, 3.0), (2, 1, 2.0)]),
        ] {
            assert_eq!(new(&before, &now), expected, "{now:?}");
        }
        assert_eq!(since(&before, &snapshot(60.0, &[]), 2).seconds, 60.0);
    }

    #[test]
    fn an_unknown_entry_is_new_only_if_the_reading_before_was_whole() {
        let now = snapshot(60.0, &[(9, 4, 2.0)]);
        assert_eq!(new(&snapshot(0.0, &[]), &now), [(9, 4, 2.0)]);
        let cut = Snapshot { is_cut: true, ..snapshot(0.0, &[]) };
        assert_eq!(new(&cut, &now), []);
    }

    #[test]
    fn the_same_form_of_two_users_is_two_entries() {
        let counted = Counted { calls: 1, total_seconds: 1.0, ..Counted::default() };
        let other = Key { user: 11, ..key(1) };
        let inner = Key { is_top_level: false, ..key(1) };
        let entries = BTreeMap::from([(key(1), counted), (other, counted), (inner, counted)]);
        let now = Snapshot { at: 1.0, entries, is_cut: false };
        assert_eq!(since(&snapshot(0.0, &[]), &now, 10).top.len(), 3);
    }
}
