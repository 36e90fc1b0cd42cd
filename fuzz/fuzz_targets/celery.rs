//! libFuzzer on `tests/fuzz/targets/celery.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| content_factory_sidecar_fuzz::celery(data));
