//! The deny list as a file: read at the start, and again whenever it changes.
//!
//! A list with a broken line holds nobody out and lets nobody back in: the last
//! good one stays, and the line is named.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use homehost_mesh::MeshHandle;
use homehost_mesh::deny::DenyList;
use homehost_runtime::{Shutdown, wall_ms};
use tokio::sync::{mpsc, oneshot, watch};

use crate::Failure;

/// The file's name in the node's folder.
pub(crate) const DENY_FILE: &str = "deny.txt";

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Two changes within this time may have the same date.
const DATE_STEP: Duration = Duration::from_secs(4);

/// The longest file: the longest list, and some words about each entry.
pub(crate) const BYTES_MAX: u64 = 8 << 20;

/// What the operator may know of the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DenyState {
    /// Entries that hold.
    pub(crate) entries: usize,
    /// Why the file as it is now does not hold.
    pub(crate) problem: Option<String>,
}

/// Asks for the file to be read now.
pub(crate) type Reload = oneshot::Sender<DenyState>;

/// By what a change of the file is noticed; none when there is no file.
type Stamp = Option<(u64, SystemTime)>;

/// Reads a file's text; none if there is no such file.
///
/// # Errors
/// In words, with the file's name.
pub(crate) fn text(path: &Path) -> Result<Option<String>, String> {
    let reading = |error: io::Error| format!("cannot read {}: {error}", path.display());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(reading(error)),
    };
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(reading)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(format!("{} is longer than {BYTES_MAX} bytes", path.display()));
    }
    // Words after `#` may be of any encoding.
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

fn list(path: &Path) -> Result<Option<DenyList>, String> {
    let Some(text) = text(path)? else { return Ok(None) };
    DenyList::parse(&text).map(Some).map_err(|error| format!("{}: {error}", path.display()))
}

/// The list to begin with; an empty one if there is no file, unless the operator
/// named it.
///
/// # Errors
/// [`Failure::DenyList`]: there is no good list to go on with. [`Failure::Usage`]:
/// the one that was named is not there.
pub(crate) fn first(path: &Path, named: bool) -> Result<DenyList, Failure> {
    match list(path).map_err(Failure::DenyList)? {
        Some(list) => Ok(list),
        None if named => Err(Failure::Usage(format!(
            "--deny-list {}: there is no such file; put it there, or make an empty one to let \
             everybody in",
            path.display()
        ))),
        None => Ok(DenyList::default()),
    }
}

/// Keeps the mesh's list as the file is.
pub(crate) struct Watcher {
    path: PathBuf,
    mesh: MeshHandle,
    state: watch::Sender<DenyState>,
    reloads: mpsc::Receiver<Reload>,
    read: Option<(Stamp, SystemTime)>,
    /// Whether it is known that the file is gone.
    had_file: bool,
}

impl Watcher {
    /// Of a file whose list has `entries`, and already holds.
    pub(crate) fn new(
        path: PathBuf,
        mesh: MeshHandle,
        entries: usize,
        reloads: mpsc::Receiver<Reload>,
    ) -> (Self, watch::Receiver<DenyState>) {
        let (state, states) = watch::channel(DenyState { entries, problem: None });
        let had_file = path.exists();
        (Self { path, mesh, state, reloads, read: None, had_file }, states)
    }

    /// Runs until the shutdown.
    pub(crate) async fn run(mut self, shutdown: Shutdown) -> Result<(), std::convert::Infallible> {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = shutdown.stopping() => return Ok(()),
                Some(reply) = self.reloads.recv() => {
                    self.read().await;
                    // Whoever asked may have gone.
                    let _ = reply.send(self.state.borrow().clone());
                }
                _ = ticks.tick() => if self.has_changed() {
                    self.read().await;
                }
            }
        }
    }

    fn stamp(&self) -> Stamp {
        let metadata = std::fs::metadata(&self.path).ok()?;
        Some((metadata.len(), metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH)))
    }

    /// Whether the file is another than the one that was read, or was so new then
    /// that nobody can tell.
    fn has_changed(&self) -> bool {
        let Some((stamp, read_at)) = self.read else { return true };
        let fresh = stamp.is_some_and(|(_, modified)| {
            read_at.duration_since(modified).is_ok_and(|age| age < DATE_STEP)
        });
        fresh || self.stamp() != stamp
    }

    async fn read(&mut self) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(wall_ms());
        self.read = Some((self.stamp(), now));
        let path = self.path.clone();
        let list = match tokio::task::spawn_blocking(move || list(&path)).await {
            Ok(list) => list,
            Err(error) => Err(format!("cannot read the deny list: {error}")),
        };
        match list {
            Ok(Some(list)) => {
                self.had_file = true;
                let entries = list.len();
                self.mesh.set_deny(list).await;
                self.tell(DenyState { entries, problem: None });
            }
            Ok(None) if self.had_file => {
                let path = self.path.display();
                self.keep(format!("{path} is gone; an empty file lets everybody in"));
            }
            Ok(None) => {}
            Err(problem) => self.keep(problem),
        }
    }

    /// The list as it was goes on.
    fn keep(&self, problem: String) {
        let entries = self.state.borrow().entries;
        self.tell(DenyState { entries, problem: Some(problem) });
    }

    /// Says it once.
    fn tell(&self, state: DenyState) {
        self.state.send_if_modified(|now| {
            if *now == state {
                return false;
            }
            match &state.problem {
                Some(problem) => tracing::warn!("{problem}; the list as it was before holds"),
                None => tracing::info!(entries = state.entries, "the deny list was read"),
            }
            *now = state;
            true
        });
    }
}
