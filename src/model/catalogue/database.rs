//! The metrics of the application's database: under the names of the collector's receiver for PostgreSQL where it has
//! one, so that dashboards made for it work, else under our own.

use std::time::Duration;

use crate::model::catalogue::metric::{Metric, MetricKind, Scope, of_cluster};
use crate::semconv;

/// What is read each ten seconds; what is read more seldom is shown for three of its own periods.
const READ: Duration = Duration::from_secs(60);
const OF_DATABASE: &[&str] = &[semconv::DB_NAMESPACE];

const fn metric(
    name: &'static str,
    unit: &'static str,
    kind: MetricKind,
    labels: &'static [&'static str],
    about: &'static str,
) -> Metric {
    Metric { max_age: READ, ..of_cluster(name, unit, kind, labels, about) }
}

const fn counter(name: &'static str, unit: &'static str, about: &'static str) -> Metric {
    metric(name, unit, MetricKind::Counter, OF_DATABASE, about)
}

/// Connections to the database.
pub static POSTGRESQL_BACKENDS: Metric = metric(
    "postgresql.backends",
    "1",
    MetricKind::UpDownCounter,
    OF_DATABASE,
    "Connections to the application's database, of any kind.",
);

/// The limit of connections.
pub static POSTGRESQL_CONNECTION_MAX: Metric = metric(
    "postgresql.connection.max",
    "{connections}",
    MetricKind::Gauge,
    &[],
    "Connections that an ordinary role may share with all others: `max_connections` without what is reserved.",
);

/// Commits.
pub static POSTGRESQL_COMMITS: Metric =
    counter("postgresql.commits", "1", "Transactions committed, the sidecar's own among them (some 45 a minute).");

/// Rollbacks.
pub static POSTGRESQL_ROLLBACKS: Metric = counter("postgresql.rollbacks", "1", "Transactions rolled back.");

/// Deadlocks.
pub static POSTGRESQL_DEADLOCKS: Metric = counter(
    "postgresql.deadlocks",
    "{deadlock}",
    "Deadlocks that the server ended by failing one of the transactions.",
);

/// Blocks from the cache.
pub static POSTGRESQL_BLKS_HIT: Metric =
    counter("postgresql.blks_hit", "{blks_hit}", "Blocks that were found in the server's cache.");

/// Blocks not from the cache.
pub static POSTGRESQL_BLKS_READ: Metric =
    counter("postgresql.blks_read", "{blks_read}", "Blocks that were not in the server's cache.");

/// Temporary files.
pub static POSTGRESQL_TEMP_FILES: Metric =
    counter("postgresql.temp_files", "{temp_file}", "Temporary files of statements that did not fit into memory.");

/// Bytes of temporary files.
pub static POSTGRESQL_TEMP_IO: Metric = counter("postgresql.temp.io", "By", "Bytes written to temporary files.");

/// Size of the database.
pub static POSTGRESQL_DB_SIZE: Metric =
    metric("postgresql.db_size", "By", MetricKind::UpDownCounter, OF_DATABASE, "Size of the database on disk.");

/// Size of a file.
pub static DATABASE_FILE_SIZE: Metric = metric(
    "content_factory.database.file.size",
    "By",
    MetricKind::UpDownCounter,
    &[],
    "Size of the application's database where it is a file of SQLite.",
);

/// Rows by state.
pub static POSTGRESQL_ROWS: Metric = metric(
    "postgresql.rows",
    "1",
    MetricKind::UpDownCounter,
    &["state", semconv::DB_NAMESPACE],
    "Rows of all tables together, as the server estimates them: `live`, and `dead` ones that vacuum has not cleared away.",
);

/// Delay of standbys in time.
pub static POSTGRESQL_WAL_DELAY: Metric = metric(
    "postgresql.wal.delay",
    "s",
    MetricKind::Gauge,
    &["operation", "replication_client"],
    "Time until a standby has written, flushed and replayed what was written here; none while nothing is written.",
);

/// Delay of standbys in bytes.
pub static POSTGRESQL_REPLICATION_DATA_DELAY: Metric = metric(
    "postgresql.replication.data_delay",
    "By",
    MetricKind::Gauge,
    &["replication_client"],
    "Bytes of the log that a standby has not replayed.",
);

/// Connections by state.
pub static DATABASE_CONNECTIONS: Metric = metric(
    "content_factory.database.connections",
    "{connection}",
    MetricKind::UpDownCounter,
    &["state"],
    "Client connections of the whole server by state, which share `postgresql.connection.max`.",
);

/// The oldest transaction.
pub static DATABASE_TRANSACTION_AGE: Metric = metric(
    "content_factory.database.transaction.age",
    "s",
    MetricKind::Gauge,
    &["state"],
    "Age of the oldest transaction of a client, by the state of its session.",
);

/// Sessions that wait.
pub static DATABASE_BLOCKED: Metric = metric(
    "content_factory.database.blocked",
    "{session}",
    MetricKind::UpDownCounter,
    &[],
    "Sessions that wait for a lock of another one.",
);

/// The longest wait.
pub static DATABASE_BLOCKED_AGE: Metric = metric(
    "content_factory.database.blocked.age",
    "s",
    MetricKind::Gauge,
    &[],
    "How long the first of the sessions that wait for a lock has waited; 0 when none does.",
);

/// The share of blocks from the cache.
pub static DATABASE_CACHE_HIT_RATIO: Metric = metric(
    "content_factory.database.cache.hit_ratio",
    "1",
    MetricKind::Gauge,
    OF_DATABASE,
    "Share of the blocks asked for in the last interval that were in the server's cache.",
);

/// The age of transaction numbers.
pub static DATABASE_WRAPAROUND_AGE: Metric = metric(
    "content_factory.database.wraparound.age",
    "{transaction}",
    MetricKind::Gauge,
    &[],
    "Transactions since the oldest one of any database that is not frozen; the server stops writing at 2^31.",
);

/// What slots keep.
pub static DATABASE_SLOT_RETAINED: Metric = metric(
    "content_factory.database.slots.retained",
    "By",
    MetricKind::Gauge,
    &["active"],
    "Bytes of the log that the replication slot furthest behind keeps, of those that are read and those that nobody reads.",
);

/// How far a standby is behind.
pub static DATABASE_REPLAY_LAG: Metric = metric(
    "content_factory.database.replay.lag",
    "s",
    MetricKind::Gauge,
    &[],
    "How far the server is behind the one that it follows; none for a server that follows nobody.",
);

/// Resets of the statistics.
pub static DATABASE_RESETS: Metric = metric(
    "content_factory.database.statistics.resets",
    "{reset}",
    MetricKind::Counter,
    &[],
    "Resets of the server's statistics that were seen; the counters go on over them.",
);

/// What we may see.
pub static DATABASE_VISIBILITY: Metric = metric(
    "content_factory.database.visibility",
    "1",
    MetricKind::UpDownCounter,
    &["visibility"],
    "1 for what the server shows to the sidecar's role: `full`, or `partial` without `pg_monitor`; 0 for the other.",
);

/// The age of readings.
pub static DATABASE_READING_AGE: Metric = Metric {
    scope: Scope::Pod,
    max_age: Duration::ZERO,
    ..metric(
        "content_factory.database.reading.age",
        "s",
        MetricKind::Gauge,
        &["part"],
        "Time since a part of the database's numbers was read.",
    )
};

/// The bounds that the conventions advise for questions to a database, in seconds.
pub const DB_SECONDS: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

/// Durations of our own questions.
pub static DB_CLIENT_OPERATION_DURATION: Metric = Metric {
    scope: Scope::Pod,
    max_age: Duration::ZERO,
    ..metric(
        "db.client.operation.duration",
        "s",
        MetricKind::Histogram(DB_SECONDS),
        &[semconv::DB_SYSTEM_NAME, semconv::DB_OPERATION_NAME, semconv::ERROR_TYPE],
        "Duration of the sidecar's own questions to the application's database, by the part that they are asked for: what it costs the database.",
    )
};

/// Readings that failed.
pub static DATABASE_READING_FAILURES: Metric = Metric {
    scope: Scope::Pod,
    max_age: Duration::ZERO,
    ..metric(
        "content_factory.database.reading.failures",
        "{reading}",
        MetricKind::Counter,
        &["part"],
        "Turns in which a part of the database's numbers could not be read.",
    )
};

/// Rows of the business tables.
pub static BUSINESS_ROWS: Metric = metric(
    "content_factory.business.rows",
    "{row}",
    MetricKind::UpDownCounter,
    &["table"],
    "Rows of a business table: exact up to 100,000, above as the server estimates them.",
);

/// The age of the newest rows.
pub static BUSINESS_NEWEST_AGE: Metric = metric(
    "content_factory.business.newest.age",
    "s",
    MetricKind::Gauge,
    &["item"],
    "Age of the newest product and of the newest finished video (`database.business`).",
);

/// Publishes by their outcome.
pub static BUSINESS_PUBLISHES: Metric = metric(
    "content_factory.business.publishes",
    "{post}",
    MetricKind::UpDownCounter,
    &["outcome"],
    "The newest rows of publishes (500 by default) by outcome: `published`, `failed`, and `other` statuses.",
);

/// The share of publishes that went well.
pub static BUSINESS_PUBLISH_SUCCESS: Metric = metric(
    "content_factory.business.publish.success_ratio",
    "1",
    MetricKind::Gauge,
    &["source"],
    "Share of publishes that went well, of those that ended, by source: the newest rows (`rows`), and since the start the tasks of `celery.publish_tasks` (`tasks`) and the answers of `proxy.taps` (`answers`).",
);

/// Publishes as the application answered them.
pub static BUSINESS_PUBLISH_ANSWERS: Metric = Metric {
    scope: Scope::Pod,
    max_age: Duration::ZERO,
    ..metric(
        "content_factory.business.publish.answers",
        "{publish}",
        MetricKind::Counter,
        &["outcome"],
        "Publishes in the answers of the routes in `proxy.taps`, one for each of their `results`: published, failed, other, and answers that could not be read (unread).",
    )
};
