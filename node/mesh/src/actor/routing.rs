//! The routing table and the search for peers (spec/mesh §2, §6).

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::time::Instant;

use homehost_protocol::Scope;
use libp2p::kad::{self, KBucketKey, RoutingUpdate};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::ConnectionId;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId, mdns};

use super::Actor;
use crate::deny::DenyList;
use crate::discovery::Step;
use crate::diversity::{self, Entry};
use crate::peers::Link;
use crate::relays::RELAYS_WANTED;
use crate::scope::{self, Family, without_peer};

/// Addresses of one peer that are kept: IPv4 and IPv6, two transports, and as
/// many of a second interface.
const ADDRESSES_MAX: usize = 8;

/// Peers behind relays whose block is remembered: as many as the table holds
/// before long.
const BEHIND_RELAYS_MAX: usize = 512;

/// Peers of the routing table that are dialled in one round: a bootstrap node
/// gets around a table of two hundred in a few minutes, within its dial rate.
const DIALS_PER_ROUND: usize = 16;

/// Failed dials in a row after which a peer leaves the routing table.
const DIAL_FAILURES_MAX: u8 = 2;

/// DHT queries under way at once. A walk starts two; more are not needed
/// before those have ended.
const QUERIES_MAX: usize = 8;

/// Peers found by mDNS that are dialled at once.
const MDNS_DIALS_MAX: usize = 16;

/// A configured address and whom it names.
pub(super) fn bootstrap(address: Multiaddr) -> (Multiaddr, Option<PeerId>) {
    let peer = match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    };
    (address, peer)
}

impl Actor {
    /// Puts a peer into the routing table, at those of its addresses that it
    /// may name and that the table has room for.
    pub(super) fn learn_addresses(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        told: &[Multiaddr],
    ) {
        let Some(link) = self.peers.link(&peer, connection).cloned() else { return };
        let relayed = self.relayed_addresses(&link, told);
        let told = told.iter().filter(|told| scope::may_enter(&link.address, told));
        // Where we reached it is known to work, also by name.
        let dialled = link.outgoing.then(|| link.address.clone());
        let told = told.map(|told| without_peer(told.clone()));
        let dialled = dialled.into_iter().filter(|at| !scope::is_relayed(at));
        let mut addresses: Vec<_> = dialled.chain(told).take(ADDRESSES_MAX).collect();
        if let Some(ip) = scope::ip_of(&link.address).filter(|_| !relayed.is_empty()) {
            addresses.truncate(ADDRESSES_MAX - relayed.len());
            addresses.extend(relayed);
            self.remember_where(peer, ip);
        }
        let may_tell = |address: &&Multiaddr| scope::ip_of(address).is_some();
        self.peers.listens(&peer, addresses.iter().filter(may_tell).cloned().collect());
        for address in &addresses {
            self.rules.told(connection, address, Instant::now());
        }
        self.make_room(&peer, &addresses);
        for address in addresses {
            self.admit(peer, address);
        }
    }

    /// The relays through which a peer says that it is found, each at the address
    /// at which we know it: where a relay is, only the relay may say. One that we
    /// do not know is of no use to us.
    fn relayed_addresses(&mut self, link: &Link, told: &[Multiaddr]) -> Vec<Multiaddr> {
        let own = *self.swarm.local_peer_id();
        let mut relays = BTreeMap::new();
        for (relay, way) in told.iter().filter_map(scope::relay_of) {
            if relays.len() >= RELAYS_WANTED || relays.contains_key(&relay) {
                continue;
            }
            let known = if relay == own {
                let mut ours = self.swarm.external_addresses().chain(self.swarm.listeners());
                ours.any(|at| *at == way).then_some(way)
            } else {
                self.way_to(&relay)
            };
            let far = scope::of(&link.address) == Scope::Global;
            // From afar, nobody leads us into our own house.
            let known = known.filter(|way| !far || scope::of(way) == Scope::Global);
            if let Some(way) = known {
                relays.insert(relay, way);
            }
        }
        relays.into_iter().map(|(relay, way)| scope::through(way, relay)).collect()
    }

    /// The address at which we know a peer.
    fn way_to(&mut self, peer: &PeerId) -> Option<Multiaddr> {
        let link = self.peers.any_link(peer).filter(|link| link.outgoing && !link.is_relayed());
        if let Some(link) = link {
            return Some(link.address.clone());
        }
        let bucket = self.swarm.behaviour_mut().kad.kbucket(*peer)?;
        let entry = bucket.iter().find(|entry| entry.node.key.preimage() == peer)?;
        entry.node.value.iter().find(|at| !scope::is_relayed(at)).cloned().map(without_peer)
    }

    /// Whom only a relay leads to counts in the block in which it is seen, and
    /// not in that of the relay.
    fn remember_where(&mut self, peer: PeerId, ip: IpAddr) {
        if self.net.behind_relays.len() >= BEHIND_RELAYS_MAX {
            let mut table = HashSet::new();
            for bucket in self.swarm.behaviour_mut().kad.kbuckets() {
                table.extend(bucket.iter().map(|entry| *entry.node.key.preimage()));
            }
            self.net.behind_relays.retain(|peer, _| table.contains(peer));
        }
        if self.net.behind_relays.len() < BEHIND_RELAYS_MAX {
            self.net.behind_relays.insert(peer, ip);
        }
    }

    /// Forgets a peer's old addresses when the new ones would be too many with
    /// them.
    fn make_room(&mut self, peer: &PeerId, addresses: &[Multiaddr]) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        let Some(bucket) = kad.kbucket(*peer) else { return };
        let Some(entry) = bucket.iter().find(|entry| entry.node.key.preimage() == peer) else {
            return;
        };
        let known: Vec<_> = entry.node.value.iter().cloned().map(without_peer).collect();
        let new = addresses.iter().filter(|address| !known.contains(address)).count();
        if known.len() + new > ADDRESSES_MAX {
            kad.remove_peer(peer);
        }
    }

    fn admit(&mut self, peer: PeerId, address: Multiaddr) {
        let list = self.deny.list();
        if list.denies_peer(&peer) || list.denies_address(&address) {
            return;
        }
        let local = KBucketKey::from(*self.swarm.local_peer_id());
        let kad = &mut self.swarm.behaviour_mut().kad;
        // A name was typed by a person, and needs no block to be counted by.
        let behind = |peer: &PeerId| self.net.behind_relays.get(peer).copied();
        let relayed = scope::is_relayed(&address);
        if relayed && behind(&peer).is_none() {
            return;
        }
        if let Some(ip) = scope::ip_of(&address).or_else(|| behind(&peer).filter(|_| relayed)) {
            let key = KBucketKey::from(peer);
            let bucket_of = |key: &KBucketKey<PeerId>| local.distance(key).ilog2().unwrap_or(0);
            let mut table = Vec::new();
            for bucket in kad.kbuckets() {
                for entry in bucket.iter() {
                    let (peer, bucket) = (*entry.node.key.preimage(), bucket_of(entry.node.key));
                    let ips = entry.node.value.iter().filter_map(|at| match scope::ip_of(at) {
                        None if scope::is_relayed(at) => behind(&peer),
                        ip => ip,
                    });
                    table.extend(ips.map(|ip| Entry { peer, bucket, ip }));
                }
            }
            if !diversity::admits(table, Entry { peer, bucket: bucket_of(&key), ip }) {
                tracing::debug!(%peer, "its block of addresses has its share of the table");
                return;
            }
        }
        if kad.add_address(&peer, address) == RoutingUpdate::Failed {
            tracing::trace!(%peer, "the bucket is full");
        }
    }

    /// Takes whom the operator keeps out from the table, so that nobody is told
    /// of them.
    pub(super) fn forget_denied(&mut self, list: &DenyList) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        let mut gone = Vec::new();
        for bucket in kad.kbuckets() {
            for entry in bucket.iter() {
                let peer = *entry.node.key.preimage();
                if list.denies_peer(&peer)
                    || entry.node.value.iter().any(|at| list.denies_address(at))
                {
                    gone.push(peer);
                }
            }
        }
        for peer in gone {
            kad.remove_peer(&peer);
        }
    }

    /// Does what the core says is due.
    pub(super) fn discover(&mut self, now: Instant) {
        for step in self.discovery.due(now, fastrand::f64()) {
            match step {
                Step::DialBootstrap => self.dial_bootstrap(),
                Step::DialKnown => self.dial_known(),
                Step::Walk => {
                    self.walk();
                    self.ask_px_again(now);
                }
                Step::DialAnchors => self.dial_anchors(),
                Step::DialRemembered { most } => self.dial_remembered(most),
            }
        }
    }

    fn dial_bootstrap(&mut self) {
        let away = |peer: &Option<PeerId>| !peer.is_some_and(|peer| self.peers.is_connected(&peer));
        let addresses = self.bootstrap.iter().filter(|(_, peer)| away(peer));
        self.dial_typed(addresses.map(|(address, _)| address.clone()).collect());
    }

    /// Dials addresses that a person gave. Those of one node are tried at the same
    /// time, and the first that answers is enough: a node with an address of each
    /// family would have four connections for one, and routers hold them all.
    fn dial_typed(&mut self, addresses: Vec<Multiaddr>) {
        let mut of_peer: BTreeMap<PeerId, Vec<Multiaddr>> = BTreeMap::new();
        let mut dials = Vec::new();
        for address in addresses {
            match address.iter().last() {
                Some(Protocol::P2p(peer)) => of_peer.entry(peer).or_default().push(address),
                _ => dials.push(DialOpts::from(address)),
            }
        }
        let known = of_peer.into_iter();
        dials.extend(known.map(|(peer, at)| DialOpts::peer_id(peer).addresses(at).build()));
        for dial in dials {
            // A node may be started with its own address among the others.
            if let Err(error) = self.swarm.dial(dial) {
                tracing::debug!(%error, "cannot dial a bootstrap node");
            }
        }
    }

    /// Dials a node that a person named in the family in which it is not connected
    /// yet: whether the world reaches us by IPv4, only IPv4 can tell.
    pub(super) fn dial_other_family(&mut self, peer: PeerId) {
        let [v4, v6] = self.net.ways_out.map(|way| way.is_some());
        let lacking = |address: &Multiaddr| {
            Family::of(address).is_some_and(|family| {
                let way = match family {
                    Family::V4 => v4,
                    Family::V6 => v6,
                };
                way && !self.peers.is_connected_by(&peer, family)
            })
        };
        let of_peer = self.bootstrap.iter().filter(|(_, at)| *at == Some(peer));
        let addresses = of_peer.map(|(address, _)| address);
        let addresses = addresses.filter(|at| scope::of(at) == Scope::Global && lacking(at));
        let addresses: Vec<_> = addresses.cloned().collect();
        if !addresses.is_empty() {
            let dial = DialOpts::peer_id(peer).addresses(addresses);
            let dial = dial.condition(PeerCondition::NotDialing).build();
            if let Err(error) = self.swarm.dial(dial) {
                tracing::debug!(%error, "cannot dial the other family of a bootstrap node");
            }
        }
    }

    /// Dials what is new of other configured addresses, and from now on those.
    pub(super) fn set_bootstrap(&mut self, addresses: Vec<Multiaddr>) {
        self.rules.retype(&addresses);
        let old = std::mem::take(&mut self.bootstrap);
        let mut new = Vec::new();
        for address in addresses {
            // Who answered there is still known.
            let known = old.iter().find(|(old, _)| *old == address).cloned();
            if known.is_none() {
                new.push(address.clone());
            }
            self.bootstrap.push(known.unwrap_or_else(|| bootstrap(address)));
        }
        self.dial_typed(new);
    }

    /// Notes who answers at a bootstrap address, so that it is not dialled again
    /// for as long as that peer is connected.
    pub(super) fn note_bootstrap(&mut self, peer: PeerId, dialled: &Multiaddr) {
        for (address, at) in &mut self.bootstrap {
            if without_peer(address.clone()) == *dialled {
                *at = Some(peer);
            }
        }
    }

    /// Whether a peer is one whom a person named.
    pub(super) fn is_bootstrap(&self, peer: &PeerId) -> bool {
        self.bootstrap.iter().any(|(_, at)| at.as_ref() == Some(peer))
    }

    fn dial_known(&mut self) {
        let mut known: Vec<PeerId> = Vec::new();
        for bucket in self.swarm.behaviour_mut().kad.kbuckets() {
            known.extend(bucket.iter().map(|entry| *entry.node.key.preimage()));
        }
        let now = Instant::now();
        known.retain(|peer| !self.peers.is_connected(peer) && !self.is_unpunched(peer, now));
        fastrand::shuffle(&mut known);
        for peer in known.into_iter().take(DIALS_PER_ROUND) {
            // One that is being dialled already is refused, and that is fine.
            let _ = self.swarm.dial(DialOpts::peer_id(peer).build());
        }
    }

    fn walk(&mut self) {
        let own = *self.swarm.local_peer_id();
        let kad = &mut self.swarm.behaviour_mut().kad;
        if kad.iter_queries().count() < QUERIES_MAX {
            kad.get_closest_peers(own);
            kad.get_closest_peers(PeerId::random());
        }
    }

    /// A dial to this peer failed at every address.
    pub(super) fn unreachable(&mut self, peer: PeerId) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        let in_table = kad
            .kbucket(peer)
            .is_some_and(|bucket| bucket.iter().any(|entry| *entry.node.key.preimage() == peer));
        if !in_table || self.peers.is_connected(&peer) {
            self.dial_failures.remove(&peer);
            return;
        }
        // Bounded by the table: peers outside it have no entry.
        let failures = self.dial_failures.entry(peer).or_default();
        *failures += 1;
        if *failures >= DIAL_FAILURES_MAX {
            self.dial_failures.remove(&peer);
            kad.remove_peer(&peer);
        }
    }

    pub(super) fn on_kad(&mut self, event: kad::Event) {
        match event {
            kad::Event::RoutingUpdated { old_peer: Some(evicted), .. } => {
                self.dial_failures.remove(&evicted);
            }
            kad::Event::InboundRequest { request } => self.on_kad_request(request),
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => {
                self.on_kad_progress(id, result, step.last);
            }
            event => tracing::trace!(?event, "kad"),
        }
    }

    pub(super) fn on_mdns(&mut self, event: mdns::Event) {
        let now = Instant::now();
        let found = match event {
            mdns::Event::Discovered(found) => found,
            mdns::Event::Expired(gone) => {
                for (peer, address) in gone {
                    self.rules.lost(peer, &address, now);
                }
                return;
            }
        };
        let mut dials = 0;
        for (peer, address) in found {
            // Whoever is on the link has no business naming this machine.
            let near = match scope::ip_of(&address).map(Scope::of) {
                Some(Scope::OnLink | Scope::Global) => true,
                Some(Scope::Loopback | Scope::Nowhere) | None => false,
            };
            if near {
                self.rules.found(peer, &address, now);
                if self.peers.has_joined(&peer) {
                    self.discovery.met_by_other_means();
                }
            }
            if near && dials < MDNS_DIALS_MAX && !self.peers.is_connected(&peer) {
                dials += 1;
                let opts = DialOpts::peer_id(peer).addresses(vec![address]).build();
                // One that is being dialled already is refused, and that is fine.
                let _ = self.swarm.dial(opts);
            }
        }
    }
}
