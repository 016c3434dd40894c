//! The messages of protocol version 1.

use crate::capacity::{Cpu, Memory};
pub use crate::meter::Counters;
use crate::meter::{Rate, Usage};
use crate::units::{Bytes, Nanos};
use serde::{Deserialize, Serialize};

/// A message in either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Host → agent.
    Request(Request),
    /// Agent → host.
    Reply(Reply),
}

/// Host → agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Opens a connection; may be followed at once by requests of version 1.
    Hello(Hello),
    /// Asks for one report.
    Read,
    /// Names the life that begins after a pause, a fresh start or an adoption.
    Resume(Resume),
    /// Closes the count before a pause, and holds.
    Checkpoint(Checkpoint),
    /// The host has committed all up to here.
    Ack(Ack),
    /// Asks for a report once memory has settled.
    WaitSettled(WaitSettled),
    /// Asks for a report at each change of capacity, and at least this often.
    Watch(Watch),
    /// Asks for the segments after this one.
    Segments(SegmentsAfter),
}

/// Agent → host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Answers `Hello`.
    Welcome(Welcome),
    /// One reading.
    Report(Box<Report>),
    /// Answers `Segments`.
    Segments(Segments),
    /// Answers `Ack`.
    Acked(Acked),
    /// Something was refused; the connection stays unless the code says otherwise.
    Error(Refusal),
    /// Speaks first on the notification connection.
    Notify(Box<Notify>),
}

/// 128 bits that name a boot or an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Id(pub [u8; 16]);

/// As the kernel spells `boot_id`: a hyphenated UUID.
impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let hyphen = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{hyphen}{byte:02x}")?;
        }
        Ok(())
    }
}

/// One life between two resumes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// Minted by the host; zero while provisional.
    pub id: Id,
    /// Who named it.
    pub source: EpochSource,
    /// Rises with every epoch the host mints; zero while provisional.
    pub number: u64,
}

/// Who named an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum EpochSource {
    /// Nobody yet: never acked, never credited.
    #[default]
    Provisional,
    /// The host.
    Host,
}

/// `Hello`: which versions the host speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Oldest version the host speaks.
    pub version_min: u16,
    /// Newest version the host speaks.
    pub version_max: u16,
    /// Echoed in `Welcome`, so that stale bytes are not taken for an answer.
    pub nonce: u64,
}

/// Who the agent is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Package version.
    pub version: String,
    /// Git revision.
    pub git: String,
    /// Protocol version spoken on this connection.
    pub protocol: u16,
    /// What this build can do beyond the least.
    pub capabilities: Vec<String>,
}

/// `Welcome`: answers `Hello`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Who answers, and in which version.
    pub agent: Agent,
    /// The kernel's boot id.
    pub boot_id: Id,
    /// The sandbox as the host last named it.
    pub sandbox: Option<String>,
    /// The current epoch.
    pub epoch: Epoch,
    /// The last report's number in it.
    pub seq: u64,
    /// `Hello`'s nonce.
    pub nonce: u64,
}

/// `Resume`: the host names the epoch that begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The new epoch's id.
    pub epoch: Id,
    /// Its number.
    pub number: u64,
    /// Whether the VM was paused; `false` for a fresh start, an aborted snapshot, an adoption.
    pub paused: bool,
    /// Which sandbox this is.
    pub sandbox: String,
    /// The host's Unix time, in ns.
    pub at: Nanos,
    /// The host's high-water mark for this sandbox. One of another boot is ignored, and said; the first of this boot is
    /// applied, also where it comes with a repetition.
    pub mark: Option<Mark>,
    /// What the host asked virtio-mem for, all devices together.
    pub requested: Option<Bytes>,
    /// The boot memory that the VM was given, where the host knows it: it goes before what the guest can find.
    pub boot: Option<Bytes>,
}

/// Counters with their carries, of one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The boot they belong to.
    pub boot_id: Id,
    /// The counters.
    pub counters: Counters,
}

/// `Checkpoint`: the host is about to pause the VM. Once it is answered and until a `Resume` the agent dials nobody, closes
/// all connections but the asker's, and that one as soon as the asker closes it or is silent for 2 s; `Watch` and
/// `WaitSettled` are refused with `Busy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The epoch it closes; an older one is refused.
    pub epoch: Id,
    /// Its number.
    pub number: u64,
}

/// `Ack`: committed up to `seq` of `epoch`; with epoch zero, on a connection that the agent opened, only heard: it ends the
/// repetition of a provisional report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The epoch.
    pub epoch: Id,
    /// The last report committed.
    pub seq: u64,
}

/// `Acked`: answers `Ack`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acked {
    /// The epoch.
    pub epoch: Id,
    /// The last report committed.
    pub seq: u64,
}

/// `WaitSettled`: report once memory has settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitSettled {
    /// Settled means this much plugged, where stated.
    pub expected: Option<Bytes>,
    /// How long nothing may have changed where it is not.
    pub quiet: Nanos,
    /// When to give up.
    pub timeout: Nanos,
}

/// `Watch`: report at each change of capacity, and at least this often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// The most time between two reports; of the changes within it, the first is told at once, the others with the next
    /// report.
    pub interval: Nanos,
}

/// `Segments`: which segments are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentsAfter {
    /// The epoch.
    pub epoch: Id,
    /// Those with a greater `seq`.
    pub seq: u64,
}

/// `Segments`: the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segments {
    /// Oldest first; at most what one frame holds.
    pub segments: Vec<Segment>,
    /// Whether there are more after the last one.
    pub more: bool,
}

/// A stretch of one epoch at one capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The epoch.
    pub epoch: Epoch,
    /// The report's number at its end.
    pub seq: u64,
    /// Its capacity; `None` where several were merged.
    pub rate: Option<Rate>,
    /// What dated its end.
    pub boundary: Boundary,
    /// Usage since the epoch's base, at its end.
    pub usage: Counters,
}

/// What dated the end of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Boundary {
    /// A hotplug event: the instant itself.
    Event,
    /// The observation that saw the change: at most a tick late.
    Observation,
    /// A resume.
    Resume,
}

/// Why a report is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The host asked.
    Query,
    /// The agent started.
    Boot,
    /// A resume.
    Resume,
    /// The capacity changed.
    Capacity,
    /// Before a pause.
    Checkpoint,
    /// Memory has settled.
    Settled,
    /// The agent stops.
    Shutdown,
}

/// One reading, with all that is needed to judge it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whose counters these are.
    pub identity: Identity,
    /// Why it is sent.
    pub reason: Reason,
    /// The guest's clocks, read at one instant.
    pub clock: Clock,
    /// Memory.
    pub memory: Memory,
    /// CPU.
    pub cpu: Cpu,
    /// Usage since boot.
    pub usage: Usage,
    /// `usage` where the epoch began.
    pub base: Usage,
    /// The resume that opened the epoch.
    pub resume: Option<Resumed>,
    /// Behind all of the above on the wire, see [`Tail`].
    #[serde(skip)]
    pub tail: Tail,
}

/// What most reports have nothing of: it follows the payload of [`Report`], and is left out where all of it has its
/// default. A report without it, or without its later fields, reads as if they had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    /// Whether a checkpoint holds the count.
    pub held: bool,
    /// What the host should know of this epoch; each at most once.
    pub findings: Vec<Finding>,
    /// Segments that wait for an ack.
    pub segments_waiting: u32,
    /// Segments that were dropped in this boot: by a full ring, or because no host named their epoch.
    pub segments_dropped: u64,
    /// Bytes that were skipped on the agent's connections as no frame, in this boot: see [`crate::wire::Decoder`].
    pub garbage_bytes: u64,
}

/// Something out of the ordinary in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Finding {
    /// Named for another sandbox than before: this guest is a copy of that one's.
    Clone,
    /// The host's mark of this boot was ahead of the counters, which were raised to it.
    Rollback,
    /// The host's mark was of another boot, and ignored.
    MarkIgnored,
    /// `CLOCK_REALTIME` moved against `CLOCK_MONOTONIC`: the clock was set, or the VM paused.
    ClockStep,
    /// `CLOCK_MONOTONIC` jumped past the cap: a pause that nobody announced, or a guest that was starved.
    ClockJump,
    /// A connection was reset: the VM was restored, or the host's end died.
    ConnectionReset,
}

/// Whose counters these are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The kernel's boot id.
    pub boot_id: Id,
    /// The sandbox as the host last named it.
    pub sandbox: Option<String>,
    /// The current epoch.
    pub epoch: Epoch,
    /// Agent starts within this boot.
    pub instance: u32,
    /// The report's number within the epoch, from 1.
    pub seq: u64,
}

/// The guest's clocks, read at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// `CLOCK_MONOTONIC`.
    pub monotonic: Nanos,
    /// `CLOCK_BOOTTIME`.
    pub boottime: Nanos,
    /// `CLOCK_REALTIME`, since the Unix epoch.
    pub realtime_unix: Nanos,
}

/// How a resume was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// The signal.
    pub signal: Signal,
    /// When, on `CLOCK_MONOTONIC`.
    pub detected: Nanos,
    /// How long after the guest ran again, at most: `detected` − the last look before it. `None` where there was none.
    pub latency_max: Option<Nanos>,
}

/// What told of a resume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Signal {
    /// The host's `Resume`.
    Host,
    /// VMClock's generation or disruption marker.
    Vmclock,
    /// A vsock transport reset.
    VsockReset,
    /// VMGenID.
    Vmgenid,
    /// A jump of a clock while held.
    Clock,
}

/// `Notify`: the agent speaks first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notify {
    /// Who speaks.
    pub agent: Agent,
    /// What it has to say.
    pub report: Report,
}

/// `Error`: something was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What kind of refusal.
    pub code: RefusalCode,
    /// For a person.
    pub text: String,
    /// With [`RefusalCode::StaleEpoch`], the highest number that was named: the host mints above it.
    pub latest: Option<u64>,
}

impl RefusalCode {
    /// A refusal of this kind.
    #[must_use]
    pub fn because(self, text: impl Into<String>) -> Refusal {
        Refusal { code: self, text: text.into(), latest: None }
    }
}

/// What kind of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalCode {
    /// This message is not known to this agent.
    Unsupported,
    /// No common protocol version.
    Version,
    /// The message could not be decoded, or breaks a limit.
    Malformed,
    /// A request before `Hello`.
    Handshake,
    /// An epoch older than the latest that was named.
    StaleEpoch,
    /// An epoch or report this agent does not know.
    UnknownEpoch,
    /// Too many connections or requests.
    Busy,
    /// Memory did not settle in time.
    Timeout,
    /// The agent's own fault.
    Internal,
}
