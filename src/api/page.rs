//! The dashboard page: rendered on the server, without script, refreshing itself.
//!
//! Every text from outside is escaped, whoever cleaned it before: names of routes and checks are hostile input.

use std::fmt::{self, Write};
use std::time::Duration;

use tokio::time::Instant;

use crate::api::html::{Escaped, ago, row, seconds, span, table_head};
use crate::api::state::{State, unix_seconds};
use crate::api::{celery_page, database_page, lease_page};
use crate::model::celery::CeleryState;
use crate::model::database::DatabaseState;
use crate::model::export::ExportState;
use crate::model::health::{CheckReport, HealthStatus, overall};
use crate::model::lease::Standing;
use crate::model::task::{TaskLists, TaskState};
use crate::model::telemetry::{DropReason, ExportCondition, Signal};
use crate::model::trace::TraceId;
use crate::model::traffic::{Failure, RouteTraffic, Totals, Window};

/// The style sheet, served from its own path so that nothing is inline.
pub(super) const STYLE: &str = include_str!("dashboard.css");

/// How many failures are shown.
const FAILURES: usize = 15;
/// How many routes are shown.
const ROUTES: usize = 12;

/// How many tasks that run are shown, and how many that failed.
const TASKS: usize = 8;

/// All that the page shows, of one moment.
pub(super) struct View {
    reports: Vec<CheckReport>,
    totals: Totals,
    windows: [Window; 3],
    routes: Vec<RouteTraffic>,
    failures: Vec<Failure>,
    tasks: TaskLists,
    celery: CeleryState,
    standing: Option<Standing>,
    export: ExportState,
    database: DatabaseState,
    uptime: Duration,
    now: f64,
    proxy: String,
    upstream: String,
}

impl View {
    /// Reads everything once.
    pub(super) fn of(state: &State) -> Self {
        Self {
            reports: state.reports(),
            totals: (state.traffic.totals)(),
            windows: (state.traffic.windows)(),
            routes: (state.traffic.routes)(),
            failures: (state.traffic.failures)(),
            tasks: state.tasks.lists(),
            celery: state.celery.state(),
            standing: (state.standing)(),
            export: (state.export)(),
            database: state.database.borrow().clone(),
            uptime: state.started.elapsed(),
            now: unix_seconds(),
            proxy: state.proxy.map_or("off".into(), |address| address.to_string()),
            upstream: state.upstream.clone(),
        }
    }
}

/// Renders the page.
pub(super) fn render(view: &View) -> String {
    let mut page = String::with_capacity(8 * 1024);
    // writing to a string does not fail
    let _ = write_page(&mut page, view);
    page
}

fn write_page(page: &mut String, view: &View) -> fmt::Result {
    let status = overall(&view.reports);
    write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"refresh\" content=\"5\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{} · content factory</title>\n<link rel=\"icon\" href=\"{}\">\n\
         <link rel=\"stylesheet\" href=\"/dashboard.css\">\n</head>\n<body>\n",
        capital(status.label()),
        icon(status)
    )?;
    verdict(page, view, status)?;
    page.push_str("<main>\n");
    services(page, view)?;
    traffic(page, view)?;
    routes(page, &view.routes)?;
    failures(page, view)?;
    tasks(page, &view.tasks)?;
    celery_page::section(page, &view.celery)?;
    database_page::section(page, &view.database, Instant::now())?;
    lease_page::section(page, view.standing.as_ref())?;
    export(page, view)?;
    write!(
        page,
        "</main>\n<footer><p>Proxy {} → {} · up {} · <a href=\"/health\">health</a> · \
         <a href=\"/metrics\">metrics</a> · <a href=\"/openapi.json\">all endpoints</a></p></footer>\n</body>\n</html>\n",
        Escaped(&view.proxy),
        Escaped(&view.upstream),
        span(view.uptime.as_secs_f64())
    )
}

fn verdict(page: &mut String, view: &View, status: HealthStatus) -> fmt::Result {
    let minute = &view.windows[0];
    write!(
        page,
        "<header class=\"{}\">\n<h1><span aria-hidden=\"true\">{}</span> {}</h1>\n<p>{}</p>\n<p>{}</p>\n</header>\n",
        status.label(),
        mark(status),
        headline(&view.reports, status),
        Escaped(&reasons(&view.reports)),
        traffic_words(minute)
    )
}

/// The verdict in words.
fn headline(reports: &[CheckReport], status: HealthStatus) -> String {
    let known = reports.iter().filter(|report| report.status != HealthStatus::Unknown).count();
    let bad = reports.iter().filter(|report| report.status > HealthStatus::Healthy).count();
    let services = |count: usize| if count == 1 { "1 service".to_owned() } else { format!("{count} services") };
    match status {
        HealthStatus::Healthy => format!("Healthy: {} as expected", services(known)),
        HealthStatus::Degraded => format!("Degraded: {} of {}", bad, services(known)),
        HealthStatus::Unhealthy => format!("Unhealthy: {} of {}", bad, services(known)),
        HealthStatus::Unknown => "Unknown: nothing has been checked yet".to_owned(),
    }
}

/// The messages of what is not healthy, worst first.
fn reasons(reports: &[CheckReport]) -> String {
    let mut bad: Vec<&CheckReport> = reports.iter().filter(|report| report.status > HealthStatus::Healthy).collect();
    bad.sort_by_key(|report| std::cmp::Reverse(report.status));
    let texts: Vec<&str> = bad.iter().map(|report| report.message.as_str()).collect();
    texts.join("; ")
}

fn traffic_words(minute: &Window) -> String {
    if minute.requests == 0 {
        return "No request in the last minute.".into();
    }
    let p95 = minute.p95_seconds.map(|p95| format!(", 95 % within {}", seconds(Some(p95)))).unwrap_or_default();
    format!("{} requests/s, {} errors{p95} in the last minute.", rate(minute), share(minute))
}

fn services(page: &mut String, view: &View) -> fmt::Result {
    page.push_str("<section aria-labelledby=\"services\">\n<h2 id=\"services\">Services</h2>\n<ul class=\"tiles\">\n");
    for report in &view.reports {
        let took =
            report.latency.map_or(String::new(), |latency| format!("{} · ", seconds(Some(latency.as_secs_f64()))));
        let age = report.checked_at.map_or("not checked yet".into(), |at| ago(view.now - at));
        writeln!(
            page,
            "<li class=\"{status}\"><h3>{}</h3><p class=\"word\"><span aria-hidden=\"true\">{}</span> {status}</p>\
             <p>{}</p><p class=\"small\">{took}{age}</p></li>",
            Escaped(&report.name),
            mark(report.status),
            Escaped(report.message.as_str()),
            status = report.status.label()
        )?;
    }
    page.push_str("</ul>\n</section>\n");
    Ok(())
}

fn traffic(page: &mut String, view: &View) -> fmt::Result {
    let totals = &view.totals;
    write!(
        page,
        "<section aria-labelledby=\"traffic\">\n<h2 id=\"traffic\">Traffic</h2>\n<p>{} requests since the start, \
         {} errors, {} in flight.</p>\n",
        totals.requests, totals.errors, totals.in_flight
    )?;
    table_head(page, "Sliding windows", &["Window", "Requests/s", "Errors", "p50", "p95", "p99"])?;
    for window in &view.windows {
        row(page, &span(window.length.as_secs_f64()), &window_cells(window))?;
    }
    page.push_str("</tbody></table>\n</section>\n");
    Ok(())
}

fn routes(page: &mut String, routes: &[RouteTraffic]) -> fmt::Result {
    if routes.is_empty() {
        return Ok(());
    }
    page.push_str("<section aria-labelledby=\"routes\">\n<h2 id=\"routes\">Routes</h2>\n");
    table_head(page, "Busiest in the last 5 minutes", &["Route", "Requests/s", "Errors", "p50", "p95", "p99"])?;
    for route in routes.iter().take(ROUTES) {
        let name = route.route.as_ref().map_or("(no known route)", |route| route.as_str());
        row(page, name, &window_cells(&route.window))?;
    }
    page.push_str("</tbody></table>\n</section>\n");
    Ok(())
}

fn window_cells(window: &Window) -> [String; 5] {
    [rate(window), share(window), seconds(window.p50_seconds), seconds(window.p95_seconds), seconds(window.p99_seconds)]
}

fn failures(page: &mut String, view: &View) -> fmt::Result {
    page.push_str("<section aria-labelledby=\"failures\">\n<h2 id=\"failures\">Recent failures</h2>\n");
    if view.failures.is_empty() {
        page.push_str("<p>None.</p>\n</section>\n");
        return Ok(());
    }
    table_head(page, "Newest first", &["Request", "When", "Status", "Error", "Took", "Trace"])?;
    for failure in view.failures.iter().take(FAILURES) {
        let route = failure.route.as_ref().map_or("(no known route)", |route| route.as_str());
        row(
            page,
            &format!("{} {route}", failure.method.label()),
            &[
                ago(view.now - failure.at),
                if failure.status == 0 { "none".into() } else { failure.status.to_string() },
                failure.error_type.as_str().to_owned(),
                seconds(Some(failure.duration.as_secs_f64())),
                trace(failure.trace_id),
            ],
        )?;
    }
    page.push_str("</tbody></table>\n</section>\n");
    Ok(())
}

/// Nothing, where the application tells of no task.
fn tasks(page: &mut String, lists: &TaskLists) -> fmt::Result {
    let totals = &lists.totals;
    if totals.begun == 0 {
        return Ok(());
    }
    let [succeeded, failed, lost] = totals.ended;
    write!(
        page,
        "<section aria-labelledby=\"tasks\">\n<h2 id=\"tasks\">Tasks</h2>\n<p>{} running; {succeeded} succeeded, \
         {failed} failed, {lost} lost since the start.</p>\n",
        totals.active
    )?;
    table_head(page, "The longest running, then the last that failed", &["Task", "State", "Time", "Trace"])?;
    for task in lists.open.iter().take(TASKS) {
        let cells = ["running".into(), format!("for {}", span(task.age.as_secs_f64())), trace(task.trace_id)];
        row(page, task.name.as_str(), &cells)?;
    }
    for task in lists.recent.iter().filter(|task| task.state != TaskState::Succeeded).take(TASKS) {
        let class = task.error_type.as_ref().map_or(String::new(), |class| format!(": {class}"));
        let cells = [format!("{}{class}", task.state.label()), ago(task.age.as_secs_f64()), trace(task.trace_id)];
        row(page, task.name.as_str(), &cells)?;
    }
    page.push_str("</tbody></table>\n</section>\n");
    Ok(())
}

fn trace(id: Option<TraceId>) -> String {
    id.map_or("–".into(), |id| id.to_string())
}

fn export(page: &mut String, view: &View) -> fmt::Result {
    let export = &view.export;
    let when = export
        .last_delivered_at
        .map_or("nothing delivered yet".into(), |at| format!("last delivery {}", ago(view.now - at)));
    let words = match export.condition {
        ExportCondition::Idle => "Nothing was sent yet",
        ExportCondition::Delivering => "Delivering",
        ExportCondition::Failing => "Failing: telemetry waits and is sent later",
        ExportCondition::Off => "Switched off",
    };
    write!(
        page,
        "<section aria-labelledby=\"export\" class=\"{}\">\n<h2 id=\"export\">Export</h2>\n<p>{words} · to {} · {when}.</p>\n",
        export.condition.label(),
        Escaped(&export.endpoint)
    )?;
    table_head(page, "Items", &["Signal", "Produced", "Delivered", "In memory", "On disk", "Rejected", "Dropped"])?;
    let accounts = Signal::ALL.iter().zip(&export.accounts);
    for (signal, account) in accounts.filter(|(signal, account)| signal.joins() || account.produced > 0) {
        row(
            page,
            signal.label(),
            &[
                account.produced.to_string(),
                account.delivered.to_string(),
                account.queued.to_string(),
                account.spooled.to_string(),
                account.rejected.to_string(),
                dropped(&account.dropped),
            ],
        )?;
    }
    page.push_str("</tbody></table>\n");
    vendors(page, view)?;
    page.push_str("</section>\n");
    Ok(())
}

/// What each vendor accepted, when the collector is asked.
fn vendors(page: &mut String, view: &View) -> fmt::Result {
    let Some(receipts) = &view.export.receipts else { return Ok(()) };
    let read = receipts.read_at.map_or("not read yet".into(), |at| format!("read {}", ago(view.now - at)));
    let problem =
        receipts.problem.as_ref().map_or(String::new(), |problem| format!(" · {problem}", problem = problem.as_str()));
    writeln!(page, "<p>Receipts from {} · {read}{}.</p>", Escaped(&receipts.url), Escaped(&problem))?;
    table_head(page, "Vendors", &["Vendor", "Signal", "State", "Accepted", "Given up", "In its queue"])?;
    for exporter in &receipts.exporters {
        for (signal, receipt) in Signal::OTLP.iter().zip(&exporter.signals) {
            let Some(receipt) = receipt else { continue };
            let state = format!("{} for {}", receipt.condition.label(), span(view.now - receipt.since));
            let queue = match (receipt.queue, receipt.capacity) {
                (Some(queue), Some(capacity)) if capacity > 0.0 => format!("{:.0} %", 100.0 * queue / capacity),
                _ => "–".to_owned(),
            };
            let given_up = receipt.failed + receipt.not_queued;
            let counts = [receipt.accepted.to_string(), given_up.to_string(), queue];
            let cells: Vec<String> = [signal.label().to_owned(), state].into_iter().chain(counts).collect();
            row(page, exporter.vendor.as_str(), &cells)?;
        }
    }
    page.push_str("</tbody></table>\n");
    Ok(())
}

/// `0`, or the sum with its reasons.
fn dropped(counts: &[u64; DropReason::ALL.len()]) -> String {
    let total: u64 = counts.iter().sum();
    let reasons: Vec<String> = DropReason::ALL
        .iter()
        .zip(counts)
        .filter(|(_, count)| **count > 0)
        .map(|(reason, count)| format!("{} {count}", reason.label()))
        .collect();
    if reasons.is_empty() { "0".into() } else { format!("{total} ({})", reasons.join(", ")) }
}

fn rate(window: &Window) -> String {
    format!("{:.1}", window.requests as f64 / window.length.as_secs_f64().max(1.0))
}

fn share(window: &Window) -> String {
    format!("{:.1} %", 100.0 * window.errors as f64 / window.requests.max(1) as f64)
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// A shape beside the word, so that colour is never alone.
fn mark(status: HealthStatus) -> &'static str {
    match status {
        HealthStatus::Healthy => "✔",
        HealthStatus::Degraded => "▲",
        HealthStatus::Unhealthy => "✖",
        HealthStatus::Unknown => "○",
    }
}

/// The icon of the tab, which tells the status too; the hues of the style sheet.
fn icon(status: HealthStatus) -> String {
    let hue = match status {
        HealthStatus::Healthy => "009e73",
        HealthStatus::Degraded => "e69f00",
        HealthStatus::Unhealthy => "d55e00",
        HealthStatus::Unknown => "808080",
    };
    format!(
        "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'%3E\
         %3Ccircle cx='4' cy='4' r='4' fill='%23{hue}'/%3E%3C/svg%3E"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::database::{DatabaseKind, Periods};
    use crate::model::health::{CheckHistory, Criticality};
    use crate::redact::Clean;

    fn view(reports: Vec<CheckReport>) -> View {
        let window = |minutes: u64| Window {
            length: Duration::from_secs(60 * minutes),
            requests: 0,
            errors: 0,
            p50_seconds: None,
            p95_seconds: None,
            p99_seconds: None,
        };
        View {
            reports,
            totals: Totals::default(),
            windows: [window(1), window(5), window(15)],
            routes: Vec::new(),
            failures: Vec::new(),
            tasks: TaskLists::default(),
            celery: CeleryState::off(),
            standing: None,
            export: ExportState::default(),
            database: DatabaseState::new(DatabaseKind::None, &Periods::default()),
            uptime: Duration::from_secs(90),
            now: 0.0,
            proxy: "127.0.0.1:18000".into(),
            upstream: "http://127.0.0.1:8000".into(),
        }
    }

    fn report(name: &str, status: HealthStatus, message: &'static str) -> CheckReport {
        CheckReport {
            name: name.into(),
            status,
            message: Clean::literal(message),
            criticality: Criticality::Critical,
            latency: None,
            checked_at: None,
            expires_at: None,
            kind: "tcp",
            period: Duration::from_secs(10),
            history: CheckHistory::default(),
        }
    }

    #[test]
    fn the_verdict_stands_first_and_in_words() {
        let page = render(&view(vec![
            report("database", HealthStatus::Healthy, "Database connection successful"),
            report("redis", HealthStatus::Unhealthy, "Redis check failed: timeout"),
        ]));
        let body = page.split("<body>").nth(1).unwrap();
        assert!(body.trim_start().starts_with("<header class=\"unhealthy\">"), "{body}");
        assert!(page.contains("Unhealthy: 1 of 2 services</h1>\n<p>Redis check failed: timeout</p>"), "{page}");
        assert!(page.contains("<title>Unhealthy · content factory</title>"));
        assert!(page.contains("No request in the last minute."));
    }

    #[test]
    fn hostile_texts_are_escaped() {
        let page = render(&view(vec![report("<img onerror=x>", HealthStatus::Healthy, "\"'&<script>")]));
        assert!(page.contains("&lt;img onerror=x&gt;"));
        assert!(page.contains("&quot;&#39;&amp;&lt;script&gt;"));
        assert!(!page.contains("<img") && !page.contains("<script"));
    }

    #[test]
    fn nothing_is_inline() {
        let page = render(&view(Vec::new()));
        for inline in ["<script", "<style", " style=", "onclick", "javascript:"] {
            assert!(!page.contains(inline), "{inline}");
        }
    }

    #[test]
    fn times_and_shares_are_written_for_people() {
        for (value, expected) in [(0.0021, "2.1 ms"), (0.25, "250 ms"), (1.5, "1.50 s")] {
            assert_eq!(seconds(Some(value)), expected);
        }
        for (value, expected) in [(40.0, "40 s"), (300.0, "5 min"), (7_200.0, "2 h"), (200_000.0, "2 d"), (-3.0, "0 s")]
        {
            assert_eq!(span(value), expected);
        }
        let mut counts = [0; DropReason::ALL.len()];
        assert_eq!(dropped(&counts), "0");
        counts[DropReason::QueueFull as usize] = 3;
        assert_eq!(dropped(&counts), "3 (queue_full 3)");
    }

    /// The relative luminance of `#rrggbb` (WCAG 2.2).
    fn luminance(colour: &str) -> f64 {
        let channel = |at: usize| {
            let value = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).expect("two hex digits")) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
    }

    #[test]
    fn every_text_reads_on_its_ground_in_both_themes() {
        let themes: Vec<&str> = STYLE.split(":root {").skip(1).map(|rest| rest.split('}').next().unwrap()).collect();
        assert_eq!(themes.len(), 2);
        for theme in themes {
            let colour = |name: &str| {
                let (_, rest) = theme.split_once(&format!("--{name}: ")).unwrap_or_else(|| panic!("no {name}"));
                luminance(&rest[..7])
            };
            for ground in ["paper", "card"] {
                for text in ["ink", "faint", "link", "healthy", "degraded", "unhealthy", "unknown"] {
                    let (low, high) = (colour(ground).min(colour(text)), colour(ground).max(colour(text)));
                    let contrast = (high + 0.05) / (low + 0.05);
                    assert!(contrast >= 4.5, "{text} on {ground}: {contrast:.2}");
                }
            }
        }
    }
}
