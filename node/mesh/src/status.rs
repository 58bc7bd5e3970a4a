//! The snapshot of the mesh that readers watch.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use homehost_protocol::{NodeId, Scope};
use libp2p::Multiaddr;

use crate::{JoinTimes, NetworkFacts, PathKind, Role};

/// What the mesh looks like from here.
#[derive(Clone, Debug, Default)]
pub struct MeshStatus {
    /// Our addresses, one for each interface, each ending in `/p2p/<id>`.
    pub listening: Vec<Multiaddr>,
    /// Our addresses as connected peers see them, the most seen first.
    pub observed: Vec<ObservedAddress>,
    /// Connected peers of our network, in the order of their ids.
    pub peers: Vec<PeerInfo>,
    /// How many of them take listings by gossip.
    pub gossip_peers: usize,
    /// Our own place in the network.
    pub network: NetworkFacts,
    /// Peers that are remembered over a restart, connected or not.
    pub remembered: usize,
    /// Connected clients, who only search.
    pub clients: usize,
    /// How long the last peers that came took to join.
    pub joins: JoinTimes,
}

/// One of our addresses as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObservedAddress {
    /// The address; the port that peers see says nothing behind a NAT.
    pub ip: IpAddr,
    /// How many connected peers say so.
    pub peers: usize,
    /// From how many blocks of addresses they say so: a block is one voice,
    /// however many peers it has.
    pub voices: usize,
}

/// One connected peer of our network.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Who it is.
    pub node: NodeId,
    /// The far end of the connection.
    pub address: Multiaddr,
    /// How far away that is.
    pub scope: Scope,
    /// Whether we dialled it.
    pub outgoing: bool,
    /// How it is reached.
    pub path: PathKind,
    /// `tcp` or `quic`; `None` through a relay.
    pub transport: Option<&'static str>,
    /// Its program and version, shortened and without control characters.
    pub agent: String,
    /// What it does for the mesh, in its own words.
    pub role: Role,
    /// Whether it answers the directory RPC.
    pub holds_replica: bool,
    /// The last ping's round trip.
    pub rtt: Option<Duration>,
    /// When the first connection began.
    pub since: Instant,
}
