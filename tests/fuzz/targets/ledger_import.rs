#![no_main]

#[path = "../checks/ledger_import.rs"]
mod ledger_import;

libfuzzer_sys::fuzz_target!(|data: &[u8]| ledger_import::check(data));
