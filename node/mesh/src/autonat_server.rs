//! The answering side of AutoNAT v2, that dials nobody but who asks (spec/mesh
//! §12).
//!
//! libp2p's would dial any global address that a peer names, for a price. Here
//! it is the address at which the peer is seen or none, and only a node that the
//! world reaches answers at all: what others cannot reach proves nothing.

use std::collections::HashMap;
use std::net::IpAddr;
use std::task::{Context, Poll};

use either::Either;
use homehost_protocol::Scope;
use libp2p::autonat::v2::server;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};
use thiserror::Error;

use crate::scope;

/// Dials that answer others and are under way, of all peers.
const DIALS_MAX: usize = 16;

/// Why an address is not dialled for a peer.
#[derive(Debug, Error)]
#[error("the peer is not seen at this address, or too many are tried at once")]
struct NotDialled;

pub(crate) struct Behaviour {
    inner: server::Behaviour,
    enabled: bool,
    /// Where the far ends of direct connections are.
    seen: HashMap<PeerId, HashMap<ConnectionId, IpAddr>>,
    /// Dials of ours, and for whom.
    dials: HashMap<ConnectionId, PeerId>,
}

impl Behaviour {
    pub(crate) fn new(enabled: bool) -> Self {
        Self {
            inner: server::Behaviour::default(),
            enabled,
            seen: HashMap::new(),
            dials: HashMap::new(),
        }
    }

    /// Whether connections that are made from now on may ask.
    pub(crate) fn enable(&mut self, enabled: bool) {
        self.enabled = enabled;
    }

    fn may_dial(&self, peer: PeerId, addresses: &[Multiaddr]) -> bool {
        let Some(seen) = self.seen.get(&peer) else { return false };
        self.dials.len() < DIALS_MAX
            && addresses.iter().all(|address| {
                scope::ip_of(address).is_some_and(|ip| {
                    Scope::of(ip) == Scope::Global && seen.values().any(|at| same_house(*at, ip))
                })
            })
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
    type ConnectionHandler = Either<THandler<server::Behaviour>, dummy::ConnectionHandler>;
    type ToSwarm = server::Event;

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        _: Option<PeerId>,
        addresses: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        match self.dials.get(&connection) {
            Some(peer) if !self.may_dial(*peer, addresses) => {
                Err(ConnectionDenied::new(NotDialled))
            }
            _ => Ok(Vec::new()),
        }
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        // Whoever is near learns nothing about the world from us.
        if !self.enabled || scope::is_relayed(local) || scope::of(remote) != Scope::Global {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.inner
            .handle_established_inbound_connection(connection, peer, local, remote)
            .map(Either::Left)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner
            .handle_established_outbound_connection(connection, peer, address, role, port_use)
            .map(Either::Left)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match &event {
            FromSwarm::ConnectionEstablished(made) => {
                self.dials.remove(&made.connection_id);
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
                self.dials.remove(&failed.connection_id);
            }
            _ => {}
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {
            Either::Left(event) => {
                self.inner.on_connection_handler_event(peer, connection, event);
            }
            Either::Right(never) => match never {},
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<server::Event, THandlerInEvent<Self>>> {
        self.inner.poll(cx).map(|event| {
            if let ToSwarm::Dial { opts } = &event
                && let Some(peer) = opts.get_peer_id()
            {
                self.dials.insert(opts.connection_id(), peer);
            }
            event.map_in(Either::Left)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_dialled_but_who_asks() {
        let mut server = Behaviour::new(true);
        let peer = PeerId::random();
        let at = |text: &str| -> Multiaddr { text.parse().unwrap() };
        let links = [(1, "7.7.7.7"), (2, "192.168.1.2"), (3, "2a01:4f8:0:1::5")];
        let links = links.map(|(n, ip)| (ConnectionId::new_unchecked(n), ip.parse().unwrap()));
        server.seen.insert(peer, links.into_iter().collect());
        for (address, may) in [
            ("/ip4/7.7.7.7/tcp/4011", true),
            ("/ip4/7.7.7.8/tcp/4011", false),
            ("/ip6/2a01:4f8:0:1::9/udp/1/quic-v1", true),
            ("/ip6/2a01:4f8:0:2::5/tcp/1", false),
            ("/ip4/192.168.1.2/tcp/80", false),
            ("/ip4/127.0.0.1/tcp/80", false),
            ("/dns4/example.org/tcp/80", false),
        ] {
            assert_eq!(server.may_dial(peer, &[at(address)]), may, "{address}");
        }
        assert!(!server.may_dial(peer, &[at("/ip4/7.7.7.7/tcp/1"), at("/ip4/6.6.6.6/tcp/1")]));
        assert!(!server.may_dial(PeerId::random(), &[at("/ip4/7.7.7.7/tcp/1")]));
        for n in 0..DIALS_MAX {
            server.dials.insert(ConnectionId::new_unchecked(n), peer);
        }
        assert!(!server.may_dial(peer, &[at("/ip4/7.7.7.7/tcp/4011")]), "too many at once");
    }
}
