//! Clients: who asks and is in no network (spec/mesh §10).
//!
//! They take up connections, and nothing else: they are in no table, hear no
//! gossip and join nothing.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use homehost_protocol::NodeId;
use libp2p::PeerId;

use super::Actor;
use crate::Role;
use crate::crowd::Source;
use crate::scope;
use crate::token_bucket::{Budgets, Rate};

/// Requests of the clients of one address: a search, a few pages of it, and
/// what it takes to read them.
const RATE: Rate = Rate { per_second: 1.0, burst: 8.0 };

/// Addresses whose budget is remembered.
const BUDGETS_MAX: usize = 4096;

/// How long a client may stay that asks nothing.
const IDLE: Duration = Duration::from_secs(60);

/// Clients of a host at once: a quarter of the places that it has for others.
const HOST_CLIENTS_MAX: usize = 16;
/// Clients of a bootstrap node at once: two fifths of its places.
const BOOTSTRAP_CLIENTS_MAX: usize = 1000;

/// Who has the budget. Ids cost nothing, so it is the address, and only on this
/// machine, which has one address for everybody, the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Payer {
    Address(Source),
    Node(NodeId),
}

/// The connected clients; bounded.
pub(super) struct Clients {
    most: usize,
    /// When each of them was last heard of.
    heard: HashMap<PeerId, Instant>,
    budgets: Budgets<Payer>,
    /// When to look for those that are idle.
    look_at: Option<Instant>,
}

impl Clients {
    pub(super) fn new(role: Role) -> Self {
        let most = match role {
            Role::Host => HOST_CLIENTS_MAX,
            Role::Bootstrap => BOOTSTRAP_CLIENTS_MAX,
        };
        let budgets = Budgets::new(RATE, BUDGETS_MAX);
        Self { most, heard: HashMap::new(), budgets, look_at: None }
    }

    pub(super) fn contains(&self, peer: &PeerId) -> bool {
        self.heard.contains_key(peer)
    }

    pub(super) fn len(&self) -> usize {
        self.heard.len()
    }

    /// When [`Actor::tend_clients`] wants to be called.
    pub(super) fn next(&self) -> Option<Instant> {
        self.look_at
    }
}

impl Actor {
    /// A peer said that it is a client.
    pub(super) fn on_client(&mut self, peer: PeerId) {
        if self.clients.contains(&peer) {
            return;
        }
        if self.clients.heard.len() >= self.clients.most {
            tracing::debug!(%peer, "no place for another client");
            // It may have gone already.
            let _ = self.swarm.disconnect_peer_id(peer);
            return;
        }
        let now = Instant::now();
        self.clients.heard.insert(peer, now);
        self.clients.look_at.get_or_insert(now + IDLE);
        self.metrics.clients(self.clients.heard.len());
        self.status_changed = true;
        self.gossip_left(&peer);
        let behaviour = self.swarm.behaviour_mut();
        behaviour.kad.remove_peer(&peer);
        if let Some(gossip) = behaviour.gossip.as_mut() {
            // It has no business there, whatever it speaks.
            gossip.blacklist_peer(&peer);
        }
    }

    /// The last connection to somebody is gone.
    pub(super) fn client_left(&mut self, peer: &PeerId) {
        if self.clients.heard.remove(peer).is_some() {
            self.metrics.clients(self.clients.heard.len());
            self.status_changed = true;
            if let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut() {
                gossip.remove_blacklisted_peer(peer);
            }
        }
    }

    /// Somebody asks as a client. Says whether it may.
    pub(super) fn client_asks(&mut self, peer: &PeerId, node: NodeId) -> bool {
        let now = Instant::now();
        if let Some(heard) = self.clients.heard.get_mut(peer) {
            *heard = now;
        }
        let ip = self.peers.any_link(peer).and_then(|link| scope::ip_of(&link.address));
        let payer = ip.and_then(Source::of).map_or(Payer::Node(node), Payer::Address);
        self.clients.budgets.take(payer, now)
    }

    /// Closes connections of clients that ask nothing.
    pub(super) fn tend_clients(&mut self, now: Instant) {
        if self.clients.look_at.is_none_or(|at| now < at) {
            return;
        }
        let idle = |heard: &Instant| now.saturating_duration_since(*heard) >= IDLE;
        for (peer, _) in self.clients.heard.iter().filter(|(_, heard)| idle(heard)) {
            // It may have gone already.
            let _ = self.swarm.disconnect_peer_id(*peer);
        }
        // One that is being closed is asked about again, and has gone then.
        let next = self.clients.heard.values().map(|heard| *heard + IDLE).min();
        self.clients.look_at = next.map(|at| at.max(now + Duration::from_secs(1)));
    }
}
