//! The checks of kind `sql` against real servers of PostgreSQL, and a pooler before one.

use content_factory_sidecar::model::health::HealthStatus;
use serde_json::json;

use crate::checks_services::Checks;
use crate::database_room::Room;
use crate::database_servers::{PASSWORD, PgBouncer, Postgres};

/// Time for a login on a busy machine, and each result counts.
pub(crate) fn patient(url: &str) -> Checks {
    let pace = json!({"period": "2s", "timeout": "1900ms", "failure_threshold": 1, "success_threshold": 1, "degraded_above": "1900ms"});
    Checks::start(json!({"checks": {"database": pace}}), Some(url), None)
}

#[tokio::test]
async fn a_server_is_healthy_goes_and_comes_back_and_the_kept_connection_is_no_failure() {
    let mut postgres = Postgres::start(&[]).await;
    let mut checks = patient(&postgres.url("cf_sidecar"));
    checks.says("database", HealthStatus::Healthy, "Database connection successful").await;
    postgres.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'cf_sidecar'").await;
    let runs = checks.reader.borrow().iter().find(|report| report.name == "database").map(|report| report.history.runs);
    let healthy = runs.expect("a report")[HealthStatus::Healthy as usize];
    let two_more = |seen: u64| move |runs: &[u64; 4]| runs[HealthStatus::Healthy as usize] >= seen + 2;
    let enough = two_more(healthy);
    let report = checks.until("database", |report| enough(&report.history.runs)).await;
    assert_eq!(report.history.runs[HealthStatus::Unhealthy as usize], 0, "it was opened anew");
    postgres.stop();
    checks.says("database", HealthStatus::Unhealthy, "Database check failed: refused").await;
    postgres.start_again().await;
    let report = checks.until("database", |report| report.status == HealthStatus::Healthy).await;
    assert!(report.history.last_ok.is_some() && report.history.uptime_ratio.is_some_and(|ratio| ratio < 1.0));
}

#[tokio::test]
async fn a_wrong_password_and_a_database_that_is_not_there_are_told_apart() {
    let postgres = Postgres::start(&[]).await;
    let right = postgres.url("cf_sidecar");
    for (url, message) in [
        (right.replace(PASSWORD, "canary-canary"), "Database check failed: auth"),
        (right.replace("/postgres", "/nowhere"), "Database check failed: not_found"),
    ] {
        patient(&url).says("database", HealthStatus::Unhealthy, message).await;
    }
}

#[tokio::test]
async fn through_a_pooler_in_transaction_mode_the_check_shares_its_one_connection_with_the_readings() {
    let postgres = Postgres::start(&[]).await;
    let pooler = PgBouncer::start(&postgres).await;
    let url = postgres.url("cf_sidecar").replace(&postgres.address.to_string(), &pooler.address.to_string());
    let mut room = Room::start(&url);
    let mut checks = patient(&url);
    room.until("rows", |state| state.rows.current().copied()).await;
    let many = |runs: [u64; 4]| runs[HealthStatus::Healthy as usize] >= 3;
    let report = checks.until("database", |report| many(report.history.runs)).await;
    assert_eq!(report.message.as_str(), "Database connection successful");
}
