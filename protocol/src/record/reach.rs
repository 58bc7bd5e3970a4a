//! Proof that others reached a server (spec/records §14).
//!
//! A witness is a node that asked the game, by the game's own query, at the
//! address that it saw on its connection with the host. Its statement is signed
//! with its node key, and the host publishes the statements that it was given.

use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use serde::{Deserialize, Serialize};

use super::FieldError;
use super::host::CoSignature;
use crate::address::{JoinAddress, Transport};
use crate::cbor::cbor_map;
use crate::ids::{NodeId, RootId, ServerId, ServerNonce};
use crate::keys::DeviceKey;
use crate::limits;
use crate::network::NetworkName;
use crate::time::UnixMillis;

/// How a witness asks. Only what answers a challenge counts: another's address
/// cannot be made to answer for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum ProbeProtocol {
    /// Source query with its challenge; 1.
    A2s,
    /// Minecraft Java status over TCP; 2.
    Minecraft,
    /// Quake 3 `getinfo` with a challenge; 3.
    Quake3,
    /// Luanti's first handshake datagram; 4.
    Luanti,
    /// A TCP handshake; 5.
    Tcp,
}

impl ProbeProtocol {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::A2s, Self::Minecraft, Self::Quake3, Self::Luanti, Self::Tcp];

    /// The transport that it asks over.
    pub fn transport(self) -> Transport {
        match self {
            Self::A2s | Self::Quake3 | Self::Luanti => Transport::Udp,
            Self::Minecraft | Self::Tcp => Transport::Tcp,
        }
    }
}

impl From<ProbeProtocol> for u8 {
    fn from(protocol: ProbeProtocol) -> Self {
        match protocol {
            ProbeProtocol::A2s => 1,
            ProbeProtocol::Minecraft => 2,
            ProbeProtocol::Quake3 => 3,
            ProbeProtocol::Luanti => 4,
            ProbeProtocol::Tcp => 5,
        }
    }
}

impl TryFrom<u8> for ProbeProtocol {
    type Error = &'static str;
    fn try_from(number: u8) -> Result<Self, Self::Error> {
        Self::ALL.into_iter().find(|p| u8::from(*p) == number).ok_or("unknown probe protocol")
    }
}

/// One witness's statement: `[node, at, players or null, signature]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attest(NodeId, UnixMillis, Option<u16>, CoSignature);

impl Attest {
    /// Who reached it.
    pub fn node(&self) -> NodeId {
        self.0
    }

    /// When, by the witness's clock.
    pub fn at(&self) -> UnixMillis {
        self.1
    }

    /// Players that the game reported.
    pub fn players(&self) -> Option<u16> {
        self.2
    }
}

/// What was asked: a server at an address, by a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Which server.
    pub server: ServerId,
    /// Where it was asked: the address as the witness sees it, and the port of
    /// the query.
    pub address: JoinAddress,
    /// How it was asked.
    pub protocol: ProbeProtocol,
}

impl Probe {
    /// What a witness signs: `"homehost-attest/1"`, server id, address as IPv6
    /// (16 bytes, IPv4 mapped), port (16 bits), transport (0 UDP, 1 TCP),
    /// protocol (8 bits), time (64 bits), players (32 bits, all ones when
    /// unknown), network name; numbers are big endian.
    pub fn signing_input(
        &self,
        network: &NetworkName,
        at: UnixMillis,
        players: Option<u16>,
    ) -> Vec<u8> {
        let ip = match self.address.socket.ip() {
            std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            std::net::IpAddr::V6(ip) => ip,
        };
        [
            b"homehost-attest/1".as_slice(),
            &self.server.0,
            &ip.octets(),
            &self.address.socket.port().to_be_bytes(),
            &[u8::from(self.address.transport == Transport::Tcp), self.protocol.into()],
            &at.0.to_be_bytes(),
            &players.map_or(u32::MAX, u32::from).to_be_bytes(),
            network.as_str().as_bytes(),
        ]
        .concat()
    }

    /// A witness's statement, signed with its node key.
    pub fn attest(
        &self,
        network: &NetworkName,
        at: UnixMillis,
        players: Option<u16>,
        node: &DeviceKey,
    ) -> Attest {
        let signature = node.signing().sign(&self.signing_input(network, at, players));
        Attest(NodeId(node.public().0), at, players, CoSignature(signature.to_bytes()))
    }

    /// Whether a statement is about this and signed by whom it names.
    pub fn is_attested_by(&self, network: &NetworkName, attest: &Attest) -> bool {
        VerifyingKey::from_bytes(&attest.0.0).is_ok_and(|key| {
            let input = self.signing_input(network, attest.1, attest.2);
            key.verify_strict(&input, &Signature::from_bytes(&attest.3.0)).is_ok()
        })
    }
}

cbor_map! {
    /// Who reached a server, published by its host.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ReachAttest {
        /// Which server of the root.
        required 1 nonce: ServerNonce,
        /// Where it was asked.
        required 2 address: JoinAddress,
        /// How it was asked.
        required 3 protocol: ProbeProtocol,
        /// How many witnesses were asked, by the host's word.
        required 4 asked: u8,
        /// The statements, sorted by node, each node once.
        list 5 attests: Attest,
    }
}

impl ReachAttest {
    /// The server's id, given whose it is.
    pub fn id(&self, root: &RootId) -> ServerId {
        ServerId::derive(root, &self.nonce)
    }

    /// What the witnesses were asked.
    pub fn probe(&self, root: &RootId) -> Probe {
        Probe { server: self.id(root), address: self.address, protocol: self.protocol }
    }

    /// Checks the fields; the signatures are checked by [`crate::validate()`],
    /// which knows the root.
    ///
    /// # Errors
    /// The first field that breaks its limit or rule.
    pub fn check(&self) -> Result<(), FieldError> {
        if !self.address.is_sound() || self.address.transport != self.protocol.transport() {
            return Err(FieldError::new("address", "must be plain and of the probe's transport"));
        }
        if self.attests.len() > limits::WITNESSES_MAX {
            let rule = format!("must be at most {}", limits::WITNESSES_MAX);
            return Err(FieldError::new("attests", rule));
        }
        if usize::from(self.asked) < self.attests.len() {
            return Err(FieldError::new("asked", "must not be less than the attests"));
        }
        if !self.attests.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(FieldError::new("attests", "must be sorted by node, each once"));
        }
        Ok(())
    }

    pub(crate) fn verify(&self, root: &RootId, network: &NetworkName) -> bool {
        let probe = self.probe(root);
        self.attests.iter().all(|attest| probe.is_attested_by(network, attest))
    }
}
