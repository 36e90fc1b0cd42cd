//! `bill` of `/api/v1/monitoring/export`: what drives the cost, per million requests, here and at each vendor; and its description.
//!
//! Ours is measured. A vendor's share is what the collector says that it accepted of all that came in. Its bytes are those that the
//! collector has sent it, as far as what came in was ours; where the collector does not tell them, they are reckoned by the share
//! from ours, which is too few: a sampler of whole traces sends the resource with each.

use serde_json::{Map, Value, json};

use crate::model::export::{ExportState, Exporter, Receipts};
use crate::model::telemetry::Signal;

/// The part of the body, for so many requests.
pub(super) fn json(export: &ExportState, requests: u64) -> Value {
    let is_on = |signal: &Signal| export.ways[*signal as usize].is_some();
    let signals = Signal::ALL.into_iter().filter(is_on).map(|signal| {
        let (account, volume) = (&export.accounts[signal as usize], &export.volumes[signal as usize]);
        let told = json!({
            "items": account.delivered,
            "requests": volume.requests,
            "bytes": volume.bytes,
            "compressed_bytes": volume.compressed_bytes,
            "per_million_requests": {
                "items": per_million(account.delivered as f64, requests),
                "bytes": per_million(volume.bytes as f64, requests),
                "compressed_bytes": per_million(volume.compressed_bytes as f64, requests),
            },
        });
        (signal.label().to_owned(), told)
    });
    let vendor = |receipts: &Receipts, exporter: &Exporter| {
        let signals = Signal::OTLP.into_iter().filter_map(|signal| {
            Some((signal.label().to_owned(), at_vendor(export, receipts, exporter, signal, requests)?))
        });
        json!({
            "vendor": exporter.vendor.as_str(),
            "exporter": exporter.name.as_str(),
            "signals": signals.collect::<Map<String, Value>>(),
        })
    };
    let vendors = export.receipts.as_deref();
    let vendors =
        vendors.map(|receipts| receipts.exporters.iter().map(|one| vendor(receipts, one)).collect::<Vec<_>>());
    json!({
        "requests": requests,
        "series": export.series,
        "signals": signals.collect::<Map<String, Value>>(),
        "vendors": vendors,
    })
}

/// One signal at one vendor; `None` when the vendor does not get it.
fn at_vendor(
    export: &ExportState,
    receipts: &Receipts,
    exporter: &Exporter,
    signal: Signal,
    requests: u64,
) -> Option<Value> {
    let receipt = exporter.signals[signal as usize].as_ref()?;
    let accepted = receipt.accepted as f64;
    let came_in = receipts.received[signal as usize].accepted as f64;
    let share = (came_in > 0.0).then_some(accepted / came_in);
    let (account, volume) = (&export.accounts[signal as usize], &export.volumes[signal as usize]);
    let of_ours = |amount: u64| share.map(|share| per_million(amount as f64 * share, requests));
    // what was delivered twice counts twice there, and once here
    let ours = (account.delivered as f64 / came_in).min(1.0);
    let sent = receipt.bytes.filter(|_| came_in > 0.0).map(|bytes| per_million(bytes as f64 * ours, requests));
    Some(json!({
        "share": share,
        "sent_bytes": receipt.bytes,
        "per_million_requests": {
            "items": of_ours(account.delivered),
            "bytes": sent.or_else(|| of_ours(volume.bytes)),
        },
    }))
}

/// `null` before the first request.
fn per_million(amount: f64, requests: u64) -> Value {
    if requests == 0 { Value::Null } else { (amount / requests as f64 * 1e6).round().into() }
}

/// The part, for `/openapi.json`.
pub(super) fn schema() -> Value {
    let number = |about: &str| json!({ "type": ["number", "null"], "description": about });
    let per_million = json!({
        "type": "object",
        "description": "for each million requests that were proxied; null before the first",
        "additionalProperties": { "type": ["number", "null"] },
    });
    json!({
        "type": "object",
        "description": "what drives the cost of telemetry, since the sidecar started",
        "required": ["requests", "series", "signals", "vendors"],
        "properties": {
            "requests": { "type": "integer", "description": "requests proxied" },
            "series": { "type": "integer", "description": "series of metrics that were exported so far" },
            "signals": {
                "type": "object",
                "description": "by signal: what its receiver took; bytes before compression, as vendors count them",
                "additionalProperties": { "type": "object", "properties": {
                    "items": { "type": "integer" },
                    "requests": { "type": "integer", "description": "export requests" },
                    "bytes": { "type": "integer" },
                    "compressed_bytes": { "type": "integer" },
                    "per_million_requests": per_million,
                } },
            },
            "vendors": {
                "description": "one for each exporter of the collector; null when telemetry.receipts.url is not set",
                "type": ["array", "null"],
                "items": { "type": "object", "properties": {
                    "vendor": { "type": "string" },
                    "exporter": { "type": "string" },
                    "signals": { "type": "object", "additionalProperties": { "type": "object", "properties": {
                        "share": number("accepted by the vendor, as a part of all that came into the collector; above 1 where the collector makes more of it"),
                        "sent_bytes": { "type": ["integer", "null"], "description": "to the vendor, of everybody's, before compression; null where the collector does not tell: then the bytes for each million requests are reckoned by the share, and are too few" },
                        "per_million_requests": per_million,
                    } } },
                } },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::export::{Received, SignalReceipt, Volume, WayOut};
    use crate::redact::Clean;
    use std::sync::Arc;

    fn state() -> ExportState {
        let mut export = ExportState { series: 40, ..ExportState::default() };
        export.ways[0] = Some(WayOut::default());
        export.accounts[0].delivered = 400;
        export.volumes[0] = Volume { requests: 2, bytes: 80_000, compressed_bytes: 10_000 };
        let mut receipts = Receipts::default();
        receipts.received[0] = Received { accepted: 1_000, refused: 0 };
        let spans = Some(SignalReceipt { accepted: 100, ..SignalReceipt::default() });
        let (name, vendor) = (Clean::literal("otlp_http/newrelic"), Clean::literal("New Relic"));
        receipts.exporters.push(Exporter { name, vendor, signals: [spans, None, None] });
        export.receipts = Some(Arc::new(receipts));
        export
    }

    #[test]
    fn a_vendor_pays_for_its_share_of_what_we_sent_for_each_million_requests() {
        let bill = json(&state(), 200);
        assert_eq!(bill["series"], 40);
        assert_eq!(
            bill["signals"]["traces"]["per_million_requests"],
            json!({ "items": 2e6, "bytes": 4e8, "compressed_bytes": 5e7 })
        );
        assert!(bill["signals"].get("metrics").is_none(), "what is off is left out");
        let traces = &bill["vendors"][0]["signals"]["traces"];
        let reckoned = json!({ "items": 2e5, "bytes": 4e7 });
        assert_eq!(traces, &json!({ "share": 0.1, "sent_bytes": null, "per_million_requests": reckoned }));
    }

    #[test]
    fn of_the_bytes_that_the_collector_sent_a_vendor_pays_for_ours() {
        let mut export = state();
        let mut receipts = Receipts::clone(export.receipts.as_deref().unwrap());
        receipts.exporters[0].signals[0].as_mut().unwrap().bytes = Some(30_000);
        export.receipts = Some(Arc::new(receipts));
        let of_vendor = |export: &ExportState| json(export, 200)["vendors"][0]["signals"]["traces"].clone();
        // 400 of 1,000 spans that came in are ours
        let measured = json!({ "items": 2e5, "bytes": 6e7 });
        assert_eq!(of_vendor(&export), json!({ "share": 0.1, "sent_bytes": 30_000, "per_million_requests": measured }));
        export.accounts[0].delivered = 2_000; // since before the collector
        assert_eq!(of_vendor(&export)["per_million_requests"]["bytes"], 1.5e8, "all of it, and no more");
    }

    #[test]
    fn what_is_not_known_yet_is_null() {
        let mut export = state();
        export.receipts = None;
        let bill = json(&export, 0);
        assert!(bill["vendors"].is_null());
        assert!(bill["signals"]["traces"]["per_million_requests"]["bytes"].is_null());
    }
}
