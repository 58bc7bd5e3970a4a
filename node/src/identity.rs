//! Who this node is: keys as files, readable by their owner alone.
//!
//! `node.key` is the machine's transport identity and may be replaced at will.
//! `device.key` signs records, as far as `chain` — the root's key events, which
//! are public — names it. `recovery.seed` is the interim recovery key of an
//! identity whose owner has no phrase yet; a phrase itself is never here.
//! `pending.key` is the device key of a rotation under way.
//!
//! Every change is one file that is replaced: `chain`. What comes before it may
//! be lost, and what comes after it is made up for when the folder is opened.

pub(crate) mod backup;
mod birth;
mod events;
mod folder;
mod fork;
mod interim;
mod joining;
pub(crate) mod keys;
pub(crate) mod phrase;

use std::io;
use std::path::{Path, PathBuf};

use homehost_api::PhraseState;
use homehost_protocol::chain::Chain;
use homehost_protocol::keys::{DeviceKey, PublicKey};
use homehost_protocol::record::RecordSigner;
use homehost_protocol::{NetworkName, NodeId, RootId, UnixMillis};
use thiserror::Error;
use zeroize::Zeroizing;

use folder::Folder;
pub(crate) use fork::Fork;
pub(crate) use interim::Interim;

/// Why the identity could not be opened or changed. It is as it was.
#[derive(Debug, Error)]
pub(crate) enum IdentityError {
    /// A file could not be read or written.
    #[error("failed to use {}: {source}; the folder must belong to you and have free space", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{} is damaged or missing: move the folder `identity` away, then bring it back from a backup with `homehost id restore FILE` or from the recovery phrase with `homehost id recover ROOT --via ADDR`, or begin as somebody new", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
    },
    /// The keys do not allow it as they are.
    #[error("{0}")]
    NotNow(String),
    /// It was asked for in a way that can never work.
    #[error("{0}")]
    Wrong(String),
    /// Something else has its place.
    #[error("{0}")]
    Taken(String),
}

/// How often an identity in use is looked at until its files fit each other;
/// the writes of a rotation take a few milliseconds.
const PEEKS: usize = 5;
/// Pause between two looks.
const PEEK_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// Whether this machine may sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// As this device.
    Signs(u8),
    /// No longer, or not yet; the sentence says what to do.
    Ended(String),
}

/// What became of a chain that was learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offered {
    /// It is the identity's from now on.
    Changed,
    /// Nothing new.
    Unchanged,
    /// It contradicts the one that is here: a key signed two different events.
    Conflict,
}

/// What a rotation or revocation needs to be signed elsewhere.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    /// The chain that it goes on from.
    pub(crate) chain: Chain,
    /// The key that a rotation brings in.
    pub(crate) key: PublicKey,
}

/// The keys of this node.
#[derive(Debug)]
pub(crate) struct Identity {
    folder: Folder,
    node: DeviceKey,
    device: DeviceKey,
    chain: Chain,
    joining: Option<RootId>,
}

impl Identity {
    /// Where the keys lie.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder.0
    }

    /// Seed of the transport key.
    ///
    /// # Errors
    /// When the file went away since it was opened.
    pub(crate) fn node_seed(&self) -> Result<[u8; 32], IdentityError> {
        let bytes = self.folder.read(folder::NODE_KEY)?;
        bytes
            .and_then(|bytes| bytes.as_slice().try_into().ok())
            .ok_or_else(|| self.folder.damaged(folder::NODE_KEY))
    }

    /// The machine on the mesh.
    pub(crate) fn node(&self) -> NodeId {
        NodeId(self.node.public().0)
    }

    /// The root.
    pub(crate) fn root(&self) -> RootId {
        self.chain.root()
    }

    /// Its key events.
    pub(crate) fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Public half of this machine's signing key.
    pub(crate) fn key(&self) -> PublicKey {
        self.device.public()
    }

    /// The root that this machine waits to join.
    pub(crate) fn joining(&self) -> Option<RootId> {
        self.joining
    }

    /// Whether its owner has a recovery phrase, as far as the files tell.
    pub(crate) fn phrase_state(&self) -> PhraseState {
        let interim = self.folder.has(folder::RECOVERY);
        if interim { PhraseState::NotYet } else { PhraseState::WithOwner }
    }

    /// Signs this owner's records for a network; none when this machine may not.
    pub(crate) fn signer(&self, network: NetworkName) -> Option<RecordSigner> {
        RecordSigner::of_chain(self.device.clone(), &self.chain, network)
    }

    /// The record of a revocation, as it was handed over with it.
    pub(crate) fn revocation(&self) -> Option<Vec<u8>> {
        let revoked = self.chain.operating_key().is_none();
        let bytes = revoked.then(|| self.folder.read(folder::REVOCATION).ok().flatten());
        bytes.flatten().map(|bytes| bytes.to_vec())
    }

    /// Whether this machine may sign, and if not, what to do.
    pub(crate) fn standing(&self) -> Standing {
        let key = self.device.public();
        if let Some(dev) = self.chain.device_of(&key) {
            return Standing::Signs(dev);
        }
        let text = key_text(&key);
        let since = self.chain_learned();
        let epoch = self.chain.epoch();
        let mut devices = self.chain.devices().iter();
        let taken_back = devices.find(|(_, device)| device.key == key).map(|(dev, _)| *dev);
        Standing::Ended(match (self.chain.operating_key(), taken_back) {
            (None, _) => format!(
                "all keys of this identity were revoked (epoch {epoch}, known here since {since}): \
                 `homehost id rotate` gives it a new one"
            ),
            (Some(_), Some(dev)) => format!(
                "this machine, device {dev}, was revoked (known here since {since}): to let it \
                 sign again, run `homehost id device add {text}` on device 0"
            ),
            (Some(_), None) => format!(
                "this machine's key was ended by a rotation (epoch {epoch}, known here since \
                 {since}): run `homehost id device add {text}` on device 0, or `homehost id rotate` \
                 here if device 0 is lost"
            ),
        })
    }

    /// Whether it came from a backup and has not heard from others since.
    pub(crate) fn is_fresh_from_backup(path: &Path) -> bool {
        path.join(folder::RESTORED).exists()
    }

    /// The same, of this one.
    pub(crate) fn is_fresh(&self) -> bool {
        Self::is_fresh_from_backup(self.folder())
    }

    /// Others have answered what became of these keys.
    ///
    /// # Errors
    /// When the note cannot be removed.
    pub(crate) fn heard_from_others(&self) -> Result<(), IdentityError> {
        self.folder.remove(folder::RESTORED)
    }

    /// When the chain was written here, for a person.
    fn chain_learned(&self) -> String {
        let modified = std::fs::metadata(self.folder.path(folder::CHAIN))
            .and_then(|file| file.modified())
            .ok()
            .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        modified.map_or_else(
            || "an unknown day".to_owned(),
            |since| {
                let at = UnixMillis(since.as_millis().try_into().unwrap_or(u64::MAX)).to_string();
                at.split('T').next().unwrap_or_default().to_owned()
            },
        )
    }

    /// Reads the key events of a folder that somebody else may be using.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub(crate) fn peek_chain(path: &Path) -> Result<Option<Chain>, IdentityError> {
        Folder(path.to_owned()).chain()
    }

    /// Reads an identity that somebody else may be using, and changes nothing.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub(crate) fn peek(path: &Path) -> Result<Self, IdentityError> {
        let folder = Folder(path.to_owned());
        for left in (0..PEEKS).rev() {
            let chain = folder.chain()?.ok_or_else(|| folder.damaged(folder::CHAIN))?;
            let key = |name| folder.key(name)?.ok_or_else(|| folder.damaged(name));
            let (node, device) = (key(folder::NODE_KEY)?, key(folder::DEVICE_KEY)?);
            // Between two writes of a rotation they do not fit each other.
            if left == 0 || chain.device_of(&device.public()).is_some() {
                return Ok(Self { folder, node, device, chain, joining: None });
            }
            std::thread::sleep(PEEK_PAUSE);
        }
        unreachable!("the last look returns")
    }

    /// The recovery key that lies in a folder until there is a phrase.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub(crate) fn interim(path: &Path) -> Result<Option<Interim>, IdentityError> {
        Interim::read(&Folder(path.to_owned()))
    }

    /// What a backup holds.
    fn secrets(&self) -> Result<backup::Contents, IdentityError> {
        let secret = |name: &str| -> Result<Zeroizing<Vec<u8>>, IdentityError> {
            self.folder.read(name)?.ok_or_else(|| self.folder.damaged(name))
        };
        Ok(backup::Contents {
            chain: self.chain.clone(),
            device: secret(folder::DEVICE_KEY)?,
            node: secret(folder::NODE_KEY)?,
            recovery: self.folder.read(folder::RECOVERY)?,
            revocation: match self.chain.operating_key() {
                None => self.folder.read(folder::REVOCATION)?.map(|bytes| bytes.to_vec()),
                Some(_) => None,
            },
            created: UnixMillis(homehost_runtime::wall_ms()),
        })
    }
}

/// A public key as a person passes it on.
pub(crate) fn key_text(key: &PublicKey) -> String {
    data_encoding::BASE32_NOPAD.encode(&key.0).to_ascii_lowercase()
}

/// Reads what [`key_text`] wrote.
pub(crate) fn parse_key(text: &str) -> Option<PublicKey> {
    let bytes = data_encoding::BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).ok()?;
    bytes.try_into().ok().map(PublicKey)
}

#[cfg(test)]
mod tests;
