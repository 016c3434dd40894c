#![no_main]

#[path = "../checks/host_state.rs"]
mod host_state;

libfuzzer_sys::fuzz_target!(|data: &[u8]| host_state::check(data));
