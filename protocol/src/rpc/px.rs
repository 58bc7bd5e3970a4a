//! Peer exchange: a host tells a bootstrap node where it is, and is told where
//! some others are (spec/mesh §16).
//!
//! What is exchanged are libp2p's signed peer records; here they are byte
//! strings. Whoever takes one verifies it.

use super::RpcError;
use crate::cbor::{self, Blob, cbor_map};

/// Bytes of one signed peer record: eight addresses, the key and the signature
/// are some 500.
pub const PX_RECORD_BYTES_MAX: usize = 1024;
/// Records in one answer: twice as many peers as a node needs to begin.
pub const PX_RECORDS_MAX: usize = 16;
/// Bytes of a request: one record and its framing.
pub const PX_REQUEST_BYTES_MAX: usize = PX_RECORD_BYTES_MAX + 16;
/// Bytes of an answer: all records and their framing.
pub const PX_RESPONSE_BYTES_MAX: usize = PX_RECORDS_MAX * (PX_RECORD_BYTES_MAX + 3) + 16;

/// A question for peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PxRequest {
    /// The asker's own record, if others can reach it.
    pub record: Option<Vec<u8>>,
}

/// Where some peers are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PxResponse {
    /// At most [`PX_RECORDS_MAX`] signed peer records.
    pub records: Vec<Vec<u8>>,
}

cbor_map! {
    #[derive(Debug)]
    struct WireRequest {
        optional 1 record: Blob,
    }
}

cbor_map! {
    #[derive(Debug)]
    struct WireResponse {
        list 1 records: Blob,
    }
}

impl PxRequest {
    /// The bytes of this request.
    pub fn encode(self) -> Vec<u8> {
        cbor::encode(&WireRequest { record: self.record.map(Blob) })
    }

    /// Reads a request from outside.
    ///
    /// # Errors
    /// See [`RpcError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, RpcError> {
        if bytes.len() > PX_REQUEST_BYTES_MAX {
            return Err(RpcError::TooLong(bytes.len()));
        }
        let wire: WireRequest = cbor::decode(bytes)?;
        let record = wire.record.map(|blob| blob.0);
        match record {
            Some(record) if record.len() > PX_RECORD_BYTES_MAX => {
                Err(RpcError::TooLong(record.len()))
            }
            record => Ok(Self { record }),
        }
    }
}

impl PxResponse {
    /// The bytes of this response.
    pub fn encode(self) -> Vec<u8> {
        cbor::encode(&WireResponse { records: self.records.into_iter().map(Blob).collect() })
    }

    /// Reads a response from outside.
    ///
    /// # Errors
    /// See [`RpcError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, RpcError> {
        if bytes.len() > PX_RESPONSE_BYTES_MAX {
            return Err(RpcError::TooLong(bytes.len()));
        }
        let wire: WireResponse = cbor::decode(bytes)?;
        let records: Vec<_> = wire.records.into_iter().map(|blob| blob.0).collect();
        let longest = records.iter().map(Vec::len).max().unwrap_or_default();
        if records.len() > PX_RECORDS_MAX {
            return Err(RpcError::TooLong(records.len()));
        }
        if longest > PX_RECORD_BYTES_MAX {
            return Err(RpcError::TooLong(longest));
        }
        Ok(Self { records })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_wire_and_fit_their_limits() {
        for record in [None, Some(vec![7; PX_RECORD_BYTES_MAX])] {
            let request = PxRequest { record };
            let bytes = request.clone().encode();
            assert!(bytes.len() <= PX_REQUEST_BYTES_MAX);
            assert_eq!(PxRequest::decode(&bytes).expect("own bytes"), request);
        }
        for count in [0, 1, PX_RECORDS_MAX] {
            let response = PxResponse { records: vec![vec![7; PX_RECORD_BYTES_MAX]; count] };
            let bytes = response.clone().encode();
            assert!(bytes.len() <= PX_RESPONSE_BYTES_MAX);
            assert_eq!(PxResponse::decode(&bytes).expect("own bytes"), response);
        }
    }

    #[test]
    fn what_is_cut_too_long_or_too_many_is_refused() {
        let longer = vec![7; PX_RECORD_BYTES_MAX + 1];
        let request = PxRequest { record: Some(longer.clone()) }.encode();
        assert!(PxRequest::decode(&request).is_err());
        assert!(PxResponse::decode(&PxResponse { records: vec![longer] }.encode()).is_err());
        let many = PxResponse { records: vec![vec![7]; PX_RECORDS_MAX + 1] }.encode();
        assert!(PxResponse::decode(&many).is_err());
        assert!(PxRequest::decode(&[0; PX_REQUEST_BYTES_MAX + 1]).is_err());
        assert!(PxResponse::decode(&vec![0; PX_RESPONSE_BYTES_MAX + 1]).is_err());
        let whole = PxResponse { records: vec![vec![7; 40]; 3] }.encode();
        for end in 0..whole.len() {
            assert!(PxResponse::decode(&whole[..end]).is_err(), "{end}");
        }
        // A key below 128 that nobody knows.
        assert!(PxRequest::decode(&[0xa1, 0x02, 0x00]).is_err());
    }
}
