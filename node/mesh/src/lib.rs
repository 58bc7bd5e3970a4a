//! The mesh: one libp2p swarm, owned by one task, behind one handle.
//!
//! It owns connections, the routing table, the records of the DHT, and the
//! transport of gossip and of the RPCs. It finds peers of its own network and leaves all others.
//! It never looks inside a record: what a message says is judged by whoever
//! reads [`MeshEvent`], what the DHT keeps by [`DhtRules`], and no libp2p type but [`Multiaddr`] leaves this crate.
//!
//! What goes over the wire is written down in `docs/spec/mesh.md`; comments
//! cite its sections.

mod actor;
pub mod address;
pub mod ask;
mod autonat;
mod autonat_server;
mod backlog;
mod behaviour;
mod codec;
mod config;
mod crowd;
mod deaf;
pub mod deny;
mod dht;
mod dial_gate;
mod direct_only;
mod discovery;
mod diversity;
mod event;
mod facts;
mod gossip;
mod handle;
mod introduce;
mod joins;
mod metrics;
mod near;
mod node_id;
mod outbox;
mod peer_cache;
mod peers;
mod port_reuse;
mod ports;
mod px;
mod reach_probe;
mod reachability;
mod record_store;
mod relay_limits;
mod relays;
mod scope;
mod sleep;
mod standing;
mod start;
mod status;
mod throttle;
mod token_bucket;
mod traffic;
mod transport;
mod trim;
mod unread;

pub use libp2p::Multiaddr;

pub use config::{MeshConfig, NoPeerKeeper, OperatorConfig, PeerKeeper, PeersConfig, Role};
pub use dht::{
    DhtAnswer, DhtConfig, DhtError, DhtFacts, DhtKeeper, DhtRefusal, DhtRules, DhtVote,
    EnvelopeRules, NoKeeper, NoRules,
};
pub use diversity::AddressBlock;
pub use event::{AttestToken, GossipToken, GossipVerdict, MeshEvent, Misdeed, ReplyToken};
pub use facts::{
    AddressSource, AddressState, MappingFacts, NatKind, NetworkFacts, OwnAddress, PathKind,
    PortProtocol, RelayFacts, RelayState, RouterFacts,
};
pub use handle::{MeshHandle, PublishError, Published, RequestError};
pub use joins::JoinTimes;
pub use ports::PortWish;
pub use start::{StartError, start};
pub use status::{MeshStatus, ObservedAddress, PeerInfo};
pub use throttle::BandwidthLimits;
pub use traffic::{MeshTraffic, Protocol, ProtocolTraffic};
