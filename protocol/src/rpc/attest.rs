//! The witness RPC: a host asks a peer to reach one of its servers
//! (spec/mesh §9).

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::RpcError;
use crate::address::Transport;
use crate::cbor::{self, cbor_map};
use crate::ids::ServerId;
use crate::record::reach::{Attest, ProbeProtocol};

/// Bytes of a request or response.
pub const ATTEST_BYTES_MAX: usize = 512;

cbor_map! {
    /// Which server is to be reached. There is no address in it: a witness only
    /// asks at the address at which it sees the host.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct AttestRequest {
        /// The server.
        required 1 server: ServerId,
        /// Port of the query.
        required 2 port: u16,
        /// How to ask.
        required 3 protocol: ProbeProtocol,
    }
}

/// Why a witness made no statement.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum AttestRefusal {
    /// Nobody answered at the port; 1.
    #[error("nobody answered there")]
    NoAnswer,
    /// It was asked to look at this address a moment ago; 2.
    #[error("this address was asked a moment ago")]
    TooSoon,
    /// It has as much to do as it takes on; 3.
    #[error("it is busy")]
    Busy,
    /// It sees the host through a relay, or not at an address of its own; 4.
    #[error("it does not see this host at an address of its own")]
    NotDirect,
    /// The port is one that it does not dial; 5.
    #[error("it does not dial this port")]
    Port,
}

impl AttestRefusal {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::NoAnswer, Self::TooSoon, Self::Busy, Self::NotDirect, Self::Port];
}

impl From<AttestRefusal> for u8 {
    fn from(refusal: AttestRefusal) -> Self {
        match refusal {
            AttestRefusal::NoAnswer => 1,
            AttestRefusal::TooSoon => 2,
            AttestRefusal::Busy => 3,
            AttestRefusal::NotDirect => 4,
            AttestRefusal::Port => 5,
        }
    }
}

impl TryFrom<u8> for AttestRefusal {
    type Error = &'static str;
    fn try_from(number: u8) -> Result<Self, Self::Error> {
        Self::ALL.into_iter().find(|r| u8::from(*r) == number).ok_or("unknown refusal")
    }
}

/// The statement, and the address that it is about; or why there is none.
pub type AttestResponse = Result<(std::net::IpAddr, Attest), AttestRefusal>;

cbor_map! {
    #[derive(Debug)]
    struct WireResponse {
        optional 1 address: crate::address::JoinAddress,
        optional 2 attest: Attest,
        optional 3 refusal: AttestRefusal,
    }
}

impl AttestRequest {
    /// The bytes of this request.
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// Reads a request from outside.
    ///
    /// # Errors
    /// See [`RpcError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, RpcError> {
        if bytes.len() > ATTEST_BYTES_MAX {
            return Err(RpcError::TooLong(bytes.len()));
        }
        Ok(cbor::decode(bytes)?)
    }

    /// The transport of the port.
    pub fn transport(&self) -> Transport {
        self.protocol.transport()
    }
}

/// The bytes of a response to `request`.
pub fn encode_response(request: &AttestRequest, response: &AttestResponse) -> Vec<u8> {
    let (address, attest, refusal) = match response {
        Ok((ip, attest)) => {
            let socket = std::net::SocketAddr::new(*ip, request.port);
            let address = crate::address::JoinAddress { socket, transport: request.transport() };
            (Some(address), Some(attest.clone()), None)
        }
        Err(refusal) => (None, None, Some(*refusal)),
    };
    cbor::encode(&WireResponse { address, attest, refusal })
}

/// Reads a response from outside.
///
/// # Errors
/// See [`RpcError`].
pub fn decode_response(bytes: &[u8]) -> Result<AttestResponse, RpcError> {
    if bytes.len() > ATTEST_BYTES_MAX {
        return Err(RpcError::TooLong(bytes.len()));
    }
    let wire: WireResponse = cbor::decode(bytes)?;
    match (wire.address, wire.attest, wire.refusal) {
        (Some(address), Some(attest), None) => Ok(Ok((address.socket.ip(), attest))),
        (None, None, Some(refusal)) => Ok(Err(refusal)),
        _ => Err(RpcError::Operation(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::DeviceKey;
    use crate::record::reach::Probe;
    use crate::{NetworkName, UnixMillis};

    #[test]
    fn messages_survive_the_wire() {
        let request =
            AttestRequest { server: ServerId([1; 32]), port: 30_000, protocol: ProbeProtocol::A2s };
        assert_eq!(AttestRequest::decode(&request.encode()).expect("own bytes"), request);
        let address = "8.8.8.8:30000/udp".parse().expect("an address");
        let probe = Probe { server: request.server, address, protocol: request.protocol };
        let node = DeviceKey::from_seed([7; 32]);
        let network = NetworkName::main();
        let attest = probe.attest(&network, UnixMillis(5), Some(3), &node);
        assert!(probe.is_attested_by(&network, &attest));
        assert!(!probe.is_attested_by(&NetworkName::local(), &attest));
        let ip = address.socket.ip();
        for response in [Ok((ip, attest)), Err(AttestRefusal::NoAnswer)] {
            let bytes = encode_response(&request, &response);
            assert!(bytes.len() < ATTEST_BYTES_MAX);
            assert_eq!(decode_response(&bytes).expect("own bytes"), response);
        }
        assert!(decode_response(&[0xa0]).is_err());
        assert!(AttestRequest::decode(&vec![0; 600]).is_err());
    }
}
