//! What Sentry's answers say of its limits. Pure.
//!
//! Envelopes are held back, not thrown away, while a limit lasts: the queue's bounds decide what is too much.
//! Source: Sentry's documentation for SDKs, section "Rate Limiting".

use std::time::{Duration, SystemTime};

use ::http::{HeaderMap, StatusCode};

use crate::telemetry::sender::answer::{self, Answer, LONGEST_WAIT};

/// When it says no more than that it is too much.
const UNTOLD: Duration = Duration::from_secs(60);

/// How long no errors are wanted: `X-Sentry-Rate-Limits: 60:error;transaction:organization, 2700::key`. A limit without
/// categories is one of all; the longest counts.
pub(super) fn of_errors(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all("x-sentry-rate-limits").iter().filter_map(|value| value.to_str().ok());
    let limits = values.flat_map(|value| value.split(',')).filter_map(|limit| {
        let mut parts = limit.trim().split(':');
        let seconds = parts.next()?.trim().parse().ok()?;
        let categories = parts.next().unwrap_or_default();
        let is_ours =
            categories.is_empty() || categories.split(';').any(|category| matches!(category, "error" | "default"));
        is_ours.then(|| Duration::from_secs(seconds).min(LONGEST_WAIT))
    });
    limits.max()
}

/// Reads a status other than 2xx: as of any receiver, but that 429 always has a time to wait.
pub(super) fn of_error(status: StatusCode, headers: &HeaderMap, body: &[u8], limit: Option<Duration>) -> Answer {
    match answer::of_http_error(status, headers, body, SystemTime::now()) {
        Answer::Later { floor, reason } if status == StatusCode::TOO_MANY_REQUESTS => {
            Answer::Later { floor: Some(limit.or(floor).unwrap_or(UNTOLD)), reason }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_longest_limit_of_errors_counts() {
        for (value, expected) in [
            ("60:error:organization", Some(60)),
            ("60:transaction;error:key, 120::organization", Some(120)),
            ("60:transaction:key", None),
            ("2700:default;security:organization:quota", Some(600)),
            ("soon:error", None),
            ("", None),
        ] {
            let limit = of_errors(&headers(&[("x-sentry-rate-limits", value)]));
            assert_eq!(limit, expected.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn too_many_requests_always_has_a_time_to_wait() {
        for (pairs, expected) in [
            (&[("x-sentry-rate-limits", "7:error:key"), ("retry-after", "90")][..], 7),
            (&[("retry-after", "90")], 90),
            (&[], 60),
        ] {
            let headers = headers(pairs);
            let answer = of_error(StatusCode::TOO_MANY_REQUESTS, &headers, b"", of_errors(&headers));
            let Answer::Later { floor, .. } = answer else { panic!("{answer:?}") };
            assert_eq!(floor, Some(Duration::from_secs(expected)));
        }
        assert!(matches!(of_error(StatusCode::FORBIDDEN, &HeaderMap::new(), b"", None), Answer::Unauthorized(_)));
    }
}
