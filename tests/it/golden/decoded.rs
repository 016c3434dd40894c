//! What the vectors decode to, as JSON that another implementation is held against: `tests/golden/v1-decoded`. A decoder in
//! Python, which knows the protocol from its book alone, has to say the same to the byte.

use super::{directory, frames};
use guestmeter::wire::decode;
use guestmeter::wire::message::{Message, Reply, Request};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

fn decoded_directory() -> PathBuf {
    directory().with_file_name("v1-decoded")
}

fn json<T: serde::Serialize>(value: &T) -> String {
    hex_ids(&serde_json::to_string(value).unwrap())
}

/// Ids are lists of sixteen numbers to serde; nothing else is.
fn hex_ids(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('[') {
        let (before, list) = rest.split_at(at);
        out.push_str(before);
        let end = list.find(']').unwrap();
        let numbers: Option<Vec<u8>> = list[1..end].split(',').map(|number| number.parse().ok()).collect();
        match numbers {
            Some(bytes) if bytes.len() == 16 => {
                let hex: String = bytes.iter().fold(String::new(), |mut hex, byte| {
                    write!(hex, "{byte:02x}").unwrap();
                    hex
                });
                write!(out, "\"{hex}\"").unwrap();
                rest = &list[end + 1..];
            }
            _ => {
                out.push('[');
                rest = &list[1..];
            }
        }
    }
    out + rest
}

fn body(message: &Message) -> (&'static str, String) {
    match message {
        Message::Request(request) => match request {
            Request::Hello(body) => ("Hello", json(body)),
            Request::Read => ("Read", "{}".to_owned()),
            Request::Resume(body) => ("Resume", json(body)),
            Request::Checkpoint(body) => ("Checkpoint", json(body)),
            Request::Ack(body) => ("Ack", json(body)),
            Request::WaitSettled(body) => ("WaitSettled", json(body)),
            Request::Watch(body) => ("Watch", json(body)),
            Request::Segments(body) => ("SegmentsAfter", json(body)),
        },
        Message::Reply(reply) => match reply {
            Reply::Welcome(body) => ("Welcome", json(body)),
            Reply::Report(body) => {
                ("Report", format!("{{\"report\":{},\"tail\":{}}}", json(body), json(&body.tail)))
            }
            Reply::Segments(body) => ("Segments", json(body)),
            Reply::Acked(body) => ("Acked", json(body)),
            Reply::Error(body) => ("Error", json(body)),
            Reply::Notify(body) => {
                let (agent, report, tail) = (json(&body.agent), json(&body.report), json(&body.report.tail));
                ("Notify", format!("{{\"agent\":{agent},\"report\":{report},\"tail\":{tail}}}"))
            }
        },
    }
}

fn decoded(name: &str) -> String {
    let (frames, garbage) = frames(name);
    let mut text = String::new();
    for frame in frames {
        let kind = frame.kind;
        match decode(&frame) {
            Ok(message) => {
                let (name, body) = body(&message);
                writeln!(text, "{{\"kind\":{kind},\"message\":\"{name}\",\"body\":{body}}}").unwrap();
            }
            Err(error) => {
                let code = error.refusal().code;
                writeln!(text, "{{\"kind\":{kind},\"refused\":\"{code:?}\"}}").unwrap();
            }
        }
    }
    writeln!(text, "{{\"garbage\":{garbage}}}").unwrap();
    text
}

/// File names without what follows the dot.
fn stems(directory: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn every_vector_has_its_json_and_decodes_to_it() {
    let names = stems(&directory());
    assert_eq!(stems(&decoded_directory()), names);
    for name in names {
        let path = decoded_directory().join(format!("{name}.json"));
        assert_eq!(decoded(&name), std::fs::read_to_string(&path).unwrap(), "{}", path.display());
    }
}

#[test]
fn a_decoder_that_knows_the_book_alone_says_the_same() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut python = Command::new("python3");
    python.arg(root.join("tests/python/wire.py")).arg(root.join("src/wire/book.md"));
    let output = python.arg("--check").arg(root.join("tests/golden")).output();
    let Ok(output) = output else {
        let why = "python3 is missing: apt-get install python3";
        assert!(std::env::var_os("CI").is_none(), "{why}");
        crate::under::skip(why);
        return;
    };
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{errors}");
    assert!(said.contains(&format!("{} vectors", stems(&directory()).len())), "{said}");
}
