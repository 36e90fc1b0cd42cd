//! Business rows of a real file of SQLite, and the numbers of this machine.

use std::sync::Arc;
use std::time::Duration;

use content_factory_sidecar::database::config::Questions;
use content_factory_sidecar::lifecycle::drain;
use content_factory_sidecar::model::dsn::DatabaseAddress;
use content_factory_sidecar::model::usage::BusinessRows;
use content_factory_sidecar::redact::Redactor;
use content_factory_sidecar::{database, system};
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tokio::time::timeout;

use crate::checks_services::black_hole;
use crate::database_room::QUICK;

const PATIENCE: Duration = Duration::from_secs(30);

fn database_room(url: &str) -> (database::Database, database::Reader) {
    let address = Some(DatabaseAddress::parse(url).expect("an address of a database"));
    let config =
        database::config::Config { questions: Questions::default(), statements: true, address, periods: QUICK };
    database::build(config, Arc::new(Redactor::new([])))
}

#[tokio::test]
async fn rows_are_counted_anew_and_a_missing_table_is_unknown() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("app.db");
    let options = SqliteConnectOptions::new().filename(&file).create_if_missing(true);
    let mut application = SqliteConnection::connect_with(&options).await.expect("a new database");
    let fill =
        "CREATE TABLE products (id INTEGER); INSERT INTO products VALUES (1), (2); CREATE TABLE videos (id INTEGER)";
    sqlx::raw_sql(fill).execute(&mut application).await.expect("tables");
    let (room, mut reader) = database_room(&format!("sqlite:///{}", file.display()));
    let (conductor, drain) = drain();
    let counting = room.run(drain);
    let watching = async {
        let first = BusinessRows { products: Some(2), videos: Some(0), social_media_posts: None };
        reader.wait_for(|state| state.business_rows() == first).await.expect("the room lives");
        sqlx::raw_sql("INSERT INTO videos VALUES (1)").execute(&mut application).await.expect("we hold no lock");
        reader.wait_for(|state| state.business_rows().videos == Some(1)).await.expect("the room lives");
        conductor.drain_within(PATIENCE);
    };
    timeout(PATIENCE, async { tokio::join!(counting, watching) }).await.expect("counted, and ended with the drain");
}

#[tokio::test]
async fn a_database_that_never_answers_leaves_the_rows_unknown() {
    let (room, mut reader) = database_room(&format!("postgresql://u:p@{}/x", black_hole()));
    let (conductor, drain) = drain();
    let watching = async {
        reader.wait_for(|state| state.rows.trouble().is_some()).await.expect("the room lives");
        assert_eq!(reader.borrow().business_rows(), BusinessRows::default());
        conductor.drain_within(PATIENCE);
    };
    timeout(PATIENCE, async { tokio::join!(room.run(drain), watching) }).await.expect("gave up in time");
}

#[tokio::test]
async fn the_machine_is_sampled_in_the_background() {
    let config = system::config::Config { period: Duration::from_millis(200), cgroup: None };
    let (room, mut reader) = system::build(&config, std::env::temp_dir());
    let (conductor, drain) = drain();
    let watching = async {
        for _ in 0..3 {
            reader.changed().await.expect("the room lives");
        }
        let usage = reader.borrow().clone();
        assert!(usage.memory_total_bytes > 0 && usage.disk_total_bytes > 0, "{usage:?}");
        assert!(usage.process.memory_bytes > 0 && usage.process.threads > 0, "{usage:?}");
        conductor.drain_within(PATIENCE);
    };
    timeout(PATIENCE, async { tokio::join!(room.run(drain), watching) }).await.expect("sampled in time");
    let mut samples = Vec::new();
    system::samples(&room.tuner(), reader)(&mut samples);
    let names: Vec<&str> = samples.iter().map(|sample| sample.metric.name).collect();
    assert!(names.contains(&"process.cpu.time"), "{names:?}");
    // what this machine's kernel tells is told
    for (file, name) in [
        ("/proc/pressure/memory", "content_factory.pressure.time"),
        ("/sys/fs/cgroup/memory.current", "container.memory.usage"),
        ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "container.memory.usage"),
    ] {
        assert!(!std::path::Path::new(file).exists() || names.contains(&name), "{file}: {names:?}");
    }
}
