//! Whether the data folder can be written at this moment, for whoever asks.
//!
//! A disk that is full or read-only says so to those who write alone, and a node
//! may write nothing for hours. So whoever asks causes a look: an unnamed file is
//! made in the folder and some bytes put into it, which need not reach the disk.
//! What the stores could not write counts as well; the ledger, which tries
//! nothing by itself, is then written once more.

use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use homehost_store::{Batch, Ledger, Replica, StoreError, Table};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

/// How long a look counts: pages and scripts ask again and again.
const FRESH: Duration = Duration::from_secs(3);

/// Longest wait for a disk; whoever asks for the status waits as long.
const ANSWER: Duration = Duration::from_secs(2);

/// Bytes that have to fit: some pages of the stores.
const BYTES: usize = 64 * 1024;

/// The row that is written to see whether the ledger can be.
const TRIAL: &[u8] = b"trial";

/// Why the data folder cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unwritable {
    /// Its disk is full.
    Full,
    /// It may not be written, or its disk is read-only.
    Denied,
    /// Its disk does not answer.
    Silent,
    /// Something else, in the system's words.
    Other(String),
}

impl Unwritable {
    /// What is the matter, after "nothing can be written to the data folder: ".
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Full => "its disk is full".into(),
            Self::Denied => "it may not be written, or its disk is read-only".into(),
            Self::Silent => "its disk does not answer".into(),
            Self::Other(why) => why.clone(),
        }
    }

    /// A sentence that says what to do.
    pub(crate) fn attention(&self) -> String {
        let next = match self {
            Self::Full => "free some space",
            Self::Denied => "make it writable for the user of the node",
            Self::Silent | Self::Other(_) => "look at its disk",
        };
        format!(
            "nothing can be written to the data folder: {}; games go on, but what changes now may \
             be lost: {next}, and all goes on by itself",
            self.reason()
        )
    }

    fn of_io(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full,
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Self::Denied,
            _ => Self::Other(error.to_string()),
        }
    }

    /// A store that is closed, as when the node ends, says nothing of the disk.
    fn of_store(error: &StoreError) -> Option<Self> {
        match error {
            StoreError::Full => Some(Self::Full),
            StoreError::Denied => Some(Self::Denied),
            StoreError::Closed | StoreError::TooLarge { .. } => None,
            other => Some(Self::Other(crate::exit::with_causes(other))),
        }
    }
}

type Looked = Option<Unwritable>;

#[derive(Debug, Default)]
struct State {
    last: Option<(Instant, Looked)>,
    /// A look that has not come back: no second one waits beside it.
    under_way: Option<JoinHandle<Looked>>,
}

/// Looks whether the data folder can be written. Clones share what they saw.
#[derive(Clone, Debug)]
pub(crate) struct Storage {
    data_dir: PathBuf,
    ledger: Ledger,
    replica: Replica,
    state: Arc<Mutex<State>>,
}

impl Storage {
    pub(crate) fn new(data_dir: PathBuf, ledger: Ledger, replica: Replica) -> Self {
        Self { data_dir, ledger, replica, state: Arc::default() }
    }

    /// Why the folder cannot be written now; nothing when it can be.
    pub(crate) async fn problem(&self) -> Looked {
        let mut state = self.state.lock().await;
        if let Some((at, looked)) = &state.last
            && at.elapsed() < FRESH
        {
            return looked.clone();
        }
        let looked = match self.folder(&mut state).await {
            None => self.stores().await,
            some => some,
        };
        state.last = Some((Instant::now(), looked.clone()));
        looked
    }

    async fn folder(&self, state: &mut State) -> Looked {
        // It stays there while it is waited for: whoever asked may go away.
        let look = state.under_way.get_or_insert_with(|| {
            let folder = self.data_dir.clone();
            tokio::task::spawn_blocking(move || {
                write_into(&folder).err().map(|error| Unwritable::of_io(&error))
            })
        });
        let Ok(looked) = tokio::time::timeout(ANSWER, look).await else {
            return Some(Unwritable::Silent);
        };
        state.under_way = None;
        // What panicked is no disk.
        looked.unwrap_or_default()
    }

    async fn stores(&self) -> Looked {
        if self.ledger.trouble().is_some() {
            let trial = self.ledger.commit(Batch::new().put(Table::Meta, TRIAL, TRIAL));
            match tokio::time::timeout(ANSWER, trial).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Unwritable::of_store(&error),
                Err(_) => return Some(Unwritable::Silent),
            }
        }
        // One that was damaged is healed by itself.
        let trouble = self.replica.trouble();
        let trouble = trouble.filter(|error| !matches!(error, StoreError::Damaged(_)));
        trouble.as_ref().and_then(Unwritable::of_store)
    }
}

/// A file that has no name and is gone when it is closed.
fn write_into(folder: &Path) -> io::Result<()> {
    tempfile::tempfile_in(folder)?.write_all(&[0; BYTES])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_tried_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        write_into(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(write_into(&folder.path().join("absent")).is_err());
    }

    #[test]
    fn each_reason_says_what_to_do() {
        for (of, word) in [
            (Unwritable::of_io(&ErrorKind::StorageFull.into()), "free some space"),
            (Unwritable::of_io(&ErrorKind::ReadOnlyFilesystem.into()), "make it writable"),
            (Unwritable::of_io(&io::Error::other("the cable is out")), "cable is out; games"),
            (Unwritable::of_store(&StoreError::Full).unwrap(), "its disk is full"),
            (Unwritable::Silent, "look at its disk"),
        ] {
            assert!(of.attention().contains(word), "{of:?}: {}", of.attention());
        }
        assert_eq!(Unwritable::of_store(&StoreError::Closed), None);
    }
}
