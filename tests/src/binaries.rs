//! The two programs, built once by each test process in its own profile.
//!
//! `CARGO_BIN_EXE_*` is not set for the programs of other packages, so cargo is
//! asked here. A second test process waits for the first and finds them fresh.

use std::env;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Where the programs are.
#[derive(Debug)]
pub(crate) struct Binaries {
    pub(crate) homehost: PathBuf,
    pub(crate) bootstrap: PathBuf,
}

/// `target`, wherever cargo was told to have it.
pub fn target_dir() -> PathBuf {
    profile_dir().parent().expect("a profile's folder is in the target folder").to_owned()
}

/// The folder of this package. Asked for when the test runs: a build folder may
/// serve several checkouts, and what was compiled remembers the first.
pub fn source_dir() -> PathBuf {
    let now = env::var_os("CARGO_MANIFEST_DIR");
    now.map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}

/// `target/debug` or another profile: this test is in its `deps`.
fn profile_dir() -> PathBuf {
    let exe = env::current_exe().expect("a process knows its own file");
    exe.parent().and_then(Path::parent).expect("tests are in PROFILE/deps").to_owned()
}

/// Builds the programs on the first call.
pub(crate) fn binaries() -> &'static Binaries {
    static BUILT: OnceLock<Binaries> = OnceLock::new();
    BUILT.get_or_init(build)
}

fn build() -> Binaries {
    let (profile, target) = (profile_dir(), target_dir());
    let lock = File::create(target.join("homehost-tests.lock")).expect("target can be written");
    lock.lock().expect("a lock can be waited for");
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["build", "--quiet", "--workspace", "--bins", "--target-dir"])
        .arg(&target)
        .current_dir(source_dir())
        .stdin(Stdio::null());
    match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => {}
        Some(name) => {
            command.args(["--profile", name]);
        }
    }
    let status = command.status().expect("cargo can be run");
    assert!(status.success(), "cargo could not build the programs: {status}");
    let program = |name: &str| profile.join(format!("{name}{}", env::consts::EXE_SUFFIX));
    Binaries { homehost: program("homehost"), bootstrap: program("homehost-bootstrap") }
}
