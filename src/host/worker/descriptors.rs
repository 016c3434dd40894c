//! The drop-in directory: a file for each sandbox, put there by write-then-rename.
//!
//! A file that cannot be used changes nothing: what its last good contents said stays, and its fault is told until it
//! is mended or gone. Two files of one sandbox: the first one stays.

use super::descriptor::{Descriptor, DescriptorError};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// More files than this are not looked at: one worker serves a machine, not a cell.
const FILES_MAX: usize = 100_000;
/// What makes a file a descriptor.
const ENDING: &str = ".toml";

/// What has become of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It is described, by this.
    Described(Arc<Descriptor>),
    /// It is not described any more.
    Gone(String),
}

/// A directory as it was last read.
pub(super) struct Descriptors {
    directory: PathBuf,
    files: BTreeMap<String, File>,
}

#[derive(Default)]
struct File {
    /// Its last good contents.
    good: Option<Arc<Descriptor>>,
    fault: Option<DescriptorError>,
}

impl Descriptors {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, files: BTreeMap::new() }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// What is wrong with which files.
    pub(super) fn faults(&self) -> impl Iterator<Item = (&str, &DescriptorError)> {
        self.files.iter().filter_map(|(name, file)| Some((name.as_str(), file.fault.as_ref()?)))
    }

    /// Reads all of it anew. A directory that cannot be read says nothing of any sandbox.
    pub(super) fn read_all(&mut self) -> io::Result<Vec<Change>> {
        let mut names: BTreeSet<String> = self.files.keys().cloned().collect();
        for entry in std::fs::read_dir(&self.directory)?.take(FILES_MAX) {
            if let Ok(name) = entry?.file_name().into_string()
                && is_descriptor(&name)
            {
                names.insert(name);
            }
        }
        Ok(self.read(names))
    }

    /// Reads these files anew.
    pub(super) fn read(&mut self, names: impl IntoIterator<Item = String>) -> Vec<Change> {
        let mut changes = Vec::new();
        for name in names.into_iter().filter(|name| is_descriptor(name)) {
            self.read_file(name, &mut changes);
        }
        // Whoever was second may be the first now.
        let freed = changes.iter().any(|change| matches!(change, Change::Gone(_)));
        if freed {
            let second = |file: &File| matches!(file.fault, Some(DescriptorError::Twice { .. }));
            let names = self.files.iter().filter(|(_, file)| second(file)).map(|(name, _)| name.clone());
            for name in names.collect::<Vec<_>>() {
                self.read_file(name, &mut changes);
            }
        }
        changes
    }

    fn read_file(&mut self, name: String, changes: &mut Vec<Change>) {
        let read = Descriptor::read(&self.directory.join(&name));
        let read = read.and_then(|found| found.map(|found| self.unique(&name, found)).transpose());
        match read {
            Ok(None) => {
                let was = self.files.remove(&name).and_then(|file| file.good);
                changes.extend(was.map(|was| Change::Gone(was.sandbox.clone())));
            }
            Ok(Some(found)) => {
                let file = self.files.entry(name).or_default();
                file.fault = None;
                if file.good.as_deref() == Some(&found) {
                    return;
                }
                let found = Arc::new(found);
                let was = file.good.replace(Arc::clone(&found));
                let other = was.filter(|was| was.sandbox != found.sandbox);
                changes.extend(other.map(|was| Change::Gone(was.sandbox.clone())));
                changes.push(Change::Described(found));
            }
            Err(fault) => self.files.entry(name).or_default().fault = Some(fault),
        }
    }

    /// The same, unless another file describes its sandbox.
    fn unique(&self, name: &str, found: Descriptor) -> Result<Descriptor, DescriptorError> {
        let same =
            |file: &File| file.good.as_ref().is_some_and(|described| described.sandbox == found.sandbox);
        match self.files.iter().find(|(other, file)| *other != name && same(file)) {
            Some((by, _)) => Err(DescriptorError::Twice { sandbox: found.sandbox, by: by.clone() }),
            None => Ok(found),
        }
    }
}

/// A name that begins with a dot is a file on its way.
pub(super) fn is_descriptor(name: &str) -> bool {
    name.ends_with(ENDING) && !name.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tempfile::TempDir;

    fn text(sandbox: &str, base_mib: u64) -> String {
        format!("sandbox = '{sandbox}'\norg = 'o'\nbase_memory_mib = {base_mib}\n")
    }

    fn put(folder: &TempDir, name: &str, text: &str) {
        fs::write(folder.path().join(name), text).unwrap();
    }

    /// `+sandbox base` and `-sandbox`.
    fn told(changes: &[Change]) -> Vec<String> {
        let tell = |change: &Change| match change {
            Change::Described(found) => format!("+{} {}", found.sandbox, found.base_memory_mib),
            Change::Gone(sandbox) => format!("-{sandbox}"),
        };
        changes.iter().map(tell).collect()
    }

    fn start() -> (TempDir, Descriptors) {
        let folder = tempfile::tempdir().unwrap();
        put(&folder, "a.toml", &text("a", 1));
        put(&folder, "b.toml", &text("b", 2));
        put(&folder, ".c.toml", "half");
        put(&folder, "d.toml.new", "half");
        let mut descriptors = Descriptors::new(folder.path().to_owned());
        assert_eq!(told(&descriptors.read_all().unwrap()), ["+a 1", "+b 2"]);
        (folder, descriptors)
    }

    #[test]
    fn only_what_changed_is_told() {
        let (folder, mut descriptors) = start();
        assert_eq!(told(&descriptors.read_all().unwrap()), [""; 0]);
        put(&folder, "a.toml", &text("a", 3));
        assert_eq!(told(&descriptors.read(["a.toml".to_owned()])), ["+a 3"]);
        put(&folder, "a.toml", &text("z", 3));
        assert_eq!(told(&descriptors.read_all().unwrap()), ["-a", "+z 3"]);
        fs::remove_file(folder.path().join("b.toml")).unwrap();
        assert_eq!(told(&descriptors.read_all().unwrap()), ["-b"]);
    }

    #[test]
    fn half_a_file_is_named_and_changes_nothing() {
        let (folder, mut descriptors) = start();
        put(&folder, "a.toml", "sandbox = 'a'\nor");
        assert_eq!(told(&descriptors.read_all().unwrap()), [""; 0]);
        let faults: Vec<_> = descriptors.faults().map(|(name, fault)| (name, fault.to_string())).collect();
        assert!(matches!(faults.as_slice(), [("a.toml", why)] if why.contains("line 2")), "{faults:?}");
        put(&folder, "a.toml", &text("a", 1));
        assert_eq!(told(&descriptors.read_all().unwrap()), [""; 0]);
        assert_eq!(descriptors.faults().count(), 0);
    }

    #[test]
    fn the_second_file_of_a_sandbox_waits_for_the_first_to_go() {
        let (folder, mut descriptors) = start();
        put(&folder, "e.toml", &text("a", 9));
        assert_eq!(told(&descriptors.read_all().unwrap()), [""; 0]);
        let fault = descriptors.faults().next().unwrap().1.to_string();
        assert_eq!(fault, "sandbox \"a\" is described by a.toml already");
        fs::remove_file(folder.path().join("a.toml")).unwrap();
        assert_eq!(told(&descriptors.read(["a.toml".to_owned()])), ["-a", "+a 9"]);
        assert_eq!(descriptors.faults().count(), 0);
    }

    #[test]
    fn a_directory_that_is_gone_says_nothing() {
        let (folder, mut descriptors) = start();
        folder.close().unwrap();
        assert!(descriptors.read_all().is_err());
        assert_eq!(descriptors.files.len(), 2);
    }
}
