//! What of a database's numbers deserves a look, in words. Pure: a state and a moment in, sentences out.

use tokio::time::Instant;

use crate::model::database::values::{Activity, SessionState, Slot, Statistics, Table, TableRows, Visibility};
use crate::model::database::{DatabaseKind, DatabaseState};

/// Something that deserves a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which rule found it.
    pub rule: &'static str,
    /// What was found, with its numbers; holds no text of the server's.
    pub message: String,
}

/// From this share of the connections on, a burst of the application may find none.
const CONNECTIONS_RATIO: f64 = 0.8;
/// A transaction of the web or of a task takes seconds; what is open for longer keeps rows from being cleared away.
const TRANSACTION_SECONDS: f64 = 300.0;
/// Locks are waited for all the time; a wait that people notice is longer.
const WAIT_SECONDS: f64 = 5.0;
/// Below, the working set does not fit into the server's cache.
const HIT_RATIO: f64 = 0.9;
/// So few blocks tell nothing of a cache.
const ENOUGH_BLOCKS: u64 = 10_000;
/// Tables of fewer rows cost nothing, however dead.
const ENOUGH_ROWS: u64 = 10_000;
/// PostgreSQL's own vacuum begins at a fifth.
const DEAD_RATIO: f64 = 0.4;
/// The log that nobody fetches fills the disk.
const RETAINED_BYTES: f64 = (1_u64 << 30) as f64;
/// A standby that is so far behind shows people what was.
const REPLAY_SECONDS: f64 = 30.0;

/// All that deserves a look now. What is stale is told as such, and judged no further.
#[must_use]
pub fn verdicts(state: &DatabaseState, now: Instant) -> Vec<Verdict> {
    let mut found = Vec::new();
    if state.kind != DatabaseKind::Postgres {
        return found;
    }
    if state.server.trouble().or(state.statistics.trouble()).is_some() && state.activity.is_stale(now) {
        return vec![verdict("unreadable", "the statistics cannot be read, and what is shown is old".into())];
    }
    if let Some(server) = state.server.last()
        && server.visibility == Visibility::Partial
    {
        let words = "only our own sessions and statements are shown to us: the role lacks pg_monitor";
        found.push(verdict("visibility", words.into()));
    }
    if let Some(activity) = state.activity.last().filter(|_| !state.activity.is_stale(now)) {
        let limit = state.server.last().map_or(0, |server| server.connection_limit);
        judge_activity(activity, limit, &mut found);
    }
    if let Some(statistics) = state.statistics.last().filter(|_| !state.statistics.is_stale(now)) {
        judge_statistics(statistics, &mut found);
        judge_replication(statistics, &mut found);
    }
    found
}

fn judge_activity(activity: &Activity, limit: u64, found: &mut Vec<Verdict>) {
    let count = activity.connections();
    if limit > 0 && count as f64 >= CONNECTIONS_RATIO * limit as f64 {
        found.push(verdict("connections", format!("{count} of {limit} connections are taken")));
    }
    for sessions in &activity.sessions {
        let seconds = sessions.longest_transaction_seconds;
        if seconds >= TRANSACTION_SECONDS {
            let state = sessions.state.word();
            found.push(verdict("transaction", format!("a transaction is open for {seconds:.0} s ({state})")));
        }
    }
    let longest = activity.longest_wait_seconds();
    if longest >= WAIT_SECONDS {
        let (count, heads) = (activity.waiting.len(), heads(activity));
        found.push(verdict(
            "blocked",
            format!("sessions that wait for locks: {count}, the first for {longest:.0} s{heads}"),
        ));
    }
}

/// Who would have to end first.
fn heads(activity: &Activity) -> String {
    let idle = [SessionState::IdleInTransaction, SessionState::IdleInAbortedTransaction];
    match activity.chains.first() {
        Some(chain) if idle.contains(&chain.state) => {
            format!(", behind process {}, which does nothing in its transaction", chain.root)
        }
        Some(chain) => format!(", behind process {}", chain.root),
        None => String::new(),
    }
}

fn judge_statistics(statistics: &Statistics, found: &mut Vec<Verdict>) {
    if let Some(recent) = &statistics.recent {
        let asked = recent.counters.blocks_hit.saturating_add(recent.counters.blocks_read);
        if let Some(ratio) = recent.hit_ratio().filter(|ratio| asked >= ENOUGH_BLOCKS && *ratio < HIT_RATIO) {
            let share = 100.0 * ratio;
            found.push(verdict("cache", format!("only {share:.0} % of the blocks read were in the server's cache")));
        }
        if recent.counters.deadlocks > 0 {
            let (count, seconds) = (recent.counters.deadlocks, recent.seconds);
            found.push(verdict("deadlocks", format!("deadlocks in the last {seconds:.0} s: {count}")));
        }
    }
    if let Some(wraparound) = statistics.wraparound.filter(|wraparound| wraparound.age > wraparound.forced_at) {
        let age = wraparound.age;
        let words = format!("the oldest transaction number is {age} transactions old, and vacuum does not keep up");
        found.push(verdict("wraparound", words));
    }
    let dead = statistics.tables.iter().filter(|table| is_bloated(table)).count();
    if dead > 0 {
        found.push(verdict("dead_rows", format!("tables with more dead rows than vacuum should leave: {dead}")));
    }
}

fn judge_replication(statistics: &Statistics, found: &mut Vec<Verdict>) {
    let is_left = |slot: &&Slot| !slot.is_active && slot.retained_bytes >= RETAINED_BYTES;
    let left = statistics.slots.iter().filter(is_left).count();
    if left > 0 {
        found.push(verdict(
            "slots",
            format!("replication slots that nobody reads, and that keep over 1 GiB of the log: {left}"),
        ));
    }
    if let Some(seconds) = statistics.replay_lag_seconds.filter(|seconds| *seconds >= REPLAY_SECONDS) {
        found.push(verdict("replication", format!("this standby is {seconds:.0} s behind")));
    }
}

fn is_bloated(table: &Table) -> bool {
    let TableRows { live, dead } = table.rows;
    dead >= ENOUGH_ROWS && dead as f64 >= DEAD_RATIO * live.saturating_add(dead) as f64
}

fn verdict(rule: &'static str, message: String) -> Verdict {
    Verdict { rule, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::database::Periods;
    use crate::model::database::values::{Chain, Counters, Recent, Server, Sessions, Waiting, Wraparound};
    use crate::model::trouble::Trouble;
    use crate::redact::Clean;
    use std::time::Duration;

    fn server(visibility: Visibility) -> Server {
        Server {
            version: Clean::literal("15.14"),
            namespace: Clean::literal("factory"),
            role: Clean::literal("cf_sidecar"),
            visibility,
            is_standby: false,
            connection_limit: 100,
        }
    }

    fn sessions(state: SessionState, count: u64, seconds: f64) -> Activity {
        let sessions = vec![Sessions { state, count, longest_transaction_seconds: seconds }];
        Activity { sessions, ..Activity::default() }
    }

    fn blocked(state: SessionState, seconds: f64) -> Activity {
        let (lock, mode) = (Clean::literal("relation"), Clean::literal("AccessExclusiveLock"));
        let waiting = vec![Waiting { pid: 2, blockers: vec![1], seconds, lock, mode }];
        let chain = Chain { root: 1, state, transaction_seconds: 1.0, sessions: 1, depth: 1, longest_seconds: seconds };
        Activity { waiting, chains: vec![chain], ..Activity::default() }
    }

    fn recent(counters: Counters) -> Statistics {
        Statistics { recent: Some(Recent { seconds: 60.0, counters, was_reset: false }), ..Statistics::default() }
    }

    fn table(live: u64, dead: u64) -> Statistics {
        let name = Clean::literal("public.videos");
        let tables = vec![Table { name, rows: TableRows { live, dead }, vacuumed_seconds_ago: None }];
        Statistics { tables, ..Statistics::default() }
    }

    /// The rules that find something in these values.
    fn rules(activity: Activity, statistics: Statistics) -> Vec<&'static str> {
        let now = Instant::now();
        let mut state = state();
        state.server.turn(Ok(server(Visibility::Full)), now);
        state.activity.turn(Ok(activity), now);
        state.statistics.turn(Ok(statistics), now);
        verdicts(&state, now).iter().map(|verdict| verdict.rule).collect()
    }

    fn state() -> DatabaseState {
        let [activity, statistics, storage, rows] = [10, 60, 600, 60].map(Duration::from_secs);
        DatabaseState::new(DatabaseKind::Postgres, &Periods { activity, statistics, storage, rows })
    }

    #[test]
    fn each_rule_of_the_moment_has_its_border() {
        let idle = SessionState::IdleInTransaction;
        for (activity, expected) in [
            (sessions(SessionState::Idle, 79, 0.0), &[][..]),
            (sessions(SessionState::Idle, 80, 0.0), &["connections"]),
            (sessions(idle, 1, 299.0), &[]),
            (sessions(idle, 1, 300.0), &["transaction"]),
            (blocked(idle, 4.9), &[]),
            (blocked(idle, 5.0), &["blocked"]),
        ] {
            assert_eq!(rules(activity.clone(), Statistics::default()), expected, "{activity:?}");
        }
    }

    #[test]
    fn each_rule_of_the_counters_has_its_border() {
        let blocks = |blocks_hit, blocks_read| recent(Counters { blocks_hit, blocks_read, ..Counters::default() });
        let age = |age| {
            let wraparound = Some(Wraparound { age, forced_at: 200 });
            Statistics { wraparound, ..Statistics::default() }
        };
        let slot = |is_active, retained_bytes| {
            let slots = vec![Slot { name: Clean::literal("a"), is_active, retained_bytes }];
            Statistics { slots, ..Statistics::default() }
        };
        let behind = |seconds| Statistics { replay_lag_seconds: Some(seconds), ..Statistics::default() };
        for (statistics, expected) in [
            (blocks(8_000, 1_999), &[][..]),
            (blocks(8_000, 2_000), &["cache"]),
            (blocks(9_000, 1_000), &[]),
            (recent(Counters { deadlocks: 1, ..Counters::default() }), &["deadlocks"]),
            (age(200), &[]),
            (age(201), &["wraparound"]),
            (table(0, 9_999), &[]),
            (table(20_000, 10_000), &[]),
            (table(15_000, 10_000), &["dead_rows"]),
            (slot(false, 2e9), &["slots"]),
            (slot(true, 2e9), &[]),
            (slot(false, 1e9), &[]),
            (behind(29.0), &[]),
            (behind(30.0), &["replication"]),
        ] {
            assert_eq!(rules(Activity::default(), statistics.clone()), expected, "{statistics:?}");
        }
    }

    #[test]
    fn who_sleeps_on_a_lock_is_told() {
        let now = Instant::now();
        let mut state = state();
        state.activity.turn(Ok(blocked(SessionState::IdleInTransaction, 7.0)), now);
        let messages: Vec<String> = verdicts(&state, now).into_iter().map(|verdict| verdict.message).collect();
        let expected = "sessions that wait for locks: 1, the first for 7 s, behind process 1, which does nothing in its transaction";
        assert_eq!(messages, [expected]);
    }

    #[test]
    fn what_is_old_is_told_and_not_judged() {
        let now = Instant::now();
        let mut state = state();
        state.server.turn(Ok(server(Visibility::Partial)), now);
        state.activity.turn(Ok(sessions(SessionState::Idle, 100, 0.0)), now);
        let rules = |state: &DatabaseState, seconds| {
            let then = now + Duration::from_secs(seconds);
            verdicts(state, then).iter().map(|verdict| verdict.rule).collect::<Vec<_>>()
        };
        assert_eq!(rules(&state, 1), ["visibility", "connections"]);
        state.server.turn(Err(Trouble::Timeout), now);
        assert_eq!(rules(&state, 1), ["visibility", "connections"]);
        assert_eq!(rules(&state, 31), ["unreadable"]);
    }

    #[test]
    fn other_kinds_have_no_verdict() {
        let mut state = state();
        state.kind = DatabaseKind::Sqlite;
        assert_eq!(verdicts(&state, Instant::now()), []);
    }
}
