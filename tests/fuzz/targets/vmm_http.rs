#![no_main]

#[path = "../checks/vmm_http.rs"]
mod vmm_http;

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmm_http::check(data));
