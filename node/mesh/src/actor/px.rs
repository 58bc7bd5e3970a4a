//! Peer exchange (spec/mesh §16): a bootstrap node answers from its book, a host
//! dials those whom it is told of.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use homehost_protocol::rpc::px::{PxRequest, PxResponse};
use homehost_protocol::{NodeId, Scope};
use libp2p::identity::Keypair;
use libp2p::request_response::{
    self, Message, OutboundFailure, OutboundRequestId, ResponseChannel,
};
use libp2p::swarm::ConnectionId;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::{Multiaddr, PeerId};

use super::Actor;
use crate::discovery::HOSTS_ENOUGH;
use crate::metrics::{Rpc, RpcRefusal};
use crate::node_id::node_of;
use crate::px::{ADDRESSES_MAX, Book, SignedPeer, sign};
use crate::scope::{self, may_enter, may_tell, without_peer};
use crate::token_bucket::{Budgets, Rate};
use crate::{Misdeed, Role};

/// Questions of one peer: when it joins, when its addresses change, and now and
/// then while it knows few.
const RATE: Rate = Rate { per_second: 1.0 / 30.0, burst: 4.0 };

/// Peers whose budget is remembered, also across connections; more than can be
/// connected at once.
const BUDGETS_MAX: usize = 4096;

/// How long a host that knows few waits before it asks the same node again.
const ASK_AGAIN: Duration = Duration::from_secs(300);

/// The same when it could not say yet where it listens itself, or was not known
/// yet to whom it asked, as right after a start: others would not be told of it.
const ASK_SOON: Duration = Duration::from_secs(2);

/// What the actor knows of peer exchange.
pub(super) struct Px {
    keypair: Keypair,
    pub(super) book: Book,
    budgets: Budgets<NodeId>,
    /// Our own questions under way, one for each bootstrap node at most.
    asked: HashMap<OutboundRequestId, PeerId>,
    /// When each connected bootstrap node that was asked may be asked again.
    again_at: HashMap<PeerId, Instant>,
}

impl Px {
    pub(super) fn new(keypair: Keypair) -> Self {
        Self {
            keypair,
            book: Book::default(),
            budgets: Budgets::new(RATE, BUDGETS_MAX),
            asked: HashMap::new(),
            again_at: HashMap::new(),
        }
    }
}

type Event = request_response::Event<PxRequest, PxResponse>;

impl Actor {
    /// A peer has joined.
    pub(super) fn px_joined(&mut self, peer: PeerId) {
        self.px.book.returned(&peer);
        // Only whom a person named: anybody can call itself a bootstrap node.
        let named = self.bootstrap.iter().any(|(_, at)| *at == Some(peer));
        if named && self.peers.role(&peer) == Some(Role::Bootstrap) {
            self.ask_px(peer, Instant::now());
        }
    }

    /// The last connection to a peer is gone.
    pub(super) fn px_left(&mut self, peer: &PeerId) {
        self.px.book.left(peer, Instant::now());
        self.px.again_at.remove(peer);
    }

    /// Asks the bootstrap nodes that are connected and were not asked lately.
    pub(super) fn ask_px_again(&mut self, now: Instant) {
        let due = self.px.again_at.iter().filter(|(_, at)| **at <= now).map(|(peer, _)| *peer);
        for peer in due.collect::<Vec<_>>() {
            self.ask_px(peer, now);
        }
    }

    fn ask_px(&mut self, peer: PeerId, now: Instant) {
        if self.peers.counts().hosts >= HOSTS_ENOUGH || self.px.asked.len() >= ADDRESSES_MAX {
            return;
        }
        let request = PxRequest { record: self.own_record(&peer) };
        let pause = if request.record.is_some() { ASK_AGAIN } else { ASK_SOON };
        let id = self.swarm.behaviour_mut().px.send_request(&peer, request);
        self.px.asked.insert(id, peer);
        self.px.again_at.insert(peer, now + pause);
    }

    /// Where others find us, as far as it is this peer's business.
    fn own_record(&self, peer: &PeerId) -> Option<Vec<u8>> {
        let link = self.peers.any_link(peer)?;
        let scope = scope::of(&link.address);
        // From afar a record is only taken for the address that is seen there.
        let seen = self.peers.observed_by(peer).map(|ip| ip.to_canonical());
        let ours = self.swarm.external_addresses().chain(self.swarm.listeners());
        let mut addresses: Vec<Multiaddr> = Vec::new();
        for address in ours.cloned().map(without_peer) {
            let ip = scope::ip_of(&address).map(|ip| ip.to_canonical());
            let direct = may_tell(scope, &address) && (scope != Scope::Global || ip == seen);
            let may = direct || leads_through(peer, &address);
            if may && !addresses.contains(&address) && addresses.len() < ADDRESSES_MAX {
                addresses.push(address);
            }
        }
        sign(&self.px.keypair, addresses)
    }

    pub(super) fn on_px(&mut self, event: Event) {
        match event {
            Event::Message { peer, connection_id, message } => match message {
                Message::Request { request, channel, .. } => {
                    self.on_px_request(peer, connection_id, request, channel);
                }
                Message::Response { request_id, response } => {
                    if self.px.asked.remove(&request_id).is_some() {
                        self.on_px_response(peer, response);
                    }
                }
            },
            Event::OutboundFailure { peer, request_id, error, .. } => {
                self.px.asked.remove(&request_id);
                tracing::debug!(%peer, %error, "no peers were named");
                // It may not have heard yet who we are.
                if let Some(at) = self.px.again_at.get_mut(&peer)
                    && !matches!(error, OutboundFailure::UnsupportedProtocols)
                {
                    *at = (*at).min(Instant::now() + ASK_SOON);
                }
            }
            Event::InboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "a question for peers was not answered");
                self.not_answered(Rpc::Px, &error);
            }
            Event::ResponseSent { .. } => {}
        }
    }

    fn on_px_request(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        request: PxRequest,
        channel: ResponseChannel<PxResponse>,
    ) {
        let now = Instant::now();
        let joined = self.peers.has_joined(&peer) && !self.clients.contains(&peer);
        let Some(from) = node_of(&peer).filter(|_| joined) else {
            return self.metrics.rpc_refused(Rpc::Px, RpcRefusal::Stranger);
        };
        if !self.px.budgets.take(from, now) {
            return self.metrics.rpc_refused(Rpc::Px, RpcRefusal::Budget);
        }
        let Some(address) = self.peers.link(&peer, connection).map(|link| link.address.clone())
        else {
            return;
        };
        if let Some(bytes) = request.record {
            let record = SignedPeer::read(&bytes).filter(|record| record.peer == peer);
            let Some(record) = record else {
                self.misdeed(peer, Misdeed::Nonsense);
                return self.metrics.rpc_refused(Rpc::Px, RpcRefusal::Malformed);
            };
            // One that names others' addresses may mean it well: its router has
            // another for it. It is not kept.
            let here = *self.swarm.local_peer_id();
            let own = |told: &Multiaddr| may_enter(&address, told) || leads_through(&here, told);
            let own = record.addresses.iter().all(own);
            if own && self.peers.role(&peer) == Some(Role::Host) {
                self.px.book.put(record, now);
                self.metrics.px_records(self.px.book.len());
            }
        }
        let mut random = fastrand::Rng::new();
        let asker = (peer, scope::of(&address));
        let records = self.px.book.choose(asker, now, &mut random);
        if self.swarm.behaviour_mut().px.send_response(channel, PxResponse { records }).is_err() {
            tracing::debug!(%peer, "who asked for peers has gone");
        }
    }

    /// Dials some of those whom a bootstrap node named.
    fn on_px_response(&mut self, from: PeerId, response: PxResponse) {
        let Some(way) = self.peers.any_link(&from).map(|link| link.address.clone()) else { return };
        let scope = scope::of(&way);
        let own = *self.swarm.local_peer_id();
        let mut wanted = HOSTS_ENOUGH.saturating_sub(self.peers.counts().hosts);
        let mut named = HashSet::new();
        for bytes in response.records {
            let Some(record) = SignedPeer::read(&bytes) else {
                // It verified them before it gave them.
                return self.misdeed(from, Misdeed::InvalidRecord);
            };
            let peer = record.peer;
            if peer == own || !named.insert(peer) || self.peers.is_connected(&peer) {
                continue;
            }
            // Who is reached through the node that named it is asked for there, not
            // wherever else the record would have us dial.
            let address = |address: Multiaddr| match leads_through(&from, &address) {
                true => Some(scope::through(way.clone(), from)),
                false => Some(address).filter(|address| may_tell(scope, address)),
            };
            let addresses: Vec<_> = record.addresses.into_iter().filter_map(address).collect();
            if addresses.is_empty() || wanted == 0 {
                continue;
            }
            wanted -= 1;
            // One that is being dialled already is refused, and that is fine.
            let _ = self.swarm.dial(DialOpts::peer_id(peer).addresses(addresses).build());
        }
    }
}

/// Whether an address leads through this relay.
fn leads_through(relay: &PeerId, address: &Multiaddr) -> bool {
    scope::relay_of(address).is_some_and(|(by, _)| by == *relay)
}
