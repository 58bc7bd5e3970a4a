//! All that a dashboard, a command line, a plugin or a flow may know of a node.
//!
//! Plain data and one trait. Whatever a person can do is an [`Action`] that ends
//! in [`NodeApi::act`]: it is authorised, validated, audited and idempotent
//! there and nowhere else. What a person can see is a view.
//!
//! No type of the mesh, the stores or the sandbox crosses this boundary.

mod action;
mod error;
mod network;
mod view;

use async_trait::async_trait;
use futures::stream::BoxStream;

pub use action::{Action, ActionRequest, NewServer, PreparedKeys, Principal, Receipt};
pub use error::{ApiError, ErrorKind};
pub use network::{
    AddressSource, AddressState, Invitation, InvitedAddress, Ipv6, Lookup, MeshStats, NatKind,
    NetworkFacts, OwnAddress, PathKind, PortMapping, PortProtocol, Relay, RelayState, Repairs,
    Router, ServerReach, Traffic, Witness,
};
pub use view::{
    ClockView, ConfigView, Device, DirectoryChange, DirectoryPage, DirectoryRow, DiscoverQuery,
    Identity, LogLine, NodeStatus, Peer, PhraseState, Reach, RowStatus, Server, ServerState,
    SettingView, SortBy, Visibility,
};

/// A running node, as everything above it sees it.
#[async_trait]
pub trait NodeApi: Send + Sync {
    /// Does something, once: a repeat with the same key returns the first receipt.
    ///
    /// # Errors
    /// See [`ErrorKind`]; the text is for a person and says what to do next.
    async fn act(&self, request: ActionRequest, by: Principal) -> Result<Receipt, ApiError>;

    /// What this node is and how it does.
    async fn status(&self) -> Result<NodeStatus, ApiError>;

    /// Who this node is.
    async fn identity(&self) -> Result<Identity, ApiError>;

    /// The peers that it is connected to.
    async fn peers(&self) -> Result<Vec<Peer>, ApiError>;

    /// The game servers that it runs.
    async fn servers(&self) -> Result<Vec<Server>, ApiError>;

    /// One of them, by id, unique beginning of an id, or name.
    async fn server(&self, server: &str) -> Result<Server, ApiError>;

    /// Console lines of a server: the last `tail`, and with `follow` those to come.
    async fn logs(
        &self,
        server: &str,
        tail: usize,
        follow: bool,
    ) -> Result<BoxStream<'static, LogLine>, ApiError>;

    /// A page of the servers of the network that match.
    async fn discover(&self, query: DiscoverQuery) -> Result<DirectoryPage, ApiError>;

    /// All of them, and then every change to them; a cursor has no meaning here.
    async fn watch(
        &self,
        query: DiscoverQuery,
    ) -> Result<BoxStream<'static, DirectoryChange>, ApiError>;

    /// One server of the network by its id, through the DHT.
    async fn lookup(&self, id: &str) -> Result<Lookup, ApiError>;

    /// Who could reach a server of this node.
    async fn reach(&self, server: &str) -> Result<ServerReach, ApiError>;

    /// What the mesh costs and what came of it.
    async fn mesh_stats(&self) -> Result<MeshStats, ApiError>;

    /// This node's place in the network: who reaches it, and how.
    async fn network_facts(&self) -> Result<NetworkFacts, ApiError>;

    /// An invitation into this node's network.
    async fn invitation(&self) -> Result<Invitation, ApiError>;

    /// What the node was told, and from where it knows.
    async fn config(&self) -> Result<ConfigView, ApiError>;

    /// Whether the node has finished starting.
    fn is_ready(&self) -> bool;

    /// Metrics in the OpenMetrics text format.
    async fn metrics(&self) -> Result<String, ApiError>;
}
