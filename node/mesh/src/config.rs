//! What a mesh is started with. Plain data; nothing here reads a file.

use std::fmt;
use std::sync::Arc;

use homehost_protocol::NetworkName;
use libp2p::Multiaddr;

use crate::deny::DenyList;
use crate::{BandwidthLimits, DhtConfig};

/// What this node does for the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Gossips, and answers the directory RPC.
    Host,
    /// Only introduces peers to one another. It neither subscribes to gossip
    /// nor serves records: it holds nothing that it could be asked to remove.
    Bootstrap,
}

impl Role {
    /// How the agent string of a node in this role ends (spec/mesh §1).
    pub(crate) fn marker(self) -> &'static str {
        match self {
            Self::Host => " (host)",
            Self::Bootstrap => " (bootstrap)",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Bootstrap => "bootstrap",
        })
    }
}

/// Is told whom the mesh wants to remember over a restart.
///
/// Called on the mesh's own task, every few minutes at most but for a burst
/// after the start, so it must not wait.
pub trait PeerKeeper: Send + Sync {
    /// From now on this is all that is to be remembered: some 20 kB, which
    /// only the mesh itself reads.
    fn keep(&self, peers: Vec<u8>);
}

/// Remembers nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPeerKeeper;

impl PeerKeeper for NoPeerKeeper {
    fn keep(&self, _: Vec<u8>) {}
}

/// What a node knows of its peers from before.
#[derive(Clone)]
pub struct PeersConfig {
    /// What the keeper was told last, before the restart. When it cannot be
    /// read, or is of another network, the mesh begins without.
    pub held: Option<Vec<u8>>,
    /// Is told what to remember.
    pub keeper: Arc<dyn PeerKeeper>,
}

impl Default for PeersConfig {
    fn default() -> Self {
        Self { held: None, keeper: Arc::new(NoPeerKeeper) }
    }
}

/// What the operator of a bootstrap node sets. The default leaves everything open.
#[derive(Clone, Debug, Default)]
pub struct OperatorConfig {
    /// Whom to keep out from the first connection on;
    /// [`MeshHandle::set_deny`](crate::MeshHandle::set_deny) changes it.
    pub deny: DenyList,
    /// How many bytes a second may pass; without it, all.
    pub bandwidth: Option<BandwidthLimits>,
}

/// Everything that [`start`](crate::start()) needs.
#[derive(Clone)]
pub struct MeshConfig {
    /// Secret seed of the node's Ed25519 key; the public half is its id.
    pub key_seed: [u8; 32],
    /// The network to join; nodes of others are left at once.
    pub network: NetworkName,
    /// What this node does for the mesh.
    pub role: Role,
    /// Where to listen; port 0 picks a free one.
    pub listen: Vec<Multiaddr>,
    /// First peers to dial, with or without `/p2p`.
    pub bootstrap: Vec<Multiaddr>,
    /// Addresses at which others reach this node, known to whoever runs it.
    pub external: Vec<Multiaddr>,
    /// Whether to look for peers on the local link. Only heeded when some
    /// listen address is not loopback.
    pub mdns: bool,
    /// Whether to ask the router to forward ports. Only heeded when some listen
    /// address is not loopback.
    pub port_mapping: bool,
    /// What the DHT may keep here. A bootstrap node keeps nothing whatever this
    /// says.
    pub dht: DhtConfig,
    /// Whom this node remembers from before.
    pub peers: PeersConfig,
    /// What whoever runs a bootstrap node has set.
    pub operator: OperatorConfig,
    /// Program and version, as in `homehost/0.1.0`; peers see it.
    pub agent: String,
}

impl fmt::Debug for MeshConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshConfig")
            .field("network", &self.network)
            .field("role", &self.role)
            .field("listen", &self.listen)
            .field("bootstrap", &self.bootstrap)
            .field("external", &self.external)
            .field("mdns", &self.mdns)
            .field("port_mapping", &self.port_mapping)
            .field("dht", &self.dht)
            .field("agent", &self.agent)
            .finish_non_exhaustive()
    }
}
