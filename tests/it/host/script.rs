//! An agent that a test plays: each connection it is asked on has a script of its own.

use super::PATIENCE;
use crate::golden;
use guestmeter::wire::message::{
    Ack, Acked, Agent, Epoch, EpochSource, Hello, Id, Message, RefusalCode, Reply, Report, Request, Welcome,
};
use guestmeter::wire::{self, Decoder};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::JoinHandle;
use tempfile::TempDir;

pub(super) const BOOT: Id = Id([7; 16]);

/// Plays one script per connection, in order.
pub(super) struct Script {
    folder: TempDir,
    /// Gives the socket back: until then, whoever comes after the last scene waits for an answer.
    thread: JoinHandle<UnixListener>,
}

type Scene = Box<dyn FnOnce(&mut Peer) + Send>;

impl Script {
    pub(super) fn start(scenes: Vec<Scene>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        let thread = std::thread::spawn(move || {
            for scene in scenes {
                let (stream, _) = listener.accept().unwrap();
                scene(&mut Peer::new(stream));
            }
            listener
        });
        Self { folder, thread }
    }

    pub(super) fn one(scene: impl FnOnce(&mut Peer) + Send + 'static) -> Self {
        Self::start(vec![Box::new(scene)])
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    pub(super) fn target(&self) -> String {
        format!("unix://{}", self.path().display())
    }

    /// What the scenes asserted must have held, and each must have been played.
    pub(super) fn finish(self) {
        self.thread.join().unwrap();
    }
}

/// The other end of one connection.
pub(super) struct Peer {
    pub(super) stream: UnixStream,
    decoder: Decoder,
}

impl Peer {
    pub(super) fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, decoder: Decoder::new() }
    }

    /// The next message, or `None` once the other side has closed.
    pub(super) fn message(&mut self) -> Option<Message> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(frame) = self.decoder.next().unwrap() {
                return Some(wire::decode(&frame).unwrap());
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.decoder.push(&buffer[..count]),
                // A machine that is paused and goes on interrupts who waits with a time limit.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("no message: {error}"),
            }
        }
    }

    pub(super) fn request(&mut self) -> Request {
        match self.message() {
            Some(Message::Request(request)) => request,
            other => panic!("{other:?} is no request"),
        }
    }

    pub(super) fn hello(&mut self) -> Hello {
        match self.request() {
            Request::Hello(hello) => hello,
            other => panic!("{other:?} before Hello"),
        }
    }

    pub(super) fn reply(&mut self, reply: Reply) {
        self.stream.write_all(&bytes(reply)).unwrap();
    }

    /// Greets as a guest in `epoch`.
    pub(super) fn greet(&mut self, sandbox: Option<&str>, epoch: Epoch) {
        let nonce = self.hello().nonce;
        let mut welcome = welcome(nonce, 1);
        (welcome.sandbox, welcome.epoch) = (sandbox.map(str::to_owned), epoch);
        self.reply(Reply::Welcome(welcome));
    }

    pub(super) fn report(&mut self, report: Report) {
        self.reply(Reply::Report(Box::new(report)));
    }

    pub(super) fn refuse(&mut self, code: RefusalCode, text: &str) {
        self.reply(Reply::Error(code.because(text.to_owned())));
    }

    pub(super) fn acked(&mut self) -> Ack {
        match self.request() {
            Request::Ack(ack) => {
                self.reply(Reply::Acked(Acked { epoch: ack.epoch, seq: ack.seq }));
                ack
            }
            other => panic!("{other:?} instead of Ack"),
        }
    }

    /// The other side closes while this one is still open: it waits for the end of both.
    pub(super) fn closed(&mut self) {
        assert_eq!(self.message(), None);
    }
}

pub(super) fn named(id: u8, number: u64) -> Epoch {
    Epoch { id: Id([id; 16]), source: EpochSource::Host, number }
}

/// Report 5 of this life.
pub(super) fn report(sandbox: &str, epoch: Epoch) -> Report {
    let mut report = golden::full_report();
    report.identity.boot_id = BOOT;
    report.identity.sandbox = Some(sandbox.to_owned());
    report.identity.epoch = epoch;
    report.identity.seq = 5;
    report.memory.state = guestmeter::capacity::MemoryState::Settled;
    report
}

pub(super) fn bytes(reply: Reply) -> Vec<u8> {
    let mut bytes = Vec::new();
    wire::encode(&Message::Reply(reply), &mut bytes).unwrap();
    bytes
}

pub(super) fn welcome(nonce: u64, protocol: u16) -> Welcome {
    Welcome {
        agent: Agent {
            version: "9.0.0".to_owned(),
            git: "0123456789ab".to_owned(),
            protocol,
            capabilities: Vec::new(),
        },
        boot_id: BOOT,
        sandbox: None,
        epoch: Epoch::default(),
        seq: 0,
        nonce,
    }
}
