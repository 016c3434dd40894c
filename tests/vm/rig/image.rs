//! The prepared kernels and images, made for the agent under test by `tests/vm/image`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Paths by the names that `tests/vm/image` prints.
pub(crate) struct Images(BTreeMap<String, PathBuf>);

impl Images {
    /// The path called `name`; panics with the known names otherwise.
    pub(crate) fn path(&self, name: &str) -> &Path {
        let known = self.0.keys().cloned().collect::<Vec<_>>().join(", ");
        self.0.get(name).unwrap_or_else(|| panic!("no image {name:?}; there are {known}"))
    }
}

/// The images for this run; made once, by the first test that asks.
pub(crate) fn images() -> &'static Images {
    static IMAGES: OnceLock<Images> = OnceLock::new();
    IMAGES.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm/image");
        let output =
            Command::new(script).arg(agent()).stdin(Stdio::null()).output().expect("tests/vm/image runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tests/vm/image failed; has tests/vm/prepare run?\n{errors}");
        let stdout = String::from_utf8(output.stdout).expect("paths are UTF-8");
        let pairs = stdout.lines().filter_map(|line| line.split_once('='));
        Images(pairs.map(|(name, path)| (name.to_owned(), PathBuf::from(path))).collect())
    })
}

/// The static agent: the one `GUESTMETERD_STATIC` names, else built here as it is shipped.
fn agent() -> PathBuf {
    if let Some(path) = std::env::var_os("GUESTMETERD_STATIC") {
        return PathBuf::from(path);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target_dir = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let target = "x86_64-unknown-linux-gnu";
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--profile", "agent", "--target", target])
        .args(["--no-default-features", "--features", "agent", "--bin", "guestmeterd"])
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .current_dir(root)
        .stdin(Stdio::null())
        .status()
        .expect("cargo runs");
    assert!(status.success(), "building the static agent failed");
    target_dir.join(target).join("agent/guestmeterd")
}
