//! The agent dials its host over vsock, which may not listen yet.

use crate::rig::template::bare;
use crate::rig::{HUNG, Vm};
use guestmeter::wire::message::{Message, Notify, Reason, Reply};
use guestmeter::wire::{self, Decoder};
use std::collections::BTreeSet;
use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// The next connection of the guest's, waited for.
pub(crate) fn accept(host: &UnixListener) -> UnixStream {
    host.set_nonblocking(true).unwrap();
    let start = Instant::now();
    while start.elapsed() < HUNG {
        if let Ok((stream, _)) = host.accept() {
            stream.set_nonblocking(false).unwrap();
            return stream;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("waited {HUNG:?} for the guest to connect");
}

/// Where a connection of the guest to CID 2, port 1020 comes out.
pub(crate) fn listen(vm: &Vm) -> UnixListener {
    let mut path = vm.vsock_path().into_os_string();
    path.push("_1020");
    UnixListener::bind(path).unwrap()
}

pub(crate) fn notified(stream: &mut UnixStream) -> Notify {
    stream.set_read_timeout(Some(HUNG)).unwrap();
    let mut decoder = Decoder::new();
    loop {
        if let Some(frame) = decoder.next().unwrap() {
            match wire::decode(&frame).unwrap() {
                Message::Reply(Reply::Notify(notify)) => return *notify,
                other => panic!("no Notify but {other:?}"),
            }
        }
        let mut bytes = [0; 4096];
        let length = stream.read(&mut bytes).unwrap();
        assert!(length > 0, "the agent hung up before it spoke");
        decoder.push(&bytes[..length]);
    }
}

/// A dial that comes to nothing takes the kernel 2 s. A reading is answered within one: the dial's socket was there
/// before the reading and after it, and then went.
fn nobody_waits_for_a_dial(vm: &mut Vm) {
    let sockets = |vm: &mut Vm| -> BTreeSet<String> {
        let links = vm.sh("ls -l /proc/$(pidof guestmeterd)/fd | grep -o 'socket:.*'");
        links.lines().map(str::to_owned).collect()
    };
    let (mut last, mut outlasted) = (sockets(vm), BTreeSet::new());
    vm.wait("a reading within one dial", HUNG, |vm| {
        vm.read_exact();
        let now = sockets(vm);
        let over = !outlasted.is_subset(&now);
        outlasted.extend(last.intersection(&now).cloned());
        last = now;
        over
    });
}

#[test]
fn a_boot_is_told_to_a_host_that_comes_late_and_again_until_it_is_heard() {
    let mut vm = bare().restore(42);
    vm.start_agent("--notify vsock://2:1020");
    vm.wait("a dial that failed", HUNG, |vm| {
        vm.sh("cat /run/agent.log").contains("vsock://2:1020 cannot be notified")
    });
    nobody_waits_for_a_dial(&mut vm);
    let host = listen(&vm);
    let mut first = accept(&host);
    let told = notified(&mut first).report;
    assert_eq!(told.reason, Reason::Boot);
    drop(first);
    let mut second = accept(&host);
    assert_eq!(notified(&mut second).report, told, "word for word");
    let log = vm.sh("cat /run/agent.log");
    assert_eq!(log.matches("cannot be notified").count(), 1, "{log}");
    vm.read_exact();
}

/// Without a vsock device there is nobody to dial, and nothing to listen for a host with: the agent meters all the same.
#[test]
fn without_vsock_the_agent_lives_and_says_so_once() {
    let mut vm = bare().restore(42);
    vm.detach_vsock();
    vm.sh("/usr/bin/guestmeterd --listen unix:///run/agent.sock >/dev/null 2>/run/agent.log </dev/null &");
    vm.wait("a dial that failed", HUNG, |vm| {
        vm.sh("cat /run/agent.log").contains("vsock://2:1020 cannot be notified")
    });
    std::thread::sleep(Duration::from_secs(5));
    let log = vm.sh("cat /run/agent.log");
    assert_eq!(log.matches("cannot be notified").count(), 1, "{log}");
    assert_eq!(vm.sh("pidof guestmeterd | wc -w"), "1", "{log}");
}
