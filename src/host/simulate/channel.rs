//! Messages between host and guests: whole ones, in order, unless a fault has it otherwise.

use super::faults::Fault;
use super::guest::{Incoming, MILLI, SECOND};
use super::law::{Breach, Invariant, hold};
use super::shadow::Reach;
use super::world::{State, What, World, tell};
use crate::session::ConnectionId;
use crate::wire;
use crate::wire::message::{Message, Reply, Request};

/// One message in so many is put on the wire and read back.
const WIRED: u64 = 16;

/// What goes to a guest.
#[derive(Clone, Debug)]
pub(super) enum ToGuest {
    Open,
    Request(Request),
    Close { reset: bool },
    Dialed,
    DialFailed,
}

/// What comes from one.
#[derive(Clone, Debug)]
pub(super) enum ToHost {
    Reply { reply: Box<Reply>, reach: Reach, closed: Vec<Reach> },
    Refused,
    Closed,
}

/// One connection; each end may think what it likes of the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection {
    pub(super) vm: usize,
    /// Who holds the host's end.
    pub(super) host: Option<(usize, usize)>,
    /// Nothing passes any more, and nobody is told.
    pub(super) hangs: bool,
    /// Nothing sent arrives before these.
    to_guest: u64,
    to_host: u64,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Arrives,
    Lost,
    /// It, and all behind it.
    Late(u64),
    /// It alone.
    Overtaken(u64),
    Doubled(u64),
}

impl World {
    pub(super) fn connect(&mut self, vm: usize, host: Option<(usize, usize)>) -> u64 {
        let hangs = false;
        self.connections.push(Connection { vm, host, hangs, to_guest: 0, to_host: 0 });
        self.connections.len() as u64 - 1
    }

    pub(super) fn connection(&mut self, id: u64) -> Option<&mut Connection> {
        self.connections.get_mut(usize::try_from(id).ok()?)
    }

    /// Sends to the guest's end.
    pub(super) fn send_guest(&mut self, id: u64, body: ToGuest) {
        let Some(connection) = self.connection(id).copied().filter(|it| !it.hangs) else { return };
        let vm = connection.vm;
        let (at, again) = match self.fate(vm, connection.to_guest, matches!(body, ToGuest::Request(_))) {
            Some(fate) => fate,
            None => {
                tell!(self, "lost on the way to vm {vm}: {}", short(&body));
                return;
            }
        };
        if let (false, Some(connection)) = (again.overtaken, self.connection(id)) {
            connection.to_guest = at;
        }
        if let Some(second) = again.second {
            self.at(second, What::ToGuest { vm, connection: id, body: body.clone() });
        }
        self.at(at, What::ToGuest { vm, connection: id, body });
    }

    /// Sends from the guest's end: of a restored guest, that is no end of this connection any more.
    pub(super) fn send_host(&mut self, vm: usize, id: u64, body: ToHost) {
        let known = self.connection(id).copied().filter(|it| !it.hangs && it.vm == vm);
        let Some(connection) = known else { return };
        let message = matches!(body, ToHost::Reply { .. });
        let Some((at, again)) = self.fate(vm, connection.to_host, message) else {
            tell!(self, "lost on the way from vm {vm}");
            return;
        };
        if let (false, Some(connection)) = (again.overtaken, self.connection(id)) {
            connection.to_host = at;
        }
        if let Some(second) = again.second {
            self.at(second, What::ToHost { connection: id, body: Box::new(body.clone()) });
        }
        self.at(at, What::ToHost { connection: id, body: Box::new(body) });
    }

    /// When it arrives, and what else happens to it; `None` if it is lost.
    fn fate(&mut self, vm: usize, least: u64, message: bool) -> Option<(u64, Again)> {
        let latency = self.random.between(MILLI / 20, MILLI);
        let at = self.now.saturating_add(latency).max(least);
        let fate = if message { self.draw_fate() } else { Fate::Arrives };
        if !matches!(fate, Fate::Arrives)
            && let Some(account) = self.vms.get(vm).map(|vm| vm.account)
        {
            self.disturb(account);
        }
        match fate {
            Fate::Arrives => Some((at, Again::default())),
            Fate::Lost => None,
            Fate::Late(by) => Some((at.saturating_add(by), Again::default())),
            Fate::Overtaken(by) => Some((at.saturating_add(by), Again { overtaken: true, second: None })),
            Fate::Doubled(by) => Some((at, Again { overtaken: false, second: Some(at.saturating_add(by)) })),
        }
    }

    fn draw_fate(&mut self) -> Fate {
        if !self.settings.faults.has(Fault::Messages) || !self.random.once_in(self.settings.message) {
            return Fate::Arrives;
        }
        let most = if self.random.once_in(8) { 60 * SECOND } else { 2 * SECOND };
        let by = self.random.around(most / 4);
        match self.random.below(4) {
            0 => Fate::Lost,
            1 => Fate::Late(by),
            2 => Fate::Overtaken(by),
            _ => Fate::Doubled(by),
        }
    }

    /// Something reaches a guest's kernel: it waits there while the VM is paused.
    pub(super) fn reaches_guest(&mut self, index: usize, id: u64, body: ToGuest) {
        self.sync(index);
        let latency = self.random.below(MILLI / 5);
        let Some(vm) = self.vms.get_mut(index) else { return };
        if vm.state == State::Gone || vm.guest.process.is_none() {
            if matches!(body, ToGuest::Open) {
                self.send_host(index, id, ToHost::Refused);
            }
            return;
        }
        let connection = ConnectionId(id);
        let incoming = match body {
            ToGuest::Open => Incoming::Connected(connection),
            ToGuest::Request(request) => Incoming::Request(connection, request),
            ToGuest::Close { reset } => Incoming::Closed { connection, reset },
            ToGuest::Dialed => Incoming::Dialed(connection),
            ToGuest::DialFailed => Incoming::DialFailed,
        };
        vm.guest.take(incoming, latency);
        self.schedule(index);
    }

    /// The agent wants to speak to the host.
    pub(super) fn dial(&mut self, vm: usize) {
        let id = self.connect(vm, None);
        let hangs = self.settings.faults.has(Fault::Connections) && self.random.once_in(4);
        if hangs {
            let after = self.random.around(2 * SECOND);
            self.after(after, What::ToGuest { vm, connection: id, body: ToGuest::DialFailed });
        } else {
            self.after(MILLI, What::ToGuest { vm, connection: id, body: ToGuest::Dialed });
        }
    }

    /// Cuts a connection: both ends hear of it, or one, or none.
    pub(super) fn cut(&mut self, id: u64) {
        let Some(connection) = self.connection(id).copied() else { return };
        let (guest, host) = match self.random.below(4) {
            0 => (true, false),
            1 => (false, true),
            2 => (true, true),
            _ => (false, false),
        };
        let reset = self.random.once_in(2);
        if guest {
            self.send_guest(id, ToGuest::Close { reset });
        }
        if host {
            self.send_host(connection.vm, id, ToHost::Closed);
        }
        if let Some(connection) = self.connection(id) {
            connection.hangs = true;
        }
        tell!(self, "a connection of vm {} is cut (guest told: {guest}, host told: {host})", connection.vm);
    }

    /// Now and then a message goes over the real wire.
    pub(super) fn over_the_wire(&mut self, reply: &Reply) -> Result<(), Breach> {
        if !self.random.once_in(WIRED) {
            return Ok(());
        }
        let message = Message::Reply(reply.clone());
        let mut bytes = Vec::new();
        let encoded = wire::encode(&message, &mut bytes);
        hold(Invariant::Wire, encoded.is_ok(), || format!("{encoded:?}"))?;
        let mut decoder = wire::Decoder::new();
        decoder.push(&bytes);
        let frame = decoder.next();
        let read = match &frame {
            Ok(Some(frame)) => wire::decode(frame).ok(),
            _ => None,
        };
        hold(Invariant::Wire, read.as_ref() == Some(&message), || "a message came out changed".to_owned())
    }
}

/// What else happens to a message.
#[derive(Clone, Copy, Debug, Default)]
struct Again {
    overtaken: bool,
    second: Option<u64>,
}

/// A message in a word.
pub(super) fn short(body: &ToGuest) -> &'static str {
    match body {
        ToGuest::Open => "a connection",
        ToGuest::Request(Request::Hello(_)) => "Hello",
        ToGuest::Request(Request::Read) => "Read",
        ToGuest::Request(Request::Resume(_)) => "Resume",
        ToGuest::Request(Request::Checkpoint(_)) => "Checkpoint",
        ToGuest::Request(Request::Ack(_)) => "Ack",
        ToGuest::Request(Request::WaitSettled(_)) => "WaitSettled",
        ToGuest::Request(Request::Watch(_)) => "Watch",
        ToGuest::Request(Request::Segments(_)) => "Segments",
        ToGuest::Close { .. } => "a close",
        ToGuest::Dialed => "a dial's success",
        ToGuest::DialFailed => "a dial's failure",
    }
}
