//! What a resume costs over vsock, as ratios to a bare echo in the same guest and run. Printed, not asserted: only
//! counts are.

use crate::rig::template::with_one_cpu;
use crate::rig::{Platform, Vm};
use guestmeter::capacity::Source;
use guestmeter::units::Bytes;
use guestmeter::wire::message::{Ack, Hello, Message, Reply, Report, Request, Resume, SegmentsAfter};
use guestmeter::wire::{self, Decoder};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const ROUNDS: usize = 50;
const WARM_UP: usize = 5;
/// A dial takes 2 s to fail.
const AT_REST: Duration = Duration::from_secs(4);
const AGENT_PORT: u32 = 1020;
const ECHO_PORT: u32 = 7000;
const ECHO_BYTES: usize = 64;
const HEADER_BYTES: usize = 16;

/// A connection through the vsock device, read to the byte and no further.
struct Line(UnixStream);

impl Line {
    fn open(vm: &Vm, port: u32) -> Self {
        Self(vm.dial(port))
    }

    /// The end of a connection is no part of the next one's beginning: it is waited for.
    fn close(mut self) {
        self.0.shutdown(Shutdown::Write).expect("closed at this end");
        assert_eq!(self.0.read(&mut [0]).expect("an end"), 0, "closed at the other");
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("written");
    }

    fn echo(&mut self) {
        let mut bytes = [7; ECHO_BYTES];
        self.write(&bytes);
        self.0.read_exact(&mut bytes).expect("echoed");
    }

    /// One frame, undecoded: decoding is not the guest's time.
    fn frame(&mut self) -> Vec<u8> {
        let mut frame = vec![0; HEADER_BYTES];
        self.0.read_exact(&mut frame).expect("a header");
        let length = u32::from_le_bytes(frame[8..12].try_into().expect("four bytes"));
        frame.resize(HEADER_BYTES + usize::try_from(length).expect("a frame's length"), 0);
        self.0.read_exact(&mut frame[HEADER_BYTES..]).expect("a payload");
        frame
    }
}

fn encoded(requests: &[Request]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for request in requests {
        wire::encode(&Message::Request(request.clone()), &mut bytes).expect("fits a frame");
    }
    bytes
}

fn decoded(frame: &[u8]) -> Reply {
    let mut decoder = Decoder::new();
    decoder.push(frame);
    match wire::decode(&decoder.next().expect("a frame").expect("a whole one")) {
        Ok(Message::Reply(reply)) => reply,
        other => panic!("no reply but {other:?}"),
    }
}

fn report(frame: &[u8]) -> Report {
    match decoded(frame) {
        Reply::Report(report) => *report,
        other => panic!("no report but {other:?}"),
    }
}

fn hello() -> Request {
    Request::Hello(Hello { version_min: 1, version_max: 1, nonce: 7 })
}

/// One way to spend time, many times over.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        self.0.push(start.elapsed());
        done
    }

    /// From the quickest on, those of the warm-up left out.
    fn sorted(&self) -> Vec<Duration> {
        let mut times = self.0[WARM_UP..].to_vec();
        times.sort_unstable();
        times
    }
}

fn print_ratio(what: &str, times: &Times, base: &Times, at_most: f64) {
    let (times, base) = (times.sorted(), base.sorted());
    let ratio = |at: usize| times[at].as_secs_f64() / base[at].as_secs_f64();
    let (median, quickest, middle) = (ratio(ROUNDS / 2), ratio(0), ROUNDS / 2);
    eprintln!(
        "ratio {median:.2} (wanted: at most {at_most}) {what}: {:?} to {:?}, medians of {ROUNDS}; of the quickest {quickest:.2}",
        times[middle], base[middle]
    );
}

fn names(frame: &[u8], life: &Resume) -> Report {
    let report = report(frame);
    assert_eq!(report.identity.epoch.id, life.epoch);
    report
}

#[test]
fn a_resume_over_vsock_beside_a_bare_echo() {
    let mut vm = with_one_cpu().restore(42);
    vm.sh(&format!("vsock-echo {ECHO_PORT} >/dev/null 2>&1 </dev/null &"));
    let mut platform = Platform::new();
    let (_, born) = platform.adopt(&mut vm, "sandbox");
    // The agent's dial of a host that does not listen is over, and memory at rest.
    std::thread::sleep(AT_REST);
    on_an_open_connection(&mut platform, &vm, born.memory.boot);
    from_connect_to_acked(&mut platform, &vm);
    let end = platform.read(&mut vm);
    assert_eq!(end.memory.total(), born.memory.total(), "the capacity was the same all the while");
    let named = u64::try_from(3 * (ROUNDS + WARM_UP)).expect("a count");
    assert_eq!(end.identity.epoch.number, born.identity.epoch.number + named, "each was named once");
}

fn on_an_open_connection(platform: &mut Platform, vm: &Vm, boot: Option<Bytes>) {
    let (mut agent, mut echo) = (Line::open(vm, AGENT_PORT), Line::open(vm, ECHO_PORT));
    agent.write(&encoded(&[hello()]));
    assert!(matches!(decoded(&agent.frame()), Reply::Welcome(_)));
    let (mut echoes, mut resumes, mut rereads) = (Times::default(), Times::default(), Times::default());
    for round in 0..ROUNDS + WARM_UP {
        echoes.time(|| echo.echo());
        let life = platform.mint("sandbox");
        let bytes = encoded(&[Request::Resume(life.clone())]);
        let frame = resumes.time(|| {
            agent.write(&bytes);
            agent.frame()
        });
        heard(&mut agent, &names(&frame, &life));

        // By another word on boot memory than before all of memory is judged: the answer rests on a full look.
        let stated = boot.filter(|_| round.is_multiple_of(2));
        let life = Resume { boot: stated, ..platform.mint("sandbox") };
        let bytes = encoded(&[Request::Resume(life.clone())]);
        let frame = rereads.time(|| {
            agent.write(&bytes);
            agent.frame()
        });
        let full = names(&frame, &life);
        let by_host = full.memory.sources.contains(&Source::Host);
        assert_eq!(by_host, stated.is_some(), "boot memory was judged anew: {:?}", full.memory);
        heard(&mut agent, &full);
    }
    print_ratio("Resume written to Report read, on an open connection", &resumes, &echoes, 1.5);
    print_ratio("the same with a full look", &rereads, &echoes, 4.0);
}

/// As a host does: what waits from lives before is fetched and acknowledged. The closer look that a resume calls for is
/// taken behind the first of these answers, and is over by the next.
fn heard(agent: &mut Line, report: &Report) {
    let identity = &report.identity;
    agent
        .write(&encoded(&[Request::Segments(SegmentsAfter { epoch: identity.epoch.id, seq: identity.seq })]));
    let Reply::Segments(waiting) = decoded(&agent.frame()) else { panic!("no segments") };
    for segment in waiting.segments {
        agent.write(&encoded(&[Request::Ack(Ack { epoch: segment.epoch.id, seq: segment.seq })]));
        assert!(matches!(decoded(&agent.frame()), Reply::Acked(_)));
    }
}

fn from_connect_to_acked(platform: &mut Platform, vm: &Vm) {
    let (mut echoes, mut acked) = (Times::default(), Times::default());
    for _ in 0..ROUNDS + WARM_UP {
        let echo = echoes.time(|| {
            let mut echo = Line::open(vm, ECHO_PORT);
            echo.echo();
            echo
        });
        echo.close();
        let life = platform.mint("sandbox");
        let opening = encoded(&[hello(), Request::Resume(life.clone())]);
        // Numbered from 1 in each epoch, so that the ack can be made before the report is decoded.
        let ack = encoded(&[Request::Ack(Ack { epoch: life.epoch, seq: 1 })]);
        let (first, answer, mut agent) = acked.time(|| {
            let mut agent = Line::open(vm, AGENT_PORT);
            agent.write(&opening);
            let _welcome = agent.frame();
            let first = agent.frame();
            agent.write(&ack);
            let answer = agent.frame();
            (first, answer, agent)
        });
        assert_eq!(names(&first, &life).identity.seq, 1);
        assert!(matches!(decoded(&answer), Reply::Acked(acked) if acked.epoch == life.epoch));
        heard(&mut agent, &report(&first));
        agent.close();
    }
    print_ratio("connect to acked, against connect and echo", &acked, &echoes, 3.0);
}
