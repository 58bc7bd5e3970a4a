//! Gossip between the swarm and whoever judges it (spec/mesh §3).

use std::collections::hash_map::Entry;
use std::time::Instant;

use homehost_protocol::gossip::Topic;
use homehost_protocol::limits::GOSSIP_BYTES_MAX;
use libp2p::PeerId;
use libp2p::gossipsub::{self, Message, MessageAcceptance, PublishError as Libp2pError};
use libp2p::swarm::dial_opts::DialOpts;

use super::Actor;
use crate::metrics::GossipFate;
use crate::node_id::node_of;
use crate::{GossipToken, GossipVerdict, MeshEvent, PublishError, Published, Role};

/// Messages of one peer that may wait for their verdicts: all that a host says
/// at once. A fourteenth of what is read ahead, so that one peer that says much
/// leaves the others their turn.
const UNJUDGED_MAX: usize = 32;

impl Actor {
    pub(super) fn publish(
        &mut self,
        topic: Topic,
        message: Vec<u8>,
    ) -> Result<Published, PublishError> {
        let length = message.len();
        let hash = self.topics.hash(topic).ok_or(PublishError::Role)?;
        let gossip = self.swarm.behaviour_mut().gossip.as_mut().ok_or(PublishError::Role)?;
        match gossip.publish(hash, message) {
            Ok(_) => Ok(Published::Sent),
            Err(Libp2pError::NoPeersSubscribedToTopic) => Ok(Published::NoPeers),
            Err(Libp2pError::Duplicate) => Ok(Published::Duplicate),
            Err(Libp2pError::AllQueuesFull(_)) => Err(PublishError::Congested),
            // Neither signing nor compression is in use.
            Err(
                Libp2pError::MessageTooLarge
                | Libp2pError::SigningError(_)
                | Libp2pError::TransformFailed(_),
            ) => Err(PublishError::TooLong(length)),
        }
    }

    pub(super) fn judge(&mut self, token: &GossipToken, verdict: GossipVerdict) {
        self.metrics.gossip(GossipFate::Judged(verdict));
        if let Entry::Occupied(mut unjudged) = self.unjudged.entry(token.source) {
            *unjudged.get_mut() -= 1;
            if *unjudged.get() == 0 {
                unjudged.remove();
            }
        }
        let acceptance = match verdict {
            GossipVerdict::Accept => MessageAcceptance::Accept,
            GossipVerdict::Ignore => MessageAcceptance::Ignore,
            GossipVerdict::Reject => MessageAcceptance::Reject,
        };
        self.report(token, acceptance);
    }

    fn report(&mut self, token: &GossipToken, acceptance: MessageAcceptance) {
        let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut() else { return };
        let known =
            gossip.report_message_validation_result(&token.message, &token.source, acceptance);
        if !known {
            tracing::debug!(message = %token.message, "the verdict came too late");
        }
    }

    pub(super) fn on_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                let token = GossipToken { message: message_id, source: propagation_source };
                self.on_message(token, message);
            }
            gossipsub::Event::Subscribed { peer_id, topic } => {
                if self.topics.topic(&topic) == Some(Topic::Listings) {
                    self.gossip_joined(peer_id);
                }
            }
            gossipsub::Event::Unsubscribed { peer_id, topic } => {
                if self.topics.topic(&topic) == Some(Topic::Listings) {
                    self.gossip_left(&peer_id);
                }
            }
            gossipsub::Event::GossipsubNotSupported { .. } => {}
            gossipsub::Event::SlowPeer { peer_id, .. } => {
                tracing::debug!(peer = %peer_id, "peer is too slow for gossip");
            }
        }
    }

    fn on_message(&mut self, token: GossipToken, message: Message) {
        let (Some(topic), Some(from)) = (self.topics.topic(&message.topic), node_of(&token.source))
        else {
            return self.report(&token, MessageAcceptance::Ignore);
        };
        if message.data.len() > GOSSIP_BYTES_MAX {
            self.metrics.gossip(GossipFate::Judged(GossipVerdict::Reject));
            return self.report(&token, MessageAcceptance::Reject);
        }
        let offer = MeshEvent::Gossip { from, topic, message: message.data, token: token.clone() };
        let unjudged = self.unjudged.get(&token.source).copied().unwrap_or(0);
        if unjudged < UNJUDGED_MAX && self.outbox.offer(offer).is_ok() {
            self.unjudged.insert(token.source, unjudged + 1);
        } else {
            self.metrics.gossip(GossipFate::Dropped);
            self.report(&token, MessageAcceptance::Ignore);
        }
    }

    fn gossip_joined(&mut self, peer: PeerId) {
        if self.clients.contains(&peer) {
            return;
        }
        self.deaf.told(&peer);
        let nobody = self.gossip_peers.is_empty();
        if self.gossip_peers.insert(peer) && nobody {
            self.outbox.keep(MeshEvent::GossipJoined);
        }
        self.status_changed = true;
    }

    /// A peer that should take our listings has joined.
    pub(super) fn expect_topics(&mut self, peer: PeerId, holds_replica: bool, now: Instant) {
        let ours =
            self.peers.any_link(&peer).is_some_and(|link| link.outgoing && !link.is_relayed());
        let deaf = holds_replica && ours && !self.gossip_peers.contains(&peer);
        if deaf && self.role == Role::Host {
            self.deaf.joined(peer, now);
        }
    }

    /// Leaves peers that have not told their topics, and dials them anew.
    pub(super) fn tend_gossip(&mut self, now: Instant) {
        for peer in self.deaf.due(now) {
            let Some(link) = self.peers.any_link(&peer).filter(|link| link.outgoing) else {
                continue;
            };
            tracing::debug!(%peer, "it has not told what it takes: dialled anew");
            // Once it is gone: a connection beside another one changes nothing.
            self.dial_anew.insert(peer, link.address.clone());
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    /// A peer has left: dials it anew if it was left for that.
    pub(super) fn dial_anew(&mut self, peer: &PeerId) {
        let Some(address) = self.dial_anew.remove(peer) else { return };
        let dial = DialOpts::peer_id(*peer).addresses(vec![address]).build();
        if let Err(error) = self.swarm.dial(dial) {
            tracing::debug!(%error, "cannot dial it anew");
        }
    }

    /// A peer takes our listings no longer.
    pub(super) fn gossip_left(&mut self, peer: &PeerId) {
        self.deaf.left(peer);
        if self.gossip_peers.remove(peer) {
            self.status_changed = true;
        }
    }
}
