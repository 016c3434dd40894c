//! The manual pages that packages ship: all of them, of what the help says, and nothing that `mandoc` takes for an error.

use super::guestmeter;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

fn pages(directory: &Path) -> BTreeMap<String, String> {
    let status = guestmeter(&["manual"]).arg(directory).status().unwrap();
    assert!(status.success(), "{status}");
    let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read_to_string(entry.path()).unwrap())
        })
        .collect()
}

/// The text of a help page, as words that do not depend on where its lines break.
fn help(arguments: &[&str]) -> String {
    let output = guestmeter(arguments).arg("--help").output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The commands that a help page lists.
fn commands(help: &str) -> Vec<String> {
    let listed =
        help.split("Commands:\n").nth(1).unwrap_or_default().split("\n\n").next().unwrap_or_default();
    let names = listed.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names.filter(|name| !name.is_empty() && *name != "help").map(str::to_owned).collect()
}

/// The options that a text names, as roff or not.
fn options(text: &str) -> Vec<String> {
    let text = text.replace("\\-", "-");
    let named = text.split(|sign: char| !(sign.is_ascii_lowercase() || sign == '-'));
    let mut options: Vec<String> =
        named.filter(|word| word.len() > 3 && word.starts_with("--")).map(str::to_owned).collect();
    options.sort();
    options.dedup();
    options
}

#[test]
fn every_command_has_a_page_with_all_of_its_options() {
    let folder = tempfile::tempdir().unwrap();
    let pages = pages(folder.path());
    let mut expected = vec!["guestmeter.1".to_owned()];
    let outer = commands(&help(&[]));
    assert!(outer.len() > 10, "{outer:?}");
    for command in outer {
        let text = help(&[&command]);
        expected.extend(commands(&text).iter().map(|inner| format!("guestmeter-{command}-{inner}.1")));
        let name = format!("guestmeter-{command}.1");
        for option in options(&text) {
            assert!(options(&pages[&name]).contains(&option), "{name} lacks {option}");
        }
        expected.push(name);
    }
    if cfg!(feature = "agent") {
        expected.extend(
            ["guestmeterd.8", "guestmeterd-doctor.8", "guestmeterd-open-sources.8"].map(str::to_owned),
        );
    }
    expected.sort();
    assert_eq!(pages.keys().cloned().collect::<Vec<_>>(), expected);
}

#[cfg(feature = "agent")]
#[test]
fn the_agents_page_says_what_its_help_says() {
    let folder = tempfile::tempdir().unwrap();
    let pages = pages(folder.path());
    let page = pages["guestmeterd.8"].replace("\\-", "-");
    for option in options(guestmeter::agent::cli::HELP) {
        assert!(options(&page).contains(&option), "{option}");
    }
    for said in
        ["who is told of boots and resumes", "[default: vsock://2:1020]", "guestmeterd-open-sources(8)"]
    {
        assert!(page.contains(said), "{said}\n{page}");
    }
}

#[test]
fn mandoc_finds_no_error_in_them() {
    if Command::new("mandoc").arg("/dev/null").output().is_err() {
        let why = "mandoc is missing: apt-get install mandoc";
        assert!(std::env::var_os("CI").is_none(), "{why}");
        crate::under::skip(why);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for name in pages(folder.path()).keys() {
        let mut lint = Command::new("mandoc");
        let output = lint.args(["-T", "lint", "-W", "error"]).arg(folder.path().join(name)).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.is_empty(), "{name}: {said}");
        let text =
            Command::new("mandoc").args(["-T", "utf8"]).arg(folder.path().join(name)).output().unwrap();
        let text = String::from_utf8_lossy(&text.stdout).into_owned();
        assert!(text.contains("SYNOPSIS") || text.contains("S\u{8}SY\u{8}Y"), "{name}: {text}");
    }
}
