//! Who this node is: keys as files, readable by their owner alone.
//!
//! `node.key` is the machine's transport identity and may be replaced at will.
//! `device.key` signs records, as far as `chain` — the root's key events, which
//! are public — names it. `recovery.seed` is what the recovery phrase stands
//! for; it leaves the folder once its owner has the words. `pending.key` is the
//! device key of a rotation under way.
//!
//! Every change is one file that is replaced: `chain`. What comes before it may
//! be lost, and what comes after it is made up for when the folder is opened.

pub(crate) mod backup;
mod folder;
mod fork;
pub(crate) mod keys;
pub(crate) mod phrase;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use homehost_protocol::chain::{Chain, ChainError, Device, Relation, SignedKeyEvent};
use homehost_protocol::keys::{DeviceKey, KeyDigest, KeyEvent, KeyEventKind, PublicKey};
use homehost_protocol::record::RecordSigner;
use homehost_protocol::{NetworkName, NodeId, RootId, UnixMillis};
use homehost_runtime::files::{Access, make_folder};
use thiserror::Error;
use zeroize::Zeroizing;

use folder::Folder;
pub(crate) use fork::Fork;
use phrase::Phrase;

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

/// What lies on this disk of the recovery phrase.
#[derive(Debug)]
pub(crate) enum Recovery {
    /// Nothing: its owner has it.
    None,
    /// All of it, until its owner has seen it.
    Phrase(Phrase),
    /// The one recovery key of an identity that was born before phrases.
    OldKey(DeviceKey),
}

/// Where the recovery phrase is, as far as the files tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PhraseState {
    /// With its owner.
    WithOwner,
    /// On this disk, unseen.
    Unseen,
    /// There is none: an identity of an earlier version.
    Impossible,
}

/// Whether a new phrase is put on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Its owner has not seen it.
    Phrase,
    /// Its owner has it.
    Nothing,
}

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
    /// Whether a folder holds an identity, or the rest of one. What is there is
    /// never replaced by a new one.
    pub(crate) fn exists(folder: &Path) -> bool {
        let names = [folder::CHAIN, folder::GENESIS, folder::DEVICE_KEY, folder::RECOVERY];
        names.iter().any(|name| folder.join(name).exists())
    }

    /// Opens the identity in a folder, or creates it there on the first start,
    /// with its phrase on the disk until its owner asks for it.
    ///
    /// # Errors
    /// See [`IdentityError`]. A file that is damaged is never replaced.
    pub(crate) fn open(path: &Path) -> Result<Self, IdentityError> {
        make_folder(path, Access::Private)
            .map_err(|source| IdentityError::Io { path: path.to_owned(), source })?;
        let folder = Folder(path.to_owned());
        let chain = match folder.chain()? {
            Some(chain) => chain,
            None => {
                let phrase = Phrase::random().map_err(|error| folder.io("", error))?;
                bear(&folder, &phrase, Keep::Phrase)?
            }
        };
        Self::settle(folder, chain)
    }

    /// Makes a new identity from a phrase.
    ///
    /// # Errors
    /// See [`IdentityError`]; one that exists is not replaced.
    pub(crate) fn create(path: &Path, phrase: &Phrase, keep: Keep) -> Result<Self, IdentityError> {
        if Self::exists(path) {
            let text = format!("{} holds an identity already", path.display());
            return Err(IdentityError::Taken(text));
        }
        make_folder(path, Access::Private)
            .map_err(|source| IdentityError::Io { path: path.to_owned(), source })?;
        let folder = Folder(path.to_owned());
        let chain = bear(&folder, phrase, keep)?;
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
        if Self::exists(path) {
            let text = format!("{} holds an identity already", path.display());
            return Err(IdentityError::Taken(text));
        }
        make_folder(path, Access::Private)
            .map_err(|source| IdentityError::Io { path: path.to_owned(), source })?;
        let folder = Folder(path.to_owned());
        // Nothing was signed with a key that a crash left behind.
        let pending = folder.key_or_new(folder::PENDING_KEY)?;
        let mut prepared = Prepared { chain, key: pending.public() };
        let event = rotate(&prepared);
        prepared.chain.extend(&event).map_err(not_next)?;
        if prepared.chain.operating_key() != Some(prepared.key) {
            let text = "this event does not bring in the key of this machine";
            return Err(IdentityError::Wrong(text.to_owned()));
        }
        folder.write_chain(&prepared.chain)?;
        Self::settle(folder, prepared.chain)
    }

    /// Brings the files up to a chain that is there already, and reads the rest.
    fn settle(folder: Folder, chain: Chain) -> Result<Self, IdentityError> {
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
        let mut joining = read_joining(&folder)?;
        if joining == Some(chain.root()) {
            finish_join(&folder)?;
            joining = None;
        }
        let node = folder.key_or_new(folder::NODE_KEY)?;
        Ok(Self { folder, node, device, chain, joining })
    }

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

    /// Where the recovery phrase is.
    pub(crate) fn phrase_state(&self) -> PhraseState {
        match std::fs::metadata(self.folder.path(folder::RECOVERY)) {
            Err(_) => PhraseState::WithOwner,
            Ok(file) if file.len() == phrase::ENTROPY_BYTES as u64 => PhraseState::Unseen,
            Ok(_) => PhraseState::Impossible,
        }
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

    /// Makes the key of the next rotation, or finds the one of a rotation that
    /// was begun and cut off.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub(crate) fn prepare(&self) -> Result<Prepared, IdentityError> {
        let pending = self.folder.key_or_new(folder::PENDING_KEY)?;
        Ok(Prepared { chain: self.chain.clone(), key: pending.public() })
    }

    /// Goes on with a rotation to the prepared key, or with a revocation and the
    /// record that carries it. After a rotation the machines of `keep` are added
    /// again.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub(crate) fn apply(
        &mut self,
        event: &SignedKeyEvent,
        keep: &[u8],
        revocation: Option<&[u8]>,
    ) -> Result<(), IdentityError> {
        let KeyEvent { kind, key, .. } = event
            .event()
            .map_err(|_| IdentityError::Wrong("this is not a key event".to_owned()))?;
        let mut chain = self.chain.clone();
        let before = chain.devices().clone();
        match kind {
            KeyEventKind::Rotate => {
                let pending = self.folder.key(folder::PENDING_KEY)?;
                let Some(pending) = pending.filter(|pending| Some(pending.public()) == key) else {
                    let text = "this rotation is to a key that this machine did not prepare: \
                                run `homehost id rotate` again";
                    return Err(IdentityError::NotNow(text.to_owned()));
                };
                chain.extend(event).map_err(not_next)?;
                add_again(&mut chain, &pending, &before, keep)?;
            }
            KeyEventKind::Revoke => chain.extend(event).map_err(not_next)?,
            KeyEventKind::Genesis | KeyEventKind::AddDevice | KeyEventKind::RevokeDevice => {
                let text = "only a rotation or a revocation is handed over signed";
                return Err(IdentityError::Wrong(text.to_owned()));
            }
        }
        if let Some(record) = revocation {
            self.folder.write(folder::REVOCATION, record)?;
        }
        self.adopt(chain)
    }

    /// Adds a machine; its number.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub(crate) fn add_device(&mut self, key: PublicKey) -> Result<u8, IdentityError> {
        self.is_device_zero("add a machine")?;
        if let Some(dev) = self.chain.device_of(&key) {
            let text = format!("this key is device {dev} already: see `homehost id devices`");
            return Err(IdentityError::Taken(text));
        }
        let dev = self.chain.free_device().ok_or_else(full)?;
        let event = self.chain.addition(dev, key);
        self.extend_as_device_zero(&event)?;
        Ok(dev)
    }

    /// Ends a machine's right to sign.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub(crate) fn revoke_device(&mut self, dev: u8) -> Result<(), IdentityError> {
        self.is_device_zero("revoke another")?;
        if dev == 0 {
            let text = "device 0 is this machine: `homehost id rotate` gives it a new key, \
                        `homehost id revoke` ends all keys";
            return Err(IdentityError::Wrong(text.to_owned()));
        }
        if self.chain.devices().get(&dev).is_none_or(|device| device.revoked) {
            let text = format!("device {dev} does not sign: see `homehost id devices`");
            return Err(IdentityError::NotNow(text));
        }
        let event = self.chain.removal(dev);
        self.extend_as_device_zero(&event)
    }

    fn is_device_zero(&self, to: &str) -> Result<(), IdentityError> {
        match self.standing() {
            Standing::Signs(0) => Ok(()),
            Standing::Signs(dev) => Err(IdentityError::NotNow(format!(
                "only device 0 can {to}, and this is device {dev}: do it there"
            ))),
            Standing::Ended(why) => Err(IdentityError::NotNow(why)),
        }
    }

    fn extend_as_device_zero(&mut self, event: &KeyEvent) -> Result<(), IdentityError> {
        let mut chain = self.chain.clone();
        let event = SignedKeyEvent::sign(event, &chain.root(), &self.device);
        chain.extend(&event).map_err(not_next)?;
        self.adopt(chain)
    }

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

    /// Takes over a chain that was learned: a newer one of the own root, or one
    /// of the root that this machine waits to join, once it names this machine.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub(crate) fn offer_chain(&mut self, chain: &Chain) -> Result<Offered, IdentityError> {
        if chain.root() == self.root() {
            return match chain.relation(&self.chain) {
                Relation::Same | Relation::Older => Ok(Offered::Unchanged),
                Relation::Conflict => Ok(Offered::Conflict),
                Relation::Newer => self.adopt(chain.clone()).map(|()| Offered::Changed),
            };
        }
        if self.joining != Some(chain.root()) || chain.device_of(&self.key()).is_none() {
            return Ok(Offered::Unchanged);
        }
        self.keep_former()?;
        self.adopt(chain.clone())?;
        Ok(Offered::Changed)
    }

    /// Copies what this machine was until now to where it can be found.
    fn keep_former(&self) -> Result<(), IdentityError> {
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

    /// The chain is this from now on: after its file is written, all else
    /// follows from it.
    fn adopt(&mut self, chain: Chain) -> Result<(), IdentityError> {
        self.folder.write_chain(&chain)?;
        *self = Self::settle(self.folder.clone(), chain)?;
        Ok(())
    }
}

/// Makes the files of a new root. The chain comes before the device key's own
/// file: a device key without a chain is a chain that was lost.
fn bear(folder: &Folder, phrase: &Phrase, keep: Keep) -> Result<Chain, IdentityError> {
    let recovery = match folder.recovery()? {
        // Before the chain exists nothing was ever signed, so what a crash left
        // behind is used.
        Recovery::None if keep == Keep::Phrase => {
            folder.write(folder::RECOVERY, phrase.entropy().as_ref())?;
            Recovery::Phrase(phrase.clone())
        }
        Recovery::None => Recovery::Phrase(phrase.clone()),
        found => found,
    };
    let device = folder.key(folder::DEVICE_KEY)?;
    let (device, next) = match (recovery, device) {
        // Earlier versions wrote the device key first, and never rotated.
        (Recovery::OldKey(key), device) => {
            let device = device.map_or_else(|| folder.key_or_new(folder::PENDING_KEY), Ok)?;
            (device, KeyDigest::of(&key.public()))
        }
        (Recovery::Phrase(phrase), None) => {
            (folder.key_or_new(folder::PENDING_KEY)?, phrase.commitment(1))
        }
        _ => return Err(folder.damaged(folder::CHAIN)),
    };
    let chain = Chain::genesis(device.public(), next);
    folder.write_chain(&chain)?;
    Ok(chain)
}

fn add_again(
    chain: &mut Chain,
    by: &DeviceKey,
    before: &BTreeMap<u8, Device>,
    keep: &[u8],
) -> Result<(), IdentityError> {
    for dev in keep {
        let Some(device) = before.get(dev).filter(|device| !device.revoked) else {
            let text = format!("there is no device {dev} to keep: see `homehost id devices`");
            return Err(IdentityError::Wrong(text));
        };
        let event = chain.addition(*dev, device.key);
        chain.extend(&SignedKeyEvent::sign(&event, &chain.root(), by)).map_err(not_next)?;
    }
    Ok(())
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

fn read_joining(folder: &Folder) -> Result<Option<RootId>, IdentityError> {
    let Some(bytes) = folder.read(folder::JOINING)? else { return Ok(None) };
    let root = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse().ok());
    root.map(Some).ok_or_else(|| folder.damaged(folder::JOINING))
}

/// What is left to do once the chain is that of the root that was joined.
fn finish_join(folder: &Folder) -> Result<(), IdentityError> {
    // It is of the former root, and was copied to its folder.
    folder.shred(folder::RECOVERY)?;
    folder.remove(folder::JOINING)
}

fn not_next(error: ChainError) -> IdentityError {
    match error {
        ChainError::Count => full(),
        ChainError::NotCommitted(_) => IdentityError::Wrong(
            "this event is not signed with the recovery key of this identity: look whether the \
             recovery phrase is that of the root that `homehost id` shows"
                .to_owned(),
        ),
        error => IdentityError::NotNow(format!(
            "{error}: the keys have changed meanwhile, so look at `homehost id` and try again"
        )),
    }
}

fn full() -> IdentityError {
    let text = "the key chain is full: `homehost id rotate` drops the events of devices and \
                makes room";
    IdentityError::NotNow(text.to_owned())
}

impl Identity {
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

    /// What lies on this disk of the recovery phrase.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub(crate) fn recovery(path: &Path) -> Result<Recovery, IdentityError> {
        Folder(path.to_owned()).recovery()
    }

    /// Removes the phrase from this disk: its owner has it.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub(crate) fn forget_phrase(path: &Path) -> Result<(), IdentityError> {
        Folder(path.to_owned()).shred(folder::RECOVERY)
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

#[cfg(test)]
mod tests;
