//! What the directory needs of the node around it.

use std::future::Future;
use std::pin::Pin;

/// A future of a port's method.
pub type PortFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A key and its value.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// Where rows survive a restart. What is lost here the mesh gives back, so that
/// trouble with the disk is the store's to report and nobody's to wait for.
pub trait ReplicaStore: Send + Sync {
    /// All rows.
    fn load(&self) -> PortFuture<'_, Vec<KeyValue>>;
    /// Stores a row; durable within the store's stated window.
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> PortFuture<'_, ()>;
    /// Removes a row.
    fn remove(&self, key: Vec<u8>) -> PortFuture<'_, ()>;
}

/// Keeps nothing: for tests, and for nodes without a disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoStore;

impl ReplicaStore for NoStore {
    fn load(&self) -> PortFuture<'_, Vec<KeyValue>> {
        Box::pin(async { Vec::new() })
    }
    fn put(&self, _: Vec<u8>, _: Vec<u8>) -> PortFuture<'_, ()> {
        Box::pin(async {})
    }
    fn remove(&self, _: Vec<u8>) -> PortFuture<'_, ()> {
        Box::pin(async {})
    }
}
