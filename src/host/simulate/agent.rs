//! The agent's edge: one wake-up of the real [`Session`], with a death between any two of its actions.

use super::guest::{Build, File, Guest, Incoming};
use super::law::{Breach, Invariant, hold};
use super::memory::{Three, add};
use super::shadow::{Reach, Shadow};
use super::slice::{Before, GuestNow, Shown};
use crate::session::{Action, ConnectionId, Depth, Event, Limits, Myself, Session};
use crate::units::Nanos;
use crate::wire::message::{Agent, Id, Reason, RefusalCode, Reply, Request};

/// Looks in one wake-up.
const LOOKS_MAX: usize = 3;

/// A running agent. It is part of the guest's memory: a snapshot has it.
#[derive(Clone, Debug)]
pub(super) struct Process {
    session: Session,
    shadow: Shadow,
    /// What is open at the agent's end.
    pub(super) connections: Vec<ConnectionId>,
    /// A dial that has not ended.
    pub(super) dials: bool,
    /// There was an observation.
    looked: bool,
}

/// What a wake-up gives to the world.
#[derive(Debug)]
pub(super) enum Output {
    Reply { to: ConnectionId, reply: Box<Reply>, reach: Reach, closed: Vec<Reach> },
    Close(ConnectionId),
    Dial,
}

/// One wake-up.
pub(super) struct Wakeup {
    pub(super) outputs: Vec<Output>,
    /// Counted beyond what was run × capacity.
    pub(super) over: Three,
    /// It died in it.
    pub(super) died: bool,
    /// Requests were left unread.
    pub(super) unread: bool,
}

/// One wake-up in the making.
struct Turn<'a> {
    guest: &'a mut Guest,
    process: Process,
    tick: Nanos,
    late: u64,
    wake: Wakeup,
    looks: Vec<Depth>,
    resume: Option<(Id, bool)>,
    checkpoint: bool,
    /// Who has got a checkpoint's report.
    askers: Vec<ConnectionId>,
    /// Actions left to live.
    lives: Option<u32>,
    /// Outputs that have left the agent's buffers.
    flushed: usize,
}

impl Process {
    /// Starts from the state file, where there is one that this build reads.
    pub(super) fn start(guest: &mut Guest, tick: Nanos) -> Result<Self, Breach> {
        let myself = Myself {
            agent: Agent {
                version: String::new(),
                git: String::new(),
                protocol: 1,
                capabilities: Vec::new(),
            },
            boot_id: guest.boot_id,
        };
        let limits = Limits { notify: guest.build == Build::Current, ..Limits::default() };
        let file = guest.file.clone();
        if let Some(file) = &file {
            survives(file)?;
        } else {
            guest.counted_from_nothing = guest.counted_from_nothing.saturating_add(1);
        }
        let shadow = match &file {
            Some(file) => file.shadow.clone(),
            None => Shadow::fresh(guest),
        };
        let session = Session::new(myself, tick, limits, file.map(|file| file.saved));
        Ok(Self { session, shadow, connections: Vec::new(), dials: false, looked: false })
    }

    pub(super) fn deadline(&self) -> Nanos {
        self.session.deadline()
    }

    pub(super) fn shadow(&self) -> &Shadow {
        &self.shadow
    }

    #[cfg(test)]
    pub(super) fn session(&self) -> &Session {
        &self.session
    }
}

/// What is written to a state file is what is read.
fn survives(file: &File) -> Result<(), Breach> {
    let bytes = postcard::to_allocvec(&file.saved).unwrap_or_default();
    hold(Invariant::Bounded, bytes.len() <= 32_768, || format!("a state of {} bytes", bytes.len()))?;
    let read = postcard::from_bytes(&bytes).ok();
    hold(Invariant::Conservation, read.as_ref() == Some(&file.saved), || {
        "a state is not read as it was written".to_owned()
    })
}

/// Wakes the agent of `guest`, `late` behind its timer; it dies after `lives` actions.
pub(super) fn wake(
    guest: &mut Guest,
    tick: Nanos,
    late: u64,
    lives: Option<u32>,
) -> Result<Option<Wakeup>, Breach> {
    let Some(process) = guest.process.take() else { return Ok(None) };
    let wake = Wakeup { outputs: Vec::new(), over: [0; 3], died: false, unread: false };
    let mut turn = Turn {
        guest,
        process,
        tick,
        late,
        wake,
        looks: Vec::new(),
        resume: None,
        checkpoint: false,
        askers: Vec::new(),
        lives,
        flushed: 0,
    };
    turn.run()?;
    let Turn { guest, process, mut wake, flushed, askers, .. } = turn;
    if wake.died {
        wake.outputs.truncate(flushed);
    } else {
        let (overdue, limits) = (process.session.deadline(), Limits::default());
        hold(Invariant::Bounded, wake.unread || overdue.0 > guest.monotonic, || {
            format!("at {} something that was due at {overdue} is left", guest.monotonic)
        })?;
        hold(Invariant::Bounded, process.session.connections() <= limits.connections, || {
            format!("{} connections are open", process.session.connections())
        })?;
        let held = process.session.saved().meter.held();
        let left = process.connections.iter().filter(|open| !askers.contains(open)).count();
        let quiet = !process.dials && (askers.is_empty() || left == 0);
        hold(Invariant::Quiet, !held || quiet, || {
            format!("held, with {left} connections but those that asked for it; dials: {}", process.dials)
        })?;
    }
    guest.process = Some(process);
    Ok(Some(wake))
}

impl Turn<'_> {
    fn run(&mut self) -> Result<(), Breach> {
        self.process.shadow.wakes();
        if self.guest.build == Build::Current {
            self.step(Event::Signals(self.guest.signals()), None)?;
        }
        let waiting = std::mem::take(&mut self.guest.inbox);
        for incoming in waiting {
            self.incoming(incoming)?;
        }
        self.step(Event::Timer, None)?;
        for _ in 0..LOOKS_MAX {
            let Some(depth) = self.looks.iter().max().copied() else { break };
            self.looks.clear();
            self.flushed = self.wake.outputs.len();
            self.look(depth)?;
        }
        hold(Invariant::Bounded, self.looks.is_empty(), || format!("more than {LOOKS_MAX} looks"))
    }

    fn incoming(&mut self, incoming: Incoming) -> Result<(), Breach> {
        let event = match incoming {
            _ if self.wake.died => return Ok(()),
            Incoming::Hotplug => Event::Hotplug,
            Incoming::Connected(id) => {
                self.process.connections.push(id);
                Event::Connected(id)
            }
            Incoming::Request(from, request) => {
                if !self.process.connections.contains(&from) {
                    return Ok(());
                }
                if !self.process.session.accepts(from) {
                    self.wake.unread = true;
                    self.guest.inbox.push_back(Incoming::Request(from, request));
                    return Ok(());
                }
                match &request {
                    Request::Resume(resume) => self.resume = Some((resume.epoch, resume.paused)),
                    Request::Checkpoint(_) => self.checkpoint = true,
                    _ => {}
                }
                self.request(from, request)
            }
            Incoming::Closed { connection, reset } => {
                self.process.connections.retain(|open| *open != connection);
                Event::Closed { connection, reset }
            }
            // It was hung up on.
            Incoming::Dialed(id) if !self.process.dials => {
                self.wake.outputs.push(Output::Close(id));
                return Ok(());
            }
            Incoming::Dialed(id) => {
                self.process.dials = false;
                self.process.connections.push(id);
                Event::Dialed(id)
            }
            Incoming::DialFailed => {
                if !std::mem::take(&mut self.process.dials) {
                    return Ok(());
                }
                Event::DialFailed
            }
        };
        self.step(event, None)
    }

    fn request(&self, from: ConnectionId, request: Request) -> Event {
        let unknown = matches!(
            request,
            Request::Resume(_) | Request::Checkpoint(_) | Request::Ack(_) | Request::Segments(_)
        );
        if unknown && self.guest.build == Build::Old {
            let refusal = RefusalCode::Unsupported.because("not served");
            return Event::Unserved { from, refusal };
        }
        Event::Request { from, request }
    }

    fn look(&mut self, depth: Depth) -> Result<(), Breach> {
        if self.wake.died {
            return Ok(());
        }
        let capacity = self.guest.memory.look(self.guest.monotonic, self.guest.cpu);
        let shown = Shown {
            rate: self.guest.memory.rate(self.guest.cpu),
            tick: self.tick.0,
            late: self.late,
            awake: self.process.looked,
            resume: self.resume,
            checkpoint: self.checkpoint,
        };
        self.process.looked = true;
        self.step(Event::Observed { capacity, depth }, Some(shown))
    }

    fn step(&mut self, event: Event, shown: Option<Shown>) -> Result<(), Breach> {
        if self.wake.died {
            return Ok(());
        }
        let before = Before::of(&self.process.session);
        let actions = self.process.session.step(self.guest.clock(), event);
        let now = GuestNow::of(self.guest);
        let excess = self.process.shadow.stepped(before, &self.process.session, &now, shown)?;
        self.wake.over = add(self.wake.over, excess.over);
        for action in actions {
            if let Some(lives) = &mut self.lives {
                if *lives == 0 {
                    self.wake.died = true;
                    return Ok(());
                }
                *lives -= 1;
            }
            self.act(action)?;
        }
        Ok(())
    }

    fn act(&mut self, action: Action) -> Result<(), Breach> {
        match action {
            Action::Look(depth) => self.looks.push(depth),
            Action::Resumed(stated) => self.guest.memory.resumed(stated.requested),
            Action::Save => {
                let saved = self.process.session.saved().clone();
                let shadow = self.process.shadow.saved(&saved);
                self.guest.file = Some(File { saved, shadow });
            }
            Action::Send { to, reply } => {
                self.check(&reply)?;
                if matches!(&reply, Reply::Report(report) if report.reason == Reason::Checkpoint) {
                    self.askers.push(to);
                }
                let reach = self.process.shadow.reach();
                let closed = match &reply {
                    Reply::Segments(_) => self.process.shadow.closed.clone(),
                    _ => Vec::new(),
                };
                self.wake.outputs.push(Output::Reply { to, reply: Box::new(reply), reach, closed });
            }
            Action::Close { connection, .. } => {
                self.process.connections.retain(|open| *open != connection);
                self.wake.outputs.push(Output::Close(connection));
            }
            Action::Dial => {
                hold(Invariant::Bounded, !self.process.dials, || "two dials at once".to_owned())?;
                self.process.dials = true;
                self.wake.outputs.push(Output::Dial);
            }
            Action::HangUp => self.process.dials = false,
            Action::Log(_) => {}
        }
        Ok(())
    }

    /// What may leave.
    fn check(&mut self, reply: &Reply) -> Result<(), Breach> {
        let saved = self.guest.file.as_ref().map(|file| &file.saved);
        match reply {
            Reply::Report(report) => self.process.shadow.sends(report, saved, false),
            Reply::Notify(notify) => self.process.shadow.sends(&notify.report, saved, true),
            Reply::Welcome(welcome) => {
                let kept = saved.map_or(0, |saved| saved.epoch.number) >= welcome.epoch.number;
                hold(Invariant::SavedFirst, kept, || {
                    format!("epoch {} was told before it was saved", welcome.epoch.number)
                })
            }
            Reply::Segments(_) | Reply::Acked(_) | Reply::Error(_) => Ok(()),
        }
    }
}
