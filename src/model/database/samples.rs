//! The samples of a database's state. What is older than the catalogue allows is left out.

use tokio::time::Instant;

use crate::model::catalogue::Metric;
use crate::model::catalogue::database::{
    BUSINESS_NEWEST_AGE, BUSINESS_PUBLISH_SUCCESS, BUSINESS_PUBLISHES, BUSINESS_ROWS, DATABASE_BLOCKED,
    DATABASE_BLOCKED_AGE, DATABASE_CACHE_HIT_RATIO, DATABASE_CONNECTIONS, DATABASE_FILE_SIZE, DATABASE_READING_AGE,
    DATABASE_READING_FAILURES, DATABASE_REPLAY_LAG, DATABASE_RESETS, DATABASE_SLOT_RETAINED, DATABASE_TRANSACTION_AGE,
    DATABASE_VISIBILITY, DATABASE_WRAPAROUND_AGE, POSTGRESQL_BACKENDS, POSTGRESQL_BLKS_HIT, POSTGRESQL_BLKS_READ,
    POSTGRESQL_COMMITS, POSTGRESQL_CONNECTION_MAX, POSTGRESQL_DB_SIZE, POSTGRESQL_DEADLOCKS,
    POSTGRESQL_REPLICATION_DATA_DELAY, POSTGRESQL_ROLLBACKS, POSTGRESQL_ROWS, POSTGRESQL_TEMP_FILES,
    POSTGRESQL_TEMP_IO, POSTGRESQL_WAL_DELAY,
};
use crate::model::database::business::Business;
use crate::model::database::reading::Reading;
use crate::model::database::values::{
    Activity, Counters, Server, SessionState, Slot, Standby, Statistics, Storage, Visibility,
};
use crate::model::database::{DatabaseKind, DatabaseState};
use crate::model::sample::{LabelValue, Sample};
use crate::model::usage::BusinessRows;
use crate::redact::Clean;
use crate::semconv::DB_NAMESPACE;

/// What a standby does with the log, in the order of its delays.
const OPERATIONS: [&str; 3] = ["write", "flush", "replay"];

/// Where the samples of one part go, if they are young enough.
struct Part<'a> {
    out: &'a mut Vec<Sample>,
    now: Instant,
    namespace: Option<Clean<'static>>,
    /// Seconds since the business was read: ages have grown by as much.
    since: f64,
}

/// Appends all samples of now.
pub fn samples(state: &DatabaseState, now: Instant, out: &mut Vec<Sample>) {
    if matches!(state.kind, DatabaseKind::None | DatabaseKind::InProcess) {
        return;
    }
    let namespace = state.server.last().map(|server| server.namespace.clone());
    let since = state.business.age(now).map_or(0.0, |age| age.as_secs_f64());
    let mut part = Part { out, now, namespace, since };
    if state.kind == DatabaseKind::Postgres {
        part.of(&state.server, "server", server);
        part.of(&state.activity, "activity", activity);
        part.of(&state.statistics, "statistics", statistics);
        part.of(&state.statements, "statements", |_, _| {}); // no labels are made of statements
        part.of(&state.storage, "storage", storage);
    } else {
        part.of(&state.storage, "storage", |storage, part| part.level(&DATABASE_FILE_SIZE, storage.size_bytes as f64));
    }
    part.of(&state.rows, "rows", rows);
    part.of(&state.business, "business", business);
    state.asked.samples(state.kind.word(), part.out);
    if state.kind == DatabaseKind::Postgres {
        state.pool.samples(part.out);
    }
}

impl Part<'_> {
    /// The samples of one reading, with its age and its failures.
    fn of<T>(&mut self, reading: &Reading<T>, name: &'static str, samples: fn(&T, &mut Part<'_>)) {
        if let Some(age) = reading.age(self.now) {
            self.out.push(Sample::level(&DATABASE_READING_AGE, age.as_secs_f64()).with_literal("part", name));
        }
        self.out.push(Sample::count(&DATABASE_READING_FAILURES, reading.failures).with_literal("part", name));
        let (Some(value), Some(age)) = (reading.last(), reading.age(self.now)) else { return };
        let before = self.out.len();
        samples(value, self);
        let read = self.out.split_off(before);
        self.out.extend(read.into_iter().filter(|sample| sample.metric.allows(age, reading.period)));
    }

    fn level(&mut self, metric: &'static Metric, value: f64) {
        self.out.push(Sample::level(metric, value));
    }

    fn of_state(&mut self, metric: &'static Metric, value: f64, state: &'static str) {
        self.out.push(Sample::level(metric, value).with_literal("state", state));
    }

    fn in_namespace(&mut self, sample: Sample) {
        let named = self.namespace.clone().map(LabelValue::Text);
        self.out.push(match named {
            Some(name) => sample.with(DB_NAMESPACE, name),
            None => sample,
        });
    }
}

fn server(server: &Server, part: &mut Part<'_>) {
    part.level(&POSTGRESQL_CONNECTION_MAX, server.connection_limit as f64);
    for visibility in [Visibility::Full, Visibility::Partial] {
        let value = f64::from(u8::from(server.visibility == visibility));
        part.out.push(Sample::level(&DATABASE_VISIBILITY, value).with_literal("visibility", visibility.word()));
    }
}

fn activity(activity: &Activity, part: &mut Part<'_>) {
    for state in SessionState::ALL {
        // a state that nobody is in is 0, so that its series does not end
        let found = activity.sessions.iter().find(|sessions| sessions.state == state);
        let (count, age) = found.map_or((0, 0.0), |found| (found.count, found.longest_transaction_seconds));
        part.of_state(&DATABASE_CONNECTIONS, count as f64, state.word());
        if !matches!(state, SessionState::Idle) {
            part.of_state(&DATABASE_TRANSACTION_AGE, age, state.word());
        }
    }
    part.level(&DATABASE_BLOCKED, activity.waiting.len() as f64);
    part.level(&DATABASE_BLOCKED_AGE, activity.longest_wait_seconds());
}

fn statistics(statistics: &Statistics, part: &mut Part<'_>) {
    part.in_namespace(Sample::level(&POSTGRESQL_BACKENDS, statistics.backends as f64));
    for (metric, count) in counters(&statistics.totals) {
        part.in_namespace(Sample::count(metric, count));
    }
    if let Some(ratio) = statistics.recent.and_then(|recent| recent.hit_ratio()) {
        part.in_namespace(Sample::level(&DATABASE_CACHE_HIT_RATIO, ratio));
    }
    part.out.push(Sample::count(&DATABASE_RESETS, statistics.resets));
    if let Some(wraparound) = statistics.wraparound {
        part.level(&DATABASE_WRAPAROUND_AGE, wraparound.age as f64);
    }
    if let Some(table_rows) = statistics.rows {
        for (state, count) in [("live", table_rows.live), ("dead", table_rows.dead)] {
            part.in_namespace(Sample::level(&POSTGRESQL_ROWS, count as f64).with_literal("state", state));
        }
    }
    statistics.standbys.iter().for_each(|standby| replication(standby, part));
    slots(&statistics.slots, part);
    if let Some(seconds) = statistics.replay_lag_seconds {
        part.level(&DATABASE_REPLAY_LAG, seconds);
    }
}

fn counters(totals: &Counters) -> [(&'static Metric, u64); 7] {
    [
        (&POSTGRESQL_COMMITS, totals.commits),
        (&POSTGRESQL_ROLLBACKS, totals.rollbacks),
        (&POSTGRESQL_DEADLOCKS, totals.deadlocks),
        (&POSTGRESQL_BLKS_HIT, totals.blocks_hit),
        (&POSTGRESQL_BLKS_READ, totals.blocks_read),
        (&POSTGRESQL_TEMP_FILES, totals.temp_files),
        (&POSTGRESQL_TEMP_IO, totals.temp_bytes),
    ]
}

fn replication(standby: &Standby, part: &mut Part<'_>) {
    let client = || LabelValue::Text(standby.client.clone());
    for (operation, delay) in OPERATIONS.into_iter().zip(standby.delays_seconds) {
        let Some(seconds) = delay else { continue };
        let sample = Sample::level(&POSTGRESQL_WAL_DELAY, seconds).with_literal("operation", operation);
        part.out.push(sample.with("replication_client", client()));
    }
    if let Some(bytes) = standby.behind_bytes {
        let sample = Sample::level(&POSTGRESQL_REPLICATION_DATA_DELAY, bytes);
        part.out.push(sample.with("replication_client", client()));
    }
}

/// The furthest behind of each kind: a series for each slot would be named by whoever made it.
fn slots(slots: &[Slot], part: &mut Part<'_>) {
    for (is_active, word) in [(true, "yes"), (false, "no")] {
        let kept = slots.iter().filter(|slot| slot.is_active == is_active).map(|slot| slot.retained_bytes);
        if let Some(bytes) = kept.reduce(f64::max) {
            part.out.push(Sample::level(&DATABASE_SLOT_RETAINED, bytes).with_literal("active", word));
        }
    }
}

fn storage(storage: &Storage, part: &mut Part<'_>) {
    part.in_namespace(Sample::level(&POSTGRESQL_DB_SIZE, storage.size_bytes as f64));
}

fn rows(rows: &BusinessRows, part: &mut Part<'_>) {
    let tables =
        [("products", rows.products), ("videos", rows.videos), ("social_media_posts", rows.social_media_posts)];
    for (table, count) in tables {
        if let Some(count) = count {
            part.out.push(Sample::level(&BUSINESS_ROWS, count as f64).with_literal("table", table));
        }
    }
}

fn business(business: &Business, part: &mut Part<'_>) {
    let since = part.since;
    for (item, age) in [("product", business.newest_product_seconds), ("video", business.newest_video_seconds)] {
        if let Some(seconds) = age {
            part.out.push(Sample::level(&BUSINESS_NEWEST_AGE, seconds + since).with_literal("item", item));
        }
    }
    let Some(publishes) = &business.publishes else { return };
    let outcomes = [("published", publishes.published), ("failed", publishes.failed), ("other", publishes.others)];
    for (outcome, count) in outcomes {
        part.out.push(Sample::level(&BUSINESS_PUBLISHES, count as f64).with_literal("outcome", outcome));
    }
    if let Some(ratio) = publishes.success_ratio() {
        part.out.push(Sample::level(&BUSINESS_PUBLISH_SUCCESS, ratio).with_literal("source", "rows"));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::database::Periods;
    use crate::model::database::values::Sessions;

    const PERIODS: Periods = Periods {
        activity: Duration::from_secs(10),
        statistics: Duration::from_secs(60),
        storage: Duration::from_secs(600),
        rows: Duration::from_secs(60),
    };

    fn names(state: &DatabaseState, now: Instant) -> Vec<&'static str> {
        let mut out = Vec::new();
        samples(state, now, &mut out);
        let mut names: Vec<&str> = out.iter().map(|sample| sample.metric.name).collect();
        names.dedup();
        names
    }

    #[test]
    fn each_part_is_shown_for_three_of_its_turns() {
        let (now, mut state) = (Instant::now(), DatabaseState::new(DatabaseKind::Postgres, &PERIODS));
        state.activity.turn(Ok(Activity::default()), now);
        state.statistics.turn(Ok(Statistics::default()), now);
        state.storage.turn(Ok(Storage { size_bytes: 1 }), now);
        for (seconds, activity, statistics, storage) in [
            (60, true, true, true),
            (61, false, true, true),
            (181, false, false, true),
            (1_800, false, false, true),
            (1_801, false, false, false),
        ] {
            let names = names(&state, now + Duration::from_secs(seconds));
            let shown = ["content_factory.database.blocked", "postgresql.commits", "postgresql.db_size"]
                .map(|name| names.contains(&name));
            assert_eq!(shown, [activity, statistics, storage], "after {seconds} s");
        }
    }

    #[test]
    fn without_a_database_there_is_nothing_and_without_an_answer_only_that_and_our_side_of_it() {
        let now = Instant::now();
        for kind in [DatabaseKind::None, DatabaseKind::InProcess] {
            assert_eq!(names(&DatabaseState::new(kind, &PERIODS), now), [""; 0]);
        }
        let silent = DatabaseState::new(DatabaseKind::Postgres, &PERIODS);
        let ours = ["count", "max", "timeouts"].map(|end| format!("db.client.connection.{end}"));
        assert_eq!(names(&silent, now)[..1], ["content_factory.database.reading.failures"]);
        assert_eq!(names(&silent, now)[1..], ours);
    }

    #[test]
    fn a_state_that_nobody_is_in_is_zero() {
        let (now, mut state) = (Instant::now(), DatabaseState::new(DatabaseKind::Postgres, &PERIODS));
        let active = Sessions { state: SessionState::Active, count: 3, longest_transaction_seconds: 1.5 };
        state.activity.turn(Ok(Activity { sessions: vec![active], ..Activity::default() }), now);
        let mut out = Vec::new();
        samples(&state, now, &mut out);
        let connections = out.iter().filter(|sample| std::ptr::eq(sample.metric, &DATABASE_CONNECTIONS));
        assert_eq!(connections.count(), SessionState::ALL.len());
    }
}
