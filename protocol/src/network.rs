//! Names of networks: nodes of different networks never exchange records.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, de};
use thiserror::Error;

use crate::cbor::Text;
use crate::limits::NETWORK_BYTES_MAX;

/// A network's name: 1 to 24 of `a-z`, `0-9`, `-`, not starting or ending with `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct NetworkName(String);

/// A text that cannot name a network.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("a network name is 1 to {NETWORK_BYTES_MAX} of a-z, 0-9 and inner hyphens")]
pub struct NetworkNameError;

impl NetworkName {
    /// The public network that every node joins unless told otherwise.
    pub fn main() -> Self {
        Self("main".into())
    }

    /// The network of nodes that listen on loopback only.
    pub fn local() -> Self {
        Self("local".into())
    }

    /// Whether this is the public network.
    pub fn is_main(&self) -> bool {
        self.0 == "main"
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for NetworkName {
    type Err = NetworkNameError;
    fn from_str(text: &str) -> Result<Self, NetworkNameError> {
        if is_slug(text, NETWORK_BYTES_MAX) { Ok(Self(text.into())) } else { Err(NetworkNameError) }
    }
}

impl<'de> Deserialize<'de> for NetworkName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Text::deserialize(deserializer)?.0.parse().map_err(de::Error::custom)
    }
}

/// Whether a text is 1 to `max` of `a-z`, `0-9` and inner hyphens.
pub(crate) fn is_slug(text: &str, max: usize) -> bool {
    let bytes = text.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= max
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
}
