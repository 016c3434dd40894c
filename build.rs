//! Version, git revision and protocol version for `--version`; reproducible, no network.

fn main() {
    println!("cargo:rerun-if-changed=.git/HEAD");
    println!("cargo:rerun-if-changed=.git/refs/heads");
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo:rerun-if-env-changed=GUESTMETER_GIT");
    println!("cargo:rustc-env=GUESTMETER_GIT={}", revision());
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
