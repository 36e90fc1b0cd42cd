//! The last reports as metrics.

use std::sync::Arc;

use crate::checks::check::Reader;
use crate::model::catalogue::checks::{CHECK_DURATION, CHECK_FLAPPING, CHECK_RUNS, CHECK_STATUS, CHECK_UPTIME};
use crate::model::health::HealthStatus;
use crate::model::sample::{LabelValue, Sample, SampleSource};
use crate::redact::{Clean, Outlet, Redactor};

/// The samples of all checks, made from the last reports.
#[must_use]
pub fn samples(reader: Reader, redactor: Arc<Redactor>) -> SampleSource {
    Arc::new(move |out| {
        let now = tokio::time::Instant::now();
        for report in reader.borrow().iter().map(|report| report.as_of(now)) {
            let name: Clean<'static> = redactor.text(Outlet::Telemetry, report.name.as_bytes()).into_owned();
            let named = |sample: Sample| sample.with("check", LabelValue::Text(name.clone()));
            for status in HealthStatus::ALL {
                let sample = named(Sample::level(&CHECK_STATUS, f64::from(u8::from(status == report.status))));
                out.push(sample.with_literal("status", status.label()));
            }
            out.extend(report.latency.map(|latency| named(Sample::level(&CHECK_DURATION, latency.as_secs_f64()))));
            let history = &report.history;
            for (status, runs) in HealthStatus::ALL.iter().zip(history.runs).filter(|(_, runs)| *runs > 0) {
                out.push(named(Sample::count(&CHECK_RUNS, runs)).with_literal("status", status.label()));
            }
            out.extend(history.uptime_ratio.map(|ratio| named(Sample::level(&CHECK_UPTIME, ratio))));
            if history.runs.iter().any(|runs| *runs > 0) {
                out.push(named(Sample::level(&CHECK_FLAPPING, f64::from(u8::from(history.flapping)))));
            }
        }
    })
}
