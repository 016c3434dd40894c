//! Where one level says its quota, and what it says.

use super::hierarchy::Version;
use super::{KernelError, KernelFile, open_if_there};
use crate::units::MilliCpu;
use std::path::Path;

/// Where one level says its quota.
#[derive(Debug)]
pub(super) enum Quota {
    /// `cpu.max`.
    Max(KernelFile),
    /// `cpu.cfs_quota_us` and `cpu.cfs_period_us`.
    Cfs(KernelFile, KernelFile),
}

impl Quota {
    /// What it is in, or the one of two that comes last.
    pub(super) fn name(version: Version) -> &'static str {
        match version {
            Version::One => "cpu.cfs_period_us",
            Version::Two => "cpu.max",
        }
    }

    pub(super) fn open(version: Version, level: &Path, problems: &mut Vec<KernelError>) -> Option<Self> {
        let last = open_if_there(level.join(Self::name(version)), problems)?;
        match version {
            Version::Two => Some(Self::Max(last)),
            Version::One => {
                open_if_there(level.join("cpu.cfs_quota_us"), problems).map(|quota| Self::Cfs(quota, last))
            }
        }
    }

    /// One `pread(2)`; another where version 1 has a quota.
    pub(super) fn read(&self) -> Result<Option<MilliCpu>, KernelError> {
        let (mut first, mut second) = ([0; 256], [0; 256]);
        match self {
            Self::Max(file) => parse_max(file.read_short(&mut first)?).map_err(|what| file.parse_error(what)),
            Self::Cfs(quota, period) => {
                let text = quota.read_short(&mut first)?;
                if text.trim_ascii() == b"-1" {
                    return Ok(None);
                }
                parse_cfs(text, period.read_short(&mut second)?).map_err(|what| quota.parse_error(what))
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

/// `cpu.cfs_quota_us`, where it is one, and `cpu.cfs_period_us`.
fn parse_cfs(quota: &[u8], period: &[u8]) -> Result<Option<MilliCpu>, String> {
    let (quota, period) = (String::from_utf8_lossy(quota), String::from_utf8_lossy(period));
    let refused = || format!("no quota: {:?} of {:?}", quota.trim(), period.trim());
    millis(quota.trim(), period.trim()).map(Some).ok_or_else(refused)
}

fn millis(quota: &str, period: &str) -> Option<MilliCpu> {
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    let millis = (u128::from(quota) * 1000).checked_div(u128::from(period))?;
    u64::try_from(millis).ok().map(MilliCpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_millicpu() {
        assert_eq!(parse_max(b"max 100000\n"), Ok(None));
        assert_eq!(parse_max(b"150000 100000\n"), Ok(Some(MilliCpu(1500))));
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
