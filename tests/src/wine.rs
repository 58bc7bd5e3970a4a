//! Programs for Windows, run by Wine beside those of this machine. `cargo xtask
//! test` prepares both and says in variables where they are.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A Wine and the programs for Windows.
#[derive(Debug)]
pub(crate) struct Wine {
    program: PathBuf,
    programs: PathBuf,
}

impl Wine {
    /// The one of this process.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub(crate) fn get() -> &'static Self {
        static WINE: OnceLock<Wine> = OnceLock::new();
        WINE.get_or_init(|| {
            let variable = |name| {
                let value = env::var_os(name).map(PathBuf::from);
                value.unwrap_or_else(|| {
                    panic!("{name} is not set: run `cargo xtask test --only windows`")
                })
            };
            Self {
                program: variable("HOMEHOST_TEST_WINE"),
                programs: variable("HOMEHOST_TEST_WINDOWS_PROGRAMS"),
            }
        })
    }

    /// Where `homehost.exe` was built.
    pub(crate) fn homehost(&self) -> PathBuf {
        self.programs.join("homehost.exe")
    }

    /// A command that runs a program for Windows: ours by its path here, one of
    /// Windows by its name.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(program);
        command
    }
}

/// A path of this machine as a program for Windows has it.
///
/// # Panics
/// When it is not absolute, or not UTF-8.
#[track_caller]
pub fn windows_path(path: &Path) -> String {
    let text = path.to_str().expect("UTF-8");
    assert!(text.starts_with('/'), "{text} is not absolute");
    format!("Z:{}", text.replace('/', "\\"))
}

/// A path as a program for Windows has it, on this machine.
///
/// # Panics
/// When it is on no drive that is known.
#[track_caller]
pub fn unix_path(path: &str) -> PathBuf {
    let on = |root: PathBuf, rest: &str| root.join(rest.replace('\\', "/").trim_start_matches('/'));
    match path.split_once(':') {
        Some(("Z" | "z", rest)) => on("/".into(), rest),
        Some(("C" | "c", rest)) => {
            let prefix = env::var_os("WINEPREFIX").expect("`cargo xtask test` sets it");
            on(PathBuf::from(prefix).join("drive_c"), rest)
        }
        _ => panic!("{path} is on no known drive"),
    }
}
