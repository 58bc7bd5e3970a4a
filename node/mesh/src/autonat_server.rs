//! The answering side of AutoNAT v2, that dials nobody but who asks (spec/mesh
//! §12).
//!
//! libp2p has one too, which dials any global address that a peer names, for a
//! price of some 60 kB that it also takes for the peer's own. Here it is an
//! address of the house in which the peer is seen, or none, so that it costs
//! nothing; and only a node that the world reaches answers at all: what others
//! cannot reach proves nothing.

mod handler;

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use futures::channel::oneshot;
use homehost_protocol::Scope;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, DialError, FromSwarm, NetworkBehaviour, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

use self::handler::{Asked, Back, Handler};
use crate::autonat::{Answer, Request};
use crate::dial_gate::DialRules;
use crate::scope;
use crate::token_bucket::{Budgets, Rate};

/// Dials that answer others and are under way, of all peers.
const DIALS_MAX: usize = 16;

/// Dials for one peer: those of a node that has just started, and of one whose
/// router changes its mind. They come out of the rate for all dials.
const RATE: Rate = Rate { per_second: 0.2, burst: 16.0 };

/// Peers whose budget is remembered.
const BUDGETS_MAX: usize = 1024;

pub(crate) struct Behaviour {
    enabled: Arc<AtomicBool>,
    rules: DialRules,
    /// Where the far ends of direct connections are.
    seen: HashMap<PeerId, HashMap<ConnectionId, IpAddr>>,
    budgets: Budgets<PeerId>,
    /// Dials of ours that have not come to an end.
    dials: HashMap<ConnectionId, Back>,
    todo: VecDeque<DialOpts>,
}

impl Behaviour {
    pub(crate) fn new(enabled: bool, rules: DialRules) -> Self {
        Self {
            enabled: Arc::new(AtomicBool::new(enabled)),
            rules,
            seen: HashMap::new(),
            budgets: Budgets::new(RATE, BUDGETS_MAX),
            dials: HashMap::new(),
            todo: VecDeque::new(),
        }
    }

    /// Whether peers may ask.
    pub(crate) fn enable(&mut self, enabled: bool) {
        self.enabled.store(enabled, Ordering::Relaxed);
    }

    /// A peer asks to be dialled.
    fn asked(&mut self, peer: PeerId, Asked { request, answer }: Asked, now: Instant) {
        let refuse = |answer: oneshot::Sender<Answer>, why| {
            // Whoever asked may have gone.
            let _ = answer.send(why);
        };
        if !self.enabled.load(Ordering::Relaxed)
            || self.dials.len() >= DIALS_MAX
            || !self.budgets.take(peer, now)
        {
            return refuse(answer, Answer::Rejected);
        }
        let Request { addresses, nonce } = request;
        let Some((index, address)) = addresses.into_iter().find(|(_, at)| self.may_dial(peer, at))
        else {
            return refuse(answer, Answer::Refused);
        };
        let opts = DialOpts::peer_id(peer)
            .addresses(vec![scope::without_peer(address)])
            .condition(PeerCondition::Always)
            // From where nobody has let us in already.
            .allocate_new_port()
            .build();
        self.dials.insert(opts.connection_id(), Back { nonce, index, answer });
        self.todo.push_back(opts);
    }

    fn may_dial(&self, peer: PeerId, address: &Multiaddr) -> bool {
        let Some(seen) = self.seen.get(&peer) else { return false };
        scope::may_tell(Scope::Global, address)
            && scope::ip_of(address).is_some_and(|ip| {
                Scope::of(ip) == Scope::Global && seen.values().any(|at| same_house(*at, ip))
            })
    }

    fn dial_failed(&mut self, connection: ConnectionId, error: &DialError, now: Instant) {
        let Some(Back { index, answer, .. }) = self.dials.remove(&connection) else { return };
        let said = match error {
            // Our own rules kept the dial back: that says nothing of the address.
            _ if self.rules.is_congested(now) => Answer::Failed,
            DialError::Transport(_) | DialError::WrongPeerId { .. } => Answer::Unreached { index },
            _ => Answer::Failed,
        };
        let _ = answer.send(said);
    }
}

/// One address of IPv4, one /64 of IPv6: a machine dials from another address of
/// it than it listens on.
fn same_house(a: IpAddr, b: IpAddr) -> bool {
    match (a.to_canonical(), b.to_canonical()) {
        (IpAddr::V6(a), IpAddr::V6(b)) => a.segments()[..4] == b.segments()[..4],
        (a, b) => a == b,
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        // Whoever is near learns nothing about the world from us.
        let far = !scope::is_relayed(local) && scope::of(remote) == Scope::Global;
        Ok(if far { Handler::serving(self.enabled.clone()) } else { Handler::idle() })
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let back = self.dials.remove(&connection);
        Ok(back.map_or_else(Handler::idle, Handler::dialling_back))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(made) => {
                if let Some(ip) = scope::ip_of(made.endpoint.get_remote_address()) {
                    self.seen.entry(made.peer_id).or_default().insert(made.connection_id, ip);
                }
            }
            FromSwarm::ConnectionClosed(closed) => {
                if let Some(links) = self.seen.get_mut(&closed.peer_id) {
                    links.remove(&closed.connection_id);
                    if links.is_empty() {
                        self.seen.remove(&closed.peer_id);
                    }
                }
            }
            FromSwarm::DialFailure(failed) => {
                self.dial_failed(failed.connection_id, failed.error, Instant::now());
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        _: ConnectionId,
        asked: THandlerOutEvent<Self>,
    ) {
        self.asked(peer, asked, Instant::now());
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        match self.todo.pop_front() {
            Some(opts) => Poll::Ready(ToSwarm::Dial { opts }),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests;
