//! What this node knows of its own place in the network: plain data for readers.

use std::net::IpAddr;
use std::time::Instant;

use homehost_protocol::{NodeId, Transport};
use libp2p::Multiaddr;

/// What stands between this node and the world, as far as it was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NatKind {
    /// Nobody from outside has said anything yet.
    #[default]
    Unknown,
    /// An interface has a global address, and the world gets through to it.
    None,
    /// An interface has a global address, and nobody gets through: a firewall.
    Blocked,
    /// The router forwards to us: a global address of it was confirmed.
    Mapped,
    /// Peers of different networks see the same port: hole punching works.
    EndpointIndependent,
    /// They see different ports: hole punching works with some peers only.
    EndpointDependent,
    /// The router's own address is not global: there is another one behind it.
    Double,
}

/// How an address of ours came to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressSource {
    /// We listen on it.
    Listen,
    /// Peers see us there.
    Observed,
    /// The router mapped it.
    Mapped,
    /// A relay forwards from it.
    Relay,
    /// Whoever runs the node gave it.
    Configured,
}

/// Whether the world reaches us at an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressState {
    /// It was not tried.
    #[default]
    Unknown,
    /// A peer of another network did.
    Confirmed,
    /// Peers of other networks tried in vain.
    Refuted,
}

/// One address at which others may reach this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnAddress {
    /// The address, without `/p2p/<id>` at its end.
    pub address: Multiaddr,
    /// How it came to be known.
    pub source: AddressSource,
    /// Whether the world reaches us there.
    pub state: AddressState,
    /// How many blocks of addresses say so; a block is one voice.
    pub voices: usize,
    /// When that was last said.
    pub at: Option<Instant>,
}

/// How ports are asked for at the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortProtocol {
    /// UPnP Internet Gateway Device.
    Upnp,
    /// NAT Port Mapping Protocol (RFC 6886).
    NatPmp,
    /// Port Control Protocol (RFC 6887).
    Pcp,
}

/// The router that was found, or why none was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterFacts {
    /// How it takes requests; `None` when it takes none.
    pub protocol: Option<PortProtocol>,
    /// The address that it says it has outside.
    pub external: Option<IpAddr>,
    /// What is wrong with it.
    pub problem: Option<String>,
}

/// One port that the router forwards to us, or should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingFacts {
    /// What the router shows a person, as in `HomeHost mesh 4011/udp`.
    pub name: String,
    /// Transport of the port.
    pub transport: Transport,
    /// The port here.
    pub internal: u16,
    /// The port outside, once it is mapped.
    pub external: Option<u16>,
    /// How it was mapped.
    pub protocol: Option<PortProtocol>,
    /// When it ends unless it is renewed; `None` when it has no end.
    pub expires: Option<Instant>,
    /// Why it is not mapped.
    pub problem: Option<String>,
}

/// How far the asking of a relay has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayState {
    /// It was asked.
    Trying,
    /// It forwards to us.
    Reserved,
    /// It does not, and is asked again later.
    Failed,
}

/// One relay through which others find us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayFacts {
    /// Who.
    pub node: NodeId,
    /// The address that others dial; empty until it is reserved.
    pub address: Option<Multiaddr>,
    /// How it stands.
    pub state: RelayState,
    /// When the reservation ends unless it is renewed, as far as that is known.
    pub expires: Option<Instant>,
    /// Why it does not forward.
    pub problem: Option<String>,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkFacts {
    /// What stands between us and the world, for IPv4.
    pub nat: NatKind,
    /// Our addresses, the confirmed first.
    pub addresses: Vec<OwnAddress>,
    /// The router, once it was looked for.
    pub router: Option<RouterFacts>,
    /// Ports at the router.
    pub mappings: Vec<MappingFacts>,
    /// Relays that forward to us.
    pub relays: Vec<RelayFacts>,
}

/// How a peer is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathKind {
    /// Over a direct connection.
    Direct,
    /// Over a direct connection that both ends opened at the same moment.
    HolePunched,
    /// Through a relay.
    Relayed,
}
