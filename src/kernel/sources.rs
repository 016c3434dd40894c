//! The open files, and how one reading of them is taken.

use super::blocks::Blocks;
use super::boot;
use super::cgroup::Cgroup;
use super::cpulist::CpuList;
use super::device_config::{DeviceConfig, Window};
use super::file::{KernelError, KernelFile, sorted};
use super::iomem::{self, IoMemory, Span};
use super::{CgroupFacts, CpuFacts, CpuStat, Layout, MemoryFacts, Zones, kpageflags, text, virtio, zoneinfo};
use crate::capacity::Scan;
use crate::units::{Bytes, Nanos};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How often a reading is taken again that changed under way.
const TRIES: u32 = 4;
/// `USER_HZ`, in which `/proc/stat` counts: 100 on every architecture Linux has a virtio for.
const USER_HZ: u64 = 100;

/// Where the kernel's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// `/proc`.
    pub proc: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { proc: "/proc".into(), sys: "/sys".into() }
    }
}

/// What is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Where from.
    pub roots: Roots,
    /// The watched cgroup; the root without one.
    pub cgroup: Option<PathBuf>,
    /// Whether virtio-mem's configuration is read through PCI configuration space.
    pub device_config: bool,
}

/// The open files.
#[derive(Debug)]
pub struct Sources {
    options: Options,
    iomem: Result<KernelFile, KernelError>,
    kpageflags: Result<KernelFile, KernelError>,
    zoneinfo: Result<KernelFile, KernelError>,
    meminfo: Result<KernelFile, KernelError>,
    vmstat: Result<KernelFile, KernelError>,
    stat: Result<KernelFile, KernelError>,
    windows: Result<Vec<Window>, KernelError>,
    cgroup: Cgroup,
    layout: Arc<Layout>,
    online: Result<CpuList, KernelError>,
    /// The text that was last parsed of iomem, and what is in it: it changes with hotplug alone.
    added: (Vec<u8>, Option<IoMemory>),
    /// The last reading of memory that was steady.
    steady: Option<MemoryFacts>,
    buffer: Vec<u8>,
}

impl Sources {
    /// Opens everything that can be opened; what cannot says so when it is read. Of `given`, descriptors that were
    /// opened before with privilege, those named as [`Sources::privileged`] names them are used.
    #[must_use]
    pub fn open(options: Options, mut given: Vec<(String, OwnedFd)>) -> Self {
        let Roots { proc, sys } = options.roots.clone();
        let mut take = |name: &str, path: PathBuf| match given.iter().position(|(given, _)| given == name) {
            Some(at) => Ok(KernelFile::given(path, given.swap_remove(at).1)),
            None => KernelFile::open(path),
        };
        let iomem = take("iomem", proc.join("iomem"));
        let kpageflags = take("kpageflags", proc.join("kpageflags"));
        let windows = if options.device_config { open_windows(&sys, &mut given) } else { Ok(Vec::new()) };
        let mut sources = Self {
            iomem,
            kpageflags,
            windows,
            zoneinfo: KernelFile::open(proc.join("zoneinfo")),
            meminfo: KernelFile::open(proc.join("meminfo")),
            vmstat: KernelFile::open(proc.join("vmstat")),
            stat: KernelFile::open(proc.join("stat")),
            cgroup: Cgroup::new(&sys, options.cgroup.as_deref()),
            layout: Arc::new(Layout {
                boot: boot::read(&sys, None, None, None),
                blocks: Blocks::read(&sys),
                virtio: virtio::read(&sys),
            }),
            online: read_online(&sys),
            options,
            added: (Vec::new(), None),
            steady: None,
            buffer: Vec::new(),
        };
        sources.reread_layout();
        sources
    }

    /// Opens those that need privilege, to be passed on: `iomem`, `kpageflags`, and with the option `config-virtioN`.
    #[must_use]
    pub fn privileged(options: &Options) -> Vec<(String, Result<OwnedFd, KernelError>)> {
        let Roots { proc, sys } = &options.roots;
        let mut opened: Vec<(String, Result<OwnedFd, KernelError>)> = ["iomem", "kpageflags"]
            .map(|name| (name.to_owned(), KernelFile::open(proc.join(name)).map(KernelFile::into_descriptor)))
            .into();
        if options.device_config {
            let devices = virtio::read(sys).map(|devices| devices.memory).unwrap_or_default();
            opened.extend(devices.into_iter().map(|(name, path)| {
                let file = KernelFile::open_writable(path).map(KernelFile::into_descriptor);
                (format!("config-{name}"), file)
            }));
        }
        opened
    }

    /// What is read.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// `MemTotal` by `sysinfo(2)`: one system call. `None` where a fixture tree stands in.
    #[must_use]
    pub fn total_ram(&self) -> Option<Bytes> {
        if self.options.roots.proc != Path::new("/proc") {
            return None;
        }
        let info = rustix::system::sysinfo();
        info.totalram.checked_mul(u64::from(info.mem_unit)).map(Bytes)
    }

    /// Whether there is a device that no driver runs, so that the next look may find one.
    #[must_use]
    pub fn awaits_driver(&self) -> bool {
        self.layout.virtio.as_ref().is_ok_and(|virtio| !virtio.without_driver.is_empty())
    }

    /// Reads block states, boot memory, devices and CPUs again: after a hotplug event.
    pub fn reread_layout(&mut self) {
        let sys = self.options.roots.sys.clone();
        let iomem = self.read_iomem().ok().flatten();
        let (blocks, virtio) = (Blocks::read(&sys), virtio::read(&sys));
        let boot = boot::read(&sys, iomem.as_ref(), blocks.as_ref().ok(), virtio.as_ref().ok());
        self.layout = Arc::new(Layout { boot, blocks, virtio });
        self.online = read_online(&sys);
    }

    /// One reading of memory, with two equal readings of zoneinfo around it, or the word that there were none.
    ///
    /// One reading of zoneinfo is enough where nothing differs from the last steady reading: MemTotal is read last and
    /// moves with every page, so all of it was as it is found when zoneinfo was read.
    pub fn read_memory(&mut self) -> MemoryFacts {
        let mut zones = self.read_zones();
        for attempt in 1..=TRIES {
            let mut facts = self.read_around(zones);
            if attempt == 1
                && let Some(steady) = self.steady.as_ref().filter(|steady| steady.is_again(&facts))
            {
                return steady.clone();
            }
            let after = self.read_zones();
            facts.steady = facts.zones == after;
            if facts.steady {
                self.steady = Some(facts.clone());
            }
            if facts.steady || attempt == TRIES {
                return MemoryFacts { zones: after, ..facts };
            }
            zones = after;
        }
        unreachable!("the last try returns")
    }

    fn read_around(&mut self, zones: Result<Zones, KernelError>) -> MemoryFacts {
        MemoryFacts {
            page_size: rustix::param::page_size() as u64,
            layout: Arc::clone(&self.layout),
            zones,
            steady: false,
            iomem: self.read_iomem(),
            device_config: self.options.device_config.then(|| self.read_windows()),
            ballooned: self.read_ballooned(),
            mem_total: self.read_mem_total(),
        }
    }

    /// One reading of the CPUs and the watched cgroup.
    pub fn read_cpu(&mut self) -> CpuFacts {
        let cgroup = self.cgroup.read(self.online.as_ref().ok());
        let named = self.options.cgroup.is_some();
        CpuFacts { online: self.online.clone(), affinity: affinity(), named, cgroup, stat: self.read_stat() }
    }

    /// The watched cgroup's quota and set alone: what a tick looks at.
    ///
    /// # Errors
    /// There is no CPU hierarchy.
    pub fn read_limits(&mut self) -> Result<CgroupFacts, KernelError> {
        self.cgroup.limits(self.online.as_ref().ok())
    }

    /// Counts the offline pages of all online system RAM, with equal readings of zoneinfo and the balloon around
    /// the count.
    ///
    /// # Errors
    /// No privilege, or the zones never stood still.
    pub fn scan_offline_pages(&mut self) -> Result<Scan, KernelError> {
        let page_size = rustix::param::page_size() as u64;
        for _ in 0..TRIES {
            self.reread_layout();
            let blocks = self.layout.blocks.clone()?;
            let before = (self.read_zones()?, self.read_ballooned().transpose()?);
            let Some(iomem) = self.read_iomem()? else {
                return Err(
                    file_of(&self.iomem)?.parse_error("addresses are hidden: needs CAP_SYS_ADMIN at open")
                );
            };
            let spans = online_parts(&iomem, &blocks);
            let offline_pages = kpageflags::count_offline(file_of(&self.kpageflags)?, &spans, page_size)?;
            let after = (self.read_zones()?, self.read_ballooned().transpose()?);
            // A block that came online meanwhile is in the zones but not in the count.
            self.reread_layout();
            if after == before && self.layout.blocks.as_ref() == Ok(&blocks) {
                let (zones, ballooned) = before;
                return Ok(Scan { offline_pages, zones, added: iomem.added, blocks, ballooned });
            }
        }
        Err(KernelError::Unstable { path: self.options.roots.proc.join("zoneinfo"), tries: TRIES })
    }

    /// Whether kpageflags is open.
    ///
    /// # Errors
    /// Why it is not.
    pub fn kpageflags(&self) -> Result<(), KernelError> {
        file_of(&self.kpageflags).map(|_| ())
    }

    fn read_iomem(&mut self) -> Result<Option<IoMemory>, KernelError> {
        let (text, found) = &mut self.added;
        parse_file(&self.iomem, &mut self.buffer, |read| {
            if read != text.as_slice() || read.is_empty() {
                *found = iomem::parse(read)?;
                read.clone_into(text);
            }
            Ok(found.clone())
        })
    }

    fn read_zones(&mut self) -> Result<Zones, KernelError> {
        parse_file(&self.zoneinfo, &mut self.buffer, zoneinfo::parse)
    }

    fn read_mem_total(&mut self) -> Result<Bytes, KernelError> {
        parse_file(&self.meminfo, &mut self.buffer, |text| {
            kib_field(text, "MemTotal:").ok_or_else(|| "no MemTotal in it".to_owned())
        })
    }

    /// `Balloon:` of meminfo where the kernel has it, else the net pages of vmstat.
    fn read_ballooned(&mut self) -> Option<Result<Bytes, KernelError>> {
        self.layout.virtio.as_ref().ok().and_then(|virtio| virtio.balloon)?;
        let stated = parse_file(&self.meminfo, &mut self.buffer, |text| Ok(kib_field(text, "Balloon:")));
        if let Ok(Some(bytes)) = stated {
            return Some(Ok(bytes));
        }
        let page_size = rustix::param::page_size() as u64;
        Some(parse_file(&self.vmstat, &mut self.buffer, |text| net_inflated(text, page_size)))
    }

    fn read_windows(&self) -> Result<Vec<DeviceConfig>, KernelError> {
        self.windows.as_ref().map_err(Clone::clone)?.iter().map(Window::read).collect()
    }

    fn read_stat(&mut self) -> Result<CpuStat, KernelError> {
        parse_file(&self.stat, &mut self.buffer, |text| {
            let times = text::field(text, "cpu").ok_or("no line of all CPUs in it")?;
            let mut ticks = [0; 8];
            for (slot, word) in ticks.iter_mut().zip(times.split_ascii_whitespace()) {
                *slot = word.parse().map_err(|_| format!("no CPU times: {times:?}"))?;
            }
            let [user, nice, system, _idle, _iowait, irq, softirq, steal] = ticks;
            let nanos = |ticks: u64| Nanos(ticks.saturating_mul(1_000_000_000 / USER_HZ));
            let busy = [user, nice, system, irq, softirq].into_iter().fold(0, u64::saturating_add);
            Ok(CpuStat { steal: nanos(steal), busy: nanos(busy) })
        })
    }
}

fn open_windows(sys: &Path, given: &mut Vec<(String, OwnedFd)>) -> Result<Vec<Window>, KernelError> {
    let devices = virtio::read(sys)?.memory;
    let open = |(name, path): (String, PathBuf)| {
        let file = match given.iter().position(|(given, _)| *given == format!("config-{name}")) {
            Some(at) => KernelFile::given(path, given.swap_remove(at).1),
            None => KernelFile::open_writable(path)?,
        };
        Window::new(file)
    };
    devices.into_iter().map(open).collect()
}

fn read_online(sys: &Path) -> Result<CpuList, KernelError> {
    CpuList::read(&KernelFile::open(sys.join("devices/system/cpu/online"))?)
}

fn affinity() -> u32 {
    let count = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count());
    count.max(1)
}

fn file_of(file: &Result<KernelFile, KernelError>) -> Result<&KernelFile, KernelError> {
    file.as_ref().map_err(Clone::clone)
}

fn parse_file<T>(
    file: &Result<KernelFile, KernelError>,
    buffer: &mut Vec<u8>,
    parse: impl FnOnce(&[u8]) -> Result<T, String>,
) -> Result<T, KernelError> {
    let file = file_of(file)?;
    file.read_into(buffer)?;
    parse(buffer).map_err(|what| file.parse_error(what))
}

/// Net inflated pages: of the kernel's size, though the device counts in 4 KiB.
fn net_inflated(text: &[u8], page_size: u64) -> Result<Bytes, String> {
    let count = |name: &str| {
        let value = text::field(text, name).and_then(|value| value.parse::<i64>().ok());
        value.ok_or_else(|| format!("no {name} in it"))
    };
    let net = count("balloon_inflate")?.saturating_sub(count("balloon_deflate")?);
    let bytes = u64::try_from(net).ok().and_then(|pages| pages.checked_mul(page_size)).map(Bytes);
    bytes.filter(|bytes| *bytes <= Bytes::PHYSICAL_MAX).ok_or_else(|| format!("{net} pages in the balloon"))
}

fn kib_field(text: &[u8], name: &str) -> Option<Bytes> {
    let kib: u64 = text::field(text, name)?.strip_suffix("kB")?.trim_ascii_end().parse().ok()?;
    kib.checked_mul(1024).map(Bytes).filter(|bytes| *bytes <= Bytes::PHYSICAL_MAX)
}

/// System RAM that lies in online blocks: pages of offline blocks carry flags that mean nothing.
fn online_parts(iomem: &IoMemory, blocks: &Blocks) -> Vec<Span> {
    let online = blocks.blocks.iter().filter(|block| block.online).map(|block| block.span);
    let parts: Vec<Span> = online
        .flat_map(|block| {
            iomem
                .system_ram
                .iter()
                .filter(move |ram| ram.overlaps(&block))
                .map(move |ram| Span { start: ram.start.max(block.start), end: ram.end.min(block.end) })
        })
        .collect();
    sorted(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_balloon_is_counted_in_pages_of_the_kernels_size() {
        let text = b"balloon_inflate 40000\nballoon_deflate 7232\nballoon_migrate 0\n";
        assert_eq!(net_inflated(text, 65_536), Ok(Bytes::mib(2048)));
        assert_eq!(net_inflated(text, 4096), Ok(Bytes::mib(128)));
        assert!(net_inflated(b"balloon_inflate 1\nballoon_deflate 2\n", 4096).is_err());
        assert!(net_inflated(b"balloon_inflate 9223372036854775807\nballoon_deflate 0\n", 65_536).is_err());
    }
}
