//! The values that travel between rooms; no I/O, no state of their own.
//!
//! A room gives out values of this floor and takes them in; no room names another room.

pub mod age;
pub mod ai;
pub mod ai_outcomes;
pub mod application;
pub mod attributes;
pub mod base64;
pub mod catalogue;
pub mod celery;
pub mod celery_exporter;
pub mod container;
pub mod database;
pub mod dsn;
pub mod export;
pub mod exposition;
pub mod health;
pub mod incident;
pub mod lease;
pub mod reload;
pub mod request;
pub mod route;
pub mod sample;
pub mod tally;
pub mod task;
pub mod telemetry;
pub mod trace;
pub mod traffic;
pub mod trouble;
pub mod usage;
