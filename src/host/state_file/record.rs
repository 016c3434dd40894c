//! What is kept of one sandbox: its last epoch, the calls before it, and how far its counters were known. Pure.

use super::super::json::hex;
use super::super::json_integer::as_text;
use super::super::mark::{self, Counted, MarkError};
use super::error::StateCause;
use crate::meter::Count;
use crate::units::Nanos;
use crate::wire::codec::SANDBOX_MAX;
use crate::wire::message::{Counters, EpochSource, Id, Identity, Mark};
use serde::{Deserialize, Serialize};

/// The document's.
pub const STATE_SCHEMA: &str = "guestmeter.state/1";
/// Boots of one sandbox that are remembered: each cold start is one.
const MARKS_MAX: usize = 8;
/// Calls that a later one followed, told from new ones by their ids.
const FOLLOWED_MAX: usize = 64;

/// An epoch that was minted here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Minted {
    /// 128 random bits.
    pub id: Id,
    /// Above all before it.
    pub number: u64,
}

/// What is kept of one sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    schema: String,
    sandbox: String,
    epoch: Option<Last>,
    /// Events that were answered or given up before the last one's, oldest first.
    followed_events: Vec<String>,
    marks: Vec<Known>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Last {
    id: String,
    #[serde(with = "as_text")]
    number: u64,
    /// The call that it was minted for.
    event: Option<String>,
    /// Whether its guest has answered to it.
    answered: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    boot_id: String,
    usage: Counted,
}

impl Record {
    /// Nothing is known of it yet.
    #[must_use]
    pub fn new(sandbox: &str) -> Self {
        let (schema, sandbox) = (STATE_SCHEMA.to_owned(), sandbox.to_owned());
        Self { schema, sandbox, epoch: None, followed_events: Vec::new(), marks: Vec::new() }
    }

    /// Reads one back.
    ///
    /// # Errors
    /// It is none, or a field of it makes no sense.
    pub fn parse(text: &[u8]) -> Result<Self, StateCause> {
        let record: Self = serde_json::from_slice(text)?;
        if record.schema != STATE_SCHEMA {
            return Err(StateCause::Schema(record.schema));
        }
        if record.sandbox.is_empty() || record.sandbox.len() > SANDBOX_MAX {
            return Err(StateCause::Field { field: "sandbox", text: record.sandbox });
        }
        if let Some(last) = &record.epoch
            && (mark::hex(&last.id).is_none_or(|id| id == Id::default()) || last.number == 0)
        {
            return Err(StateCause::Field { field: "epoch", text: format!("{}:{}", last.id, last.number) });
        }
        for known in &record.marks {
            known.mark()?;
        }
        Ok(record)
    }

    /// As it is written.
    ///
    /// # Errors
    /// A fault of this program.
    pub fn to_json(&self) -> Result<Vec<u8>, StateCause> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        Ok(text)
    }

    /// Whose it is.
    #[must_use]
    pub fn sandbox(&self) -> &str {
        &self.sandbox
    }

    /// The last epoch that was minted.
    #[must_use]
    pub fn last(&self) -> Option<Minted> {
        let last = self.epoch.as_ref()?;
        Some(Minted { id: mark::hex(&last.id)?, number: last.number })
    }

    /// The epoch of a call, if it has one: a repeated event has that of its first call, whether it was answered or not; a
    /// call without an event takes up one that was not answered. `None`: one is to be minted.
    ///
    /// # Errors
    /// A later call has come since: this one is over.
    pub fn epoch_of(&self, event: Option<&str>) -> Result<Option<Minted>, StateCause> {
        if let Some(event) = event.filter(|event| self.followed_events.iter().any(|one| one == event)) {
            let last = self.epoch.as_ref().and_then(|last| last.event.clone());
            return Err(StateCause::Followed { event: event.to_owned(), last });
        }
        let same = self.epoch.as_ref().is_some_and(|last| match event {
            Some(_) => last.event.as_deref() == event,
            None => !last.answered,
        });
        Ok(self.last().filter(|_| same))
    }

    /// Takes `id` for `event`; its number is the Unix time `now`, or just above the last one or the guest's `latest`.
    ///
    /// # Errors
    /// There is no number above.
    pub fn mint(
        &mut self,
        id: Id,
        now: Nanos,
        event: Option<&str>,
        latest: u64,
    ) -> Result<Minted, StateCause> {
        let before = self.epoch.as_ref().map_or(0, |last| last.number).max(latest);
        let above = before.checked_add(1).ok_or(StateCause::NoNumber(before))?;
        let number = above.max(now.0);
        let last = Last { id: hex(id), number, event: event.map(str::to_owned), answered: false };
        let before = self.epoch.replace(last).and_then(|before| before.event);
        if let Some(before) = before.filter(|before| event != Some(before)) {
            if self.followed_events.len() >= FOLLOWED_MAX {
                self.followed_events.remove(0);
            }
            self.followed_events.push(before);
        }
        Ok(Minted { id, number })
    }

    /// The guest has answered: its epoch is known to have begun, and what it has counted is known.
    pub fn answered(&mut self, identity: &Identity, counted: Counters) {
        if identity.epoch.source != EpochSource::Host || identity.sandbox.as_ref() != Some(&self.sandbox) {
            return;
        }
        let epoch = hex(identity.epoch.id);
        if let Some(last) = self.epoch.as_mut().filter(|last| last.id == epoch) {
            last.answered = true;
        }
        let boot_id = identity.boot_id.to_string();
        // A guest can say a carry that is none: kept, it would make the file one that cannot be read.
        if (Known { boot_id: boot_id.clone(), usage: Counted::from(&counted) }).mark().is_err() {
            return;
        }
        let at = self.marks.iter().position(|known| known.boot_id == boot_id);
        let before = at.map(|at| self.marks.remove(at)).and_then(|known| known.mark().ok());
        let most = before.map_or(counted, |before| most(&before.counters, &counted));
        if self.marks.len() >= MARKS_MAX {
            self.marks.remove(0);
        }
        self.marks.push(Known { boot_id, usage: Counted::from(&most) });
    }

    /// How far the counters of this boot were known.
    #[must_use]
    pub fn mark(&self, boot_id: Id) -> Option<Mark> {
        let known = self.marks.iter().find(|known| known.boot_id == boot_id.to_string())?;
        known.mark().ok()
    }
}

impl Known {
    fn mark(&self) -> Result<Mark, MarkError> {
        mark::mark_of(self.boot_id.clone(), self.usage.clone())
    }
}

fn most(one: &Counters, other: &Counters) -> Counters {
    fn more<const UNIT: u64>(one: Count<UNIT>, other: Count<UNIT>) -> Count<UNIT> {
        if (one.whole, one.carry) >= (other.whole, other.carry) { one } else { other }
    }
    Counters {
        active: more(one.active, other.active),
        memory: more(one.memory, other.memory),
        cpu: more(one.cpu, other.cpu),
        cpu_used: one.cpu_used.max(other.cpu_used),
    }
}
