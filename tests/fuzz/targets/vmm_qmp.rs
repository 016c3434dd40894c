#![no_main]

#[path = "../checks/vmm_qmp.rs"]
mod vmm_qmp;

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmm_qmp::check(data));
