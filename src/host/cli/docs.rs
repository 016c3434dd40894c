//! Every command that the documentation shows is one that this program takes.

use super::args::Args;
use clap::Parser;

const PAGES: [(&str, &str); 2] =
    [("README.md", include_str!("../../../README.md")), ("guide.md", include_str!("../guide.md"))];

/// The commands of a page: lines of its examples, and those between backticks that have arguments. Whole scripts are left
/// out: `tests/it/host/hooks.rs` runs them.
fn commands(page: &str) -> Vec<String> {
    let outside: String = page.split("\n```").step_by(2).collect();
    let joined = outside.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| line.starts_with("guestmeter "));
    let quoted = joined.split('`').skip(1).step_by(2).filter(|code| code.starts_with("guestmeter "));
    let quoted = quoted.filter(|code| code.split_whitespace().count() > 2 && !code.contains('\n'));
    lines.chain(quoted).map(str::to_owned).collect()
}

/// As a shell would split it, up to where the shell's own part begins.
fn words(command: &str) -> Vec<String> {
    let ends = ["|", ">", "<", "&&", "#"];
    let words = command.split_whitespace().take_while(|word| !ends.contains(word));
    words.map(|word| word.replace("$T", "vsock://42").replace('\'', "")).collect()
}

#[test]
fn every_command_that_is_shown_is_taken() {
    for (name, page) in PAGES {
        let commands = commands(page);
        assert!(commands.len() >= 8, "{name}: {commands:?}");
        for command in commands {
            if cfg!(not(feature = "agent")) && ["demo", "simulate"].iter().any(|word| command.contains(word))
            {
                continue;
            }
            if let Err(error) = Args::try_parse_from(words(&command)) {
                panic!("{name}: {command}\n{error}");
            }
        }
    }
}

#[test]
fn a_command_that_is_none_would_be_found() {
    let page = "    guestmeter read $T --jsn | jq\n`guestmeter watch`, `guestmeter usage --org o --frm x`";
    let commands = commands(page);
    assert_eq!(commands.len(), 2);
    assert!(commands.iter().all(|command| Args::try_parse_from(words(command)).is_err()));
}
