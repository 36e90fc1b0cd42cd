//! The metrics of our own connections to the application's database, by the conventions for pools of connections.

use crate::model::catalogue::metric::{Metric, MetricKind, metric};
use crate::semconv;

/// Bounds for a login and for a question, in seconds.
pub const POOL_SECONDS: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

const OF_POOL: &[&str] = &[semconv::DB_CLIENT_CONNECTION_POOL_NAME];

/// Open connections.
pub static DB_CLIENT_CONNECTION_COUNT: Metric = metric(
    "db.client.connection.count",
    "{connection}",
    MetricKind::UpDownCounter,
    &[semconv::DB_CLIENT_CONNECTION_POOL_NAME, semconv::DB_CLIENT_CONNECTION_STATE],
    "The sidecar's own open connections to the application's database (PostgreSQL), without that of the health check, by state: `idle`, or \
     `used` by a question under way.",
);

/// As many as there may be.
pub static DB_CLIENT_CONNECTION_MAX: Metric = metric(
    "db.client.connection.max",
    "{connection}",
    MetricKind::UpDownCounter,
    OF_POOL,
    "Connections of its own that the sidecar opens to the application's database at most: one for each of its readers, which never wait for \
     each other's.",
);

/// Connections that did not come in time.
pub static DB_CLIENT_CONNECTION_TIMEOUTS: Metric = metric(
    "db.client.connection.timeouts",
    "{timeout}",
    MetricKind::Counter,
    OF_POOL,
    "Attempts of the sidecar to open a connection to the application's database that took longer than 2 s.",
);

/// How long it took to open them.
pub static DB_CLIENT_CONNECTION_CREATE_TIME: Metric = metric(
    "db.client.connection.create_time",
    "s",
    MetricKind::Histogram(POOL_SECONDS),
    OF_POOL,
    "Time that it took to open each of the sidecar's connections to the application's database, its login included.",
);

/// How long a question had one.
pub static DB_CLIENT_CONNECTION_USE_TIME: Metric = metric(
    "db.client.connection.use_time",
    "s",
    MetricKind::Histogram(POOL_SECONDS),
    OF_POOL,
    "Time for which a question of the sidecar had its connection to the application's database.",
);
