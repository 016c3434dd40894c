//! Where a guest's notifications come out: heard, acknowledged, and kept for the test to look at.

use super::HUNG;
use super::vm::Vm;
use guestmeter::wire::message::{Ack, EpochSource, Message, Reason, Reply, Report, Request};
use guestmeter::wire::{self, Decoder};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(5);
/// An agent speaks at once, and hangs up at once when it was acknowledged; a busy machine keeps it from both.
const PATIENCE: Duration = Duration::from_secs(30);

/// Listens on the guest's way to CID 2, port 1020, one connection after the other.
pub(crate) struct Ear {
    heard: Receiver<Report>,
    deaf: Arc<AtomicBool>,
    /// Held while a connection is open.
    busy: Arc<Mutex<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ear {
    pub(crate) fn new(vm: &Vm) -> Self {
        let mut path = vm.vsock_path().into_os_string();
        path.push("_1020");
        let listener = UnixListener::bind(path).expect("the guest's way out is free");
        listener.set_nonblocking(true).expect("a listener that does not block");
        let (sender, heard) = channel();
        let (deaf, busy) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(())));
        let (stop, open) = (Arc::clone(&deaf), Arc::clone(&busy));
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let _open = open.lock();
                match listener.accept() {
                    Ok((stream, _)) => hear(stream, &sender),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        drop(_open);
                        std::thread::sleep(POLL);
                    }
                    Err(error) => panic!("the guest's way out: {error}"),
                }
            }
        });
        Self { heard, deaf, busy, thread: Some(thread) }
    }

    /// The next notification that is `wanted`; what comes before it is passed over.
    pub(crate) fn hears(&self, vm: &mut Vm, what: &str, wanted: impl Fn(&Report) -> bool) -> Report {
        let (start, mut others) = (Instant::now(), Vec::new());
        while let Some(left) = HUNG.checked_sub(start.elapsed()) {
            match self.heard.recv_timeout(left) {
                Ok(report) if wanted(&report) => return report,
                Ok(report) => others.push(report),
                Err(_) => break,
            }
        }
        let log = vm.agent_log();
        vm.fail(&format!("waited {HUNG:?} to hear {what}, heard {others:#?}\nagent: {log}"))
    }

    pub(crate) fn hears_settled(&self, vm: &mut Vm) -> Report {
        self.hears(vm, "that memory has settled", |report| report.reason == Reason::Settled)
    }

    /// All that came until now, when no connection is open.
    pub(crate) fn so_far(&self) -> Vec<Report> {
        let _quiet = self.busy.lock();
        self.heard.try_iter().collect()
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.deaf.store(true, Ordering::Relaxed);
        let thread = self.thread.take();
        let _ = thread.map(JoinHandle::join);
    }
}

/// A provisional epoch cannot be acknowledged: the host's answer is to name it.
fn hear(mut stream: UnixStream, heard: &Sender<Report>) {
    stream.set_nonblocking(false).expect("a stream that blocks");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let Some(report) = notified(&mut stream) else { return };
    let identity = report.identity.clone();
    let _ = heard.send(report);
    if identity.epoch.source == EpochSource::Provisional {
        return;
    }
    let ack = Request::Ack(Ack { epoch: identity.epoch.id, seq: identity.seq });
    let mut bytes = Vec::new();
    wire::encode(&Message::Request(ack), &mut bytes).expect("an ack fits a frame");
    if stream.write_all(&bytes).is_ok() {
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

fn notified(stream: &mut UnixStream) -> Option<Report> {
    let mut decoder = Decoder::new();
    loop {
        if let Some(frame) = decoder.next().expect("frames") {
            match wire::decode(&frame).expect("a message") {
                Message::Reply(Reply::Notify(notify)) => return Some(notify.report),
                other => panic!("no Notify but {other:?}"),
            }
        }
        let mut bytes = [0; 4096];
        match stream.read(&mut bytes) {
            Ok(0) | Err(_) => return None,
            Ok(length) => decoder.push(&bytes[..length]),
        }
    }
}
