//! The binary: hands its process to the command line, and maps the result to an exit code.

use std::io;
use std::process::ExitCode;

use content_factory_sidecar::cli::{self, Process};
use content_factory_sidecar::fetch::provide_cryptography;

/// Gives memory back to the kernel after a burst; how it is set stands in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    provide_cryptography();
    let process = Process {
        arguments: std::env::args_os().map(|text| text.to_string_lossy().into_owned()).collect(),
        environment: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        out: &mut io::stdout(),
        err: &mut io::stderr(),
    };
    // an output that cannot be written has nobody to tell it to
    cli::run(process).unwrap_or(ExitCode::FAILURE)
}
