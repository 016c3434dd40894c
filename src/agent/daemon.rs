//! The loop: one clock read per wake-up, then what came in, then time, then what goes out.

use super::clock;
use super::connection::{Connection, Gone, Received};
use super::listener::Listener;
use super::state::StateFile;
use super::supervisor::Supervisor;
use super::timer::Timer;
use super::uevent::Uevents;
use super::witness::{Look, Sight, Witness};
use crate::capacity::Remark;
use crate::session::{Action, ConnectionId, Depth, Event, Note, Session, Table};
use crate::units::{Bytes, Nanos};
use crate::wire;
use crate::wire::message::{Clock, Message};
use std::future::poll_fn;
use std::io;
use std::task::Poll;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Connections taken in one wake-up and listener.
const ACCEPTS_PER_WAKE_MAX: usize = 8;
/// After a connection could not be taken: the socket stays ready, and would be tried without end.
const ACCEPT_PAUSE: Nanos = Nanos::SECOND;
/// Sockets held open at once, those included that only take their last frame.
const SOCKETS_MAX: usize = 16;
/// Frames of one connection served in one wake-up; its others come in the next.
const FRAMES_PER_WAKE_MAX: usize = 16;
/// Looks in one wake-up: the first may call for a closer one.
const LOOKS_PER_WAKE_MAX: usize = 3;

/// What wakes the loop.
pub(super) struct Sockets {
    listeners: Vec<Listener>,
    uevents: Option<Uevents>,
    terminate: Signal,
    interrupt: Signal,
    timer: Timer,
}

impl Sockets {
    /// Adds SIGTERM and SIGINT. Must be called inside the runtime.
    pub(super) fn new(listeners: Vec<Listener>, uevents: Option<Uevents>) -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { listeners, uevents, terminate, interrupt, timer: Timer::new()? })
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
    /// SIGTERM or SIGINT came.
    stopping: bool,
    status_changed: bool,
    /// Of the last look that had any.
    remarks: Vec<Remark>,
}

/// What one wake-up has come to so far.
struct Wake {
    now: Clock,
    look: Option<Look>,
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
            stopping: false,
            status_changed: false,
            remarks: Vec::new(),
        }
    }

    /// Serves until a signal ends it.
    ///
    /// # Errors
    /// The timer cannot be set: without it nothing would be counted.
    pub(super) async fn run(&mut self) -> io::Result<()> {
        let mut now = clock::now();
        self.turn(now, false);
        self.supervisor.ready(&self.status());
        log::info!("ready: {}", self.status());
        while !(self.stopping && self.connections.is_empty()) {
            self.sockets.timer.arm(self.deadline(now.monotonic))?;
            let stop = self.wait(self.accept_from <= now.monotonic).await;
            now = clock::now();
            self.turn(now, stop);
        }
        Ok(())
    }

    /// One wake-up. What the kernel signals is taken before time is counted.
    fn turn(&mut self, now: Clock, stop: bool) {
        let mut wake = Wake { now, look: None };
        self.take_uevents(&mut wake);
        if stop && !self.stopping {
            self.stopping = true;
            self.sockets.listeners.clear();
            self.supervisor.stopping();
            self.step(&mut wake, Event::Shutdown);
        }
        // Who hung up makes room for who connects.
        self.receive(&mut wake);
        self.accept(&mut wake);
        self.step(&mut wake, Event::Timer);
        self.observe(&mut wake);
        self.flush(&mut wake);
        self.supervisor.alive(now.monotonic, self.session.deadline());
    }

    /// When the loop has to go on without an event.
    fn deadline(&self, now: Nanos) -> Nanos {
        if self.connections.iter().any(|(id, connection)| connection.unread && self.session.accepts(id)) {
            return Nanos::ZERO;
        }
        let closing = self.connections.values().filter_map(Connection::deadline);
        let paused = Some(self.accept_from).filter(|until| *until > now);
        closing.chain(paused).chain(self.supervisor.deadline()).fold(self.session.deadline(), std::cmp::min)
    }

    /// Sleeps; says whether a signal to stop came.
    async fn wait(&mut self, accepts: bool) -> bool {
        poll_fn(|cx| {
            let mut ready = self.sockets.timer.poll_rung(cx).is_ready();
            let stop = self.sockets.terminate.poll_recv(cx).is_ready()
                | self.sockets.interrupt.poll_recv(cx).is_ready();
            ready |= stop;
            ready |= self.sockets.uevents.as_ref().is_some_and(|uevents| uevents.poll_ready(cx).is_ready());
            let accepting = if accepts { self.sockets.listeners.as_slice() } else { &[] };
            for listener in accepting {
                ready |= listener.poll_ready(cx).is_ready();
            }
            for (id, connection) in self.connections.iter() {
                ready |= connection.poll_ready(cx, self.session.accepts(id)).is_ready();
            }
            if ready { Poll::Ready(stop) } else { Poll::Pending }
        })
        .await
    }

    fn take_uevents(&mut self, wake: &mut Wake) {
        match self.sockets.uevents.as_ref().map(Uevents::take) {
            Some(Ok(true)) => {
                self.witness.hotplugged();
                wake.want(Look::Tick);
            }
            Some(Err(error)) => {
                log::error!(
                    "hotplug events are lost ({error}): a change is seen at the next tick or request"
                );
                self.sockets.uevents = None;
            }
            Some(Ok(false)) | None => {}
        }
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
            match Connection::new(stream, peer) {
                Ok(connection) => {
                    let id = ConnectionId(self.next_connection);
                    self.next_connection = self.next_connection.wrapping_add(1);
                    self.connections.insert(id, connection);
                    self.step(wake, Event::Connected(id));
                }
                Err(error) => log::warn!("{peer} cannot be served: {error}"),
            }
        }
    }

    fn receive(&mut self, wake: &mut Wake) {
        for id in self.connections.ids() {
            if let Err(gone) = self.receive_from(id, wake) {
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
            };
            self.step(wake, event);
        }
        Ok(())
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
            Action::Save => {
                if let Err(error) = self.state.save(self.session.saved(), self.witness.baseline()) {
                    log::error!("{error}; a restart would lose what was counted since");
                }
            }
            Action::Send { to, reply } => {
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
            Action::Log(note @ Note::Capacity { .. }) => {
                log::info!("{note}");
                self.status_changed = true;
            }
            Action::Log(note) => log::warn!("{note}"),
        }
    }

    fn observe(&mut self, wake: &mut Wake) {
        for _ in 0..LOOKS_PER_WAKE_MAX {
            let Some(look) = wake.look.take() else { break };
            let Sight { capacity, remarks } = self.witness.look(wake.now.monotonic, look);
            self.remark(remarks);
            let depth = if look == Look::Full { Depth::Full } else { Depth::Hot };
            self.step(wake, Event::Observed { capacity, depth });
        }
        if std::mem::take(&mut self.status_changed) {
            self.supervisor.status(&self.status());
        }
    }

    /// Says what was not said before.
    fn remark(&mut self, remarks: Vec<Remark>) {
        for remark in &remarks {
            if !self.remarks.contains(remark) {
                log::warn!("{remark}");
            }
        }
        self.remarks = remarks;
    }

    fn flush(&mut self, wake: &mut Wake) {
        for id in self.connections.ids() {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            match connection.flush() {
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
            self.step(wake, Event::Closed(id));
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
