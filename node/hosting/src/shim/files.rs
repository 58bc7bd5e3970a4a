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

use super::platform::own;
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
    /// The least number that the first line may have: the daemon has seen all
    /// lower ones, also if the log files are gone.
    #[serde(default)]
    pub(crate) next_seq: u64,
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
    /// The session that the first shim made for itself and the game; `None`
    /// where it shares one with strangers, who must not be swept away.
    #[serde(default)]
    pub(crate) session: Option<u32>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExitFile {
    pub(crate) run: u64,
    pub(crate) report: ExitReport,
}

/// Reads a file; `None` when it is missing, too large or not what it should be:
/// a folder that someone edited must not stop a daemon.
///
/// # Errors
/// When it may well be there, but cannot be read at the moment.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let mut bytes = Vec::new();
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes).ok())
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

/// Takes the lock of this shim's folder; `None` when another shim keeps it.
pub(super) fn lock() -> io::Result<Option<File>> {
    lock_file(&own(LOCK))
}

fn lock_file(path: &Path) -> io::Result<Option<File>> {
    let file = private().create(true).truncate(false).write(true).open(path)?;
    // The shim of the run before may still be saying goodbye.
    let give_up = Instant::now() + LOCK_WAIT;
    while file.try_lock().is_err() {
        if Instant::now() >= give_up {
            return Ok(None);
        }
        std::thread::sleep(LOCK_PAUSE);
    }
    Ok(Some(file))
}

/// Whether a shim lives: it holds the lock from its first moment to its last.
pub(crate) fn is_locked(run_dir: &Path) -> io::Result<bool> {
    match OpenOptions::new().write(true).open(run_dir.join(LOCK)) {
        Ok(file) => match file.try_lock() {
            Ok(()) => Ok(false),
            Err(std::fs::TryLockError::WouldBlock) => Ok(true),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_files_read_as_missing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(EXIT);
        assert_eq!(read::<ExitFile>(&path).unwrap(), None);
        for bytes in [&b""[..], b"{", b"[]", b"{\"run\":1}", &[0xff; 64]] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(read::<ExitFile>(&path).unwrap(), None);
        }
        // It is there, so nobody may conclude that it is not.
        assert!(read::<ExitFile>(dir.path()).is_err());
    }

    #[test]
    fn a_shim_waits_for_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOCK);
        assert!(!is_locked(dir.path()).unwrap());
        let held = lock_file(&path).unwrap();
        assert!(is_locked(dir.path()).unwrap());
        let waits = std::thread::spawn(move || lock_file(&path));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waits.is_finished());
        drop(held);
        assert!(waits.join().unwrap().unwrap().is_some());
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
            session: None,
        };
        write(&path, &state).unwrap();
        assert_eq!(read(&path).unwrap(), Some(state));
    }
}
