//! The admin port: the endpoints, rendered from memory.
//!
//! `routes::ROUTES` lists them all; the router and `/openapi.json` are made from that one table. A request never
//! causes I/O, but one that asks for a run of a check: everything shown was put into memory by the rooms before, or is counted there at this moment.
//! What the admin port answers is never counted as the application's. Owns no state but its rate limit, and the rules in force
//! (`rulebook`), which are replaced as a whole.

mod access;
mod answers;
mod bill;
mod celery_page;
mod checks;
pub mod config;
pub mod contract;
mod database;
mod database_page;
mod export;
mod guard;
mod handshake;
mod health_json;
mod html;
mod lease_page;
mod limit;
mod openapi;
mod page;
mod places;
mod presented;
mod probes;
mod queues;
mod refusals;
mod reply;
mod router;
mod routes;
mod rulebook;
mod scrape;
mod server;
mod state;
mod tasks;
mod tls;
mod tokens;

pub use access::Network;
pub use openapi::openapi;
pub use rulebook::Rulebook;
pub use server::{BindError, Bound, bind};
pub use state::{State, Traffic};
