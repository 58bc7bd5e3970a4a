//! Key chains: which keys sign for a root, and who may change that
//! (spec/records §5).
//!
//! A chain has a backbone of *epoch events* — genesis, rotations, revocations —
//! each signed by the key that the one before committed to, and the *device
//! events* of the current epoch, signed by that epoch's device 0. Device events
//! of past epochs are dropped: all keys of a past epoch have ended anyway.

use std::collections::BTreeMap;

use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cbor::{self, Blob, cbor_map};
use crate::ids::RootId;
use crate::keys::{DeviceKey, KeyDigest, KeyEvent, KeyEventKind, PublicKey};
use crate::limits::KEY_EVENTS_MAX;
use crate::record::host::CoSignature;
use crate::validate::KeyState;

/// Domain of a key event's signature.
const EVENT_DOMAIN: &[u8] = b"homehost-key/1";

/// One event and its signature, as `[bytes, signature or null]` on the wire. The
/// genesis has none: the root's id is its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedKeyEvent(Blob, Option<CoSignature>);

impl SignedKeyEvent {
    /// The unsigned first event of a root.
    pub fn genesis(key: PublicKey, next: KeyDigest) -> Self {
        Self(Blob(cbor::encode(&KeyEvent::genesis(key, next))), None)
    }

    /// Signs an event of `root` with the key that may.
    pub fn sign(event: &KeyEvent, root: &RootId, key: &DeviceKey) -> Self {
        let bytes = cbor::encode(event);
        let signature = key.signing().sign(&signing_input(root, &bytes)).to_bytes();
        Self(Blob(bytes), Some(CoSignature(signature)))
    }

    /// Reads an event from outside; the signature is not looked at.
    ///
    /// # Errors
    /// When it is not the one encoding of a key event.
    pub fn event(&self) -> Result<KeyEvent, cbor::DecodeError> {
        cbor::decode(&self.0.0)
    }

    /// The bytes for carrying one event by itself.
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// When it is not the one encoding of a signed event.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, cbor::DecodeError> {
        cbor::decode(bytes)
    }

    fn is_signed_by(&self, key: &PublicKey, root: &RootId) -> bool {
        let Some(signature) = &self.1 else { return false };
        VerifyingKey::from_bytes(&key.0).is_ok_and(|key| {
            let signature = Signature::from_bytes(&signature.0);
            key.verify_strict(&signing_input(root, &self.0.0), &signature).is_ok()
        })
    }
}

/// Domain, root, event.
fn signing_input(root: &RootId, event: &[u8]) -> Vec<u8> {
    [EVENT_DOMAIN, &root.0, event].concat()
}

cbor_map! {
    /// The body of a key chain record: all events, in order.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct KeyChain {
        /// Genesis first; device events of the last epoch at the end.
        list 1 events: SignedKeyEvent,
    }
}

/// Why events are not a chain. The text is for whoever made them.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ChainError {
    /// No event, or more than a chain may have.
    #[error("a key chain has 1 to {KEY_EVENTS_MAX} events")]
    Count,
    /// An event that cannot be read, or has fields of another kind.
    #[error("event {0} of the key chain is malformed")]
    Malformed(usize),
    /// An event that does not follow the one before.
    #[error("event {0} of the key chain does not follow the one before it")]
    Order(usize),
    /// A rotation or revocation by a key that was not committed to.
    #[error("event {0} of the key chain is by a key that was not committed to")]
    NotCommitted(usize),
    /// A wrong signature.
    #[error("event {0} of the key chain is wrongly signed")]
    Signature(usize),
}

/// One epoch of a root.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Epoch {
    digest: KeyDigest,
    /// Device 0's key; none after a revocation.
    key: Option<PublicKey>,
    /// Who signed the event that began it.
    by: Option<PublicKey>,
    next: KeyDigest,
}

/// A chain whose every event was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    root: RootId,
    epochs: Vec<Epoch>,
    devices: BTreeMap<u8, Device>,
    device_events: Vec<KeyDigest>,
    events: Vec<SignedKeyEvent>,
}

/// A machine other than device 0, in the current epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its signing key.
    pub key: PublicKey,
    /// Whether it may sign no longer.
    pub revoked: bool,
}

/// How two chains of one root stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// They say the same.
    Same,
    /// The first goes on where the second ends, or overrules it.
    Newer,
    /// The second goes on where the first ends, or overrules it.
    Older,
    /// Each denies the other: a key signed two different events in one place.
    Conflict,
}

impl Chain {
    /// Checks events from outside.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn verify(chain: &KeyChain) -> Result<Self, ChainError> {
        if chain.events.is_empty() || chain.events.len() > KEY_EVENTS_MAX {
            return Err(ChainError::Count);
        }
        let mut events = chain.events.iter();
        let genesis = events.next().ok_or(ChainError::Count)?;
        let mut verified = Self::begin(genesis)?;
        for (at, event) in events.enumerate() {
            verified.push(event, at + 1)?;
            // What a later epoch made void is left out, or one chain would have
            // several spellings.
            if verified.events.len() != at + 2 {
                return Err(ChainError::Order(at + 1));
            }
        }
        Ok(verified)
    }

    /// The chain of a root that has only been born.
    pub fn genesis(key: PublicKey, next: KeyDigest) -> Self {
        let genesis = SignedKeyEvent::genesis(key, next);
        Self::begin(&genesis).expect("a genesis of ours has its fields")
    }

    fn begin(signed: &SignedKeyEvent) -> Result<Self, ChainError> {
        let malformed = ChainError::Malformed(0);
        let event = signed.event().map_err(|_| malformed)?;
        let (Some(key), Some(next)) = (event.key, event.next) else { return Err(malformed) };
        let one_spelling = cbor::encode(&KeyEvent::genesis(key, next)) == signed.0.0;
        if !one_spelling || signed.1.is_some() {
            return Err(malformed);
        }
        let first = Epoch { digest: event.digest(), key: Some(key), by: None, next };
        Ok(Self {
            root: RootId::of_genesis(key, next),
            epochs: vec![first],
            devices: BTreeMap::new(),
            device_events: Vec::new(),
            events: vec![signed.clone()],
        })
    }

    /// Goes on with one more event. A rotation or revocation drops the device
    /// events of the epoch that it ends.
    ///
    /// # Errors
    /// See [`ChainError`]; the chain is as it was.
    pub fn extend(&mut self, event: &SignedKeyEvent) -> Result<(), ChainError> {
        let at = self.events.len();
        if at >= KEY_EVENTS_MAX {
            let event = event.event().map_err(|_| ChainError::Malformed(at))?;
            // An epoch event makes room where there are device events to drop.
            if is_device_event(event.kind) || self.device_events.is_empty() {
                return Err(ChainError::Count);
            }
        }
        self.push(event, at)
    }

    fn push(&mut self, signed: &SignedKeyEvent, at: usize) -> Result<(), ChainError> {
        let event = signed.event().map_err(|_| ChainError::Malformed(at))?;
        // A key that may be ignored elsewhere would give one event two digests.
        if cbor::encode(&event) != signed.0.0 {
            return Err(ChainError::Malformed(at));
        }
        if is_device_event(event.kind) {
            self.push_device(&event, signed, at)?;
            self.device_events.push(event.digest());
        } else {
            let epoch = self.check_epoch(&event, signed, at)?;
            self.events.truncate(self.epochs.len());
            self.devices.clear();
            self.device_events.clear();
            self.epochs.push(epoch);
        }
        self.events.push(signed.clone());
        Ok(())
    }

    fn check_epoch(
        &self,
        event: &KeyEvent,
        signed: &SignedKeyEvent,
        at: usize,
    ) -> Result<Epoch, ChainError> {
        let malformed = ChainError::Malformed(at);
        let rotates = event.kind == KeyEventKind::Rotate;
        let revokes = event.kind == KeyEventKind::Revoke;
        let (Some(next), Some(by)) = (event.next, event.by) else { return Err(malformed) };
        if !(rotates || revokes) || event.key.is_some() != rotates || event.dev.is_some() {
            return Err(malformed);
        }
        let last = self.last();
        if event.previous != Some(last.digest) || event.epoch != self.epoch().checked_add(1) {
            return Err(ChainError::Order(at));
        }
        if KeyDigest::of(&by) != last.next {
            return Err(ChainError::NotCommitted(at));
        }
        if !signed.is_signed_by(&by, &self.root) {
            return Err(ChainError::Signature(at));
        }
        Ok(Epoch { digest: event.digest(), key: event.key, by: Some(by), next })
    }

    fn push_device(
        &mut self,
        event: &KeyEvent,
        signed: &SignedKeyEvent,
        at: usize,
    ) -> Result<(), ChainError> {
        let adds = event.kind == KeyEventKind::AddDevice;
        let malformed = ChainError::Malformed(at);
        let dev = event.dev.filter(|dev| *dev != 0).ok_or(malformed)?;
        if event.next.is_some() || event.by.is_some() || event.key.is_some() != adds {
            return Err(malformed);
        }
        if event.previous != Some(self.head()) || event.epoch != Some(self.epoch()) {
            return Err(ChainError::Order(at));
        }
        let signer = self.last().key.ok_or(ChainError::Order(at))?;
        let device = match (event.key, self.devices.get(&dev)) {
            (Some(key), None) => Device { key, revoked: false },
            (None, Some(device)) if !device.revoked => Device { revoked: true, ..*device },
            _ => return Err(ChainError::Order(at)),
        };
        if !signed.is_signed_by(&signer, &self.root) {
            return Err(ChainError::Signature(at));
        }
        self.devices.insert(dev, device);
        Ok(())
    }

    fn last(&self) -> &Epoch {
        self.epochs.last().expect("a chain begins with its genesis")
    }

    /// Whether nothing has changed since the root's birth.
    pub fn is_just_born(&self) -> bool {
        self.events.len() == 1
    }

    /// Whose chain it is.
    pub fn root(&self) -> RootId {
        self.root
    }

    /// The current epoch.
    pub fn epoch(&self) -> u16 {
        u16::try_from(self.epochs.len() - 1).expect("a chain has few events")
    }

    /// Commitment to the key that may rotate or revoke next.
    pub fn next(&self) -> KeyDigest {
        self.last().next
    }

    /// Digest of the genesis's, or last rotation's or revocation's event: what
    /// the next of them names as `previous`.
    pub fn epoch_head(&self) -> KeyDigest {
        self.last().digest
    }

    /// Digest of the last event: what the next device event names as `previous`.
    pub fn head(&self) -> KeyDigest {
        self.device_events.last().copied().unwrap_or(self.last().digest)
    }

    /// Device 0's key; none after a revocation.
    pub fn operating_key(&self) -> Option<PublicKey> {
        self.last().key
    }

    /// The machines besides device 0, in the current epoch.
    pub fn devices(&self) -> &BTreeMap<u8, Device> {
        &self.devices
    }

    /// The number that the next added device gets.
    pub fn free_device(&self) -> Option<u8> {
        (1..=u8::MAX).find(|dev| !self.devices.contains_key(dev))
    }

    /// Which device of the current epoch signs with `key`.
    pub fn device_of(&self, key: &PublicKey) -> Option<u8> {
        if self.last().key == Some(*key) {
            return Some(0);
        }
        let mut devices = self.devices.iter();
        devices.find(|(_, device)| device.key == *key && !device.revoked).map(|(dev, _)| *dev)
    }

    /// Who may sign the record that carries this chain: device 0, or after a
    /// revocation the key that revoked.
    pub fn carrier(&self) -> PublicKey {
        let last = self.last();
        last.key.or(last.by).expect("an epoch without a key was begun by one")
    }

    /// The key that signs for a device in an epoch.
    pub fn signing_key(&self, key_epoch: u16, dev: u8) -> KeyState {
        match key_epoch.cmp(&self.epoch()) {
            std::cmp::Ordering::Less => KeyState::Revoked,
            std::cmp::Ordering::Greater => KeyState::Unknown,
            std::cmp::Ordering::Equal if dev == 0 => {
                self.last().key.map_or(KeyState::Revoked, KeyState::Valid)
            }
            std::cmp::Ordering::Equal => match self.devices.get(&dev) {
                Some(device) if device.revoked => KeyState::Revoked,
                Some(device) => KeyState::Valid(device.key),
                None => KeyState::Unknown,
            },
        }
    }

    /// How this chain stands to another of the same root. More epochs overrule:
    /// the recovery key beats an operating key that was stolen.
    pub fn relation(&self, other: &Self) -> Relation {
        fn order<T: PartialEq>(a: &[T], b: &[T]) -> Relation {
            let shared = a.iter().zip(b).take_while(|(a, b)| a == b).count();
            match (shared == a.len(), shared == b.len()) {
                (true, true) => Relation::Same,
                (false, true) => Relation::Newer,
                (true, false) => Relation::Older,
                (false, false) => Relation::Conflict,
            }
        }
        match order(&self.epochs, &other.epochs) {
            Relation::Same => order(&self.device_events, &other.device_events),
            decided => decided,
        }
    }

    /// The body that carries this chain.
    pub fn to_body(&self) -> KeyChain {
        KeyChain { events: self.events.clone() }
    }

    /// The rotation that gives device 0 a new key; to be signed by the committed
    /// key, whose public half is `by`.
    pub fn rotation(&self, key: PublicKey, by: PublicKey, next: KeyDigest) -> KeyEvent {
        KeyEvent { key: Some(key), ..self.revocation(by, next).with(KeyEventKind::Rotate) }
    }

    /// The revocation of all keys; to be signed by the committed key.
    pub fn revocation(&self, by: PublicKey, next: KeyDigest) -> KeyEvent {
        KeyEvent {
            kind: KeyEventKind::Revoke,
            key: None,
            next: Some(next),
            dev: None,
            epoch: self.epoch().checked_add(1),
            previous: Some(self.epoch_head()),
            by: Some(by),
        }
    }

    /// The addition of a machine; to be signed by device 0.
    pub fn addition(&self, dev: u8, key: PublicKey) -> KeyEvent {
        KeyEvent { key: Some(key), ..self.removal(dev).with(KeyEventKind::AddDevice) }
    }

    /// The end of a machine; to be signed by device 0.
    pub fn removal(&self, dev: u8) -> KeyEvent {
        KeyEvent {
            kind: KeyEventKind::RevokeDevice,
            key: None,
            next: None,
            dev: Some(dev),
            epoch: Some(self.epoch()),
            previous: Some(self.head()),
            by: None,
        }
    }
}

impl KeyEvent {
    fn with(self, kind: KeyEventKind) -> Self {
        Self { kind, ..self }
    }
}

fn is_device_event(kind: KeyEventKind) -> bool {
    matches!(kind, KeyEventKind::AddDevice | KeyEventKind::RevokeDevice)
}

#[cfg(test)]
mod tests;
