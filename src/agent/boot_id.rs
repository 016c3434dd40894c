//! The kernel's boot id: what tells one boot's counters from another's.

use crate::wire::message::Id;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Why it is unknown. Without it a saved count could be another boot's.
#[derive(Debug, thiserror::Error)]
pub(super) enum BootIdError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// It is not a UUID.
    #[error("{path}: {text:?} is not a boot id")]
    Format {
        /// The file.
        path: PathBuf,
        /// What it says.
        text: String,
    },
}

/// Reads `sys/kernel/random/boot_id` under `proc_root`.
///
/// # Errors
/// Names the file.
pub(super) fn read(proc_root: &Path) -> Result<Id, BootIdError> {
    let path = proc_root.join("sys/kernel/random/boot_id");
    let mut text = String::new();
    let read = std::fs::File::open(&path).and_then(|file| file.take(64).read_to_string(&mut text));
    match read {
        Ok(_) => parse(text.trim_end()).ok_or(BootIdError::Format { path, text }),
        Err(source) => Err(BootIdError::Read { path, source }),
    }
}

/// A UUID in the kernel's spelling: 8-4-4-4-12 hex digits.
fn parse(text: &str) -> Option<Id> {
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    if groups != [8, 4, 4, 4, 12] || !text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(&text.replace('-', ""), 16).ok().map(|id| Id(id.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_spelling_and_nothing_else() {
        let id = parse("00112233-4455-6677-8899-aabbccddeeff").unwrap();
        assert_eq!(
            id.0,
            [0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff]
        );
        for text in
            ["", "00112233", "00112233-4455-6677-8899-aabbccddeefg", "+0112233-4455-6677-8899-aabbccddeeff"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn this_machine_has_one_and_a_missing_file_is_named() {
        assert_ne!(read(Path::new("/proc")).unwrap(), Id::default());
        let error = read(Path::new("/nowhere")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/sys/kernel/random/boot_id"), "{error}");
    }
}
