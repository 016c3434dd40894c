//! Where the CPU hierarchies are mounted, and the watched cgroup's levels in each.

use super::super::file::list;
use super::KernelError;
use rustix::io::Errno;
use std::path::{Path, PathBuf};

/// A hierarchy's levels beyond these are not looked at: each holds descriptors.
const LEVELS_MAX: usize = 128;
/// Hierarchies of version 1 that somebody may name a cgroup by.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuacct", "cpuset", "memory", "systemd"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

impl Version {
    pub(super) fn weight(self) -> &'static str {
        match self {
            Self::One => "cpu.shares",
            Self::Two => "cpu.weight",
        }
    }

    /// What a level's set is in: the first that is there.
    pub(super) fn sets(self) -> &'static [&'static str] {
        match self {
            Self::One => &["cpuset.effective_cpus", "cpuset.cpus"],
            Self::Two => &["cpuset.cpus.effective"],
        }
    }
}

/// The watched cgroup in each hierarchy, from itself up to what is mounted. Empty where none is mounted.
#[derive(Debug)]
pub(super) struct Hierarchies {
    pub(super) version: Version,
    /// Of `cpu`.
    pub(super) cpu: Vec<PathBuf>,
    /// Of `cpuacct`.
    pub(super) cpuacct: Vec<PathBuf>,
    /// Of `cpuset`.
    pub(super) cpuset: Vec<PathBuf>,
    /// Hierarchies of version 1 that may be mounted later.
    pub(super) unmounted: Vec<PathBuf>,
}

/// What comes first with a hierarchy, looked for where there was none.
pub(super) fn signs(sys: &Path) -> [PathBuf; 3] {
    ["cgroup.controllers", "cpu", "cpuset"].map(|name| sys.join("fs/cgroup").join(name))
}

impl Hierarchies {
    /// Finds `watched` (a path below the mounted hierarchy, or an absolute one).
    ///
    /// # Errors
    /// There is no CPU hierarchy.
    pub(super) fn find(sys: &Path, watched: &Path) -> Result<Self, KernelError> {
        let mounted = sys.join("fs/cgroup");
        let sign = mounted.join("cgroup.controllers");
        if sign.exists() {
            return Ok(Self::unified(&mounted, watched));
        }
        let names = list(&mounted).unwrap_or_default();
        let relative = relative_to_any(&mounted, &names, watched);
        let of = |controller, file| levels_of(&mounted, &names, controller, file, &relative);
        let (cpu, cpuset) = (of("cpu", "cpu.shares"), of("cpuset", "cpuset.cpus"));
        let cpuacct = of("cpuacct", "cpuacct.usage");
        if cpu.is_empty() && cpuset.is_empty() && cpuacct.is_empty() {
            let hybrid = mounted.join("unified");
            return match hybrid.join("cgroup.controllers").exists() {
                true => Ok(Self::unified(&hybrid, watched)),
                false => Err(KernelError::Open { path: sign, cause: Errno::NOENT }),
            };
        }
        let absent = [("cpu", cpu.is_empty()), ("cpuset", cpuset.is_empty())];
        let unmounted =
            absent.into_iter().filter(|(_, absent)| *absent).map(|(name, _)| mounted.join(name)).collect();
        Ok(Self { version: Version::One, cpu, cpuacct, cpuset, unmounted })
    }

    fn unified(root: &Path, watched: &Path) -> Self {
        let cpu = levels(root, &relative_to(root, watched));
        let cpuset = cpu.clone();
        Self { version: Version::Two, cpu, cpuacct: Vec::new(), cpuset, unmounted: Vec::new() }
    }

    /// The watched cgroup: in the first hierarchy that has it, else where it is missed.
    pub(super) fn directory(&self) -> PathBuf {
        let mut watched =
            [&self.cpu, &self.cpuacct, &self.cpuset].into_iter().filter_map(|levels| levels.first());
        let there = watched.clone().find(|path| path.is_dir());
        there.or_else(|| watched.next()).cloned().unwrap_or_default()
    }

    /// Whether the watched cgroup lies deeper than is looked at.
    pub(super) fn is_too_deep(&self) -> bool {
        [&self.cpu, &self.cpuset].into_iter().any(|levels| levels.len() >= LEVELS_MAX)
    }
}

/// Mounted alone or together with others, under a name with all of theirs or a link; `file` is in a root of it.
fn levels_of(
    mounted: &Path,
    names: &[String],
    controller: &str,
    file: &str,
    relative: &Path,
) -> Vec<PathBuf> {
    let named = names.iter().filter(|name| name.split(',').any(|part| part == controller));
    let mut roots: Vec<PathBuf> = named.map(|name| mounted.join(name)).collect();
    // All of version 1 may be one hierarchy, mounted here itself.
    if mounted.join(file).exists() {
        roots.push(mounted.to_owned());
    }
    let holds = roots.iter().find(|root| root.join(relative).is_dir() && !relative.as_os_str().is_empty());
    let root = holds.or_else(|| roots.iter().find(|root| root.join(file).exists())).or(roots.first());
    root.map(|root| levels(root, relative)).unwrap_or_default()
}

/// An absolute path may begin with what is mounted, and with any of the hierarchies of version 1.
fn relative_to_any(mounted: &Path, names: &[String], watched: &Path) -> PathBuf {
    let inside = watched.strip_prefix(mounted).ok().filter(|_| watched.is_absolute());
    let mut names = names.iter().filter(|name| name.split(',').any(|part| CONTROLLERS.contains(&part)));
    let behind = inside.and_then(|path| names.find_map(|name| path.strip_prefix(name).ok()));
    behind.map_or_else(|| relative_to(mounted, watched), Path::to_owned)
}

fn relative_to(root: &Path, watched: &Path) -> PathBuf {
    let path = watched.strip_prefix(root).unwrap_or(watched);
    path.strip_prefix("/").unwrap_or(path).to_owned()
}

/// From the watched cgroup up to the root of its hierarchy.
fn levels(root: &Path, relative: &Path) -> Vec<PathBuf> {
    let directory = root.join(relative);
    let inside = directory.ancestors().take_while(|level| level.starts_with(root));
    inside.take(LEVELS_MAX).map(Path::to_owned).collect()
}
