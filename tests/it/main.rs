//! Black-box tests over real sockets: one binary, a module per concern.

mod about;
mod api_bodies;
mod api_port;
mod api_rules;
mod api_whole;
mod celery_redis;
mod check_export;
mod checks_endpoints;
mod checks_kinds;
mod checks_own;
mod checks_rows;
mod checks_services;
mod command_line;
mod conventions;
mod database_business;
mod database_postgres;
mod database_room;
mod database_servers;
mod database_statements;
mod database_values;
mod demo;
mod documents;
mod egress;
mod export_receipts;
mod grpc_calls;
mod grpc_connections;
mod grpc_tonic;
mod grpc_world;
mod h2_admin;
mod h2_conduct;
mod h2_drain;
#[expect(dead_code, reason = "shared with the other black-box tests, which use all of it")]
mod h2_fate;
mod h2_requests;
#[expect(dead_code, reason = "shared with the other black-box tests, which use all of it")]
mod h2_world;
mod intake_limits;
mod intake_requests;
mod intake_start;
mod intake_world;
mod lying_collector;
mod port;
mod press;
mod proxy_arrivals;
mod proxy_counting;
mod proxy_drain;
mod proxy_failures;
mod proxy_metrics;
mod proxy_panics;
mod proxy_requests;
mod proxy_room;
mod proxy_slow;
mod proxy_world;
mod publish_answers;
mod raw;
mod raw_receiver;
mod rig;
mod secrets;
mod secrets_doors;
mod sentry_issues;
mod sentry_project;
mod start;
mod supervisor;
mod tasks;
mod telemetry_answers;
mod telemetry_certificates;
mod telemetry_connections;
mod telemetry_credentials;
mod telemetry_delivery;
mod telemetry_faults;
mod telemetry_limits;
mod telemetry_link;
mod telemetry_metrics;
mod telemetry_privacy;
mod telemetry_receiver;
mod telemetry_resource;
mod telemetry_sampling;
mod telemetry_setup;
mod telemetry_shutdown;
mod telemetry_spans;
mod telemetry_spool;
mod telemetry_spool_deletion;
mod telemetry_tls;
mod telemetry_tls_settings;
mod tracing_whole;

/// The program that is tried.
fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_content-factory-sidecar")
}
