//! Who reaches us, and where: a core without clock, socket or randomness
//! (spec/mesh §12).
//!
//! An address is public when a peer of another network dialled it and got
//! through, and only then. What peers see as our address tells what kind of NAT
//! there is, and is otherwise nothing but a candidate.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use homehost_protocol::Scope;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};

use crate::diversity::AddressBlock;
use crate::reach_probe::Tested;
use crate::scope;
use crate::{AddressSource, AddressState, NatKind, OwnAddress};

/// Candidates in all: some interfaces, two transports, and what peers see.
const CANDIDATES_MAX: usize = 16;
/// Probes under way at once.
const PROBES_MAX: usize = 2;
/// Pause between two probes of one address that nobody has judged yet.
const SOON: Duration = Duration::from_secs(5);
/// First and longest pause after an address was refuted: whoever forwards a
/// port should see it work within minutes.
const REFUTED_FIRST: Duration = Duration::from_secs(60);
const REFUTED_MOST: Duration = Duration::from_secs(15 * 60);
/// How often a confirmed address is looked at again.
const CONFIRMED_EVERY: Duration = Duration::from_secs(20 * 60);
/// How long a confirmation holds when nobody can be asked any more.
const CONFIRMED_FOR: Duration = Duration::from_secs(2 * 3600);
/// How long relays wait for a first answer.
const UNSAID_FOR: Duration = Duration::from_secs(5);
/// Voices that refute an address; with one, a peer that lies or is cut off
/// itself could.
const VOICES_TO_REFUTE: usize = 2;
/// Failed probes after which one voice is enough, because there is no other.
const TRIES_TO_REFUTE: u32 = 3;

/// A probe to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    /// Which address is to be dialled.
    pub(crate) address: Multiaddr,
    /// Who dials it.
    pub(crate) server: PeerId,
}

/// Somebody who can be asked to dial us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    /// Who.
    pub(crate) peer: PeerId,
    /// Its address as we see it.
    pub(crate) ip: IpAddr,
    /// Whether a UDP connection to it is open: then a NAT may let it in by that.
    pub(crate) over_udp: bool,
}

#[derive(Debug)]
struct Candidate {
    source: AddressSource,
    state: AddressState,
    /// Who said that it is as `state` has it, by block.
    voices: BTreeSet<AddressBlock>,
    /// Failed probes since the last success.
    failures: u32,
    failed: BTreeSet<AddressBlock>,
    at: Option<Instant>,
    due: Instant,
    asked: Option<PeerId>,
}

/// One connection's word on what our address is.
#[derive(Clone, Debug)]
struct Sight {
    by: IpAddr,
    address: Multiaddr,
}

/// What is known of our addresses.
#[derive(Debug, Default)]
pub(crate) struct Reachability {
    candidates: BTreeMap<Multiaddr, Candidate>,
    listens: BTreeSet<Multiaddr>,
    /// What peers see; only of connections that left from where we listen.
    sights: BTreeMap<ConnectionId, Sight>,
    router: Option<IpAddr>,
    /// Since when there is something to try.
    since: Option<Instant>,
    changed: bool,
}

impl Reachability {
    /// We listen here, or no longer. Says whether it is new.
    pub(crate) fn listens(&mut self, address: &Multiaddr, on: bool, now: Instant) {
        if scope::is_relayed(address) || scope::ip_of(address).is_none() {
            return;
        }
        self.changed = true;
        if on {
            self.listens.insert(address.clone());
            self.propose(address, AddressSource::Listen, now);
        } else {
            self.listens.remove(address);
            self.withdraw(address, AddressSource::Listen);
        }
    }

    /// A peer at `by` sees us at `address`. `exact` when the connection left from
    /// where we listen, so that the port means something.
    pub(crate) fn seen(
        &mut self,
        connection: ConnectionId,
        by: IpAddr,
        address: &Multiaddr,
        exact: bool,
        now: Instant,
    ) {
        let global = scope::ip_of(address).is_some_and(|ip| Scope::of(ip) == Scope::Global);
        if !global || Scope::of(by) != Scope::Global {
            return;
        }
        self.changed = true;
        let address = scope::without_peer(address.clone());
        if exact {
            self.sights.insert(connection, Sight { by, address: address.clone() });
            self.propose(&address, AddressSource::Observed, now);
        }
        // A port that is forwarded by hand is the one that we listen on.
        for at in self.listens.clone() {
            if let Some(same_port) = with_ip_of(&at, &address) {
                self.propose(&same_port, AddressSource::Observed, now);
            }
        }
    }

    /// A connection is gone, and its word with it.
    pub(crate) fn link_closed(&mut self, connection: ConnectionId) {
        self.changed |= self.sights.remove(&connection).is_some();
    }

    /// The router forwards to us at these addresses, and has this one itself.
    pub(crate) fn mapped(&mut self, router: Option<IpAddr>, at: &[Multiaddr], now: Instant) {
        self.changed = true;
        self.router = router;
        let gone: Vec<_> = self.of(AddressSource::Mapped).filter(|old| !at.contains(old)).collect();
        for old in gone {
            self.withdraw(&old, AddressSource::Mapped);
        }
        for address in at {
            self.propose(address, AddressSource::Mapped, now);
        }
    }

    /// Whoever runs the node says that it is reached here.
    pub(crate) fn configured(&mut self, address: &Multiaddr, now: Instant) {
        self.propose(address, AddressSource::Configured, now);
    }

    /// The machine slept or changed its network: all is asked anew. What was
    /// confirmed holds until it is refuted or its address is gone.
    pub(crate) fn shaken(&mut self, now: Instant) {
        self.changed = true;
        self.sights.clear();
        let observed: Vec<_> = self.of(AddressSource::Observed).collect();
        for address in observed {
            self.withdraw(&address, AddressSource::Observed);
        }
        for candidate in self.candidates.values_mut() {
            candidate.due = now;
            candidate.failures = 0;
        }
    }

    fn of(&self, source: AddressSource) -> impl Iterator<Item = Multiaddr> {
        self.candidates.iter().filter(move |(_, c)| c.source == source).map(|(at, _)| at.clone())
    }

    fn propose(&mut self, address: &Multiaddr, source: AddressSource, now: Instant) {
        let configured = source == AddressSource::Configured;
        let global = scope::ip_of(address).is_some_and(|ip| Scope::of(ip) == Scope::Global);
        if !global && !configured {
            return;
        }
        if let Some(known) = self.candidates.get_mut(address) {
            // The better reason stands: peers see what is mapped, too.
            if rank(source) < rank(known.source) {
                known.source = source;
                known.due = known.due.min(now);
            }
            return;
        }
        if self.candidates.len() >= CANDIDATES_MAX && !self.make_room() {
            return;
        }
        let candidate = Candidate {
            source,
            state: AddressState::Unknown,
            voices: BTreeSet::new(),
            failures: 0,
            failed: BTreeSet::new(),
            at: None,
            due: now,
            asked: None,
        };
        self.candidates.insert(address.clone(), candidate);
        self.since.get_or_insert(now);
    }

    /// Drops the least of what peers see.
    fn make_room(&mut self) -> bool {
        let least = self
            .candidates
            .iter()
            .filter(|(_, c)| c.source == AddressSource::Observed && c.asked.is_none())
            .filter(|(_, c)| c.state != AddressState::Confirmed)
            .min_by_key(|(at, c)| (c.state != AddressState::Refuted, self.sighted(at)))
            .map(|(at, _)| at.clone());
        least.is_some_and(|at| self.candidates.remove(&at).is_some())
    }

    /// How many independent voices see us at an address.
    fn sighted(&self, address: &Multiaddr) -> usize {
        let at = self.sights.values().filter(|sight| sight.address == *address);
        at.filter_map(|sight| AddressBlock::of(sight.by)).collect::<BTreeSet<_>>().len()
    }

    fn withdraw(&mut self, address: &Multiaddr, source: AddressSource) {
        if self.candidates.get(address).is_some_and(|c| c.source == source) {
            self.candidates.remove(address);
        }
    }

    /// What to ask of whom. `pick` chooses among so many.
    pub(crate) fn due(
        &mut self,
        servers: &[Server],
        now: Instant,
        mut pick: impl FnMut(usize) -> usize,
    ) -> Vec<Probe> {
        self.expire(now);
        let mut under_way = self.under_way();
        let mut probes = Vec::new();
        for (address, candidate) in &mut self.candidates {
            if under_way >= PROBES_MAX {
                break;
            }
            if candidate.asked.is_some() || now < candidate.due {
                continue;
            }
            let mut fit: Vec<_> =
                servers.iter().filter(|s| may_judge(s, address, candidate.source)).collect();
            // A voice that was not heard yet counts for more.
            let new = |s: &&Server| {
                AddressBlock::of(s.ip).is_some_and(|block| !candidate.failed.contains(&block))
            };
            if fit.iter().any(new) {
                fit.retain(new);
            }
            if fit.is_empty() {
                candidate.due = now + SOON;
                continue;
            }
            let server = fit[pick(fit.len()) % fit.len()].peer;
            candidate.asked = Some(server);
            under_way += 1;
            probes.push(Probe { address: address.clone(), server });
        }
        probes
    }

    fn under_way(&self) -> usize {
        self.candidates.values().filter(|c| c.asked.is_some()).count()
    }

    /// When [`Self::due`] wants to be asked next, apart from the end of a probe.
    pub(crate) fn next(&self, now: Instant) -> Option<Instant> {
        // What is due while enough are under way waits for the end of one.
        let full = self.under_way() >= PROBES_MAX;
        let waiting = self.candidates.values().filter(|c| c.asked.is_none() && !full);
        let waits = waiting.map(|c| c.due);
        let relays = self.since.map(|since| since + UNSAID_FOR).filter(|at| *at > now);
        waits.chain(relays).min()
    }

    /// A probe has ended; `by` is who dialled.
    pub(crate) fn tested(
        &mut self,
        address: &Multiaddr,
        by: Option<IpAddr>,
        tested: Tested,
        now: Instant,
    ) {
        let Some(candidate) = self.candidates.get_mut(address) else { return };
        candidate.asked = None;
        candidate.due = now + SOON;
        let Some(block) = by.and_then(AddressBlock::of) else { return };
        match tested {
            Tested::Unsaid => candidate.due = now + SOON * 3,
            Tested::Reached => {
                if candidate.state != AddressState::Confirmed {
                    candidate.voices.clear();
                    self.changed = true;
                }
                candidate.state = AddressState::Confirmed;
                candidate.voices.insert(block);
                candidate.failed.clear();
                candidate.failures = 0;
                candidate.at = Some(now);
                candidate.due = now + CONFIRMED_EVERY;
            }
            Tested::Unreached => {
                candidate.failures = candidate.failures.saturating_add(1);
                candidate.failed.insert(block);
                let enough = candidate.failed.len() >= VOICES_TO_REFUTE
                    || candidate.failures >= TRIES_TO_REFUTE;
                if enough {
                    self.changed |= candidate.state != AddressState::Refuted;
                    candidate.state = AddressState::Refuted;
                    candidate.voices = candidate.failed.clone();
                    candidate.at = Some(now);
                    let times = 1 << candidate.failures.saturating_sub(TRIES_TO_REFUTE).min(8);
                    candidate.due = now + (REFUTED_FIRST * times).min(REFUTED_MOST);
                }
            }
        }
    }

    /// What nobody could be asked about for long is not known any more.
    fn expire(&mut self, now: Instant) {
        for candidate in self.candidates.values_mut() {
            let old = candidate.at.is_some_and(|at| now.duration_since(at) > CONFIRMED_FOR);
            if candidate.state == AddressState::Confirmed && old {
                candidate.state = AddressState::Unknown;
                candidate.voices.clear();
                self.changed = true;
            }
        }
    }

    /// Addresses at which the world reaches us.
    pub(crate) fn confirmed(&self) -> BTreeSet<Multiaddr> {
        let confirmed = |c: &Candidate| c.state == AddressState::Confirmed;
        self.candidates.iter().filter(|(_, c)| confirmed(c)).map(|(at, _)| at.clone()).collect()
    }

    /// Whether relays are of use: nobody gets through to us over IPv4, or nobody
    /// has said so for a while.
    pub(crate) fn wants_relays(&self, now: Instant) -> bool {
        let v4 = |at: &Multiaddr| matches!(at.iter().next(), Some(Protocol::Ip4(_)));
        let mut known = self.candidates.iter().filter(|(at, _)| v4(at)).map(|(_, c)| c.state);
        let Some(since) = self.since else { return false };
        let waited = now.saturating_duration_since(since) >= UNSAID_FOR;
        known.clone().all(|state| state != AddressState::Confirmed)
            && (waited
                || (known.clone().next().is_some()
                    && known.all(|state| state == AddressState::Refuted)))
    }

    /// Whether something has changed since this was asked last.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// What stands between us and the world, for IPv4.
    pub(crate) fn nat(&self) -> NatKind {
        let v4 = |at: &Multiaddr| matches!(at.iter().next(), Some(Protocol::Ip4(_)));
        let own: BTreeSet<_> = self.listens.iter().filter_map(scope::ip_of).collect();
        let ours = |at: &Multiaddr| scope::ip_of(at).is_some_and(|ip| own.contains(&ip));
        let known: Vec<_> = self.candidates.iter().filter(|(at, _)| v4(at)).collect();
        let any =
            |here: bool, state| known.iter().any(|(at, c)| ours(at) == here && c.state == state);
        if any(true, AddressState::Confirmed) {
            return NatKind::None;
        }
        if any(false, AddressState::Confirmed) {
            return NatKind::Mapped;
        }
        if known.iter().any(|(at, _)| ours(at)) {
            let refuted = any(true, AddressState::Refuted);
            return if refuted { NatKind::Blocked } else { NatKind::Unknown };
        }
        let outside = self.router.is_some_and(|ip| Scope::of(ip) != Scope::Global);
        let sights: Vec<_> = self.sights.values().filter(|sight| v4(&sight.address)).collect();
        let elsewhere = self.router.is_some_and(|router| {
            !sights.is_empty() && sights.iter().all(|s| scope::ip_of(&s.address) != Some(router))
        });
        if outside || elsewhere {
            return NatKind::Double;
        }
        self.mapping_behaviour(&sights)
    }

    /// Whether peers of different networks see one port or several.
    fn mapping_behaviour(&self, sights: &[&Sight]) -> NatKind {
        // UDP always leaves from where we listen; a TCP dial may have had to take
        // another port, so that it is heard only when nothing else is.
        for udp in [true, false] {
            let of: Vec<_> = sights.iter().filter(|s| is_udp(&s.address) == udp).collect();
            let far: BTreeSet<_> = of.iter().map(|sight| sight.by).collect();
            if far.len() < 2 {
                continue;
            }
            let seen: BTreeSet<_> = of.iter().map(|sight| &sight.address).collect();
            return if seen.len() > 1 {
                NatKind::EndpointDependent
            } else {
                NatKind::EndpointIndependent
            };
        }
        NatKind::Unknown
    }

    /// For readers, the confirmed first.
    pub(crate) fn addresses(&self) -> Vec<OwnAddress> {
        let own = |(address, c): (&Multiaddr, &Candidate)| OwnAddress {
            address: address.clone(),
            source: c.source,
            state: c.state,
            voices: match c.state {
                AddressState::Unknown => self.sighted(address),
                _ => c.voices.len(),
            },
            at: c.at,
        };
        let mut addresses: Vec<_> = self.candidates.iter().map(own).collect();
        let local = |at: &Multiaddr| scope::of(at) != Scope::Global;
        addresses.extend(self.listens.iter().filter(|at| local(at)).map(|at| OwnAddress {
            address: at.clone(),
            source: AddressSource::Listen,
            state: AddressState::Unknown,
            voices: 0,
            at: None,
        }));
        addresses.sort_by_key(|own| match own.state {
            AddressState::Confirmed => 0,
            AddressState::Unknown => 1,
            AddressState::Refuted => 2,
        });
        addresses
    }
}

fn rank(source: AddressSource) -> u8 {
    match source {
        AddressSource::Configured => 0,
        AddressSource::Listen => 1,
        AddressSource::Mapped => 2,
        AddressSource::Relay | AddressSource::Observed => 3,
    }
}

fn is_udp(address: &Multiaddr) -> bool {
    matches!(address.iter().nth(1), Some(Protocol::Udp(_)))
}

/// Whether what a peer says of an address proves anything.
///
/// Who is near, or of the network that the address is in, may get through where
/// the world does not. Where a UDP connection to it is open, a NAT may let it in
/// through that hole; a forwarded port or an interface of ours has none.
fn may_judge(server: &Server, address: &Multiaddr, source: AddressSource) -> bool {
    let Some(ip) = scope::ip_of(address) else { return false };
    Scope::of(server.ip) == Scope::Global
        && server.ip.is_ipv4() == ip.is_ipv4()
        && AddressBlock::of(server.ip) != AddressBlock::of(ip)
        && !(source == AddressSource::Observed && is_udp(address) && server.over_udp)
}

/// The address `at` with the IP address of `seen`, if both are of one family.
fn with_ip_of(at: &Multiaddr, seen: &Multiaddr) -> Option<Multiaddr> {
    let (mine, theirs) = (scope::ip_of(at)?, scope::ip_of(seen)?);
    let differs = mine.is_loopback() || mine.is_ipv4() != theirs.is_ipv4();
    // An IPv6 address that we listen on is a candidate itself.
    (!differs && mine.is_ipv4())
        .then(|| std::iter::once(Protocol::from(theirs)).chain(at.iter().skip(1)).collect())
}

#[cfg(test)]
mod tests;
