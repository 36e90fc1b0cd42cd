//! libFuzzer on `tests/fuzz/targets/usage.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| content_factory_sidecar_fuzz::usage(data));
