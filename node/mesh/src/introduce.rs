//! Identify, with one introduction for near peers and another for the rest of
//! the world: which networks a house has inside is not the world's business
//! (spec/mesh §6).
//!
//! It is two behaviours of libp2p that share the connections between them.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::task::{Context, Poll, ready};

use homehost_protocol::{Scope, Transport};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::behaviour::{ExternalAddrConfirmed, ExternalAddrExpired};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, identify};

use crate::scope;

/// Tells near peers all addresses, and others the global and the external ones.
pub(crate) struct Behaviour {
    near: identify::Behaviour,
    far: identify::Behaviour,
    /// Connections that are of `far`.
    far_links: HashSet<ConnectionId>,
    /// Connections that left from where we listen.
    from_listener: HashSet<ConnectionId>,
    /// Addresses at which a hole might be punched, not yet told.
    candidates: VecDeque<Multiaddr>,
    /// Ports on which we listen, on whichever interfaces.
    ports: BTreeSet<(Transport, u16)>,
}

/// Such addresses that wait; the swarm takes them at once.
const CANDIDATES_MAX: usize = 64;

impl Behaviour {
    pub(crate) fn new(config: identify::Config) -> Self {
        Self {
            near: identify::Behaviour::new(config.clone()),
            far: identify::Behaviour::new(config.with_hide_listen_addrs(true)),
            far_links: HashSet::new(),
            from_listener: HashSet::new(),
            candidates: VecDeque::new(),
            ports: BTreeSet::new(),
        }
    }

    /// Others may knock at this address of ours when we knock at theirs.
    pub(crate) fn candidate(&mut self, address: Multiaddr) {
        if self.candidates.len() < CANDIDATES_MAX && scope::of(&address) == Scope::Global {
            self.candidates.push_back(address);
        }
    }

    /// A peer sees us there, on a connection that left from where we listen.
    fn observed(&mut self, address: &Multiaddr) {
        let address = scope::without_peer(address.clone());
        for sibling in siblings(&address, &self.ports) {
            self.candidate(sibling);
        }
        self.candidate(address);
    }

    fn at(&mut self, remote: &Multiaddr) -> &mut identify::Behaviour {
        if is_near(remote) { &mut self.near } else { &mut self.far }
    }
}

/// Where a router that keeps the port of one transport would have those of the
/// other. Peers that see us may all have come by the same, and whoever punches a
/// hole needs one that both have.
fn siblings(seen: &Multiaddr, ports: &BTreeSet<(Transport, u16)>) -> Vec<Multiaddr> {
    let Some(ip) = scope::ip_of(seen) else { return Vec::new() };
    let Some(kept) = port_of(seen).filter(|port| ports.contains(port)) else { return Vec::new() };
    let others = ports.iter().filter(|(transport, _)| *transport != kept.0);
    let address = |(transport, port): &(Transport, u16)| match transport {
        Transport::Tcp => Multiaddr::from(ip).with(Protocol::Tcp(*port)),
        Transport::Udp => Multiaddr::from(ip).with(Protocol::Udp(*port)).with(Protocol::QuicV1),
    };
    others.map(address).collect()
}

fn port_of(address: &Multiaddr) -> Option<(Transport, u16)> {
    match address.iter().nth(1)? {
        Protocol::Tcp(port) => Some((Transport::Tcp, port)),
        Protocol::Udp(port) => Some((Transport::Udp, port)),
        _ => None,
    }
}

fn is_near(remote: &Multiaddr) -> bool {
    matches!(scope::of(remote), Scope::Loopback | Scope::OnLink)
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = THandler<identify::Behaviour>;
    type ToSwarm = identify::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.at(remote).handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.at(address)
            .handle_established_outbound_connection(connection, peer, address, role, port_use)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match &event {
            FromSwarm::ConnectionEstablished(established) => {
                if scope::leaves_from_listener(established.endpoint) {
                    self.from_listener.insert(established.connection_id);
                }
                if is_near(established.endpoint.get_remote_address()) {
                    self.near.on_swarm_event(event);
                } else {
                    self.far_links.insert(established.connection_id);
                    self.far.on_swarm_event(event);
                }
                return;
            }
            FromSwarm::ConnectionClosed(closed) => {
                // Either may hold something of a peer until its last connection
                // is gone.
                self.from_listener.remove(&closed.connection_id);
                let was_far = self.far_links.remove(&closed.connection_id);
                let last = closed.remaining_established == 0;
                if was_far || last {
                    self.far.on_swarm_event(event);
                }
                if !was_far || last {
                    self.near.on_swarm_event(event);
                }
                return;
            }
            // What is hidden there hides the global ones too.
            FromSwarm::NewListenAddr(new) if scope::of(new.addr) == Scope::Global => {
                let confirmed = ExternalAddrConfirmed { addr: new.addr };
                self.far.on_swarm_event(FromSwarm::ExternalAddrConfirmed(confirmed));
            }
            FromSwarm::ExpiredListenAddr(gone) if scope::of(gone.addr) == Scope::Global => {
                let expired = ExternalAddrExpired { addr: gone.addr };
                self.far.on_swarm_event(FromSwarm::ExternalAddrExpired(expired));
            }
            _ => {}
        }
        if let FromSwarm::NewListenAddr(new) = &event
            && !scope::is_relayed(new.addr)
        {
            self.ports.extend(port_of(new.addr));
        }
        self.near.on_swarm_event(event);
        self.far.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        let far = self.far_links.contains(&connection);
        let behaviour = if far { &mut self.far } else { &mut self.near };
        behaviour.on_connection_handler_event(peer, connection, event);
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<identify::Event, THandlerInEvent<Self>>> {
        loop {
            if let Some(address) = self.candidates.pop_front() {
                return Poll::Ready(ToSwarm::NewExternalAddrCandidate(address));
            }
            let event = match self.near.poll(cx) {
                Poll::Pending => ready!(self.far.poll(cx)),
                Poll::Ready(event) => event,
            };
            match &event {
                // It takes the port that we listen on for the one outside, when
                // they differ; behind a NAT that is wrong.
                ToSwarm::NewExternalAddrCandidate(_) => continue,
                ToSwarm::GenerateEvent(identify::Event::Received {
                    connection_id, info, ..
                }) if self.from_listener.contains(connection_id) => {
                    self.observed(&info.observed_addr);
                }
                _ => {}
            }
            return Poll::Ready(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt as _;
    use libp2p::core::transport::{ListenerId, MemoryTransport, Transport as _};
    use libp2p::core::{ConnectedPoint, upgrade::Version};
    use libp2p::identity::Keypair;
    use libp2p::swarm::behaviour::{ConnectionEstablished, NewListenAddr};
    use libp2p::swarm::dial_opts::DialOpts;
    use libp2p::swarm::{Config, Swarm, SwarmEvent};
    use libp2p::{noise, yamux};

    fn behaviour(key: &Keypair) -> Behaviour {
        Behaviour::new(identify::Config::new("test".into(), key.public()).with_cache_size(0))
    }

    fn swarm<B: NetworkBehaviour>(key: &Keypair, behaviour: B) -> Swarm<B> {
        let transport = MemoryTransport::default()
            .upgrade(Version::V1)
            .authenticate(noise::Config::new(key).unwrap())
            .multiplex(yamux::Config::default())
            .boxed();
        Swarm::new(transport, behaviour, key.public().to_peer_id(), Config::with_tokio_executor())
    }

    const LISTENING: [&str; 4] = [
        "/ip4/127.0.0.1/tcp/4001",
        "/ip4/192.168.1.2/tcp/4001",
        "/ip4/8.8.8.8/tcp/4001",
        "/ip6/fd00::1/tcp/4001",
    ];

    /// In a swarm of memory addresses, whose scope is nowhere, all are far.
    #[tokio::test]
    async fn the_world_is_told_global_and_external_addresses_only() {
        let [a, b] = [1, 2].map(|seed| Keypair::ed25519_from_bytes([seed; 32]).unwrap());
        let mut teller = behaviour(&a);
        for address in LISTENING {
            let address: Multiaddr = address.parse().unwrap();
            let new = NewListenAddr { listener_id: ListenerId::next(), addr: &address };
            teller.on_swarm_event(FromSwarm::NewListenAddr(new));
        }
        let mut teller = swarm(&a, teller);
        let external: Multiaddr = "/dns4/boot.example.org/tcp/4001".parse().unwrap();
        teller.add_external_address(external.clone());
        teller.listen_on("/memory/0".parse().unwrap()).unwrap();
        let at = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = teller.select_next_some().await {
                break address;
            }
        };
        let mut hearer = swarm(&b, behaviour(&b));
        hearer.dial(DialOpts::from(at)).unwrap();
        let heard = loop {
            tokio::select! {
                _ = teller.select_next_some() => {}
                event = hearer.select_next_some() => {
                    if let SwarmEvent::Behaviour(identify::Event::Received { info, .. }) = event {
                        break info.listen_addrs;
                    }
                }
            }
        };
        let heard: HashSet<_> = heard.into_iter().collect();
        assert_eq!(heard, HashSet::from([external, LISTENING[2].parse().unwrap()]));
    }

    #[test]
    fn a_router_that_keeps_ports_is_believed_to_keep_those_of_both_transports() {
        let ports = BTreeSet::from([(Transport::Tcp, 4001), (Transport::Udp, 4002)]);
        let of = |text: &str| {
            let of = siblings(&text.parse().unwrap(), &ports);
            of.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(of("/ip4/8.8.8.8/tcp/4001"), ["/ip4/8.8.8.8/udp/4002/quic-v1"]);
        assert_eq!(of("/ip4/8.8.8.8/udp/4002/quic-v1"), ["/ip4/8.8.8.8/tcp/4001"]);
        // Another port is a mapping of its own, and says nothing of others.
        assert_eq!(of("/ip4/8.8.8.8/tcp/33001"), [""; 0]);
        assert_eq!(of("/ip4/8.8.8.8/tcp/4002"), [""; 0]);
    }

    #[test]
    fn near_peers_are_told_all_of_them() {
        let key = Keypair::ed25519_from_bytes([1; 32]).unwrap();
        let mut behaviour = behaviour(&key);
        for (number, remote, far) in
            [(1, "/ip4/192.168.1.9/tcp/1", false), (2, "/ip4/9.9.9.9/tcp/1", true)]
        {
            let connection_id = ConnectionId::new_unchecked(number);
            let endpoint = ConnectedPoint::Listener {
                local_addr: LISTENING[0].parse().unwrap(),
                send_back_addr: remote.parse().unwrap(),
            };
            let event = ConnectionEstablished {
                peer_id: PeerId::random(),
                connection_id,
                endpoint: &endpoint,
                failed_addresses: &[],
                other_established: 0,
            };
            behaviour.on_swarm_event(FromSwarm::ConnectionEstablished(event));
            assert_eq!(behaviour.far_links.contains(&connection_id), far, "{remote}");
        }
        // That near peers are told all is what lets the loopback tests meet.
        assert_eq!(behaviour.far_links.len(), 1);
    }
}
