//! The files of a server's `run` folder: what a shim is told and what it
//! remembers.
//!
//! | file | written by | says |
//! |---|---|---|
//! | `start.json` | daemon | what to run |
//! | `state.json` | shim | which process is the game, and how far a stop has come |
//! | `exit.json` | shim | how the last run ended |
//! | `lock` | shim | held while a shim lives |
//!
//! A `state.json` without an `exit.json` of the same run means that the game may
//! be alive. The daemon removes `state.json` once it has taken note of the end.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use homehost_protocol::UnixMillis;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::account::Account;
use crate::view::ExitReport;

/// Folder of these files, within the server's folder.
pub(crate) const RUN_DIR: &str = "run";
/// Folder of the log, within the server's folder.
pub(crate) const LOG_DIR: &str = "logs";
/// Folder of the game, within the server's folder.
pub(crate) const DATA_DIR: &str = "data";

pub(crate) const START: &str = "start.json";
pub(crate) const STATE: &str = "state.json";
pub(crate) const EXIT: &str = "exit.json";
const LOCK: &str = "lock";

/// The largest file that is read: an environment and a long start line fit.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// How long to wait for the shim of an earlier run: longer than its farewell.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// Between two tries; a shim ends within milliseconds.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StartFile {
    /// Tells the runs of one server apart.
    pub(crate) run: u64,
    pub(crate) argv: Vec<String>,
    /// The game's folder; it starts there.
    pub(crate) cwd: PathBuf,
    /// The whole environment.
    pub(crate) env: BTreeMap<String, String>,
    /// Whose rights it gets; `None`: those of the shim.
    #[serde(default)]
    pub(crate) account: Option<Account>,
    #[serde(default)]
    pub(crate) stop_command: Option<String>,
    pub(crate) stop_step_ms: u64,
}

impl StartFile {
    pub(crate) fn stop_step(&self) -> Duration {
        Duration::from_millis(self.stop_step_ms)
    }
}

/// Which process is the game.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateFile {
    pub(crate) run: u64,
    pub(crate) pid: u32,
    /// Moment of its creation as the system tells it: a process with the same
    /// number but another moment is another process.
    pub(crate) created: String,
    pub(crate) started: UnixMillis,
    /// Number of the first line of this run.
    pub(crate) first_seq: u64,
    /// The step of the stop that is under way.
    #[serde(default)]
    pub(crate) rung: Option<usize>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExitFile {
    pub(crate) run: u64,
    pub(crate) report: ExitReport,
}

/// Reads a file; `None` when it is missing, too large or not what it should be:
/// a folder that someone edited must not stop a daemon.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Writes a file so that after a loss of power it is the old or the new one.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let bytes = serde_json::to_vec(value).map_err(io::Error::other)?;
    let new = path.with_extension("new");
    let mut file = private().create(true).write(true).truncate(true).open(&new)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    drop(file);
    std::fs::rename(&new, path)?;
    sync_dir(path.parent().unwrap_or(Path::new("")))
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    if cfg!(unix) {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

/// Options that make a file which only its owner can read.
pub(crate) fn private() -> OpenOptions {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "only unix has modes"))]
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Takes the lock of the folder that is the current one.
pub(super) fn lock() -> Result<File, String> {
    lock_file(Path::new(LOCK))
}

fn lock_file(path: &Path) -> Result<File, String> {
    let file = private()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|error| format!("cannot open the lock: {error}"))?;
    // The shim of the run before may still be saying goodbye.
    let give_up = Instant::now() + LOCK_WAIT;
    while file.try_lock().is_err() {
        if Instant::now() >= give_up {
            return Err("another shim runs this server".into());
        }
        std::thread::sleep(LOCK_PAUSE);
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_files_read_as_missing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(EXIT);
        assert_eq!(read::<ExitFile>(&path), None);
        for bytes in [&b""[..], b"{", b"[]", b"{\"run\":1}", &[0xff; 64]] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(read::<ExitFile>(&path), None);
        }
    }

    #[test]
    fn a_shim_waits_for_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOCK);
        let held = lock_file(&path).unwrap();
        let waits = std::thread::spawn(move || lock_file(&path).map(drop));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waits.is_finished());
        drop(held);
        assert_eq!(waits.join().unwrap(), Ok(()));
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(STATE);
        let state = StateFile {
            run: 1,
            pid: 2,
            created: "x".into(),
            started: UnixMillis(3),
            first_seq: 4,
            rung: None,
        };
        write(&path, &state).unwrap();
        assert_eq!(read(&path), Some(state));
    }
}
