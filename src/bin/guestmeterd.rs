//! `guestmeterd`: arguments, library call, exit code.
//!
//! Entered by the C library's start code, not by Rust's, which brings a handler of stack overflows and with it, in a
//! static binary, 140 KB of the C library: a tenth of the agent. What else Rust's does is done here or not needed.
#![no_main]
#![allow(unsafe_code, reason = "C gives the arguments as pointers")]

use guestmeter::agent::{Process, run};
use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::os::fd::IntoRawFd;
use std::os::unix::ffi::OsStrExt;

#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, arguments: *const *const c_char) -> c_int {
    occupy_standard_descriptors();
    // SAFETY: C's start code calls this, once, with the arguments' number and as many strings that end with a NUL and
    // live as long as the process.
    let arguments = unsafe { copied(usize::try_from(count).unwrap_or(0), arguments) };
    run(arguments.into_iter().skip(1), Process::Own).into()
}

/// # Safety
/// `first` points to `count` pointers to strings that end with a NUL.
unsafe fn copied(count: usize, first: *const *const c_char) -> Vec<OsString> {
    (0..count)
        .map(|index| {
            // SAFETY: `index` is below `count`, and the rest is the caller's word.
            let argument = unsafe { CStr::from_ptr(*first.add(index)) };
            OsStr::from_bytes(argument.to_bytes()).to_owned()
        })
        .collect()
}

/// A standard descriptor that is closed would become the first file that is opened, and take the log.
fn occupy_standard_descriptors() {
    for standard in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        if rustix::io::fcntl_getfd(standard).is_err()
            && let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null")
        {
            // The lowest number that is free: this one's.
            let _ = null.into_raw_fd();
        }
    }
}
