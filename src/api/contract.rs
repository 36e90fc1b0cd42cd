//! The shapes of the application's own monitoring endpoints, to the byte: key order, types and number formats.
//!
//! Readers of these bodies exist already, so nothing here changes; more goes to new paths. Pure: values in, JSON out.

use std::borrow::Cow;

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::model::application::About;
use crate::model::celery::CeleryCounts;
use crate::model::health::{CheckReport, HealthStatus, overall};
use crate::model::lease::Standing;
use crate::model::reload::ReloadState;
use crate::model::task::TaskTotals;
use crate::model::traffic::Totals;
use crate::model::usage::{BusinessRows, SystemUsage};
use crate::redact::Clean;

/// What all four bodies are made from, taken at one moment.
#[derive(Clone, Debug)]
pub struct Moment {
    /// The services, in the order in which they are shown.
    pub reports: Vec<CheckReport>,
    /// The node's numbers.
    pub system: SystemUsage,
    /// What the application says of itself.
    pub about: About,
    /// Rows of the business tables.
    pub rows: BusinessRows,
    /// Of the node's numbers, when they are not renewed any more.
    pub stale_system: Option<Stale>,
    /// The traffic since the start.
    pub totals: Totals,
    /// The application's tasks since the start.
    pub tasks: TaskTotals,
    /// The tasks of Celery.
    pub celery: CeleryCounts,
    /// Who exports the cluster's numbers; `None` when this sidecar is alone.
    pub standing: Option<Standing>,
    /// What became of the configuration's changes.
    pub reload: ReloadState,
    /// Now, in seconds since the Unix epoch.
    pub unix_seconds: f64,
    /// Age of the process, by the monotonic clock.
    pub uptime_seconds: f64,
}

/// A reading that is older than it should be.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Stale {
    /// Since it was read; `None` when it never was.
    pub age_seconds: Option<f64>,
}

/// The longest list of recent requests that the application tells of.
const RECENT_REQUESTS: u64 = 100;

/// `/health`.
#[must_use]
pub fn health(moment: &Moment) -> Vec<u8> {
    json(&Health::of(moment))
}

/// `/health` for a peer that may know no more than the word.
#[must_use]
pub fn bare_health(moment: &Moment) -> Vec<u8> {
    json(&Bare { status: overall(&moment.reports).label() })
}

/// `/status`.
#[must_use]
pub fn status(moment: &Moment) -> Vec<u8> {
    let (system, about) = (&moment.system, &moment.about);
    let memory_used = system.memory_total_bytes.saturating_sub(system.memory_available_bytes);
    json(&Status {
        health: Health::of(moment),
        system: System {
            cpu_usage: percent(system.cpu_ratio),
            memory_total: gigabytes(system.memory_total_bytes),
            memory_available: gigabytes(system.memory_available_bytes),
            memory_used: gigabytes(memory_used),
            memory_percent: percent(ratio(memory_used, system.memory_total_bytes)),
            disk_total: gigabytes(system.disk_total_bytes),
            disk_used: gigabytes(system.disk_used_bytes),
            disk_free: gigabytes(system.disk_free_bytes),
            disk_percent: exact_percent(ratio(system.disk_used_bytes, system.disk_total_bytes)),
            platform: about.platform.as_ref().map_or(&system.platform, Clean::as_str),
            python_version: about.python_version.as_ref().map(Clean::as_str),
        },
        database_stats: Rows {
            products: Count(moment.rows.products),
            videos: Count(moment.rows.videos),
            social_media_posts: Count(moment.rows.social_media_posts),
        },
        version: about.version.as_ref().map_or(env!("CARGO_PKG_VERSION"), Clean::as_str),
        stale_system: moment.stale_system,
        lease: moment.standing.as_ref().map(|standing| Lease {
            held: standing.is_holder,
            holder: standing.holder.as_ref().map(Clean::as_str),
            held_seconds: standing.held_for.map(|held| held.as_secs_f64()),
            problem: standing.problem,
        }),
        reload: Some(&moment.reload).filter(|reload| reload.reloads > 0).map(|reload| Reload {
            reloads: reload.reloads,
            failures: reload.failures,
            succeeded_at: reload.succeeded_at.as_secs_f64(),
            problems: &reload.problems,
            restart_needed: &reload.waiting,
        }),
    })
}

/// `/api/v1/monitoring/metrics`.
#[must_use]
pub fn metrics(moment: &Moment) -> Vec<u8> {
    json(&Metrics::of(moment))
}

/// `/api/v1/monitoring/dashboard`.
#[must_use]
pub fn dashboard(moment: &Moment) -> Vec<u8> {
    let operational = overall(&moment.reports) == HealthStatus::Healthy;
    json(&Dashboard {
        health: Health::of(moment),
        metrics: Metrics::of(moment),
        activity: Activity {
            timestamp: moment.unix_seconds,
            active_tasks: moment.tasks.active_with(moment.celery.active),
            recent_requests: moment.totals.requests.min(RECENT_REQUESTS),
        },
        status: if operational { "operational" } else { "degraded" },
    })
}

#[derive(serde::Serialize)]
struct Bare {
    status: &'static str,
}

#[derive(serde::Serialize)]
struct Health<'a> {
    status: &'static str,
    services: Services<'a>,
    timestamp: f64,
}

impl<'a> Health<'a> {
    fn of(moment: &'a Moment) -> Self {
        Self {
            status: overall(&moment.reports).label(),
            services: Services(&moment.reports),
            timestamp: moment.unix_seconds,
        }
    }
}

/// A map by name that keeps the order of the reports.
struct Services<'a>(&'a [CheckReport]);

impl Serialize for Services<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for report in self.0 {
            let service = Service { status: report.status.label(), message: report.message.as_str() };
            map.serialize_entry(&report.name, &service)?;
        }
        map.end()
    }
}

#[derive(serde::Serialize)]
struct Service<'a> {
    status: &'static str,
    message: &'a str,
}

#[derive(serde::Serialize)]
struct Status<'a> {
    health: Health<'a>,
    system: System<'a>,
    database_stats: Rows,
    version: &'a str,
    /// Ours, and only while nothing renews `system`: a row that cannot be counted is an `"Error"`, and a check without a result `unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    stale_system: Option<Stale>,
    /// Ours, and only of replicas that share a lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<Lease<'a>>,
    /// Ours, and only once the configuration was read again.
    #[serde(skip_serializing_if = "Option::is_none")]
    reload: Option<Reload<'a>>,
}

/// What became of the configuration's changes.
#[derive(serde::Serialize)]
struct Reload<'a> {
    reloads: u64,
    failures: u64,
    succeeded_at: f64,
    problems: &'a [String],
    restart_needed: &'a [String],
}

/// Which replica exports what is true of the cluster.
#[derive(serde::Serialize)]
struct Lease<'a> {
    held: bool,
    holder: Option<&'a str>,
    held_seconds: Option<f64>,
    problem: Option<&'static str>,
}

#[derive(serde::Serialize)]
struct System<'a> {
    cpu_usage: String,
    memory_total: String,
    memory_available: String,
    memory_used: String,
    memory_percent: String,
    disk_total: String,
    disk_used: String,
    disk_free: String,
    disk_percent: String,
    platform: &'a str,
    /// Not there when the application does not tell it: the sidecar has none of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    python_version: Option<&'a str>,
}

#[derive(serde::Serialize)]
struct Rows {
    products: Count,
    videos: Count,
    social_media_posts: Count,
}

/// A number, or the word that the application has for a table that cannot be read.
struct Count(Option<u64>);

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(count) => serializer.serialize_u64(count),
            None => serializer.serialize_str("Error"),
        }
    }
}

#[derive(serde::Serialize)]
struct Dashboard<'a> {
    health: Health<'a>,
    metrics: Metrics,
    activity: Activity,
    status: &'static str,
}

#[derive(serde::Serialize)]
struct Activity {
    timestamp: f64,
    active_tasks: u64,
    recent_requests: u64,
}

#[derive(serde::Serialize)]
struct Metrics {
    request_count: u64,
    error_count: u64,
    average_response_time: f64,
    active_tasks: u64,
    uptime_seconds: f64,
    requests_per_second: f64,
}

impl Metrics {
    fn of(moment: &Moment) -> Self {
        let totals = &moment.totals;
        let average = match totals.duration_count {
            0 => 0.0,
            count => totals.duration_sum_seconds / count as f64,
        };
        Self {
            request_count: totals.requests,
            // as the application counts: responses and tasks
            error_count: totals.errors + moment.tasks.failures_with(moment.celery.errors),
            average_response_time: average,
            active_tasks: moment.tasks.active_with(moment.celery.active),
            uptime_seconds: moment.uptime_seconds,
            // below a second of age the rate would be nonsense
            requests_per_second: totals.requests as f64 / moment.uptime_seconds.max(1.0),
        }
    }
}

/// Compact JSON. serde_json writes floats in their shortest form that reads back, always with a point or exponent.
fn json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("strings and numbers serialise")
}

/// `15.2%`, of a ratio.
fn percent(ratio: f64) -> String {
    format!("{:.1}%", 100.0 * ratio.clamp(0.0, 1.0))
}

/// `25.09%`, of a ratio.
fn exact_percent(ratio: f64) -> String {
    format!("{:.2}%", 100.0 * ratio.clamp(0.0, 1.0))
}

/// `16.00 GB`, where the application's GB is 2^30 bytes.
fn gigabytes(bytes: u64) -> String {
    format!("{:.2} GB", bytes as f64 / f64::from(1_u32 << 30))
}

/// From bytes, not from the rounded texts; 0 of nothing.
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The body of an answer that is an error: what was wrong and what was expected.
#[must_use]
pub fn error(found: &str, expected: &str) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct Error<'a> {
        error: Cow<'a, str>,
        expected: &'a str,
    }
    json(&Error { error: found.into(), expected })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    const GIB: f64 = 1_073_741_824.0;

    fn moment() -> Moment {
        Moment {
            reports: Vec::new(),
            system: SystemUsage::default(),
            about: About::default(),
            rows: BusinessRows::default(),
            stale_system: None,
            totals: Totals::default(),
            tasks: TaskTotals::default(),
            celery: CeleryCounts::default(),
            standing: None,
            reload: ReloadState::default(),
            unix_seconds: 1_640_995_200.5,
            uptime_seconds: 3_600.5,
        }
    }

    #[test]
    fn sizes_and_shares_read_as_the_application_writes_them() {
        let mut moment = moment();
        moment.system = SystemUsage {
            cpu_ratio: 0.152,
            memory_total_bytes: 16 << 30,
            memory_available_bytes: (8.234 * GIB) as u64,
            disk_total_bytes: 512 << 30,
            disk_used_bytes: (128.45 * GIB) as u64,
            disk_free_bytes: (383.55 * GIB) as u64,
            platform: "Linux-6.1.0-x86_64".into(),
            ..SystemUsage::default()
        };
        let body: Value = serde_json::from_slice(&status(&moment)).unwrap();
        let system = &body["system"];
        for (key, expected) in [
            ("cpu_usage", "15.2%"),
            ("memory_total", "16.00 GB"),
            ("memory_available", "8.23 GB"),
            ("memory_used", "7.77 GB"),
            ("memory_percent", "48.5%"),
            ("disk_total", "512.00 GB"),
            ("disk_used", "128.45 GB"),
            ("disk_free", "383.55 GB"),
            ("disk_percent", "25.09%"),
        ] {
            assert_eq!(system[key], expected, "{key}");
        }
    }

    #[test]
    fn numbers_of_the_node_that_nothing_renews_say_how_old_they_are_and_others_add_nothing() {
        assert!(!String::from_utf8(status(&moment())).unwrap().contains("stale"));
        for (age_seconds, expected) in [(Some(75.5), "75.5"), (None, "null")] {
            let moment = Moment { stale_system: Some(Stale { age_seconds }), ..moment() };
            let body = String::from_utf8(status(&moment)).unwrap();
            assert!(body.ends_with(&format!(r#","stale_system":{{"age_seconds":{expected}}}}}"#)), "{body}");
        }
    }

    #[test]
    fn the_rate_is_of_the_whole_life_and_the_mean_of_what_ended() {
        let mut moment = moment();
        moment.totals = Totals {
            requests: 1_250,
            errors: 3,
            duration_sum_seconds: 306.25,
            duration_count: 1_250,
            ..Totals::default()
        };
        let body = String::from_utf8(metrics(&moment)).unwrap();
        let expected = concat!(
            r#"{"request_count":1250,"error_count":3,"average_response_time":0.245,"active_tasks":0,"#,
            r#""uptime_seconds":3600.5,"requests_per_second":0.3471740036106096}"#
        );
        assert_eq!(body, expected);
    }

    #[test]
    fn failed_tasks_are_errors_and_tasks_that_run_are_active() {
        let mut moment = moment();
        moment.totals.errors = 3;
        moment.tasks = TaskTotals { begun: 9, ended: [1, 4, 2], active: 2, failures: 3, ..TaskTotals::default() };
        let body: Value = serde_json::from_slice(&dashboard(&moment)).unwrap();
        assert_eq!((&body["metrics"]["error_count"], &body["metrics"]["active_tasks"]), (&6.into(), &2.into()));
        assert_eq!(body["activity"]["active_tasks"], 2);
    }

    #[test]
    fn failed_tasks_of_celery_are_errors_and_its_running_ones_active() {
        let mut moment = moment();
        (moment.totals.errors, moment.celery) = (3, CeleryCounts { active: 2, errors: 4 });
        let body: Value = serde_json::from_slice(&dashboard(&moment)).unwrap();
        assert_eq!((&body["metrics"]["error_count"], &body["metrics"]["active_tasks"]), (&7.into(), &2.into()));
        assert_eq!(body["activity"]["active_tasks"], 2);
    }

    #[test]
    fn nothing_is_counted_as_zero_with_a_point() {
        let body = String::from_utf8(metrics(&Moment { uptime_seconds: 0.0, ..moment() })).unwrap();
        assert!(body.contains(r#""average_response_time":0.0,"#), "{body}");
        assert!(body.contains(r#""uptime_seconds":0.0,"requests_per_second":0.0}"#), "{body}");
    }

    #[test]
    fn a_table_that_cannot_be_read_is_an_error_and_the_others_stay_numbers() {
        let rows = BusinessRows { products: Some(42), videos: None, social_media_posts: Some(0) };
        let body = String::from_utf8(status(&Moment { rows, ..moment() })).unwrap();
        assert!(body.contains(r#""database_stats":{"products":42,"videos":"Error","social_media_posts":0}"#), "{body}");
    }

    proptest! {
        #[test]
        fn every_share_has_its_decimals_and_stays_within_bounds(total: u64, free: u64, cpu in -1.0_f64..3.0) {
            let one = percent(cpu);
            let two = exact_percent(ratio(total.saturating_sub(free), total));
            for (text, decimals) in [(&one, 1), (&two, 2)] {
                let number = text.strip_suffix('%').expect("a percent sign");
                prop_assert_eq!(number.split_once('.').expect("a point").1.len(), decimals);
                prop_assert!((0.0..=100.0).contains(&number.parse::<f64>().expect("a number")));
            }
        }

        #[test]
        fn every_size_has_two_decimals_and_its_unit(bytes: u64) {
            let text = gigabytes(bytes);
            let number = text.strip_suffix(" GB").expect("a unit");
            prop_assert_eq!(number.split_once('.').expect("a point").1.len(), 2);
            let back = number.parse::<f64>().expect("a number") * GIB;
            prop_assert!((back - bytes as f64).abs() <= GIB / 100.0 + bytes as f64 * 1e-15);
        }

        #[test]
        fn every_float_is_a_float_and_reads_back(requests: u32, sum in 0.0_f64..1e9, uptime in 0.0_f64..1e9) {
            let mut moment = moment();
            moment.totals.requests = requests.into();
            moment.totals.duration_count = requests.into();
            moment.totals.duration_sum_seconds = sum;
            moment.uptime_seconds = uptime;
            let body: Value = serde_json::from_slice(&metrics(&moment)).expect("JSON");
            for key in ["average_response_time", "uptime_seconds", "requests_per_second"] {
                prop_assert!(body[key].is_f64(), "{}: {}", key, body[key]);
            }
            // by the standard parser: serde_json's default one is quick and may be off by the last bit
            let text = String::from_utf8(metrics(&moment)).expect("UTF-8");
            let written = text.split(r#""uptime_seconds":"#).nth(1).and_then(|rest| rest.split(',').next());
            prop_assert_eq!(written.and_then(|text| text.parse().ok()), Some(uptime));
        }
    }
}
