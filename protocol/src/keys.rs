//! Keys of a root and the events that change them (spec/records §5).
//!
//! A root is born with a genesis event {first signing key, digest of the next
//! key}; its id is the digest of that event. Later events form the root's key
//! chain, whose rules are in [`crate::chain`].

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::cbor::{self, cbor_map};
use crate::ids::{RootId, byte_id};

byte_id! {
    /// An Ed25519 public key, as cryptography; parties are named by ids.
    PublicKey, 32
}

byte_id! {
    /// Digest of a key that is not known yet: pre-rotation.
    KeyDigest, 32
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicKey({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

impl std::fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyDigest({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

impl KeyDigest {
    /// The digest that commits to `key`.
    pub fn of(key: &PublicKey) -> Self {
        Self(blake3::derive_key("homehost next key 1", &key.0))
    }
}

/// What a key event does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum KeyEventKind {
    /// A root is born: first key and next digest; device 0, epoch 0.
    Genesis,
    /// A new epoch with a new signing key for device 0; all earlier keys end.
    Rotate,
    /// A new epoch in which nobody signs until the next rotation.
    Revoke,
    /// Another machine may sign.
    AddDevice,
    /// A machine may sign no longer.
    RevokeDevice,
}

impl From<KeyEventKind> for u8 {
    fn from(kind: KeyEventKind) -> Self {
        match kind {
            KeyEventKind::Genesis => 0,
            KeyEventKind::Rotate => 1,
            KeyEventKind::Revoke => 2,
            KeyEventKind::AddDevice => 3,
            KeyEventKind::RevokeDevice => 4,
        }
    }
}

impl TryFrom<u8> for KeyEventKind {
    type Error = &'static str;
    fn try_from(number: u8) -> Result<Self, Self::Error> {
        Ok(match number {
            0 => Self::Genesis,
            1 => Self::Rotate,
            2 => Self::Revoke,
            3 => Self::AddDevice,
            4 => Self::RevokeDevice,
            _ => return Err("unknown key event"),
        })
    }
}

cbor_map! {
    /// One event of a key chain.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct KeyEvent {
        /// What it does.
        required 1 kind: KeyEventKind,
        /// The signing key that it brings in.
        optional 2 key: PublicKey,
        /// The key that may rotate or revoke next.
        optional 3 next: KeyDigest,
        /// The device that is added or revoked.
        optional 4 dev: u8,
        /// The epoch that begins with it.
        optional 5 epoch: u16,
        /// Digest of the event before ([`KeyEvent::digest`]).
        optional 6 previous: KeyDigest,
        /// The committed next key, which signs a rotation or revocation.
        optional 7 by: PublicKey,
    }
}

impl KeyEvent {
    /// The birth of a root.
    pub fn genesis(key: PublicKey, next: KeyDigest) -> Self {
        Self {
            kind: KeyEventKind::Genesis,
            key: Some(key),
            next: Some(next),
            dev: None,
            epoch: None,
            previous: None,
            by: None,
        }
    }

    /// The digest of this event, which the next one names as `previous`.
    pub fn digest(&self) -> KeyDigest {
        KeyDigest(blake3::derive_key("homehost key event 1", &cbor::encode(self)))
    }
}

impl RootId {
    /// The root that is born with `key` and `next`.
    pub fn of_genesis(key: PublicKey, next: KeyDigest) -> Self {
        let event = cbor::encode(&KeyEvent::genesis(key, next));
        Self(blake3::derive_key("homehost root 1", &event))
    }
}

/// The secret key with which one device signs records. Wiped when dropped,
/// never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DeviceKey {
    seed: [u8; 32],
}

impl DeviceKey {
    /// A key from 32 secret random bytes.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self { seed }
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.signing().verifying_key().to_bytes())
    }

    pub(crate) fn signing(&self) -> SigningKey {
        SigningKey::from_bytes(&self.seed)
    }
}

impl std::fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DeviceKey(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_binds_both_keys() {
        let (a, b) = (PublicKey([1; 32]), PublicKey([2; 32]));
        let root = RootId::of_genesis(a, KeyDigest::of(&b));
        assert_ne!(root, RootId::of_genesis(b, KeyDigest::of(&b)));
        assert_ne!(root, RootId::of_genesis(a, KeyDigest::of(&a)));
    }

    #[test]
    fn key_events_survive_the_wire() {
        let event = KeyEvent {
            kind: KeyEventKind::Rotate,
            key: Some(PublicKey([1; 32])),
            next: Some(KeyDigest([2; 32])),
            dev: None,
            epoch: Some(1),
            previous: Some(KeyDigest([3; 32])),
            by: Some(PublicKey([4; 32])),
        };
        let bytes = cbor::encode(&event);
        assert_eq!(cbor::decode::<KeyEvent>(&bytes).expect("own bytes"), event);
        assert!(cbor::decode::<KeyEvent>(&[0xa1, 1, 5]).is_err(), "unknown event kind");
    }

    #[test]
    fn secrets_are_not_printed() {
        assert_eq!(format!("{:?}", DeviceKey::from_seed([7; 32])), "DeviceKey(secret)");
    }
}
