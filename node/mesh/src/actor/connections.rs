//! Connections come, say who they are, and go (spec/mesh §2).

use std::time::{Duration, Instant};

use homehost_protocol::NodeId;
use libp2p::connection_limits::Exceeded;
use libp2p::core::ConnectedPoint;
use libp2p::swarm::{ConnectionId, DialError, ListenError};
use libp2p::{PeerId, identify};

use super::Actor;
use crate::behaviour::CLIENT_VERSION;
use crate::crowd::Crowded;
use crate::deny::{DenyList, KeptOut};
use crate::metrics::Unwanted;
use crate::node_id::{node_of, peer_of};
use crate::peers::{Introduced, Introduction, Link};
use crate::{MeshEvent, Misdeed};

/// How long a peer of another network, or one that misbehaved, is neither dialled nor let in. Its
/// operator may change the network meanwhile.
const REFUSED_FOR: Duration = Duration::from_secs(600);

/// Such peers that are remembered. Each costs about 100 bytes;
/// beyond it the oldest is forgotten.
const REFUSED_MAX: usize = 256;

impl Actor {
    pub(super) fn on_connected(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        endpoint: &ConnectedPoint,
    ) {
        let Some(node) = node_of(&peer) else {
            // Not an Ed25519 key: no record could ever name it.
            self.swarm.close_connection(connection);
            return;
        };
        let link = Link::of(endpoint);
        self.rules.link_opened(connection, &link.address, Instant::now());
        self.dial_failures.remove(&peer);
        if link.outgoing {
            self.note_bootstrap(peer, &link.address);
        }
        self.peers.connected(peer, node, connection, link);
        self.prefer_direct(&peer);
        for old in self.peers.left_behind(&peer, connection) {
            self.swarm.close_connection(old);
        }
        self.answers(&peer);
    }

    pub(super) fn on_closed(&mut self, peer: &PeerId, connection: ConnectionId) {
        self.rules.link_closed(connection, Instant::now());
        self.unseen(connection);
        self.joins.left(connection);
        if let Some(node) = self.peers.closed(peer, connection) {
            tracing::debug!(%node, "peer left");
            self.memory.left(node);
            self.outbox.keep(MeshEvent::PeerLeft { node });
            self.counted();
        }
        if !self.peers.is_connected(peer) {
            self.gossip_left(peer);
            self.unjudged.remove(peer);
            self.client_left(peer);
            self.px_left(peer);
            self.dial_anew(peer);
        }
    }

    pub(super) fn on_identify(&mut self, event: identify::Event) {
        match event {
            identify::Event::Received { connection_id, peer_id, info } => {
                if info.protocol_version == CLIENT_VERSION && !self.peers.has_joined(&peer_id) {
                    self.on_client(peer_id);
                } else if self.clients.contains(&peer_id) {
                    // Who came as a client stays one until it leaves.
                } else if info.protocol_version == self.identify_version {
                    self.on_introduction(peer_id, connection_id, &info);
                } else {
                    self.refuse(peer_id, Unwanted::Network);
                }
            }
            identify::Event::Error { peer_id, error, .. } => {
                tracing::debug!(peer = %peer_id, %error, "peer did not say who it is");
            }
            identify::Event::Sent { .. } | identify::Event::Pushed { .. } => {}
        }
    }

    fn on_introduction(&mut self, peer: PeerId, connection: ConnectionId, info: &identify::Info) {
        let introduction = Introduction::of(info, &self.directory_protocol);
        let holds_replica = introduction.holds_replica;
        let introduced = self.peers.introduced(&peer, introduction);
        self.learn_addresses(peer, connection, &info.listen_addrs);
        self.seen_as(&peer, connection, info);
        match introduced {
            Introduced::Joined { node, scope } => {
                tracing::debug!(%node, "peer joined");
                if let Some(took) = self.joins.joined(connection, Instant::now()) {
                    self.metrics.joined(took);
                }
                self.tell_score(&peer);
                self.outbox.keep(MeshEvent::PeerJoined { node, scope, holds_replica });
                self.counted();
                self.px_joined(peer);
                self.dial_other_family(peer);
                self.expect_topics(peer, holds_replica, Instant::now());
            }
            Introduced::Again => self.status_changed = true,
            Introduced::Gone => {}
        }
        self.remember(&peer);
    }

    /// The number of peers has changed.
    fn counted(&mut self) {
        let counts = self.peers.counts();
        self.metrics.counted(counts);
        self.discovery.changed(counts, Instant::now());
        self.status_changed = true;
    }

    /// A peer did what no honest node does.
    pub(super) fn misdeed(&mut self, peer: PeerId, misdeed: Misdeed) {
        self.metrics.misdeed(misdeed);
        let leave = self.standing.misdeed(peer, Instant::now());
        self.tell_score(&peer);
        if leave {
            self.refuse(peer, Unwanted::Misdeeds);
        }
    }

    /// How often what a node says turned out true.
    pub(super) fn set_truth(&mut self, node: NodeId, truth: f64) {
        if let Some(peer) = peer_of(node) {
            self.standing.set_truth(peer, truth, Instant::now());
            self.tell_score(&peer);
        }
    }

    /// Lets gossip know what a peer is worth.
    fn tell_score(&mut self, peer: &PeerId) {
        let score = self.standing.score(peer, Instant::now());
        if let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut() {
            // One that is not connected is told when it joins.
            let _ = gossip.set_application_score(peer, score);
        }
    }

    /// Leaves a peer, and stays away from it for a while.
    fn refuse(&mut self, peer: PeerId, why: Unwanted) {
        tracing::debug!(%peer, ?why, "peer is left");
        self.metrics.left(why);
        self.forget(&peer);
        let behaviour = self.swarm.behaviour_mut();
        behaviour.kad.remove_peer(&peer);
        // This also closes its connections.
        if behaviour.refused.block_peer(peer) {
            self.refused.push_back((peer, Instant::now() + REFUSED_FOR));
        }
        if self.refused.len() > REFUSED_MAX
            && let Some((oldest, _)) = self.refused.pop_front()
        {
            self.swarm.behaviour_mut().refused.unblock_peer(oldest);
        }
    }

    /// Keeps out whom the operator says, and leaves those of them that are here.
    pub(super) fn set_deny(&mut self, list: DenyList) {
        self.deny.set(list);
        let list = self.deny.list();
        for (peer, connection, address) in self.peers.all_links() {
            if list.denies_peer(&peer) || list.denies_address(&address) {
                self.metrics.turned_away("denied");
                self.swarm.close_connection(connection);
            }
        }
        self.forget_denied(&list);
        self.px.book.keep_out(&list);
        self.metrics.px_records(self.px.book.len());
    }

    /// A connection of others came to nothing. Counts those that we did not want.
    pub(super) fn on_turned_away(&self, error: &ListenError) {
        let ListenError::Denied { cause } = error else { return };
        if cause.downcast_ref::<KeptOut>().is_some() {
            self.metrics.turned_away("denied");
        } else if cause.downcast_ref::<Crowded>().is_some() {
            self.metrics.turned_away("crowded");
        } else if cause.downcast_ref::<Exceeded>().is_some() {
            self.metrics.turned_away("full");
        } else {
            self.metrics.turned_away("refused");
        }
    }

    /// Forgets refused peers whose time is up.
    pub(super) fn forgive(&mut self, now: Instant) {
        while let Some((peer, until)) = self.refused.front().copied() {
            if now < until {
                break;
            }
            self.refused.pop_front();
            self.swarm.behaviour_mut().refused.unblock_peer(peer);
        }
    }

    pub(super) fn on_dial_failed(&mut self, peer: Option<PeerId>, error: &DialError) {
        if let DialError::WrongPeerId { obtained, .. } = error {
            tracing::debug!(%obtained, expected = ?peer, "another node answers at this address");
        } else {
            tracing::trace!(?peer, %error, "dial failed");
        }
        if let Some(peer) = peer
            && !self.rules.is_congested(Instant::now())
            && matches!(error, DialError::Transport(_) | DialError::WrongPeerId { .. })
        {
            self.unreachable(peer);
            self.not_there(&peer);
        }
    }
}
