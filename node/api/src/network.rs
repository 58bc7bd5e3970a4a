//! What a person can see of the network beyond the rows of a search.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::DirectoryRow;

/// What the DHT says of one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// Server id.
    pub id: String,
    /// The server, if anybody knows it.
    pub row: Option<DirectoryRow>,
    /// Peers that answered.
    pub answers: usize,
    /// Peers that gave the version that is shown.
    pub agree: usize,
    /// How many of those are independent: a block of addresses is one voice.
    pub voices: usize,
    /// Whether this node's own replica had it before it asked.
    pub known: bool,
    /// Milliseconds that it took.
    pub took_ms: u64,
}

/// An invitation into the network of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// The string to give away.
    pub text: String,
    /// The network.
    pub network: String,
    /// What it says of where to join, best first.
    pub addresses: Vec<InvitedAddress>,
    /// Who cannot use it, and what to do about that.
    pub note: Option<String>,
}

/// An address in an invitation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitedAddress {
    /// Multiaddr with the peer id.
    pub address: String,
    /// `this` for this node, `bootstrap` or `relay` for another that leads to it.
    pub node: String,
    /// `global`, `lan` or `this-machine`: from where it can be reached, if a
    /// router does not stand in between.
    pub scope: String,
    /// Whether somebody got through to it: of this node's own addresses, a peer of
    /// another network; of another node's, this one.
    #[serde(default)]
    pub state: AddressState,
    /// From where it is reached, and on which condition, for a person.
    #[serde(default)]
    pub reached: String,
}

/// Who could reach a server of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerReach {
    /// Server id.
    pub id: String,
    /// Name.
    pub name: String,
    /// When peers were asked last, RFC 3339; null when nobody was yet.
    pub at: Option<String>,
    /// What they were asked for, as in `30000/udp by luanti`.
    pub asked: Option<String>,
    /// What each said.
    pub witnesses: Vec<Witness>,
    /// One sentence: how it stands and what to do next.
    pub summary: String,
}

/// What one peer said that was asked to reach a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witness {
    /// Its peer id.
    pub node: String,
    /// Its address as this node sees it.
    pub from: Option<String>,
    /// The address at which it reached the server.
    pub reached: Option<String>,
    /// Players that it saw, if the game tells.
    pub players: Option<u16>,
    /// Why it did not reach it.
    pub problem: Option<String>,
}

/// What the mesh costs and what came of it, since the node's start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshStats {
    /// Seconds since the start.
    pub seconds: u64,
    /// Bytes by protocol: content of streams, without what transports add.
    pub traffic: Vec<Traffic>,
    /// Servers that are offered.
    pub listings: usize,
    /// Servers that were taken back and are remembered as such.
    pub tombstones: usize,
    /// Servers that witnesses proved.
    pub proved: usize,
    /// Hosts whose presence is known.
    pub hosts: usize,
    /// Key chains.
    pub key_chains: usize,
    /// Roots whose key chains contradict each other.
    pub key_conflicts: usize,
    /// Records that wait for a key chain.
    pub penned: usize,
    /// Records taken in.
    pub admitted: u64,
    /// Records not taken in, by reason.
    pub refused: BTreeMap<String, u64>,
    /// What peers said and did and what became of it, by what it was and how it
    /// ended: `gossip`, `rpc_refused`, `misdeeds`, `connections_refused`,
    /// `dht_puts`, `dht_providers`.
    #[serde(default)]
    pub counted: BTreeMap<String, BTreeMap<String, u64>>,
    /// Comparisons of whole replicas with peers.
    pub repairs: Repairs,
}

/// Bytes of one protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Which.
    pub protocol: String,
    /// Bytes that came.
    pub received: u64,
    /// Bytes that went.
    pub sent: u64,
}

/// Comparisons of whole replicas with peers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repairs {
    /// That came to their end.
    pub done: u64,
    /// That failed.
    pub failed: u64,
    /// Round trips of comparing.
    pub rounds: u64,
    /// Records that they brought.
    pub records: u64,
    /// Records that peers said they have and did not give.
    pub withheld: u64,
}

/// This node's place in the network: who reaches it, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkFacts {
    /// What stands between this node and the world, for IPv4.
    pub nat: NatKind,
    /// Its addresses, the confirmed first.
    pub addresses: Vec<OwnAddress>,
    /// The router; null while nobody looked for one.
    pub router: Option<Router>,
    /// Ports that the router forwards, or should.
    pub mappings: Vec<PortMapping>,
    /// Relays through which others find it.
    pub relays: Vec<Relay>,
    /// How it is with IPv6.
    pub ipv6: Ipv6,
    /// One sentence: how it stands and what to do next.
    pub summary: String,
}

/// What stands between a node and the world, as far as it was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NatKind {
    /// Nobody from outside has said anything yet.
    #[default]
    Unknown,
    /// Nothing: an interface has a global address, and the world gets through.
    None,
    /// A firewall: an interface has a global address, and nobody gets through.
    Blocked,
    /// A router that forwards to this node.
    Mapped,
    /// A router; peers of different networks see the same port.
    EndpointIndependent,
    /// A router; peers of different networks see different ports.
    EndpointDependent,
    /// Two routers in a row, as behind a carrier's own.
    Double,
}

/// One address at which others may reach this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnAddress {
    /// Multiaddr.
    pub address: String,
    /// How it came to be known.
    pub source: AddressSource,
    /// Whether the world reaches this node there.
    pub state: AddressState,
    /// How many independent voices say so: a block of addresses is one.
    pub by: usize,
    /// How many seconds ago that was last said.
    pub age_s: Option<u64>,
}

/// How an address came to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddressSource {
    /// It listens there.
    Listen,
    /// Peers see it there.
    Observed,
    /// The router mapped it.
    Mapped,
    /// A relay forwards from it.
    Relay,
    /// Its owner said so.
    Configured,
}

/// Whether the world reaches a node at an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddressState {
    /// A peer of another network did.
    Confirmed,
    /// Peers of other networks tried in vain.
    Refuted,
    /// It was not tried.
    #[default]
    Unknown,
}

/// A router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Router {
    /// How it takes requests; null when it takes none.
    pub protocol: Option<PortProtocol>,
    /// The address that it says it has outside.
    pub external_ip: Option<String>,
    /// What is wrong with it.
    pub problem: Option<String>,
}

/// How ports are asked for at a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortProtocol {
    /// UPnP.
    Upnp,
    /// NAT-PMP.
    NatPmp,
    /// PCP.
    Pcp,
}

/// A port that a router forwards, or should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// Its name at the router, as in `HomeHost mesh 4011/udp`.
    pub name: String,
    /// `udp` or `tcp`.
    pub transport: String,
    /// The port here.
    pub internal: u16,
    /// The port outside, once it is mapped.
    pub external: Option<u16>,
    /// How it was mapped.
    pub protocol: Option<PortProtocol>,
    /// Seconds until it ends unless it is renewed; null when it has no end.
    pub expires_s: Option<u64>,
    /// Why it is not mapped.
    pub problem: Option<String>,
}

/// A relay through which others find this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relay {
    /// Its peer id.
    pub node: String,
    /// The multiaddr that others dial.
    pub address: Option<String>,
    /// How it stands.
    pub state: RelayState,
    /// Seconds until the reservation ends unless it is renewed.
    pub expires_s: Option<u64>,
    /// Why it does not forward.
    pub problem: Option<String>,
}

/// How far the asking of a relay has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RelayState {
    /// It was asked.
    Trying,
    /// It forwards.
    Reserved,
    /// It does not, and is asked again later.
    Failed,
}

/// How it is with IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv6 {
    /// Whether an interface has a global address.
    pub global: bool,
    /// Whether the world gets through to it.
    pub confirmed: bool,
}

/// How a peer is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathKind {
    /// Over a direct connection.
    Direct,
    /// Over a direct connection that both ends opened at the same moment.
    HolePunched,
    /// Through a relay.
    Relayed,
}
