//! The directory RPC: one request, one response, each a CBOR map behind a
//! length (spec/mesh §4).

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cbor::{self, Blob, cbor_map};
use crate::ids::ServerId;
use crate::limits::{RPC_IDS_MAX, RPC_OFFER_MAX, RPC_REQUEST_BYTES_MAX, RPC_RESPONSE_BYTES_MAX};

/// A question to a replica holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Rows in the order of their ids, after `after`.
    Page {
        /// The last id of the page before.
        after: Option<ServerId>,
    },
    /// The rows of these servers.
    Get {
        /// At most [`RPC_IDS_MAX`].
        ids: Vec<ServerId>,
    },
    /// Rows that the asked node may want: those of the asker that gossip must
    /// not carry.
    Offer {
        /// At most [`RPC_OFFER_MAX`] envelopes.
        envelopes: Vec<Vec<u8>>,
    },
}

/// One record as a replica holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldRecord {
    /// The bytes that were received.
    pub envelope: Vec<u8>,
    /// Seconds since the holder last heard of it; `None` when it only has it
    /// from its disk and nobody has spoken of it since.
    pub age_s: Option<u32>,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// Listings, tombstones, and the presence of their hosts.
    pub records: Vec<HeldRecord>,
    /// Where the next page begins, if there is one.
    pub next: Option<ServerId>,
}

/// Why bytes are not a request or response.
#[derive(Debug, Error)]
pub enum RpcError {
    /// More bytes than it may have.
    #[error("message of {0} bytes is too long")]
    TooLong(usize),
    /// Not deterministic CBOR of the right shape.
    #[error(transparent)]
    Decode(#[from] cbor::DecodeError),
    /// An operation of a newer version, or one without its fields.
    #[error("unknown operation {0}")]
    Operation(u8),
    /// More elements than allowed.
    #[error("too many elements")]
    TooMany,
}

cbor_map! {
    #[derive(Debug)]
    struct WireRequest {
        required 1 operation: u8,
        optional 2 after: ServerId,
        list 3 ids: ServerId,
        list 4 envelopes: Blob,
    }
}

cbor_map! {
    #[derive(Debug)]
    struct WireResponse {
        list 1 records: WireHeld,
        optional 2 next: ServerId,
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct WireHeld(Blob, Option<u32>);

impl Request {
    /// The bytes of this request.
    pub fn encode(&self) -> Vec<u8> {
        let (operation, after, ids, envelopes) = match self {
            Self::Page { after } => (1, *after, vec![], vec![]),
            Self::Get { ids } => (2, None, ids.clone(), vec![]),
            Self::Offer { envelopes } => {
                (3, None, vec![], envelopes.iter().cloned().map(Blob).collect())
            }
        };
        cbor::encode(&WireRequest { operation, after, ids, envelopes })
    }

    /// Reads a request from outside.
    ///
    /// # Errors
    /// See [`RpcError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, RpcError> {
        if bytes.len() > RPC_REQUEST_BYTES_MAX {
            return Err(RpcError::TooLong(bytes.len()));
        }
        let wire: WireRequest = cbor::decode(bytes)?;
        if wire.ids.len() > RPC_IDS_MAX || wire.envelopes.len() > RPC_OFFER_MAX {
            return Err(RpcError::TooMany);
        }
        match wire.operation {
            1 => Ok(Self::Page { after: wire.after }),
            2 => Ok(Self::Get { ids: wire.ids }),
            3 => Ok(Self::Offer { envelopes: wire.envelopes.into_iter().map(|b| b.0).collect() }),
            other => Err(RpcError::Operation(other)),
        }
    }
}

impl HeldRecord {
    /// Bytes that this record takes in a response, rounded up.
    pub fn wire_bytes(&self) -> usize {
        self.envelope.len() + 9
    }
}

impl Response {
    /// The bytes of this response. The caller keeps within
    /// [`RPC_RESPONSE_BYTES_MAX`], counting [`HeldRecord::wire_bytes`].
    pub fn encode(self) -> Vec<u8> {
        let records =
            self.records.into_iter().map(|held| WireHeld(Blob(held.envelope), held.age_s));
        cbor::encode(&WireResponse { records: records.collect(), next: self.next })
    }

    /// Reads a response from outside.
    ///
    /// # Errors
    /// See [`RpcError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, RpcError> {
        if bytes.len() > RPC_RESPONSE_BYTES_MAX {
            return Err(RpcError::TooLong(bytes.len()));
        }
        let wire: WireResponse = cbor::decode(bytes)?;
        let records = wire.records.into_iter();
        Ok(Self {
            records: records.map(|h| HeldRecord { envelope: h.0.0, age_s: h.1 }).collect(),
            next: wire.next,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_wire() {
        for request in [
            Request::Page { after: None },
            Request::Page { after: Some(ServerId([1; 32])) },
            Request::Get { ids: vec![ServerId([2; 32]); 64] },
            Request::Offer { envelopes: vec![vec![3; 700]; 16] },
        ] {
            let bytes = request.encode();
            assert_eq!(Request::decode(&bytes).expect("own bytes"), request);
            for end in 0..bytes.len() {
                assert!(Request::decode(&bytes[..end]).is_err());
            }
        }
        let response = Response {
            records: vec![HeldRecord { envelope: vec![1; 500], age_s: Some(u32::MAX) }],
            next: Some(ServerId([4; 32])),
        };
        let bytes = response.clone().encode();
        assert!(bytes.len() <= response.records[0].wire_bytes() + 48);
        assert_eq!(Response::decode(&bytes).expect("own bytes"), response);
    }

    #[test]
    fn too_much_is_refused() {
        let ids = Request::Get { ids: vec![ServerId([2; 32]); 65] }.encode();
        assert!(matches!(Request::decode(&ids), Err(RpcError::TooMany)));
        assert!(matches!(Request::decode(&vec![0; 20_000]), Err(RpcError::TooLong(_))));
        assert!(matches!(Request::decode(&[0xa1, 1, 9]), Err(RpcError::Operation(9))));
    }
}
