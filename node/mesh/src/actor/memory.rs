//! Whom the node remembers: the core beside its keeper (spec/mesh §2).

use std::sync::Arc;
use std::time::Instant;

use homehost_protocol::{NetworkName, NodeId};
use homehost_runtime::wall_ms;
use libp2p::PeerId;
use libp2p::swarm::dial_opts::DialOpts;

use super::Actor;
use crate::discovery::Source;
use crate::node_id::{node_of, peer_of};
use crate::peer_cache::{Dial, Now, PeerCache, Urgency, Way};
use crate::{PeerKeeper, PeersConfig};

/// The remembered peers, and who keeps them.
pub(super) struct Memory {
    cache: PeerCache,
    network: NetworkName,
    keeper: Arc<dyn PeerKeeper>,
}

fn now() -> Now {
    Now { at: Instant::now(), wall_ms: wall_ms() }
}

impl Memory {
    /// Remembers whom the keeper was told of.
    pub(super) fn open(own: PeerId, network: NetworkName, config: PeersConfig) -> Self {
        let own = node_of(&own).unwrap_or(NodeId([0; 32]));
        let mut cache = PeerCache::new(own, now());
        if let Some(held) = config.held
            && let Err(error) = cache.decode(&held, &network, now())
        {
            // They come again as the node meets them.
            tracing::warn!(%error, "the remembered peers cannot be read; the node begins without");
        }
        tracing::debug!(peers = cache.len(), "remembered peers");
        Self { cache, network, keeper: config.keeper }
    }

    /// Whether there is anybody to be found by memory.
    pub(super) fn source(&self) -> Source {
        if self.cache.len() == 0 { Source::Others } else { Source::Memory }
    }

    pub(super) fn len(&self) -> usize {
        self.cache.len()
    }

    pub(super) fn next(&self) -> Instant {
        self.cache.next()
    }

    pub(super) fn tend(&mut self) {
        if self.cache.tend(now()) {
            self.save();
        }
    }

    pub(super) fn save(&mut self) {
        self.keeper.keep(self.cache.encode(&self.network, now()));
    }

    /// Whom a restart would look for first.
    pub(super) fn anchors(&self) -> impl Iterator<Item = PeerId> {
        self.cache.anchor_ids().into_iter().filter_map(peer_of)
    }

    pub(super) fn left(&mut self, node: NodeId) {
        self.cache.left(node, now());
    }
}

impl Actor {
    /// A peer has said who it is, and is known where it listens.
    pub(super) fn remember(&mut self, peer: &PeerId) {
        let (Some(node), Some(role)) = (node_of(peer), self.peers.role(peer)) else { return };
        self.memory.cache.joined(node, self.peers.addresses(peer), role, now());
        self.status_changed = true;
        if self.is_bootstrap(peer) || self.rules.is_found(*peer) {
            self.discovery.met_by_other_means();
        }
    }

    /// A peer is one to stay away from.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        if let Some(node) = node_of(peer) {
            self.memory.cache.banned(node, now());
        }
    }

    /// A peer answers: dials of its way work at the moment.
    pub(super) fn answers(&mut self, peer: &PeerId) {
        if let Some(link) = self.peers.any_link(peer) {
            self.memory.cache.worked(Way::of(&link.address), now());
        }
    }

    /// A dial to a peer failed at every address.
    pub(super) fn not_there(&mut self, peer: &PeerId) {
        if let Some(node) = node_of(peer) {
            self.memory.cache.failed(node, now());
        }
    }

    pub(super) fn dial_anchors(&mut self) {
        let anchors = self.memory.cache.anchors(now());
        tracing::debug!(anchors = anchors.len(), "dialling those who were there at the end");
        self.dial_all(anchors);
    }

    pub(super) fn dial_remembered(&mut self, most: usize) {
        let alone = self.peers.counts().peers == 0;
        let urgency = if alone { Urgency::Alone } else { Urgency::Calm };
        let dials = self.memory.cache.some(most, urgency, now(), &mut fastrand::Rng::new());
        self.dial_all(dials);
    }

    fn dial_all(&mut self, dials: Vec<Dial>) {
        let now = Instant::now();
        for (node, addresses) in dials {
            let Some(peer) = peer_of(node) else { continue };
            for address in &addresses {
                self.rules.remembered(peer, address, now);
            }
            // One that is connected or being dialled already is refused, and
            // that is fine.
            let _ = self.swarm.dial(DialOpts::peer_id(peer).addresses(addresses).build());
        }
    }
}
