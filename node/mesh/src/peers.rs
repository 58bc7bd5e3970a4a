//! Who is connected, over what, and what they said about themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use homehost_protocol::limits::AGENT_BYTES_MAX;
use homehost_protocol::{NodeId, Scope};
use libp2p::core::ConnectedPoint;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId, StreamProtocol, identify, relay};

use crate::autonat::DIAL_REQUEST;
use crate::discovery::Counts;
use crate::diversity::AddressBlock;
use crate::scope::{self, Family};
use crate::{ObservedAddress, PathKind, PeerInfo, Role};

/// One connection to a peer.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    /// The far end, without `/p2p`; of a relayed one the way through the relay.
    pub(crate) address: Multiaddr,
    pub(crate) outgoing: bool,
    pub(crate) path: PathKind,
    /// Whether it left from where we listen, so that what the far end sees is
    /// where others may knock.
    pub(crate) from_listener: bool,
    /// Our address towards the far end when it was made.
    pub(crate) local: Option<IpAddr>,
}

impl Link {
    /// Of a connection that was just made.
    pub(crate) fn of(endpoint: &ConnectedPoint) -> Self {
        let relayed = endpoint.is_relayed();
        let address = match endpoint {
            // The far end is a peer's name only.
            ConnectedPoint::Listener { local_addr, .. } if relayed => local_addr,
            point => point.get_remote_address(),
        };
        Self {
            address: scope::without_peer(address.clone()),
            outgoing: endpoint.is_dialer(),
            path: if relayed { PathKind::Relayed } else { PathKind::Direct },
            from_listener: scope::leaves_from_listener(endpoint),
            local: scope::ip_of(address).and_then(scope::local_ip_towards),
        }
    }

    pub(crate) fn is_relayed(&self) -> bool {
        self.path == PathKind::Relayed
    }

    pub(crate) fn transport(&self) -> Option<&'static str> {
        match self.address.iter().nth(1) {
            _ if self.is_relayed() => None,
            Some(Protocol::Tcp(_)) => Some("tcp"),
            Some(Protocol::Udp(_)) => Some("quic"),
            _ => None,
        }
    }
}

/// What a peer said through identify, reduced to what we keep.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Introduction {
    pub(crate) agent: String,
    pub(crate) role: Role,
    pub(crate) holds_replica: bool,
    pub(crate) observed: Option<IpAddr>,
    /// Whether it offers to relay, and to dial us.
    pub(crate) relays: bool,
    pub(crate) dials_back: bool,
    /// The first global address that it claims.
    pub(crate) claims: Option<IpAddr>,
}

impl Introduction {
    /// Reads a stranger's words: shortened, printable.
    pub(crate) fn of(info: &identify::Info, directory: &str) -> Self {
        let printable: String = info
            .agent_version
            .chars()
            .filter(|c| !c.is_control())
            .take(AGENT_BYTES_MAX * 2)
            .collect();
        let speaks = |protocol: &StreamProtocol| info.protocols.contains(protocol);
        let (agent, role) = [Role::Bootstrap, Role::Host]
            .into_iter()
            .find_map(|role| Some((printable.strip_suffix(role.marker())?, role)))
            .unwrap_or((&printable, Role::Host));
        Self {
            agent: agent[..agent.floor_char_boundary(AGENT_BYTES_MAX)].to_owned(),
            role,
            holds_replica: info.protocols.iter().any(|protocol| protocol.as_ref() == directory),
            observed: scope::ip_of(&info.observed_addr),
            relays: speaks(&relay::HOP_PROTOCOL_NAME),
            dials_back: speaks(&DIAL_REQUEST),
            claims: info
                .listen_addrs
                .iter()
                .filter_map(scope::ip_of)
                .find(|ip| Scope::of(*ip) == Scope::Global),
        }
    }
}

/// How long a peer has been connected, and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerAge {
    pub(crate) since: Instant,
    pub(crate) links: usize,
}

#[derive(Debug)]
struct Peer {
    node: NodeId,
    links: BTreeMap<ConnectionId, Link>,
    introduction: Option<Introduction>,
    /// Where it says that it listens, as far as it may say so.
    addresses: Vec<Multiaddr>,
    rtt: Option<Duration>,
    since: Instant,
}

impl Peer {
    /// The connection that counts: a direct one before a relayed one, the newest
    /// of them, as older ones may lead to where the peer no longer is.
    fn first_link(&self) -> Option<&Link> {
        self.links.values().rev().min_by_key(|link| link.is_relayed())
    }
}

/// The connected peers. As many as the connection limits allow.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    peers: BTreeMap<PeerId, Peer>,
}

/// What an introduction meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Introduced {
    /// It was the first of this peer.
    Joined {
        node: NodeId,
        /// How far away the peer is.
        scope: Scope,
    },
    /// It was known already.
    Again,
    /// It is no longer connected.
    Gone,
}

impl Peers {
    /// A connection was made.
    pub(crate) fn connected(
        &mut self,
        peer: PeerId,
        node: NodeId,
        connection: ConnectionId,
        link: Link,
    ) {
        let entry = self.peers.entry(peer).or_insert_with(|| Peer {
            node,
            links: BTreeMap::new(),
            introduction: None,
            addresses: Vec::new(),
            rtt: None,
            since: Instant::now(),
        });
        entry.links.insert(connection, link);
    }

    /// All peers and their connections.
    pub(crate) fn links(&self) -> impl Iterator<Item = (&PeerId, ConnectionId, &Link)> {
        self.peers.iter().flat_map(|(peer, of)| of.links.iter().map(move |(id, l)| (peer, *id, l)))
    }

    /// Connections to a peer at other addresses of the same family than the one
    /// from which it has just come: it has moved, and they are dead.
    pub(crate) fn left_behind(&self, peer: &PeerId, newest: ConnectionId) -> Vec<ConnectionId> {
        let Some(peer) = self.peers.get(peer) else { return Vec::new() };
        let ip = |link: &Link| scope::ip_of(&link.address).map(|ip| ip.to_canonical());
        let came = peer.links.get(&newest).filter(|link| !link.outgoing);
        let Some(now_at) = came.and_then(ip).filter(|ip| Scope::of(*ip) == Scope::Global) else {
            return Vec::new();
        };
        let old = |(_, link): &(&ConnectionId, &Link)| {
            ip(link).is_some_and(|ip| {
                ip != now_at && ip.is_ipv4() == now_at.is_ipv4() && Scope::of(ip) == Scope::Global
            })
        };
        // An IPv6 host has several addresses at a time.
        if now_at.is_ipv6() {
            return Vec::new();
        }
        peer.links.iter().filter(old).map(|(id, _)| *id).collect()
    }

    /// Relayed connections to a peer, if there is a direct one as well.
    pub(crate) fn needless(&self, peer: &PeerId) -> Vec<ConnectionId> {
        let Some(peer) = self.peers.get(peer) else { return Vec::new() };
        let (relayed, direct): (Vec<_>, Vec<_>) =
            peer.links.iter().partition(|(_, link)| link.is_relayed());
        if direct.is_empty() {
            Vec::new()
        } else {
            relayed.into_iter().map(|(id, _)| *id).collect()
        }
    }

    /// Peers that have joined, each with the connection that counts.
    pub(crate) fn joined(&self) -> impl Iterator<Item = (&PeerId, &Introduction, &Link, PeerAge)> {
        self.peers.iter().filter_map(|(id, peer)| {
            let age = PeerAge { since: peer.since, links: peer.links.len() };
            Some((id, peer.introduction.as_ref()?, peer.first_link()?, age))
        })
    }

    /// Both ends opened this connection at the same moment.
    pub(crate) fn punched(&mut self, peer: &PeerId, connection: ConnectionId) {
        let link = self.peers.get_mut(peer).and_then(|peer| peer.links.get_mut(&connection));
        if let Some(link) = link {
            link.path = PathKind::HolePunched;
        }
    }

    /// A connection ended. Says whose, when it was the last of a peer that had
    /// joined.
    pub(crate) fn closed(&mut self, peer: &PeerId, connection: ConnectionId) -> Option<NodeId> {
        let entry = self.peers.get_mut(peer)?;
        entry.links.remove(&connection);
        if !entry.links.is_empty() {
            return None;
        }
        let gone = self.peers.remove(peer)?;
        gone.introduction.map(|_| gone.node)
    }

    /// A peer said who it is.
    pub(crate) fn introduced(&mut self, peer: &PeerId, introduction: Introduction) -> Introduced {
        let Some(entry) = self.peers.get_mut(peer) else { return Introduced::Gone };
        let Some(scope) = entry.first_link().map(|link| scope::of(&link.address)) else {
            return Introduced::Gone;
        };
        match entry.introduction.replace(introduction) {
            None => Introduced::Joined { node: entry.node, scope },
            Some(_) => Introduced::Again,
        }
    }

    /// One connection to a peer.
    pub(crate) fn link(&self, peer: &PeerId, connection: ConnectionId) -> Option<&Link> {
        self.peers.get(peer)?.links.get(&connection)
    }

    /// How far away a peer is.
    pub(crate) fn scope(&self, peer: &PeerId) -> Option<Scope> {
        self.peers.get(peer)?.first_link().map(|link| scope::of(&link.address))
    }

    /// The address at which a peer sees us.
    pub(crate) fn observed_by(&self, peer: &PeerId) -> Option<IpAddr> {
        self.peers.get(peer)?.introduction.as_ref()?.observed
    }

    /// Every connection, and its far end.
    pub(crate) fn all_links(&self) -> Vec<(PeerId, ConnectionId, Multiaddr)> {
        let links = |(peer, of): (&PeerId, &Peer)| {
            let peer = *peer;
            let link = move |(id, link): (&ConnectionId, &Link)| (peer, *id, link.address.clone());
            of.links.iter().map(link).collect::<Vec<_>>()
        };
        self.peers.iter().flat_map(links).collect()
    }

    /// One of the connections to a peer.
    pub(crate) fn any_link(&self, peer: &PeerId) -> Option<&Link> {
        self.peers.get(peer)?.first_link()
    }

    /// Whether a peer has said that it is of our network.
    pub(crate) fn has_joined(&self, peer: &PeerId) -> bool {
        self.role(peer).is_some()
    }

    /// What a peer does for the mesh, once it has said so.
    pub(crate) fn role(&self, peer: &PeerId) -> Option<Role> {
        Some(self.peers.get(peer)?.introduction.as_ref()?.role)
    }

    /// What a peer has said of itself.
    pub(crate) fn introduction(&self, peer: &PeerId) -> Option<&Introduction> {
        self.peers.get(peer)?.introduction.as_ref()
    }

    /// Whether there is a direct connection to a peer in a family of addresses.
    pub(crate) fn is_connected_by(&self, peer: &PeerId, family: Family) -> bool {
        let links = self.peers.get(peer).into_iter().flat_map(|peer| peer.links.values());
        links.filter_map(|link| Family::of(&link.address)).any(|of| of == family)
    }

    /// A peer listens at these addresses, which it may tell us.
    pub(crate) fn listens(&mut self, peer: &PeerId, addresses: Vec<Multiaddr>) {
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.addresses = addresses;
        }
    }

    /// Where a peer says that it listens.
    pub(crate) fn addresses(&self, peer: &PeerId) -> &[Multiaddr] {
        self.peers.get(peer).map_or(&[], |peer| &peer.addresses)
    }

    /// A ping came back.
    pub(crate) fn pinged(&mut self, peer: &PeerId, rtt: Duration) {
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.rtt = Some(rtt);
        }
    }

    /// The round trip to all but the tenth of the peers that is farthest; none
    /// before any ping came back.
    pub(crate) fn far_rtt(&self) -> Option<Duration> {
        let mut rtts: Vec<_> = self.peers.values().filter_map(|peer| peer.rtt).collect();
        let last = rtts.len().checked_sub(1)?;
        let at = last - rtts.len() / 10;
        Some(*rtts.select_nth_unstable(at).1)
    }

    /// Whether there is a connection.
    pub(crate) fn is_connected(&self, peer: &PeerId) -> bool {
        self.peers.contains_key(peer)
    }

    /// How many are connected, joined or not.
    pub(crate) fn len(&self) -> usize {
        self.peers.len()
    }

    /// All that are connected, joined or not.
    pub(crate) fn ids(&self) -> Vec<PeerId> {
        self.peers.keys().copied().collect()
    }

    /// How many have joined.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for peer in self.peers.values() {
            // Who is here through a relay only is not here for long.
            let direct = peer.first_link().is_some_and(|link| !link.is_relayed());
            let Some(introduction) = peer.introduction.as_ref().filter(|_| direct) else {
                continue;
            };
            counts.peers += 1;
            counts.hosts += usize::from(introduction.role == Role::Host);
        }
        counts
    }

    /// For the status: who has joined.
    pub(crate) fn infos(&self) -> Vec<PeerInfo> {
        let info = |peer: &Peer| {
            let (introduction, link) = (peer.introduction.as_ref()?, peer.first_link()?);
            Some(PeerInfo {
                node: peer.node,
                address: link.address.clone(),
                scope: scope::of(&link.address),
                outgoing: link.outgoing,
                path: link.path,
                transport: link.transport(),
                agent: introduction.agent.clone(),
                role: introduction.role,
                holds_replica: introduction.holds_replica,
                rtt: peer.rtt,
                since: peer.since,
            })
        };
        self.peers.values().filter_map(info).collect()
    }

    /// For the status: our addresses as they see them.
    pub(crate) fn observed(&self) -> Vec<ObservedAddress> {
        let mut seen: BTreeMap<IpAddr, (usize, BTreeSet<Option<AddressBlock>>)> = BTreeMap::new();
        for peer in self.peers.values() {
            if let Some(ip) = peer.introduction.as_ref().and_then(|i| i.observed)
                && Scope::of(ip) != Scope::Nowhere
            {
                let from = peer.first_link().and_then(|link| scope::ip_of(&link.address));
                let (peers, voices) = seen.entry(ip).or_default();
                *peers += 1;
                voices.insert(from.and_then(AddressBlock::of));
            }
        }
        let mut observed: Vec<_> = seen
            .into_iter()
            .map(|(ip, (peers, voices))| ObservedAddress { ip, peers, voices: voices.len() })
            .collect();
        observed.sort_by_key(|address| std::cmp::Reverse((address.voices, address.peers)));
        observed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::StreamProtocol;
    use libp2p::identity::Keypair;

    fn info(agent: &str) -> identify::Info {
        identify::Info {
            public_key: Keypair::ed25519_from_bytes([1; 32]).unwrap().public(),
            protocol_version: String::new(),
            agent_version: agent.to_owned(),
            listen_addrs: vec![],
            protocols: vec![StreamProtocol::new("/homehost/main/directory/1")],
            observed_addr: "/ip4/8.8.8.8/tcp/1".parse().unwrap(),
            signed_peer_record: None,
        }
    }

    fn introduction(agent: &str) -> Introduction {
        Introduction::of(&info(agent), "/homehost/main/directory/1")
    }

    #[test]
    fn strangers_words_are_cut_and_cleaned() {
        let boot = introduction("homehost/0.1.0 (bootstrap)");
        assert_eq!((boot.agent.as_str(), boot.role), ("homehost/0.1.0", Role::Bootstrap));
        assert_eq!(introduction("x (host)").role, Role::Host);
        assert_eq!(introduction("other").agent, "other");
        let long = introduction(&"ä\u{1b}[31m".repeat(2000));
        assert!(long.agent.len() <= AGENT_BYTES_MAX && !long.agent.contains('\u{1b}'));
        assert!(introduction("x").holds_replica);
        assert!(!Introduction::of(&info("x"), "/homehost/other/directory/1").holds_replica);
    }

    fn link(address: &str) -> Link {
        Link {
            address: address.parse().unwrap(),
            outgoing: true,
            path: PathKind::Direct,
            from_listener: true,
            local: None,
        }
    }

    #[test]
    fn what_is_far_leaves_out_the_farthest_tenth() {
        let mut peers = Peers::default();
        assert_eq!(peers.far_rtt(), None);
        for (n, rtt) in [30, 9_000, 10, 20, 40, 50, 60, 70, 80, 90].into_iter().enumerate() {
            let peer = PeerId::random();
            let connection = ConnectionId::new_unchecked(n);
            peers.connected(peer, NodeId([1; 32]), connection, link("/ip4/7.7.7.7/tcp/1"));
            peers.pinged(&peer, Duration::from_millis(rtt));
            let wanted = match n {
                0 => 30,
                1..9 => 9_000,
                _ => 90,
            };
            assert_eq!(peers.far_rtt(), Some(Duration::from_millis(wanted)), "{n}");
        }
    }

    #[test]
    fn a_peer_that_comes_from_elsewhere_has_left_its_old_address() {
        let (peer, node) = (PeerId::random(), NodeId([1; 32]));
        let ids = [1, 2, 3, 4].map(ConnectionId::new_unchecked);
        let mut peers = Peers::default();
        peers.connected(peer, node, ids[0], link("/ip4/7.7.7.7/tcp/1"));
        let incoming = |at: &str| Link { outgoing: false, ..link(at) };
        peers.connected(peer, node, ids[1], incoming("/ip4/7.7.7.7/udp/1/quic-v1"));
        assert_eq!(peers.left_behind(&peer, ids[1]), [], "the same place");
        peers.connected(peer, node, ids[2], incoming("/ip6/2a01:4f8::1/tcp/1"));
        assert_eq!(peers.left_behind(&peer, ids[2]), [], "another family");
        peers.connected(peer, node, ids[3], incoming("/ip4/8.8.8.8/tcp/1"));
        assert_eq!(peers.left_behind(&peer, ids[3]), ids[..2]);
        assert_eq!(peers.left_behind(&peer, ids[0]), [], "we dialled it there");
    }

    #[test]
    fn a_peer_joins_once_and_leaves_with_its_last_connection() {
        let (peer, node) = (PeerId::random(), NodeId([1; 32]));
        let [a, b] = [1, 2].map(ConnectionId::new_unchecked);
        let link = link("/ip4/127.0.0.1/tcp/1");
        let mut peers = Peers::default();
        assert_eq!(peers.introduced(&peer, introduction("x")), Introduced::Gone);
        peers.connected(peer, node, a, link.clone());
        peers.connected(peer, node, b, link.clone());
        assert_eq!(peers.counts(), Counts::default(), "it has not said who it is");
        let joined = Introduced::Joined { node, scope: Scope::Loopback };
        assert_eq!(peers.introduced(&peer, introduction("x")), joined);
        assert_eq!(peers.introduced(&peer, introduction("x")), Introduced::Again);
        assert_eq!(peers.counts(), Counts { peers: 1, hosts: 1 });
        let ip = "8.8.8.8".parse().unwrap();
        assert_eq!(peers.observed(), [ObservedAddress { ip, peers: 1, voices: 1 }]);
        assert_eq!(peers.closed(&peer, a), None);
        assert_eq!(peers.closed(&peer, b), Some(node));
        assert_eq!(peers.closed(&peer, b), None);
        peers.connected(peer, node, a, link);
        assert_eq!(peers.closed(&peer, a), None, "it never joined");
    }
}
