//! The state file itself: opened for one agent alone, read once, written with one call.

use super::slot::{FILE_BYTES_MAX, Found, SLOT_BYTES, Unusable, decode, encode_slot};
use crate::capacity::Baseline;
use crate::session::Saved;
use crate::wire::message::Id;
use rustix::fs::{
    FallocateFlags, FileType, FlockOperation, Gid, Mode, OFlags, Uid, fallocate, fchown, flock, fstat, open,
};
use rustix::io::{Errno, pread, pwrite};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Why the state file cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be opened or made.
    #[error("state file {path}: {source}{hint}")]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: Errno,
        /// What to do about it.
        hint: &'static str,
    },
    /// Something else has that name.
    #[error("state file {path} is not a regular file")]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Somebody else may have made it, or have it under another name.
    #[error("state file {path} is not this agent's alone: owner {owner}, {links} links; remove it")]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// Its owner's number.
        owner: u32,
        /// How many names it has.
        links: u64,
    },
    /// Two agents would overwrite each other.
    #[error("state file {path} is in use by another guestmeterd")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Reading or writing it failed.
    #[error("state file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: Errno,
    },
    /// The state outgrew its slot.
    #[error("state of {bytes} bytes does not fit into a slot of {SLOT_BYTES} bytes")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// An open state file.
#[derive(Debug)]
pub struct StateFile {
    file: OwnedFd,
    path: PathBuf,
    boot_id: Id,
    generation: u64,
    slot: usize,
    bytes: Vec<u8>,
}

impl StateFile {
    /// Opens or makes it, for this agent alone, and reads what an earlier one left.
    ///
    /// A missing parent directory is made, but no more than that one.
    ///
    /// # Errors
    /// [`StateError`] where it cannot be used at all; [`Unusable`] in the value where only its contents cannot.
    pub fn open(path: &Path, boot_id: Id) -> Result<(Self, Result<Found, Unusable>), StateError> {
        let failed = |source| StateError::Open { path: path.to_owned(), source, hint: hint(source) };
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            match rustix::fs::mkdir(parent, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(source) => return Err(failed(source)),
            }
        }
        // A FIFO of that name would hang the agent without NONBLOCK.
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = open(path, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
        let stat = fstat(&file).map_err(|source| StateError::Io { path: path.to_owned(), source })?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(StateError::NotAFile { path: path.to_owned() });
        }
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(StateError::InUse { path: path.to_owned() }),
            Err(source) => return Err(StateError::Io { path: path.to_owned(), source }),
        }
        let mut bytes = vec![0; FILE_BYTES_MAX];
        let read =
            read_all(&file, &mut bytes).map_err(|source| StateError::Io { path: path.to_owned(), source })?;
        bytes.truncate(read);
        let found = decode(&bytes, boot_id);
        let (generation, slot) = found.as_ref().map_or((0, 1), |found| (found.generation, found.slot));
        let file = Self { file, path: path.to_owned(), boot_id, generation, slot, bytes: Vec::new() };
        Ok((file, found))
    }

    /// Takes the room of both slots, so that a disk that fills later costs no save.
    ///
    /// # Errors
    /// [`StateError::Io`]: the disk is full already; a save may find room all the same, or later.
    pub fn take_room(&self) -> Result<(), StateError> {
        match fallocate(&self.file, FallocateFlags::empty(), 0, FILE_BYTES_MAX as u64) {
            // A file system that keeps no room is one of somebody's choice: /run is a tmpfs.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(source) => Err(StateError::Io { path: self.path.clone(), source }),
        }
    }

    /// Makes `uid` and `gid` its owners, so that an agent that is started as them can open it.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn give_to(&self, uid: u32, gid: u32) -> Result<(), StateError> {
        let failed = |source| StateError::Io { path: self.path.clone(), source };
        let stat = fstat(&self.file).map_err(failed)?;
        let ours = [uid, rustix::process::geteuid().as_raw()].contains(&stat.st_uid);
        // Else that file, whatever it is, would be given away.
        if !ours || stat.st_nlink > 1 {
            #[allow(clippy::useless_conversion, reason = "it is narrower on other architectures")]
            let links = stat.st_nlink.into();
            return Err(StateError::NotOurs { path: self.path.clone(), owner: stat.st_uid, links });
        }
        fchown(&self.file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(failed)
    }

    /// Writes one slot: one system call. tmpfs needs no sync.
    ///
    /// # Errors
    /// [`StateError::Io`] or [`StateError::TooLarge`]; the slot before it is whole in either case.
    pub fn save(&mut self, session: &Saved, baseline: Option<&Baseline>) -> Result<(), StateError> {
        let generation = self.generation.saturating_add(1);
        let slot = 1 - self.slot.min(1);
        encode_slot(&mut self.bytes, generation, self.boot_id, session, baseline)?;
        let failed = |source| StateError::Io { path: self.path.clone(), source };
        let mut rest = self.bytes.as_slice();
        let mut offset = if slot == 0 { 0 } else { SLOT_BYTES as u64 };
        while !rest.is_empty() {
            match pwrite(&self.file, rest, offset) {
                Ok(0) => return Err(failed(Errno::NOSPC)),
                Ok(written) => {
                    rest = rest.get(written..).unwrap_or_default();
                    offset += written as u64;
                }
                Err(Errno::INTR) => {}
                Err(source) => return Err(failed(source)),
            }
        }
        self.generation = generation;
        self.slot = slot;
        Ok(())
    }
}

fn read_all(file: &OwnedFd, bytes: &mut [u8]) -> Result<usize, Errno> {
    let mut read = 0;
    while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match pread(file, rest, read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(Errno::INTR) => {}
            Err(source) => return Err(source),
        }
    }
    Ok(read)
}

fn hint(source: Errno) -> &'static str {
    match source {
        Errno::LOOP => " (it is a symbolic link, which is not followed)",
        Errno::ACCESS | Errno::PERM | Errno::ROFS => " (name a writable place with --state)",
        Errno::NOENT => " (make its directory, or name another place with --state)",
        _ => "",
    }
}
