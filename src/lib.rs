//! The content-factory sidecar: a telemetry sidecar for a Python web application.
//!
//! The library holds everything; the binary only maps a result to an exit code.
//! A module names only modules of a lower floor (`tests/architecture.rs` holds the floors and enforces it).

pub mod api;
pub mod app;
pub mod checks;
pub mod cli;
pub mod config;
pub mod credentials;
pub mod database;
pub mod demo;
pub mod egress;
pub mod fetch;
pub mod lease;
pub mod lifecycle;
pub mod model;
mod postgres_link;
pub mod problem;
pub mod proxy;
pub mod redact;
mod redis_link;
pub mod semconv;
pub mod serve;
pub mod settings;
pub mod system;
pub mod tasks;
pub mod telemetry;
pub mod traffic;
pub mod trust;
pub mod wall_clock;
