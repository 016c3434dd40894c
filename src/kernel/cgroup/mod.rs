//! The watched cgroup and its ancestors: quota, set, weight, use and throttling, of version 2 and version 1.

mod hierarchy;
mod quota;
#[cfg(test)]
mod tests;

use super::cpulist::CpuList;
use super::file::{KernelError, KernelFile};
use super::text;
use crate::units::{MilliCpu, Nanos};
use hierarchy::{Hierarchies, Version};
use quota::Quota;
use rustix::io::Errno;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Device, inode, and where the file system says it when it was made: inodes are given out again.
pub type CgroupIdentity = (u64, u64, Option<SystemTime>);

/// What is taken from the hierarchy. `None` is not said there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupFacts {
    /// The tightest quota over the watched cgroup and its visible ancestors.
    pub quota: Option<MilliCpu>,
    /// `cpu.weight` (version 2).
    pub weight: Option<u32>,
    /// `cpu.shares` (version 1).
    pub shares: Option<u32>,
    /// CPUs it may run on: the nearest level's that says so.
    pub allowed: Option<CpuList>,
    /// CPU time used.
    pub usage: Option<Nanos>,
    /// Time throttled.
    pub throttled: Option<Nanos>,
    /// In how many periods it was.
    pub nr_throttled: Option<u64>,
    /// Which cgroup's counters these are: another one's begin anew.
    pub identity: Option<CgroupIdentity>,
    /// Where the watched cgroup was looked for and is not.
    pub missing: Option<PathBuf>,
    /// Files that are there and say nothing.
    pub problems: Vec<KernelError>,
}

/// The watched cgroup, whether it is there or not.
#[derive(Debug)]
pub struct Cgroup {
    sys: PathBuf,
    watched: PathBuf,
    /// A removed cgroup's files say so when they are read; those of a fixture tree do not, and are opened each time.
    keeps: bool,
    opened: Result<Opened, KernelError>,
}

impl Cgroup {
    /// `watched` is a path below the mounted hierarchy, or an absolute one; the root without one.
    #[must_use]
    pub fn new(sys: &Path, watched: Option<&Path>) -> Self {
        let watched = watched.map_or_else(PathBuf::new, Path::to_owned);
        let opened = Opened::open(sys, &watched);
        Self { sys: sys.to_owned(), watched, keeps: sys == Path::new("/sys"), opened }
    }

    /// Quota and set alone, what a tick looks at: one `pread(2)` a level of version 2 and one for the set, and at most
    /// two looks for files that may have come.
    ///
    /// # Errors
    /// There is no CPU hierarchy.
    pub fn limits(&mut self, online: Option<&CpuList>) -> Result<CgroupFacts, KernelError> {
        if !self.keeps || self.has_news() {
            self.open_again();
        }
        self.twice(|opened| opened.limits(online))
    }

    /// All of it.
    ///
    /// # Errors
    /// As [`Cgroup::limits`].
    pub fn read(&mut self, online: Option<&CpuList>) -> Result<CgroupFacts, KernelError> {
        let moved =
            self.opened.as_ref().map_or(true, |opened| opened.identity != identity(&opened.directory));
        if !self.keeps || moved || self.has_news() {
            self.open_again();
        }
        self.twice(|opened| opened.read(online))
    }

    fn open_again(&mut self) {
        self.opened = Opened::open(&self.sys, &self.watched);
    }

    fn has_news(&self) -> bool {
        match &self.opened {
            Ok(opened) => opened.awaited.iter().any(|path| path.exists()),
            Err(_) => hierarchy::signs(&self.sys).iter().any(|path| path.exists()),
        }
    }

    /// A removed cgroup's files answer ENODEV for ever: what is under their names now is read instead.
    fn twice(&mut self, read: impl Fn(&Opened) -> CgroupFacts) -> Result<CgroupFacts, KernelError> {
        let facts = self.opened.as_ref().map(&read).map_err(Clone::clone)?;
        if !facts.problems.iter().any(|problem| matches!(problem, KernelError::Read { .. })) {
            return Ok(facts);
        }
        self.open_again();
        self.opened.as_ref().map(read).map_err(Clone::clone)
    }
}

/// The open files of the watched cgroup and its ancestors, the nearest first.
#[derive(Debug)]
struct Opened {
    version: Version,
    directory: PathBuf,
    identity: Option<CgroupIdentity>,
    quotas: Vec<Quota>,
    sets: Vec<KernelFile>,
    stat: Option<KernelFile>,
    /// `cpuacct.usage`, of version 1.
    usage: Option<KernelFile>,
    /// `cpu.weight` or `cpu.shares`; the root has none.
    weight: Option<KernelFile>,
    /// What may come.
    awaited: Vec<PathBuf>,
    problems: Vec<KernelError>,
}

impl Opened {
    fn open(sys: &Path, watched: &Path) -> Result<Self, KernelError> {
        let found = Hierarchies::find(sys, watched)?;
        let (version, directory) = (found.version, found.directory());
        let mut problems = Vec::new();
        if found.is_too_deep() {
            let what = "its outermost ancestors are not looked at".to_owned();
            problems.push(KernelError::Parse { path: directory.clone(), what });
        }
        let mut awaited = found.unmounted.clone();
        let (quotas, missed) = open_levels(&found.cpu, |level| Quota::open(version, level, &mut problems));
        awaited.extend(may_come(version, &missed, Quota::name(version)));
        let (sets, missed) = open_levels(&found.cpuset, |level| {
            version.sets().iter().find_map(|name| open_if_there(level.join(name), &mut problems))
        });
        let nearest = sets.first().and_then(|file| file.path().parent());
        // What comes above the nearest set does not bind.
        let below: Vec<&Path> =
            missed.into_iter().filter(|level| nearest.is_none_or(|near| level.starts_with(near))).collect();
        awaited.extend(version.sets().first().and_then(|name| may_come(version, &below, name)));
        let mut open = |levels: &[PathBuf], name| open_if_there(levels.first()?.join(name), &mut problems);
        let stat = open(&found.cpu, "cpu.stat");
        let weight = open(&found.cpu, version.weight());
        let usage = open(&found.cpuacct, "cpuacct.usage");
        let identity = identity(&directory);
        Ok(Self { version, directory, identity, quotas, sets, stat, usage, weight, awaited, problems })
    }

    fn limits(&self, online: Option<&CpuList>) -> CgroupFacts {
        let missing = self.identity.is_none().then(|| self.directory.clone());
        let mut facts = CgroupFacts {
            identity: self.identity,
            missing,
            problems: self.problems.clone(),
            ..CgroupFacts::default()
        };
        for level in &self.quotas {
            match level.read() {
                Ok(quota) => facts.quota = facts.quota.into_iter().chain(quota).min(),
                Err(problem) => facts.problems.push(problem),
            }
        }
        for file in &self.sets {
            match CpuList::read(file) {
                // A set of no CPU that is online binds nobody: the kernel falls back to the parent's.
                Ok(list) if online.map_or(list.count(), |online| online.common(&list)) > 0 => {
                    facts.allowed = Some(list);
                    break;
                }
                Ok(_) => {}
                Err(problem) => facts.problems.push(problem),
            }
        }
        facts
    }

    fn read(&self, online: Option<&CpuList>) -> CgroupFacts {
        let mut facts = self.limits(online);
        let mut problems = std::mem::take(&mut facts.problems);
        let mut short = |file: &Option<KernelFile>| -> Option<u64> {
            let mut buffer = [0; 256];
            let file = file.as_ref()?;
            let text =
                file.read_short(&mut buffer).map(|text| String::from_utf8_lossy(text).trim().to_owned());
            let number = text
                .and_then(|text| text.parse().map_err(|_| file.parse_error(format!("no number: {text:?}"))));
            number.map_err(|problem| problems.push(problem)).ok()
        };
        let weight = short(&self.weight).and_then(|weight| u32::try_from(weight).ok());
        match self.version {
            Version::Two => facts.weight = weight,
            Version::One => {
                facts.shares = weight;
                facts.usage = short(&self.usage).map(Nanos);
            }
        }
        let mut text = Vec::new();
        match self.stat.as_ref().map(|file| file.read_into(&mut text)) {
            Some(Ok(())) => self.take_stat(&text, &mut facts),
            Some(Err(problem)) => problems.push(problem),
            None => {}
        }
        facts.problems = problems;
        facts
    }

    fn take_stat(&self, text: &[u8], facts: &mut CgroupFacts) {
        let micros = |name| number_in(text, name).map(|micros| Nanos(micros.saturating_mul(1000)));
        facts.nr_throttled = number_in(text, "nr_throttled");
        match self.version {
            Version::Two => {
                facts.usage = micros("usage_usec");
                facts.throttled = micros("throttled_usec");
            }
            Version::One => facts.throttled = number_in(text, "throttled_time").map(Nanos),
        }
    }
}

/// What can be opened of each level, and the levels where nothing can.
fn open_levels<T>(levels: &[PathBuf], mut open: impl FnMut(&Path) -> Option<T>) -> (Vec<T>, Vec<&Path>) {
    let (mut opened, mut missed) = (Vec::new(), Vec::new());
    for level in levels {
        match open(level) {
            Some(file) => opened.push(file),
            None => missed.push(level.as_path()),
        }
    }
    (opened, missed)
}

/// The file that comes first of all that are missed: a level has a controller only where its parent has it. What is the
/// root of all, and of no namespace, has neither a quota nor `cgroup.events`.
fn may_come(version: Version, missed: &[&Path], name: &str) -> Option<PathBuf> {
    let is_root =
        |level: &Path| level.join("cgroup.controllers").exists() && !level.join("cgroup.events").exists();
    let level = missed.iter().rev().find(|level| version == Version::One || !is_root(level))?;
    Some(if level.is_dir() { level.join(name) } else { level.to_path_buf() })
}

fn identity(directory: &Path) -> Option<CgroupIdentity> {
    let metadata = std::fs::metadata(directory).ok().filter(std::fs::Metadata::is_dir)?;
    Some((metadata.dev(), metadata.ino(), metadata.created().ok()))
}

/// A file that is not there is no problem.
fn open_if_there(path: PathBuf, problems: &mut Vec<KernelError>) -> Option<KernelFile> {
    match KernelFile::open(path) {
        Ok(file) => Some(file),
        Err(KernelError::Open { cause: Errno::NOENT | Errno::NOTDIR | Errno::NODEV, .. }) => None,
        Err(problem) => {
            problems.push(problem);
            None
        }
    }
}

fn number_in(stat: &[u8], name: &str) -> Option<u64> {
    text::field(stat, name)?.parse().ok()
}
