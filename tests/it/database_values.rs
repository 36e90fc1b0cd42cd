//! A database that was just read, with something in each of its parts.

use std::time::Duration;

use content_factory_sidecar::model::database::business::{Business, Publishes};
use content_factory_sidecar::model::database::statements::{Statement, StatementSource, Statements};
use content_factory_sidecar::model::database::values::{
    Activity, Chain, Counters, Recent, Running, Server, SessionState, Sessions, Slot, Standby, Statistics, Storage,
    Table, TableRows, Visibility, Waiting, Wraparound,
};
use content_factory_sidecar::model::database::{DatabaseKind, DatabaseState, Periods};
use content_factory_sidecar::model::usage::BusinessRows;
use content_factory_sidecar::redact::Clean;
use tokio::time::Instant;

/// The periods of the defaults.
pub(crate) const PERIODS: Periods = Periods {
    activity: Duration::from_secs(10),
    statistics: Duration::from_secs(60),
    storage: Duration::from_secs(600),
    rows: Duration::from_secs(60),
};

/// All of it.
pub(crate) fn database() -> DatabaseState {
    let (mut state, now) = (DatabaseState::new(DatabaseKind::Postgres, &PERIODS), Instant::now());
    state.server.turn(Ok(server()), now);
    state.activity.turn(Ok(activity()), now);
    state.statistics.turn(Ok(statistics()), now);
    state.storage.turn(Ok(Storage { size_bytes: 8_000_000 }), now);
    state.statements.turn(Ok(statements()), now);
    state.business.turn(Ok(business()), now);
    let rows = BusinessRows { products: Some(42), videos: Some(18), social_media_posts: Some(56) };
    state.rows.turn(Ok(rows), now);
    state
}

fn server() -> Server {
    Server {
        version: Clean::literal("15.14"),
        namespace: Clean::literal("factory"),
        role: Clean::literal("cf_sidecar"),
        visibility: Visibility::Partial,
        is_standby: false,
        connection_limit: 97,
    }
}

fn activity() -> Activity {
    let sessions = |state, count, seconds| Sessions { state, count, longest_transaction_seconds: seconds };
    Activity {
        sessions: vec![
            sessions(SessionState::Active, 2, 0.25),
            sessions(SessionState::Idle, 9, 0.0),
            sessions(SessionState::IdleInTransaction, 1, 40.5),
        ],
        running: vec![Running {
            pid: 4_711,
            state: SessionState::Active,
            query_id: Some(Clean::literal("-5124563459801225")),
            waits_for: Some(Clean::literal("Lock:transactionid")),
            seconds: 12.5,
        }],
        waiting: vec![Waiting {
            pid: 4_711,
            blockers: vec![4_700],
            seconds: 12.5,
            lock: Clean::literal("transactionid"),
            mode: Clean::literal("ShareLock"),
        }],
        chains: vec![Chain {
            root: 4_700,
            state: SessionState::IdleInTransaction,
            transaction_seconds: 40.5,
            sessions: 1,
            depth: 1,
            longest_seconds: 12.5,
        }],
    }
}

fn statistics() -> Statistics {
    let counters = |commits, blocks_hit| Counters {
        commits,
        rollbacks: 3,
        blocks_read: 1_000,
        blocks_hit,
        temp_files: 1,
        temp_bytes: 120_000,
        deadlocks: 1,
    };
    Statistics {
        backends: 12,
        totals: counters(90_000, 99_000),
        recent: Some(Recent { seconds: 60.0, counters: counters(600, 9_000), was_reset: false }),
        resets: 0,
        wraparound: Some(Wraparound { age: 1_500, forced_at: 200_000_000 }),
        rows: Some(TableRows { live: 116, dead: 4 }),
        tables: vec![Table {
            name: Clean::literal("public.videos"),
            rows: TableRows { live: 18, dead: 4 },
            vacuumed_seconds_ago: Some(3_600.5),
        }],
        standbys: vec![Standby {
            client: Clean::literal("192.0.2.7"),
            state: Clean::literal("streaming"),
            behind_bytes: Some(1_024.0),
            delays_seconds: [Some(0.001), Some(0.002), None],
        }],
        slots: vec![Slot { name: Clean::literal("backup"), is_active: false, retained_bytes: 4_096.0 }],
        replay_lag_seconds: None,
    }
}

fn statements() -> Statements {
    let statement = Statement {
        query_id: -5_124_563_459_801_225,
        role: Clean::literal("factory"),
        is_top_level: true,
        text: Some(Clean::literal("SELECT status FROM videos WHERE id = $1")),
        calls: 200,
        total_seconds: 2.5,
        max_seconds: 0.75,
        rows: 200,
        blocks_hit: 600,
        blocks_read: 12,
        temp_blocks: 0,
    };
    Statements { source: StatementSource::Readable, seconds: Some(60.0), top: vec![statement] }
}

fn business() -> Business {
    let by_status =
        vec![(Clean::literal("published"), 45), (Clean::literal("failed"), 5), (Clean::literal("pending"), 6)];
    let publishes = Publishes { by_status, published: 45, failed: 5, others: 6 };
    Business { newest_product_seconds: Some(90.5), newest_video_seconds: Some(600.25), publishes: Some(publishes) }
}
