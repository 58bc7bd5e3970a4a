//! Files that are there whole or not at all, and folders that are closed.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

/// Who may enter a folder, where the system has such permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only the user that the process runs as: 0700.
    Private,
    /// Others may pass through to what lies below but not list it: 0711. Game
    /// servers run as users of their own and have their folders down there.
    Passage,
}

/// Replaces a file that only its owner may read: written beside it, made
/// durable, then renamed over it. Blocks.
///
/// # Errors
/// What the system said; the old file is then as it was.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_whole(path, bytes, |_| Ok(()))
}

/// Replaces a file like [`write_private`], and keeps whose it is and who may read
/// it: root changes the settings of a service that runs as another user. A new
/// file is closed and belongs to whom its folder belongs. Blocks.
///
/// # Errors
/// What the system said; the old file is then as it was.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_whole(path, bytes, |file| match fs::metadata(path) {
        Ok(old) => {
            own_as(file, path)?;
            // On Windows, permissions are of folders.
            if cfg!(unix) { file.set_permissions(old.permissions()) } else { Ok(()) }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            path.parent().map_or(Ok(()), |folder| own_as(file, folder))
        }
        Err(error) => Err(error),
    })
}

/// Gives a file to whom another thing belongs.
///
/// # Errors
/// What the system said, also when only root may do that.
#[cfg(unix)]
pub fn own_as(file: &File, other: &Path) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, fchown};
    let (own, other) = (file.metadata()?, fs::metadata(other)?);
    if own.uid() == other.uid() {
        return Ok(());
    }
    fchown(file, Some(other.uid()), Some(other.gid()))
}

/// Gives a file to whom another thing belongs, which it does by its folder here.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn own_as(_: &File, _: &Path) -> io::Result<()> {
    Ok(())
}

fn write_whole(
    path: &Path,
    bytes: &[u8],
    prepare: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let beside = path.with_extension("new");
    // What a crash left there may have other permissions.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = create_private(&beside)?;
    prepare(&file)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&beside, path)?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Makes a file that only its owner may read, for writing. Blocks.
///
/// # Errors
/// What the system said, also when there is a file of this name.
pub fn create_private(path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        File::options().write(true).create_new(true).mode(0o600).open(path)
    }
    #[cfg(windows)]
    {
        crate::OwnerOnly::new()?.create(path)
    }
}

/// Closes a file that others may be able to read, as after a careless copy.
/// Blocks.
///
/// # Errors
/// What the system said.
pub fn close_to_others(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
    }
    #[cfg(windows)]
    {
        crate::OwnerOnly::new()?.close(path)
    }
}

/// Makes the entries of a folder durable, where that takes a call of its own.
/// Blocks.
///
/// # Errors
/// What the system said.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

/// Makes a folder if it is missing, with the permissions of `access` in either
/// case. Blocks.
///
/// # Errors
/// What the system said.
#[cfg(unix)]
pub fn make_folder(path: &Path, access: Access) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    let mode = match access {
        Access::Private => 0o700,
        Access::Passage => 0o711,
    };
    fs::DirBuilder::new().recursive(true).mode(mode).create(path)?;
    // The process's umask may have taken bits away, an earlier owner added some.
    if fs::metadata(path)?.permissions().mode() & 0o777 != mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Makes a folder if it is missing, closed to other users in either case and
/// with all that is in it. Games run as the same user here, so that there is
/// nobody who has to pass through. Blocks.
///
/// # Errors
/// What the system said.
#[cfg(windows)]
pub fn make_folder(path: &Path, _access: Access) -> io::Result<()> {
    crate::OwnerOnly::new()?.make_folder(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_file_is_replaced_whole_whatever_a_crash_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(dir.path().join("key.new"), "half").unwrap();
        for text in ["one", "two"] {
            write_private(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert!(!dir.path().join("key.new").exists());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_is_replaced_keeps_its_owner_and_who_may_read_it() {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        // Only root may give anything away.
        let own = fs::metadata(dir.path()).unwrap().uid();
        let service = if own == 0 { 4711 } else { own };
        let is = || {
            let metadata = fs::metadata(&path).unwrap();
            (metadata.uid(), metadata.permissions().mode() & 0o777)
        };
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        chown(&path, Some(service), None).unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), is()), ("new", (service, 0o640)));
        fs::remove_file(&path).unwrap();
        chown(dir.path(), Some(service), None).unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(is(), (service, 0o600));
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_gets_its_permissions_in_either_case() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        for (access, mode) in [(Access::Private, 0o700), (Access::Passage, 0o711)] {
            make_folder(&path, access).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
        }
    }
}
