//! `/api/v1/monitoring/export`: what became of telemetry, here and at each vendor, as JSON; and its description.

use serde_json::{Map, Value, json};

use crate::api::bill;
use crate::model::export::{ExportState, Exporter, Receipts, SignalReceipt, WayOut};
use crate::model::telemetry::{Account, DropReason, Signal};
use crate::redact::Clean;

/// The body.
pub(super) fn json(export: &ExportState, requests: u64, now: f64) -> String {
    let signals: Map<String, Value> = Signal::ALL
        .iter()
        .filter_map(|signal| {
            let way = export.ways[*signal as usize].as_ref()?;
            Some((signal.label().to_owned(), own(&export.accounts[*signal as usize], way)))
        })
        .collect();
    let body = json!({
        "timestamp": now,
        "condition": export.condition.label(),
        "last_delivered_at": export.last_delivered_at,
        "signals": signals,
        "collector": export.receipts.as_deref().map(collector),
        "bill": bill::json(export, requests),
        "vendors": export.receipts.as_deref().map(|receipts| receipts.exporters.iter().map(vendor).collect::<Vec<_>>()),
    });
    body.to_string()
}

/// Our own account of one signal; at any moment produced = delivered + rejected + dropped + queued.
fn own(account: &Account, way: &WayOut) -> Value {
    let dropped = DropReason::ALL.iter().zip(account.dropped).filter(|(_, items)| *items > 0);
    let dropped: Map<String, Value> =
        dropped.map(|(reason, items)| (reason.label().to_owned(), items.into())).collect();
    json!({
        "endpoint": way.endpoint,
        "condition": way.condition.label(),
        "breaker": if way.is_given_up { "open" } else { "closed" },
        "problem": way.problem.as_ref().map(Clean::as_str),
        "last_delivered_at": way.last_delivered_at,
        "retries": way.retries,
        "produced": account.produced,
        "delivered": account.delivered,
        "rejected": account.rejected,
        "dropped": dropped,
        "queued": { "memory": account.queued, "disk": account.spooled },
        "queued_bytes": { "memory": account.queued_bytes, "disk": account.spooled_bytes },
    })
}

fn collector(receipts: &Receipts) -> Value {
    let received = Signal::OTLP.iter().zip(&receipts.received);
    let received = received.map(|(signal, received)| {
        (signal.label().to_owned(), json!({ "accepted": received.accepted, "refused": received.refused }))
    });
    json!({
        "url": receipts.url,
        "read_at": receipts.read_at,
        "problem": receipts.problem.as_ref().map(Clean::as_str),
        "received": received.collect::<Map<String, Value>>(),
    })
}

fn vendor(exporter: &Exporter) -> Value {
    let signals = Signal::OTLP.iter().zip(&exporter.signals);
    let signals =
        signals.filter_map(|(signal, receipt)| Some((signal.label().to_owned(), signal_receipt(receipt.as_ref()?))));
    json!({
        "vendor": exporter.vendor.as_str(),
        "exporter": exporter.name.as_str(),
        "signals": signals.collect::<Map<String, Value>>(),
    })
}

fn signal_receipt(receipt: &SignalReceipt) -> Value {
    json!({
        "condition": receipt.condition.label(),
        "since": receipt.since,
        "accepted": receipt.accepted,
        "failed": receipt.failed,
        "not_queued": receipt.not_queued,
        "bytes": receipt.bytes,
        "queue": receipt.queue,
        "queue_capacity": receipt.capacity,
        "last_accepted_at": receipt.last_accepted_at,
    })
}

/// The body, for `/openapi.json`.
pub(super) fn schema() -> Value {
    json!({
        "type": "object",
        "required": ["timestamp", "condition", "last_delivered_at", "signals", "collector", "vendors", "bill"],
        "properties": {
            "timestamp": time("when this was answered"),
            "condition": word("the worst of the OTLP signals", &["idle", "delivering", "failing", "off"]),
            "last_delivered_at": time("the last acknowledgement of any signal; null before the first"),
            "signals": by_signal("our own account; a signal that is switched off is left out", &own_schema()),
            "collector": {
                "description": "what was read from telemetry.receipts.url; null when it is not set",
                "type": ["object", "null"],
                "properties": {
                    "url": { "type": "string" },
                    "read_at": time("the last good reading; null before the first"),
                    "problem": text("why it cannot be read at present, or null"),
                    "received": by_signal("items from whomever", &items(&["accepted", "refused"])),
                },
            },
            "bill": bill::schema(),
            "vendors": {
                "description": "one for each exporter of the collector; null when telemetry.receipts.url is not set",
                "type": ["array", "null"],
                "items": {
                    "type": "object",
                    "required": ["vendor", "exporter", "signals"],
                    "properties": {
                        "vendor": { "type": "string" },
                        "exporter": { "type": "string" },
                        "signals": by_signal("of everybody's telemetry, as the collector counts it", &vendor_schema()),
                    },
                },
            },
        },
    })
}

fn own_schema() -> Value {
    let mut schema = items(&["produced", "delivered", "rejected", "retries"]);
    let more = json!({
        "endpoint": { "type": "string" },
        "condition": word("how its receiver fares", &["idle", "delivering", "failing"]),
        "breaker": word("open: given up for now, and asked within 10 s whether it is back", &["closed", "open"]),
        "problem": text("what failed or was refused last, until something is taken; or null"),
        "last_delivered_at": time("the last acknowledgement; null before the first"),
        "dropped": { "type": "object", "additionalProperties": { "type": "integer" }, "description": "items by reason" },
        "queued": items(&["memory", "disk"]),
        "queued_bytes": items(&["memory", "disk"]),
    });
    extend(&mut schema, more);
    schema
}

fn vendor_schema() -> Value {
    let mut schema = items(&["accepted", "failed", "not_queued"]);
    let more = json!({
        "condition": word("refusing: the last that was sent was given up", &["idle", "accepting", "waiting", "refusing"]),
        "since": time("when that began, as exact as the interval of reading"),
        "bytes": {
            "type": ["integer", "null"],
            "description": "of what was sent, before compression; null where the collector's own metrics are not at the level detailed",
        },
        "queue": { "type": ["number", "null"], "description": "in the unit that the collector's file chooses" },
        "queue_capacity": { "type": ["number", "null"] },
        "last_accepted_at": time("null before the first"),
    });
    extend(&mut schema, more);
    schema
}

fn extend(schema: &mut Value, more: Value) {
    if let (Some(properties), Value::Object(more)) = (schema["properties"].as_object_mut(), more) {
        properties.extend(more);
    }
}

fn by_signal(about: &str, schema: &Value) -> Value {
    json!({ "type": "object", "description": format!("by signal: {about}"), "additionalProperties": schema })
}

fn items(names: &[&str]) -> Value {
    let properties: Map<String, Value> =
        names.iter().map(|name| ((*name).to_owned(), json!({ "type": "integer" }))).collect();
    json!({ "type": "object", "properties": properties })
}

fn word(about: &str, words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words, "description": about })
}

fn text(about: &str) -> Value {
    json!({ "type": ["string", "null"], "description": about })
}

fn time(about: &str) -> Value {
    json!({ "type": ["number", "null"], "description": format!("{about}; seconds since the Unix epoch") })
}
