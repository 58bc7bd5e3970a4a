//! Directory, DHT and identity: what others know of our own keys.
//!
//! A machine learns here that it was taken into another root, that its key has
//! ended, or that somebody contradicts its chain.

use std::sync::Arc;
use std::time::Duration;

use homehost_directory::DirectoryHandle;
use homehost_mesh::MeshHandle;
use homehost_protocol::RootId;
use homehost_protocol::dht::DhtKey;
use homehost_runtime::Shutdown;
use tokio::sync::broadcast::error::RecvError;

use super::phone_book::take_in;
use crate::identity::Offered;
use crate::identity::keys::Keys;

/// How often a root that this machine waits to join is looked for.
const LOOK: Duration = Duration::from_secs(5);

/// How often others are asked for the own chain: a machine that was restored
/// from a backup must learn what happened since.
const ASK: u32 = 120;

/// Carries key chains to the identity.
pub(crate) struct OwnKeys {
    pub(crate) mesh: MeshHandle,
    pub(crate) directory: DirectoryHandle,
    pub(crate) keys: Arc<Keys>,
}

impl OwnKeys {
    /// Runs until the node stops.
    pub(crate) async fn run(self, shutdown: Shutdown) -> Result<(), std::convert::Infallible> {
        let mut changes = self.directory.key_changes();
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut look = 0_u32;
        loop {
            tokio::select! {
                biased;
                () = shutdown.stopping() => return Ok(()),
                root = changes.recv() => match root {
                    Ok(root) => self.offer(root).await,
                    Err(RecvError::Lagged(_)) => for root in self.roots() {
                        self.offer(root).await;
                    },
                    Err(RecvError::Closed) => return Ok(()),
                },
                _ = looks.tick() => {
                    let joining = self.keys.look(|identity| identity.joining());
                    let alone = self.mesh.status().borrow().peers.is_empty();
                    if let Some(root) = joining {
                        self.fetch(root).await;
                    } else if !alone {
                        look += 1;
                        if look % ASK == 1 {
                            self.fetch(self.keys.look(|identity| identity.root())).await;
                            let noted = self.keys.look(|identity| identity.heard_from_others());
                            if let Err(error) = noted {
                                tracing::warn!("failed to note what others know: {error}");
                            }
                        }
                    }
                }
            }
        }
    }

    fn roots(&self) -> Vec<RootId> {
        self.keys
            .look(|identity| [Some(identity.root()), identity.joining()])
            .into_iter()
            .flatten()
            .collect()
    }

    /// Asks the DHT for a root's chain.
    async fn fetch(&self, root: RootId) {
        if let Ok(answer) = self.mesh.dht_get(DhtKey::Chain(root)).await
            && let Some(chain) = answer.best
        {
            take_in(&self.directory, chain).await;
        }
        self.offer(root).await;
    }

    /// Hands what the directory knows of a root's keys to the identity.
    async fn offer(&self, root: RootId) {
        if !self.roots().contains(&root) {
            return;
        }
        let Ok((Some(chain), conflict)) = self.directory.chain(root).await else { return };
        if conflict {
            self.keys.note_conflict();
        }
        match self.keys.offer_chain(chain).await {
            Ok(Offered::Changed) => tracing::info!(%root, "the own keys have changed"),
            Ok(_) => {}
            Err(error) => tracing::warn!("failed to take over the own key chain: {error}"),
        }
    }
}
