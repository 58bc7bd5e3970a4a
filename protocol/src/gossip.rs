//! Gossip topics and messages (spec/mesh §3).
//!
//! A message is a batch of envelopes of **one** root. Gossip forwards a message
//! whole or not at all, so a batch of several roots would let anyone mint fresh
//! messages by recombining old rows.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cbor::{self, Blob};
use crate::limits::{GOSSIP_BYTES_MAX, GOSSIP_ENVELOPES_MAX};
use crate::network::NetworkName;

/// The topics that a node subscribes to; all others are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Server listings and tombstones. Shard 0 of level 0: the whole network.
    Listings,
    /// Presence of hosts.
    Presence,
}

impl Topic {
    /// All topics.
    pub const ALL: [Self; 2] = [Self::Listings, Self::Presence];

    /// The name on the wire.
    pub fn name(self, network: &NetworkName) -> String {
        let part = match self {
            Self::Listings => "list/0/0",
            Self::Presence => "pres/0/0",
        };
        format!("/homehost/1/{network}/{part}")
    }
}

/// Why a gossip message is not a batch.
#[derive(Debug, Error)]
pub enum BatchError {
    /// More bytes than a message may have.
    #[error("gossip message longer than {GOSSIP_BYTES_MAX} bytes")]
    TooLong,
    /// Not a deterministic CBOR array of byte strings.
    #[error("gossip message: {0}")]
    Decode(#[from] cbor::DecodeError),
    /// Empty, or more envelopes than a message may have.
    #[error("gossip message with {0} envelopes")]
    Count(usize),
}

#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Batch(Vec<Blob>);

/// Packs envelopes, of one root, into as few messages as they need.
pub fn encode_batches(envelopes: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    let mut batch = Vec::new();
    let mut bytes = FRAME_BYTES;
    for envelope in envelopes {
        let size = envelope.len() + FRAME_BYTES;
        if batch.len() == GOSSIP_ENVELOPES_MAX || bytes + size > GOSSIP_BYTES_MAX {
            messages.push(cbor::encode(&Batch(std::mem::take(&mut batch))));
            bytes = FRAME_BYTES;
        }
        bytes += size;
        batch.push(Blob(envelope));
    }
    if !batch.is_empty() {
        messages.push(cbor::encode(&Batch(batch)));
    }
    messages
}

/// Initial byte and length of an array or byte string of our sizes.
const FRAME_BYTES: usize = 3;

/// Unpacks a message; the envelopes are not looked at.
///
/// # Errors
/// See [`BatchError`].
pub fn decode_batch(bytes: &[u8]) -> Result<Vec<Vec<u8>>, BatchError> {
    if bytes.len() > GOSSIP_BYTES_MAX {
        return Err(BatchError::TooLong);
    }
    let Batch(batch) = cbor::decode(bytes)?;
    if batch.is_empty() || batch.len() > GOSSIP_ENVELOPES_MAX {
        return Err(BatchError::Count(batch.len()));
    }
    Ok(batch.into_iter().map(|blob| blob.0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_keep_order_and_limits() {
        let envelopes: Vec<_> = (0..40_u8).map(|n| vec![n; 600]).collect();
        let messages = encode_batches(envelopes.clone());
        assert!(messages.iter().all(|message| message.len() <= GOSSIP_BYTES_MAX));
        let back: Vec<_> =
            messages.iter().flat_map(|m| decode_batch(m).expect("own bytes")).collect();
        assert_eq!(back, envelopes);
        let one = encode_batches([vec![0; crate::limits::ENVELOPE_BYTES_MAX]]);
        assert_eq!(one.len(), 1);
        assert!(decode_batch(&one[0]).is_ok());
    }

    #[test]
    fn other_bytes_are_refused() {
        assert!(matches!(decode_batch(&[0x80]), Err(BatchError::Count(0))));
        assert!(matches!(decode_batch(&vec![0; 9000]), Err(BatchError::TooLong)));
        let many = cbor::encode(&Batch(vec![Blob(vec![1]); 17]));
        assert!(matches!(decode_batch(&many), Err(BatchError::Count(17))));
        for bytes in [&[0xa0][..], &[0x81, 0x00], &[0x81, 0x40, 0x00], &[0x9f, 0xff], &[]] {
            assert!(matches!(decode_batch(bytes), Err(BatchError::Decode(_))), "{bytes:?}");
        }
    }
}
