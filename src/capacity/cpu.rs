//! CPU entitlement: `min(1000 · |online ∩ allowed|, quota)` millicpu. Weight and shares are never a cap.

use super::Cpu;
use super::counter::Counter;
use super::remark::Remark;
use crate::kernel::{CgroupFacts, CgroupIdentity, CpuFacts, KernelError};
use crate::units::{MilliCpu, Nanos};
use rustix::io::Errno;

/// What was counted so far.
#[derive(Clone, Debug, Default)]
pub struct CpuCounters {
    /// Of the guest.
    steal: Counter,
    busy: Counter,
    /// Of the watched cgroup of this identity.
    identity: Option<CgroupIdentity>,
    usage: Counter,
    throttled: Counter,
}

/// What the guest may use now, at `now` of `CLOCK_MONOTONIC`, and what a person should know of it.
pub fn entitlement(now: Nanos, facts: &CpuFacts, counters: &mut CpuCounters) -> (Cpu, Vec<Remark>) {
    let online = facts.online.as_ref().ok();
    let cpus = online.map_or(facts.affinity, |online| online.count());
    let cgroup = facts.cgroup.as_ref().ok().cloned().unwrap_or_default();
    let stat = facts.stat.as_ref().ok();
    if cgroup.identity != counters.identity {
        // Another cgroup under the name counts from its own beginning.
        counters.identity = cgroup.identity;
        (counters.usage, counters.throttled) = (Counter::default(), Counter::default());
    }
    let usage = cgroup.usage.and_then(|usage| counters.usage.take(now, usage, cpus));
    let busy = stat.and_then(|stat| counters.busy.take(now, stat.busy, cpus));
    let cpu = Cpu {
        online: online.map(|online| online.count()),
        quota: cgroup.quota,
        weight: cgroup.weight,
        shares: cgroup.shares,
        effective: effective(facts, &cgroup),
        usage: if facts.named { usage } else { usage.or(busy) },
        steal: stat.and_then(|stat| counters.steal.take(now, stat.steal, cpus)),
        throttled: cgroup.throttled.and_then(|throttled| counters.throttled.take(now, throttled, u32::MAX)),
    };
    let mut remarks = limits_remarks(facts, &facts.cgroup);
    remarks.extend(counters.remarks());
    (cpu, remarks)
}

/// The entitlement alone, by the limits of `cgroup`.
#[must_use]
pub fn effective(facts: &CpuFacts, cgroup: &CgroupFacts) -> MilliCpu {
    let usable = match (&facts.online, &cgroup.allowed) {
        (Ok(online), Some(allowed)) if online.common(allowed) > 0 => online.common(allowed),
        (Ok(online), _) if online.count() > 0 => online.count(),
        (_, Some(allowed)) if allowed.count() > 0 => allowed.count().min(facts.affinity),
        _ => facts.affinity,
    };
    let whole = MilliCpu(u64::from(usable).saturating_mul(1000));
    cgroup.quota.map_or(whole, |quota| quota.min(whole))
}

/// What is missing or makes no sense, so that the numbers may be the whole guest's.
#[must_use]
pub fn limits_remarks(facts: &CpuFacts, cgroup: &Result<CgroupFacts, KernelError>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    match cgroup {
        Ok(cgroup) => {
            remarks.extend(cgroup.missing.clone().map(|path| Remark::CgroupMissing { path }));
            remarks.extend(cgroup.problems.iter().cloned().map(Remark::CpuUnclear));
        }
        // A guest without cgroups has no limits by them.
        Err(KernelError::Open { cause: Errno::NOENT, .. }) if !facts.named => {}
        Err(cause) => remarks.push(Remark::CpuUnclear(cause.clone())),
    }
    remarks.extend(facts.online.as_ref().err().cloned().map(Remark::CpuUnclear));
    remarks.extend(facts.stat.as_ref().err().cloned().map(Remark::CpuUnclear));
    remarks
}

impl CpuCounters {
    /// Which slipped.
    pub fn remarks(&self) -> impl Iterator<Item = Remark> {
        let all = [
            ("steal", self.steal.slips()),
            ("the guest's CPU time", self.busy.slips()),
            ("the cgroup's CPU time", self.usage.slips()),
            ("throttled time", self.throttled.slips()),
        ];
        let slipped = all.into_iter().filter(|(_, times)| *times > 0);
        slipped.map(|(counter, times)| Remark::CounterSlipped { counter, times })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{CpuList, CpuStat};

    fn facts(online: &str, allowed: Option<&str>, quota: Option<u64>) -> CpuFacts {
        let cgroup = CgroupFacts {
            quota: quota.map(MilliCpu),
            allowed: allowed.map(|list| CpuList::parse(list).unwrap()),
            ..CgroupFacts::default()
        };
        CpuFacts {
            online: Ok(CpuList::parse(online).unwrap()),
            affinity: 1,
            named: false,
            cgroup: Ok(cgroup),
            stat: Ok(CpuStat { steal: Nanos(5), busy: Nanos(7) }),
        }
    }

    fn said(facts: &CpuFacts) -> Cpu {
        entitlement(Nanos::SECOND, facts, &mut CpuCounters::default()).0
    }

    #[test]
    fn the_tighter_of_cpus_and_quota_holds() {
        assert_eq!(said(&facts("0-3", None, None)).effective, MilliCpu(4000));
        assert_eq!(said(&facts("0-3", Some("2-9"), None)).effective, MilliCpu(2000));
        assert_eq!(said(&facts("0-3", None, Some(1500))).effective, MilliCpu(1500));
        assert_eq!(said(&facts("0", None, Some(1500))).effective, MilliCpu(1000));
    }

    #[test]
    fn steal_never_goes_back_and_its_slip_is_counted() {
        let mut counters = CpuCounters::default();
        let mut facts = facts("0", None, None);
        assert_eq!(entitlement(Nanos::SECOND, &facts, &mut counters).0.steal, Some(Nanos(5)));
        facts.stat = Ok(CpuStat { steal: Nanos(4), busy: Nanos(7) });
        let (cpu, remarks) = entitlement(Nanos::SECOND, &facts, &mut counters);
        assert_eq!(cpu.steal, Some(Nanos(5)));
        assert_eq!(remarks, [Remark::CounterSlipped { counter: "steal", times: 1 }]);
    }

    #[test]
    fn another_cgroup_counts_from_its_own_beginning_and_is_never_the_guest() {
        let mut counters = CpuCounters::default();
        let mut facts = CpuFacts { named: true, ..facts("0", None, None) };
        for (identity, usage) in [(1, Some(900)), (2, Some(30)), (2, None)] {
            let usage = usage.map(Nanos);
            let identity = Some((0, identity, None));
            facts.cgroup = Ok(CgroupFacts { identity, usage, ..CgroupFacts::default() });
            assert_eq!(
                entitlement(Nanos::SECOND, &facts, &mut counters),
                (Cpu { usage, ..said(&facts) }, vec![])
            );
        }
    }
}
