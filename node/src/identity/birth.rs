//! How a folder comes to hold an identity, and is brought up to its chain.

use std::path::Path;

use homehost_protocol::chain::{Chain, SignedKeyEvent};
use homehost_protocol::keys::{DeviceKey, KeyDigest};
use homehost_runtime::files::{Access, make_folder};

use super::folder::{self, Folder};
use super::interim::{self, Interim};
use super::phrase::Phrase;
use super::{Identity, IdentityError, Prepared, events, joining};

impl Identity {
    /// Whether a folder holds an identity, or the rest of one. What is there is
    /// never replaced by a new one.
    pub(crate) fn exists(folder: &Path) -> bool {
        let names = [folder::CHAIN, folder::GENESIS, folder::DEVICE_KEY, folder::RECOVERY];
        names.iter().any(|name| folder.join(name).exists())
    }

    /// Opens the identity in a folder, or creates it there on the first start,
    /// with an interim recovery key until its owner has a phrase.
    ///
    /// # Errors
    /// See [`IdentityError`]. A file that is damaged is never replaced.
    pub(crate) fn open(path: &Path) -> Result<Self, IdentityError> {
        make_folder(path, Access::Private)
            .map_err(|source| IdentityError::Io { path: path.to_owned(), source })?;
        let folder = Folder(path.to_owned());
        let chain = match folder.chain()? {
            Some(chain) => chain,
            // A device key without a chain is a chain that was lost.
            None if folder.has(folder::DEVICE_KEY) => return Err(folder.damaged(folder::CHAIN)),
            None => {
                let next = Interim::read_or_new(&folder)?.commitment();
                bear(&folder, next)?
            }
        };
        Self::settle(folder, chain)
    }

    /// Makes a new identity whose owner has its phrase.
    ///
    /// # Errors
    /// See [`IdentityError`]; one that exists is not replaced.
    pub(crate) fn create(path: &Path, phrase: &Phrase) -> Result<Self, IdentityError> {
        let folder = empty_folder(path)?;
        let chain = bear(&folder, phrase.commitment(1))?;
        Self::settle(folder, chain)
    }

    /// Makes the files of a root whose own are lost, from its chain as others
    /// have it. `rotate` signs the event that brings in the prepared key.
    ///
    /// # Errors
    /// See [`IdentityError`]; an identity that exists is not replaced.
    pub(crate) fn recover(
        path: &Path,
        chain: Chain,
        rotate: impl FnOnce(&Prepared) -> SignedKeyEvent,
    ) -> Result<Self, IdentityError> {
        let folder = empty_folder(path)?;
        // Nothing was signed with a key that a crash left behind.
        let pending = folder.key_or_new(folder::PENDING_KEY)?;
        let mut prepared = Prepared { chain, key: pending.public() };
        let event = rotate(&prepared);
        prepared.chain.extend(&event).map_err(events::not_next)?;
        if prepared.chain.operating_key() != Some(prepared.key) {
            let text = "this event does not bring in the key of this machine";
            return Err(IdentityError::Wrong(text.to_owned()));
        }
        folder.write_chain(&prepared.chain)?;
        Self::settle(folder, prepared.chain)
    }

    /// Brings the files up to a chain that is there already, and reads the rest.
    pub(super) fn settle(folder: Folder, chain: Chain) -> Result<Self, IdentityError> {
        if !folder.has(folder::CHAIN) {
            folder.write_chain(&chain)?;
        }
        folder.remove(folder::GENESIS)?;
        let named = |key: &Option<DeviceKey>| {
            key.as_ref().is_some_and(|key| chain.device_of(&key.public()).is_some())
        };
        let device = folder.key(folder::DEVICE_KEY)?;
        let pending = folder.key(folder::PENDING_KEY)?;
        if named(&pending) && !named(&device) {
            folder.rename(folder::PENDING_KEY, folder::DEVICE_KEY)?;
        }
        let device =
            folder.key(folder::DEVICE_KEY)?.ok_or_else(|| folder.damaged(folder::DEVICE_KEY))?;
        if folder.key(folder::PENDING_KEY)?.is_some_and(|key| key.public() == device.public()) {
            folder.shred(folder::PENDING_KEY)?;
        }
        // No key of the first epoch has ended but those that the chain names.
        let known = chain.epoch() > 0
            || chain.operating_key() == Some(device.public())
            || chain.devices().values().any(|other| other.key == device.public());
        if !known {
            return Err(folder.damaged(folder::DEVICE_KEY));
        }
        // Written before a revocation, and of no use after the next rotation.
        if chain.operating_key().is_some() {
            folder.remove(folder::REVOCATION)?;
        }
        let mut joining = joining::read(&folder)?;
        if joining == Some(chain.root()) {
            joining::finish(&folder)?;
            joining = None;
        }
        interim::wipe_if_used(&folder, &chain)?;
        let node = folder.key_or_new(folder::NODE_KEY)?;
        Ok(Self { folder, node, device, chain, joining })
    }
}

/// A folder for an identity that is not there yet.
fn empty_folder(path: &Path) -> Result<Folder, IdentityError> {
    if Identity::exists(path) {
        let text = format!("{} holds an identity already", path.display());
        return Err(IdentityError::Taken(text));
    }
    make_folder(path, Access::Private)
        .map_err(|source| IdentityError::Io { path: path.to_owned(), source })?;
    Ok(Folder(path.to_owned()))
}

/// Makes the chain of a new root, which comes before the device key's own file.
fn bear(folder: &Folder, next: KeyDigest) -> Result<Chain, IdentityError> {
    let device = folder.key_or_new(folder::PENDING_KEY)?;
    let chain = Chain::genesis(device.public(), next);
    folder.write_chain(&chain)?;
    Ok(chain)
}
