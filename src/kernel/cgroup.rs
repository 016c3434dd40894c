//! The watched cgroup and its ancestors: quota, weight, use and throttling, of version 2 and version 1.

use super::cpulist::CpuList;
use super::file::{KernelError, KernelFile, read_once};
use super::text;
use crate::units::{MilliCpu, Nanos};
use rustix::io::Errno;
use std::path::{Path, PathBuf};

/// What is taken from the hierarchy. `None` is not said there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupFacts {
    /// The tightest quota over the watched cgroup and its visible ancestors.
    pub quota: Option<MilliCpu>,
    /// `cpu.weight` (version 2).
    pub weight: Option<u32>,
    /// `cpu.shares` (version 1).
    pub shares: Option<u32>,
    /// CPUs it may run on.
    pub allowed: Option<CpuList>,
    /// CPU time used.
    pub usage: Option<Nanos>,
    /// Time throttled.
    pub throttled: Option<Nanos>,
}

/// The open files of one watched cgroup.
#[derive(Debug)]
pub struct Cgroup {
    version: Version,
    directory: PathBuf,
    is_root: bool,
    quotas: Vec<Quota>,
    stat: Option<KernelFile>,
    /// `cpu.weight` or `cpu.shares`; the root has none.
    weight: Option<KernelFile>,
    /// `cpuset.cpus.effective`.
    allowed: Option<KernelFile>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Version {
    fn weight(self) -> &'static str {
        match self {
            Self::One => "cpu.shares",
            Self::Two => "cpu.weight",
        }
    }
}

/// Where one level says its quota.
#[derive(Debug)]
enum Quota {
    /// `cpu.max`.
    Max(KernelFile),
    /// `cpu.cfs_quota_us` and `cpu.cfs_period_us`.
    Cfs(KernelFile, KernelFile),
}

impl Cgroup {
    /// Opens `watched` (a path below the mounted hierarchy, or an absolute one) and its ancestors.
    ///
    /// # Errors
    /// There is no CPU hierarchy, or no such cgroup in it.
    pub fn open(sys: &Path, watched: Option<&Path>) -> Result<Self, KernelError> {
        let mounted = sys.join("fs/cgroup");
        let (version, root) = if mounted.join("cgroup.controllers").exists() {
            (Version::Two, mounted)
        } else {
            let names = ["cpu,cpuacct", "cpu"];
            let found = names.iter().map(|name| mounted.join(name)).find(|path| path.is_dir());
            let missing = KernelError::Open { path: mounted.join("cgroup.controllers"), cause: Errno::NOENT };
            (Version::One, found.ok_or(missing)?)
        };
        let directory = match watched {
            None => root.clone(),
            Some(path) if path.starts_with(&root) => path.to_owned(),
            Some(path) => root.join(path.strip_prefix("/").unwrap_or(path)),
        };
        if !directory.is_dir() {
            return Err(KernelError::Open { path: directory, cause: Errno::NOENT });
        }
        let levels = directory.ancestors().take_while(|level| level.starts_with(&root));
        let quotas = levels.filter_map(|level| Quota::open(version, level)).collect();
        let open = |name: &str| KernelFile::open(directory.join(name)).ok();
        let stat = open("cpu.stat");
        let weight = open(version.weight());
        let allowed = open("cpuset.cpus.effective");
        let is_root = directory == root;
        Ok(Self { version, directory, is_root, quotas, stat, weight, allowed })
    }

    /// The tightest quota: one `pread(2)` a level of version 2.
    ///
    /// # Errors
    /// A file that went away (the cgroup was removed) or makes no sense.
    pub fn quota(&self) -> Result<Option<MilliCpu>, KernelError> {
        let mut tightest = None;
        for level in &self.quotas {
            if let Some(quota) = level.read()? {
                tightest = Some(tightest.map_or(quota, |least: MilliCpu| least.min(quota)));
            }
        }
        Ok(tightest)
    }

    /// All of it.
    ///
    /// # Errors
    /// As [`Cgroup::quota`].
    pub fn read(&self) -> Result<CgroupFacts, KernelError> {
        let mut facts = CgroupFacts { quota: self.quota()?, ..CgroupFacts::default() };
        let weight =
            self.text(self.weight.as_ref(), self.version.weight()).and_then(|text| text.parse().ok());
        match self.version {
            Version::Two => facts.weight = weight,
            Version::One => facts.shares = weight,
        }
        let allowed = self.text(self.allowed.as_ref(), "cpuset.cpus.effective");
        facts.allowed = allowed.and_then(|text| CpuList::parse(&text).ok());
        if let Some(file) = &self.stat {
            let mut text = Vec::new();
            file.read_into(&mut text)?;
            let micros = |name| number_in(&text, name).map(|micros| Nanos(micros.saturating_mul(1000)));
            match self.version {
                Version::Two => {
                    facts.usage = micros("usage_usec");
                    facts.throttled = micros("throttled_usec");
                }
                Version::One => facts.throttled = number_in(&text, "throttled_time").map(Nanos),
            }
        }
        if self.version == Version::One {
            facts.usage = read_once(self.directory.join("cpuacct.usage"))
                .ok()
                .and_then(|text| text.parse().ok())
                .map(Nanos);
        }
        Ok(facts)
    }

    /// A file that was open from the start; else, but for the root's, it may have come with its controller since.
    fn text(&self, file: Option<&KernelFile>, name: &str) -> Option<String> {
        let mut buffer = [0; 256];
        match file.map(|file| file.read_short(&mut buffer)) {
            Some(Ok(text)) => Some(String::from_utf8_lossy(text).trim().to_owned()),
            None if self.is_root => None,
            _ => read_once(self.directory.join(name)).ok(),
        }
    }
}

impl Quota {
    fn open(version: Version, level: &Path) -> Option<Self> {
        match version {
            Version::Two => KernelFile::open(level.join("cpu.max")).ok().map(Self::Max),
            Version::One => {
                let quota = KernelFile::open(level.join("cpu.cfs_quota_us")).ok()?;
                Some(Self::Cfs(quota, KernelFile::open(level.join("cpu.cfs_period_us")).ok()?))
            }
        }
    }

    fn read(&self) -> Result<Option<MilliCpu>, KernelError> {
        let (mut first, mut second) = ([0; 256], [0; 256]);
        match self {
            Self::Max(file) => parse_max(file.read_short(&mut first)?).map_err(|what| file.parse_error(what)),
            Self::Cfs(quota, period) => {
                parse_cfs(quota.read_short(&mut first)?, period.read_short(&mut second)?)
                    .map_err(|what| quota.parse_error(what))
            }
        }
    }
}

/// `cpu.max`: quota and period in µs, or `max`.
fn parse_max(text: &[u8]) -> Result<Option<MilliCpu>, String> {
    let text = String::from_utf8_lossy(text);
    let mut words = text.split_whitespace();
    let refused = || format!("no quota: {:?}", text.trim());
    match (words.next(), words.next()) {
        (Some("max"), _) => Ok(None),
        (Some(quota), Some(period)) => millis(quota, period).map(Some).ok_or_else(refused),
        _ => Err(refused()),
    }
}

/// `cpu.cfs_quota_us` (−1: none) and `cpu.cfs_period_us`.
fn parse_cfs(quota: &[u8], period: &[u8]) -> Result<Option<MilliCpu>, String> {
    let (quota, period) = (String::from_utf8_lossy(quota), String::from_utf8_lossy(period));
    if quota.trim() == "-1" {
        return Ok(None);
    }
    let refused = || format!("no quota: {:?} of {:?}", quota.trim(), period.trim());
    millis(quota.trim(), period.trim()).map(Some).ok_or_else(refused)
}

fn millis(quota: &str, period: &str) -> Option<MilliCpu> {
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    let millis = (u128::from(quota) * 1000).checked_div(u128::from(period))?;
    u64::try_from(millis).ok().map(MilliCpu)
}

fn number_in(stat: &[u8], name: &str) -> Option<u64> {
    text::field(stat, name)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_millicpu() {
        assert_eq!(parse_max(b"max 100000\n"), Ok(None));
        assert_eq!(parse_max(b"150000 100000\n"), Ok(Some(MilliCpu(1500))));
        assert_eq!(parse_cfs(b"-1\n", b"100000\n"), Ok(None));
        assert_eq!(parse_cfs(b"25000\n", b"50000\n"), Ok(Some(MilliCpu(500))));
    }

    #[test]
    fn nonsense_is_named() {
        for text in ["", "max100", "1", "1 0", "-1 100", "99999999999999999999 1", "18446744073709551615 1"] {
            assert!(parse_max(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(parse_cfs(b"-2", b"100").is_err());
    }
}
