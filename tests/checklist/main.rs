//! The checklist of a correct proxy: 34 points, a file each, over raw sockets against the real binary.
//!
//! In both directions where a point has two: hostile clients, and a hostile application. What is refused must carry the
//! right status, end its connection, reach nobody, and be counted by its reason at `/metrics`. The doc comment of each
//! test names the RFC and its section. The oracle (`tests/oracle`) judges many more messages, but without knowing what
//! each of them ought to become; here it is said. Points 17 and 28 to 32 are about HTTP/2; what floods leave of the throughput
//! of others is measured by `tests/floods`.

#![expect(clippy::disallowed_methods, reason = "the environment names the program that is tried")]

#[path = "../it/h2_fate.rs"]
mod h2_fate;
#[path = "../it/h2_world.rs"]
#[expect(dead_code, reason = "the suite of the whole product needs more of it")]
mod h2_world;
#[path = "../it/proxy_world.rs"]
#[expect(dead_code, reason = "the suite of the whole product needs more of it")]
mod proxy_world;
#[path = "../it/raw.rs"]
mod raw;
#[path = "../it/rig.rs"]
#[expect(dead_code, reason = "the suite of the whole product needs more of it")]
mod rig;

mod hostile;
mod house;

mod point_01_line_ends;
mod point_02_colon;
mod point_03_folding;
mod point_04_two_framings;
mod point_05_content_length;
mod point_06_transfer_encoding;
mod point_07_chunks;
mod point_08_trailers;
mod point_09_truncation;
mod point_10_early_answers;
mod point_11_no_body;
mod point_12_sizes;
mod point_13_versions;
mod point_14_host;
mod point_15_target_forms;
mod point_16_target_bytes;
mod point_17_http2_answers;
mod point_17_http2_to_1;
mod point_18_hop_by_hop;
mod point_19_upgrades;
mod point_20_expectations;
mod point_21_max_forwards;
mod point_22_via;
mod point_23_forwarded;
mod point_24_look_alikes;
mod point_25_trace_context;
mod point_26_injection;
mod point_27_failures;
mod point_28_rapid_reset;
mod point_29_continuation;
mod point_30_hpack_bomb;
mod point_31_floods;
mod point_32_frame_sizes;
mod point_33_deadlines;
mod point_34_hostile_application;

use std::sync::OnceLock;

/// The program that is tried: `SIDECAR_BIN`, such as the build that is shipped, else the one that cargo has built.
fn binary() -> &'static str {
    static BINARY: OnceLock<String> = OnceLock::new();
    BINARY.get_or_init(|| {
        let chosen = std::env::var("SIDECAR_BIN").ok().filter(|path| !path.is_empty());
        chosen.unwrap_or_else(|| env!("CARGO_BIN_EXE_content-factory-sidecar").to_owned())
    })
}
