//! Why a store could not be opened, read or written.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

/// Why a data folder or a store in it could not be opened. Each text says what
/// to do next.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has the folder.
    #[error(
        "the data folder {} is in use by another homehost{}: stop that one, or give this one a folder of its own",
        path.display(), pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    InUse {
        /// The data folder.
        path: PathBuf,
        /// The other process, where the system lets it be read.
        pid: Option<u32>,
    },
    /// The folder or a file in it may not be written.
    #[error("{} may not be written: give this user write permission on it, or choose another data folder", path.display())]
    Denied {
        /// What could not be written.
        path: PathBuf,
    },
    /// No space is left.
    #[error("the disk of {} is full: free some space on it and start again", path.display())]
    Full {
        /// What could not be written.
        path: PathBuf,
    },
    /// Written by a newer version; nothing was changed.
    #[error(
        "{} was written by a newer homehost (its schema is {found}, this one knows {known}): update homehost, or choose another data folder",
        path.display()
    )]
    Newer {
        /// The store.
        path: PathBuf,
        /// Schema version that was found.
        found: u32,
        /// Newest schema version that this program knows.
        known: u32,
    },
    /// The ledger cannot be read; it was left as it is.
    #[error(
        "{} is damaged ({reason}): restore it from a backup, or move it away to begin with an empty one, which forgets settings and servers but no game files",
        path.display()
    )]
    Damaged {
        /// The store.
        path: PathBuf,
        /// What the engine found.
        reason: String,
    },
    /// Something else went wrong.
    #[error("{} could not be opened", path.display())]
    Other {
        /// The file or folder.
        path: PathBuf,
        /// What the system or the engine said.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
}

impl OpenError {
    pub(crate) fn io(path: &Path, error: io::Error) -> Self {
        Self::of(path, Fault::of_io(error))
    }

    pub(crate) fn of(path: &Path, fault: Fault) -> Self {
        let path = path.to_owned();
        match fault {
            Fault::Full => Self::Full { path },
            Fault::Denied => Self::Denied { path },
            Fault::Busy => Self::InUse { path, pid: Some(std::process::id()) },
            Fault::Damaged(reason) => Self::Damaged { path, reason },
            Fault::Other(source) => Self::Other { path, source },
        }
    }
}

/// Why a store could not be read or written.
///
/// [`StoreError::Full`] and [`StoreError::Denied`] may be retried once a person
/// has changed something, the others not.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// No space is left.
    #[error("the disk is full: free some space and try again")]
    Full,
    /// The store may not be written.
    #[error("the data folder may not be written: give this user write permission on it")]
    Denied,
    /// The store contradicts itself.
    #[error("the store is damaged ({0}): stop homehost and restore the data folder from a backup")]
    Damaged(String),
    /// The store was closed, because the process is ending.
    #[error("the store is closed")]
    Closed,
    /// More than may be written at once.
    #[error("{bytes} bytes are more than the {most} that may be stored at once")]
    TooLarge {
        /// Bytes of keys and values.
        bytes: usize,
        /// How many are allowed.
        most: usize,
    },
    /// Something else went wrong.
    #[error("the store could not be read or written")]
    Other(#[source] Arc<dyn Error + Send + Sync>),
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Full => Self::Full,
            Fault::Denied => Self::Denied,
            Fault::Damaged(reason) => Self::Damaged(reason),
            Fault::Busy => Self::Other(Arc::new(io::Error::from(ErrorKind::WouldBlock))),
            Fault::Other(source) => Self::Other(source),
        }
    }
}

/// What went wrong, whichever engine says so.
#[derive(Debug)]
pub(crate) enum Fault {
    Full,
    Denied,
    /// Another handle of this process has the files.
    Busy,
    Damaged(String),
    Other(Arc<dyn Error + Send + Sync>),
}

impl Fault {
    pub(crate) fn of_io(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full,
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Self::Denied,
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof => Self::Damaged(error.to_string()),
            _ => Self::Other(Arc::new(error)),
        }
    }

    pub(crate) fn of_sled(error: sled::Error) -> Self {
        match error {
            sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => {
                Self::Busy
            }
            sled::Error::Io(error) => Self::of_io(error),
            error => Self::Damaged(error.to_string()),
        }
    }

    pub(crate) fn of_redb(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) => Self::of_io(error),
            redb::Error::DatabaseAlreadyOpen => Self::Busy,
            error @ (redb::Error::Corrupted(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TableDoesNotExist(_)
            | redb::Error::RepairAborted) => Self::Damaged(error.to_string()),
            error => Self::Other(Arc::new(error)),
        }
    }

    /// Runs what may panic on damaged files; a panic counts as damage.
    ///
    /// What `work` borrows mutably is given up by the caller when this fails.
    pub(crate) fn guard<T>(work: impl FnOnce() -> Result<T, Self>) -> Result<T, Self> {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            let text = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned());
            Err(Self::Damaged(text.unwrap_or_else(|| "the engine panicked".into())))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_engine_s_errors_are_told_apart() {
        for (kind, full, denied, damaged) in [
            (ErrorKind::StorageFull, true, false, false),
            (ErrorKind::QuotaExceeded, true, false, false),
            (ErrorKind::PermissionDenied, false, true, false),
            (ErrorKind::ReadOnlyFilesystem, false, true, false),
            (ErrorKind::UnexpectedEof, false, false, true),
            (ErrorKind::BrokenPipe, false, false, false),
        ] {
            for fault in [
                Fault::of_sled(sled::Error::Io(kind.into())),
                Fault::of_redb(redb::Error::Io(kind.into())),
            ] {
                assert_eq!(matches!(fault, Fault::Full), full, "{kind}");
                assert_eq!(matches!(fault, Fault::Denied), denied, "{kind}");
                assert_eq!(matches!(fault, Fault::Damaged(_)), damaged, "{kind}");
            }
        }
    }

    #[test]
    fn what_a_user_can_cause_says_what_to_do_next() {
        let path = PathBuf::from("/srv/homehost");
        for (error, next) in [
            (OpenError::InUse { path: path.clone(), pid: Some(7) }, "(process 7): stop that one"),
            (OpenError::Denied { path: path.clone() }, "give this user write permission"),
            (OpenError::Full { path: path.clone() }, "free some space"),
            (OpenError::Newer { path: path.clone(), found: 9, known: 1 }, "update homehost"),
            (OpenError::Damaged { path, reason: "x".into() }, "restore it from a backup"),
        ] {
            let text = error.to_string();
            assert!(text.contains("/srv/homehost") && text.contains(next), "{text}");
        }
    }
}
