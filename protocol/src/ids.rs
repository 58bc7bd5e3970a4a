//! Names of parties and things: all are 32 bytes (spec/records §1).
//!
//! A [`NodeId`] names a machine on the mesh, a [`RootId`] an owner or player, a
//! [`ServerId`] a hosted game server, a [`RecId`] one signed statement.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use thiserror::Error;

/// A text that does not name what it should name.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{text:?} is not {expected}")]
pub struct IdError {
    text: String,
    expected: &'static str,
}

impl IdError {
    fn new(text: &str, expected: &'static str) -> Self {
        // A hostile text may be long; what is shown is bounded.
        Self { text: text.chars().take(80).collect(), expected }
    }
}

/// Fixed-length byte string that is a CBOR `bytes` on the wire, never an array.
macro_rules! byte_id {
    ($(#[$meta:meta])* $name:ident, $len:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $name;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        write!(f, "{} bytes", $len)
                    }
                    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<$name, E> {
                        bytes
                            .try_into()
                            .map($name)
                            .map_err(|_| E::invalid_length(bytes.len(), &self))
                    }
                }
                deserializer.deserialize_bytes(Visitor)
            }
        }
    };
}
pub(crate) use byte_id;

/// Text form in lower-case base32 without padding, read in either case.
macro_rules! base32_text {
    ($name:ident, $expected:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), &self.to_string()[..8])
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                BASE32_NOPAD
                    .decode(text.to_ascii_uppercase().as_bytes())
                    .ok()
                    .and_then(|bytes| bytes.try_into().ok())
                    .map(Self)
                    .ok_or_else(|| IdError::new(text, $expected))
            }
        }
    };
}

byte_id! {
    /// An owner of hosts, or a player: the digest of a genesis event.
    RootId, 32
}
base32_text!(RootId, "a root id (52 characters of base32)");

byte_id! {
    /// A hosted game server: digest of its root and a nonce (spec/records §7).
    ServerId, 32
}
base32_text!(ServerId, "a server id (52 characters of base32)");

byte_id! {
    /// One signed statement: the digest of its envelope's bytes.
    RecId, 32
}
base32_text!(RecId, "a record id (52 characters of base32)");

byte_id! {
    /// What tells the servers of one root apart.
    ServerNonce, 16
}
base32_text!(ServerNonce, "a server nonce (26 characters of base32)");

byte_id! {
    /// A machine on the mesh: the Ed25519 key of its transport identity.
    ///
    /// Its text form is libp2p's peer id, as in `12D3KooW…`.
    NodeId, 32
}

/// libp2p's peer id of an Ed25519 key is an identity multihash (code 0x00,
/// length 0x24) of the protobuf public key (type 1, 32 bytes of data).
const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 38];
        bytes[..6].copy_from_slice(&PEER_ID_PREFIX);
        bytes[6..].copy_from_slice(&self.0);
        f.write_str(&bs58::encode(bytes).into_string())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_string();
        write!(f, "NodeId(…{})", &text[text.len() - 6..])
    }
}

impl FromStr for NodeId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let error = || IdError::new(text, "a peer id of an Ed25519 key (12D3KooW…)");
        let mut bytes = [0; 38];
        let length = bs58::decode(text).onto(&mut bytes).map_err(|_| error())?;
        if length != 38 || bytes[..6] != PEER_ID_PREFIX {
            return Err(error());
        }
        bytes[6..].try_into().map(Self).map_err(|_| error())
    }
}

impl RecId {
    /// The id of an envelope.
    pub fn of(envelope: &[u8]) -> Self {
        Self(*blake3::hash(envelope).as_bytes())
    }
}

impl ServerId {
    /// The id of the server that `root` made with `nonce`.
    pub fn derive(root: &RootId, nonce: &ServerNonce) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("homehost server 1");
        hasher.update(&root.0).update(&nonce.0);
        Self(*hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_their_text_form() {
        let id = ServerId([7; 32]);
        assert_eq!(id.to_string().len(), 52);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
        let node = NodeId([9; 32]);
        assert!(node.to_string().starts_with("12D3KooW"));
        assert_eq!(node.to_string().parse(), Ok(node));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "a", "🦀", &"a".repeat(51), &"a".repeat(53), &"1".repeat(52)] {
            assert!(text.parse::<RootId>().is_err(), "{text}");
            assert!(text.parse::<NodeId>().is_err(), "{text}");
        }
        // 52 base32 characters are 260 bits: the four spare ones must be zero.
        assert!("b".repeat(52).parse::<RootId>().is_err());
    }
}
