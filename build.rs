//! Version, git revision and protocol version for `--version`, and one linker flag of the static agent; reproducible,
//! no network.

fn main() {
    // A path that is not there would make every build run this again.
    for path in [".git/HEAD", ".git/refs/heads"] {
        if std::path::Path::new(path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo:rerun-if-env-changed=GUESTMETER_GIT");
    println!("cargo:rustc-env=GUESTMETER_GIT={}", revision());
    if packs_relocations() {
        println!("cargo:rustc-link-arg-bin=guestmeterd=-Wl,-z,pack-relative-relocs");
    }
}

/// A static PIE relocates itself; packed, its relocations take 0.6 KiB instead of 50. glibc does that from 2.36 on, and an
/// older one would crash at the start: where its version is not known, nothing is packed.
fn packs_relocations() -> bool {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let is_static = variable("CARGO_CFG_TARGET_FEATURE").split(',').any(|feature| feature == "crt-static");
    let is_native = variable("HOST") == variable("TARGET") && variable("CARGO_CFG_TARGET_ENV") == "gnu";
    let is_wanted = std::env::var_os("CARGO_FEATURE_AGENT").is_some();
    is_static && is_native && is_wanted && glibc().is_some_and(|version| version >= (2, 36))
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
        return stated;
    }
    let output = std::process::Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}
