//! The fuzz targets' checks, on their seeds and on every input that ever crashed one.

#[path = "../fuzz/checks/explain_books.rs"]
#[cfg(feature = "host")]
mod explain_books;
#[path = "../fuzz/checks/host_state.rs"]
#[cfg(feature = "host")]
mod host_state;
#[path = "../fuzz/checks/kernel_files.rs"]
#[cfg(feature = "agent")]
mod kernel_files;
#[path = "../fuzz/checks/ledger_import.rs"]
#[cfg(feature = "host")]
mod ledger_import;
#[path = "../fuzz/checks/replay_trace.rs"]
#[cfg(feature = "host")]
mod replay_trace;
#[path = "../fuzz/checks/state_file.rs"]
#[cfg(feature = "agent")]
mod state_file;
#[path = "../fuzz/checks/vmm_http.rs"]
#[cfg(feature = "host")]
mod vmm_http;
#[path = "../fuzz/checks/vmm_qmp.rs"]
#[cfg(feature = "host")]
mod vmm_qmp;
#[path = "../fuzz/checks/wire_frames.rs"]
mod wire_frames;
#[path = "../fuzz/checks/wire_messages.rs"]
mod wire_messages;
#[path = "../fuzz/checks/worker_files.rs"]
#[cfg(feature = "host")]
mod worker_files;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// The inputs in `tests/fuzz/seeds/TARGET` and `tests/fuzz/regressions/TARGET`; either may be missing.
fn inputs(target: &str) -> Vec<PathBuf> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    let folders = ["seeds", "regressions"].map(|kind| fuzz.join(kind).join(target));
    let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn replay(target: &str, more: Vec<Vec<u8>>, check: fn(&[u8])) {
    let files =
        inputs(target).into_iter().map(|path| (path.display().to_string(), std::fs::read(&path).unwrap()));
    let more = more.into_iter().enumerate().map(|(at, bytes)| (format!("{target}, input {at}"), bytes));
    let mut count = 0;
    for (name, bytes) in files.chain(more) {
        let result = catch_unwind(AssertUnwindSafe(|| check(&bytes)));
        assert!(result.is_ok(), "{name} fails its check, as printed above");
        count += 1;
    }
    assert!(count > 0, "no input for {target}");
}

/// Golden bytes, which `tests/fuzz/run` takes for seeds, whole and cut short.
fn goldens() -> Vec<Vec<u8>> {
    let whole = crate::golden::every_file();
    let cut = whole.iter().map(|bytes| bytes[..bytes.len() * 2 / 3].to_vec()).collect::<Vec<_>>();
    whole.into_iter().chain(cut).collect()
}

#[test]
fn wire_frames() {
    replay("wire_frames", goldens(), wire_frames::check);
}

#[test]
fn wire_messages() {
    replay("wire_messages", goldens(), wire_messages::check);
}

#[test]
#[cfg(feature = "host")]
fn host_state() {
    replay("host_state", vec![], host_state::check);
}

#[test]
#[cfg(feature = "host")]
fn replay_trace() {
    replay("replay_trace", vec![], replay_trace::check);
}

#[test]
#[cfg(feature = "agent")]
fn state_file() {
    replay("state_file", vec![], state_file::check);
}

/// A seed of an earlier format teaches the fuzzer nothing.
#[test]
#[cfg(feature = "agent")]
fn every_state_seed_is_a_state_of_the_present_format() {
    for path in
        inputs("state_file").iter().filter(|path| path.parent().unwrap().ends_with("seeds/state_file"))
    {
        assert!(state_file::found(&std::fs::read(path).unwrap()).is_some(), "{}", path.display());
    }
}

#[test]
#[cfg(feature = "agent")]
fn kernel_files() {
    let unchanged = vec![];
    let no_iomem = b"==> proc/iomem <==\n".to_vec();
    let torn = b"==> proc/zoneinfo <==\nNode 0, zone DMA32\n  present  40".to_vec();
    let window = b"==> sys/devices/pci0/config <==\n\x01\x02".to_vec();
    replay("kernel_files", vec![unchanged, no_iomem, torn, window], kernel_files::check);
}

#[test]
#[cfg(feature = "host")]
fn vmm_qmp() {
    replay("vmm_qmp", vec![], vmm_qmp::check);
}

#[test]
#[cfg(feature = "host")]
fn vmm_http() {
    replay("vmm_http", vec![], vmm_http::check);
}

/// Whole books, which `tests/fuzz/run` takes for seeds.
#[cfg(feature = "host")]
fn incidents() -> Vec<Vec<u8>> {
    let incidents = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/incidents");
    let books = std::fs::read_dir(incidents).unwrap().map(|entry| entry.unwrap().path().join("books.jsonl"));
    books.filter(|path| path.exists()).map(|path| std::fs::read(path).unwrap()).collect()
}

#[test]
#[cfg(feature = "host")]
fn explain_books() {
    replay("explain_books", incidents(), explain_books::check);
}

#[test]
#[cfg(feature = "host")]
fn ledger_import() {
    replay("ledger_import", vec![], ledger_import::check);
}

#[test]
#[cfg(feature = "host")]
fn worker_files() {
    let tiers = [b"2".as_slice(), guestmeter::host::tiers::EXAMPLE.as_bytes()].concat();
    replay("worker_files", vec![tiers], worker_files::check);
}

#[test]
fn every_target_is_replayed_here() {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/targets");
    let this = include_str!("fuzz_regressions.rs");
    for target in std::fs::read_dir(targets).unwrap() {
        let target = target.unwrap().path();
        let name = target.file_stem().unwrap().to_str().unwrap();
        assert!(this.contains(&format!("replay(\"{name}\"")), "{name} has no test");
    }
}
