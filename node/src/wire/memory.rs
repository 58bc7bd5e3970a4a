//! The mesh's port to what the node remembers of its peers: a row of the ledger.
//!
//! Without any bootstrap node the mesh cannot give this back, so it is not in
//! the replica, which may be damaged and begun anew.

use homehost_mesh::PeerKeeper;
use homehost_protocol::NetworkName;
use homehost_runtime::Shutdown;
use homehost_store::{Batch, Ledger, Table};
use tokio::sync::watch;

/// The mesh's end. It holds what is to be kept last, and nothing older.
pub(crate) struct PeerPort {
    latest: watch::Sender<Option<Vec<u8>>>,
}

/// Writes what the port was told.
pub(crate) struct PeerWriter {
    ledger: Ledger,
    key: Vec<u8>,
    latest: watch::Receiver<Option<Vec<u8>>>,
}

impl PeerPort {
    /// Both ends, and what was kept before.
    pub(crate) async fn open(
        ledger: Ledger,
        network: &NetworkName,
    ) -> (Self, PeerWriter, Option<Vec<u8>>) {
        let key = [b"peers/", network.as_str().as_bytes()].concat();
        let held = match ledger.get(Table::Meta, &key).await {
            Ok(held) => held,
            Err(error) => {
                // The node finds its peers anew.
                tracing::warn!(%error, "the remembered peers could not be read");
                None
            }
        };
        let (sender, latest) = watch::channel(None);
        (Self { latest: sender }, PeerWriter { ledger, key, latest }, held)
    }
}

impl PeerKeeper for PeerPort {
    fn keep(&self, peers: Vec<u8>) {
        self.latest.send_replace(Some(peers));
    }
}

impl PeerWriter {
    /// Runs until the mesh has let go of its end, which has the last word when
    /// the node stops.
    pub(crate) async fn run(mut self, shutdown: Shutdown) -> Result<(), std::convert::Infallible> {
        while let Some(Ok(())) = shutdown.until_cut(self.latest.changed()).await {
            let Some(peers) = self.latest.borrow_and_update().clone() else { continue };
            let batch = Batch::new().put(Table::Meta, self.key.as_slice(), peers);
            if let Err(error) = self.ledger.commit(batch).await {
                // It is told anew soon; a full disk is spoken of elsewhere.
                tracing::debug!(%error, "the remembered peers were not written");
            }
        }
        Ok(())
    }
}
