//! The gate that every dial passes, whichever protocol asked for it: how far
//! the address may reach, and how many dials a second.
//!
//! Peers tell us of others, and a liar could name the printer of our own
//! network. The rules are here, without clock or socket; `dial_gate/transport.rs`
//! puts them around transports.

mod transport;

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use homehost_protocol::Scope;
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};

use crate::deny::Deny;
use crate::near::{Holder, NearPlaces, Place};
use crate::scope;
use crate::token_bucket::{Rate, TokenBucket};

pub(crate) use transport::{DialGate, Way};

/// Dials to global addresses: an idle node does a few a minute, a start or a
/// lookup some dozens at once. More would look like a port scan.
const DIAL_RATE: Rate = Rate { per_second: 4.0, burst: 32.0 };

/// Dials to loopback and on-link places: a room full of machines at once, and no
/// flood against one of them.
const NEAR_RATE: Rate = Rate { per_second: 16.0, burst: 64.0 };

/// Circuits through relays: each costs somebody else a little. The relay itself
/// is dialled like any other address.
const RELAYED_RATE: Rate = Rate { per_second: 1.0, burst: 8.0 };

/// How long a dial waits for its turn before it is refused. A handshake must
/// fit after it, within the transport's ten seconds.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long what a peer from afar answered may still be in use after it has
/// gone: a whole DHT query, and a little.
const FAR_MEMORY: Duration = Duration::from_secs(10);

/// How much earlier QUIC is dialled than TCP, where both are. Holes are punched
/// over the transport on which a router was seen, and whoever is seen over TCP
/// alone cannot meet one who is seen over QUIC alone. A handshake of QUIC fits
/// into it around the world.
const QUIC_FIRST: Duration = Duration::from_millis(300);

/// Such dials that are remembered: more are not under way at one time.
const BY_QUIC_MAX: usize = 64;

tokio::task_local! {
    /// Set while a name is dialled that a person typed.
    static TYPED_NAME: ();
}

/// Whether what peers say of others is taken at their word, for near addresses.
/// By the way the node was started: whoever it was told to join is near too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hearsay {
    /// All is on this machine: loopback addresses are.
    Loopback,
    /// Every bootstrap address is near: on-link addresses are, while nobody
    /// from afar could have been the one who said it.
    OnLink,
    /// None are.
    None,
}

#[derive(Debug)]
struct State {
    /// Whether all that is listened on is loopback.
    listens_locally: bool,
    typed: BTreeSet<Place>,
    typed_names: BTreeSet<Multiaddr>,
    deny: Deny,
    hearsay: Hearsay,
    near: NearPlaces,
    /// Connections to peers that are not near, and when the last one ended.
    far: BTreeSet<ConnectionId>,
    far_until: Option<Instant>,
    global_rate: TokenBucket,
    near_rate: TokenBucket,
    relayed_rate: TokenBucket,
    /// Machines that are being dialled over QUIC, the last at the end.
    by_quic: VecDeque<(IpAddr, Instant)>,
}

/// What may be dialled at the moment; shared by the transport and the actor.
#[derive(Clone, Debug)]
pub(crate) struct DialRules(Arc<Mutex<State>>);

impl DialRules {
    /// `typed` are the addresses that a person gave; they are always allowed.
    /// They and the addresses to `listen` on say what kind of network it is.
    pub(crate) fn new(typed: &[Multiaddr], listen: &[Multiaddr], now: Instant) -> Self {
        let local = listen.iter().map(scope::of).all(|at| at == Scope::Loopback);
        let rules = Self(Arc::new(Mutex::new(State {
            listens_locally: local,
            typed: BTreeSet::new(),
            deny: Deny::default(),
            typed_names: BTreeSet::new(),
            hearsay: Hearsay::None,
            near: NearPlaces::default(),
            far: BTreeSet::new(),
            far_until: None,
            global_rate: TokenBucket::full(DIAL_RATE, now),
            near_rate: TokenBucket::full(NEAR_RATE, now),
            relayed_rate: TokenBucket::full(RELAYED_RATE, now),
            by_quic: VecDeque::new(),
        })));
        rules.retype(typed);
        rules
    }

    /// A person gives other addresses than before.
    pub(crate) fn retype(&self, typed: &[Multiaddr]) {
        let mut state = self.state();
        let scopes = || typed.iter().map(scope::of);
        let near = |at| matches!(at, Scope::Loopback | Scope::OnLink);
        state.hearsay = if state.listens_locally && scopes().all(|at| at == Scope::Loopback) {
            Hearsay::Loopback
        } else if !typed.is_empty() && scopes().all(near) {
            Hearsay::OnLink
        } else {
            Hearsay::None
        };
        state.typed = typed.iter().filter_map(Place::of).collect();
        let names = typed.iter().filter(|address| has_name(address));
        state.typed_names = names.cloned().map(scope::without_peer).collect();
    }

    /// With a list of whom not to dial, whoever gave the address.
    pub(crate) fn keeping_out(self, deny: Deny) -> Self {
        self.state().deny = deny;
        self
    }

    /// A connection was made: its far end may be dialled if it is near.
    pub(crate) fn link_opened(&self, link: ConnectionId, address: &Multiaddr, now: Instant) {
        let mut state = self.state();
        match scope::of(address) {
            Scope::Global | Scope::Nowhere => {
                state.far.insert(link);
            }
            Scope::Loopback | Scope::OnLink => state.hold(address, Holder::Link(link), now),
        }
    }

    /// A peer said over this connection that it listens here, and may say so.
    pub(crate) fn told(&self, link: ConnectionId, address: &Multiaddr, now: Instant) {
        let mut state = self.state();
        if !state.far.contains(&link) {
            state.hold(address, Holder::Link(link), now);
        }
    }

    /// A connection ended: what it held open closes after a while.
    pub(crate) fn link_closed(&self, link: ConnectionId, now: Instant) {
        let mut state = self.state();
        if state.far.remove(&link) {
            state.far_until = Some(now + FAR_MEMORY);
        } else {
            state.near.leave(None, Holder::Link(link), now);
        }
    }

    /// mDNS found a peer.
    pub(crate) fn found(&self, peer: PeerId, address: &Multiaddr, now: Instant) {
        self.state().hold(address, Holder::Mdns(peer), now);
    }

    /// Whether mDNS hears of a peer at the moment.
    pub(crate) fn is_found(&self, peer: PeerId) -> bool {
        self.state().near.is_holder(Holder::Mdns(peer))
    }

    /// A peer was here before the restart, as an authenticated connection
    /// showed. It may be looked for for a while.
    pub(crate) fn remembered(&self, peer: PeerId, address: &Multiaddr, now: Instant) {
        let mut state = self.state();
        state.hold(address, Holder::Memory(peer), now);
        if let Some(place) = Place::of(address) {
            state.near.leave(Some(place), Holder::Memory(peer), now);
        }
    }

    /// mDNS no longer hears of a peer.
    pub(crate) fn lost(&self, peer: PeerId, address: &Multiaddr, now: Instant) {
        if let Some(place) = Place::of(address) {
            self.state().near.leave(Some(place), Holder::Mdns(peer), now);
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether dials are refused at the moment because there are too many: their
    /// failure then says nothing about those who were dialled.
    pub(crate) fn is_congested(&self, now: Instant) -> bool {
        let state = self.state();
        let full = |mut bucket: TokenBucket, rate| bucket.reserve(rate, PATIENCE, now).is_none();
        full(state.global_rate, DIAL_RATE) || full(state.near_rate, NEAR_RATE)
    }

    /// How long to wait before dialling an address, or why not to.
    fn permits(&self, address: &Multiaddr, now: Instant) -> Result<Duration, &'static str> {
        if scope::is_relayed(address) {
            let mut state = self.state();
            let wait = state.relayed_rate.reserve(RELAYED_RATE, PATIENCE, now);
            return wait.ok_or("too many dials through relays");
        }
        let Some(ip) = scope::ip_of(address) else { return Err("not an IP address") };
        let Some(place) = Place::of(address) else { return Err("not an address of ours") };
        let mut state = self.state();
        if state.deny.list().denies_ip(ip) {
            return Err("the operator keeps it out");
        }
        let near = match Scope::of(ip) {
            Scope::Nowhere => return Err("address is out of scope"),
            _ if state.typed.contains(&place) || TYPED_NAME.try_with(|()| ()).is_ok() => {
                return Ok(Duration::ZERO);
            }
            Scope::Global => {
                let wait = state.global_rate.reserve(DIAL_RATE, PATIENCE, now);
                return wait.ok_or("too many dials");
            }
            near @ (Scope::Loopback | Scope::OnLink) => near,
        };
        if !state.near.contains(place, now) && !state.believes(near, now) {
            return Err("address is out of scope");
        }
        state.near_rate.reserve(NEAR_RATE, PATIENCE, now).ok_or("too many near dials")
    }

    /// QUIC is tried at a machine: TCP gives way to it.
    fn dialled_by_quic(&self, ip: IpAddr, now: Instant) {
        let mut state = self.state();
        state.by_quic.push_back((ip, now));
        if state.by_quic.len() > BY_QUIC_MAX {
            state.by_quic.pop_front();
        }
    }

    /// How much longer a dial over TCP lets one over QUIC to the same machine go
    /// ahead.
    fn gives_way(&self, ip: IpAddr, now: Instant) -> Duration {
        let state = self.state();
        let last = state.by_quic.iter().rev().find(|(of, _)| *of == ip);
        last.map_or(Duration::ZERO, |(_, at)| (*at + QUIC_FIRST).saturating_duration_since(now))
    }

    /// Whether a name may be looked up: not at a stranger's word.
    fn permits_name(&self, address: Multiaddr) -> bool {
        self.state().typed_names.contains(&scope::without_peer(address))
    }
}

impl State {
    fn hold(&mut self, address: &Multiaddr, holder: Holder, now: Instant) {
        if let Some(place) = Place::of(address) {
            self.near.hold(place, holder, now);
        }
    }

    /// Whether a place may be dialled that somebody named, nobody knows who.
    fn believes(&self, scope: Scope, now: Instant) -> bool {
        let nobody_far = self.far.is_empty() && self.far_until.is_none_or(|until| now >= until);
        match self.hearsay {
            Hearsay::Loopback => scope == Scope::Loopback,
            Hearsay::OnLink => scope == Scope::OnLink && nobody_far,
            Hearsay::None => false,
        }
    }
}

fn has_name(address: &Multiaddr) -> bool {
    use libp2p::multiaddr::Protocol::{Dns, Dns4, Dns6, Dnsaddr};
    address.iter().any(|part| matches!(part, Dns(_) | Dns4(_) | Dns6(_) | Dnsaddr(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn rules(typed: &[&str], listen: &str) -> DialRules {
        let typed: Vec<_> = typed.iter().map(|text| address(text)).collect();
        DialRules::new(&typed, &[address(listen)], Instant::now())
    }

    fn link(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    const ANYWHERE: &str = "/ip4/0.0.0.0/tcp/4001";
    const GLOBAL: &str = "/ip4/8.8.8.8/tcp/4001";

    #[test]
    fn a_liar_opens_no_near_place_whatever_is_connected() {
        let now = Instant::now();
        let printer = address("/ip4/192.168.1.9/tcp/9100");
        let own = address("/ip4/127.0.0.1/tcp/5432");
        let refused = |rules: &DialRules| {
            rules.permits(&printer, now).is_err() && rules.permits(&own, now).is_err()
        };
        for typed in [&[][..], &[GLOBAL], &[GLOBAL, "/ip4/192.168.1.2/tcp/1"]] {
            let rules = rules(typed, ANYWHERE);
            assert!(refused(&rules), "{typed:?}");
            rules.link_opened(link(1), &address(GLOBAL), now);
            rules.told(link(1), &printer, now);
            assert!(refused(&rules), "{typed:?}: it told of its own reach");
            // One that comes in through a proxy looks near, and so does a
            // neighbour.
            rules.link_opened(link(2), &address("/ip4/127.0.0.1/tcp/50000"), now);
            rules.link_opened(link(3), &address("/ip4/192.168.1.9/tcp/50000"), now);
            rules.found(PeerId::random(), &address("/ip4/192.168.1.9/tcp/4001"), now);
            assert!(refused(&rules), "{typed:?}: the same machine, another port");
            assert!(rules.permits(&address("/ip4/192.168.1.9/tcp/4001"), now).is_ok());
        }
        let rules = rules(&[], ANYWHERE);
        assert!(rules.permits(&address("/ip4/0.0.0.0/tcp/1"), now).is_err());
        assert!(rules.permits(&address("/memory/1"), now).is_err());
    }

    #[test]
    fn what_a_near_peer_told_of_itself_is_open_and_closes_after_it() {
        let now = Instant::now();
        let rules = rules(&[GLOBAL], ANYWHERE);
        let told = address("/ip4/192.168.1.9/udp/4001/quic-v1");
        rules.link_opened(link(1), &address("/ip4/192.168.1.9/tcp/50000"), now);
        assert!(rules.permits(&told, now).is_err());
        rules.told(link(1), &told, now);
        assert!(rules.permits(&told, now).is_ok());
        rules.link_closed(link(1), now);
        assert!(rules.permits(&told, now + Duration::from_secs(60)).is_ok());
        assert!(rules.permits(&told, now + Duration::from_secs(3600)).is_err());
    }

    #[test]
    fn a_network_on_one_machine_takes_its_peers_at_their_word() {
        let now = Instant::now();
        let own = address("/ip4/127.0.0.1/tcp/5432");
        let local = rules(&["/dns4/localhost/tcp/1"], "/ip4/127.0.0.1/tcp/0");
        assert!(local.permits(&own, now).is_ok());
        assert!(local.permits(&address("/ip4/192.168.1.9/tcp/1"), now).is_err());
        let open = rules(&["/ip4/127.0.0.1/tcp/1"], ANYWHERE);
        assert!(open.permits(&own, now).is_err());
        assert!(open.permits(&address("/ip4/127.0.0.1/tcp/1"), now).is_ok());
    }

    #[test]
    fn a_network_on_one_link_does_so_while_nobody_from_afar_is_there() {
        let now = Instant::now();
        let third = address("/ip4/100.64.0.7/tcp/4001");
        let rules = rules(&["/ip4/100.64.0.1/tcp/4001"], ANYWHERE);
        assert!(rules.permits(&third, now).is_ok());
        assert!(rules.permits(&address("/ip4/127.0.0.1/tcp/1"), now).is_err());
        rules.link_opened(link(1), &address(GLOBAL), now);
        assert!(rules.permits(&third, now).is_err());
        rules.link_closed(link(1), now);
        assert!(rules.permits(&third, now + FAR_MEMORY / 2).is_err(), "its answer is in use");
        assert!(rules.permits(&third, now + FAR_MEMORY).is_ok());
    }

    #[test]
    fn dials_have_a_rate_and_what_was_typed_has_none() {
        let now = Instant::now();
        for (typed, other, burst, more) in [
            (GLOBAL, "/ip4/9.9.9.9/tcp/4001", 32, 12),
            ("/ip4/10.0.0.1/tcp/4001", "/ip4/10.0.0.2/tcp/4001", 64, 48),
        ] {
            let rules = rules(&[typed], ANYWHERE);
            let (typed, other) = (address(typed), address(other));
            let waits: Vec<_> = (0..200).map_while(|_| rules.permits(&other, now).ok()).collect();
            assert_eq!(waits.iter().filter(|wait| wait.is_zero()).count(), burst);
            assert_eq!(waits.len(), burst + more, "three seconds of waiting");
            assert!(rules.is_congested(now));
            assert!((0..100).all(|_| rules.permits(&typed, now) == Ok(Duration::ZERO)));
            let later = now + Duration::from_secs(1);
            assert!(!rules.is_congested(later));
            assert!(rules.permits(&other, later).is_ok());
        }
    }

    #[test]
    fn tcp_gives_way_to_quic_to_the_same_machine_and_to_no_other() {
        let now = Instant::now();
        let rules = rules(&[], ANYWHERE);
        let [own, other] = ["8.8.8.8", "9.9.9.9"].map(|ip| ip.parse::<IpAddr>().unwrap());
        assert_eq!(rules.gives_way(own, now), Duration::ZERO);
        rules.dialled_by_quic(own, now);
        let later = now + Duration::from_millis(10);
        assert_eq!(rules.gives_way(own, later), QUIC_FIRST - Duration::from_millis(10));
        assert_eq!(rules.gives_way(other, later), Duration::ZERO);
        assert_eq!(rules.gives_way(own, now + QUIC_FIRST), Duration::ZERO);
        for _ in 0..BY_QUIC_MAX {
            rules.dialled_by_quic(other, later);
        }
        assert_eq!(rules.gives_way(own, later), Duration::ZERO, "what is remembered is bounded");
    }

    #[tokio::test]
    async fn only_typed_names_are_looked_up_and_they_may_lead_home() {
        let now = Instant::now();
        let rules = rules(&["/dns4/nas.local/tcp/4001", GLOBAL], ANYWHERE);
        let id = PeerId::random();
        assert!(rules.permits_name(address(&format!("/dns4/nas.local/tcp/4001/p2p/{id}"))));
        assert!(!rules.permits_name(address("/dns4/nas.local/tcp/9100")));
        assert!(!rules.permits_name(address("/dns4/evil.example.org/tcp/4001")));
        let resolved = address("/ip4/192.168.1.9/tcp/4001");
        assert!(rules.permits(&resolved, now).is_err());
        let by_name = TYPED_NAME.scope((), async { rules.permits(&resolved, now) });
        assert_eq!(by_name.await, Ok(Duration::ZERO));
        assert!(rules.permits(&resolved, now).is_err());
    }
}
