//! Tells the linker where functions go: together, if an idle sidecar or a request runs them.
//!
//! The kernel maps a file's pages in neighbourhoods, so functions that are spread over the binary cost an idle process
//! several times their size in memory. `text.ld` is made by `make text-order`; a name in it that no longer exists does
//! nothing, and one that is missing costs some memory, no more. valgrind knows no names of functions outside of `.text`:
//! `TEXT_ORDER=off` leaves all in there, to profile by name.

#![expect(clippy::print_stdout, reason = "this is how a build script speaks to cargo")]
#![expect(clippy::disallowed_methods, reason = "the environment is how cargo speaks to a build script")]

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build");
    println!("cargo:rerun-if-env-changed=TEXT_ORDER");
    let is_wanted = env::var("TEXT_ORDER").map_or(true, |order| order != "off");
    let is_optimized = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    // the script speaks the language of GNU ld and lld; other systems have other linkers
    let is_linux = env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux");
    if is_wanted && is_optimized && is_linux {
        let folder = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo:rustc-link-arg-bins=-Wl,-T,{folder}/build/text.ld");
    }
}
