//! Which loopback and on-link places may be dialled: a core without socket or
//! clock (spec/mesh §6).
//!
//! A place gets in through someone who can know of it: a connection to or from
//! a near peer, what that peer said of itself, or mDNS. It is forgotten a while
//! after the last of them has gone. What peers say of *others* gets nothing in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use homehost_protocol::Scope;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};

/// How long a place is known after its last holder has gone: a peer that was
/// closed for idleness can be dialled again, one that moved is forgotten.
const LINGER: Duration = Duration::from_secs(600);

/// Places in all: nine for each connection of a host. About 100 kB.
const PLACES_MAX: usize = 1024;

/// Places that one connection holds: its far end, and as many addresses as a
/// peer may have. Who says new ones all the time is not heard.
const PER_LINK_MAX: usize = 9;

/// An address and a port, of either transport. A port is part of it, or else a
/// neighbour's node would open the neighbour's printer server with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    ip: IpAddr,
    port: u16,
}

impl Place {
    /// The place that a multiaddr begins with.
    pub(crate) fn of(address: &Multiaddr) -> Option<Self> {
        let ip = crate::scope::ip_of(address)?.to_canonical();
        match address.iter().nth(1)? {
            Protocol::Tcp(port) | Protocol::Udp(port) => Some(Self { ip, port }),
            _ => None,
        }
    }

    fn is_near(self) -> bool {
        matches!(Scope::of(self.ip), Scope::Loopback | Scope::OnLink)
    }
}

/// Why a place may be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Holder {
    /// It is the far end of this connection, or was told over it.
    Link(ConnectionId),
    /// mDNS found this peer there.
    Mdns(PeerId),
    /// This peer was there before the restart.
    Memory(PeerId),
}

#[derive(Debug)]
struct Grant {
    holders: BTreeSet<Holder>,
    /// When the last holder left.
    left: Option<Instant>,
}

/// The near places that may be dialled; bounded.
#[derive(Debug, Default)]
pub(crate) struct NearPlaces {
    grants: BTreeMap<Place, Grant>,
}

impl NearPlaces {
    /// `holder` vouches for this place. Others than near ones are passed over.
    pub(crate) fn hold(&mut self, place: Place, holder: Holder, now: Instant) {
        let held = |holder| self.grants.values().filter(|g| g.holders.contains(holder)).count();
        if !place.is_near() || held(&holder) >= PER_LINK_MAX {
            return;
        }
        if !self.grants.contains_key(&place) && !self.make_room(holder, now) {
            return;
        }
        let new = || Grant { holders: BTreeSet::new(), left: None };
        let grant = self.grants.entry(place).or_insert_with(new);
        grant.holders.insert(holder);
        grant.left = None;
    }

    /// `holder` has gone, from one place or from all.
    pub(crate) fn leave(&mut self, place: Option<Place>, holder: Holder, now: Instant) {
        for (at, grant) in &mut self.grants {
            let here = place.is_none_or(|place| place == *at);
            if here && grant.holders.remove(&holder) && grant.holders.is_empty() {
                grant.left = Some(now);
            }
        }
        self.forget(now);
    }

    /// Whether this one vouches for any place at the moment.
    pub(crate) fn is_holder(&self, holder: Holder) -> bool {
        self.grants.values().any(|grant| grant.holders.contains(&holder))
    }

    /// Whether this place may be dialled.
    pub(crate) fn contains(&self, place: Place, now: Instant) -> bool {
        self.grants.get(&place).is_some_and(|grant| !grant.is_over(now))
    }

    fn forget(&mut self, now: Instant) {
        self.grants.retain(|_, grant| !grant.is_over(now));
    }

    /// Whether one more fits, at the cost of one that matters less: the one
    /// that was left first, or for a connection one that only mDNS knows of.
    fn make_room(&mut self, holder: Holder, now: Instant) -> bool {
        if self.grants.len() < PLACES_MAX {
            return true;
        }
        self.forget(now);
        if self.grants.len() < PLACES_MAX {
            return true;
        }
        let left = self.grants.iter().filter_map(|(place, grant)| Some((grant.left?, *place)));
        let by_mdns = |grant: &Grant| grant.holders.iter().all(|h| !matches!(h, Holder::Link(_)));
        let victim = left.min().map(|(_, place)| place).or_else(|| match holder {
            Holder::Mdns(_) | Holder::Memory(_) => None,
            Holder::Link(_) => {
                self.grants.iter().find(|(_, grant)| by_mdns(grant)).map(|(place, _)| *place)
            }
        });
        victim.is_some_and(|place| self.grants.remove(&place).is_some())
    }
}

impl Grant {
    fn is_over(&self, now: Instant) -> bool {
        self.left.is_some_and(|left| now.saturating_duration_since(left) >= LINGER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn place(text: &str) -> Place {
        Place::of(&text.parse().unwrap()).unwrap()
    }

    fn link(number: usize) -> Holder {
        Holder::Link(ConnectionId::new_unchecked(number))
    }

    #[test]
    fn a_place_lasts_as_long_as_its_holders_and_a_while() {
        let now = Instant::now();
        let (near, other) = (place("/ip4/192.168.1.9/tcp/1"), place("/ip4/192.168.1.9/tcp/2"));
        let mut places = NearPlaces::default();
        places.hold(near, link(1), now);
        places.hold(near, Holder::Mdns(PeerId::random()), now);
        let mdns = Holder::Mdns(PeerId::random());
        places.hold(near, mdns, now);
        assert!(places.contains(near, now) && !places.contains(other, now));
        places.leave(None, link(1), now);
        assert!(places.contains(near, now + LINGER * 9), "others hold it");
        let mut alone = NearPlaces::default();
        alone.hold(near, mdns, now);
        alone.leave(Some(other), mdns, now);
        assert!(alone.contains(near, now + LINGER));
        assert!(alone.is_holder(mdns) && !alone.is_holder(link(1)));
        alone.leave(Some(near), mdns, now);
        assert!(!alone.is_holder(mdns), "it is heard no longer");
        assert!(alone.contains(near, now + LINGER / 2));
        assert!(!alone.contains(near, now + LINGER));
        alone.hold(near, mdns, now + LINGER * 2);
        assert!(alone.contains(near, now + LINGER * 9), "it came back");
    }

    #[test]
    fn far_places_are_passed_over_and_mapped_ones_are_one() {
        let now = Instant::now();
        let mut places = NearPlaces::default();
        places.hold(place("/ip4/8.8.8.8/tcp/1"), link(1), now);
        assert!(places.grants.is_empty());
        places.hold(place("/ip6/::ffff:10.0.0.1/udp/1/quic-v1"), link(1), now);
        assert!(places.contains(place("/ip4/10.0.0.1/tcp/1"), now));
    }

    #[test]
    fn one_connection_holds_a_few() {
        let now = Instant::now();
        let mut places = NearPlaces::default();
        for port in 1..100 {
            places.hold(Place { ip: Ipv4Addr::new(10, 0, 0, 1).into(), port }, link(1), now);
        }
        assert_eq!(places.grants.len(), PER_LINK_MAX);
    }

    #[test]
    fn seeded_crowds_never_exceed_the_bound_nor_displace_a_live_link() {
        for seed in 0..20 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut now = Instant::now();
            let mut places = NearPlaces::default();
            let own = place("/ip4/192.168.255.1/tcp/1");
            places.hold(own, link(0), now);
            for step in 0..3000 {
                now += Duration::from_millis(random.u64(0..500));
                let ip = Ipv4Addr::new(10, 0, random.u8(..), random.u8(..)).into();
                let at = Place { ip, port: 1 };
                match random.u8(0..4) {
                    0 => places.leave(None, link(random.usize(1..500)), now),
                    1 => places.hold(at, Holder::Mdns(PeerId::random()), now),
                    _ => places.hold(at, link(random.usize(1..500)), now),
                }
                assert!(places.grants.len() <= PLACES_MAX, "seed {seed} step {step}");
            }
            assert!(places.contains(own, now), "seed {seed}");
        }
    }
}
