#![no_main]

#[path = "../checks/wire_messages.rs"]
mod wire_messages;

libfuzzer_sys::fuzz_target!(|data: &[u8]| wire_messages::check(data));
