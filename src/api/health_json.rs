//! Health as `application/health+json`: for gateways and registries that read that form (draft-inadarei-api-health-check-06).
//!
//! Who asks for it gets the draft's status codes too. Pure: reports in, JSON out; its names are the draft's.

use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use serde_json::{Map, Value, json};

use crate::api::access::Reach;
use crate::api::reply::{HEALTH, respond};
use crate::api::state::State;
use crate::model::health::{CheckReport, HealthStatus, overall};
use crate::redact::Clean;

/// Whose health it is.
pub(super) struct Service<'a> {
    /// The application's name at the vendors.
    pub(super) id: &'a str,
    /// The application's own version, else ours.
    pub(super) version: &'a str,
}

/// A result is renewed once in a period, so nobody needs to ask more often than the quickest check.
const LONGEST_AGE: Duration = Duration::from_secs(60);

/// The form of a health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The application's, or ours.
    Own,
    /// The draft's.
    Draft,
}

impl Form {
    /// The draft's for a request that names it, and not with a weight of nothing.
    pub(super) fn asked_for(headers: &HeaderMap) -> Self {
        if is_asked_for(headers) { Self::Draft } else { Self::Own }
    }
}

/// The answer: 503 when it fails, else 200, and for how long it may be kept.
pub(super) fn answer(state: &State, reports: &[CheckReport], reach: Reach) -> Response {
    let about = state.about.borrow().clone();
    let version = about.version.as_ref().map_or(env!("CARGO_PKG_VERSION"), Clean::as_str);
    let service = Service { id: state.service.as_str(), version };
    let mut response = respond(HEALTH, body(reports, reach, &service).to_string());
    if overall(reports) == HealthStatus::Unhealthy {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    let age = reports.iter().map(|report| report.period).min().unwrap_or(LONGEST_AGE).min(LONGEST_AGE).as_secs().max(1);
    let kept = format!("private, max-age={age}").parse().expect("words and a number are a header");
    response.headers_mut().insert(header::CACHE_CONTROL, kept);
    response
}

fn is_asked_for(headers: &HeaderMap) -> bool {
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accept.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_named = parts.next().is_some_and(|media| media.eq_ignore_ascii_case(HEALTH));
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        is_named && weight.is_none_or(|weight| weight.parse::<f64>().is_ok_and(|weight| weight > 0.0))
    })
}

fn body(reports: &[CheckReport], reach: Reach, service: &Service<'_>) -> Value {
    let overall = overall(reports);
    // the draft has no word for what is not known: a reader may go on, and should look
    let status = word(overall).unwrap_or("warn");
    if reach < Reach::Full {
        return json!({ "status": status });
    }
    let mut body = json!({
        "status": status,
        "version": service.version,
        "releaseId": service.version,
        "serviceId": service.id,
    });
    if overall == HealthStatus::Unknown {
        body["output"] = "nothing is known yet".into();
    }
    let checks: Map<String, Value> =
        reports.iter().map(|report| (format!("{}:responseTime", report.name), json!([check(report)]))).collect();
    body["checks"] = checks.into();
    body
}

fn check(report: &CheckReport) -> Map<String, Value> {
    let mut check = Map::new();
    let mut put = |name: &str, value: Value| drop(check.insert(name.to_owned(), value));
    put("componentType", component(report.kind).into());
    if let Some(latency) = report.latency {
        put("observedValue", (latency.as_secs_f64() * 1_000.0).into());
        put("observedUnit", "ms".into());
    }
    let word = word(report.status);
    if let Some(word) = word {
        put("status", word.into());
    }
    if let Some(time) = report.checked_at {
        put("time", rfc3339(time).into());
    }
    if word != Some("pass") {
        put("output", report.message.as_str().into());
    }
    check
}

/// The draft's word; `None` for what is not known, which may leave its status out.
fn word(status: HealthStatus) -> Option<&'static str> {
    match status {
        HealthStatus::Unknown => None,
        HealthStatus::Healthy => Some("pass"),
        HealthStatus::Degraded => Some("warn"),
        HealthStatus::Unhealthy => Some("fail"),
    }
}

fn component(kind: &str) -> &'static str {
    if ["sql", "redis"].contains(&kind) { "datastore" } else { "component" }
}

/// A time of day as RFC 3339 writes it, in UTC, with milliseconds.
///
/// Source: days to a civil date after Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn rfc3339(unix_seconds: f64) -> String {
    let millis = (unix_seconds.max(0.0) * 1_000.0).round() as u64;
    let (seconds, millis) = (millis / 1_000, millis % 1_000);
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339_has_them() {
        for (seconds, expected) in [
            (0.0, "1970-01-01T00:00:00.000Z"),
            (951_782_399.999, "2000-02-28T23:59:59.999Z"),
            (951_782_400.0, "2000-02-29T00:00:00.000Z"),
            (1_640_995_200.25, "2022-01-01T00:00:00.250Z"),
            (1_795_414_819.783, "2026-11-23T06:20:19.783Z"),
            (4_107_542_399.0, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400.0, "2100-03-01T00:00:00.000Z"),
            (-5.0, "1970-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(seconds), expected);
        }
    }

    #[test]
    fn the_form_is_asked_for_by_its_name_alone() {
        let asked = |accept: &str| is_asked_for(&HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]));
        for accept in [
            "application/health+json",
            "application/json, Application/Health+JSON;q=0.5",
            "*/*,application/health+json",
        ] {
            assert!(asked(accept), "{accept}");
        }
        for accept in ["*/*", "application/json", "application/health+json;q=0", "application/health+xml", ""] {
            assert!(!asked(accept), "{accept}");
        }
        assert!(!is_asked_for(&HeaderMap::new()));
    }
}
