//! What HomeHost peers say to each other, and nothing else.
//!
//! This crate is pure: no clock, no socket, no randomness of its own.
//! It owns the ids, the signed envelope, the deterministic CBOR of records, the
//! messages of the directory RPC, and every limit that two nodes must agree on.
//! It never decides policy: whether a valid record is *wanted* is the
//! directory's business.
//!
//! The words for all of it are in `docs/spec/records.md` and `docs/spec/mesh.md`;
//! comments here cite their sections.

pub mod address;
pub mod cbor;
pub mod chain;
pub mod dht;
pub mod envelope;
pub mod gossip;
pub mod ids;
pub mod invite;
pub mod keys;
pub mod limits;
pub mod network;
pub mod record;
pub mod rpc;
pub mod time;
pub mod validate;
pub mod version;

pub use address::{JoinAddress, Scope, Transport};
pub use chain::{Chain, KeyChain};
pub use ids::{IdError, NodeId, RecId, RootId, ServerId, ServerNonce};
pub use invite::Invite;
pub use keys::{DeviceKey, PublicKey};
pub use network::NetworkName;
pub use record::{
    Record, host::HostAnnouncement, listing::ServerListing, presence::Presence, reach::ReachAttest,
};
pub use time::UnixMillis;
pub use validate::{KeyChains, Validated, Verdict, validate};
