//! What a host without a ledger keeps: any document is a record that mints above itself and reads back, or an error that can be
//! shown; and so is any report's JSON as a mark.

use guestmeter::host::mark;
use guestmeter::host::state_file::Record;
use guestmeter::units::Nanos;
use guestmeter::wire::message::Id;

/// The first byte says which it is.
pub fn check(input: &[u8]) {
    let Some((&which, text)) = input.split_first() else { return };
    if which % 2 == 0 {
        match Record::parse(text) {
            Ok(record) => goes_on(record),
            Err(error) => shown(&error.to_string()),
        }
    } else if let Ok(text) = std::str::from_utf8(text)
        && let Err(error) = mark::mark(text, "sb")
    {
        shown(&error.to_string());
    }
}

fn goes_on(mut record: Record) {
    let before = record.last();
    for event in [None, Some("e"), Some("another")] {
        let _ = record.epoch_of(event);
    }
    if let Ok(minted) = record.mint(Id([7; 16]), Nanos(5), Some("e"), 3) {
        assert!(minted.number > 3 && before.is_none_or(|before| minted.number > before.number));
        assert_eq!(record.epoch_of(Some("e")).expect("the last one's"), Some(minted));
    }
    let text = record.to_json().expect("a record is JSON");
    assert_eq!(Record::parse(&text).expect("what was written"), record);
}

fn shown(error: &str) {
    assert!(!error.is_empty() && !error.contains(char::is_control), "{error:?}");
}
