//! Kernel files: opened once, read again through the same descriptor, never past a bound.

use rustix::buffer::spare_capacity;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::collections::BinaryHeap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The most that is read of one text file: zoneinfo of a machine with thousands of CPUs stays below.
pub const TEXT_MAX: usize = 16 << 20;

/// The least that a page is on any machine.
pub(crate) const PAGE: usize = 4096;

/// Why a kernel file gave no fact.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// It could not be opened.
    #[error("opening {path}: {cause}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: Errno,
    },
    /// It could not be read.
    #[error("reading {path}: {cause}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: Errno,
    },
    /// It could not be written.
    #[error("writing {path}: {cause}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: Errno,
    },
    /// It is longer than any kernel writes it.
    #[error("{path} is longer than {max} bytes")]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The bound.
        max: usize,
    },
    /// Its text is not what the kernel documents.
    #[error("{path}: {what}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Nothing in it can be trusted at the moment.
    #[error("{path} changed under every one of {tries} readings")]
    Unstable {
        /// The file.
        path: PathBuf,
        /// How often it was read.
        tries: u32,
    },
}

/// One file and its descriptor.
#[derive(Debug)]
pub struct KernelFile {
    path: PathBuf,
    descriptor: OwnedFd,
}

impl KernelFile {
    /// Opens `path` for reading.
    ///
    /// # Errors
    /// What `openat(2)` says.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, KernelError> {
        Self::open_as(path.into(), OFlags::RDONLY)
    }

    /// Opens `path` for reading and writing: PCI configuration space only.
    ///
    /// # Errors
    /// What `openat(2)` says.
    pub fn open_writable(path: impl Into<PathBuf>) -> Result<Self, KernelError> {
        Self::open_as(path.into(), OFlags::RDWR)
    }

    fn open_as(path: PathBuf, flags: OFlags) -> Result<Self, KernelError> {
        match rustix::fs::open(&path, flags | OFlags::CLOEXEC, Mode::empty()) {
            Ok(descriptor) => Ok(Self { path, descriptor }),
            Err(cause) => Err(KernelError::Open { path, cause }),
        }
    }

    /// A descriptor that somebody opened before; `path` is only its name.
    #[must_use]
    pub fn given(path: PathBuf, descriptor: OwnedFd) -> Self {
        Self { path, descriptor }
    }

    /// What it is called in errors.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the descriptor away.
    #[must_use]
    pub fn into_descriptor(self) -> OwnedFd {
        self.descriptor
    }

    /// Reads the whole text into `buffer`, from the start.
    ///
    /// # Errors
    /// What `pread(2)` says, or a text over [`TEXT_MAX`].
    pub fn read_into(&self, buffer: &mut Vec<u8>) -> Result<(), KernelError> {
        buffer.clear();
        loop {
            let filled = buffer.len();
            if filled >= TEXT_MAX {
                return Err(KernelError::TooLong { path: self.path.clone(), max: TEXT_MAX });
            }
            // By pages, as the kernel answers: what was written once is the agent's own for good.
            buffer.reserve_exact(PAGE);
            let offset = u64::try_from(filled).unwrap_or(u64::MAX);
            rustix::io::retry_on_intr(|| {
                rustix::io::pread(&self.descriptor, spare_capacity(&mut *buffer), offset)
            })
            .map_err(|cause| self.read_error(cause))?;
            if buffer.len() == filled {
                return Ok(());
            }
        }
    }

    /// Reads a text that is known to be short in one system call.
    ///
    /// # Errors
    /// What `pread(2)` says, or a text that does not fit.
    pub fn read_short<'a>(&self, buffer: &'a mut [u8; 256]) -> Result<&'a [u8], KernelError> {
        let read = self.read_at(buffer, 0)?;
        if read == buffer.len() {
            return Err(KernelError::TooLong { path: self.path.clone(), max: buffer.len() });
        }
        Ok(buffer.get(..read).unwrap_or_default())
    }

    /// Reads a text of one page at most in one system call.
    ///
    /// # Errors
    /// What `pread(2)` says.
    #[cfg(feature = "agent")]
    pub(crate) fn read_page<'a>(
        &self,
        page: &'a mut [std::mem::MaybeUninit<u8>; PAGE],
    ) -> Result<&'a [u8], KernelError> {
        match rustix::io::pread(&self.descriptor, page.as_mut_slice(), 0) {
            Ok((text, _)) => Ok(text),
            Err(cause) => Err(self.read_error(cause)),
        }
    }

    /// One `pread(2)`.
    ///
    /// # Errors
    /// What it says.
    pub fn read_at(&self, buffer: &mut [u8], offset: usize) -> Result<usize, KernelError> {
        let offset = u64::try_from(offset).unwrap_or(u64::MAX);
        rustix::io::retry_on_intr(|| rustix::io::pread(&self.descriptor, &mut *buffer, offset))
            .map_err(|cause| self.read_error(cause))
    }

    /// One `pwrite(2)` of all of `bytes`.
    ///
    /// # Errors
    /// What it says.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), KernelError> {
        match rustix::io::retry_on_intr(|| rustix::io::pwrite(&self.descriptor, bytes, offset)) {
            Ok(written) if written == bytes.len() => Ok(()),
            Ok(_) => Err(KernelError::Write { path: self.path.clone(), cause: Errno::IO }),
            Err(cause) => Err(KernelError::Write { path: self.path.clone(), cause }),
        }
    }

    fn read_error(&self, cause: Errno) -> KernelError {
        KernelError::Read { path: self.path.clone(), cause }
    }

    /// An error about this file's text.
    #[must_use]
    pub fn parse_error(&self, what: impl Into<String>) -> KernelError {
        KernelError::Parse { path: self.path.clone(), what: what.into() }
    }
}

/// Opens, reads and closes one short text: for files that are looked at on events only.
///
/// # Errors
/// What the kernel says, or a text that is not short.
pub fn read_once(path: impl Into<PathBuf>) -> Result<String, KernelError> {
    let file = KernelFile::open(path)?;
    let mut buffer = [0; 256];
    let text = file.read_short(&mut buffer)?;
    Ok(String::from_utf8_lossy(text).trim().to_owned())
}

/// The names in a directory, sorted; at most 65,536 of them.
///
/// # Errors
/// What the kernel says.
pub fn list(path: &Path) -> Result<Vec<String>, KernelError> {
    let error = |cause: &std::io::Error| KernelError::Open {
        path: path.to_owned(),
        cause: Errno::from_io_error(cause).unwrap_or(Errno::IO),
    };
    let entries = std::fs::read_dir(path).map_err(|cause| error(&cause))?;
    let names: Vec<String> = entries
        .take(65_536)
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    Ok(sorted(names))
}

/// In rising order, by a heap: the standard sorts are quicker, and 4 KiB of code for each type.
pub(crate) fn sorted<T: Ord>(items: Vec<T>) -> Vec<T> {
    BinaryHeap::from(items).into_sorted_vec()
}
