//! The file itself: locked, read once, replaced whole.

use super::error::{StateCause, StateFileError};
use super::record::Record;
use crate::host::json_lines::ByteOrderMark;
use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Between two looks at a lock that another has.
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// Sixty-four long names and eight marks are less.
const BYTES_MAX: u64 = 128 * 1024;

/// A sandbox's state, for one process at a time.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    /// Holds the lock.
    file: File,
    record: Record,
}

impl StateFile {
    /// Opens and locks it; one that is not there is made, for `sandbox`. Waits at most `patience` for whoever has it.
    ///
    /// # Errors
    /// See [`StateCause`]; the file is as it was.
    pub async fn open(path: &Path, sandbox: &str, patience: Duration) -> Result<Self, StateFileError> {
        Self::of(path, Some(sandbox), patience).await
    }

    /// Opens and locks one that is there, whosever it is.
    ///
    /// # Errors
    /// As for [`StateFile::open`].
    pub async fn open_existing(path: &Path, patience: Duration) -> Result<Self, StateFileError> {
        Self::of(path, None, patience).await
    }

    async fn of(path: &Path, sandbox: Option<&str>, patience: Duration) -> Result<Self, StateFileError> {
        let fail = |cause| StateFileError { path: path.to_owned(), cause };
        let since = Instant::now();
        let mut file = loop {
            if let Some(file) = locked(path, sandbox.is_some()).map_err(fail)? {
                break file;
            }
            if since.elapsed() >= patience {
                return Err(fail(StateCause::InUse));
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        };
        let record = read(&mut file, sandbox).map_err(fail)?;
        Ok(Self { path: path.to_owned(), file, record })
    }

    /// What is known.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Changes what is known, on disk when this returns; where that fails, nothing is changed.
    ///
    /// # Errors
    /// Of `change`, or of writing.
    pub fn update<T>(
        &mut self,
        change: impl FnOnce(&mut Record) -> Result<T, StateCause>,
    ) -> Result<T, StateFileError> {
        let mut record = self.record.clone();
        let done = change(&mut record).map_err(|cause| self.fail(cause))?;
        if record != self.record {
            let text = record.to_json().map_err(|cause| self.fail(cause))?;
            self.file = self.replace(&text).map_err(|error| self.fail(StateCause::Write(error)))?;
            self.record = record;
        }
        Ok(done)
    }

    pub(super) fn fail(&self, cause: StateCause) -> StateFileError {
        StateFileError { path: self.path.clone(), cause }
    }

    /// Whole or not at all, and locked before it can be found.
    fn replace(&self, text: &[u8]) -> io::Result<File> {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let new = folder.join(name);
        // Of one that was killed while it wrote; nobody else writes here while the lock is held.
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        let done = self.fill(&mut file, text).and_then(|()| std::fs::rename(&new, &self.path));
        if let Err(error) = done {
            let _ = std::fs::remove_file(&new);
            return Err(error);
        }
        File::open(folder)?.sync_all()?;
        Ok(file)
    }

    fn fill(&self, file: &mut File, text: &[u8]) -> io::Result<()> {
        file.lock()?;
        file.set_permissions(Permissions::from_mode(self.file.metadata()?.mode() & 0o777))?;
        file.write_all(text)?;
        file.sync_all()
    }
}

/// The file that has this name, locked; `None` where another has it, or has just replaced it.
fn locked(path: &Path, make: bool) -> Result<Option<File>, StateCause> {
    let mut options = OpenOptions::new();
    // A FIFO of that name would hang without NONBLOCK.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let opened = options.read(true).write(true).create(make).mode(0o600).custom_flags(flags).open(path);
    let file = opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound if !make => StateCause::Missing,
        io::ErrorKind::IsADirectory => StateCause::NotAFile,
        _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => StateCause::Link,
        _ => StateCause::Open(error),
    })?;
    let opened = file.metadata().map_err(StateCause::Open)?;
    if !opened.is_file() {
        return Err(StateCause::NotAFile);
    }
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(StateCause::Open(error)),
    }
    let same = std::fs::symlink_metadata(path)
        .is_ok_and(|named| (named.dev(), named.ino()) == (opened.dev(), opened.ino()));
    Ok(same.then_some(file))
}

fn read(file: &mut File, sandbox: Option<&str>) -> Result<Record, StateCause> {
    let mut text = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut text).map_err(StateCause::Open)?;
    if text.len() as u64 > BYTES_MAX {
        return Err(StateCause::TooLong(BYTES_MAX));
    }
    if text.is_empty() {
        return sandbox.map(Record::new).ok_or(StateCause::Missing);
    }
    ByteOrderMark::refuse(&text)?;
    let record = Record::parse(&text)?;
    match sandbox {
        Some(wanted) if wanted != record.sandbox() => {
            Err(StateCause::Sandbox { wanted: wanted.to_owned(), found: record.sandbox().to_owned() })
        }
        _ => Ok(record),
    }
}
