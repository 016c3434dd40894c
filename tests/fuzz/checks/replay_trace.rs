//! Any text: a usage that accounts for every nanosecond of the trace, or an error that names the line.

use guestmeter::host::replay::replay;
use guestmeter::meter::{ACTIVE_UNIT, CPU_UNIT, MEMORY_UNIT};
use guestmeter::units::Nanos;

/// A first byte of 0: the rest is observations of six bytes each, written as a trace. Else the input is the trace.
pub fn check(input: &[u8]) {
    match input.split_first() {
        Some((0, observations)) => count(written(observations).as_bytes()),
        _ => count(input),
    }
}

fn written(observations: &[u8]) -> String {
    let (mut trace, mut at_ns) = (String::new(), 0u64);
    for (index, bytes) in observations.chunks_exact(6).enumerate() {
        let &[event, delta, delta_shift, memory, memory_shift, cpu] = bytes else { continue };
        at_ns = at_ns.saturating_add(u64::from(delta) << (delta_shift % 57));
        let memory_bytes = u64::from(memory) << (memory_shift % 57);
        let event = match index {
            0 => "start",
            _ => ["tick", "capacity", "checkpoint", "resume", "release"][usize::from(event % 5)],
        };
        let cpu_millis = u64::from(cpu) * 50;
        trace += &format!(
            "{{\"at_ns\":{at_ns},\"memory_bytes\":{memory_bytes},\"cpu_millis\":{cpu_millis},\"event\":\"{event}\"}}\n"
        );
    }
    trace
}

fn count(trace: &[u8]) {
    let (mut slices, mut end, mut gaps, mut suspended) = (0, Nanos::ZERO, 0, Nanos::ZERO);
    let result = replay(trace, "trace", None, |_, slice| {
        assert!(slice.to >= end, "the clock went back");
        end = slice.to;
        gaps += u64::from(!slice.dropped.is_zero());
        suspended = suspended.saturating_add(slice.suspended);
        slices += 1;
        Ok(())
    });
    match result {
        Ok(usage) => {
            assert!(slices > 0, "nothing was counted");
            assert_eq!((usage.gaps, usage.anomalies, usage.suspended), (gaps, 0, suspended));
            let counted = usage.active.total() + u128::from(usage.dropped.active.0);
            assert_eq!(counted + u128::from(suspended.0), u128::from(end.0), "time without a name");
            assert!(usage.active.carry < ACTIVE_UNIT);
            assert!(usage.memory.carry < MEMORY_UNIT);
            assert!(usage.cpu.carry < CPU_UNIT);
        }
        Err(error) => {
            assert!(slices < error.line);
            assert!(error.to_string().starts_with(&format!("trace:{}: ", error.line)), "{error}");
        }
    }
}
