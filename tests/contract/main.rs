//! The behaviour contract of the data path: what stays true under load, abuse, failure and restart.
//!
//! Black box, over real sockets, against the real binary: `SIDECAR_BIN`, else the one that cargo has built. Each test
//! has the number of its row in the contract. `cargo test --test contract` runs a short form; `CONTRACT=full`, which
//! is what `make soak` sets, the whole one. What is asserted are counts, bytes and equality; times only where a
//! machine that is ten times slower would still keep them.

#![expect(clippy::disallowed_methods, reason = "tests choose their size by the environment and take real time")]
#![expect(clippy::print_stdout, reason = "the figures of a run are its result")]

#[expect(dead_code, reason = "shared with the other black-box tests, which use all of it")]
#[path = "../it/grpc_world.rs"]
mod grpc_world;
#[expect(dead_code, reason = "shared with the other black-box tests, which use all of it")]
#[path = "../it/h2_fate.rs"]
mod h2_fate;
#[expect(dead_code, reason = "shared with the other black-box tests, which use all of it")]
#[path = "../it/h2_world.rs"]
mod h2_world;
#[path = "../it/port.rs"]
mod port;
#[expect(dead_code, reason = "shared with the other black-box tests, which use all of it")]
#[path = "../it/proxy_world.rs"]
mod proxy_world;
#[expect(dead_code, reason = "shared with the other black-box tests, which use all of it")]
#[path = "../it/rig.rs"]
mod rig;
#[expect(dead_code, reason = "shared with the other black-box tests, which use all of it")]
#[path = "../it/telemetry_link.rs"]
mod telemetry_link;
#[expect(dead_code, reason = "shared with the other black-box tests, which use all of it")]
#[path = "../it/telemetry_receiver.rs"]
mod telemetry_receiver;

mod attack;
mod bodies;
mod body;
mod clock;
mod counting;
mod counting_http2;
mod crowd;
mod farewell;
mod goaway;
mod kubernetes;
mod leaving;
mod memory;
mod origin;
mod outage;
mod overload;
mod pace;
mod page;
mod reload;
mod restarts;
mod rolling;
mod scale;
mod soak;
mod streams;

use std::sync::OnceLock;

/// The program that is tried: the release build when `make` names it.
fn binary() -> &'static str {
    static BINARY: OnceLock<String> = OnceLock::new();
    BINARY.get_or_init(|| {
        let chosen = std::env::var("SIDECAR_BIN").ok().filter(|path| !path.is_empty());
        chosen.unwrap_or_else(|| env!("CARGO_BIN_EXE_content-factory-sidecar").to_owned())
    })
}
