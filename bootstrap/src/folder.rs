//! The node's folder: one key, and a lock so that no two nodes use it.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use homehost_runtime::files::{Access, make_folder, write_private};

use crate::Failure;

const KEY_FILE: &str = "bootstrap.key";
const LOCK_FILE: &str = "bootstrap.lock";

/// Bytes of an Ed25519 seed.
const SEED_BYTES: usize = 32;

/// A folder that this process alone uses until it is dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// The lock ends with the process, however that ends.
    _lock: File,
}

impl Folder {
    /// Makes the folder if it is missing, and takes it.
    ///
    /// # Errors
    /// [`Failure::ReadOnly`], [`Failure::SecondDaemon`], or what the system said.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        if !path.is_dir() {
            make_folder(path, Access::Private).map_err(|error| writing(path, error))?;
        } else {
            #[cfg(unix)]
            warn_of_open(path);
        }
        let lock_path = path.join(LOCK_FILE);
        let lock = private_file()
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(|error| writing(&lock_path, error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Failure::SecondDaemon(path.to_owned()).into()),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("lock {}", lock_path.display()))
            }
        }
    }

    /// The node's secret seed; made on the first start.
    ///
    /// # Errors
    /// [`Failure::DamagedKey`] when the file is not a key: it is never
    /// overwritten. [`Failure::ReadOnly`], or what the system said.
    pub(crate) fn seed(&self) -> anyhow::Result<[u8; SEED_BYTES]> {
        let path = self.path.join(KEY_FILE);
        match File::open(&path) {
            Ok(file) => {
                narrow(&file, &path);
                read_seed(file, path)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_seed(&path),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// Writes a new key beside its place and moves it there, so that no crash
    /// leaves half a key.
    fn make_seed(&self, path: &Path) -> anyhow::Result<[u8; SEED_BYTES]> {
        let mut seed = [0; SEED_BYTES];
        getrandom::fill(&mut seed).context("the system gives no random numbers")?;
        write_private(path, &seed).map_err(|error| writing(path, error))?;
        tracing::info!(path = %path.display(), "made a new key; keep a copy of it");
        Ok(seed)
    }
}

fn read_seed(file: File, path: PathBuf) -> anyhow::Result<[u8; SEED_BYTES]> {
    let mut bytes = Vec::with_capacity(SEED_BYTES + 1);
    file.take(SEED_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("read {}", path.display()))?;
    let damaged = |what| Failure::DamagedKey { path, what };
    match <[u8; SEED_BYTES]>::try_from(bytes) {
        // File systems that lost a write leave zeros.
        Ok(seed) if seed == [0; SEED_BYTES] => Err(damaged("it holds only zeros").into()),
        Ok(seed) => Ok(seed),
        Err(_) => Err(damaged("it is not 32 bytes long").into()),
    }
}

fn writing(path: &Path, error: io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Failure::ReadOnly { path: path.to_owned(), source: error }.into()
        }
        _ => anyhow::Error::new(error).context(format!("write {}", path.display())),
    }
}

fn private_file() -> fs::OpenOptions {
    let mut options = File::options();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Closes a key file that others can read, as after a careless copy.
#[cfg(unix)]
fn narrow(file: &File, path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let Ok(metadata) = file.metadata() else { return };
    if metadata.permissions().mode() & 0o077 == 0 {
        return;
    }
    match file.set_permissions(fs::Permissions::from_mode(0o600)) {
        Ok(()) => tracing::warn!(path = %path.display(), "other users could read the key; closed"),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "other users can read the key")
        }
    }
}

/// Closes a key file that others may be able to read, as after a careless copy.
#[cfg(windows)]
fn narrow(_: &File, path: &Path) {
    if let Err(error) = homehost_runtime::files::close_to_others(path) {
        tracing::warn!(path = %path.display(), %error, "other users may read the key");
    }
}

/// Speaks of a folder that others may enter. It is not ours to close: whoever
/// made it may have put other things into it.
#[cfg(unix)]
fn warn_of_open(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let Ok(metadata) = fs::metadata(path) else { return };
    if metadata.permissions().mode() & 0o077 != 0 {
        let path = path.display();
        tracing::warn!("other users may enter the node's folder; close it with: chmod 700 {path}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(error: &anyhow::Error) -> &Failure {
        error.downcast_ref().expect("a failure for a person")
    }

    #[test]
    fn the_key_is_made_once_and_kept() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let first = Folder::open(&path).unwrap().seed().unwrap();
        assert_eq!(Folder::open(&path).unwrap().seed().unwrap(), first);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(Folder::open(other.path()).unwrap().seed().unwrap(), first);
    }

    #[test]
    fn a_damaged_key_is_refused_and_left_alone() {
        for damage in [vec![], vec![7; 31], vec![7; 33], vec![0; 32]] {
            let folder = tempfile::tempdir().unwrap();
            let key = folder.path().join(KEY_FILE);
            fs::write(&key, &damage).unwrap();
            let error = Folder::open(folder.path()).unwrap().seed().unwrap_err();
            assert!(matches!(failure(&error), Failure::DamagedKey { .. }), "{error}");
            assert_eq!(fs::read(&key).unwrap(), damage);
        }
    }

    #[test]
    fn a_folder_has_one_node() {
        let folder = tempfile::tempdir().unwrap();
        let first = Folder::open(folder.path()).unwrap();
        let error = Folder::open(folder.path()).unwrap_err();
        assert!(matches!(failure(&error), Failure::SecondDaemon(_)), "{error}");
        drop(first);
        Folder::open(folder.path()).unwrap();
    }

    #[test]
    fn what_cannot_be_written_says_so() {
        for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem] {
            let error = writing(Path::new("x"), kind.into());
            assert!(matches!(failure(&error), Failure::ReadOnly { .. }));
        }
        let full = writing(Path::new("x"), io::ErrorKind::StorageFull.into());
        assert!(full.downcast_ref::<Failure>().is_none());
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_reads_the_key() {
        use std::os::unix::fs::PermissionsExt as _;
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let folder = Folder::open(&path).unwrap();
        folder.seed().unwrap();
        let key = path.join(KEY_FILE);
        assert_eq!((mode(&path), mode(&key)), (0o700, 0o600));
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        folder.seed().unwrap();
        assert_eq!(mode(&key), 0o600);
    }
}
