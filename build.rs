//! Version, git revision and protocol version for `--version`, and what the linker does to make the static agent small;
//! reproducible, no network.

/// An agent that aborts on panic unwinds nothing: the tables for it, a tenth of the file, are left out.
const NO_UNWIND_TABLES: &str = "SECTIONS { /DISCARD/ : { *(.eh_frame) *(.gcc_except_table) *(.gcc_except_table.*) } } INSERT AFTER .text;\n";

/// The protocol's limit of `agent.git`: a longer one could not be sent, and no host be greeted.
const REVISION_BYTES_MAX: usize = 64;

fn main() {
    // A path that is not there would make every build run this again.
    for path in [".git/HEAD", ".git/refs/heads"] {
        if std::path::Path::new(path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    println!("cargo:rerun-if-env-changed=GUESTMETER_GIT");
    println!("cargo:rustc-env=GUESTMETER_GIT={}", revision());
    if is_static_agent() {
        // A static PIE relocates itself; packed, its relocations take 0.6 KiB instead of 50. glibc does that from 2.36 on,
        // and an older one would crash at the start: where its version is not known, nothing is packed.
        if glibc().is_some_and(|version| version >= (2, 36)) {
            println!("cargo:rustc-link-arg-bin=guestmeterd=-Wl,-z,pack-relative-relocs");
        }
        // It alone aborts on panic, and is built for size: cargo does not tell a script of the former.
        if ["s", "z"].contains(&variable("OPT_LEVEL").as_str()) {
            leave_out_unwind_tables();
        }
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn leave_out_unwind_tables() {
    let script = std::path::Path::new(&variable("OUT_DIR")).join("no-unwind-tables.ld");
    if let Err(error) = std::fs::write(&script, NO_UNWIND_TABLES) {
        println!("cargo::error={}: {error}", script.display());
        return;
    }
    for flag in ["--no-eh-frame-hdr".to_owned(), format!("-T,{}", script.display())] {
        println!("cargo:rustc-link-arg-bin=guestmeterd=-Wl,{flag}");
    }
}

/// One for machines like the one that builds it.
fn is_static_agent() -> bool {
    let is_static = variable("CARGO_CFG_TARGET_FEATURE").split(',').any(|feature| feature == "crt-static");
    let is_native = variable("HOST") == variable("TARGET") && variable("CARGO_CFG_TARGET_ENV") == "gnu";
    let is_wanted = std::env::var_os("CARGO_FEATURE_AGENT").is_some();
    is_static && is_native && is_wanted
}

/// The build machine's glibc, which is the one that is linked.
fn glibc() -> Option<(u32, u32)> {
    let output = std::process::Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// A release tarball has no `.git`: packagers state the revision, else it is unknown.
fn revision() -> String {
    if let Ok(stated) = std::env::var("GUESTMETER_GIT") {
        if stated.len() > REVISION_BYTES_MAX || stated.chars().any(char::is_control) {
            println!(
                "cargo::error=GUESTMETER_GIT is {} bytes long, or no single line: at most {REVISION_BYTES_MAX} are sent",
                stated.len()
            );
        }
        return stated;
    }
    let output = std::process::Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}
