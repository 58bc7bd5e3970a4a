//! The recovery key of an identity that was born with nobody watching.
//!
//! Such an identity has no recovery phrase, so none lies on its disk. It is
//! committed to one key that does, until its owner writes a phrase down: then
//! the key signs the event that commits to the phrase, which is all it could
//! ever do, and is wiped. A release before kept a phrase in its place, which is
//! read here as the keys that follow from it and is never shown.

use homehost_protocol::chain::Chain;
use homehost_protocol::keys::{DeviceKey, KeyDigest};

use super::IdentityError;
use super::folder::{Folder, RECOVERY};
use super::phrase::{ENTROPY_BYTES, Phrase};

/// What lies on this disk that can end the keys of its root.
#[derive(Debug)]
pub(crate) struct Interim(Kept);

#[derive(Debug)]
enum Kept {
    /// One key, for one epoch.
    Key(DeviceKey),
    /// What an earlier release kept: a key for each epoch.
    Phrase(Phrase),
}

impl Interim {
    /// The one in a folder.
    ///
    /// # Errors
    /// When the file cannot be read, or is none.
    pub(super) fn read(folder: &Folder) -> Result<Option<Self>, IdentityError> {
        let Some(bytes) = folder.read(RECOVERY)? else { return Ok(None) };
        if let Ok(entropy) = <&[u8; ENTROPY_BYTES]>::try_from(bytes.as_slice()) {
            return Ok(Some(Self(Kept::Phrase(Phrase::of_entropy(entropy)))));
        }
        let key = folder.key(RECOVERY)?.ok_or_else(|| folder.damaged(RECOVERY))?;
        Ok(Some(Self(Kept::Key(key))))
    }

    /// The one to be born with. Before the chain exists nothing was ever signed,
    /// so what a birth that was cut off left behind is used.
    ///
    /// # Errors
    /// As [`Self::read`], or when it cannot be written.
    pub(super) fn read_or_new(folder: &Folder) -> Result<Self, IdentityError> {
        match Self::read(folder)? {
            Some(found) => Ok(found),
            None => folder.key_or_new(RECOVERY).map(|key| Self(Kept::Key(key))),
        }
    }

    /// What a genesis says of it.
    pub(super) fn commitment(&self) -> KeyDigest {
        KeyDigest::of(&self.key(1).public())
    }

    /// The key that begins an epoch.
    fn key(&self, epoch: u16) -> DeviceKey {
        match &self.0 {
            Kept::Key(key) => key.clone(),
            Kept::Phrase(phrase) => phrase.key(epoch),
        }
    }

    /// The key that may rotate a chain as it stands, if it is this one.
    pub(crate) fn key_for(&self, chain: &Chain) -> Option<DeviceKey> {
        let key = self.key(chain.epoch().checked_add(1)?);
        (KeyDigest::of(&key.public()) == chain.next()).then_some(key)
    }

    /// Whether there may be a paper with words that will count no longer.
    pub(crate) fn is_of_words(&self) -> bool {
        matches!(self.0, Kept::Phrase(_))
    }

    /// Whether it began an epoch of a chain, which is then committed to others.
    fn was_used(&self, chain: &Chain) -> bool {
        let events = chain.to_body().events;
        events.iter().filter_map(|event| event.event().ok()).any(|event| {
            event.by.zip(event.epoch).is_some_and(|(by, epoch)| by == self.key(epoch).public())
        })
    }
}

/// Wipes what was used and can do nothing any more. What fits the chain stays,
/// and so does what has nothing to do with it: a damaged key was not used.
pub(super) fn wipe_if_used(folder: &Folder, chain: &Chain) -> Result<(), IdentityError> {
    let used = match Interim::read(folder) {
        // A removal that was cut off is finished.
        Ok(None) => true,
        Ok(Some(interim)) => interim.key_for(chain).is_none() && interim.was_used(chain),
        Err(IdentityError::Damaged { .. }) => false,
        Err(error) => return Err(error),
    };
    if used { folder.shred(RECOVERY) } else { Ok(()) }
}
