#![no_main]

#[path = "../checks/kernel_files.rs"]
mod kernel_files;

libfuzzer_sys::fuzz_target!(|data: &[u8]| kernel_files::check(data));
