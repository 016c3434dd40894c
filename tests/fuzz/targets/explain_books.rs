#![no_main]

#[path = "../checks/explain_books.rs"]
mod explain_books;

libfuzzer_sys::fuzz_target!(|data: &[u8]| explain_books::check(data));
