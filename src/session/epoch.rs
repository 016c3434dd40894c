//! Epochs: opened by a resume that was noticed, named or opened by the host, closed by the next; held by a checkpoint.

use super::signals::{Known, Noticed};
use super::{ConnectionId, Depth, Note, Session};
use crate::capacity::Stated;
use crate::meter::{self, Amounts, Rate};
use crate::units::{ByteNanos, MilliCpuNanos, Nanos};
use crate::wire::message::{
    Ack, Acked, Boundary, Checkpoint, Clock, Counters, Epoch, EpochSource, Finding, Id, Mark, Reason,
    Refusal, RefusalCode, Reply, Resume, Resumed, Segment, Signal,
};

/// A request that changes the epoch or the hold, in the order of arrival over all connections.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) from: ConnectionId,
    pub(super) request: Lifecycle,
}

#[derive(Clone, Debug)]
pub(super) enum Lifecycle {
    Resume(Resume),
    Checkpoint(Checkpoint),
}

impl Lifecycle {
    /// A resume is answered with what is known, and read closely right behind; the last word before a pause is not.
    pub(super) fn depth(&self) -> Depth {
        match self {
            Self::Resume(_) => Depth::Hot,
            Self::Checkpoint(_) => Depth::Full,
        }
    }
}

/// What a `Resume` comes to, seen from the current epoch.
enum Naming {
    /// The current epoch's own id.
    Again,
    /// The provisional epoch gets its name.
    InPlace,
    /// The current epoch ends, another begins.
    Anew,
}

/// What a `Resume` is judged by.
#[derive(Clone, Copy)]
struct Named {
    current: Epoch,
    by_signal: bool,
    number_max: u64,
}

impl Named {
    fn naming(&self, resume: &Resume) -> Result<Naming, Refusal> {
        let unusable = |text: &str| RefusalCode::Malformed.because(text);
        if resume.epoch == Id::default() {
            return Err(unusable("an epoch's id is not zero: that is the provisional one's"));
        }
        if let Some(mark) = &resume.mark
            && raise(&Counters::default(), &mark.counters).is_none()
        {
            return Err(unusable("the mark is more than can be counted"));
        }
        if resume.epoch == self.current.id {
            return Ok(Naming::Again);
        }
        if resume.number <= self.number_max {
            let text = format!(
                "epoch {} has number {}, but number {} was named already",
                resume.epoch, resume.number, self.number_max
            );
            return Err(Refusal { latest: Some(self.number_max), ..RefusalCode::StaleEpoch.because(text) });
        }
        let provisional = self.current.source == EpochSource::Provisional;
        let in_place = provisional && (self.by_signal || !resume.paused);
        Ok(if in_place { Naming::InPlace } else { Naming::Anew })
    }

    /// Which rule of the meter closes the slice that ends with this `Resume`.
    fn event(&self, resume: &Resume) -> meter::Event {
        match self.naming(resume) {
            Ok(Naming::Anew) if resume.paused => meter::Event::Resume,
            Ok(Naming::Anew | Naming::InPlace) if !resume.paused => meter::Event::Release,
            _ => meter::Event::Tick,
        }
    }

    /// What the next one is judged by.
    fn after(self, resume: &Resume) -> Self {
        match self.naming(resume) {
            Ok(Naming::Anew | Naming::InPlace) => {
                Self { current: named(resume), number_max: resume.number, ..self }
            }
            _ => self,
        }
    }
}

fn named(resume: &Resume) -> Epoch {
    Epoch { id: resume.epoch, source: EpochSource::Host, number: resume.number }
}

impl Session {
    /// Which rule of the meter closes the slice that ends with this request.
    pub(super) fn request_event(&self, request: &Lifecycle) -> meter::Event {
        match request {
            Lifecycle::Resume(resume) => self.named().event(resume),
            Lifecycle::Checkpoint(_) => meter::Event::Tick,
        }
    }

    /// The same for all that waits: a resume among it is in the slice wherever it stands, and a release where there is
    /// none.
    pub(super) fn lifecycle_event(&self, depth: Depth) -> meter::Event {
        let mut named = self.named();
        let mut event = meter::Event::Tick;
        for Pending { request, .. } in
            self.lifecycle.iter().take_while(|pending| pending.request.depth() <= depth)
        {
            let Lifecycle::Resume(resume) = request else { continue };
            match named.event(resume) {
                meter::Event::Tick => {}
                resumed @ meter::Event::Resume => return resumed,
                other => event = other,
            }
            named = named.after(resume);
        }
        event
    }

    /// Whether it opens or names an epoch behind all that waits; one that is refused states nothing.
    pub(super) fn would_open(&self, resume: &Resume) -> bool {
        let named = self.lifecycle.iter().fold(self.named(), |named, pending| match &pending.request {
            Lifecycle::Resume(before) => named.after(before),
            Lifecycle::Checkpoint(_) => named,
        });
        matches!(named.naming(resume), Ok(Naming::Anew | Naming::InPlace))
    }

    fn named(&self) -> Named {
        Named {
            current: self.saved.epoch,
            by_signal: self.saved.resume.is_some(),
            number_max: self.saved.number_max,
        }
    }

    /// Carries a `Resume` out, its slice being closed.
    pub(super) fn resume(&mut self, now: Clock, rate_then: Option<Rate>, resume: Resume) -> Reply {
        let naming = match self.named().naming(&resume) {
            Ok(naming) => naming,
            Err(refusal) => return Reply::Error(refusal),
        };
        let epoch = named(&resume);
        match naming {
            Naming::Again => {
                // A host whose first mark was of another boot says this one's.
                if let Some(mark) = resume.mark.filter(|_| !self.saved.marked) {
                    self.raise_to(&mark);
                }
                return self.report(now, Reason::Query);
            }
            Naming::InPlace => self.saved.segments.name(epoch),
            Naming::Anew => {
                self.close_epoch(rate_then);
                if resume.paused {
                    let latency_max =
                        self.edge.previous.map(|previous| now.monotonic.saturating_sub(previous));
                    let detected = now.monotonic;
                    self.saved.resume = Some(Resumed { signal: Signal::Host, detected, latency_max });
                    self.saved.known = Some(Known::at(now.monotonic));
                }
            }
        }
        if !resume.paused {
            self.saved.known = None;
        }
        if self.saved.sandbox.as_ref().is_some_and(|before| *before != resume.sandbox) {
            self.find(Finding::Clone);
        }
        self.connections.values_mut().for_each(|connection| connection.checkpointed = false);
        self.saved.epoch = epoch;
        self.saved.number_max = resume.number;
        self.saved.stated = stated(&resume);
        self.saved.sandbox = Some(resume.sandbox);
        if let Some(mark) = resume.mark {
            self.raise_to(&mark);
        }
        self.settle_from(now.monotonic);
        self.edge.opened = true;
        self.supersede();
        self.report(now, if self.saved.resume.is_some() { Reason::Resume } else { Reason::Query })
    }

    /// Opens the provisional epoch of a resume that nobody announced, its slice being closed.
    pub(super) fn open_noticed(&mut self, now: Nanos, rate_then: Option<Rate>, noticed: Noticed) {
        self.close_epoch(rate_then);
        let latency_max = Some(noticed.latency);
        self.saved.resume = Some(Resumed { signal: noticed.signal, detected: now, latency_max });
        self.saved.known = Some(noticed.known);
        self.settle_from(now);
        self.edge.opened = true;
    }

    fn settle_from(&mut self, now: Nanos) {
        self.saved.settling = Some(now);
        self.told_at_rest = None;
    }

    /// The tail of a named epoch waits for its ack; an unnamed one is nobody's.
    fn close_epoch(&mut self, rate_then: Option<Rate>) {
        match self.saved.epoch.source {
            EpochSource::Host => self.push_segment(rate_then, Boundary::Resume),
            EpochSource::Provisional => self.saved.segments.discard_unnamed(),
        }
        self.saved.epoch = Epoch::default();
        self.saved.base = *self.saved.meter.usage();
        self.saved.seq = 0;
        self.saved.resume = None;
        self.saved.marked = false;
        self.saved.findings.clear();
        self.edge.closed = true;
    }

    /// The stretch since the last segment, or the epoch's beginning, ends with the last observation.
    pub(super) fn push_segment(&mut self, rate: Option<Rate>, boundary: Boundary) {
        self.saved.segments.push(Segment {
            epoch: self.saved.epoch,
            // The first report that covers it: no earlier ack frees it.
            seq: self.saved.seq.saturating_add(1),
            rate,
            boundary,
            usage: self.saved.meter.usage().since(&self.saved.base),
        });
    }

    /// Raises each counter and its base to the host's high-water mark, once in an epoch.
    fn raise_to(&mut self, mark: &Mark) {
        if mark.boot_id != self.myself.boot_id {
            return self.find(Finding::MarkIgnored);
        }
        self.saved.marked = true;
        self.saved.findings.retain(|finding| *finding != Finding::MarkIgnored);
        let base = Counters::from(&self.saved.base);
        if let Some(by) = raise(&base, &mark.counters).filter(|by| !by.is_zero()) {
            self.saved.meter.rebase(by);
            self.saved.base.raise(by);
            self.find(Finding::Rollback);
        }
    }

    /// Holds, its slice being closed.
    pub(super) fn checkpoint(
        &mut self,
        now: Clock,
        rate: Rate,
        from: ConnectionId,
        asked: Checkpoint,
    ) -> Reply {
        let current = self.saved.epoch;
        if asked.epoch != current.id || current.source == EpochSource::Provisional {
            return Reply::Error(self.not_current("checkpoint", asked.epoch, asked.number));
        }
        self.saved.meter.observe(now.monotonic, rate, meter::Event::Checkpoint);
        self.saved.known = None;
        self.edge.checkpointed = true;
        self.supersede();
        if let Some(connection) = self.connections.get_mut(from) {
            connection.checkpointed = true;
        }
        self.report(now, Reason::Checkpoint)
    }

    /// Frees what the host has committed.
    pub(super) fn ack(&mut self, ack: Ack) -> Reply {
        let current = self.saved.epoch;
        let last = match ack.epoch {
            epoch if epoch == Id::default() => None,
            epoch if epoch == current.id => Some(self.saved.seq),
            older => self.saved.segments.last(older),
        };
        let Some(last) = last else { return Reply::Error(self.not_current("ack", ack.epoch, u64::MAX)) };
        if ack.seq > last {
            let text =
                format!("report {} of epoch {} is of the future: the last is {last}", ack.seq, ack.epoch);
            return Reply::Error(RefusalCode::UnknownEpoch.because(text));
        }
        self.saved.segments.free(ack.epoch, ack.seq);
        Reply::Acked(Acked { epoch: ack.epoch, seq: ack.seq })
    }

    fn not_current(&self, what: &str, epoch: Id, number: u64) -> Refusal {
        let current = self.saved.epoch;
        let (code, why) = match current.source {
            _ if number < self.saved.number_max => (RefusalCode::StaleEpoch, "a later one was named"),
            EpochSource::Provisional => {
                (RefusalCode::UnknownEpoch, "the epoch here is provisional: name it with Resume first")
            }
            EpochSource::Host => (RefusalCode::UnknownEpoch, "it is neither the current one nor waits here"),
        };
        let text =
            format!("{what} of epoch {epoch}: {why} (current: {}, number {})", current.id, current.number);
        let latest = (code == RefusalCode::StaleEpoch).then_some(self.saved.number_max);
        Refusal { code, text, latest }
    }

    /// A note for the log where the epoch is another one than before.
    pub(super) fn epoch_note(&self, before: Epoch) -> Option<Note> {
        let epoch = self.saved.epoch;
        match (epoch.source, self.saved.resume) {
            (EpochSource::Host, _) if epoch != before => {
                Some(Note::Named { epoch, sandbox: self.saved.sandbox.clone().unwrap_or_default() })
            }
            (EpochSource::Provisional, Some(Resumed { signal, .. })) if self.edge.closed => {
                Some(Note::Noticed(signal))
            }
            _ => None,
        }
    }
}

pub(super) fn stated(resume: &Resume) -> Stated {
    Stated { requested: resume.requested, boot: resume.boot }
}

/// How much each counter of `from` lacks to `to`; `None` where that is more than the types hold.
fn raise(from: &Counters, to: &Counters) -> Option<Amounts> {
    let active = to.active.total().saturating_sub(from.active.total());
    Some(Amounts {
        active: Nanos(u64::try_from(active).ok()?),
        memory: ByteNanos(to.memory.total().saturating_sub(from.memory.total())),
        cpu: MilliCpuNanos(to.cpu.total().saturating_sub(from.cpu.total())),
        cpu_used: to.cpu_used.saturating_sub(from.cpu_used),
    })
}
