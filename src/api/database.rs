//! `/api/v1/monitoring/database`: what the application's database told last, each part with its age, as JSON; and its description.

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::model::database::DatabaseState;
use crate::model::database::business::{Business, Publishes};
use crate::model::database::reading::Reading;
use crate::model::database::statements::{Statement, Statements};
use crate::model::database::values::{
    Activity, Chain, Recent, Running, Server, SessionState, Slot, Standby, Statistics, Storage, Table, Visibility,
    Waiting,
};
use crate::model::database::verdict::{Verdict, verdicts};
use crate::model::trouble::Trouble;
use crate::model::usage::BusinessRows;
use crate::redact::Clean;

/// The body.
pub(super) fn json(state: &DatabaseState, unix_seconds: f64, now: Instant) -> String {
    let verdicts: Vec<Value> = verdicts(state, now).iter().map(verdict).collect();
    let body = json!({
        "timestamp": unix_seconds,
        "kind": state.kind.word(),
        "verdicts": verdicts,
        "server": part(&state.server, now, server),
        "activity": part(&state.activity, now, activity),
        "statistics": part(&state.statistics, now, statistics),
        "storage": part(&state.storage, now, storage),
        "statements": part(&state.statements, now, statements),
        "rows": part(&state.rows, now, rows),
        "business": part(&state.business, now, business),
    });
    body.to_string()
}

/// A part: how old it is, why it is not newer, and what it says.
fn part<T>(reading: &Reading<T>, now: Instant, value: fn(&T) -> Value) -> Value {
    json!({
        "age_seconds": reading.age(now).map(|age| age.as_secs_f64()),
        "stale": reading.is_stale(now),
        "problem": reading.trouble().map(Trouble::word),
        "failures": reading.failures,
        "period_seconds": reading.period.as_secs_f64(),
        "value": reading.last().map(value),
    })
}

fn verdict(verdict: &Verdict) -> Value {
    json!({ "rule": verdict.rule, "message": verdict.message })
}

fn server(server: &Server) -> Value {
    json!({
        "version": server.version.as_str(),
        "database": server.namespace.as_str(),
        "role": server.role.as_str(),
        "visibility": server.visibility.word(),
        "hint": (server.visibility == Visibility::Partial).then_some(HINT),
        "is_standby": server.is_standby,
        "connection_limit": server.connection_limit,
    })
}

/// What makes visibility full.
const HINT: &str = "GRANT pg_monitor to the role: until then sessions and statements of other roles are hidden";

fn activity(activity: &Activity) -> Value {
    let by_state: Map<String, Value> = SessionState::ALL
        .iter()
        .map(|state| {
            let found = activity.sessions.iter().find(|sessions| sessions.state == *state);
            (state.word().to_owned(), found.map_or(0, |sessions| sessions.count).into())
        })
        .collect();
    json!({
        "connections": activity.connections(),
        "by_state": by_state,
        "longest_transaction_seconds": activity.longest_transaction_seconds(),
        "running": activity.running.iter().map(running).collect::<Vec<_>>(),
        "waiting": activity.waiting.iter().map(waiting).collect::<Vec<_>>(),
        "chains": activity.chains.iter().map(chain).collect::<Vec<_>>(),
    })
}

fn running(running: &Running) -> Value {
    json!({
        "pid": running.pid,
        "state": running.state.word(),
        "query_id": running.query_id.as_ref().map(Clean::as_str),
        "waits_for": running.waits_for.as_ref().map(Clean::as_str),
        "seconds": running.seconds,
    })
}

fn waiting(waiting: &Waiting) -> Value {
    json!({
        "pid": waiting.pid,
        "blockers": waiting.blockers,
        "seconds": waiting.seconds,
        "lock": waiting.lock.as_str(),
        "mode": waiting.mode.as_str(),
    })
}

fn chain(chain: &Chain) -> Value {
    json!({
        "root": chain.root,
        "state": chain.state.word(),
        "transaction_seconds": chain.transaction_seconds,
        "sessions": chain.sessions,
        "depth": chain.depth,
        "longest_seconds": chain.longest_seconds,
    })
}

fn statistics(statistics: &Statistics) -> Value {
    let totals = &statistics.totals;
    json!({
        "backends": statistics.backends,
        "totals": {
            "commits": totals.commits,
            "rollbacks": totals.rollbacks,
            "deadlocks": totals.deadlocks,
            "blocks_hit": totals.blocks_hit,
            "blocks_read": totals.blocks_read,
            "temp_files": totals.temp_files,
            "temp_bytes": totals.temp_bytes,
        },
        "resets": statistics.resets,
        "recent": statistics.recent.as_ref().map(recent),
        "wraparound": statistics.wraparound.map(|found| json!({ "age": found.age, "forced_at": found.forced_at })),
        "rows": statistics.rows.map(|rows| json!({ "live": rows.live, "dead": rows.dead })),
        "tables": statistics.tables.iter().map(table).collect::<Vec<_>>(),
        "standbys": statistics.standbys.iter().map(standby).collect::<Vec<_>>(),
        "slots": statistics.slots.iter().map(slot).collect::<Vec<_>>(),
        "replay_lag_seconds": statistics.replay_lag_seconds,
    })
}

fn recent(recent: &Recent) -> Value {
    let per_second = |count: u64| (recent.seconds > 0.0).then(|| count as f64 / recent.seconds);
    json!({
        "seconds": recent.seconds,
        "was_reset": recent.was_reset,
        "commits_per_second": per_second(recent.counters.commits),
        "rollbacks_per_second": per_second(recent.counters.rollbacks),
        "temp_bytes_per_second": per_second(recent.counters.temp_bytes),
        "deadlocks": recent.counters.deadlocks,
        "cache_hit_ratio": recent.hit_ratio(),
    })
}

fn table(table: &Table) -> Value {
    json!({
        "name": table.name.as_str(),
        "live": table.rows.live,
        "dead": table.rows.dead,
        "vacuumed_seconds_ago": table.vacuumed_seconds_ago,
    })
}

fn standby(standby: &Standby) -> Value {
    let [write, flush, replay] = standby.delays_seconds;
    json!({
        "client": standby.client.as_str(),
        "state": standby.state.as_str(),
        "behind_bytes": standby.behind_bytes,
        "write_seconds": write,
        "flush_seconds": flush,
        "replay_seconds": replay,
    })
}

fn slot(slot: &Slot) -> Value {
    json!({ "name": slot.name.as_str(), "is_active": slot.is_active, "retained_bytes": slot.retained_bytes })
}

fn storage(storage: &Storage) -> Value {
    json!({ "size_bytes": storage.size_bytes })
}

fn rows(rows: &BusinessRows) -> Value {
    json!({ "products": rows.products, "videos": rows.videos, "social_media_posts": rows.social_media_posts })
}

fn statements(statements: &Statements) -> Value {
    json!({
        "source": statements.source.word(),
        "hint": statements.source.hint(),
        "seconds": statements.seconds,
        "top": statements.top.iter().map(statement).collect::<Vec<_>>(),
    })
}

fn statement(statement: &Statement) -> Value {
    json!({
        // a text: numbers of this size do not survive every reader of JSON
        "query_id": statement.query_id.to_string(),
        "role": statement.role.as_str(),
        "is_top_level": statement.is_top_level,
        "text": statement.text.as_ref().map(Clean::as_str),
        "calls": statement.calls,
        "total_seconds": statement.total_seconds,
        "mean_seconds": statement.total_seconds / statement.calls.max(1) as f64,
        "max_seconds": statement.max_seconds,
        "rows": statement.rows,
        "blocks_hit": statement.blocks_hit,
        "blocks_read": statement.blocks_read,
        "temp_blocks": statement.temp_blocks,
    })
}

fn business(business: &Business) -> Value {
    json!({
        "newest_product_seconds": business.newest_product_seconds,
        "newest_video_seconds": business.newest_video_seconds,
        "publishes": business.publishes.as_ref().map(publishes),
    })
}

fn publishes(publishes: &Publishes) -> Value {
    let status = |(status, count): &(Clean<'static>, u64)| json!({ "status": status.as_str(), "rows": count });
    json!({
        "published": publishes.published,
        "failed": publishes.failed,
        "others": publishes.others,
        "success_ratio": publishes.success_ratio(),
        "by_status": publishes.by_status.iter().map(status).collect::<Vec<_>>(),
    })
}

/// The body, for `/openapi.json`.
pub(super) fn schema() -> Value {
    json!({
        "type": "object",
        "required": [
            "timestamp", "kind", "verdicts", "server", "activity", "statistics", "storage", "statements", "rows", "business",
        ],
        "properties": {
            "timestamp": { "type": "number", "description": "when this was answered; seconds since the Unix epoch" },
            "kind": {
                "type": "string",
                "enum": ["none", "postgresql", "sqlite", "in_process"],
                "description": "in_process: inside the application, where nobody else can see it",
            },
            "verdicts": {
                "type": "array",
                "description": "what deserves a look, in words",
                "items": fields(&["rule", "message"], &json!({ "type": "string" })),
            },
            "server": part_schema("who answers, and how much of it our role may see"),
            "activity": part_schema("sessions by state, what runs longest, and who waits for whom"),
            "statistics": part_schema("counters added up over resets, what is new in them, replication and dead rows"),
            "storage": part_schema("what is on the disk"),
            "statements": part_schema("what took most of the server's time in the last interval, from pg_stat_statements"),
            "business": part_schema("ages of the newest product and finished video when they were read, and the newest publishes"),
            "rows": part_schema("rows of the business tables; null for one that cannot be read"),
        },
    })
}

fn part_schema(about: &str) -> Value {
    json!({
        "type": "object",
        "description": about,
        "required": ["age_seconds", "stale", "problem", "failures", "period_seconds", "value"],
        "properties": {
            "age_seconds": { "type": ["number", "null"], "description": "since the value was read; null before that" },
            "stale": { "type": "boolean", "description": "no value, or one that three turns have not renewed" },
            "problem": { "type": ["string", "null"], "description": "why the last turn gave no value" },
            "failures": { "type": "integer", "description": "turns that gave none, since the start" },
            "period_seconds": { "type": "number" },
            "value": { "type": ["object", "null"], "description": "the last that was read, however old" },
        },
    })
}

fn fields(names: &[&str], schema: &Value) -> Value {
    let properties: Map<String, Value> = names.iter().map(|name| ((*name).to_owned(), schema.clone())).collect();
    json!({ "type": "object", "properties": properties })
}
