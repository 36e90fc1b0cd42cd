//! What the spans of a request cost: a SERVER and a CLIENT span, encoded and handed over.
//!
//! `valgrind --tool=callgrind <this program> 20000`, and again with 120000: the difference of the instructions, divided
//! by 100,000, is the cost of a request. Prints what was counted, so that nothing is optimised away.

#![expect(clippy::print_stdout, reason = "the result of a program that measures")]

#[path = "way_out/mod.rs"]
mod way_out;

use content_factory_sidecar::model::telemetry::Signal;
use serde_json::json;

fn main() {
    // `cargo bench` passes `--bench` along
    let requests: u64 = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(20_000);
    let (telemetry, mut writer) = way_out::way_out(json!({}));
    for number in 0..requests {
        way_out::end_request(&mut writer, number);
    }
    println!("{:?}", telemetry.reader().state().accounts[Signal::Traces as usize]);
}
