//! The loop: clocks and signals are read once per wake-up, then what came in, then time, then what goes out.

use super::address::Address;
use super::clock;
use super::connection::{Connection, Gone, Received};
use super::listener::Listener;
use super::notifier::{Dialed, Notifier};
use super::poller::Poller;
use super::signals::Traces;
use super::state::StateFile;
use super::stop::StopSignals;
use super::supervisor::Supervisor;
use super::uevent::Uevents;
use super::witness::{Look, Sight, Witness};
use crate::capacity::Remark;
use crate::session::{Action, ConnectionId, Depth, Event, Note, Session, Table};
use crate::units::{Bytes, Nanos};
use crate::wire;
use crate::wire::codec::TEXT_MAX;
use crate::wire::message::{Clock, Message, RefusalCode, Reply, Request};
use std::io;

/// Connections taken in one wake-up and listener.
const ACCEPTS_PER_WAKE_MAX: usize = 8;
/// After a connection could not be taken: the socket stays ready, and would be tried without end.
const ACCEPT_PAUSE: Nanos = Nanos::SECOND;
/// How long until what could not be opened is tried again.
const AGAIN: Nanos = Nanos(30_000_000_000);
/// Sockets held open at once, those included that only take their last frame.
const SOCKETS_MAX: usize = 16;
/// Frames of one connection served in one wake-up; its others come in the next.
const FRAMES_PER_WAKE_MAX: usize = 16;
/// Kept to be told from new ones.
const REMARKS_MAX: usize = 64;
/// Of a refusal: in no encoding longer than what the wire takes.
const TEXT_CHARS_MAX: usize = TEXT_MAX / 4;
/// How long a closer look that a look calls for may wait: its answer is on the way, and the host's next word, the ack,
/// must not wait behind it.
const CLOSER_LOOK_WITHIN: Nanos = Nanos(5_000_000);

/// What wakes the loop.
pub(super) struct Sockets {
    poller: Poller,
    listeners: Vec<Listener>,
    /// Addresses that cannot be listened at yet.
    unheard: Vec<Address>,
    notifier: Notifier,
    uevents: Option<Uevents>,
    traces: Traces,
    stop: StopSignals,
}

impl Sockets {
    /// Adds SIGTERM and SIGINT.
    pub(super) fn new(
        mut poller: Poller,
        (listeners, unheard): (Vec<Listener>, Vec<Address>),
        notifier: Notifier,
        uevents: Option<Uevents>,
        mut traces: Traces,
    ) -> io::Result<Self> {
        traces.watch(&mut poller);
        let stop = StopSignals::new(&mut poller)?;
        Ok(Self { poller, listeners, unheard, notifier, uevents, traces, stop })
    }

    /// Whether an address is listened at only later.
    pub(super) fn listens_later(&self) -> bool {
        !self.unheard.is_empty()
    }
}

/// All that the loop holds.
pub(super) struct Daemon {
    session: Session,
    witness: Witness,
    state: StateFile,
    supervisor: Supervisor,
    sockets: Sockets,
    allowed_peers: Vec<u32>,
    connections: Table<Connection>,
    next_connection: u64,
    /// No connection is taken before.
    accept_from: Nanos,
    /// When what could not be opened is tried again.
    again_at: Nanos,
    /// A closer look is due with the next wake-up, which is then at the latest.
    closer_look: Option<Nanos>,
    /// Why the state on disk is behind: until it is not, a report would tell of what a restart may lose.
    unsaved: Option<String>,
    /// SIGTERM or SIGINT came.
    stopping: bool,
    /// Of the last look that had any.
    remarks: Vec<Remark>,
}

/// What one wake-up has come to so far.
struct Wake {
    now: Clock,
    look: Option<Look>,
    /// Said once the answers are on their way.
    notes: Vec<Note>,
}

impl Wake {
    /// The closest look that was asked for.
    fn want(&mut self, look: Look) {
        self.look = Some(match (self.look, look) {
            (Some(Look::Full), _) | (_, Look::Full) => Look::Full,
            _ => Look::Tick,
        });
    }
}

impl Daemon {
    pub(super) fn new(
        session: Session,
        witness: Witness,
        state: StateFile,
        supervisor: Supervisor,
        sockets: Sockets,
        allowed_peers: Vec<u32>,
    ) -> Self {
        Self {
            session,
            witness,
            state,
            supervisor,
            sockets,
            allowed_peers,
            connections: Table::default(),
            next_connection: 0,
            accept_from: Nanos::ZERO,
            again_at: Nanos::ZERO,
            closer_look: None,
            unsaved: None,
            stopping: false,
            remarks: Vec::new(),
        }
    }

    /// Serves until a signal ends it.
    ///
    /// # Errors
    /// The kernel does not let it sleep.
    pub(super) fn run(&mut self) -> io::Result<()> {
        let mut now = clock::now();
        self.again_at = now.monotonic.saturating_add(AGAIN);
        self.witness.hears_hotplug(self.sockets.uevents.is_some());
        self.turn(now);
        super::memory::give_back();
        self.supervisor.ready(&self.status());
        log::info!("ready: {}", self.status());
        while !(self.stopping && self.connections.is_empty()) {
            self.sockets.poller.sleep(self.idle(now.monotonic))?;
            now = clock::now();
            self.turn(now);
        }
        Ok(())
    }

    /// One wake-up. A resume is noticed, and what the kernel tells is taken, before time is counted.
    fn turn(&mut self, now: Clock) {
        let mut wake = Wake { now, look: None, notes: Vec::new() };
        let signals = self.sockets.traces.read();
        self.step(&mut wake, Event::Signals(signals));
        self.take_uevents(&mut wake);
        // Once it stops there is nothing more to be told.
        if !self.stopping && self.sockets.stop.came() {
            self.stopping = true;
            self.sockets.listeners.clear();
            self.supervisor.stopping();
            self.step(&mut wake, Event::Shutdown);
        }
        if self.lacks_a_socket() {
            self.open_again(&mut wake);
        }
        // Who hung up makes room for who connects.
        self.receive(&mut wake);
        self.accept(&mut wake);
        if self.sockets.notifier.deadline().is_some() {
            self.take_dialed(&mut wake);
        }
        self.step(&mut wake, Event::Timer);
        self.observe(&mut wake);
        self.flush(&mut wake);
        self.say(&wake.notes);
        self.closer_look = wake.look.map(|_| now.monotonic.saturating_add(CLOSER_LOOK_WITHIN));
        self.supervisor.ready_again();
        self.supervisor.alive(now.monotonic, self.session.deadline());
    }

    /// How long the loop may sleep without an event, seen from `now`.
    fn idle(&self, now: Nanos) -> Nanos {
        if self.has_news(now) { Nanos::ZERO } else { self.deadline(now).saturating_sub(now) }
    }

    /// Whether something was told that was not taken yet, and is wanted.
    fn has_news(&self, now: Nanos) -> bool {
        let called = self.accept_from <= now && self.sockets.listeners.iter().any(Listener::is_called);
        let hotplug = self.sockets.uevents.as_ref().is_some_and(Uevents::are_waiting);
        called
            || hotplug
            || self.connections.iter().any(|(id, connection)| connection.has_news(self.session.accepts(id)))
    }

    /// When the loop has to go on without an event.
    fn deadline(&self, now: Nanos) -> Nanos {
        let closing = self.connections.values().filter_map(Connection::deadline);
        let paused = Some(self.accept_from).filter(|until| *until > now);
        let again = self.lacks_a_socket().then_some(self.again_at);
        let others =
            [paused, again, self.closer_look, self.sockets.notifier.deadline(), self.supervisor.deadline()];
        closing.chain(others.into_iter().flatten()).fold(self.session.deadline(), std::cmp::min)
    }

    fn take_uevents(&mut self, wake: &mut Wake) {
        match self.sockets.uevents.as_ref().map(Uevents::take) {
            Some(Ok(true)) => {
                self.witness.hotplugged();
                self.step(wake, Event::Hotplug);
            }
            Some(Err(error)) => {
                log::error!("hotplug events are lost ({error}): blocks and CPUs are read with each report");
                self.sockets.uevents = None;
                self.witness.hears_hotplug(false);
                self.again_at = wake.now.monotonic.saturating_add(AGAIN);
                self.step(wake, Event::Hotplug);
            }
            Some(Ok(false)) | None => {}
        }
    }

    /// What could not be opened is tried again: a module that is loaded late, a port that somebody held.
    fn open_again(&mut self, wake: &mut Wake) {
        if wake.now.monotonic < self.again_at {
            return;
        }
        self.again_at = wake.now.monotonic.saturating_add(AGAIN);
        if self.sockets.uevents.is_none()
            && let Ok(uevents) = Uevents::open(&mut self.sockets.poller)
        {
            log::info!("hotplug events are heard again");
            self.sockets.uevents = Some(uevents);
            self.witness.hears_hotplug(true);
            self.step(wake, Event::Hotplug);
        }
        let Sockets { poller, listeners, unheard, .. } = &mut self.sockets;
        unheard.retain(|address| match Listener::bind(poller, address) {
            Ok(listener) => {
                log::info!("listening at {}", listener.name());
                listeners.push(listener);
                false
            }
            Err(_) => true,
        });
    }

    fn lacks_a_socket(&self) -> bool {
        !self.stopping && (self.sockets.uevents.is_none() || self.sockets.listens_later())
    }

    fn accept(&mut self, wake: &mut Wake) {
        if wake.now.monotonic < self.accept_from {
            return;
        }
        let mut arrived = Vec::new();
        for listener in &self.sockets.listeners {
            for _ in 0..ACCEPTS_PER_WAKE_MAX {
                match listener.accept() {
                    Ok(Some(connection)) => arrived.push(connection),
                    Ok(None) => break,
                    Err(error) => {
                        log::warn!("{}: a connection cannot be taken: {error}", listener.name());
                        self.accept_from = wake.now.monotonic.saturating_add(ACCEPT_PAUSE);
                        break;
                    }
                }
            }
        }
        for (stream, peer) in arrived {
            if !peer.may_connect(&self.allowed_peers) {
                log::warn!("{peer} may not connect: only CID 2, the host, and those of --allow-peer");
                continue;
            }
            if self.connections.len() >= SOCKETS_MAX {
                log::warn!("{peer} is turned away: {SOCKETS_MAX} sockets are open");
                continue;
            }
            match Connection::new(&mut self.sockets.poller, stream, peer) {
                Ok(connection) => {
                    let id = self.take_in(connection);
                    self.step(wake, Event::Connected(id));
                }
                Err(error) => log::warn!("{peer} cannot be served: {error}"),
            }
        }
    }

    fn take_in(&mut self, connection: Connection) -> ConnectionId {
        let id = ConnectionId(self.next_connection);
        self.next_connection = self.next_connection.wrapping_add(1);
        self.connections.insert(id, connection);
        id
    }

    fn take_dialed(&mut self, wake: &mut Wake) {
        match self.sockets.notifier.dialed(wake.now.monotonic) {
            Dialed::Pending => {}
            Dialed::Open(stream, peer) => {
                let id = self.take_in(Connection::over(stream, peer));
                self.step(wake, Event::Dialed(id));
            }
            Dialed::Failed => self.step(wake, Event::DialFailed),
        }
    }

    fn receive(&mut self, wake: &mut Wake) {
        for id in self.connections.ids() {
            let received = self.receive_from(id, wake);
            let garbage = self.connections.get_mut(id).map_or(0, Connection::take_garbage);
            if garbage > 0 {
                self.step(wake, Event::Garbage { bytes: garbage });
            }
            if let Err(gone) = received {
                self.drop_connection(id, &gone, wake);
            }
        }
    }

    /// Takes as many frames as the session takes; the rest waits where it is.
    fn receive_from(&mut self, id: ConnectionId, wake: &mut Wake) -> Result<(), Gone> {
        for _ in 0..FRAMES_PER_WAKE_MAX {
            if !self.session.accepts(id) {
                return Ok(());
            }
            let Some(connection) = self.connections.get_mut(id).filter(|it| !it.is_closing()) else {
                return Ok(());
            };
            let event = match connection.next_frame()? {
                None => return Ok(()),
                Some(Received::Request(request)) => Event::Request { from: id, request },
                Some(Received::Unserved(refusal)) => Event::Unserved { from: id, refusal },
                Some(Received::Ended) => Event::Ended(id),
            };
            if matches!(event, Event::Request { request: Request::Resume(_), .. }) {
                self.look_around_again(wake);
            }
            self.step(wake, event);
        }
        Ok(())
    }

    /// What ends a hold may come in a wake-up that began before the pause. VMGenID's interrupt may be late in any case.
    fn look_around_again(&mut self, wake: &mut Wake) {
        wake.now = clock::now();
        let signals = self.sockets.traces.read_page();
        self.step(wake, Event::Signals(signals));
    }

    fn step(&mut self, wake: &mut Wake, event: Event) {
        for action in self.session.step(wake.now, event) {
            self.execute(wake, action);
        }
    }

    fn execute(&mut self, wake: &mut Wake, action: Action) {
        match action {
            Action::Look(Depth::Hot) => wake.want(Look::Tick),
            Action::Look(Depth::Full) => wake.want(Look::Full),
            Action::Resumed(stated) => self.witness.resumed(stated),
            Action::Dial => {
                self.sockets.notifier.dial(wake.now.monotonic, &mut self.sockets.poller);
                self.take_dialed(wake);
            }
            Action::HangUp => self.sockets.notifier.hang_up(),
            Action::Save => self.save(),
            Action::Send { to, reply } => {
                let Some(reply) = self.if_saved(reply) else { return };
                let Some(connection) = self.connections.get_mut(to) else { return };
                if let Err(error) = wire::encode(&Message::Reply(reply), connection.outgoing()) {
                    log::error!("a reply to {} cannot be encoded: {error}", connection.peer);
                }
            }
            Action::Close { connection, cause } => {
                if let Some(connection) = self.connections.get_mut(connection) {
                    log::info!("connection of {} closed: {cause}", connection.peer);
                    connection.close(wake.now.monotonic);
                }
            }
            Action::Log(note) => wake.notes.push(note),
        }
    }

    fn save(&mut self) {
        let saved = self.state.save(self.session.saved(), self.witness.baseline());
        match (&saved, &self.unsaved) {
            (Err(error), None) => log::error!("{error}; until it is saved nothing is reported"),
            (Ok(()), Some(_)) => log::info!("the state is saved again, and reported"),
            _ => {}
        }
        self.unsaved = saved.err().map(|error| format!("not saved, so not reported: {error}"));
    }

    /// A report, or an error in its place where a restart could take it back; a host that was told unasked is told later.
    fn if_saved(&self, reply: Reply) -> Option<Reply> {
        let Some(cause) = &self.unsaved else { return Some(reply) };
        match reply {
            Reply::Report(_) | Reply::Segments(_) => {
                let text: String = cause.chars().take(TEXT_CHARS_MAX).collect();
                Some(Reply::Error(RefusalCode::Internal.because(text)))
            }
            Reply::Notify(_) => None,
            reply => Some(reply),
        }
    }

    fn observe(&mut self, wake: &mut Wake) {
        if self.closer_look.take().is_some() {
            wake.want(Look::Full);
        }
        if let Some(look) = wake.look.take() {
            if look == Look::Full {
                // What needs no look does not wait for one.
                self.flush(wake);
            }
            let Sight { capacity, remarks } = self.witness.look(wake.now.monotonic, look);
            self.remark(remarks, look);
            let depth = if look == Look::Full { Depth::Full } else { Depth::Hot };
            self.step(wake, Event::Observed { capacity, depth });
        }
    }

    fn say(&mut self, notes: &[Note]) {
        for note in notes {
            match note {
                Note::Capacity { .. } => log::info!("{note}"),
                note => log::warn!("{note}"),
            }
        }
        if notes.iter().any(|note| matches!(note, Note::Capacity { .. })) {
            self.supervisor.status(&self.status());
        }
    }

    /// Says what was not said before. A tick tells of little, which unsays nothing.
    fn remark(&mut self, remarks: Vec<Remark>, look: Look) {
        let known = self.remarks.len();
        for remark in remarks {
            if !self.remarks.contains(&remark) {
                log::warn!("{remark}");
                self.remarks.push(remark);
            } else if look == Look::Full {
                self.remarks.push(remark);
            }
        }
        // What a whole look does not see is over, and would be said again; so would be what changes with each tick.
        if look == Look::Full || self.remarks.len() > REMARKS_MAX {
            self.remarks.drain(..known);
        }
    }

    fn flush(&mut self, wake: &mut Wake) {
        for id in self.connections.ids() {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            match connection.flush().and_then(|()| connection.take_peeked()) {
                Err(gone) => self.drop_connection(id, &gone, wake),
                Ok(()) if connection.is_done(wake.now.monotonic) => {
                    self.connections.remove(id);
                }
                Ok(()) => {}
            }
        }
    }

    fn drop_connection(&mut self, id: ConnectionId, gone: &Gone, wake: &mut Wake) {
        if let Some(connection) = self.connections.remove(id) {
            if !matches!(gone, Gone::ByPeer) {
                log::warn!("connection of {}: {gone}", connection.peer);
            }
            if gone.is_reset() {
                self.look_around_again(wake);
            }
            self.step(wake, Event::Closed { connection: id, reset: gone.is_reset() });
        }
    }

    /// One line for `systemctl status`.
    fn status(&self) -> String {
        let Some(capacity) = self.session.capacity() else { return "nothing seen yet".to_owned() };
        let mib = |bytes: Option<Bytes>| match bytes {
            Some(bytes) => format!("{} MiB", bytes.0 / Bytes::MIB.0),
            None => "unknown".to_owned(),
        };
        let memory = &capacity.memory;
        let (boot, plugged) = (mib(memory.boot), mib(memory.plugged));
        format!("boot memory {boot}, plugged {plugged}, CPU {}", capacity.cpu.effective)
    }
}
