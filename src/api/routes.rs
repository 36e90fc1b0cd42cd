//! The table of routes: what each path is, who may read it, and how it is described. Answers nothing itself.

use crate::api::reply::{CSS, HTML, JSON, TEXT};
use crate::model::exposition::Format;

/// What is answered. One variant per route, so a route without an answer does not compile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Root,
    Health,
    Status,
    MonitoringDashboard,
    MonitoringMetrics,
    Metrics,
    Livez,
    LivezItem,
    Readyz,
    ReadyzItem,
    Startupz,
    StartupzItem,
    OpenApi,
    Dashboard,
    DashboardStyle,
    Export,
    Queues,
}

/// Who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Everybody, without a limit: tells no detail.
    Probe,
    /// Everybody: strangers get the bare word.
    Word,
    /// Loopback and the allowed networks.
    Full,
}

/// One row: the router and `/openapi.json` are made from it.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) path: &'static str,
    pub(super) endpoint: Endpoint,
    pub(super) access: Access,
    pub(super) summary: &'static str,
    /// Query parameters and what they do.
    pub(super) query: &'static [(&'static str, &'static str)],
    /// Status codes other than those that every route of its kind has, with their meaning.
    pub(super) answers: &'static [(u16, &'static str)],
    /// The media types of a good answer.
    pub(super) media: &'static [&'static str],
}

const PROMETHEUS: &str = Format::Prometheus.content_type();
const OPEN_METRICS: &str = Format::OpenMetrics.content_type();

const PROBE_QUERY: &[(&str, &str)] =
    &[("verbose", "tell every item also when all pass"), ("exclude", "do not mind the item of this name; repeatable")];
const PROBE_ANSWERS: &[(u16, &str)] = &[(200, "passes"), (503, "fails")];
const ITEM_ANSWERS: &[(u16, &str)] = &[(200, "passes"), (503, "fails"), (404, "no such item")];
const OK: &[(u16, &str)] = &[(200, "the last values known")];

const fn route(path: &'static str, endpoint: Endpoint, access: Access, summary: &'static str) -> Route {
    Route { path, endpoint, access, summary, query: &[], answers: OK, media: &[JSON] }
}

const fn probe(path: &'static str, endpoint: Endpoint, summary: &'static str) -> Route {
    Route {
        query: PROBE_QUERY,
        answers: PROBE_ANSWERS,
        media: &[TEXT],
        ..route(path, endpoint, Access::Probe, summary)
    }
}

const fn probe_item(path: &'static str, endpoint: Endpoint, summary: &'static str) -> Route {
    Route { query: &[], answers: ITEM_ANSWERS, ..probe(path, endpoint, summary) }
}

/// All routes of the admin port.
pub(super) static ROUTES: &[Route] = &[
    Route {
        query: &[("strict", "1: answer 503 when the application is unhealthy")],
        answers: &[(200, "the last known health, whatever it is"), (503, "unhealthy, with strict=1")],
        ..route("/health", Endpoint::Health, Access::Word, "Health of the application and its services")
    },
    route("/status", Endpoint::Status, Access::Full, "Health, the node's resources and rows of the business tables"),
    route(
        "/api/v1/monitoring/dashboard",
        Endpoint::MonitoringDashboard,
        Access::Full,
        "Health, counts and activity in one body",
    ),
    Route {
        media: &[JSON, PROMETHEUS, OPEN_METRICS],
        ..route(
            "/api/v1/monitoring/metrics",
            Endpoint::MonitoringMetrics,
            Access::Full,
            "Counts of the proxied requests; to a Prometheus scraper, by Accept, what /metrics answers",
        )
    },
    Route {
        media: &[PROMETHEUS, OPEN_METRICS],
        ..route(
            "/metrics",
            Endpoint::Metrics,
            Access::Full,
            "All metrics as Prometheus or, by Accept, OpenMetrics text",
        )
    },
    route(
        "/api/v1/monitoring/export",
        Endpoint::Export,
        Access::Full,
        "What became of telemetry: our own account by signal and, with telemetry.receipts.url, what each vendor accepted",
    ),
    route(
        "/api/v1/monitoring/queues",
        Endpoint::Queues,
        Access::Full,
        "Celery's queues, workers and tasks, as its Redis tells of them",
    ),
    probe("/livez", Endpoint::Livez, "Whether the sidecar's loops turn"),
    probe_item("/livez/{item}", Endpoint::LivezItem, "One item of /livez"),
    probe("/readyz", Endpoint::Readyz, "Whether the sidecar takes traffic"),
    probe_item("/readyz/{item}", Endpoint::ReadyzItem, "One item of /readyz"),
    probe("/startupz", Endpoint::Startupz, "Whether the start is done"),
    probe_item("/startupz/{item}", Endpoint::StartupzItem, "One item of /startupz"),
    route("/openapi.json", Endpoint::OpenApi, Access::Full, "This description"),
    Route {
        media: &[HTML],
        ..route("/dashboard", Endpoint::Dashboard, Access::Full, "The dashboard page, refreshing itself")
    },
    Route {
        media: &[CSS],
        ..route("/dashboard.css", Endpoint::DashboardStyle, Access::Full, "The style of the dashboard page")
    },
    Route {
        answers: &[(308, "to /dashboard")],
        media: &[],
        ..route("/", Endpoint::Root, Access::Full, "The way to the dashboard page")
    },
];

/// The row of a path, if there is one.
pub(super) fn find(path: &str) -> Option<&'static Route> {
    ROUTES.iter().find(|route| match route.path.strip_suffix("{item}") {
        Some(prefix) => path.strip_prefix(prefix).is_some_and(|item| !item.is_empty() && !item.contains('/')),
        None => route.path == path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_has_one_row_and_is_found() {
        for (index, route) in ROUTES.iter().enumerate() {
            let path = route.path.replace("{item}", "listener");
            assert!(std::ptr::eq(find(&path).unwrap(), &ROUTES[index]), "{path}");
        }
        for path in ["/readyz/", "/readyz/a/b", "/nothing", "", "//health", "/health/"] {
            assert!(find(path).is_none(), "{path}");
        }
    }
}
