//! The page at /metrics, read as a scraper reads it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::rig::Sidecar;

/// Which histogram of durations a request is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Ordinary,
    Stream,
    Probe,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Ordinary, Self::Stream, Self::Probe];

    /// Its series of counts.
    fn metric(self) -> &'static str {
        match self {
            Self::Ordinary => "http_server_request_duration_seconds_count",
            Self::Stream => "content_factory_http_server_stream_duration_seconds_count",
            Self::Probe => "content_factory_http_server_probe_duration_seconds_count",
        }
    }
}

/// How a request ended, as far as the metrics tell: kind, status (0: none was sent) and `error.type` (empty: none).
pub(crate) type End = (Kind, u16, String);

/// How many requests ended in which way.
pub(crate) type Tally = BTreeMap<End, u64>;

/// The name, labels and value of each sample.
pub(crate) fn samples(page: &str) -> impl Iterator<Item = (&str, &str, f64)> {
    page.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        Some((name, labels.trim_end_matches('}'), value.parse().ok()?))
    })
}

/// The value of a label; none of those asked for holds a quote or a comma.
pub(crate) fn label<'a>(labels: &'a str, name: &str) -> &'a str {
    let value = labels.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix("=\""));
    value.map_or("", |value| value.trim_end_matches('"'))
}

/// The sum of all samples of a name whose labels contain `part`.
pub(crate) fn sum(page: &str, name: &str, part: &str) -> f64 {
    samples(page).filter(|(found, labels, _)| *found == name && labels.contains(part)).map(|(.., value)| value).sum()
}

/// What the page says of all requests.
pub(crate) fn tally(page: &str) -> Tally {
    let mut tally = Tally::new();
    for (name, labels, value) in samples(page) {
        if let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.metric() == name) {
            let status = label(labels, "http_response_status_code").parse().unwrap_or(0);
            let end = (kind, status, label(labels, "error_type").to_owned());
            *tally.entry(end).or_default() += value as u64;
        }
    }
    tally
}

/// All requests that the page counts.
pub(crate) fn total(page: &str) -> u64 {
    tally(page).values().sum()
}

/// Requests in flight.
pub(crate) fn in_flight(page: &str) -> f64 {
    sum(page, "http_server_active_requests", "")
}

/// The page once none is in flight and at least so many are counted; it is read again a little later, and given
/// only if nothing more came.
pub(crate) async fn settled(sidecar: &Sidecar, at_least: u64) -> String {
    let is_over = |_, page: &str| total(page) >= at_least && in_flight(page) == 0.0;
    let page = sidecar.eventually("/metrics", is_over).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let later = sidecar.metrics().await;
    assert_eq!(tally(&later), tally(&page), "something was counted after the last request had ended");
    assert_eq!(in_flight(&later), 0.0);
    later
}
