//! What must hold between two reports of one guest, an agent's death between them. Pure.

use crate::host::text::{grouped, memory, span, vcpus};
use crate::units::{Bytes, MilliCpu, Nanos};
use crate::wire::message::Report;
use std::time::Duration;

/// Two reports, and the demo's own stopwatch around them.
pub(super) struct Measured<'a> {
    pub(super) before: &'a Report,
    pub(super) after: &'a Report,
    /// From the first answer to the second question.
    pub(super) least: Duration,
    /// From the first question to the second answer.
    pub(super) most: Duration,
}

/// One claim.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) holds: bool,
    pub(super) text: String,
}

impl Check {
    pub(super) fn line(&self) -> String {
        format!("   {} {}", if self.holds { "✓" } else { "✗" }, self.text)
    }
}

/// Every claim of the demo, each with its numbers.
pub(super) fn checks(measured: &Measured<'_>) -> Vec<Check> {
    let Measured { before, after, .. } = measured;
    let mut checks =
        vec![restarted(before, after), time(measured), stopwatch(measured), dropped(before, after)];
    if let (Some(then), Some(now)) = (before.memory.total(), after.memory.total())
        && then == now
    {
        checks.push(memory_time(before, after, now));
    }
    if before.cpu.effective == after.cpu.effective {
        checks.push(cpu_time(before, after, after.cpu.effective));
    }
    checks
}

fn restarted(before: &Report, after: &Report) -> Check {
    let (then, now) = (&before.identity, &after.identity);
    Check {
        holds: then.boot_id == now.boot_id && then.instance.checked_add(1) == Some(now.instance),
        text: format!("another agent of the same boot: instance {} → {}", then.instance, now.instance),
    }
}

/// The counter against the guest's clock: equal to the nanosecond.
fn time(measured: &Measured<'_>) -> Check {
    let Measured { before, after, .. } = measured;
    let counted = active(after).checked_sub(active(before));
    let passed = after.clock.monotonic.0.checked_sub(before.clock.monotonic.0);
    Check {
        holds: counted.is_some() && counted == passed.map(u128::from),
        text: format!(
            "running time {} → {}: {} counted, {} passed on the guest's clock",
            shown(active(before)),
            shown(active(after)),
            nanos(counted),
            nanos(passed.map(u128::from)),
        ),
    }
}

/// The counter against the host's clock, which the guest cannot set.
fn stopwatch(measured: &Measured<'_>) -> Check {
    let (least, most) = (measured.least.as_nanos(), measured.most.as_nanos());
    let counted = active(measured.after).checked_sub(active(measured.before));
    Check {
        holds: counted.is_some_and(|counted| (least..=most).contains(&counted)),
        text: format!("the demo's own stopwatch says between {} and {}", shown(least), shown(most)),
    }
}

fn dropped(before: &Report, after: &Report) -> Check {
    let (then, now) = (&before.usage, &after.usage);
    Check {
        holds: then.dropped == now.dropped && then.gaps == now.gaps && then.anomalies == now.anomalies,
        text: format!(
            "dropped {} → {}, gaps {} → {}: nothing more was left out",
            span(then.dropped.active),
            span(now.dropped.active),
            then.gaps,
            now.gaps
        ),
    }
}

fn memory_time(before: &Report, after: &Report, total: Bytes) -> Check {
    let counted = after.usage.memory.total().checked_sub(before.usage.memory.total());
    Check {
        holds: counted.is_some() && counted == passed(before, after).map(|span| (total * span).0),
        text: format!(
            "memory {} → {} MiB·s: {} times that span, to the byte·ns",
            grouped(before.usage.memory.whole),
            grouped(after.usage.memory.whole),
            memory(total)
        ),
    }
}

fn cpu_time(before: &Report, after: &Report, effective: MilliCpu) -> Check {
    let counted = after.usage.cpu.total().checked_sub(before.usage.cpu.total());
    Check {
        holds: counted.is_some() && counted == passed(before, after).map(|span| (effective * span).0),
        text: format!(
            "CPU {} → {} millicpu·s: {} times that span, to the millicpu·ns",
            grouped(before.usage.cpu.whole),
            grouped(after.usage.cpu.whole),
            vcpus(effective)
        ),
    }
}

fn passed(before: &Report, after: &Report) -> Option<Nanos> {
    after.clock.monotonic.checked_sub(before.clock.monotonic)
}

fn active(report: &Report) -> u128 {
    report.usage.active.total()
}

fn shown(nanos: u128) -> String {
    span(Nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
}

fn nanos(span: Option<u128>) -> String {
    let span = span.and_then(|span| u64::try_from(span).ok());
    span.map_or_else(|| "less than nothing".to_owned(), |span| format!("{} ns", grouped(span)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::{Event, Meter, Rate};
    use crate::wire::message::{Message, Reply};
    use crate::wire::{Decoder, decode};

    /// A real report of a VM, from the protocol's golden bytes.
    fn golden() -> Report {
        let text = include_str!("../../../../tests/golden/v1/report-plain-vm.hex");
        let digits = text.lines().filter_map(|line| line.split('#').next());
        let bytes: Vec<u8> = digits
            .flat_map(str::split_ascii_whitespace)
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect();
        let mut decoder = Decoder::new();
        decoder.push(&bytes);
        match decode(&decoder.next().unwrap().unwrap()).unwrap() {
            Message::Reply(Reply::Report(report)) => *report,
            other => panic!("{other:?}"),
        }
    }

    /// Two reports 2 s apart, counted by a real meter.
    fn reports() -> (Report, Report) {
        let (mut before, mut after) = (golden(), golden());
        let rate = Rate { memory: before.memory.total().unwrap(), cpu: before.cpu.effective };
        let mut meter = Meter::new(Nanos::from_secs(2));
        for (report, event, seconds) in [(&mut before, Event::Start, 9), (&mut after, Event::Tick, 11)] {
            report.clock.monotonic = Nanos::from_secs(seconds);
            meter.observe(report.clock.monotonic, rate, event);
            report.usage = *meter.usage();
        }
        after.identity.instance += 1;
        (before, after)
    }

    fn held(before: &Report, after: &Report, least_ms: u64, most_ms: u64) -> Vec<bool> {
        let (least, most) = (Duration::from_millis(least_ms), Duration::from_millis(most_ms));
        checks(&Measured { before, after, least, most }).iter().map(|check| check.holds).collect()
    }

    #[test]
    fn a_meter_that_counts_all_holds() {
        let (before, after) = reports();
        assert_eq!(held(&before, &after, 1990, 2010), [true; 6]);
    }

    #[test]
    fn each_loss_breaks_its_claim() {
        let (before, after) = reports();
        type Sabotage = fn(&mut Report);
        let sabotage: [(Sabotage, [bool; 6]); 6] = [
            (|after| after.identity.instance = 1, [false, true, true, true, true, true]),
            (|after| after.usage.active.carry += 1, [true, false, true, true, true, true]),
            (|after| after.usage.active.whole = 0, [true, false, false, true, true, true]),
            (|after| after.usage.gaps += 1, [true, true, true, false, true, true]),
            (|after| after.usage.memory.whole -= 1, [true, true, true, true, false, true]),
            (|after| after.usage.cpu.carry += 1, [true, true, true, true, true, false]),
        ];
        for (index, (spoil, expected)) in sabotage.into_iter().enumerate() {
            let mut spoilt = after.clone();
            spoil(&mut spoilt);
            assert_eq!(held(&before, &spoilt, 1990, 2010), expected, "sabotage {index}");
        }
        assert_eq!(held(&before, &after, 2001, 2010), [true, true, false, true, true, true]);
        assert_eq!(held(&before, &after, 1000, 1999), [true, true, false, true, true, true]);
    }
}
