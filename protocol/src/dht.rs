//! What the DHT keeps: records under the ids that they are about
//! (spec/mesh §8).
//!
//! A key is ASCII, `/<namespace>/<base32>`, so that other implementations can
//! pick a validator by its namespace; the value is an envelope.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::ids::{RootId, ServerId};
use crate::network::NetworkName;
use crate::record::Record;
use crate::time::UnixMillis;
use crate::validate::{KeyChains, Validated, Verdict, validate};

/// What a DHT record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DhtKey {
    /// `/hhk/<root>`: a root's key chain.
    Chain(RootId),
    /// `/hhh/<root>/<device>`: a device's host announcement.
    Host(RootId, u8),
    /// `/hhl/<server>`: a server listing.
    Listing(ServerId),
}

/// Provider key under which replica holders of shard 0 of level 0 — the whole
/// network — say so.
pub const REPLICA_KEY: &str = "/hhs/0/0";

/// Bytes that are no key of ours.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not a DHT key of this network")]
pub struct DhtKeyError;

impl fmt::Display for DhtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain(root) => write!(f, "/hhk/{root}"),
            Self::Host(root, dev) => write!(f, "/hhh/{root}/{dev}"),
            Self::Listing(id) => write!(f, "/hhl/{id}"),
        }
    }
}

impl FromStr for DhtKey {
    type Err = DhtKeyError;
    fn from_str(text: &str) -> Result<Self, DhtKeyError> {
        let mut parts = text.strip_prefix('/').ok_or(DhtKeyError)?.split('/');
        let (namespace, id) = (parts.next(), parts.next().ok_or(DhtKeyError)?);
        let key = match namespace {
            Some("hhk") => Self::Chain(id.parse().map_err(|_| DhtKeyError)?),
            Some("hhl") => Self::Listing(id.parse().map_err(|_| DhtKeyError)?),
            Some("hhh") => {
                let dev = parts.next().and_then(|dev| dev.parse().ok()).ok_or(DhtKeyError)?;
                Self::Host(id.parse().map_err(|_| DhtKeyError)?, dev)
            }
            _ => return Err(DhtKeyError),
        };
        // Only its one spelling: upper case and leading zeros are other bytes.
        if parts.next().is_none() && key.to_string() == text { Ok(key) } else { Err(DhtKeyError) }
    }
}

impl DhtKey {
    /// The key of a record that the DHT keeps.
    pub fn of(validated: &Validated) -> Option<Self> {
        let root = validated.header.root;
        match &validated.record {
            Record::KeyChain(_) => Some(Self::Chain(root)),
            Record::HostAnnouncement(_) => Some(Self::Host(root, validated.header.dev)),
            Record::ServerListing(listing) => Some(Self::Listing(listing.id(&root))),
            Record::Presence(_) | Record::ReachAttest(_) => None,
        }
    }
}

/// Why a value is not kept under a key.
#[derive(Debug, Error)]
pub enum DhtError {
    /// Not a key of ours.
    #[error(transparent)]
    Key(#[from] DhtKeyError),
    /// No honest node could have put it there.
    #[error("{0}")]
    Invalid(String),
    /// It does not count here and now.
    #[error("{0}")]
    Ignored(String),
    /// It may hold, which this root's key chain would tell.
    #[error("the key chain of {0} is not known")]
    NeedChain(RootId),
    /// It is about something else.
    #[error("the record is not about this key")]
    OtherKey,
}

/// Checks a value that was put or found under a key.
///
/// # Errors
/// See [`DhtError`].
pub fn check(
    key: &[u8],
    value: &[u8],
    network: &NetworkName,
    chains: &dyn KeyChains,
    now: UnixMillis,
) -> Result<(DhtKey, Validated), DhtError> {
    let key: DhtKey = std::str::from_utf8(key).map_err(|_| DhtKeyError)?.parse()?;
    match validate(value, network, chains, now) {
        Verdict::Accept(validated) if DhtKey::of(&validated) == Some(key) => Ok((key, *validated)),
        Verdict::Accept(_) => Err(DhtError::OtherKey),
        Verdict::Reject(reason) => Err(DhtError::Invalid(reason.to_string())),
        Verdict::Ignore(reason) => Err(DhtError::Ignored(reason.to_string())),
        Verdict::NeedChain(root) => Err(DhtError::NeedChain(root)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_one_spelling() {
        for key in [
            DhtKey::Chain(RootId([1; 32])),
            DhtKey::Host(RootId([2; 32]), 7),
            DhtKey::Listing(ServerId([3; 32])),
        ] {
            let text = key.to_string();
            assert_eq!(text.parse(), Ok(key));
            for other in [
                text.to_uppercase(),
                format!("{text}/"),
                format!("{text}/0"),
                format!("/{text}"),
                text[1..].to_string(),
                text.replace("/7", "/07"),
            ] {
                assert!(other == text || other.parse::<DhtKey>().is_err(), "{other}");
            }
        }
        for text in ["", "/", "/hhk", "/hhk/", "/hhx/aaaa", REPLICA_KEY] {
            assert_eq!(text.parse::<DhtKey>(), Err(DhtKeyError), "{text}");
        }
    }
}
