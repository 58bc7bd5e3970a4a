//! The folder of one server: `data` is the game's, `logs` and `run` are ours.
//!
//! ```text
//! <servers>/<folder>/
//!   data/   the game's own; the only place it can write to
//!   logs/   console.log and up to four older ones
//!   run/    start.json, state.json, exit.json, lock, console, stdin, control
//! ```

use std::io;
use std::path::{Path, PathBuf};

use crate::account::Account;
use crate::shim::files::{DATA_DIR, LOG_DIR, RUN_DIR};
use crate::shim::platform::make_dir;

/// Nobody but us.
const PRIVATE: u32 = 0o700;
/// Others may pass through but not look around.
const PASSABLE: u32 = 0o711;

/// The folder of one server.
#[derive(Clone, Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(servers: &Path, name: &str) -> Self {
        Self(servers.join(name))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.0.join(DATA_DIR)
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.0.join(LOG_DIR)
    }

    pub(crate) fn run(&self, file: &str) -> PathBuf {
        self.0.join(RUN_DIR).join(file)
    }

    /// Makes what is missing and gives the game its part.
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub(crate) fn prepare(&self, account: Option<&Account>) -> Result<(), String> {
        let mode = if account.is_some() { PASSABLE } else { PRIVATE };
        let servers = self.0.parent().unwrap_or(&self.0).to_owned();
        let dirs = [
            (servers, mode),
            (self.0.clone(), mode),
            (self.logs(), PRIVATE),
            (self.0.join(RUN_DIR), PRIVATE),
            (self.data(), PRIVATE),
        ];
        for (dir, mode) in dirs {
            // Who else may read a world is the person's to decide.
            if dir == self.data() && dir.exists() {
                continue;
            }
            make_dir(&dir, mode)
                .map_err(|error| format!("cannot make the folder {} ({error})", dir.display()))?;
        }
        match account {
            Some(account) => self.give_data_to(account),
            None => Ok(()),
        }
    }

    /// Removes everything, or everything but the game's own data.
    pub(crate) fn remove(&self, keep_data: bool) -> io::Result<()> {
        let dirs = match keep_data {
            true => vec![self.logs(), self.0.join(RUN_DIR)],
            false => vec![self.0.clone()],
        };
        for dir in dirs {
            match std::fs::remove_dir_all(dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    #[cfg(unix)]
    fn give_data_to(&self, account: &Account) -> Result<(), String> {
        let data = self.data();
        give(&data, account).map_err(|error| {
            format!("cannot give {} to {} ({error})", data.display(), account.name)
        })?;
        match blocked_at(&data, account) {
            Some(dir) => Err(format!(
                "the game runs as the user {}, who may not enter {}: run `chmod o+x {}` or \
                 choose another data folder",
                account.name,
                dir.display(),
                dir.display()
            )),
            None => Ok(()),
        }
    }

    #[cfg(not(unix))]
    fn give_data_to(&self, _account: &Account) -> Result<(), String> {
        Ok(())
    }
}

/// Gives a tree to the account, unless its top is the account's already: a
/// world can have a million files.
#[cfg(unix)]
fn give(top: &Path, account: &Account) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, lchown};
    if std::fs::symlink_metadata(top)?.uid() == account.uid {
        return Ok(());
    }
    let mut dirs = vec![top.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let entry = entry?;
            // A link is given away, not what it leads to.
            if entry.file_type()?.is_dir() {
                dirs.push(entry.path());
            } else {
                lchown(entry.path(), Some(account.uid), Some(account.gid))?;
            }
        }
        if dir != top {
            lchown(&dir, Some(account.uid), Some(account.gid))?;
        }
    }
    // Last, so that an interrupted walk is repeated.
    lchown(top, Some(account.uid), Some(account.gid))
}

/// The first folder on the way to `path` that the account may not enter.
#[cfg(unix)]
fn blocked_at(path: &Path, account: &Account) -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt as _;
    let mut above: Vec<_> = path.ancestors().skip(1).collect();
    above.reverse();
    above.into_iter().filter(|dir| !dir.as_os_str().is_empty()).find_map(|dir| {
        let metadata = std::fs::metadata(dir).ok()?;
        let may_enter = if metadata.uid() == account.uid {
            0o100
        } else if metadata.gid() == account.gid {
            0o010
        } else {
            0o001
        };
        (metadata.mode() & may_enter == 0).then(|| dir.to_owned())
    })
}

/// A folder name from a server's name: lower-case letters, digits and dashes.
pub(crate) fn slug(name: &str) -> String {
    /// Long enough to be recognised, short enough for any file system.
    const SLUG_BYTES_MAX: usize = 40;
    let mut slug = String::new();
    for char in name.chars().flat_map(char::to_lowercase) {
        if char.is_ascii_alphanumeric() {
            slug.push(char);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
        if slug.len() >= SLUG_BYTES_MAX {
            break;
        }
    }
    let slug = slug.trim_end_matches('-');
    // Names that Windows keeps for devices cannot be folders.
    let reserved = ["con", "prn", "aux", "nul"].contains(&slug)
        || (slug.len() == 4 && (slug.starts_with("com") || slug.starts_with("lpt")));
    if slug.is_empty() || reserved {
        format!("server-{slug}").trim_end_matches('-').into()
    } else {
        slug.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_safe_folder_names() {
        for (name, expected) in [
            ("My Server!", "my-server"),
            ("../../etc/passwd", "etc-passwd"),
            ("Ünïcode", "n-code"),
            ("🦀", "server"),
            ("", "server"),
            ("COM1", "server-com1"),
            ("nul", "server-nul"),
        ] {
            assert_eq!(slug(name), expected, "{name}");
        }
        assert!(slug(&"a".repeat(200)).len() <= 40);
    }

    #[cfg(unix)]
    #[test]
    fn a_closed_folder_on_the_way_is_named() {
        let top = tempfile::tempdir().unwrap();
        let data = top.path().join("a/data");
        std::fs::create_dir_all(&data).unwrap();
        make_dir(top.path(), 0o755).unwrap();
        make_dir(&top.path().join("a"), 0o700).unwrap();
        let account = Account { uid: 4_000_000_000, gid: 4_000_000_000, name: "x".into() };
        assert_eq!(blocked_at(&data, &account), Some(top.path().join("a")));
        make_dir(&top.path().join("a"), 0o711).unwrap();
        assert_eq!(blocked_at(&data, &account), None);
    }

    #[test]
    fn data_can_be_kept() {
        let top = tempfile::tempdir().unwrap();
        let folder = Folder::new(top.path(), "a");
        folder.prepare(None).unwrap();
        std::fs::write(folder.data().join("world"), "w").unwrap();
        folder.remove(true).unwrap();
        assert!(folder.data().join("world").exists() && !folder.logs().exists());
        folder.remove(false).unwrap();
        folder.remove(false).unwrap();
        assert!(!folder.path().exists());
    }
}
