#![no_main]

#[path = "../checks/wire_frames.rs"]
mod wire_frames;

libfuzzer_sys::fuzz_target!(|data: &[u8]| wire_frames::check(data));
