//! What `/metrics` shows. The names are the contract; `tests/it/worker` reads them.

use super::api::body::{AgentState, Outcome, SandboxView};
use super::core::Core;
use super::order::{Call, Phase};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric, LabelValueEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Seconds; a healthy answer takes a few milliseconds.
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// One label with a fixed set of values.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Named {
    /// As its metric's help says.
    pub name: Fixed,
}

/// A value of this program's own, never of a guest or a caller: so there is an end to the series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fixed(pub &'static str);

impl EncodeLabelValue for Fixed {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        EncodeLabelValue::encode(&self.0, encoder)
    }
}

/// A call and how it was answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Answered {
    call: Fixed,
    outcome: Fixed,
}

/// A sandbox's phase, `None` until its books are read, and what is heard of its agent.
type Where = (Option<Phase>, AgentState);

type Counters = Family<Named, Counter>;
type Gauges = Family<Named, Gauge>;

/// Every metric of the worker. Cheap to clone; every clone counts into the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Sandboxes by phase.
    pub sandboxes: Gauges,
    /// Sandboxes by what is heard of their agents.
    pub agents: Gauges,
    /// Questions to agents, by how they ended.
    pub polls: Counters,
    /// From when a poll was due until its answer was read.
    pub poll_seconds: Histogram,
    /// Polls that began later than the next one was due.
    pub polls_missed: Counter,
    /// Verdicts by name.
    pub verdicts: Counters,
    /// Postings to the ledger, by what became of them.
    pub postings: Counters,
    /// How long a commit took, postings together.
    pub commit_seconds: Histogram,
    /// Whether the last commit succeeded.
    pub ledger_up: Gauge,
    /// Acks sent after a commit.
    pub acks: Counter,
    /// Epochs named without a call of the platform.
    pub adoptions: Counter,
    /// Questions to VMMs, by how they ended.
    pub vmm: Counters,
    /// Notifications by what became of them.
    pub notifications: Counters,
    /// Descriptor files that cannot be used.
    pub descriptor_faults: Gauge,
    /// The machine's clock − the worker's, in seconds.
    pub clock_offset: Gauge<f64, AtomicF64>,
    /// Steps of the machine's clock.
    pub clock_steps: Counter,
    /// Orgs by what the last parity check found.
    pub parity: Gauges,
    /// Orgs on which the alert rule fires.
    pub parity_alerts: Gauge,
    /// Whether it fires for so many that the fault is systemic.
    pub parity_systemic: Gauge,
    /// When the last parity check ended, in Unix seconds.
    pub parity_checked: Gauge<i64, AtomicI64>,
    calls: Family<Answered, Counter>,
}

type AtomicF64 = std::sync::atomic::AtomicU64;

impl Metrics {
    /// All of them at zero, and the registry that shows them.
    #[must_use]
    pub fn new() -> (Self, Registry) {
        let metrics = Self {
            sandboxes: Gauges::default(),
            agents: Gauges::default(),
            polls: Counters::default(),
            poll_seconds: Histogram::new(BUCKETS),
            polls_missed: Counter::default(),
            verdicts: Counters::default(),
            postings: Counters::default(),
            commit_seconds: Histogram::new(BUCKETS),
            ledger_up: Gauge::default(),
            acks: Counter::default(),
            adoptions: Counter::default(),
            vmm: Counters::default(),
            notifications: Counters::default(),
            descriptor_faults: Gauge::default(),
            clock_offset: Gauge::default(),
            clock_steps: Counter::default(),
            parity: Gauges::default(),
            parity_alerts: Gauge::default(),
            parity_systemic: Gauge::default(),
            parity_checked: Gauge::default(),
            calls: Family::default(),
        };
        let mut registry = Registry::with_prefix("guestmeter");
        metrics.register(&mut registry);
        (metrics, registry)
    }

    fn register(&self, registry: &mut Registry) {
        let version = [("version", env!("CARGO_PKG_VERSION")), ("git", env!("GUESTMETER_GIT"))];
        registry.register("build", "This program", Info::new(version.to_vec()));
        registry.register("sandboxes", "Sandboxes by phase", self.sandboxes.clone());
        registry.register("agents", "Sandboxes by what is heard of their agents", self.agents.clone());
        registry.register("polls", "Questions to agents, by how they ended", self.polls.clone());
        let help = "From when a poll was due until its answer was read";
        registry.register_with_unit("poll", help, Unit::Seconds, self.poll_seconds.clone());
        let help = "Polls that began later than the next one was due";
        registry.register("polls_missed", help, self.polls_missed.clone());
        registry.register("verdicts", "What the books' comparison found", self.verdicts.clone());
        registry.register("postings", "Postings, by what became of them", self.postings.clone());
        let help = "How long a commit took";
        registry.register_with_unit("commit", help, Unit::Seconds, self.commit_seconds.clone());
        registry.register("ledger_up", "Whether the last commit succeeded", self.ledger_up.clone());
        registry.register("acks", "Reports acknowledged after their commit", self.acks.clone());
        let help = "Guests named without a call of the platform";
        registry.register("adoptions", help, self.adoptions.clone());
        registry.register("vmm_questions", "Questions to VMMs, by how they ended", self.vmm.clone());
        let help = "Notifications by what became of them";
        registry.register("notifications", help, self.notifications.clone());
        let help = "Descriptor files that cannot be used";
        registry.register("descriptor_faults", help, self.descriptor_faults.clone());
        let help = "The machine's clock less the worker's";
        registry.register_with_unit("clock_offset", help, Unit::Seconds, self.clock_offset.clone());
        registry.register("clock_steps", "Steps of the machine's clock", self.clock_steps.clone());
        registry.register("parity_orgs", "Orgs by what the last check found", self.parity.clone());
        let help = "Orgs on which the parity alert fires";
        registry.register("parity_alerts", help, self.parity_alerts.clone());
        let help = "Whether the parity alert fires for three orgs or more";
        registry.register("parity_systemic", help, self.parity_systemic.clone());
        let help = "When the last parity check ended, Unix time";
        registry.register_with_unit("parity_checked", help, Unit::Seconds, self.parity_checked.clone());
        registry.register("calls", "Lifecycle calls, by their answer", self.calls.clone());
    }

    /// Shows each sandbox too, where it is asked for.
    pub(super) fn show_sandboxes(&self, registry: &mut Registry, core: &Arc<Core>) {
        registry.register_collector(Box::new(PerSandbox(Arc::downgrade(core))));
    }

    /// A call that got this answer.
    pub fn answered(&self, call: Call, outcome: Outcome) {
        self.call(call, outcome.name());
    }

    /// A call that got another one.
    pub fn call(&self, call: Call, outcome: &'static str) {
        let labels = Answered { call: Fixed(call.name()), outcome: Fixed(outcome) };
        self.calls.get_or_create(&labels).inc();
    }

    /// One sandbox went from one phase and state to another; `None` where there was or is none.
    pub fn moved(&self, from: Option<Where>, to: Option<Where>) {
        if from == to {
            return;
        }
        if let Some((phase, agent)) = from {
            self.sandboxes.get_or_create(&label(phase.map_or("unread", Phase::name))).dec();
            self.agents.get_or_create(&label(agent.name())).dec();
        }
        if let Some((phase, agent)) = to {
            self.sandboxes.get_or_create(&label(phase.map_or("unread", Phase::name))).inc();
            self.agents.get_or_create(&label(agent.name())).inc();
        }
    }
}

/// A series for each sandbox, where the configuration asks for them.
#[derive(Debug)]
struct PerSandbox(Weak<Core>);

impl Collector for PerSandbox {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(core) = self.0.upgrade() else { return Ok(()) };
        if !core.config().metrics.per_sandbox {
            return Ok(());
        }
        let views: Vec<_> = core.fleet.all().iter().map(|sandbox| sandbox.view()).collect();
        type Value = fn(&SandboxView) -> Option<u64>;
        let series: [(&str, &str, Option<&Unit>, Value); 4] = [
            ("sandbox_memory", "Boot memory and what is plugged", Some(&Unit::Bytes), |view| {
                view.report.as_ref()?.total_bytes
            }),
            ("sandbox_cpu_millis", "CPU entitlement", None, |view| Some(view.report.as_ref()?.cpu_millis)),
            ("sandbox_active", "Running time in the epoch", Some(&Unit::Seconds), |view| {
                Some(view.report.as_ref()?.active_seconds)
            }),
            ("sandbox_answering", "Whether its agent answers in its epoch", None, |view| {
                Some(u64::from(view.agent == AgentState::Answering))
            }),
        ];
        for (name, help, unit, value) in series {
            let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
            for view in &views {
                if let Some(value) = value(view) {
                    let labels = [("sandbox", view.sandbox.as_str())];
                    ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }
}

/// The text of all of it, as OpenMetrics.
///
/// # Errors
/// A metric that cannot be written.
pub fn text(registry: &Registry) -> Result<String, fmt::Error> {
    let mut text = String::new();
    encode(&mut text, registry)?;
    Ok(text)
}

/// A label.
#[must_use]
pub fn label(name: &'static str) -> Named {
    Named { name: Fixed(name) }
}

/// For a histogram or a gauge.
#[must_use]
pub fn seconds(span: Duration) -> f64 {
    span.as_secs_f64()
}

impl AgentState {
    /// For a metric.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Unknown => "unknown",
            Self::Answering => "answering",
            Self::Provisional => "provisional",
            Self::OtherEpoch => "other_epoch",
            Self::Silent => "silent",
        }
    }
}

impl Outcome {
    /// For a metric.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Confirmed => "confirmed",
            Self::Unconfirmed => "unconfirmed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_is_counted_where_it_is() {
        let (metrics, registry) = Metrics::new();
        let (unborn, running) =
            ((Some(Phase::Unborn), AgentState::Unknown), (Some(Phase::Running), AgentState::Answering));
        metrics.moved(None, Some(unborn));
        metrics.moved(None, Some(unborn));
        metrics.moved(Some(unborn), Some(running));
        metrics.moved(Some(unborn), None);
        metrics.answered(Call::Pausing, Outcome::Confirmed);
        let text = text(&registry).unwrap();
        for line in [
            "guestmeter_sandboxes{name=\"running\"} 1",
            "guestmeter_sandboxes{name=\"unborn\"} 0",
            "guestmeter_agents{name=\"answering\"} 1",
            "guestmeter_calls_total{call=\"pausing\",outcome=\"confirmed\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
