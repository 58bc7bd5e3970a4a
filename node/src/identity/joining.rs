//! Becoming a machine of another root.

use homehost_protocol::RootId;
use homehost_runtime::files::{Access, make_folder};

use super::folder::{self, Folder};
use super::{Identity, IdentityError};

impl Identity {
    /// Waits for a chain of another root that names this machine; `None` waits
    /// no longer.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub(crate) fn join(&mut self, root: Option<RootId>) -> Result<(), IdentityError> {
        match root {
            None => self.folder.remove(folder::JOINING)?,
            Some(root) if root == self.root() => {
                let text = "this machine belongs to that identity already: see `homehost id`";
                return Err(IdentityError::Taken(text.to_owned()));
            }
            Some(root) => self.folder.write(folder::JOINING, root.to_string().as_bytes())?,
        }
        self.joining = root;
        Ok(())
    }

    /// Copies what this machine was until now to where it can be found.
    pub(super) fn keep_former(&self) -> Result<(), IdentityError> {
        let root = self.root().to_string();
        let path = self.folder.path(&format!("former-{}", &root[..8]));
        make_folder(&path, Access::Private)
            .map_err(|source| IdentityError::Io { path: path.clone(), source })?;
        let former = Folder(path);
        for name in [folder::CHAIN, folder::DEVICE_KEY, folder::RECOVERY] {
            if let Some(bytes) = self.folder.read(name)? {
                former.write(name, &bytes)?;
            }
        }
        Ok(())
    }
}

/// The root that a machine waits to join.
pub(super) fn read(folder: &Folder) -> Result<Option<RootId>, IdentityError> {
    let Some(bytes) = folder.read(folder::JOINING)? else { return Ok(None) };
    let root = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse().ok());
    root.map(Some).ok_or_else(|| folder.damaged(folder::JOINING))
}

/// What is left to do once the chain is that of the root that was joined.
pub(super) fn finish(folder: &Folder) -> Result<(), IdentityError> {
    // It is of the former root, and was copied to its folder.
    folder.shred(folder::RECOVERY)?;
    folder.remove(folder::JOINING)
}
