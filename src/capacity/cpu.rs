//! CPU entitlement: `min(1000 · |online ∩ allowed|, quota)` millicpu. Weight and shares are never a cap.

use super::Cpu;
use crate::kernel::CpuFacts;
use crate::units::{MilliCpu, Nanos};

/// What the guest may use now. `steal_before` is the highest steal seen: CPU hotplug makes the kernel's go back.
#[must_use]
pub fn entitlement(facts: &CpuFacts, steal_before: Nanos) -> Cpu {
    let online = facts.online.as_ref().ok();
    let cgroup = facts.cgroup.as_ref().ok().cloned().unwrap_or_default();
    let stat = facts.stat.as_ref().ok();
    let usable = match (online, &cgroup.allowed) {
        (Some(online), Some(allowed)) if online.common(allowed) > 0 => online.common(allowed),
        (Some(online), _) if online.count() > 0 => online.count(),
        _ => facts.affinity,
    };
    let whole = MilliCpu(u64::from(usable).saturating_mul(1000));
    Cpu {
        online: online.map(|online| online.count()),
        quota: cgroup.quota,
        weight: cgroup.weight,
        shares: cgroup.shares,
        effective: cgroup.quota.map_or(whole, |quota| quota.min(whole)),
        usage: cgroup.usage.or_else(|| stat.map(|stat| stat.busy)),
        steal: stat.map(|stat| stat.steal.max(steal_before)),
        throttled: cgroup.throttled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{CgroupFacts, CpuList, CpuStat};

    fn facts(online: &str, allowed: Option<&str>, quota: Option<u64>) -> CpuFacts {
        let cgroup = CgroupFacts {
            quota: quota.map(MilliCpu),
            allowed: allowed.map(|list| CpuList::parse(list).unwrap()),
            ..CgroupFacts::default()
        };
        CpuFacts {
            online: Ok(CpuList::parse(online).unwrap()),
            affinity: 1,
            cgroup: Ok(cgroup),
            stat: Ok(CpuStat { steal: Nanos(5), busy: Nanos(7) }),
        }
    }

    #[test]
    fn the_tighter_of_cpus_and_quota_holds() {
        assert_eq!(entitlement(&facts("0-3", None, None), Nanos::ZERO).effective, MilliCpu(4000));
        assert_eq!(entitlement(&facts("0-3", Some("2-9"), None), Nanos::ZERO).effective, MilliCpu(2000));
        assert_eq!(entitlement(&facts("0-3", None, Some(1500)), Nanos::ZERO).effective, MilliCpu(1500));
        assert_eq!(entitlement(&facts("0", None, Some(1500)), Nanos::ZERO).effective, MilliCpu(1000));
    }

    #[test]
    fn steal_never_goes_back() {
        assert_eq!(entitlement(&facts("0", None, None), Nanos(9)).steal, Some(Nanos(9)));
    }
}
