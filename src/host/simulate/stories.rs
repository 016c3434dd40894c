//! Named short worlds: one for each thing that a host, a network or a VMM may do wrong.

use super::channel::ToGuest;
use super::faults::Faults;
use super::guest::{Build, Guest, SECOND};
use super::host::Account;
use super::operator::Plan;
use super::world::{Settings, World};
use crate::session::Saved;
use crate::units::{Bytes, Nanos};
use crate::wire::message::{
    Ack, Checkpoint, Epoch, Finding, Hello, Id, Mark, Reason, RefusalCode, Reply, Report, Request, Resume,
};

/// One sandbox without faults, whose operator does only what the story says.
struct Story {
    world: World,
}

impl Story {
    fn begin() -> Self {
        let settings = Settings {
            faults: Faults::NONE,
            length: u64::MAX / 4,
            tick: Nanos::from_secs(5),
            poll: 5 * SECOND,
            lifecycle: u64::MAX / 8,
            fault: 0,
            message: 0,
            accounts: 4,
            tickers: false,
        };
        let mut world = World::new(7, settings, true);
        world.create();
        let mut story = Self { world };
        story.wait(30);
        story
    }

    fn wait(&mut self, seconds: u64) {
        let until = self.world.now + seconds * SECOND;
        while self.world.next().is_some_and(|at| at <= until) {
            if let Err(breach) = self.world.step() {
                panic!("{}: {}\n{}", breach.invariant, breach.text, self.world.story().join("\n"));
            }
        }
        self.world.now = until;
    }

    /// A plan of the operator, and all that follows from it.
    fn plan(&mut self, plan: Plan) {
        self.world.begin(0, plan);
        self.wait(120);
    }

    fn account(&self, index: usize) -> &Account {
        &self.world.accounts[index]
    }

    fn guest(&mut self, index: usize) -> &mut Guest {
        let vm = self.account(index).vm;
        &mut self.world.vms[vm].guest
    }

    fn saved(&self, index: usize) -> &Saved {
        self.world.vms[self.account(index).vm].guest.process.as_ref().unwrap().session().saved()
    }

    fn epoch(&self, index: usize) -> Epoch {
        self.saved(index).epoch
    }

    /// One request on a connection of its own, and what is answered to it.
    fn ask(&mut self, index: usize, request: Request) -> Reply {
        let vm = self.account(index).vm;
        let connection = self.world.connect(vm, None);
        self.world.overheard.clear();
        let hello = Request::Hello(Hello { version_min: 1, version_max: 1, nonce: 1 });
        for body in [ToGuest::Open, ToGuest::Request(hello), ToGuest::Request(request)] {
            self.world.send_guest(connection, body);
        }
        self.wait(1);
        self.world.send_guest(connection, ToGuest::Close { reset: false });
        match self.world.overheard.as_slice() {
            [Reply::Welcome(_), reply, ..] => reply.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn refusal(&mut self, index: usize, request: Request) -> RefusalCode {
        let before = self.epoch(index);
        match self.ask(index, request) {
            Reply::Error(refusal) => {
                assert_eq!(self.epoch(index), before, "a refusal changes nothing");
                refusal.code
            }
            other => panic!("{other:?}"),
        }
    }

    fn report(&mut self, index: usize, request: Request) -> Report {
        match self.ask(index, request) {
            Reply::Report(report) => *report,
            other => panic!("{other:?}"),
        }
    }

    fn resume(&self, epoch: Epoch) -> Resume {
        Resume {
            epoch: epoch.id,
            number: epoch.number,
            paused: true,
            sandbox: self.account(0).name.clone(),
            at: Nanos::ZERO,
            mark: None,
            requested: None,
            boot: None,
        }
    }

    fn minted(number: u64) -> Epoch {
        Epoch { id: Id(u128::from(number).to_be_bytes()), number, ..Epoch::default() }
    }

    /// Every book is right in the end.
    fn end(mut self) {
        self.world.settings.length = self.world.now;
        if let Err(breach) = self.world.finish() {
            panic!("{}: {}\n{}", breach.invariant, breach.text, self.world.story().join("\n"));
        }
    }
}

#[test]
fn a_resume_that_is_repeated_is_answered_again_and_no_second_mark_is_taken() {
    let mut story = Story::begin();
    story.plan(Plan::Pause);
    let (epoch, base) = (story.epoch(0), story.saved(0).base);
    let mut mark = crate::wire::message::Counters::default();
    mark.active.whole = 1_000_000;
    let boot_id = story.guest(0).boot_id;
    let again = Resume { mark: Some(Mark { boot_id, counters: mark }), ..story.resume(epoch) };
    let report = story.report(0, Request::Resume(again));
    assert_eq!((report.reason, report.identity.epoch), (Reason::Query, epoch));
    assert_eq!((report.base, report.usage.rebased), (base, Default::default()));
    story.end();
}

#[test]
fn a_resume_that_comes_after_the_next_one_is_stale() {
    let mut story = Story::begin();
    story.plan(Plan::Pause);
    let late = Request::Resume(story.resume(story.epoch(0)));
    story.plan(Plan::Pause);
    assert_eq!(story.refusal(0, late), RefusalCode::StaleEpoch);
    story.end();
}

#[test]
fn a_resume_with_a_lower_number_is_stale_whatever_its_id() {
    let mut story = Story::begin();
    story.plan(Plan::Pause);
    let lower = Epoch { number: story.epoch(0).number - 1, ..Story::minted(99) };
    let lower = Request::Resume(story.resume(lower));
    assert_eq!(story.refusal(0, lower), RefusalCode::StaleEpoch);
    story.end();
}

#[test]
fn a_resume_for_another_sandbox_is_how_a_clone_gets_its_name() {
    let mut story = Story::begin();
    story.plan(Plan::Snapshot);
    let counted = story.saved(0).meter.usage().active.total();
    story.world.clone_out(0);
    story.wait(10);
    assert_eq!(story.saved(1).sandbox.as_deref(), Some("sandbox-1"));
    let report = story.report(1, Request::Read);
    assert!(report.tail.findings.contains(&Finding::Clone), "{:?}", report.tail);
    let [posted, ..] = story.account(1).books.posted;
    assert!(
        posted <= 10 * u128::from(SECOND),
        "the clone is not billed for its parent's {counted} ns: {posted}"
    );
    story.end();
}

#[test]
fn a_mark_of_another_boot_is_ignored_and_reported() {
    let mut story = Story::begin();
    let usage = *story.saved(0).meter.usage();
    let mut counters = crate::wire::message::Counters::default();
    counters.active.whole = 1_000_000;
    let foreign = Mark { boot_id: Id([9; 16]), counters };
    let resume = Resume { mark: Some(foreign), ..story.resume(Story::minted(50)) };
    let report = story.report(0, Request::Resume(resume));
    assert_eq!(report.tail.findings, [Finding::MarkIgnored]);
    assert_eq!(report.usage.rebased, usage.rebased);
    // To the host that is a stranger's epoch: it gives the life a name of its own again.
    story.world.numbers = 50;
    story.wait(30);
    assert!(story.epoch(0).number > 50);
    story.end();
}

#[test]
fn an_older_snapshot_under_the_same_name_is_raised_to_the_mark() {
    let mut story = Story::begin();
    story.plan(Plan::Snapshot);
    story.wait(100);
    let before = story.report(0, Request::Read).usage.active.total();
    story.world.begin(0, Plan::Rollback);
    story.wait(120);
    let report = story.report(0, Request::Read);
    assert!(report.tail.findings.contains(&Finding::Rollback), "{:?}", report.tail);
    assert!(report.base.active.total() >= before, "monotone over named epochs");
    assert!(report.usage.rebased.active > Nanos::ZERO, "and not as usage");
    story.end();
}

#[test]
fn an_ack_of_what_does_not_exist_is_refused_and_the_connection_stays() {
    let mut story = Story::begin();
    let epoch = story.epoch(0).id;
    for (epoch, seq) in [(Id::default(), 1), (epoch, 1_000_000), (Id([8; 16]), 1)] {
        assert_eq!(story.refusal(0, Request::Ack(Ack { epoch, seq })), RefusalCode::UnknownEpoch);
    }
    story.end();
}

#[test]
fn a_checkpoint_of_an_old_epoch_is_stale_and_holds_nothing() {
    let mut story = Story::begin();
    let old = story.epoch(0);
    story.plan(Plan::Pause);
    let late = Request::Checkpoint(Checkpoint { epoch: old.id, number: old.number });
    assert_eq!(story.refusal(0, late), RefusalCode::StaleEpoch);
    assert!(!story.saved(0).meter.held());
    story.end();
}

#[test]
fn a_snapshot_that_was_given_up_costs_nothing() {
    let mut story = Story::begin();
    let before = story.epoch(0);
    let suspended = story.saved(0).meter.usage().suspended;
    story.plan(Plan::Abort);
    assert!(story.epoch(0).number > before.number, "the source goes on as a life of its own");
    assert!(!story.saved(0).meter.held());
    assert_eq!(story.saved(0).meter.usage().suspended, suspended);
    story.end();
}

#[test]
fn two_hosts_at_once_post_to_one_ledger_and_nothing_twice() {
    let mut story = Story::begin();
    for _ in 0..10 {
        story.world.second_worker(0);
        story.wait(3);
    }
    story.plan(Plan::Pause);
    story.world.second_worker(0);
    story.end();
}

#[test]
fn a_lost_state_begins_a_life_that_nobody_has_named() {
    let mut story = Story::begin();
    let before = story.epoch(0);
    let vm = story.account(0).vm;
    story.world.kill(vm);
    story.guest(0).file = None;
    story.wait(240);
    assert!(story.epoch(0).number > before.number, "it got another name");
    let usage = *story.saved(0).meter.usage();
    assert!(usage.dropped.active > Nanos::ZERO, "what nobody knows any more is said: {usage:?}");
    story.end();
}

#[test]
fn a_peer_that_says_no_whole_frame_costs_its_connection_alone() {
    let mut story = Story::begin();
    let vm = story.account(0).vm;
    for _ in 0..2 {
        // Half a Hello is none: it is two seconds late, then gone.
        let silent = story.world.connect(vm, None);
        story.world.send_guest(silent, ToGuest::Open);
    }
    story.wait(1);
    assert!(story.saved(0).seq > 0);
    story.wait(4);
    let open = story.world.vms[vm].guest.process.as_ref().unwrap().connections.len();
    assert!(open <= 1, "only the worker's is left: {open}");
    let report = story.report(0, Request::Read);
    assert_eq!(report.memory.boot, Some(story.guest(0).memory.boot));
    story.end();
}

#[test]
fn what_no_agent_answers_for_is_posted_by_the_hosts_word_and_once() {
    let mut story = Story::begin();
    let vm = story.account(0).vm;
    story.world.replace_agent(vm, Build::Old);
    story.wait(300);
    story.world.begin(0, Plan::End);
    story.wait(60);
    let books = &story.account(0).books;
    let [witnessed, ..] = books.posted;
    let word: u64 = books.unwitnessed().iter().map(|(before, behind)| before + behind).sum();
    assert!(word > 290 * SECOND, "an agent that knows no epochs is no witness: {word} ns");
    let (run, all) = (u128::from(books.truth.run), witnessed + u128::from(word));
    assert!(all <= run && run - all < u128::from(SECOND), "{run} ns were run, {all} ns are posted");
    story.end();
}

#[test]
fn memory_that_is_still_being_plugged_is_billed_as_it_comes() {
    let mut story = Story::begin();
    let most = story.guest(0).memory.most;
    story.guest(0).memory.requested = Bytes::ZERO;
    story.guest(0).memory.reach = most;
    let vm = story.account(0).vm;
    story.world.sync(vm);
    let run = story.guest(0).run;
    story.guest(0).tasks.plug = Some(run);
    story.world.schedule(vm);
    story.plan(Plan::Hibernate);
    let report = story.report(0, Request::Read);
    assert_eq!(report.memory.plugged, Some(Bytes::ZERO));
    story.end();
}
