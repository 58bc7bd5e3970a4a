//! The data folder: who may enter it, and that one process has it at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use homehost_runtime::files::{Access, make_folder};

use crate::OpenError;

/// Held exclusively while a process has the folder; holds its pid as text.
const LOCK_FILE: &str = "daemon.lock";

/// How long a lock is tried for: [`DataDir::is_in_use`] has it for a moment.
const LOOKERS: Duration = Duration::from_millis(200);

/// Folder of both stores.
const STORE_FOLDER: &str = "store";

/// A data folder that belongs to this process until the last clone, and the
/// last store opened in it, is dropped.
#[derive(Clone, Debug)]
pub struct DataDir {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// Its lock ends with it.
    _lock: File,
}

impl DataDir {
    /// Opens a data folder, or makes it, and locks it. Blocks.
    ///
    /// A folder that is made is 0711 on Unix; one that exists keeps its
    /// permissions. `store/` in it is 0700 in either case.
    ///
    /// # Errors
    /// [`OpenError::InUse`] when another process has it, [`OpenError::Denied`]
    /// when it may not be written, [`OpenError::Full`] when nothing more fits.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = std::path::absolute(path.as_ref())
            .map_err(|error| OpenError::io(path.as_ref(), error))?;
        if !path.is_dir() {
            make_folder(&path, Access::Passage).map_err(|error| OpenError::io(&path, error))?;
        }
        let lock = lock(&path)?;
        let dir = Self { inner: Arc::new(Inner { path, _lock: lock }) };
        dir.folder(STORE_FOLDER, Access::Private)?;
        Ok(dir)
    }

    /// The file in a data folder that is locked while a process has it.
    pub fn lock_file(path: &Path) -> PathBuf {
        path.join(LOCK_FILE)
    }

    /// Whether some process has the folder at this moment. Blocks.
    pub fn is_in_use(path: &Path) -> bool {
        File::open(path.join(LOCK_FILE))
            .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// A folder in it, made when it is missing, with the permissions of
    /// `access` in either case. Blocks.
    ///
    /// # Errors
    /// [`OpenError::Denied`], [`OpenError::Full`] or [`OpenError::Other`].
    pub fn folder(&self, name: &str, access: Access) -> Result<PathBuf, OpenError> {
        let path = self.inner.path.join(name);
        match make_folder(&path, access) {
            Ok(()) => Ok(path),
            Err(error) => Err(OpenError::io(&path, error)),
        }
    }

    /// The folder of the stores.
    pub(crate) fn store(&self) -> PathBuf {
        store_in(&self.inner.path)
    }
}

/// The folder of the stores in a data folder that need not be ours.
pub(crate) fn store_in(data_dir: &Path) -> PathBuf {
    data_dir.join(STORE_FOLDER)
}

fn lock(folder: &Path) -> Result<File, OpenError> {
    let path = folder.join(LOCK_FILE);
    let failed = |error| OpenError::io(&path, error);
    let mut options = OpenOptions::new();
    // Not truncated: until it is locked it is another process's.
    options.read(true).write(true).create(true).truncate(false);
    // Whoever can read a file can lock it: a game must not keep its node from
    // starting.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&path).map_err(|error| match OpenError::io(&path, error) {
        // It is the folder that a person has to look at.
        OpenError::Denied { .. } => OpenError::Denied { path: folder.to_owned() },
        other => other,
    })?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        file.set_permissions(std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    }
    let deadline = Instant::now() + LOOKERS;
    let mut locked = file.try_lock();
    while matches!(locked, Err(TryLockError::WouldBlock)) && Instant::now() < deadline {
        std::thread::sleep(LOOKERS / 20);
        locked = file.try_lock();
    }
    match locked {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // Windows does not let a locked file be read by others.
            let pid = match file.take(20).read_to_string(&mut text) {
                Ok(_) => text.trim().parse().ok(),
                Err(_) => None,
            };
            return Err(OpenError::InUse { path: folder.to_owned(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    let pid = format!("{}\n", std::process::id());
    file.set_len(0)
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .and_then(|_| file.write_all(pid.as_bytes()))
        .map_err(failed)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_second_open_is_refused_and_names_the_first() {
        let temp = tempfile::tempdir().unwrap();
        let first = DataDir::open(temp.path()).unwrap();
        match DataDir::open(temp.path()) {
            Err(OpenError::InUse { pid, .. }) => {
                if cfg!(unix) {
                    assert_eq!(pid, Some(std::process::id()));
                }
            }
            other => panic!("{other:?}"),
        }
        assert!(DataDir::is_in_use(temp.path()));
        drop(first);
        assert!(!DataDir::is_in_use(temp.path()));
        DataDir::open(temp.path()).unwrap();
    }

    #[test]
    fn a_file_in_the_way_is_explained() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        fs::write(&path, "x").unwrap();
        assert!(matches!(DataDir::open(&path), Err(OpenError::Other { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn games_may_pass_through_the_folder_but_not_enter_the_stores() {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path().join("a/b")).unwrap();
        assert_eq!(mode(dir.path()), 0o711);
        assert_eq!(mode(&dir.store()), 0o700);
        let games = dir.folder("games", Access::Passage).unwrap();
        fs::set_permissions(&games, fs::Permissions::from_mode(0o777)).unwrap();
        dir.folder("games", Access::Passage).unwrap();
        assert_eq!(mode(&games), 0o711);
    }

    #[test]
    fn a_folder_that_exists_is_used_as_it_is() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join(LOCK_FILE), "a pid of long ago that is longer\n").unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        let text = fs::read_to_string(dir.path().join(LOCK_FILE));
        if cfg!(unix) {
            assert_eq!(text.unwrap(), format!("{}\n", std::process::id()));
        }
    }
}
