//! Server definitions, kept in the ledger as JSON: a person with a hex editor
//! and a bad day can read them.

use async_trait::async_trait;
use homehost_hosting::{DefinitionStore, ServerDefinition, StoreFailure};
use homehost_protocol::ServerId;
use homehost_protocol::limits::SERVERS_PER_DEVICE_MAX;
use homehost_store::{Batch, Ledger, Table};

/// The hosting's port on the ledger.
pub(crate) struct DefinitionPort(pub(crate) Ledger);

#[async_trait]
impl DefinitionStore for DefinitionPort {
    async fn load(&self) -> Result<Vec<ServerDefinition>, StoreFailure> {
        let rows = self
            .0
            .scan(Table::Servers, b"", SERVERS_PER_DEVICE_MAX)
            .await
            .map_err(StoreFailure::new)?;
        rows.iter()
            .map(|(_, value)| serde_json::from_slice(value).map_err(StoreFailure::new))
            .collect()
    }

    async fn save(&self, definition: &ServerDefinition) -> Result<(), StoreFailure> {
        let value = serde_json::to_vec(definition).map_err(StoreFailure::new)?;
        let batch = Batch::new().put(Table::Servers, definition.id.as_ref(), value);
        self.0.commit(batch).await.map_err(StoreFailure::new)
    }

    async fn remove(&self, id: &ServerId) -> Result<(), StoreFailure> {
        let batch = Batch::new().delete(Table::Servers, id.as_ref());
        self.0.commit(batch).await.map_err(StoreFailure::new)
    }
}
