//! The settings below `telemetry.receipts`: where the collector tells what became of telemetry.

use std::time::Duration;

use url::Url;

use crate::settings::{Described, Section};

/// Where and how often the collector is asked; only there when it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptsConfig {
    /// The collector's own metrics, as Prometheus text.
    pub url: Url,
    /// Between two readings.
    pub interval: Duration,
}

impl ReceiptsConfig {
    /// Reads the section `telemetry.receipts`; `None` without a URL.
    pub fn read(section: &mut Section<'_>) -> Option<Self> {
        let about = "the collector's own metrics, of which the sidecar tells what each vendor accepted: http://HOST:8888/metrics";
        let key = Described { name: "url", default: None, default_text: String::new(), about };
        let expected = "a URL with http:// and without user and password, such as http://127.0.0.1:8888/metrics (service.telemetry.metrics of the collector)";
        let url = section.parsed(key, expected, |text| parse(text).map(Some));
        let interval = section.duration("interval", Duration::from_secs(15), "between two readings of receipts.url");
        Some(Self { url: url?, interval: interval.max(Duration::from_millis(100)) })
    }
}

fn parse(text: &str) -> Option<Url> {
    let url = Url::parse(text.trim()).ok()?;
    let is_plain = url.username().is_empty() && url.password().is_none() && url.host().is_some();
    (url.scheme() == "http" && is_plain).then_some(url)
}
