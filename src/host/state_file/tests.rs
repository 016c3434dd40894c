//! What is kept, by any order of calls; and files that are none.

use super::*;
use crate::meter::Counters;
use crate::units::Nanos;
use crate::wire::message::{Epoch, EpochSource, Id, Identity};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

const BOOT: Id = Id([9; 16]);

fn id(number: u64) -> Id {
    Id(u128::from(number).to_be_bytes())
}

/// What a report of this epoch says: who, and how much.
fn report(boot_id: Id, epoch: Minted, seconds: u64) -> (Identity, Counters) {
    let epoch = Epoch { id: epoch.id, source: EpochSource::Host, number: epoch.number };
    let identity = Identity { boot_id, sandbox: Some("sb".to_owned()), epoch, instance: 1, seq: 1 };
    let mut counters = Counters::default();
    counters.active.whole = seconds;
    counters.memory.whole = seconds * 512;
    (identity, counters)
}

fn answered(record: &mut Record, (identity, counters): (Identity, Counters)) {
    record.answered(&identity, counters);
}

fn minted(record: &mut Record, random: u64, now: u64, event: Option<&str>) -> Minted {
    record.mint(id(random), Nanos(now), event, 0).unwrap()
}

#[test]
fn an_event_has_its_epoch_and_a_call_without_one_takes_up_what_was_not_answered() {
    let mut record = Record::new("sb");
    assert_eq!(record.epoch_of(None).unwrap(), None);
    let first = minted(&mut record, 1, 100, Some("e1"));
    assert_eq!(first.number, 100, "the time");
    for event in [None, Some("e1")] {
        assert_eq!(record.epoch_of(event).unwrap(), Some(first), "{event:?}: it was not answered");
    }
    assert_eq!(record.epoch_of(Some("e2")).unwrap(), None, "another call is another life");
    answered(&mut record, report(BOOT, first, 1));
    assert_eq!(record.epoch_of(Some("e1")).unwrap(), Some(first), "the same call");
    assert_eq!(record.epoch_of(None).unwrap(), None, "what was answered is never used again");

    let second = minted(&mut record, 2, 50, Some("e2"));
    assert_eq!(second.number, 101, "a clock that went back");
    let above = record.mint(id(3), Nanos(50), Some("e2"), 7_000).unwrap();
    assert_eq!((above.number, record.epoch_of(Some("e2")).unwrap()), (7_001, Some(above)), "the same call");
    let over = record.epoch_of(Some("e1")).unwrap_err().to_string();
    assert_eq!(over, "event e1 is over: event e2 came after it");
    let most = record.mint(id(4), Nanos(50), Some("e2"), u64::MAX).unwrap_err().to_string();
    assert_eq!(most, format!("no epoch number is above {}", u64::MAX));
}

#[test]
fn a_mark_is_of_one_boot_and_never_goes_down_and_what_is_not_this_sandboxes_is_none() {
    let mut record = Record::new("sb");
    let epoch = minted(&mut record, 1, 100, None);
    answered(&mut record, report(BOOT, epoch, 10));
    answered(&mut record, report(BOOT, epoch, 7));
    let active = |record: &Record, boot| record.mark(boot).map(|mark| mark.counters.active.whole);
    assert_eq!((active(&record, BOOT), active(&record, id(8))), (Some(10), None));
    let mut clone = report(BOOT, epoch, 99);
    clone.0.sandbox = Some("other".to_owned());
    let mut unnamed = report(BOOT, epoch, 99);
    unnamed.0.epoch = Epoch::default();
    for foreign in [clone, unnamed] {
        answered(&mut record, foreign);
        assert_eq!(active(&record, BOOT), Some(10));
    }
    for boot in 20..40 {
        answered(&mut record, report(id(boot), epoch, boot));
    }
    assert_eq!(
        (active(&record, BOOT), active(&record, id(31)), active(&record, id(32))),
        (None, None, Some(32))
    );
    let text = record.to_json().unwrap();
    assert_eq!(Record::parse(&text).unwrap(), record);
}

#[test]
fn the_file_that_the_documentation_shows_is_one() {
    let page = include_str!("mod.rs").replace("//! ", "");
    let shown = page.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    let record = Record::parse(shown.as_bytes()).unwrap();
    assert_eq!((record.sandbox(), record.last().unwrap().number), ("sb-7", 1_780_936_920_000_000_000));
    assert_eq!(record.epoch_of(Some("e41")).unwrap(), record.last());
}

#[test]
fn counters_that_no_agent_counts_leave_a_record_that_can_be_read() {
    let mut record = Record::new("sb");
    let epoch = minted(&mut record, 1, 100, None);
    answered(&mut record, report(BOOT, epoch, 10));
    let (identity, mut counters) = report(BOOT, epoch, 99);
    counters.memory.carry = u64::MAX;
    record.answered(&identity, counters);
    assert_eq!(record.mark(BOOT).unwrap().counters.active.whole, 10);
    assert_eq!(Record::parse(&record.to_json().unwrap()).unwrap(), record);
}

proptest! {
    /// A host that dies at any point, guests that answer or do not, clocks that jump.
    #[test]
    fn numbers_rise_events_keep_their_epochs_and_marks_never_go_down(
        calls in proptest::collection::vec((0u8..5, 0u64..1_000, any::<bool>(), 0u64..2_000, 0u64..100), 1..60),
    ) {
        let mut record = Record::new("sb");
        let (mut last, mut heard, mut of_event, mut mark) = (0, BTreeMap::new(), BTreeMap::new(), 0);
        for (at, (event, now, answers, latest, counted)) in calls.into_iter().enumerate() {
            let event = (event > 0).then(|| format!("e{event}"));
            let event = event.as_deref();
            let epoch = match record.epoch_of(event) {
                Err(_) => continue,
                Ok(Some(epoch)) => {
                    // An answered epoch comes up again only for the call that it was minted for.
                    let own = event.is_some() && of_event.get(&epoch.id) == Some(&event.map(str::to_owned));
                    prop_assert!(own || !heard.contains_key(&epoch.id));
                    epoch
                }
                Ok(None) => {
                    let epoch = record.mint(id(at as u64 + 1), Nanos(now), event, latest).unwrap();
                    prop_assert!(epoch.number > last && epoch.number > latest && epoch.number >= now);
                    last = epoch.number;
                    of_event.insert(epoch.id, event.map(str::to_owned));
                    epoch
                }
            };
            // As after a crash.
            record = Record::parse(&record.to_json().unwrap()).unwrap();
            prop_assert_eq!(record.last(), Some(epoch));
            if answers {
                heard.insert(epoch.id, ());
                answered(&mut record, report(BOOT, epoch, counted));
                let known = record.mark(BOOT).unwrap().counters;
                prop_assert!(known.active.whole >= mark && known.active.whole >= counted);
                prop_assert_eq!(known.cpu, Counters::default().cpu);
                mark = known.active.whole;
            }
        }
    }
}

async fn opened(path: &Path, sandbox: &str) -> Result<StateFile, String> {
    StateFile::open(path, sandbox, Duration::ZERO).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_change_is_a_whole_new_file_with_the_lock_and_the_mode_of_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    std::fs::write(folder.path().join("state.new"), "of one that was killed").unwrap();
    let mut file = opened(&path, "sb").await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let epoch = file.update(|record| record.mint(id(1), Nanos(5), None, 0)).unwrap();
    assert_eq!(mode(&path), 0o640);
    let names: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["state"], "nothing is left beside it");
    let busy = opened(&path, "sb").await.unwrap_err();
    assert_eq!(busy, format!("{}: the state file is in use by another guestmeter", path.display()));

    let kept = std::fs::read(&path).unwrap();
    file.update(|record| record.mint(id(2), Nanos(5), None, u64::MAX)).unwrap_err();
    assert_eq!(
        (std::fs::read(&path).unwrap(), file.record().last()),
        (kept, Some(epoch)),
        "nothing has changed"
    );
    drop(file);
    assert_eq!(opened(&path, "sb").await.unwrap().record().last(), Some(epoch));
}

#[tokio::test]
async fn whoever_waits_for_the_lock_gets_the_file_that_was_put_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let mut first = opened(&path, "sb").await.unwrap();
    let waiting = tokio::spawn({
        let path = path.clone();
        async move { StateFile::open(&path, "sb", Duration::from_secs(60)).await.unwrap().record().last() }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let epoch = first.update(|record| record.mint(id(1), Nanos(5), None, 0)).unwrap();
    drop(first);
    assert_eq!(waiting.await.unwrap(), Some(epoch));
}

#[tokio::test]
async fn what_is_no_state_file_is_named_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mut record = Record::new("sb");
    let boot = minted(&mut record.clone(), 1, 5, None);
    answered(&mut record, report(BOOT, boot, 1));
    minted(&mut record, 1, 5, Some("e"));
    let good = String::from_utf8(record.to_json().unwrap()).unwrap();
    for (text, cause) in [
        ("{".to_owned(), "it is no state file: EOF"),
        (format!("\u{feff}{good}"), "a byte-order mark (UTF-8)"),
        (
            good.replace("state/1", "state/2"),
            "its schema is \"guestmeter.state/2\", not \"guestmeter.state/1\"",
        ),
        (good.replace("\"sb\"", "\"another\""), "it is of sandbox another, not of sb"),
        (
            good.replace("\"number\": \"5\"", "\"number\": \"0\""),
            "epoch is \"00000000000000000000000000000001:0\"",
        ),
        (good.replace("\"number\": \"5\"", "\"number\": \"-5\""), "it is no state file"),
        (good.replace("\"carry_ns\": 0", "\"carry_ns\": 1000000000"), "a mark: active.carry_ns"),
        (good.replace("09090909-", "xyz-"), "a mark: identity.boot_id"),
        (good.replace("\"epoch\"", "\"epochs\""), "unknown field `epochs`"),
        (" ".repeat(200_000), "it has more than 131072 bytes"),
    ] {
        assert_ne!(text, good);
        std::fs::write(at("state"), &text).unwrap();
        let error = opened(&at("state"), "sb").await.unwrap_err();
        assert!(error.starts_with(&at("state").display().to_string()) && error.contains(cause), "{error}");
        assert_eq!(std::fs::read_to_string(at("state")).unwrap(), text);
    }
    symlink(at("state"), at("link")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    for (path, cause) in [
        (at("link"), "is a symbolic link"),
        (at("pipe"), "not a regular file"),
        (folder.path().to_owned(), "not a regular file"),
        (at("no/such/folder"), "cannot be opened: No such file"),
    ] {
        let error = opened(&path, "sb").await.unwrap_err();
        assert!(error.contains(cause), "{error}");
    }
    for path in [at("missing"), at("empty")] {
        let existing =
            async { StateFile::open_existing(&path, Duration::ZERO).await.unwrap_err().to_string() };
        if path == at("empty") {
            std::fs::write(&path, "").unwrap();
        }
        assert!(existing.await.contains("name the guest first"), "{}", path.display());
    }
    assert!(!at("missing").exists());
}
