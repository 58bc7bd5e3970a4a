//! Directory, DHT and identity: what others know of our own keys.
//!
//! A machine learns here that it was taken into another root, that its key has
//! ended, or that somebody contradicts its chain.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use homehost_directory::DirectoryHandle;
use homehost_mesh::MeshHandle;
use homehost_protocol::RootId;
use homehost_protocol::dht::DhtKey;
use homehost_protocol::rpc::Request;
use homehost_runtime::Shutdown;
use tokio::sync::broadcast::error::RecvError;

use super::phone_book::take_in;
use crate::identity::keys::Keys;
use crate::identity::{Fork, Offered};

/// How often a root that this machine waits to join is looked for.
const LOOK: Duration = Duration::from_secs(5);

/// How often others are asked for the own chain, in looks: a machine that was
/// restored from a backup must learn what happened since, and asks at every look
/// until a host has answered.
const ASK: u32 = 120;

/// Hosts that are asked at one time.
const ASKED: usize = 3;

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
                    let fresh = self.keys.look(|identity| identity.is_fresh());
                    if let Some(root) = joining {
                        self.fetch(root).await;
                    } else if !self.mesh.status().borrow().peers.is_empty() {
                        look += 1;
                        if fresh || look % ASK == 1 {
                            self.ask_for_own(fresh).await;
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

    /// Asks others for the own chain. That it is no longer only what a backup
    /// says is noted when a host has answered, with a chain or without one: a
    /// bootstrap node knows no chains, and its silence says nothing.
    async fn ask_for_own(&self, fresh: bool) {
        let root = self.keys.look(|identity| identity.root());
        let heard = fresh && self.ask_hosts(root).await;
        self.fetch(root).await;
        if heard && let Err(error) = self.keys.look(|identity| identity.heard_from_others()) {
            tracing::warn!("failed to note what others know: {error}");
        }
    }

    /// Asks hosts for a root's chain; whether one has answered.
    async fn ask_hosts(&self, root: RootId) -> bool {
        let status = self.mesh.status().borrow().clone();
        let hosts = status.peers.iter().filter(|peer| peer.holds_replica).take(ASKED);
        let asked = hosts.map(|peer| async {
            let request = Request::Chains { roots: vec![root] };
            let answer = self.mesh.request(peer.node, request).await.ok()?;
            for held in answer.records {
                take_in(&self.directory, held.envelope).await;
            }
            Some(())
        });
        join_all(asked).await.into_iter().flatten().next().is_some()
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
        let Ok(Some((chain, rival))) = self.directory.chain(root).await else { return };
        if let Some(rival) = rival {
            self.keys.note_conflict(Fork::of(&chain, &rival));
        }
        match self.keys.offer_chain(chain).await {
            Ok(Offered::Changed) => tracing::info!(%root, "the own keys have changed"),
            Ok(_) => {}
            Err(error) => tracing::warn!("failed to take over the own key chain: {error}"),
        }
    }
}
