//! The table of routes: what each path is, who may read it, and how it is described. Answers nothing itself.

use axum::http::Method;

use crate::api::reply::{CSS, HEALTH, HTML, JSON, TEXT};
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
    Database,
    Queues,
    Tasks,
    BeginTask,
    EndTask,
    Checks,
    Check,
    RunCheck,
    Heartbeat,
}

/// What is done with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    /// GET, and HEAD.
    Get,
    /// POST.
    Post,
    /// PATCH.
    Patch,
}

impl Verb {
    /// The method as HTTP writes it.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Patch => "PATCH",
        }
    }

    fn is_of(self, method: &Method) -> bool {
        method.as_str() == self.label() || (self == Self::Get && *method == Method::HEAD)
    }
}

/// Who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Everybody, without a limit: tells no detail.
    Probe,
    /// Everybody: strangers get the bare word.
    Word,
    /// Loopback and the allowed networks, a client's certificate, a token.
    Full,
    /// A token that writes; loopback as long as there are no tokens. An address alone is no leave to make work.
    Write,
    /// The application's own word: loopback, where it lives, and a token that writes.
    Told,
}

/// One row: the router and `/openapi.json` are made from it.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) verb: Verb,
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
const REFRESH: &[(&str, &str)] =
    &[("refresh", "1: runs what is asked for, or joins the run in flight, and waits for it; needs leave to write")];
const PROBE_ANSWERS: &[(u16, &str)] = &[(200, "passes"), (503, "fails")];
const ITEM_ANSWERS: &[(u16, &str)] = &[(200, "passes"), (503, "fails"), (404, "no such item")];
const OK: &[(u16, &str)] = &[(200, "the last values known")];
const WRONG_BODY: (u16, &str) = (400, "a body that cannot be read; the answer says what was expected");
const NO_JSON: (u16, &str) = (415, "a body that does not call itself JSON");

const fn route(path: &'static str, endpoint: Endpoint, access: Access, summary: &'static str) -> Route {
    Route { verb: Verb::Get, path, endpoint, access, summary, query: &[], answers: OK, media: &[JSON] }
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

const fn write(path: &'static str, endpoint: Endpoint, summary: &'static str) -> Route {
    Route { verb: Verb::Post, ..route(path, endpoint, Access::Write, summary) }
}

const fn told(path: &'static str, endpoint: Endpoint, summary: &'static str) -> Route {
    Route { verb: Verb::Post, ..route(path, endpoint, Access::Told, summary) }
}

/// All routes of the admin port.
pub(super) static ROUTES: &[Route] = &[
    Route {
        query: &[("strict", "1: answer 503 when the application is unhealthy")],
        answers: &[
            (200, "the last known health, whatever it is"),
            (503, "unhealthy, with strict=1, or as application/health+json"),
        ],
        media: &[JSON, HEALTH],
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
            "Counts since the sidecar's start; to a Prometheus scraper, by Accept, what /metrics answers",
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
        "/api/v1/monitoring/database",
        Endpoint::Database,
        Access::Full,
        "What the application's database told last, each part with its age",
    ),
    route(
        "/api/v1/monitoring/queues",
        Endpoint::Queues,
        Access::Full,
        "Celery's queues, workers and tasks, as its Redis tells of them",
    ),
    route(
        "/api/v1/monitoring/tasks",
        Endpoint::Tasks,
        Access::Full,
        "Tasks of the application: counts, those that run, and those that ended last",
    ),
    Route {
        verb: Verb::Post,
        answers: &[(201, "begun"), WRONG_BODY, NO_JSON, (503, "as many are open as there may be")],
        ..route(
            "/api/v1/monitoring/tasks",
            Endpoint::BeginTask,
            Access::Told,
            "Begins a task; the header traceparent names the span that it belongs to",
        )
    },
    Route {
        verb: Verb::Patch,
        answers: &[(200, "ended, now or before"), WRONG_BODY, NO_JSON, (404, "no such task")],
        ..route("/api/v1/monitoring/tasks/{id}", Endpoint::EndTask, Access::Told, "Ends a task")
    },
    Route {
        query: REFRESH,
        answers: &[
            (200, "the last values known"),
            (403, "refresh=1 by somebody who may not write"),
            (503, "unhealthy, as application/health+json"),
        ],
        media: &[JSON, HEALTH],
        ..route(
            "/api/v1/monitoring/checks",
            Endpoint::Checks,
            Access::Full,
            "All health checks: results, ages, percentiles, uptime",
        )
    },
    Route {
        query: REFRESH,
        answers: &[
            (200, "the last values known"),
            (403, "refresh=1 by somebody who may not write"),
            (404, "no such check"),
            (409, "refresh=1 of a check that is not configured"),
            (504, "with refresh=1, no run ended in time"),
        ],
        ..route("/api/v1/monitoring/checks/{item}", Endpoint::Check, Access::Full, "One health check")
    },
    Route {
        answers: &[
            (200, "the check, after the run that was made or joined; `run` tells which"),
            (404, "no such check"),
            (409, "the check is not configured"),
            (504, "no run ended in time"),
        ],
        ..write(
            "/api/v1/monitoring/checks/{item}/run",
            Endpoint::RunCheck,
            "Runs a health check now, or joins the run in flight",
        )
    },
    Route {
        answers: &[(200, "taken"), (404, "no check waits for a heartbeat of this name")],
        ..told(
            "/api/v1/monitoring/heartbeat/{item}",
            Endpoint::Heartbeat,
            "Takes the heartbeat of a check of kind heartbeat",
        )
    },
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

/// The row of a path and a method; of a method that the path does not know, the path's first.
pub(super) fn find(method: &Method, path: &str) -> Option<&'static Route> {
    at(path).find(|route| route.verb.is_of(method)).or_else(|| at(path).next())
}

/// The rows of a path.
pub(super) fn at(path: &str) -> impl Iterator<Item = &'static Route> {
    ROUTES.iter().filter(move |route| match route.path.split_once('{') {
        Some((before, rest)) => {
            let after = rest.split_once('}').map_or("", |(_, after)| after);
            let item = path.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
            item.is_some_and(|item| !item.is_empty() && !item.contains('/'))
        }
        None => route.path == path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_method_of_a_path_has_one_row_and_is_found() {
        for route in ROUTES {
            let path = route.path.replace("{item}", "listener").replace("{id}", "1");
            let method = Method::from_bytes(route.verb.label().as_bytes()).unwrap();
            assert!(std::ptr::eq(find(&method, &path).unwrap(), route), "{method} {path}");
        }
        for path in ["/readyz/", "/readyz/a/b", "/nothing", "", "//health", "/health/"] {
            assert!(find(&Method::GET, path).is_none(), "{path}");
        }
        let head = find(&Method::HEAD, "/api/v1/monitoring/tasks").unwrap();
        assert_eq!(head.endpoint, Endpoint::Tasks);
        assert_eq!(find(&Method::POST, "/livez").unwrap().endpoint, Endpoint::Livez);
        let run = find(&Method::GET, "/api/v1/monitoring/checks/redis/run").unwrap();
        assert_eq!((run.endpoint, run.access), (Endpoint::RunCheck, Access::Write), "a wrong verb opens nothing");
        assert_eq!(find(&Method::HEAD, "/api/v1/monitoring/checks/redis").unwrap().endpoint, Endpoint::Check);
    }
}
