//! This node's own place in the network: who reaches it, and through whom (spec/mesh
//! §12 to §15).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use homehost_protocol::{Scope, Transport};
use homehost_runtime::wall_ms;
use libp2p::core::transport::ListenerId;
use libp2p::kad::KBucketKey;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId, dcutr, identify, ping, relay};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Actor;
use crate::diversity::AddressBlock;
use crate::node_id::node_of;
use crate::ports::PortWish;
use crate::ports::task::{MeshPorts, PortFacts};
use crate::reach_probe::{self, Nonces, Tested};
use crate::reachability::{Reachability, Server};
use crate::relays::{Offer, Relays};
use crate::sleep::Sleep;
use crate::trim::{self, Connected};
use crate::{AddressSource, AddressState, NetworkFacts, OwnAddress, RelayFacts, RelayState, Role};
use crate::{peers::Link, scope};

/// How long changes of interfaces are collected: a new network comes with
/// several addresses, and the old ones go one by one.
const SETTLE: Duration = Duration::from_millis(300);

/// How long a peer is not dialled again to which no hole could be punched: its
/// relay has others to serve.
const UNPUNCHED_FOR: Duration = Duration::from_secs(600);
/// Such peers that are remembered.
const UNPUNCHED_MAX: usize = 256;

/// What is known of our own reach, and what is under way to learn more.
pub(super) struct Network {
    reach: Reachability,
    relays: Relays,
    probes: JoinSet<Probed>,
    nonces: Nonces,
    streams: libp2p_stream::Control,
    /// Addresses that probes made external.
    external: BTreeSet<Multiaddr>,
    /// Listeners that are reservations.
    listeners: HashSet<ListenerId>,
    sleep: Sleep,
    /// When to act on interfaces that changed, and what they were.
    settle_at: Option<Instant>,
    interfaces: Option<BTreeSet<IpAddr>>,
    pub(super) ways_out: [Option<IpAddr>; 2],
    /// Peers in the table to which only a relay leads, and where they were seen.
    pub(super) behind_relays: HashMap<PeerId, IpAddr>,
    /// Peers to which no hole could be punched, and when that was tried.
    unpunched: HashMap<PeerId, Instant>,
    trim_at: Instant,
    ports: watch::Sender<MeshPorts>,
    forwarded: watch::Receiver<PortFacts>,
    slept: u64,
    /// Until when nobody is dialled, so that the first dials leave from where we
    /// listen, which is known only once the interfaces are.
    pub(super) hold_until: Instant,
}

/// Something happened that the swarm does not tell.
pub(super) enum News {
    /// A probe has ended.
    Probed(Probed),
    /// The router forwards something else than before.
    Ports,
}

/// A probe that has ended.
pub(super) struct Probed {
    address: Multiaddr,
    by: Option<IpAddr>,
    tested: Tested,
    server: PeerId,
    /// Its connections before it dialled.
    before: Vec<ConnectionId>,
}

impl Network {
    pub(super) fn new(
        streams: libp2p_stream::Control,
        external: &[Multiaddr],
        (ports, forwarded): (watch::Sender<MeshPorts>, watch::Receiver<PortFacts>),
        local: bool,
    ) -> Self {
        let now = Instant::now();
        let mut reach = Reachability::default();
        for address in external {
            reach.configured(&scope::without_peer(address.clone()), now);
        }
        let nonces = Nonces::default();
        let mut probes = JoinSet::new();
        let hear = reach_probe::hear(streams.clone(), nonces.clone());
        probes.spawn(async move {
            hear.await;
            std::future::pending().await
        });
        Self {
            reach,
            relays: Relays::default(),
            probes,
            nonces,
            streams,
            external: BTreeSet::new(),
            listeners: HashSet::new(),
            sleep: Sleep::new(now, wall_ms()),
            settle_at: None,
            interfaces: None,
            ways_out: scope::ways_out(),
            behind_relays: HashMap::new(),
            unpunched: HashMap::new(),
            trim_at: now + trim::EVERY,
            ports,
            forwarded,
            slept: 0,
            hold_until: if local { now } else { now + SETTLE },
        }
    }

    /// When there is something to do by the clock.
    pub(super) fn next(&self, now: Instant) -> Instant {
        let waits =
            [self.reach.next(now), self.relays.next(now), self.settle_at, Some(self.trim_at)];
        waits.into_iter().flatten().fold(self.sleep.next(), Instant::min)
    }

    /// Waits for a probe to end, or the router to do something.
    pub(super) async fn news(&mut self) -> News {
        loop {
            tokio::select! {
                // One of them never ends: there is always something to wait for.
                Some(ended) = self.probes.join_next() => match ended {
                    Ok(probed) => return News::Probed(probed),
                    Err(error) => tracing::warn!(%error, "a probe failed"),
                },
                // Without port mapping nobody is there to tell.
                Ok(()) = self.forwarded.changed() => return News::Ports,
                else => std::future::pending().await,
            }
        }
    }
}

impl Actor {
    /// Does what is due.
    pub(super) fn tend_network(&mut self, now: Instant) {
        if self.net.sleep.next() <= now {
            if self.net.sleep.tick(now, wall_ms()) {
                tracing::info!("the machine slept: looking for peers anew");
                self.leave_links(|_| true);
                self.shaken(now);
                self.net.slept += 1;
                self.tell_ports();
            }
            // A cable that is pulled takes the way out, and not the address.
            let ways = scope::ways_out();
            if !self.local && ways != std::mem::replace(&mut self.net.ways_out, ways) {
                self.net.settle_at.get_or_insert(now + SETTLE);
            }
        }
        if self.net.settle_at.is_some_and(|at| at <= now) {
            self.net.settle_at = None;
            self.tell_ports();
            self.interfaces_changed(now);
        }
        if self.net.trim_at <= now {
            self.net.trim_at = now + trim::EVERY;
            self.trim(now);
        }
        self.probe(now);
        self.reserve(now);
        if self.net.reach.take_changed() {
            self.tell_external();
            self.status_changed = true;
        }
    }

    fn probe(&mut self, now: Instant) {
        let servers = self.servers();
        for probe in self.net.reach.due(&servers, now, |n| fastrand::usize(0..n)) {
            let v4 = scope::ip_of(&probe.address).map(|ip| ip.is_ipv4());
            let judge = |s: &&Server| s.peer == probe.server && Some(s.ip.is_ipv4()) == v4;
            let by = servers.iter().find(judge).map(|s| s.ip);
            let (streams, nonces) = (self.net.streams.clone(), self.net.nonces.clone());
            let nonce = fastrand::u64(..);
            let links = self.peers.links().filter(|(peer, ..)| **peer == probe.server);
            let before: Vec<_> = links.map(|(_, id, _)| id).collect();
            self.net.probes.spawn(async move {
                let address = probe.address;
                let asked =
                    reach_probe::probe(streams, probe.server, address.clone(), nonces, nonce);
                Probed { tested: asked.await, address, by, server: probe.server, before }
            });
        }
    }

    pub(super) fn on_network(&mut self, news: &News) {
        let now = Instant::now();
        match news {
            News::Probed(Probed { address, by, tested, server, before }) => {
                tracing::debug!(%address, ?by, ?tested, "an address of ours was tried");
                self.net.reach.tested(address, *by, *tested, now);
                // What came with the answer has done its work, and would be in
                // the way of the next.
                let links = self.peers.links().filter(|(peer, id, link)| {
                    *peer == server && !link.outgoing && !link.is_relayed() && !before.contains(id)
                });
                let came: Vec<_> = links.map(|(_, id, _)| id).collect();
                let others = before.iter().any(|id| self.peers.link(server, *id).is_some());
                for connection in came.into_iter().filter(|_| others) {
                    self.swarm.close_connection(connection);
                }
            }
            News::Ports => {
                self.status_changed = true;
                let facts = self.net.forwarded.borrow_and_update().clone();
                let router = facts.router.and_then(|router| router.external);
                let own = self.net.ports.borrow().wishes.clone();
                let at: Vec<_> = facts
                    .mappings
                    .iter()
                    .filter(|of| {
                        own.iter().any(|w| (w.transport, w.port) == (of.transport, of.internal))
                    })
                    .filter_map(|of| outside(router?, of.external?, of.transport))
                    .collect();
                for address in &at {
                    self.swarm.behaviour_mut().identify.candidate(address.clone());
                }
                self.net.reach.mapped(router, &at, now);
            }
        }
        self.tend_network(now);
    }

    /// Says which ports the router should forward, and on which interfaces.
    fn tell_ports(&mut self) {
        let mut wanted = MeshPorts { slept: self.net.slept, ..MeshPorts::default() };
        for at in self.swarm.listeners() {
            let Some(IpAddr::V4(ip)) = scope::ip_of(at) else { continue };
            if Scope::of(ip.into()) != Scope::OnLink {
                continue;
            }
            let (port, transport) = match at.iter().nth(1) {
                Some(Protocol::Tcp(port)) => (port, Transport::Tcp),
                Some(Protocol::Udp(port)) => (port, Transport::Udp),
                _ => continue,
            };
            wanted.interfaces.insert(ip);
            wanted.wishes.push(PortWish { name: "mesh".into(), transport, port });
        }
        wanted.wishes.sort();
        wanted.wishes.dedup();
        self.net.ports.send_if_modified(|old| {
            let changed = *old != wanted;
            *old = wanted;
            changed
        });
    }

    /// Who can say whether the world reaches us: a peer once for each family of
    /// addresses at which it is connected.
    fn servers(&self) -> Vec<Server> {
        let mut servers: BTreeMap<(PeerId, bool), Server> = BTreeMap::new();
        for (peer, _, link) in self.peers.links() {
            let Some(who) = self.peers.introduction(peer).filter(|who| who.dials_back) else {
                continue;
            };
            let ip = match scope::ip_of(&link.address) {
                // One that a person named is taken at its word about itself.
                None if link.outgoing && !link.is_relayed() => who.claims,
                ip => ip,
            };
            let Some(ip) = ip.map(|ip| ip.to_canonical()) else { continue };
            let over_udp = link.transport() != Some("tcp");
            let server = Server { peer: *peer, ip, over_udp };
            let known = servers.entry((*peer, ip.is_ipv4())).or_insert(server);
            known.over_udp |= over_udp;
        }
        servers.into_values().collect()
    }

    fn reserve(&mut self, now: Instant) {
        self.net.relays.want(self.role == Role::Host && self.net.reach.wants_relays(now));
        let offers: Vec<_> = self
            .peers
            .joined()
            .filter(|(_, who, link, _)| {
                who.relays && link.outgoing && scope::of(&link.address) == Scope::Global
            })
            .map(|(peer, who, link, _)| Offer {
                peer: *peer,
                address: link.address.clone(),
                block: scope::ip_of(&link.address).and_then(AddressBlock::of),
                bootstrap: who.role == Role::Bootstrap,
            })
            .collect();
        for offer in self.net.relays.due(&offers, now) {
            match self.swarm.listen_on(scope::through(offer.address.clone(), offer.peer)) {
                Ok(listener) => {
                    self.net.listeners.insert(listener);
                    self.net.relays.asked(&offer, listener, now);
                }
                Err(error) => tracing::debug!(%error, "cannot ask a relay"),
            }
            self.status_changed = true;
        }
    }

    pub(super) fn on_relay_client(&mut self, event: &relay::client::Event) {
        tracing::debug!(?event, "relay");
        if let relay::client::Event::ReservationReqAccepted { relay_peer_id, .. } = event {
            self.net.relays.accepted(relay_peer_id, Instant::now());
            self.status_changed = true;
        }
    }

    /// A listener has ended. Says whether it was a reservation.
    pub(super) fn relay_closed(&mut self, listener: ListenerId, reason: &str) -> bool {
        let ours = self.net.listeners.remove(&listener);
        if ours {
            self.net.relays.closed(listener, reason.to_owned(), Instant::now());
        }
        ours
    }

    /// Lets everybody know where the world reaches us, and offers what only such
    /// a node can.
    fn tell_external(&mut self) {
        let confirmed = self.net.reach.confirmed();
        for gone in self.net.external.difference(&confirmed) {
            self.swarm.remove_external_address(gone);
        }
        for new in confirmed.difference(&self.net.external) {
            tracing::debug!(address = %new, "an address is confirmed");
            self.swarm.add_external_address(new.clone());
        }
        let public = !confirmed.is_empty();
        if self.role == Role::Host && public == self.net.external.is_empty() {
            let behaviour = self.swarm.behaviour_mut();
            behaviour.autonat_server.enable(public);
            if let Some(relay) = behaviour.relay.as_mut() {
                let status = if public { relay::Status::Enable } else { relay::Status::Disable };
                relay.set_status(Some(status));
            }
        }
        self.net.external = confirmed;
    }

    /// What a peer sees as our address.
    pub(super) fn seen_as(&mut self, peer: &PeerId, at: ConnectionId, info: &identify::Info) {
        let Some(link) = self.peers.link(peer, at) else { return };
        let Some(by) = scope::ip_of(&link.address) else { return };
        let exact = link.from_listener;
        self.net.reach.seen(at, by, &info.observed_addr, exact, Instant::now());
    }

    /// A connection is gone.
    pub(super) fn unseen(&mut self, connection: ConnectionId) {
        self.net.reach.link_closed(connection);
    }

    /// We listen here, or no longer.
    pub(super) fn listening(&mut self, address: &Multiaddr, on: bool) {
        if scope::is_relayed(address) {
            return;
        }
        let now = Instant::now();
        self.net.reach.listens(address, on, now);
        if scope::of(address) == Scope::Global {
            self.swarm.behaviour_mut().identify.candidate(address.clone());
            // It is there to be found, and a relay must say where it is.
            if self.role == Role::Bootstrap && on {
                self.swarm.add_external_address(address.clone());
            } else if self.role == Role::Bootstrap {
                self.swarm.remove_external_address(address);
            }
        }
        if scope::of(address) != Scope::Loopback {
            self.net.settle_at = Some(now + SETTLE);
        }
    }

    /// Interfaces came or went: connections from an address that is no longer
    /// ours are dead, though nobody says so.
    fn interfaces_changed(&mut self, now: Instant) {
        let own: BTreeSet<IpAddr> = self.swarm.listeners().filter_map(scope::ip_of).collect();
        let before = self.net.interfaces.replace(own.clone());
        // The way to them is another one now, or there is none.
        let dead = |link: &Link| {
            let ip = scope::ip_of(&link.address);
            link.local.is_some() && ip.and_then(scope::local_ip_towards) != link.local
        };
        let any_dead = self.peers.links().any(|(_, _, link)| dead(link));
        if any_dead {
            tracing::info!("the network changed: looking for peers anew");
            self.leave_links(dead);
        }
        let lonely = self.peers.counts().peers == 0;
        if any_dead || lonely || before.is_some_and(|before| before != own) {
            self.shaken(now);
        }
    }

    fn leave_links(&mut self, which: impl Fn(&Link) -> bool) {
        let far = |link: &Link| scope::of(&link.address) != Scope::Loopback;
        let links = self.peers.links().filter(|(_, _, link)| far(link) && which(link));
        for connection in links.map(|(_, id, _)| id).collect::<Vec<_>>() {
            self.swarm.close_connection(connection);
        }
    }

    fn shaken(&mut self, now: Instant) {
        self.net.reach.shaken(now);
        self.net.relays.shaken();
        self.discovery.shaken(now);
        self.dial_failures.clear();
    }

    /// A peer does not answer: its connection is dead, though nobody says so.
    pub(super) fn on_silence(&mut self, connection: ConnectionId, failure: &ping::Failure) {
        // libp2p tells of the second failure in a row, and by then there is no
        // stream to be had for a ping, which is not called a timeout.
        if !matches!(failure, ping::Failure::Unsupported) {
            tracing::debug!(?connection, %failure, "a peer fell silent");
            self.swarm.close_connection(connection);
        }
    }

    /// Closes relayed connections of a peer that is connected directly.
    pub(super) fn prefer_direct(&mut self, peer: &PeerId) {
        for connection in self.peers.needless(peer) {
            self.swarm.close_connection(connection);
        }
    }

    /// A relayed connection was made direct, or could not be.
    pub(super) fn on_dcutr(&mut self, event: dcutr::Event) {
        match event.result {
            Ok(connection) => {
                self.net.unpunched.remove(&event.remote_peer_id);
                self.peers.punched(&event.remote_peer_id, connection);
                self.prefer_direct(&event.remote_peer_id);
            }
            Err(error) => {
                let now = Instant::now();
                self.net.unpunched.retain(|_, at| now.duration_since(*at) < UNPUNCHED_FOR);
                if self.net.unpunched.len() < UNPUNCHED_MAX {
                    self.net.unpunched.insert(event.remote_peer_id, now);
                }
                tracing::debug!(peer = %event.remote_peer_id, %error, "no direct connection");
            }
        }
        self.status_changed = true;
    }

    /// Whether a dial to this peer would only end at the relay again.
    pub(super) fn is_unpunched(&self, peer: &PeerId, now: Instant) -> bool {
        let at = self.net.unpunched.get(peer);
        at.is_some_and(|at| now.saturating_duration_since(*at) < UNPUNCHED_FOR)
    }

    /// Leaves peers that are too many.
    fn trim(&mut self, now: Instant) {
        if self.role == Role::Bootstrap {
            return;
        }
        let local = KBucketKey::from(*self.swarm.local_peer_id());
        let behaviour = self.swarm.behaviour_mut();
        let mut needed: BTreeSet<PeerId> = self.memory.anchors().collect();
        if let Some(gossip) = behaviour.gossip.as_ref() {
            needed.extend(gossip.all_mesh_peers());
        }
        let mut table = BTreeSet::new();
        for bucket in behaviour.kad.kbuckets() {
            table.extend(bucket.iter().map(|entry| *entry.node.key.preimage()));
        }
        let bucket = |peer: &PeerId| {
            let known = table.contains(peer);
            known.then(|| local.distance(&KBucketKey::from(*peer)).ilog2().unwrap_or(0))
        };
        let connected: Vec<_> = self
            .peers
            .joined()
            .map(|(peer, _, link, age)| Connected {
                peer: *peer,
                links: age.links,
                needed: needed.contains(peer) || self.net.relays.holds(peer),
                bucket: bucket(peer),
                age: now.saturating_duration_since(age.since),
                outgoing: link.outgoing,
                relayed: link.is_relayed(),
            })
            .collect();
        for peer in trim::surplus(&connected, trim::IDLE_MAX) {
            tracing::debug!(%peer, "left: there are too many");
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    /// For the status.
    pub(super) fn network_facts(&self) -> NetworkFacts {
        let relays = self.net.relays.all().filter_map(|(peer, asked)| {
            let of = |at: &&Multiaddr| scope::relay_of(at).is_some_and(|(relay, _)| relay == *peer);
            let address = self.swarm.external_addresses().find(of).cloned();
            Some(RelayFacts {
                node: node_of(peer)?,
                address: address.filter(|_| asked.state == RelayState::Reserved),
                state: asked.state,
                expires: asked.expires(),
                problem: asked.problem.clone(),
            })
        });
        let relays: Vec<_> = relays.collect();
        let mut addresses = self.net.reach.addresses();
        addresses.extend(relays.iter().filter_map(|relay| relay.address.clone()).map(|at| {
            OwnAddress {
                address: scope::without_peer(at),
                source: AddressSource::Relay,
                state: AddressState::Unknown,
                voices: 0,
                at: None,
            }
        }));
        let PortFacts { router, mappings } = self.net.forwarded.borrow().clone();
        NetworkFacts { nat: self.net.reach.nat(), addresses, router, mappings, relays }
    }
}

/// Where the world finds a port that the router forwards.
fn outside(router: IpAddr, port: u16, transport: Transport) -> Option<Multiaddr> {
    (Scope::of(router) == Scope::Global).then(|| {
        let at = Multiaddr::from(router);
        match transport {
            Transport::Tcp => at.with(Protocol::Tcp(port)),
            Transport::Udp => at.with(Protocol::Udp(port)).with(Protocol::QuicV1),
        }
    })
}
