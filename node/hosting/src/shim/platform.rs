//! The one interface behind which operating systems differ.
//!
//! Each side offers: `keep_files`, `detach`, `enter`, `own`, `too_deep`, `spawn`,
//! `adopt`, `is_alive`, the parts of a game ([`Process`], [`Output`], [`Input`]),
//! [`EndSignals`], the shim's [`Listener`] and the daemon's `connect`.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
use unix as system;
#[cfg(windows)]
use windows as system;

pub(crate) use system::{Connection, connect, detached, kill_outright, make_dir, too_deep};
pub(super) use system::{EndSignals, Listener, adopt, detach, enter, is_alive, keep_files, own};
pub(super) use system::{Input, Output, Process, spawn};

/// The longest line that is written to a game's input: POSIX guarantees that so
/// much arrives whole or not at all (`PIPE_BUF`).
pub(crate) const INPUT_BYTES_MAX: usize = 4_095;

/// A game, in the parts that are used at the same time.
pub(super) struct Parts {
    pub(super) process: Process,
    pub(super) output: Output,
    pub(super) input: Input,
}

/// A process that was made and waits for leave to become the game.
pub(super) struct Made {
    pub(super) pid: u32,
    pub(super) created: String,
    pub(super) session: Option<u32>,
}

/// Notes what was made; without it there is no leave.
pub(super) type Note<'a> = dyn FnMut(Made) -> Result<(), String> + 'a;

/// How a process ended; both are `None` when nobody saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) code: Option<i32>,
    pub(super) signal: Option<i32>,
}

/// The line with its end, if it can be written.
fn input_line(line: &str) -> Result<Vec<u8>, String> {
    if line.len() > INPUT_BYTES_MAX {
        return Err(format!("the line is longer than {INPUT_BYTES_MAX} bytes: shorten it"));
    }
    if line.contains(['\n', '\r', '\0']) {
        return Err("the line contains a line end: send one line at a time".into());
    }
    let mut bytes = line.as_bytes().to_vec();
    bytes.push(b'\n');
    Ok(bytes)
}
