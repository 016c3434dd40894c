#![no_main]

#[path = "../checks/replay_trace.rs"]
mod replay_trace;

libfuzzer_sys::fuzz_target!(|data: &[u8]| replay_trace::check(data));
