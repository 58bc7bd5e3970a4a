//! Running commands so that a person can see and repeat them.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why a step failed: one sentence that says what to do.
#[derive(Debug)]
pub(crate) struct Failed(pub(crate) String);

pub(crate) type Done = Result<(), Failed>;

/// A failure with a sentence.
pub(crate) fn fail<T>(why: impl Into<String>) -> Result<T, Failed> {
    Err(Failed(why.into()))
}

/// The checkout from which cargo runs this program; the one from which it was
/// built may be another.
pub(crate) fn root() -> PathBuf {
    let now = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let own = now.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    own.ancestors().nth(2).unwrap_or(&own).to_owned()
}

/// `target`, wherever cargo has it: this program is in `target/debug`.
pub(crate) fn target() -> Result<PathBuf, Failed> {
    let exe = env::current_exe().map_err(|error| Failed(format!("who am I? {error}")))?;
    match exe.ancestors().nth(2) {
        Some(target) => Ok(target.to_owned()),
        None => fail("this program is not in a target folder: run it as `cargo xtask`"),
    }
}

/// A cargo command, without standard input, in the checkout.
pub(crate) fn cargo(line: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.args(line.split_whitespace()).current_dir(root());
    command
}

/// A command, without standard input, in the checkout.
pub(crate) fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).current_dir(root());
    command
}

/// Prints a command and runs it.
pub(crate) fn run(command: &mut Command) -> Done {
    let mut line = String::from("  $");
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            line.push_str(&format!(" {}={:?}", name.to_string_lossy(), value.to_string_lossy()));
        }
    }
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let program = program.to_string_lossy().into_owned();
    line.push_str(&format!(" {program}"));
    for arg in command.get_args() {
        line.push_str(&format!(" {}", arg.to_string_lossy()));
    }
    println!("{line}");
    match command.stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => fail(format!("{} ended with {status}", line.trim_start_matches("  $ "))),
        Err(error) => fail(format!("{program}: {error}")),
    }
}

/// Runs a command silently: whether it works.
pub(crate) fn works(program: &str, args: &[&str]) -> bool {
    let mut command = command(program, args);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// What a command prints; nothing when it fails.
pub(crate) fn output(program: &str, args: &[&str]) -> String {
    let output = command(program, args).stdin(Stdio::null()).output();
    let output = output.ok().filter(|output| output.status.success());
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}

/// Whether this is the administrator of a Unix.
pub(crate) fn is_root() -> bool {
    cfg!(unix) && output("id", &["-u"]) == "0"
}
