//! Copies of this program, named by what is in them.
//!
//! A shim runs for as long as its game, which can be months. It runs from a copy
//! of its own, so that the program can be replaced in the meantime.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::shim::platform::make_dir;

/// Puts a copy of `exe` into `store`, unless it is there, and removes others
/// that no process holds.
pub(crate) fn install(exe: &Path, store: &Path) -> io::Result<PathBuf> {
    make_dir(store, 0o700)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(exe)?)?;
    let name =
        format!("homehost-{}{}", &hasher.finalize().to_hex()[..32], std::env::consts::EXE_SUFFIX);
    let copy = store.join(&name);
    if !copy.exists() {
        let new = store.join(format!("{name}.{}.new", std::process::id()));
        let _ = std::fs::remove_file(&new);
        // Never a link: a program that runs cannot be written to, and whoever
        // updates this one in place would be refused while a game runs.
        std::fs::copy(exe, &new)?;
        let file = File::options().write(true).open(&new)?;
        #[cfg(unix)]
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        file.sync_all()?;
        drop(file);
        std::fs::rename(&new, &copy)?;
    }
    for entry in std::fs::read_dir(store)?.flatten() {
        if entry.file_name() != *name {
            // A running program can be unlinked on unix and refuses elsewhere.
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_kept_and_earlier_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let (exe, store) = (dir.path().join("exe"), dir.path().join("store"));
        std::fs::write(&exe, "one").unwrap();
        let one = install(&exe, &store).unwrap();
        assert_eq!(install(&exe, &store).unwrap(), one);
        // Written to in place, and replaced as an update does it: by another file of that name.
        std::fs::write(&exe, "half").unwrap();
        assert_eq!(std::fs::read(&one).unwrap(), b"one");
        std::fs::remove_file(&exe).unwrap();
        assert_eq!(std::fs::read(&one).unwrap(), b"one");
        std::fs::write(&exe, "two").unwrap();
        let two = install(&exe, &store).unwrap();
        assert!(two != one && !one.exists() && two.exists());
    }
}
