//! What the hosting needs from its surroundings; the node implements it.

use async_trait::async_trait;
use homehost_protocol::ServerId;
use thiserror::Error;

use crate::definition::ServerDefinition;

/// The store could not do what it was asked.
#[derive(Debug, Error)]
#[error("the store of server definitions failed: {0}")]
pub struct StoreFailure(#[source] Box<dyn std::error::Error + Send + Sync>);

impl StoreFailure {
    /// Wraps what the store said.
    pub fn new(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(source.into())
    }
}

/// Keeps the definitions of this node.
///
/// What `save` and `remove` acknowledge must survive a loss of power.
#[async_trait]
pub trait DefinitionStore: Send + Sync {
    /// All definitions.
    async fn load(&self) -> Result<Vec<ServerDefinition>, StoreFailure>;

    /// Stores one, in place of an earlier one with its id.
    async fn save(&self, definition: &ServerDefinition) -> Result<(), StoreFailure>;

    /// Forgets one; one that is unknown is no error.
    async fn remove(&self, id: &ServerId) -> Result<(), StoreFailure>;
}
