//! `--once`: one reading as `key=value` lines, named by the path in `guestmeter read --json`; empty is unknown.

use super::cli::Options;
use super::clock;
use super::witness::{Look, Witness};
use crate::capacity::{BootPrecision, Capacity};
use crate::kernel;
use crate::wire::message::Clock;
use std::fmt::{Display, Write};

/// Reads once and says what was seen.
pub(super) fn text(options: &Options) -> String {
    let mut witness = Witness::open(kernel_options(options), Vec::new(), None);
    let clock = clock::now();
    let sight = witness.look(clock.monotonic, Look::Full);
    let mut lines = Lines(String::new());
    let boot_id = super::boot_id::read(&options.proc_root);
    lines.put("identity.boot_id", boot_id.as_ref().ok());
    if let Err(error) = boot_id {
        lines.put("remark", Some(error));
    }
    lines.clock(clock);
    lines.capacity(&sight.capacity);
    for remark in &sight.remarks {
        lines.put("remark", Some(remark));
    }
    lines.0
}

/// What the kernel reader needs of the command line.
pub(super) fn kernel_options(options: &Options) -> kernel::Options {
    kernel::Options {
        roots: kernel::Roots { proc: options.proc_root.clone(), sys: options.sys_root.clone() },
        cgroup: options.cgroup.clone(),
        device_config: options.device_config,
    }
}

/// Whatever a path or a kernel's name has in it.
pub(super) fn one_line(text: impl Display) -> String {
    text.to_string().replace(char::is_control, " ")
}

struct Lines(String);

impl Lines {
    fn put(&mut self, key: &str, value: Option<impl Display>) {
        // Writing to a String cannot fail.
        let _ = match value.map(one_line) {
            Some(value) => writeln!(self.0, "{key}={value}"),
            None => writeln!(self.0, "{key}="),
        };
    }

    fn clock(&mut self, clock: Clock) {
        self.put("clock.monotonic_ns", Some(clock.monotonic.0));
        self.put("clock.boottime_ns", Some(clock.boottime.0));
        self.put("clock.realtime_unix_ns", Some(clock.realtime_unix.0));
    }

    fn capacity(&mut self, capacity: &Capacity) {
        let (memory, cpu) = (&capacity.memory, &capacity.cpu);
        let sources: Vec<&str> = memory.sources.iter().map(|source| source.name()).collect();
        self.put("memory.boot_bytes", memory.boot.map(|bytes| bytes.0));
        self.put("memory.boot_precision", memory.boot_precision.map(BootPrecision::name));
        self.put("memory.requested_bytes", memory.requested.map(|bytes| bytes.0));
        self.put("memory.plugged_bytes", memory.plugged.map(|bytes| bytes.0));
        self.put("memory.added_bytes", memory.added.map(|bytes| bytes.0));
        self.put("memory.online_bytes", memory.online.map(|bytes| bytes.0));
        self.put("memory.offline_bytes", memory.offline.map(|bytes| bytes.0));
        self.put("memory.ballooned_bytes", memory.ballooned.map(|bytes| bytes.0));
        self.put("memory.total_bytes", memory.total().map(|bytes| bytes.0));
        self.put("memory.mem_total_bytes", memory.mem_total.map(|bytes| bytes.0));
        self.put("memory.state", Some(memory.state.name()));
        self.put("memory.precision", Some(memory.precision.name()));
        self.put("memory.lower_bytes", memory.lower.map(|bytes| bytes.0));
        self.put("memory.upper_bytes", memory.upper.map(|bytes| bytes.0));
        self.put("memory.sources", Some(sources.join(",")));
        self.put("cpu.online", cpu.online);
        self.put("cpu.quota_millis", cpu.quota.map(|millis| millis.0));
        self.put("cpu.weight", cpu.weight);
        self.put("cpu.shares", cpu.shares);
        self.put("cpu.effective_millis", Some(cpu.effective.0));
        self.put("cpu.usage_ns", cpu.usage.map(|nanos| nanos.0));
        self.put("cpu.steal_ns", cpu.steal.map(|nanos| nanos.0));
        self.put("cpu.throttled_ns", cpu.throttled.map(|nanos| nanos.0));
    }
}
