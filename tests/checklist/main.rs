//! The checklist of a correct proxy: 34 points, a file each, over raw sockets against the real binary.
//!
//! In both directions where a point has two: hostile clients, and a hostile application. What is refused must carry the
//! right status, end its connection, reach nobody, and be counted by its reason at `/metrics`. The doc comment of each
//! test names the RFC and its section. The oracle (`tests/oracle`) judges many more messages, but without knowing what
//! each of them ought to become; here it is said. Points 17 and 28 to 32 are about HTTP/2 and stand with its tests.

#[path = "../it/raw.rs"]
mod raw;
#[path = "../it/rig.rs"]
#[expect(dead_code, reason = "the suite of the whole product needs more of it")]
mod rig;

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
mod point_33_deadlines;
mod point_34_hostile_application;

/// The program that is tried.
fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_content-factory-sidecar")
}
