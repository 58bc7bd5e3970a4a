//! The peers that are remembered over a restart: a core without clock, socket or
//! file (spec/mesh §2).
//!
//! A node that was away finds its network again without any bootstrap node.
//! Who wants to be all that a node remembers needs many blocks of addresses and
//! much time: a block has a small share, a newcomer never displaces one who
//! stayed long, and a failed dial counts only while others can be reached.

mod file;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use homehost_protocol::{NodeId, Scope};
use libp2p::Multiaddr;

use crate::Role;
use crate::diversity::AddressBlock;
use crate::scope;

/// Peers that are remembered: some 20 kB on disk, and enough that a few are
/// there after months.
pub(crate) const PEERS_MAX: usize = 128;

/// Of one block of addresses. As in a bucket of the routing table.
pub(crate) const PER_BLOCK_MAX: usize = 2;

/// Peers of this machine and of the local link, which have no block. A LAN
/// party is remembered, and a house full of devices does not displace the world.
pub(crate) const NEAR_MAX: usize = 32;

/// Addresses of one peer: both transports over both versions of IP.
const ADDRESSES_MAX: usize = 4;

/// Connections that are restored first after a start. As Bitcoin's anchors, and
/// two more: home machines come and go.
pub(crate) const ANCHORS: usize = 4;

/// Time with us after which a peer has proved itself.
const PROVED: Duration = Duration::from_secs(3600);

/// Longest time with us that counts: who stayed for a month is not outdone.
const STAYED_MOST: Duration = Duration::from_secs(30 * 24 * 3600);

/// Peers that were seen within this of the last that was seen were there at the
/// end: twice the time between two savings.
const AT_THE_END_MS: u64 = 3600 * 1000;

/// Failed dials after which a peer is forgotten. With [`retry_after`] between
/// those that count, they take three days at least.
const FAILURES_MAX: u8 = 8;

/// Failed dials that one who has proved itself is forgiven: home machines are
/// off at night, and seven hours pass before there are as many.
const FAILURES_OF_A_NIGHT: u8 = 4;

/// How far apart a failed dial and a sign that dials work may be, so that the
/// failure says something about who was dialled. Twice the pause of pings.
const SAME_TIME: Duration = Duration::from_secs(30);

/// Peers are dialled again after this, unless nobody else is left.
const DIAL_AGAIN: Duration = Duration::from_secs(600);

/// How often the time that peers stayed is added up.
const TEND_EVERY: Duration = Duration::from_secs(300);

/// How soon a peer that came, went for good or moved is saved: a start brings
/// many at once.
const SAVE_SOON: Duration = Duration::from_secs(2);

/// How soon it is saved that those who are known are still there. A crash
/// costs that much of it.
const SAVE_LATER: Duration = Duration::from_secs(1800);

/// Both clocks: one that only goes forward, and one that the next start has, too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) at: Instant,
    pub(crate) wall_ms: u64,
}

/// Which of two ways a peer is: being online says nothing about the LAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// On this machine or link.
    Near,
    /// Anywhere else.
    Far,
}

impl Way {
    /// The way of an address.
    pub(crate) fn of(address: &Multiaddr) -> Self {
        match scope::of(address) {
            Scope::Loopback | Scope::OnLink => Self::Near,
            Scope::Global | Scope::Nowhere => Self::Far,
        }
    }
}

/// Whom to dial, and where.
pub(crate) type Dial = (NodeId, Vec<Multiaddr>);

/// One remembered peer.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    addresses: Vec<Multiaddr>,
    way: Way,
    /// Of far peers, all of whose addresses are of one IP address (spec/mesh §6).
    block: Option<AddressBlock>,
    role: Role,
    /// When it was last with us.
    seen_ms: u64,
    /// How long it was with us, in all.
    stayed: Duration,
    /// Dials that failed since, of those that count.
    failures: u8,
    failed_ms: u64,
    /// When it was dialled from here last.
    tried: Option<Instant>,
}

/// Who is displaced first, in this order; within one, who was seen longest ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    Failing,
    New,
    Proved,
}

impl Known {
    fn new(addresses: Vec<Multiaddr>, role: Role, seen_ms: u64) -> Option<Self> {
        let first = addresses.first()?;
        let (way, block) = (Way::of(first), scope::ip_of(first).and_then(AddressBlock::of));
        let (stayed, failures, failed_ms, tried) = (Duration::ZERO, 0, 0, None);
        Some(Self { addresses, way, block, role, seen_ms, stayed, failures, failed_ms, tried })
    }

    fn rank(&self) -> (Worth, u64) {
        let worth = match (self.stayed >= PROVED, self.failures) {
            (true, 0..FAILURES_OF_A_NIGHT) => Worth::Proved,
            (false, 0) => Worth::New,
            _ => Worth::Failing,
        };
        (worth, self.seen_ms)
    }
}

/// Among whom there is room, or is not.
#[derive(Clone, Copy, Debug)]
enum Crowd {
    Block,
    Near,
    All,
}

/// A peer that is connected.
#[derive(Clone, Debug)]
struct Present {
    addresses: Vec<Multiaddr>,
    role: Role,
    /// Until when its time was added up, and how much it was since it came.
    counted: Instant,
    stayed: Duration,
}

/// The remembered peers of one network; bounded.
#[derive(Debug)]
pub(crate) struct PeerCache {
    own: NodeId,
    peers: BTreeMap<NodeId, Known>,
    /// As many as there are connections.
    present: BTreeMap<NodeId, Present>,
    /// Failed dials of which it is not known yet whether they mean anything. No
    /// more than there are peers.
    unsure: BTreeMap<NodeId, Instant>,
    /// When dials last worked, by way.
    worked: BTreeMap<Way, Instant>,
    tend_at: Instant,
    save_at: Option<Instant>,
}

impl PeerCache {
    /// Remembers nobody yet.
    pub(crate) fn new(own: NodeId, now: Now) -> Self {
        Self {
            own,
            peers: BTreeMap::new(),
            present: BTreeMap::new(),
            unsure: BTreeMap::new(),
            worked: BTreeMap::new(),
            tend_at: now.at + TEND_EVERY,
            save_at: None,
        }
    }

    /// How many are remembered.
    pub(crate) fn len(&self) -> usize {
        self.peers.len()
    }

    /// A peer of our network has joined, or says something new of itself.
    /// Addresses are what the routing table may have of it.
    pub(crate) fn joined(&mut self, node: NodeId, addresses: &[Multiaddr], role: Role, now: Now) {
        let addresses = fit(addresses);
        if node == self.own || addresses.is_empty() {
            return;
        }
        let present = self.present.entry(node).or_insert_with(|| Present {
            addresses: Vec::new(),
            role,
            counted: now.at,
            stayed: Duration::ZERO,
        });
        (present.addresses, present.role) = (addresses, role);
        let present = present.clone();
        self.offer(node, &present, now);
    }

    /// The last connection to a peer is gone.
    pub(crate) fn left(&mut self, node: NodeId, now: Now) {
        self.count(node, now);
        self.present.remove(&node);
    }

    /// A peer is one to stay away from.
    pub(crate) fn banned(&mut self, node: NodeId, now: Now) {
        self.present.remove(&node);
        if self.peers.remove(&node).is_some() {
            self.save(now.at + SAVE_SOON);
        }
    }

    /// Someone could be dialled, or answers still: what failed at the same time
    /// failed by itself.
    pub(crate) fn worked(&mut self, way: Way, now: Now) {
        self.worked.insert(way, now.at);
        let peers = &self.peers;
        let of_way = |node: &NodeId| peers.get(node).is_some_and(|known| known.way == way);
        let (sure, unsure): (BTreeMap<_, _>, _) =
            std::mem::take(&mut self.unsure).into_iter().partition(|(node, _)| of_way(node));
        self.unsure = unsure;
        for (node, at) in sure {
            if now.at.saturating_duration_since(at) <= SAME_TIME {
                self.blame(node, now);
            }
        }
    }

    /// A dial to a peer failed at every address.
    pub(crate) fn failed(&mut self, node: NodeId, now: Now) {
        let Some(known) = self.peers.get(&node) else { return };
        if self.present.contains_key(&node) {
            return;
        }
        let worked = self.worked.get(&known.way);
        if worked.is_some_and(|at| now.at.saturating_duration_since(*at) <= SAME_TIME) {
            self.blame(node, now);
        } else {
            self.unsure.insert(node, now.at);
        }
    }

    /// The anchors, to be dialled before anybody else.
    pub(crate) fn anchors(&mut self, now: Now) -> Vec<Dial> {
        self.anchor_ids().into_iter().filter_map(|node| self.dial(node, now)).collect()
    }

    /// Who was there at the end and had stayed longest, one of a block.
    pub(crate) fn anchor_ids(&self) -> Vec<NodeId> {
        let end = self.peers.values().map(|known| known.seen_ms).max().unwrap_or(0);
        let mut order: Vec<(&NodeId, &Known)> = self.peers.iter().collect();
        order.sort_by_key(|(node, known)| {
            let there = end.saturating_sub(known.seen_ms) <= AT_THE_END_MS;
            // Those of the LAN are found without being remembered.
            let good = (known.failures == 0, known.role == Role::Host, known.way, there);
            (std::cmp::Reverse((good, known.stayed)), **node)
        });
        let mut blocks = BTreeSet::new();
        let mut anchors = Vec::new();
        for (node, known) in order {
            if anchors.len() < ANCHORS && known.block.is_none_or(|block| blocks.insert(block)) {
                anchors.push(*node);
            }
        }
        anchors
    }

    /// Up to `most` peers that are not there, those that were dialled longest
    /// ago first, and among them at random.
    pub(crate) fn some(
        &mut self,
        most: usize,
        urgency: Urgency,
        now: Now,
        random: &mut fastrand::Rng,
    ) -> Vec<Dial> {
        let ready = |known: &Known| match urgency {
            Urgency::Alone => true,
            Urgency::Calm => {
                let long = known.tried.is_none_or(|at| now.at.duration_since(at) >= DIAL_AGAIN);
                long && now.wall_ms.saturating_sub(known.failed_ms) >= retry_after(known.failures)
            }
        };
        let present = &self.present;
        let mut order: Vec<_> = self
            .peers
            .iter()
            .filter(|(node, known)| !present.contains_key(node) && ready(known))
            .map(|(node, known)| ((known.tried, known.failures > 0, random.u32(..)), *node))
            .collect();
        order.sort_unstable();
        let nodes: Vec<_> = order.into_iter().take(most).map(|(_, node)| node).collect();
        nodes.into_iter().filter_map(|node| self.dial(node, now)).collect()
    }

    /// When [`Self::tend`] wants to be called next.
    pub(crate) fn next(&self) -> Instant {
        self.save_at.map_or(self.tend_at, |at| at.min(self.tend_at))
    }

    /// Adds up what is due. Says whether to save.
    pub(crate) fn tend(&mut self, now: Now) -> bool {
        if now.at >= self.tend_at {
            self.tend_at = now.at + TEND_EVERY;
            self.count_all(now);
        }
        let due = self.save_at.is_some_and(|at| now.at >= at);
        if due {
            self.save_at = None;
        }
        due
    }

    /// Adds up the time of all who are there.
    fn count_all(&mut self, now: Now) {
        let nodes: Vec<_> = self.present.keys().copied().collect();
        for node in nodes {
            self.count(node, now);
            // One for whom there was no room may have proved itself since.
            if let Some(present) = self.present.get(&node).cloned()
                && !self.peers.contains_key(&node)
            {
                self.offer(node, &present, now);
            }
        }
    }

    /// Adds up the time of one that is there.
    fn count(&mut self, node: NodeId, now: Now) {
        let Some(present) = self.present.get_mut(&node) else { return };
        let more = now.at.saturating_duration_since(present.counted);
        (present.counted, present.stayed) = (now.at, present.stayed + more);
        if let Some(known) = self.peers.get_mut(&node) {
            known.stayed = (known.stayed + more).min(STAYED_MOST);
            known.seen_ms = now.wall_ms;
            self.save(now.at + SAVE_LATER);
        }
    }

    /// Remembers a peer that is there, if there is room or someone worth less.
    fn offer(&mut self, node: NodeId, present: &Present, now: Now) {
        self.unsure.remove(&node);
        let (addresses, role) = (present.addresses.clone(), present.role);
        let Some(mut known) = Known::new(addresses, role, now.wall_ms) else { return };
        let before = self.peers.remove(&node);
        known.stayed = before.as_ref().map_or(present.stayed, |known| known.stayed);
        known.tried = before.as_ref().and_then(|known| known.tried);
        let same = before.as_ref().is_some_and(|before| {
            before.addresses == known.addresses && before.role == known.role && before.failures == 0
        });
        if self.make_room(&known) {
            self.peers.insert(node, known);
        } else if let Some(before) = before {
            // It moved to where there is no room for it.
            self.peers.insert(node, before);
            return;
        }
        self.save(now.at + if same { SAVE_LATER } else { SAVE_SOON });
    }

    /// Whether there is room for a peer, if need be at the cost of another that
    /// is worth less.
    fn make_room(&mut self, new: &Known) -> bool {
        let (worth, block, way) = (new.rank().0, new.block, new.way);
        for crowd in [Crowd::Block, Crowd::Near, Crowd::All] {
            let is_in = |known: &Known| match crowd {
                Crowd::Block => block.is_some() && known.block == block,
                Crowd::Near => (way, known.way) == (Way::Near, Way::Near),
                Crowd::All => true,
            };
            let (most, newest_wins) = match crowd {
                // Who has a block has any number of newcomers.
                Crowd::Block => (PER_BLOCK_MAX, false),
                Crowd::Near => (NEAR_MAX, true),
                Crowd::All => (PEERS_MAX, true),
            };
            let crowd: Vec<_> = self.peers.iter().filter(|(_, known)| is_in(known)).collect();
            if crowd.len() < most {
                continue;
            }
            let absent = crowd.into_iter().filter(|(node, _)| !self.present.contains_key(node));
            let Some((worst, known)) = absent.min_by_key(|(_, known)| known.rank()) else {
                return false;
            };
            let newer = newest_wins && worth == Worth::New && known.seen_ms < new.seen_ms;
            let gives_way = match known.rank().0 {
                Worth::New if worth == Worth::New => newer,
                other => other < worth,
            };
            if !gives_way {
                return false;
            }
            let worst = *worst;
            self.peers.remove(&worst);
            self.unsure.remove(&worst);
        }
        true
    }

    fn dial(&mut self, node: NodeId, now: Now) -> Option<Dial> {
        let known = self.peers.get_mut(&node)?;
        known.tried = Some(now.at);
        Some((node, known.addresses.clone()))
    }

    /// A dial failed, and it was not our own fault.
    fn blame(&mut self, node: NodeId, now: Now) {
        let Some(known) = self.peers.get_mut(&node) else { return };
        // A clock that was set back must not spare it for ever.
        known.failed_ms = known.failed_ms.min(now.wall_ms);
        if now.wall_ms - known.failed_ms < retry_after(known.failures) {
            return;
        }
        known.failures += 1;
        known.failed_ms = now.wall_ms;
        if known.failures >= FAILURES_MAX {
            self.peers.remove(&node);
        }
        self.save(now.at + SAVE_SOON);
    }

    fn save(&mut self, at: Instant) {
        self.save_at = Some(self.save_at.map_or(at, |before| before.min(at)));
    }
}

/// How eagerly peers are dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Nobody is connected: also those that were dialled just now.
    Alone,
    /// Others are connected: those whose turn it is.
    Calm,
}

/// How long after a failure the next one counts, in milliseconds: an hour,
/// twice that, and so on up to a day.
fn retry_after(failures: u8) -> u64 {
    match failures {
        0 => 0,
        failures => 3_600_000 * (1u64 << (failures - 1).min(5)).min(24),
    }
}

/// Those addresses that are worth remembering: of this node alone and not of a
/// relay, without names, all of one way.
fn fit(addresses: &[Multiaddr]) -> Vec<Multiaddr> {
    let plain = |address: &&Multiaddr| {
        let scope = scope::of(address);
        scope != Scope::Nowhere && scope::may_tell(scope, address)
    };
    let mut fit: Vec<Multiaddr> = Vec::new();
    for address in addresses.iter().filter(plain) {
        let address = scope::without_peer(address.clone());
        let first = fit.first();
        let same_way = first.is_none_or(|first| Way::of(first) == Way::of(&address));
        let ip = |address: &Multiaddr| scope::ip_of(address).map(|ip| ip.to_canonical());
        // Else it would count in the block of one and be dialled in another.
        let same_ip =
            Way::of(&address) == Way::Near || first.is_none_or(|first| ip(first) == ip(&address));
        if same_way && same_ip && fit.len() < ADDRESSES_MAX && !fit.contains(&address) {
            fit.push(address);
        }
    }
    fit
}
