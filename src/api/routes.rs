//! The table of routes, and the answer of each.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::get;

use crate::api::access::Reach;
use crate::api::config::{Config, Readiness};
use crate::api::guard::{Guard, guard};
use crate::api::probes::{self, Ask, Item, Probe};
use crate::api::state::State;
use crate::api::{contract, openapi, page, scrape};
use crate::model::exposition::Format;
use crate::model::health::{HealthStatus, overall};

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

const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// As `exposition::Format` names them; a test compares.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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

/// The router of all rows, behind the guard.
pub(super) fn router(state: Arc<State>, config: &Config) -> Router {
    let readiness = config.readiness;
    let mut router = Router::new();
    for route in ROUTES {
        let endpoint = route.endpoint;
        let answer = move |Shared(state): Shared<Arc<State>>, request: Request| async move {
            let asked = Asked { reach: request.extensions().get().copied().unwrap_or(Reach::Bare), readiness, request };
            answer(endpoint, &state, asked).await
        };
        router = router.route(route.path, get(answer));
    }
    router
        .fallback(async || error(StatusCode::NOT_FOUND, "no such path", "one of the paths in /openapi.json"))
        .method_not_allowed_fallback(async || {
            error(StatusCode::METHOD_NOT_ALLOWED, "method not allowed", "GET or HEAD")
        })
        .layer(from_fn_with_state(Arc::new(Guard::new(config)), guard))
        .with_state(state)
}

/// A request, as far as an answer depends on it.
struct Asked {
    reach: Reach,
    readiness: Readiness,
    request: Request,
}

async fn answer(endpoint: Endpoint, state: &State, asked: Asked) -> Response {
    let (query, headers) = (asked.request.uri().query(), asked.request.headers());
    match endpoint {
        Endpoint::Root => redirect("/dashboard"),
        Endpoint::Health => health(state, &asked),
        Endpoint::Status => respond(JSON, contract::status(&state.moment())),
        Endpoint::MonitoringDashboard => {
            (state.traffic.settled)().await;
            respond(JSON, contract::dashboard(&state.moment()))
        }
        Endpoint::MonitoringMetrics => match scrape::asked_for_instead_of_json(headers) {
            Some(format) => metrics(state, format).await,
            None => {
                (state.traffic.settled)().await;
                respond(JSON, contract::metrics(&state.moment()))
            }
        },
        Endpoint::Metrics => metrics(state, scrape::asked_for(headers).unwrap_or(Format::Prometheus)).await,
        Endpoint::Livez => {
            probe_answer(&probes::render("livez", &probes::liveness(&state.pulses, &state.drain), &Ask::parse(query)))
        }
        Endpoint::LivezItem => item_answer(&probes::liveness(&state.pulses, &state.drain), &asked.request),
        Endpoint::Readyz => probe_answer(&probes::render("readyz", &readiness(state, &asked), &Ask::parse(query))),
        Endpoint::ReadyzItem => item_answer(&readiness(state, &asked), &asked.request),
        Endpoint::Startupz => {
            probe_answer(&probes::render("startupz", &probes::startup(&state.latches), &Ask::parse(query)))
        }
        Endpoint::StartupzItem => item_answer(&probes::startup(&state.latches), &asked.request),
        Endpoint::OpenApi => respond(JSON, openapi::openapi()),
        Endpoint::Dashboard => {
            (state.traffic.settled)().await;
            respond(HTML, page::render(&page::View::of(state)))
        }
        Endpoint::DashboardStyle => respond(CSS, page::STYLE),
    }
}

async fn metrics(state: &State, format: Format) -> Response {
    (state.traffic.settled)().await;
    let (media, page) = scrape::render(format, &state.all_samples());
    respond(media, page)
}

fn health(state: &State, asked: &Asked) -> Response {
    let moment = state.moment();
    let strict = asked.request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair == "strict=1"));
    let body = match asked.reach {
        Reach::Full => contract::health(&moment),
        Reach::Bare => contract::bare_health(&moment),
    };
    let mut response = respond(JSON, body);
    if strict && overall(&moment.reports) == HealthStatus::Unhealthy {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

fn readiness(state: &State, asked: &Asked) -> Vec<Item> {
    let reports = match asked.readiness {
        Readiness::Own => Vec::new(),
        Readiness::Critical => state.reports(),
    };
    probes::readiness(&state.latches, &state.drain, &reports)
}

fn probe_answer(probe: &Probe) -> Response {
    let mut response = respond(TEXT, probe.text.clone());
    if !probe.passes {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

fn item_answer(items: &[Item], request: &Request) -> Response {
    let name = request.uri().path().rsplit('/').next().unwrap_or_default();
    match probes::render_one(items, name) {
        Some(probe) => probe_answer(&probe),
        None => error(StatusCode::NOT_FOUND, "no such item", "one of the items that ?verbose lists"),
    }
}

fn respond(media: &'static str, body: impl Into<Body>) -> Response {
    let builder = Response::builder().header(header::CONTENT_TYPE, media);
    builder.body(body.into()).expect("builder with a known media type must not fail")
}

fn redirect(target: &'static str) -> Response {
    let builder = Response::builder().status(StatusCode::PERMANENT_REDIRECT).header(header::LOCATION, target);
    builder.body(Body::empty()).expect("builder with a known target must not fail")
}

/// An answer that is an error, as JSON.
pub(super) fn error(status: StatusCode, found: &str, expected: &str) -> Response {
    let mut response = respond(JSON, contract::error(found, expected));
    *response.status_mut() = status;
    response
}

/// The value of a header as text, if there is one.
pub(super) fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
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

    #[test]
    fn the_media_types_of_metrics_are_those_of_the_pages() {
        assert_eq!(PROMETHEUS, Format::Prometheus.content_type());
        assert_eq!(OPEN_METRICS, Format::OpenMetrics.content_type());
    }
}
