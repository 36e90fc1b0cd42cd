//! The numbers of the business, from real databases: what they say, and what they cost.

use std::time::Duration;

use content_factory_sidecar::database::config::Questions;
use content_factory_sidecar::model::database::DatabaseState;
use content_factory_sidecar::model::database::business::Business;
use content_factory_sidecar::model::trouble::Trouble;
use content_factory_sidecar::model::usage::BusinessRows;
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use crate::database_room::Room;
use crate::database_servers::{PgBouncer, Postgres};

const FILLED: &str = "INSERT INTO products (name, created_at) VALUES ('old', now() - interval '3 days'), ('new', now() - interval '1 hour'); \
     INSERT INTO videos (status, created_at) VALUES ('completed', now() - interval '2 hours'), ('pending', now()); \
     INSERT INTO social_media_posts (status) VALUES ('published'), ('published'), ('failed'), ('scheduled')";

fn business(state: &DatabaseState) -> Option<Business> {
    state.business.current().cloned()
}

/// Whether an age is of so many hours, give or take what a test takes.
fn is_hours(age: Option<f64>, hours: f64) -> bool {
    age.is_some_and(|seconds| (hours * 3_600.0..hours * 3_600.0 + 300.0).contains(&seconds))
}

#[track_caller]
fn assert_filled(found: &Business) {
    assert!(is_hours(found.newest_product_seconds, 1.0), "{found:?}");
    assert!(is_hours(found.newest_video_seconds, 2.0), "the newest one that is finished: {found:?}");
    let publishes = found.publishes.as_ref().expect("publishes");
    assert_eq!((publishes.published, publishes.failed, publishes.others), (2, 1, 1));
    assert_eq!(publishes.by_status[0].0.as_str(), "published");
    assert_eq!(publishes.by_status.len(), 3);
}

#[tokio::test]
async fn the_newest_rows_are_told_by_the_documented_role() {
    let postgres = Postgres::start(&[]).await;
    postgres.run(FILLED).await;
    let mut room = Room::start(&postgres.url("cf_sidecar"));
    assert_filled(&room.until("the business", business).await);
}

#[tokio::test]
async fn a_file_of_sqlite_tells_the_same() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("app.db");
    let options = SqliteConnectOptions::new().filename(&file).create_if_missing(true);
    let mut application = SqliteConnection::connect_with(&options).await.expect("a new database");
    let fill = "CREATE TABLE products (id INTEGER PRIMARY KEY, created_at TEXT); \
         CREATE TABLE videos (id INTEGER PRIMARY KEY, status TEXT, created_at TEXT); \
         CREATE TABLE social_media_posts (id INTEGER PRIMARY KEY, status TEXT, created_at TEXT); \
         INSERT INTO products (created_at) VALUES (datetime('now', '-3 days')), (datetime('now', '-1 hour')); \
         INSERT INTO videos (status, created_at) VALUES ('completed', datetime('now', '-2 hours')), ('pending', datetime('now')); \
         INSERT INTO social_media_posts (status) VALUES ('published'), ('published'), ('failed'), ('scheduled')";
    sqlx::raw_sql(fill).execute(&mut application).await.expect("tables");
    let mut room = Room::start(&format!("sqlite:///{}", file.display()));
    assert_filled(&room.until("the business", business).await);
    let size = room.until("the size", |state| state.storage.current().copied()).await;
    assert_eq!(size.size_bytes, std::fs::metadata(&file).expect("a file").len());
}

#[tokio::test]
async fn empty_tables_have_no_age_and_no_rate() {
    let postgres = Postgres::start(&[]).await;
    let mut room = Room::start(&postgres.url("cf_sidecar"));
    let found = room.until("the business", business).await;
    assert_eq!((found.newest_product_seconds, found.newest_video_seconds), (None, None));
    assert_eq!(found.publishes.expect("an answer").success_ratio(), None);
}

#[tokio::test]
async fn tables_that_are_not_there_or_not_ours_are_not_asked_for() {
    let postgres = Postgres::start(&[]).await;
    postgres.run("DROP TABLE products; REVOKE ALL ON videos FROM cf_sidecar").await;
    let mut room = Room::start(&postgres.url("cf_sidecar"));
    let found = room.until("the business", business).await;
    assert_eq!((found.newest_product_seconds, found.newest_video_seconds), (None, None));
    let rows = room.until("rows", |state| state.rows.current().copied()).await;
    assert_eq!(rows, BusinessRows { products: None, videos: None, social_media_posts: Some(0) });
    assert!(!postgres.log().contains("ERROR"), "its log is not filled with our questions: {}", postgres.log());
}

#[tokio::test]
async fn a_question_of_ones_own_can_neither_write_nor_take_long() {
    let postgres = Postgres::start(&[]).await;
    // as the owner of the tables: what stops it are our limits, not its rights
    assert_limited(&postgres, &postgres.url("factory")).await;
}

#[tokio::test]
async fn through_a_pooler_that_refuses_options_the_same_limits_hold() {
    let postgres = Postgres::start(&[]).await;
    let pooler = PgBouncer::start(&postgres).await;
    let url = postgres.url("factory").replace(&postgres.address.to_string(), &pooler.address.to_string());
    assert_limited(&postgres, &url).await;
}

/// One question of these writes and one is slow: both are stopped by the server, and the third is answered.
async fn assert_limited(postgres: &Postgres, url: &str) {
    let questions = Questions {
        newest_product: "SELECT now() FROM (SELECT nextval('products_id_seq')) taken".into(),
        newest_video: "SELECT now() FROM (SELECT pg_sleep(30)) slept".into(),
        ..Questions::default()
    };
    let mut room = Room::asking(url, questions);
    let found = room.until("the business", business).await;
    assert_eq!((found.newest_product_seconds, found.newest_video_seconds), (None, None));
    assert!(found.publishes.is_some(), "the other question is answered");
    let log = postgres.log();
    assert!(log.contains("cannot execute nextval() in a read-only transaction"), "{log}");
    assert!(log.contains("canceling statement due to statement timeout"), "{log}");
    assert_eq!(room.reader.borrow().activity.trouble(), None::<Trouble>);
}

/// The tables with two million rows each; keys come last, which is quicker.
const MILLIONS: &str = "ALTER TABLE products SET UNLOGGED; ALTER TABLE products DROP CONSTRAINT products_pkey; \
     INSERT INTO products (name) SELECT 'x' FROM generate_series(1, 2000000); ALTER TABLE products ADD PRIMARY KEY (id); \
     ALTER TABLE videos SET UNLOGGED; ALTER TABLE videos DROP CONSTRAINT videos_pkey; \
     INSERT INTO videos (status) SELECT 'completed' FROM generate_series(1, 2000000); ALTER TABLE videos ADD PRIMARY KEY (id); \
     ALTER TABLE social_media_posts SET UNLOGGED; ALTER TABLE social_media_posts DROP CONSTRAINT social_media_posts_pkey; \
     INSERT INTO social_media_posts (status) SELECT 'published' FROM generate_series(1, 2000000); \
     ALTER TABLE social_media_posts ADD PRIMARY KEY (id)";
/// The server writes the plan of each statement of ours into its log.
const EXPLAINED: &str = "ALTER ROLE cf_sidecar SET session_preload_libraries = 'auto_explain'; \
     ALTER ROLE cf_sidecar SET auto_explain.log_min_duration = 0";
const SCANS: &str = "SELECT sum(seq_scan)::int8 FROM pg_stat_user_tables \
     WHERE relname IN ('products', 'videos', 'social_media_posts')";

#[tokio::test]
async fn no_table_of_two_million_rows_is_ever_scanned() {
    let postgres = Postgres::start(&["autovacuum=off", "wal_level=minimal", "max_wal_senders=0"]).await;
    postgres.run(MILLIONS).await;
    postgres.run(EXPLAINED).await;
    let before = postgres.number(SCANS).await;
    let mut room = Room::start(&postgres.url("cf_sidecar"));
    // first as the load left them, which nobody has analysed; then analysed
    for analyse in ["SELECT 1", "ANALYZE"] {
        postgres.run(analyse).await;
        let failures = room.reader.borrow().business.failures;
        let rows = room.until("rows", |state| state.rows.current().copied()).await;
        let about = |count: Option<u64>| count.is_some_and(|count| count.abs_diff(2_000_000) < 50_000);
        assert!([rows.products, rows.videos, rows.social_media_posts].into_iter().all(about), "{analyse}: {rows:?}");
        let found = room.until("the business", business).await;
        assert!(found.newest_product_seconds.is_some() && found.newest_video_seconds.is_some(), "{analyse}: {found:?}");
        assert_eq!(found.publishes.map(|publishes| publishes.published), Some(500), "{analyse}");
        // plans of the time after the analysis, too
        room.reader.mark_unchanged();
        for _ in 0..20 {
            tokio::time::timeout(Duration::from_secs(30), room.reader.changed())
                .await
                .expect("turns")
                .expect("it lives");
        }
        assert_eq!(room.reader.borrow().business.failures, failures, "{analyse}");
    }
    drop(room);
    let log = postgres.log();
    for table in ["products", "videos", "social_media_posts"] {
        assert!(log.contains(&format!("Index Scan Backward using {table}_pkey")), "no plan of {table}: {log}");
        assert!(!log.contains(&format!("Seq Scan on {table}")), "{log}");
    }
    assert_eq!(postgres.number(SCANS).await, before, "the server's own count of scans");
}
