//! The agent beside the two that people would compare it with, idle and asked, in one guest and one run.
//!
//! QEMU counts instructions here, one for each nanosecond of the guest's clock: the time that the guest's scheduler
//! gives a process is the number of instructions that it ran, those of the kernel for it included.

use crate::rig::{HUNG, Machine, Vm};
use guestmeter::wire;
use guestmeter::wire::message::{Hello, Message, Request};
use std::fmt::Write;
use std::time::Duration;

const IDLE: Duration = Duration::from_secs(30);
const REQUESTS: u64 = 10;
const WAKEUPS_MAX: u64 = 15;
const PRIVATE_DIRTY_MAX_KIB: u64 = 160;

struct Peer {
    name: &'static str,
    file: &'static str,
    start: &'static str,
    /// What is asked of it, in shell words: a connection of its own each time.
    ask: String,
    /// What the answer has to hold.
    answer: &'static str,
}

#[derive(Debug)]
struct Measured {
    name: &'static str,
    file_bytes: u64,
    rss_kib: u64,
    pss_kib: u64,
    private_dirty_kib: u64,
    threads: u64,
    idle_wakeups: u64,
    idle_instructions: u64,
    request_instructions: u64,
}

fn request() -> String {
    let mut bytes = Vec::new();
    for request in [Request::Hello(Hello { version_min: 1, version_max: 1, nonce: 7 }), Request::Read] {
        wire::encode(&Message::Request(request), &mut bytes).unwrap();
    }
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "\\{byte:03o}");
        text
    })
}

fn peers() -> [Peer; 3] {
    [
        Peer {
            name: "guestmeterd",
            file: "/usr/bin/guestmeterd",
            start: "guestmeterd --listen unix:///run/peer.gm --notify none --state /run/peer.state",
            // Who closes first is not answered.
            ask: format!("(printf '{}'; sleep 0.3) | socat -t1 - UNIX-CONNECT:/run/peer.gm", request()),
            answer: "GMTR",
        },
        Peer {
            name: "qemu-guest-agent",
            file: "/usr/sbin/qemu-ga",
            start: "qemu-ga --method unix-listen --path /run/peer.qga --statedir /run",
            ask: r#"echo '{"execute":"guest-get-memory-blocks"}' | socat -t1 - UNIX-CONNECT:/run/peer.qga"#
                .to_owned(),
            answer: "phys-index",
        },
        Peer {
            name: "prometheus-node-exporter",
            file: "/usr/bin/prometheus-node-exporter",
            start: "prometheus-node-exporter --web.listen-address 127.0.0.1:9100",
            ask: r"printf 'GET /metrics HTTP/1.0\r\n\r\n' | socat -t5 - TCP:127.0.0.1:9100".to_owned(),
            answer: "node_memory_MemTotal_bytes",
        },
    ]
}

fn number(vm: &mut Vm, command: &str) -> u64 {
    let text = vm.sh(command);
    text.trim().parse().unwrap_or_else(|error| vm.fail(&format!("`{command}` printed {text:?}: {error}")))
}

/// Sum over its threads of a field of a file.
fn wakeups(vm: &mut Vm, pid: u64) -> u64 {
    let sum = "awk '/ctxt_switches/ { sum += $2 } END { print sum }'";
    number(vm, &format!("cat /proc/{pid}/task/*/status | {sum}"))
}

fn instructions(vm: &mut Vm, pid: u64) -> u64 {
    number(
        vm,
        &format!("cat /proc/{pid}/task/*/schedstat | awk '{{ sum += $1 }} END {{ printf \"%.0f\", sum }}'"),
    )
}

fn ask(vm: &mut Vm, peer: &Peer) {
    let answer = vm.run_for(&peer.ask, HUNG);
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    assert!(text.contains(peer.answer), "{} says {text:?} ({})", peer.name, answer.stderr);
}

fn start(vm: &mut Vm, peer: &Peer) -> u64 {
    let pid = number(vm, &format!("{} </dev/null >/run/{}.log 2>&1 & echo $!", peer.start, peer.name));
    vm.wait(&format!("{} to answer", peer.name), HUNG, |vm| {
        let answer = vm.run_for(&peer.ask, HUNG);
        String::from_utf8_lossy(&answer.stdout).contains(peer.answer)
    });
    pid
}

fn measure(vm: &mut Vm, peers: &[Peer], pids: &[u64]) -> Vec<Measured> {
    let counts = |vm: &mut Vm| -> Vec<(u64, u64)> {
        pids.iter().map(|pid| (wakeups(vm, *pid), instructions(vm, *pid))).collect()
    };
    let before = counts(vm);
    let seconds = number(vm, &format!("sleep {} && echo 1", IDLE.as_secs())) * IDLE.as_secs();
    let idle = counts(vm);
    let mut measured = Vec::new();
    for (((peer, &pid), before), idle) in peers.iter().zip(pids).zip(before).zip(idle) {
        let asked = instructions(vm, pid);
        for _ in 0..REQUESTS {
            ask(vm, peer);
        }
        let request_instructions = (instructions(vm, pid) - asked) / REQUESTS;
        let rollup = |vm: &mut Vm, field: &str| {
            number(vm, &format!("awk '/^{field}:/ {{ print $2 }}' /proc/{pid}/smaps_rollup"))
        };
        measured.push(Measured {
            name: peer.name,
            file_bytes: number(vm, &format!("stat -Lc %s {}", peer.file)),
            rss_kib: rollup(vm, "Rss"),
            pss_kib: rollup(vm, "Pss"),
            private_dirty_kib: rollup(vm, "Private_Dirty"),
            threads: number(vm, &format!("ls /proc/{pid}/task | wc -l")),
            idle_wakeups: (idle.0 - before.0) * 60 / seconds,
            idle_instructions: (idle.1 - before.1) * 60 / seconds,
            request_instructions,
        });
    }
    measured
}

fn print(measured: &[Measured]) {
    println!(
        "{:<26}{:>12}{:>8}{:>8}{:>8}{:>9}{:>12}{:>16}{:>16}",
        "",
        "file B",
        "RSS KiB",
        "PSS",
        "dirty",
        "threads",
        "wake-ups/min",
        "instr./idle min",
        "instr./request"
    );
    for it in measured {
        println!(
            "{:<26}{:>12}{:>8}{:>8}{:>8}{:>9}{:>12}{:>16}{:>16}",
            it.name,
            it.file_bytes,
            it.rss_kib,
            it.pss_kib,
            it.private_dirty_kib,
            it.threads,
            it.idle_wakeups,
            it.idle_instructions,
            it.request_instructions
        );
    }
}

#[test]
fn it_weighs_less_than_its_peers() {
    let mut vm = Machine::new("6.12").systemd().online_movable().memory(1024).counting_instructions().boot();
    vm.sh("systemctl stop guestmeterd.socket guestmeterd.service");
    let peers = peers();
    let pids = peers.each_ref().map(|peer| start(&mut vm, peer));
    let measured = measure(&mut vm, &peers, &pids);
    print(&measured);
    let [ours, qga, _] = measured.as_slice() else { unreachable!("three peers") };
    println!("ratio {}/100 of its PSS (wanted: at most 50)", ours.pss_kib * 100 / qga.pss_kib);
    // How many pages the kernel maps around one that is touched is its affair.
    assert!(ours.pss_kib * 100 <= qga.pss_kib * 55, "PSS is far more than half of {}'s", qga.name);
    assert!(ours.private_dirty_kib <= PRIVATE_DIRTY_MAX_KIB, "{ours:?}");
    assert!(ours.idle_wakeups < WAKEUPS_MAX, "{ours:?}");
    assert!(ours.request_instructions < qga.request_instructions, "a report costs more than {}", qga.name);
}
