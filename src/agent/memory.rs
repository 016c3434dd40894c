//! Memory that starting took and serving does not need, given back once.
#![allow(unsafe_code, reason = "malloc_trim(3), madvise(2) and the linker's symbols have no safe interface")]

use rustix::mm::{Advice, madvise};
use std::ptr::from_ref;

unsafe extern "C" {
    /// Where the program's image begins, and where its code ends, by the linker.
    safe static __executable_start: u8;
    safe static etext: u8;
}

/// Every whole page of the C library's heap that nothing lies on (musl gives them back by itself), and the code that
/// was mapped to start: what serving needs of it is mapped again when it runs, from the page cache.
pub(super) fn give_back() {
    // SAFETY: touches what is not allocated alone, and takes the allocator's own lock.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
    let page = rustix::param::page_size();
    let start = from_ref(&__executable_start).cast_mut();
    let start = start.wrapping_byte_add(start.align_offset(page));
    let bytes = from_ref(&etext).addr().saturating_sub(start.addr());
    // SAFETY: from the image's headers to the end of its code nothing is ever written, so every page is the file's.
    let _ = unsafe { madvise(start.cast(), bytes - bytes % page, Advice::LinuxDontNeed) };
}
