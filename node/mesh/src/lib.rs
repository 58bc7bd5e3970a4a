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
pub mod ask;
mod backlog;
mod behaviour;
mod codec;
mod config;
mod crowd;
mod dht;
mod dial_gate;
mod discovery;
mod diversity;
mod event;
mod facts;
mod gossip;
mod handle;
mod introduce;
mod metrics;
mod near;
mod node_id;
mod outbox;
mod peers;
mod port_reuse;
mod record_store;
mod scope;
mod standing;
mod start;
mod status;
mod token_bucket;
mod traffic;
mod transport;
mod unread;

pub use libp2p::Multiaddr;

pub use config::{MeshConfig, Role};
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
pub use start::{StartError, start};
pub use status::{MeshStatus, ObservedAddress, PeerInfo};
pub use traffic::{MeshTraffic, Protocol, ProtocolTraffic};
