//! The answer of each route, from memory.

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::api::access::Reach;
use crate::api::config::Readiness;
use crate::api::health_json::Form;
use crate::api::probes::{self, Ask, Item, Probe};
use crate::api::reply::{CSS, HTML, JSON, TEXT, error, redirect, respond};
use crate::api::routes::Endpoint;
use crate::api::state::{State, unix_seconds};
use crate::api::{checks, contract, database, export, health_json, openapi, page, queues, scrape, tasks};
use crate::checks::Ran;
use crate::model::exposition::Format;
use crate::model::health::{HealthStatus, overall};

/// A request, as far as an answer depends on it.
pub(super) struct Asked {
    pub(super) reach: Reach,
    pub(super) readiness: Readiness,
    pub(super) request: Request,
}

/// Answers. Waits for nothing but counts that are on their way.
pub(super) async fn answer(endpoint: Endpoint, state: &State, asked: Asked) -> Response {
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
        Endpoint::Export => {
            respond(JSON, export::json(&(state.export)(), (state.traffic.totals)().requests, unix_seconds()))
        }
        Endpoint::Database => respond(JSON, database::json(&state.database.borrow(), unix_seconds(), Instant::now())),
        Endpoint::Queues => respond(JSON, queues::json(&state.celery.state(), unix_seconds())),
        Endpoint::DashboardStyle => respond(CSS, page::STYLE),
        Endpoint::Tasks => respond(JSON, tasks::json(&state.tasks.lists(), unix_seconds())),
        Endpoint::BeginTask => tasks::begin(&state.tasks, asked.request).await,
        Endpoint::EndTask => tasks::end(&state.tasks, asked.request).await,
        Endpoint::Checks => {
            let form = Form::asked_for(headers);
            all_checks(state, Wish::of(&asked), (form, asked.reach)).await
        }
        Endpoint::Check => one_check(state, Wish::of(&asked), item(&asked.request, "")).await,
        Endpoint::RunCheck => run_check(state, item(&asked.request, "/run")).await,
        Endpoint::Heartbeat => match state.desk.beat(item(&asked.request, "")) {
            true => respond(JSON, r#"{"status":"taken"}"#),
            false => error(StatusCode::NOT_FOUND, "no such heartbeat", "the name of a check of kind heartbeat"),
        },
    }
}

/// Whether the query holds this pair.
fn is_set(request: &Request, pair: &str) -> bool {
    request.uri().query().is_some_and(|query| query.split('&').any(|other| other == pair))
}

/// The last part of the path before this end.
fn item<'r>(request: &'r Request, end: &str) -> &'r str {
    let path = request.uri().path();
    path.strip_suffix(end).unwrap_or(path).rsplit('/').next().unwrap_or_default()
}

fn check(state: &State, name: &str, asked: Option<Ran>) -> Response {
    match state.reports().iter().find(|report| report.name == name) {
        Some(report) => respond(JSON, checks::one(report, asked, unix_seconds())),
        None => error(StatusCode::NOT_FOUND, "no such check", "one of those in /api/v1/monitoring/checks"),
    }
}

/// What is wished for with the checks.
enum Wish {
    /// Their last results.
    Memory,
    /// New ones.
    Run,
    /// New ones, by somebody who may not have any made.
    Refused,
}

impl Wish {
    fn of(asked: &Asked) -> Self {
        match (is_set(&asked.request, "refresh=1"), asked.reach) {
            (false, _) => Self::Memory,
            // a picture on a page of another site is a GET, too, and a browser says whose it is (Fetch Metadata)
            (true, Reach::Write) if !is_of_another_site(asked.request.headers()) => Self::Run,
            (true, _) => Self::Refused,
        }
    }
}

fn is_of_another_site(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none")
}

fn no_refresh() -> Response {
    error(StatusCode::FORBIDDEN, "refresh=1 makes work", "a token that writes, and no page of another site")
}

async fn all_checks(state: &State, wish: Wish, (form, reach): (Form, Reach)) -> Response {
    match wish {
        Wish::Memory => {}
        Wish::Run => run_all(state).await,
        Wish::Refused => return no_refresh(),
    }
    let reports = state.reports();
    match form {
        Form::Own => respond(JSON, checks::all(&reports, unix_seconds())),
        Form::Draft => health_json::answer(state, &reports, reach),
    }
}

async fn one_check(state: &State, wish: Wish, name: &str) -> Response {
    match wish {
        Wish::Memory => check(state, name, None),
        Wish::Run => run_check(state, name).await,
        Wish::Refused => no_refresh(),
    }
}

/// Waits until each check has run, or none can any more; those that are not configured have no run.
async fn run_all(state: &State) {
    let mut runs = JoinSet::new();
    for report in state.reports() {
        let desk = state.desk.clone();
        runs.spawn(async move { desk.run(&report.name).await });
    }
    while runs.join_next().await.is_some() {}
}

async fn run_check(state: &State, name: &str) -> Response {
    match state.desk.run(name).await {
        Some(Ran::Late) => {
            error(StatusCode::GATEWAY_TIMEOUT, "no run ended in time", "a free place among health.concurrency")
        }
        None if state.reports().iter().any(|report| report.name == name) => {
            error(StatusCode::CONFLICT, "not configured", "a check that is configured")
        }
        asked => check(state, name, asked),
    }
}

async fn metrics(state: &State, format: Format) -> Response {
    (state.traffic.settled)().await;
    scrape::answer(format, state.all_samples())
}

fn health(state: &State, asked: &Asked) -> Response {
    if Form::asked_for(asked.request.headers()) == Form::Draft {
        return health_json::answer(state, &state.reports(), asked.reach);
    }
    let moment = state.moment();
    let strict = is_set(&asked.request, "strict=1");
    let body = match asked.reach {
        Reach::Full | Reach::Write => contract::health(&moment),
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
    match probes::render_one(items, item(request, "")) {
        Some(probe) => probe_answer(&probe),
        None => error(StatusCode::NOT_FOUND, "no such item", "one of the items that ?verbose lists"),
    }
}
