//! Our own connections to the application's database, as `db.client.connection.*` tells of them, over real servers.

use content_factory_sidecar::database;
use content_factory_sidecar::model::database::DatabaseState;
use content_factory_sidecar::model::sample::{LabelValue, Sample, SampleValue};

use crate::checks_services::black_hole;
use crate::database_room::Room;
use crate::database_servers::Postgres;

/// The values of a metric, each with its state, if it has one; of histograms the counts.
fn values(state: &DatabaseState, name: &str) -> Vec<(String, f64)> {
    let mut samples: Vec<Sample> = Vec::new();
    let (sender, reader) = tokio::sync::watch::channel(state.clone());
    database::samples(reader)(&mut samples);
    drop(sender);
    let of = samples.into_iter().filter(|sample| sample.metric.name == name);
    of.map(|sample| {
        let label = |wanted: &str| {
            let found = sample.labels.iter().find(|(name, _)| *name == wanted)?;
            match &found.1 {
                LabelValue::Text(text) => Some(text.to_string()),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(label("db.client.connection.pool.name").as_deref(), Some("cf-sidecar"), "{name}");
        let value = match &sample.value {
            SampleValue::Histogram(histogram) => histogram.count as f64,
            SampleValue::Level(level) => *level,
            SampleValue::Count(count) => *count as f64,
            other => panic!("{other:?}"),
        };
        (label("db.client.connection.state").unwrap_or_default(), value)
    })
    .collect()
}

fn value(state: &DatabaseState, name: &str, of: &str) -> f64 {
    let found = values(state, name);
    found.iter().find(|(label, _)| label == of).unwrap_or_else(|| panic!("{name} {of} is not in {found:?}")).1
}

#[tokio::test]
async fn two_connections_are_opened_once_and_used_by_every_question() {
    let postgres = Postgres::start(&[]).await;
    let mut room = Room::start(&postgres.url("cf_sidecar"));
    let uses = |state: &DatabaseState| values(state, "db.client.connection.use_time").first().map(|(_, count)| *count);
    let many =
        room.until("many questions", |state| uses(state).filter(|count| *count > 50.0).map(|_| state.clone())).await;
    assert_eq!(value(&many, "db.client.connection.max", ""), 2.0);
    assert_eq!(value(&many, "db.client.connection.create_time", ""), 2.0, "one login each");
    assert_eq!(value(&many, "db.client.connection.timeouts", ""), 0.0);
    let [idle, used] = ["idle", "used"].map(|of| value(&many, "db.client.connection.count", of));
    assert_eq!(idle + used, 2.0);
    let ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cf-sidecar'";
    assert_eq!(postgres.number(ours).await, 2, "the server counts the same");
}

#[tokio::test]
async fn a_connection_is_used_while_its_question_waits_and_idle_when_none_is_under_way() {
    let postgres = Postgres::start(&[]).await;
    let mut room = Room::start(&postgres.url("cf_sidecar"));
    let used = |state: &DatabaseState| value(state, "db.client.connection.count", "used");
    room.until("rows", |state| state.rows.current().copied()).await;
    let mut holder = postgres.connect("factory").await;
    sqlx::raw_sql("BEGIN; LOCK TABLE products").execute(&mut holder).await.expect("a lock");
    // the turns of the other connection go on, and show this one at work
    room.until("a question that waits for the lock", |state| (used(state) >= 1.0).then_some(())).await;
    sqlx::raw_sql("COMMIT").execute(&mut holder).await.expect("the lock is given back");
    room.until("both at rest", |state| (used(state) == 0.0).then_some(())).await;
}

#[tokio::test]
async fn connections_that_the_server_ends_are_counted_out_and_opened_anew() {
    let postgres = Postgres::start(&[]).await;
    let mut room = Room::start(&postgres.url("cf_sidecar"));
    let logins =
        |state: &DatabaseState| values(state, "db.client.connection.create_time").first().map(|(_, count)| *count);
    room.until("two logins", |state| logins(state).filter(|count| *count == 2.0)).await;
    postgres.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cf-sidecar'").await;
    let again = |state: &DatabaseState| logins(state).filter(|count| *count == 4.0).map(|_| state.clone());
    let state = room.until("two more", again).await;
    let open: f64 = values(&state, "db.client.connection.count").iter().map(|(_, count)| count).sum();
    assert_eq!(open, 2.0, "those that were ended are none");
}

#[tokio::test]
async fn a_login_that_never_ends_is_a_timeout_and_no_connection() {
    let mut room = Room::start(&format!("postgresql://u:canary-canary@{}/x", black_hole()));
    let timeouts = |state: &DatabaseState| value(state, "db.client.connection.timeouts", "");
    let state = room.until("a login of each", |state| (timeouts(state) >= 2.0).then(|| state.clone())).await;
    assert_eq!(values(&state, "db.client.connection.create_time"), []);
    let open: f64 = values(&state, "db.client.connection.count").iter().map(|(_, count)| count).sum();
    assert_eq!(open, 0.0);
}

#[tokio::test]
async fn a_file_of_sqlite_has_no_such_connections() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("app.db");
    std::fs::write(&file, "").expect("an empty file is an empty database");
    let mut room = Room::start(&format!("sqlite:///{}", file.display()));
    let state = room.until("its size", |state| state.storage.current().map(|_| state.clone())).await;
    assert_eq!(values(&state, "db.client.connection.max"), []);
}
