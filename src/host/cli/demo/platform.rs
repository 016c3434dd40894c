//! The demo's VM manager: the calls that a platform makes around a VM's life, and what it saw of it.

use super::DemoError;
use super::guest::Guest;
use super::worker::{ApiError, Worker};
use crate::host::cli::books::clock;
use crate::host::cli::output::Output;
use crate::host::text::{memory, span, vcpus};
use crate::host::worker::Call;
use crate::host::worker::api::body::{Answer, Outcome};
use crate::units::{Bytes, MilliCpu, Nanos};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Whose VM it is.
pub(super) const SANDBOX: &str = "sb-1";
/// Who pays.
pub(super) const ORG: &str = "acme";
/// How long it runs between two calls.
const RUN: Duration = Duration::from_secs(2);
/// How long it is paused.
const PAUSE: Duration = Duration::from_secs(2);
/// What it is asked to grow by.
const MORE_MIB: u64 = 1024;
/// For the guest's part of an answer; a build may run beside the demo.
const DEADLINE_MS: u64 = 10_000;
const GLANCE: Duration = Duration::from_millis(200);

/// What the VM is started with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ordered {
    pub(super) memory_mib: u64,
    pub(super) cpu: MilliCpu,
}

/// What the VM manager knows in the end, by its own watch.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) lives: Vec<Life>,
    /// Outcomes that are not what they should be.
    pub(super) unexpected: Vec<String>,
    pub(super) began_at: Nanos,
    pub(super) ended_at: Nanos,
}

/// One life, as far as it can be known without looking into the worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub(super) least: Duration,
    pub(super) most: Duration,
    /// In which the guest may not have known its name yet.
    pub(super) naming: Duration,
}

/// A call and its answer.
struct Called {
    at: Nanos,
    /// `at` lies between these.
    before: Instant,
    after: Instant,
    answered: Instant,
}

/// One VM, called for in its turn.
pub(super) struct Platform<'a> {
    worker: &'a Worker,
    guest: &'a Guest,
    output: &'a mut Output,
    epoch: Option<String>,
    calls: u64,
    seen: Seen,
}

impl<'a> Platform<'a> {
    pub(super) fn new(worker: &'a Worker, guest: &'a Guest, output: &'a mut Output) -> Self {
        Self { worker, guest, output, epoch: None, calls: 0, seen: Seen::default() }
    }

    /// A VM's whole life, with a snapshot in it.
    pub(super) async fn run(mut self, ordered: Ordered) -> Result<Seen, DemoError> {
        let size = format!("{}, {}", memory(Bytes::mib(ordered.memory_mib)), vcpus(ordered.cpu));
        let first = json!({ "memory_mib": ordered.memory_mib, "cpu_millis": ordered.cpu.0 });
        let started = self.call(Call::Started, &format!("with {size}"), first).await?;
        self.seen.began_at = started.at;
        self.live().await?;
        let more = ordered.memory_mib.saturating_add(MORE_MIB);
        let said = format!("{} more was asked for", memory(Bytes::mib(MORE_MIB)));
        let larger = json!({ "memory_mib": more, "cpu_millis": ordered.cpu.0 });
        self.call(Call::Scaled, &said, larger).await?;
        self.live().await?;
        let pausing = self.call(Call::Pausing, "for a snapshot", json!({})).await?;
        self.lived(&started, &pausing);
        self.guest.pause()?;
        let line =
            format!("             (the VM is paused: its process stands still for {})", span(PAUSE.into()));
        self.output.line(&line).map_err(DemoError::Output)?;
        tokio::time::sleep(PAUSE).await;
        self.guest.resume()?;
        let resumed = self.call(Call::Resumed, "it runs on", json!({})).await?;
        self.live().await?;
        let destroyed = self.call(Call::Destroyed, "it is gone", json!({})).await?;
        self.lived(&resumed, &destroyed);
        self.seen.ended_at = destroyed.at;
        Ok(self.seen)
    }

    async fn call(&mut self, call: Call, said: &str, more: Value) -> Result<Called, DemoError> {
        self.calls += 1;
        let before = Instant::now();
        let at = clock();
        let after = Instant::now();
        let mut body = json!({ "event_id": format!("demo-{}", self.calls), "at": at.0, "epoch": self.epoch });
        if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
            body.extend(more);
            if !of_host_alone(call) {
                body.insert("deadline_ms".to_owned(), DEADLINE_MS.into());
            }
        }
        let path = format!("/v1/sandboxes/{SANDBOX}/{}", call.name());
        let text = self.worker.post(&path, body.to_string()).await;
        let answered = Instant::now();
        let answer: Answer =
            text.and_then(|text| Ok(serde_json::from_str(&text)?)).map_err(|error| self.failed(error))?;
        self.epoch = answer.epoch.as_ref().map(|epoch| epoch.id.clone());
        let took = span(Nanos::from(answered.saturating_duration_since(before)));
        let line = format!("   {:<9} {said:<28} → {}, in {took}", call.name(), told(&answer));
        self.output.line(&line).map_err(DemoError::Output)?;
        let expected = if of_host_alone(call) { Outcome::Recorded } else { Outcome::Confirmed };
        if answer.outcome != expected {
            let why = answer.reason.clone().unwrap_or_default();
            self.seen.unexpected.push(format!("{} is {:?}: {why}", call.name(), answer.outcome));
        }
        Ok(Called { at, before, after, answered })
    }

    fn failed(&self, error: ApiError) -> DemoError {
        DemoError::Api { error, log: self.worker.log_tail() }
    }

    fn lived(&mut self, from: &Called, to: &Called) {
        self.seen.lives.push(Life {
            least: to.before.saturating_duration_since(from.after),
            most: to.answered.saturating_duration_since(from.before),
            naming: from.answered.saturating_duration_since(from.before),
        });
    }

    /// Some seconds of life, as the worker sees them.
    async fn live(&self) -> Result<(), DemoError> {
        let bar = super::bar(RUN);
        let began = Instant::now();
        while began.elapsed() < RUN {
            let view = self.worker.get(&format!("/v1/sandboxes/{SANDBOX}")).await;
            let view: Value =
                view.and_then(|text| Ok(serde_json::from_str(&text)?)).map_err(|error| self.failed(error))?;
            glance(&bar, began, &view);
            tokio::time::sleep(GLANCE).await;
        }
        bar.finish_and_clear();
        Ok(())
    }
}

/// Whether the guest has no part in it.
fn of_host_alone(call: Call) -> bool {
    matches!(call, Call::Scaled | Call::Destroyed)
}

fn glance(bar: &ProgressBar, began: Instant, view: &Value) {
    bar.set_position(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
    let seconds = view.pointer("/report/active_seconds").and_then(Value::as_u64).unwrap_or(0);
    bar.set_message(format!("the worker has heard of {} in this life", span(Nanos::from_secs(seconds))));
}

fn told(answer: &Answer) -> String {
    let epoch = answer.epoch.as_ref().map_or_else(String::new, |epoch| format!(", epoch {}", epoch.number));
    match answer.outcome {
        Outcome::Recorded => format!("recorded{epoch}"),
        Outcome::Confirmed => format!("confirmed by the guest{epoch}"),
        Outcome::Unconfirmed => format!("unconfirmed{epoch}"),
    }
}
