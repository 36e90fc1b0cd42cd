//! A real PostgreSQL as the room reads it, with the role that docs/database.md gives.

use content_factory_sidecar::model::database::DatabaseState;
use content_factory_sidecar::model::database::values::{Activity, SessionState, Statistics, Visibility};
use content_factory_sidecar::model::trouble::Trouble;
use content_factory_sidecar::model::usage::BusinessRows;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, Row};
use tokio::time::timeout;

use crate::api_port::PATIENCE;
use crate::database_room::Room;
use crate::database_servers::{PASSWORD, PgBouncer, Postgres};

fn activity(state: &DatabaseState) -> Option<&Activity> {
    state.activity.current()
}

fn statistics(state: &DatabaseState) -> Option<&Statistics> {
    state.statistics.current()
}

/// How many sessions there are in a state.
fn sessions(state: &DatabaseState, wanted: SessionState) -> u64 {
    let found = activity(state).and_then(|activity| activity.sessions.iter().find(|found| found.state == wanted));
    found.map_or(0, |found| found.count)
}

async fn run(connection: &mut PgConnection, statements: &'static str) {
    sqlx::raw_sql(statements).execute(connection).await.expect("the statements");
}

#[tokio::test]
async fn with_the_documented_role_every_session_is_seen_and_the_limit_beside_it() {
    let postgres = Postgres::start(&["max_connections=40", "superuser_reserved_connections=3"]).await;
    let mut sleeper = postgres.connect("factory").await;
    run(&mut sleeper, "BEGIN; SELECT * FROM products").await;
    let mut room = Room::start(&postgres.url("cf_sidecar"));
    let is_seen = |state: &DatabaseState| (sessions(state, SessionState::IdleInTransaction) == 1).then_some(());
    room.until("the open transaction", is_seen).await;
    let server = room.reader.borrow().server.current().cloned().expect("it answers");
    assert_eq!((server.visibility, server.connection_limit, server.is_standby), (Visibility::Full, 37, false));
    assert_eq!((server.role.as_str(), server.namespace.as_str()), ("cf_sidecar", "postgres"));
    assert!(server.version.as_str().starts_with(|first: char| first.is_ascii_digit()), "{server:?}");
    let longest = room.reader.borrow().activity.current().map(Activity::longest_transaction_seconds);
    assert!(longest.is_some_and(|seconds| seconds > 0.0), "{longest:?}");
}

#[tokio::test]
async fn without_pg_monitor_visibility_is_partial_and_comes_back_with_the_grant() {
    let postgres = Postgres::start(&[]).await;
    postgres.run("REVOKE pg_monitor FROM cf_sidecar").await;
    let mut sleeper = postgres.connect("factory").await;
    run(&mut sleeper, "BEGIN; SELECT 1").await;
    let mut room = Room::start(&postgres.url("cf_sidecar"));
    let visibility = |state: &DatabaseState| Some(state.server.current()?.visibility);
    let is = |wanted| move |state: &DatabaseState| visibility(state).filter(|found| *found == wanted);
    room.until("partial visibility", is(Visibility::Partial)).await;
    room.until("hidden sessions", |state| (sessions(state, SessionState::Unknown) > 0).then_some(())).await;
    assert_eq!(sessions(&room.reader.borrow(), SessionState::IdleInTransaction), 0);
    postgres.run("GRANT pg_monitor TO cf_sidecar").await;
    room.until("full visibility", is(Visibility::Full)).await;
    let is_seen = |state: &DatabaseState| (sessions(state, SessionState::IdleInTransaction) == 1).then_some(());
    room.until("the open transaction", is_seen).await;
}

#[tokio::test]
async fn a_held_lock_is_seen_with_who_holds_it_and_who_waits() {
    let postgres = Postgres::start(&[]).await;
    postgres.run("INSERT INTO videos (status) VALUES ('pending')").await;
    let (mut holder, mut first, mut second) =
        (postgres.connect("factory").await, postgres.connect("factory").await, postgres.connect("factory").await);
    run(&mut holder, "BEGIN; UPDATE videos SET status = 'completed'").await;
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut holder).await.expect("its number");
    let mut room = Room::start(&postgres.url("cf_sidecar"));
    let update = "UPDATE videos SET status = 'failed'";
    let watching = async {
        let whole =
            |state: &DatabaseState| activity(state)?.chains.first().filter(|chain| chain.sessions == 2).cloned();
        let chain = room.until("a chain of two", whole).await;
        assert_eq!((chain.root, chain.state), (i64::from(pid), SessionState::IdleInTransaction));
        let running = room.until("what runs", |state| activity(state).map(|activity| activity.running.clone())).await;
        let waits = running.iter().filter_map(|running| running.waits_for.as_ref());
        assert!(waits.clone().any(|waits| waits.as_str().starts_with("Lock:")), "{running:?}");
        run(&mut holder, "COMMIT").await;
        room.until("nobody waiting", |state| activity(state)?.waiting.is_empty().then_some(())).await;
    };
    tokio::join!(run(&mut first, update), run(&mut second, update), watching);
}

#[tokio::test]
async fn a_locked_table_is_unknown_after_half_a_second_and_all_else_is_read() {
    let postgres = Postgres::start(&[]).await;
    let mut room = Room::start(&postgres.url("cf_sidecar"));
    room.until("its rows", |state| state.rows.current()?.products).await;
    let mut holder = postgres.connect("factory").await;
    run(&mut holder, "BEGIN; LOCK TABLE products").await;
    let unknown = |state: &DatabaseState| state.rows.current().filter(|rows| rows.products.is_none()).copied();
    let rows = room.until("the locked table unknown", unknown).await;
    assert_eq!((rows.videos, rows.social_media_posts), (Some(0), Some(0)), "the others are counted");
    let state = room.reader.borrow().clone();
    assert_eq!((state.activity.failures, state.server.failures), (0, 0), "what goes on is seen all the while");
    assert!(postgres.log().contains("canceling statement due to lock timeout"), "{}", postgres.log());
    run(&mut holder, "COMMIT").await;
    room.until("its rows", |state| state.rows.current()?.products).await;
}

#[tokio::test]
async fn a_reset_of_the_statistics_is_recognised_and_takes_nothing_away() {
    let postgres = Postgres::start(&[]).await;
    let mut room = Room::start(&postgres.url("cf_sidecar"));
    let totals = |state: &DatabaseState| Some(statistics(state)?.totals).filter(|totals| totals.commits > 10);
    let before = room.until("counters", totals).await;
    postgres.run("SELECT pg_stat_reset()").await;
    let after = room.until("the reset", |state| statistics(state).filter(|found| found.resets == 1).cloned()).await;
    assert!(after.totals.commits >= before.commits, "{before:?} {after:?}");
    assert!(after.totals.blocks_hit >= before.blocks_hit, "{before:?} {after:?}");
}

#[tokio::test]
async fn a_deadlock_is_counted() {
    let postgres = Postgres::start(&["deadlock_timeout=20ms"]).await;
    postgres.run("INSERT INTO products (name) VALUES ('a'), ('b')").await;
    let mut room = Room::start(&postgres.url("cf_sidecar"));
    room.until("counters", |state| statistics(state).cloned()).await;
    let mut sessions = (postgres.connect("factory").await, postgres.connect("factory").await);
    run(&mut sessions.0, "BEGIN; UPDATE products SET name = 'l' WHERE id = 1").await;
    run(&mut sessions.1, "BEGIN; UPDATE products SET name = 'r' WHERE id = 2").await;
    let (left, right) = tokio::join!(
        sqlx::raw_sql("UPDATE products SET name = 'l' WHERE id = 2; COMMIT").execute(&mut sessions.0),
        sqlx::raw_sql("UPDATE products SET name = 'r' WHERE id = 1; COMMIT").execute(&mut sessions.1),
    );
    assert!(left.is_err() != right.is_err(), "one of them is the victim");
    drop(sessions); // who is inside a transaction has not told the statistics yet
    room.until("the deadlock", |state| (statistics(state)?.totals.deadlocks == 1).then_some(())).await;
}

#[tokio::test]
async fn sizes_dead_rows_and_the_age_of_transactions_are_read() {
    let postgres = Postgres::start(&["autovacuum=off"]).await;
    postgres.run("INSERT INTO products (name) SELECT 'x' FROM generate_series(1, 100)").await;
    postgres.run("DELETE FROM products WHERE id <= 40").await;
    let mut room = Room::start(&postgres.url("cf_sidecar"));
    let is_dead = |state: &DatabaseState| statistics(state)?.tables.iter().find(|table| table.rows.dead == 40).cloned();
    let table = room.until("the dead rows", is_dead).await;
    assert_eq!((table.name.as_str(), table.rows.live, table.vacuumed_seconds_ago), ("public.products", 60, None));
    let read = room.until("the rest", |state| statistics(state).cloned()).await;
    assert!(read.rows.is_some_and(|rows| rows.dead >= 40), "{read:?}");
    assert!(read.wraparound.is_some_and(|found| found.age > 0 && found.forced_at == 200_000_000), "{read:?}");
    let size = room.until("the size", |state| Some(state.storage.current()?.size_bytes)).await;
    assert!(size > 1 << 20, "{size}");
}

#[tokio::test]
async fn a_standby_and_its_slot_are_seen_from_both_ends() {
    let postgres = Postgres::start(&[]).await;
    let follower = postgres.follower().await;
    let mut room = Room::start(&postgres.url("cf_sidecar"));
    let standby = room.until("the standby", |state| statistics(state)?.standbys.first().cloned()).await;
    assert_eq!((standby.client.as_str(), standby.state.as_str()), ("127.0.0.1", "streaming"));
    let slot = room.until("its slot", |state| statistics(state)?.slots.first().cloned()).await;
    assert_eq!((slot.name.as_str(), slot.is_active), ("follower", true));
    assert_eq!(statistics(&room.reader.borrow()).and_then(|found| found.replay_lag_seconds), None);
    let mut room = Room::start(&follower.url("cf_sidecar"));
    let behind = room.until("how far it is behind", |state| statistics(state)?.replay_lag_seconds).await;
    assert!((0.0..60.0).contains(&behind), "{behind}");
    // of another connection, so it may come later
    room.until("that it is one", |state| state.server.current().filter(|server| server.is_standby).cloned()).await;
    room.until("rows", |state| state.rows.current().and_then(|rows| rows.products)).await;
}

#[tokio::test]
async fn it_takes_two_connections_however_often_it_asks() {
    let postgres = Postgres::start(&[]).await;
    let mut room = Room::start(&postgres.url("cf_sidecar"));
    let many = |state: &DatabaseState| Some(statistics(state)?.totals.commits).filter(|commits| *commits > 200);
    room.until("many turns", many).await;
    let ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cf-sidecar'";
    assert_eq!(postgres.number(ours).await, 2);
    let all = "SELECT sessions FROM pg_stat_database WHERE datname = 'postgres'";
    let opened = postgres.number(all).await;
    assert!(opened < 20, "{opened} sessions were opened");
    // nothing of ours is counted as a failure of the application's
    let rolled_back = "SELECT xact_rollback FROM pg_stat_database WHERE datname = 'postgres'";
    assert_eq!(postgres.number(rolled_back).await, 0);
}

#[tokio::test]
async fn a_server_that_goes_leaves_the_last_reading_and_comes_back() {
    let mut postgres = Postgres::start(&[]).await;
    let mut room = Room::start(&postgres.url("cf_sidecar"));
    room.until("rows", |state| state.rows.current().copied()).await;
    room.until("activity", |state| activity(state).cloned()).await;
    postgres.stop();
    let refused = |trouble: Option<Trouble>| trouble.filter(|trouble| *trouble == Trouble::Refused);
    room.until("its absence", |state| refused(state.activity.trouble())).await;
    room.until("its absence to the rows", |state| refused(state.rows.trouble())).await;
    assert!(room.reader.borrow().activity.last().is_some(), "the last reading is kept");
    assert_eq!(room.reader.borrow().business_rows(), BusinessRows::default(), "rows that cannot be read are unknown");
    postgres.start_again().await;
    room.until("its return", |state| activity(state).cloned()).await;
}

#[tokio::test]
async fn all_of_it_is_read_through_a_pooler_in_transaction_mode() {
    let postgres = Postgres::start(&[]).await;
    let pooler = PgBouncer::start(&postgres).await;
    let url = postgres.url("cf_sidecar").replace(&postgres.address.to_string(), &pooler.address.to_string());
    let mut room = Room::start(&url);
    let whole = |state: &DatabaseState| {
        state.server.current()?;
        activity(state)?;
        statistics(state)?.recent?;
        state.storage.current()?;
        state.rows.current().copied()
    };
    let rows = room.until("all parts", whole).await;
    assert_eq!(rows, BusinessRows { products: Some(0), videos: Some(0), social_media_posts: Some(0) });
    // one connection behind the pooler serves both of ours
    let ours = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'cf_sidecar'";
    assert_eq!(postgres.number(ours).await, 1);
    let settings = "SELECT count(*) FROM pg_settings WHERE name = 'statement_timeout' AND setting <> '0'";
    let next = PgConnectOptions::new()
        .host("127.0.0.1")
        .port(pooler.address.port())
        .username("cf_sidecar")
        .database("postgres");
    let next = next.password(PASSWORD).statement_cache_capacity(0).extra_float_digits(None);
    drop(room);
    let asked = timeout(PATIENCE, async {
        let mut connection = PgConnection::connect_with(&next).await?;
        let row = sqlx::raw_sql(settings).fetch_one(&mut connection).await?;
        row.try_get::<i64, _>(0)
    });
    let left = asked.await.expect("in time").expect("the pooler answers");
    assert_eq!(left, 0, "our limits stay behind on the connection that the application gets next");
}
