//! Reports as a person wants them: one in full, or many, a line each. Pure: what the terminal can do is an argument.

use super::client::Reading;
use super::json::{finding_name, hex, signal_name};
use super::target::Target;
use super::text::{Safe, gib_seconds, grouped, memory, skew, span, vcpu_seconds, vcpus};
use crate::capacity::{Cpu, Memory, MemoryState, Precision};
use crate::meter::{Event, Rule, Slice, Usage};
use crate::units::{Bytes, Nanos};
use crate::wire::message::{Clock, EpochSource, Finding, Identity, Report};
use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table};

/// What the output can show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Whether colours may be used.
    pub color: bool,
    /// Columns of the terminal; `None` for no limit.
    pub width: Option<u16>,
}

/// One line of a table of many.
#[derive(Debug)]
pub struct FleetRow<'a> {
    /// Whom it tells of.
    pub target: &'a Target,
    /// The last report.
    pub last: Option<&'a Reading>,
    /// Why there is none now; `None` while the target answers.
    pub lost: Option<&'a str>,
    /// How old the last report is.
    pub age: Nanos,
}

/// One report in full.
#[must_use]
pub fn report(reading: &Reading, look: Look) -> String {
    let mut table = new_table(look);
    let report = &reading.report;
    memory_rows(&mut table, &report.memory);
    cpu_rows(&mut table, &report.cpu);
    usage_rows(&mut table, &report.usage);
    identity_rows(&mut table, &report.identity);
    life_rows(&mut table, report);
    clock_row(&mut table, report.clock, reading.skew_ns);
    let agent = &reading.agent;
    format!(
        "{}  guestmeterd {} ({}), protocol {}\n{}\n",
        reading.target,
        Safe(&agent.version),
        Safe(&agent.git),
        agent.protocol,
        table.trim_fmt()
    )
}

/// What a meter has counted, alone.
#[must_use]
pub fn usage(usage: &Usage, look: Look) -> String {
    let mut table = new_table(look);
    usage_rows(&mut table, usage);
    format!("{}\n", table.trim_fmt())
}

/// One slice as one line, with the reason for what it counts and drops.
#[must_use]
pub fn slice(event: Event, slice: &Slice) -> String {
    let why = match slice.rule {
        Rule::First => "first observation: at most a tick of the time since boot counts",
        Rule::Backwards => "the clock went backwards: nothing counts",
        Rule::HeldResume => "held, then a resume: the time was suspended",
        Rule::HeldJump => "held, and longer than two ticks: a resume that nobody announced",
        Rule::Held => "held, but still running: all of it counts",
        Rule::ResumeGap => "a resume across more than two ticks: unknown how much of it ran",
        Rule::ResumeShort => "a resume within two ticks: all of it counts, a pause in it is shorter",
        Rule::Capped => "longer than two ticks for no known reason: two ticks count",
        Rule::Plain => "all of it counts",
    };
    let from = slice.from.map_or_else(|| "boot".to_owned(), span);
    let event = format!("{event:?}").to_lowercase();
    format!(
        "{from} → {} {event}: counted {} at {} and {}, dropped {}, suspended {} ({why})",
        span(slice.to),
        span(slice.counted),
        memory(slice.rate.memory),
        vcpus(slice.rate.cpu),
        span(slice.dropped.active),
        span(slice.suspended),
    )
}

/// Many targets, a line each, in the order given.
#[must_use]
pub fn fleet(rows: &[FleetRow<'_>], look: Look) -> String {
    let header = [
        "TARGET", "SANDBOX", "STATE", "TOTAL", "PLUGGED", "CPU", "RUNNING", "MEMORY", "CPU TIME", "DROPPED",
        "AGE",
    ];
    let mut table = titled_table(&header, look);
    for row in rows {
        table.add_row(fleet_row(row));
    }
    for column in 3..header.len() {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!("{}\n", table.trim_fmt())
}

/// One report as one line of plain text: what `watch` appends where nobody looks at a terminal.
#[must_use]
pub fn line(reading: &Reading) -> String {
    let report = &reading.report;
    format!(
        "{} {} {} total {} plugged {} {} cpu {} running {} memory {} cpu-time {} dropped {}",
        timestamp(report.clock.realtime_unix),
        reading.target,
        report.memory.state.name(),
        known(report.memory.total(), memory),
        known(report.memory.plugged, memory),
        report.memory.precision.name(),
        vcpus(report.cpu.effective),
        running(&report.usage),
        gib_seconds(report.usage.memory.whole),
        vcpu_seconds(report.usage.cpu.whole),
        span(report.usage.dropped.active),
    )
}

/// An instant of the Unix clock, in UTC to the millisecond.
#[must_use]
pub fn timestamp(unix: Nanos) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(unix.0)) {
        Ok(instant) => format!("{instant:.3}"),
        Err(_) => format!("{} ns after 1970", unix.0),
    }
}

/// A plain table, numbers in its columns but the first to the right.
#[must_use]
pub fn grid<const COLUMNS: usize>(
    header: &[&str; COLUMNS],
    rows: &[[String; COLUMNS]],
    look: Look,
) -> String {
    let mut table = titled_table(header, look);
    for row in rows {
        table.add_row(row.iter().map(Cell::new));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{}\n", table.trim_fmt())
}

/// A number of bytes, as `512 MiB`.
#[must_use]
pub fn bytes(bytes: Bytes) -> String {
    memory(bytes)
}

/// A span of time, as `1h 02m 03s`.
#[must_use]
pub fn duration(nanos: Nanos) -> String {
    span(nanos)
}

/// A table whose columns have names.
pub(super) fn titled_table(titles: &[&str], look: Look) -> Table {
    let mut table = new_table(look);
    table.set_header(titles.iter().map(|title| strong((*title).to_owned())));
    table
}

fn new_table(look: Look) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).force_no_tty();
    if look.color {
        table.enforce_styling();
    }
    if let Some(width) = look.width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    table
}

fn memory_rows(table: &mut Table, seen: &Memory) {
    let sum = format!("boot {} + plugged {}", known(seen.boot, memory), known(seen.plugged, memory));
    row(table, "memory", strong(known(seen.total(), memory)), sum);
    let state = Cell::new(seen.state.name()).fg(state_color(seen.state));
    let requested = match seen.requested {
        Some(requested) => format!("the VMM asks for {}", memory(requested)),
        None => "what the VMM asks for is not known here".to_owned(),
    };
    row(table, "  state", state, requested);
    let precision = match (seen.precision, seen.lower, seen.upper) {
        (Precision::Exact, ..) => "plugged is exact, to the byte".to_owned(),
        (Precision::Bounded, Some(lower), Some(upper)) => {
            format!("plugged is between {} and {}", memory(lower), memory(upper))
        }
        (Precision::Bounded, lower, upper) => {
            format!("plugged is between {} and {}", known(lower, memory), known(upper, memory))
        }
    };
    let color = if seen.precision == Precision::Exact { Color::Green } else { Color::Yellow };
    row(table, "  precision", Cell::new(seen.precision.name()).fg(color), precision);
    let blocks = format!("of {} added, {} offline", known(seen.added, memory), known(seen.offline, memory));
    row(table, "  online", known(seen.online, memory), blocks);
    if seen.ballooned.is_some_and(|ballooned| ballooned > Bytes::ZERO) {
        row(table, "  balloon", known(seen.ballooned, memory), "held by the balloon, still counted");
    }
    row(table, "  MemTotal", known(seen.mem_total, memory), "what the guest's kernel calls total");
    let sources: Vec<_> = seen.sources.iter().map(|source| source.name()).collect();
    row(table, "  read from", "", sources.join(", "));
}

fn cpu_rows(table: &mut Table, cpu: &Cpu) {
    let online = known(cpu.online, |count| count.to_string());
    let quota = cpu.quota.map_or_else(|| "no quota".to_owned(), |quota| format!("quota {}", vcpus(quota)));
    let weight = cpu.weight.map(|weight| format!(", weight {weight}"));
    let shares = cpu.shares.map(|shares| format!(", shares {shares}"));
    let entitled =
        format!("{online} online, {quota}{}{}", weight.unwrap_or_default(), shares.unwrap_or_default());
    row(table, "CPU", strong(vcpus(cpu.effective)), entitled);
    let withheld =
        format!("{} stolen by the host, {} throttled", known(cpu.steal, span), known(cpu.throttled, span));
    row(table, "  used", known(cpu.usage, span), withheld);
}

fn usage_rows(table: &mut Table, usage: &Usage) {
    row(table, "counted", strong(running(usage)), "running time since the guest's boot");
    row(table, "  memory", gib_seconds(usage.memory.whole), format!("{} MiB·s", grouped(usage.memory.whole)));
    row(table, "  CPU", vcpu_seconds(usage.cpu.whole), format!("{} millicpu·s", grouped(usage.cpu.whole)));
    let dropped = match (usage.dropped.is_zero(), usage.gaps) {
        (true, _) => "nothing was left out".to_owned(),
        (false, 1) => {
            "in 1 gap: before the first agent started, or longer than it may count unseen".to_owned()
        }
        (false, gaps) => format!("in {} gaps, each longer than the agent may count unseen", grouped(gaps)),
    };
    let color = if usage.dropped.is_zero() { Color::Reset } else { Color::Yellow };
    row(table, "  dropped", Cell::new(span(usage.dropped.active)).fg(color), dropped);
    let uncertain = match usage.uncertain {
        Nanos::ZERO => String::new(),
        uncertain => format!("{} counted in which a short pause may hide", span(uncertain)),
    };
    row(table, "  suspended", span(usage.suspended), uncertain);
    if !usage.rebased.is_zero() {
        row(table, "  rebased", span(usage.rebased.active), "added to reach the host's mark; not usage");
    }
    if usage.anomalies > 0 {
        row(table, "  anomalies", grouped(usage.anomalies), "times that a clock of the guest went backwards");
    }
}

fn identity_rows(table: &mut Table, identity: &Identity) {
    let sandbox = match &identity.sandbox {
        Some(sandbox) => Safe(sandbox).to_string(),
        None => "not named".to_owned(),
    };
    row(table, "sandbox", sandbox, format!("boot {}", identity.boot_id));
    let epoch = match identity.epoch.source {
        EpochSource::Provisional => ("provisional".to_owned(), "not named by a host yet".to_owned()),
        EpochSource::Host => (grouped(identity.epoch.number), format!("id {}", hex(identity.epoch.id))),
    };
    row(table, "  epoch", epoch.0, epoch.1);
    let instance = format!("start {} of the agent in this boot", grouped(u64::from(identity.instance)));
    row(table, "  report", grouped(identity.seq), instance);
}

/// What happened in this epoch.
fn life_rows(table: &mut Table, report: &Report) {
    let tail = &report.tail;
    if let Some(resumed) = report.resume {
        let after =
            resumed.latency_max.map(|latency| format!(", at most {} after it ran again", span(latency)));
        let how = format!("noticed {} after boot{}", span(resumed.detected), after.unwrap_or_default());
        row(table, "  resume", signal_name(resumed.signal), how);
    }
    if tail.held {
        let held = Cell::new("held").fg(Color::Yellow);
        row(table, "  count", held, "a checkpoint holds it until a resume is noticed or named");
    }
    for finding in &tail.findings {
        let name = Cell::new(finding_name(*finding)).fg(Color::Yellow);
        row(table, "  found", name, finding_words(*finding));
    }
    match (tail.segments_waiting, tail.segments_dropped) {
        (0, 0) => {}
        (waiting, 0) => row(table, "  segments", grouped(waiting.into()), "wait for the host's ack"),
        (waiting, dropped) => {
            let dropped = format!(
                "wait for the host's ack, {} dropped for want of one, or of a name",
                grouped(dropped)
            );
            row(table, "  segments", grouped(waiting.into()), dropped);
        }
    }
    if tail.garbage_bytes > 0 {
        let bytes = Cell::new(grouped(tail.garbage_bytes)).fg(Color::Yellow);
        row(table, "  garbage", bytes, "bytes on the agent's connections in this boot that were no frame");
    }
}

/// A finding as one line of plain text.
#[must_use]
pub fn finding_words(finding: Finding) -> &'static str {
    match finding {
        Finding::Clone => "it was another sandbox before: a copy of that one's guest",
        Finding::Rollback => "its counters were behind the host's mark, and were raised to it",
        Finding::MarkIgnored => "the host's mark is of another boot, and was ignored",
        Finding::ClockStep => "its time of day was set, or it was paused without a word",
        Finding::ClockJump => "its clock jumped: it was paused without a word, or starved",
        Finding::ConnectionReset => "a connection was reset: it was restored, or the host's end died",
    }
}

fn clock_row(table: &mut Table, clock: Clock, skew_ns: Option<i64>) {
    let against = skew_ns.map(|nanos| format!(", {} against the host's", skew(nanos)));
    let remark = format!("up {}{}", span(clock.boottime), against.unwrap_or_default());
    row(table, "clock", timestamp(clock.realtime_unix), remark);
}

fn fleet_row(row: &FleetRow<'_>) -> Vec<Cell> {
    let sandbox = row.last.and_then(|reading| reading.report.identity.sandbox.as_deref());
    let mut cells = vec![Cell::new(row.target), Cell::new(Safe(sandbox.unwrap_or("-")))];
    match (row.last, row.lost) {
        (_, Some(cause)) => cells.push(Cell::new(cause).fg(Color::Red)),
        (None, None) => cells.push(Cell::new("asking").fg(Color::DarkGrey)),
        (Some(reading), None) => {
            let state = reading.report.memory.state;
            cells.push(Cell::new(state.name()).fg(state_color(state)));
        }
    }
    let Some(reading) = row.last else { return cells };
    let report = &reading.report;
    let plugged = match report.memory.precision {
        Precision::Exact => known(report.memory.plugged, memory),
        Precision::Bounded => format!("≤ {}", known(report.memory.upper, memory)),
    };
    let numbers = [
        known(report.memory.total(), memory),
        plugged,
        vcpus(report.cpu.effective),
        running(&report.usage),
        gib_seconds(report.usage.memory.whole),
        vcpu_seconds(report.usage.cpu.whole),
        span(report.usage.dropped.active),
        format!("{} s", row.age.0 / Nanos::SECOND.0),
    ];
    let stale = row.lost.is_some();
    cells.extend(numbers.into_iter().map(|text| {
        let cell = Cell::new(text);
        if stale { cell.fg(Color::DarkGrey) } else { cell }
    }));
    cells
}

fn row(table: &mut Table, label: &str, value: impl Into<Cell>, remark: impl Into<Cell>) {
    let remark: Cell = remark.into();
    table.add_row([Cell::new(label), value.into(), remark.fg(Color::DarkGrey)]);
}

fn strong(text: String) -> Cell {
    Cell::new(text).add_attribute(Attribute::Bold)
}

fn known<T>(value: Option<T>, show: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "unknown".to_owned(), show)
}

fn running(usage: &Usage) -> String {
    let total = u64::try_from(usage.active.total()).unwrap_or(u64::MAX);
    span(Nanos(total))
}

fn state_color(state: MemoryState) -> Color {
    match state {
        MemoryState::Settled => Color::Green,
        MemoryState::Plugging | MemoryState::Unplugging => Color::Cyan,
        MemoryState::Short | MemoryState::Over => Color::Red,
        MemoryState::Unknown => Color::Yellow,
    }
}

/// What a wait compares: plugged against what was asked for.
#[must_use]
pub fn plugged_against(memory_seen: &Memory, expected: Option<Bytes>) -> String {
    let plugged = match memory_seen.precision {
        Precision::Exact => known(memory_seen.plugged, memory),
        Precision::Bounded => {
            format!("{} to {}", known(memory_seen.lower, memory), known(memory_seen.upper, memory))
        }
    };
    let wanted = expected.or(memory_seen.requested);
    match wanted {
        Some(wanted) => format!("plugged {plugged}, expected {}", memory(wanted)),
        None => format!("plugged {plugged}, requested unknown"),
    }
}
