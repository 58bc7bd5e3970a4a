//! The directory's rows, kept in the replica store.

use homehost_directory::port::{KeyValue, PortFuture, ReplicaStore};
use homehost_store::Replica;

/// The directory's port on the replica.
pub(crate) struct ReplicaPort(pub(crate) Replica);

impl ReplicaStore for ReplicaPort {
    fn load(&self) -> PortFuture<'_, Vec<KeyValue>> {
        Box::pin(self.0.load_all())
    }

    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> PortFuture<'_, ()> {
        Box::pin(self.0.put(key, value))
    }

    fn remove(&self, key: Vec<u8>) -> PortFuture<'_, ()> {
        Box::pin(self.0.remove(key))
    }
}
