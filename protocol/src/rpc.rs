//! The directory RPC and the witness RPC: one request, one response, each a
//! CBOR map behind a length (spec/mesh §4, §9).

pub mod attest;
pub mod px;
pub mod query;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cbor::{self, Blob, cbor_map};
use crate::ids::{RecId, RootId, ServerId};
use crate::limits::{
    CURSOR_BYTES_MAX, RECONCILE_BYTES_MAX, RPC_CHAINS_MAX, RPC_IDS_MAX, RPC_OFFER_MAX,
    RPC_RECORDS_MAX, RPC_REQUEST_BYTES_MAX, RPC_RESPONSE_BYTES_MAX,
};
use crate::network::NetworkName;
use query::Query;

/// A question to a replica holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Rows that match, in an order, from a place in it.
    Query {
        /// What is looked for.
        query: Query,
        /// Where the answer before ended.
        cursor: Option<Vec<u8>>,
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
    /// A step of set reconciliation.
    Reconcile {
        /// Which records are compared.
        set: Set,
        /// The asker's message, of at most [`RECONCILE_BYTES_MAX`] bytes.
        message: Vec<u8>,
    },
    /// Certain records.
    Records {
        /// At most [`RPC_RECORDS_MAX`].
        ids: Vec<RecId>,
    },
    /// The key chains of these roots.
    Chains {
        /// At most [`RPC_CHAINS_MAX`].
        roots: Vec<RootId>,
    },
}

/// What two replicas compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum Set {
    /// Listings, tombstones, key chains and reach records; 1.
    Rows,
    /// Presences; 2.
    Presences,
}

impl From<Set> for u8 {
    fn from(set: Set) -> Self {
        match set {
            Set::Rows => 1,
            Set::Presences => 2,
        }
    }
}

impl TryFrom<u8> for Set {
    type Error = &'static str;
    fn try_from(number: u8) -> Result<Self, Self::Error> {
        match number {
            1 => Ok(Self::Rows),
            2 => Ok(Self::Presences),
            _ => Err("unknown set"),
        }
    }
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
    /// Listings, tombstones, and what is needed to read them: presences of
    /// their hosts, reach records, key chains.
    pub records: Vec<HeldRecord>,
    /// Where the answer to a query goes on, if it does.
    pub cursor: Option<Vec<u8>>,
    /// The answering side's message of a reconciliation; empty when it has
    /// nothing more to say.
    pub message: Option<Vec<u8>>,
    /// The network that the answering node is in; given to queries.
    pub network: Option<NetworkName>,
    /// How many rows match a query.
    pub matching: Option<u32>,
    /// Why there is no answer, if there is none.
    pub trouble: Option<Trouble>,
}

/// Why a node that understood has no answer.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum Trouble {
    /// It keeps no replica and knows nobody at the moment who does; 1.
    #[error("it keeps no directory and knows no node that does at the moment")]
    NoReplica,
    /// The cursor is not one of its own; 2.
    #[error("it does not know this cursor: begin anew without one")]
    Cursor,
}

impl From<Trouble> for u8 {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::NoReplica => 1,
            Trouble::Cursor => 2,
        }
    }
}

impl TryFrom<u8> for Trouble {
    type Error = &'static str;
    fn try_from(number: u8) -> Result<Self, Self::Error> {
        match number {
            1 => Ok(Self::NoReplica),
            2 => Ok(Self::Cursor),
            _ => Err("unknown trouble"),
        }
    }
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
    /// More elements, or longer ones, than allowed.
    #[error("too many or too long elements")]
    TooMany,
}

cbor_map! {
    #[derive(Debug, Default)]
    struct WireRequest {
        required 1 operation: u8,
        list 3 ids: ServerId,
        list 4 envelopes: Blob,
        optional 5 query: Query,
        optional 6 cursor: Blob,
        optional 7 set: Set,
        optional 8 message: Blob,
        list 9 records: RecId,
        list 10 roots: RootId,
    }
}

cbor_map! {
    #[derive(Debug)]
    struct WireResponse {
        list 1 records: WireHeld,
        optional 2 cursor: Blob,
        optional 3 message: Blob,
        optional 4 network: NetworkName,
        optional 5 matching: u32,
        optional 6 trouble: Trouble,
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct WireHeld(Blob, Option<u32>);

impl Request {
    /// The bytes of this request.
    pub fn encode(&self) -> Vec<u8> {
        let wire = match self.clone() {
            Self::Query { query, cursor } => WireRequest {
                operation: 1,
                query: (query != Query::default()).then_some(query),
                cursor: cursor.map(Blob),
                ..WireRequest::default()
            },
            Self::Get { ids } => WireRequest { operation: 2, ids, ..WireRequest::default() },
            Self::Offer { envelopes } => {
                let envelopes = envelopes.into_iter().map(Blob).collect();
                WireRequest { operation: 3, envelopes, ..WireRequest::default() }
            }
            Self::Reconcile { set, message } => WireRequest {
                operation: 4,
                set: Some(set),
                message: Some(Blob(message)),
                ..WireRequest::default()
            },
            Self::Records { ids } => {
                WireRequest { operation: 5, records: ids, ..WireRequest::default() }
            }
            Self::Chains { roots } => WireRequest { operation: 6, roots, ..WireRequest::default() },
        };
        cbor::encode(&wire)
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
        let request = match (wire.operation, wire.set, wire.message) {
            (1, ..) => {
                let query = wire.query.unwrap_or_default();
                Self::Query { query, cursor: wire.cursor.map(|blob| blob.0) }
            }
            (2, ..) => Self::Get { ids: wire.ids },
            (3, ..) => Self::Offer { envelopes: wire.envelopes.into_iter().map(|b| b.0).collect() },
            (4, Some(set), Some(message)) => Self::Reconcile { set, message: message.0 },
            (5, ..) => Self::Records { ids: wire.records },
            (6, ..) => Self::Chains { roots: wire.roots },
            (other, ..) => return Err(RpcError::Operation(other)),
        };
        if request.is_bounded() { Ok(request) } else { Err(RpcError::TooMany) }
    }

    fn is_bounded(&self) -> bool {
        match self {
            Self::Query { query, cursor } => {
                query.is_bounded() && cursor.as_ref().is_none_or(|c| c.len() <= CURSOR_BYTES_MAX)
            }
            Self::Get { ids } => ids.len() <= RPC_IDS_MAX,
            Self::Offer { envelopes } => envelopes.len() <= RPC_OFFER_MAX,
            Self::Reconcile { message, .. } => message.len() <= RECONCILE_BYTES_MAX,
            Self::Records { ids } => ids.len() <= RPC_RECORDS_MAX,
            Self::Chains { roots } => roots.len() <= RPC_CHAINS_MAX,
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
    /// A response that says why there is no answer.
    pub fn trouble(trouble: Trouble) -> Self {
        Self { trouble: Some(trouble), ..Self::default() }
    }

    /// Room for [`Response::records`] beside the other fields, in bytes.
    pub const RECORDS_BYTES_MAX: usize = RPC_RESPONSE_BYTES_MAX - CURSOR_BYTES_MAX - 96;

    /// The bytes of this response. The caller keeps within
    /// [`Self::RECORDS_BYTES_MAX`], counting [`HeldRecord::wire_bytes`].
    pub fn encode(self) -> Vec<u8> {
        let records =
            self.records.into_iter().map(|held| WireHeld(Blob(held.envelope), held.age_s));
        cbor::encode(&WireResponse {
            records: records.collect(),
            cursor: self.cursor.map(Blob),
            message: self.message.map(Blob),
            network: self.network,
            matching: self.matching,
            trouble: self.trouble,
        })
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
            cursor: wire.cursor.map(|blob| blob.0),
            message: wire.message.map(|blob| blob.0),
            network: wire.network,
            matching: wire.matching,
            trouble: wire.trouble,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use query::SortBy;

    #[test]
    fn messages_survive_the_wire() {
        let query = Query {
            game: Some("luanti".into()),
            tags: vec!["creative".into()],
            has_players: Some(true),
            sort: Some(SortBy::Name),
            limit: Some(50),
            ..Query::default()
        };
        for request in [
            Request::Query { query: Query::default(), cursor: None },
            Request::Query { query, cursor: Some(vec![1; CURSOR_BYTES_MAX]) },
            Request::Get { ids: vec![ServerId([2; 32]); 64] },
            Request::Offer { envelopes: vec![vec![3; 700]; 16] },
            Request::Reconcile { set: Set::Rows, message: vec![9; RECONCILE_BYTES_MAX] },
            Request::Records { ids: vec![RecId([4; 32]); RPC_RECORDS_MAX] },
            Request::Chains { roots: vec![RootId([5; 32]); RPC_CHAINS_MAX] },
        ] {
            let bytes = request.encode();
            assert_eq!(Request::decode(&bytes).expect("own bytes"), request);
            for end in (0..bytes.len()).step_by(1 + bytes.len() / 500) {
                assert!(Request::decode(&bytes[..end]).is_err());
            }
        }
        let response = Response {
            records: vec![HeldRecord { envelope: vec![1; 500], age_s: Some(u32::MAX) }],
            cursor: Some(vec![4; CURSOR_BYTES_MAX]),
            message: Some(vec![]),
            network: Some("a".repeat(24).parse().expect("a name")),
            matching: Some(u32::MAX),
            trouble: Some(Trouble::Cursor),
        };
        let bytes = response.clone().encode();
        let around = RPC_RESPONSE_BYTES_MAX - Response::RECORDS_BYTES_MAX;
        assert!(bytes.len() <= response.records[0].wire_bytes() + around);
        assert_eq!(Response::decode(&bytes).expect("own bytes"), response);
    }

    #[test]
    fn too_much_is_refused() {
        for request in [
            Request::Get { ids: vec![ServerId([2; 32]); 65] },
            Request::Records { ids: vec![RecId([2; 32]); RPC_RECORDS_MAX + 1] },
            Request::Chains { roots: vec![RootId([2; 32]); RPC_CHAINS_MAX + 1] },
            Request::Reconcile { set: Set::Rows, message: vec![0; RECONCILE_BYTES_MAX + 1] },
            Request::Query { query: Query::default(), cursor: Some(vec![0; 161]) },
            Request::Query {
                query: Query { text: Some("a".repeat(129)), ..Query::default() },
                cursor: None,
            },
        ] {
            assert!(matches!(Request::decode(&request.encode()), Err(RpcError::TooMany)));
        }
        assert!(matches!(Request::decode(&vec![0; 70_000]), Err(RpcError::TooLong(_))));
        for bytes in [&[0xa1, 1, 9][..], &[0xa1, 1, 4]] {
            assert!(matches!(Request::decode(bytes), Err(RpcError::Operation(_))));
        }
    }
}
