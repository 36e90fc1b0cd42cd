//! The last reports as metrics.

use std::sync::Arc;

use crate::checks::runner::Reader;
use crate::model::catalogue::{CHECK_DURATION, CHECK_STATUS};
use crate::model::health::HealthStatus;
use crate::model::sample::{LabelValue, Sample, SampleSource};
use crate::redact::{Clean, Outlet, Redactor};

/// The samples of all checks, made from the last reports.
#[must_use]
pub fn samples(reader: Reader, redactor: Arc<Redactor>) -> SampleSource {
    const STATUSES: [HealthStatus; 4] =
        [HealthStatus::Unknown, HealthStatus::Healthy, HealthStatus::Degraded, HealthStatus::Unhealthy];
    Arc::new(move |out| {
        let now = tokio::time::Instant::now();
        for report in reader.borrow().iter().map(|report| report.as_of(now)) {
            let name: Clean<'static> = redactor.text(Outlet::Telemetry, report.name.as_bytes()).into_owned();
            let named = |sample: Sample| sample.with("check", LabelValue::Text(name.clone()));
            for status in STATUSES {
                let sample = named(Sample::level(&CHECK_STATUS, f64::from(u8::from(status == report.status))));
                out.push(sample.with_literal("status", status.label()));
            }
            out.extend(report.latency.map(|latency| named(Sample::level(&CHECK_DURATION, latency.as_secs_f64()))));
        }
    })
}
