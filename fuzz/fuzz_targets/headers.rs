//! libFuzzer on `tests/fuzz/targets/headers.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| content_factory_sidecar_fuzz::headers(data));
