//! One page of another's memory, mapped for reading: it may change at any time, and is never believed twice.
#![allow(unsafe_code, reason = "memory that the VMM writes has no safe interface")]

use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::c_void;
use std::os::fd::OwnedFd;
use std::ptr::{NonNull, null_mut};

/// The least that a page is on any machine: offsets stay below it.
const BYTES: usize = 4096;

/// The mapping.
#[derive(Debug)]
pub(super) struct Page {
    start: NonNull<c_void>,
    bytes: usize,
}

impl Page {
    /// Maps the first page of a device, or of a file that has at least `bytes_min`: what lies behind a file's end
    /// cannot be read.
    pub(super) fn map(file: &OwnedFd, bytes_min: usize) -> Result<Self, Errno> {
        let stat = fstat(file)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice => {}
            // A file that stands in for the device. Whoever cuts it short later ends the agent by SIGBUS: in /dev, that
            // is who may stop it anyway.
            FileType::RegularFile if usize::try_from(stat.st_size).is_ok_and(|size| size >= bytes_min) => {}
            FileType::RegularFile => return Err(Errno::NODATA),
            _ => return Err(Errno::NODEV),
        }
        let bytes = rustix::param::page_size().max(BYTES);
        // SAFETY: the kernel picks an address that nothing has, and the mapping is only read, and only as a whole number
        // at a time, which any bytes make.
        let start = unsafe { mmap(null_mut(), bytes, ProtFlags::READ, MapFlags::SHARED, file, 0)? };
        NonNull::new(start).map(|start| Self { start, bytes }).ok_or(Errno::FAULT)
    }

    /// The number at `OFFSET`, little endian, read once.
    pub(super) fn u32_at<const OFFSET: usize>(&self) -> u32 {
        u32::from_le(self.read::<u32, OFFSET>())
    }

    /// The number at `OFFSET`, little endian, read once.
    pub(super) fn u64_at<const OFFSET: usize>(&self) -> u64 {
        u64::from_le(self.read::<u64, OFFSET>())
    }

    fn read<T: Copy + Number, const OFFSET: usize>(&self) -> T {
        const { assert!(OFFSET.is_multiple_of(size_of::<T>()) && OFFSET + size_of::<T>() <= BYTES) }
        // SAFETY: `OFFSET` lies inside the mapping and is aligned, as was checked when this was compiled and since a
        // mapping begins at a page; the mapping lives as long as `self`; every bit pattern is a number; volatile, since
        // the VMM writes to it.
        unsafe { self.start.byte_add(OFFSET).cast::<T>().read_volatile() }
    }
}

/// What every bit pattern is one of.
trait Number {}
impl Number for u32 {}
impl Number for u64 {}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this address and length, and nothing refers to it any more.
        let unmapped = unsafe { munmap(self.start.as_ptr(), self.bytes) };
        debug_assert!(unmapped.is_ok());
    }
}
