//! The directory's rows and the DHT's records, kept side by side in the replica
//! store.

use homehost_directory::port::{KeyValue, PortFuture, ReplicaStore};
use homehost_mesh::DhtKeeper;
use homehost_protocol::NetworkName;
use homehost_runtime::Shutdown;
use homehost_store::Replica;
use tokio::sync::mpsc;

/// What the keys of DHT records begin with. Those of rows begin with a network's
/// name, which cannot hold this byte.
const DHT: u8 = 0;

/// Changes to the DHT's records that wait for the disk. Over the bound they are
/// lost to the disk only, and the mesh gives them back.
const CHANGES_MAX: usize = 4096;

/// The directory's port on the replica.
pub(crate) struct ReplicaPort(pub(crate) Replica);

impl ReplicaStore for ReplicaPort {
    fn load(&self) -> PortFuture<'_, Vec<KeyValue>> {
        Box::pin(async {
            let mut rows = self.0.load_all().await;
            rows.retain(|(key, _)| key.first() != Some(&DHT));
            rows
        })
    }

    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> PortFuture<'_, ()> {
        Box::pin(self.0.put(key, value))
    }

    fn remove(&self, key: Vec<u8>) -> PortFuture<'_, ()> {
        Box::pin(self.0.remove(key))
    }
}

/// A change: a key, and the value that it has from now on.
type Change = (Vec<u8>, Option<Vec<u8>>);

/// The DHT's port on the replica.
pub(crate) struct DhtPort {
    prefix: Vec<u8>,
    changes: mpsc::Sender<Change>,
}

/// Writes what the DHT's port was told.
pub(crate) struct DhtWriter {
    replica: Replica,
    changes: mpsc::Receiver<Change>,
}

impl DhtPort {
    /// Both ends, and what was kept before.
    pub(crate) async fn open(
        replica: Replica,
        network: &NetworkName,
    ) -> (Self, DhtWriter, Vec<KeyValue>) {
        let prefix = [&[DHT], network.as_str().as_bytes(), b"/"].concat();
        let rows = replica.load_all().await.into_iter();
        let held = rows.filter_map(|(key, value)| {
            key.strip_prefix(prefix.as_slice()).map(|key| (key.to_vec(), value))
        });
        let held = held.collect();
        let (changes, inbox) = mpsc::channel(CHANGES_MAX);
        (Self { prefix, changes }, DhtWriter { replica, changes: inbox }, held)
    }

    fn tell(&self, key: &[u8], value: Option<&[u8]>) {
        let key = [self.prefix.as_slice(), key].concat();
        // See `CHANGES_MAX`.
        let _ = self.changes.try_send((key, value.map(<[u8]>::to_vec)));
    }
}

impl DhtKeeper for DhtPort {
    fn kept(&self, key: &[u8], value: &[u8]) {
        self.tell(key, Some(value));
    }

    fn dropped(&self, key: &[u8]) {
        self.tell(key, None);
    }
}

impl DhtWriter {
    /// Runs until the node stops.
    pub(crate) async fn run(mut self, shutdown: Shutdown) -> Result<(), std::convert::Infallible> {
        loop {
            tokio::select! {
                biased;
                () = shutdown.stopping() => break,
                Some(change) = self.changes.recv() => self.write(change).await,
            }
        }
        while let Ok(change) = self.changes.try_recv() {
            self.write(change).await;
        }
        Ok(())
    }

    async fn write(&self, (key, value): Change) {
        match value {
            Some(value) => self.replica.put(key, value).await,
            None => self.replica.remove(key).await,
        }
    }
}
