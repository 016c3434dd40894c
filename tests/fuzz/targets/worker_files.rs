#![no_main]

#[path = "../checks/worker_files.rs"]
mod worker_files;

libfuzzer_sys::fuzz_target!(|data: &[u8]| worker_files::check(data));
