//! Whose word counts that a server was reached (spec/directory §3).
//!
//! Anyone can make any number of node keys. A witness counts when this node met
//! it itself, one for each block of addresses, or when it has been heard of for
//! a day; and each for a bounded number of rows.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use homehost_protocol::limits::AHEAD_MAX;
use homehost_protocol::{NodeId, Scope};

use super::Moment;
use super::row::Stored;

/// Witnesses that are remembered without having been met.
const KNOWN_MAX: usize = 16_384;

/// Witnesses that are remembered because they were met: a day's connections of
/// a node that many come to.
const MET_MAX: usize = 4096;

/// How long after it was last met a node still counts as met.
const MET_FOR: Duration = Duration::from_secs(24 * 3600);

/// How long a witness must have been heard of to count without being met.
const OLD_AFTER: Duration = Duration::from_secs(24 * 3600);

/// How long after it was last heard of a witness is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(48 * 3600);

/// How often it is noted on disk that a node was met: what a restart may make
/// it older by.
const NOTED_EVERY: Duration = Duration::from_secs(3600);

/// How often when its address is another each time.
const MOVED_EVERY: Duration = Duration::from_secs(60);

/// Rows for which one witness counts: what an honest one can look at within the
/// life of its word, and a bound on what a liar with an address is worth.
pub(super) const ROWS_PER_WITNESS: u16 = 512;

/// The network of a global address, of which one witness counts: /16 of IPv4,
/// /32 of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Net {
    /// The first two bytes.
    V4([u8; 2]),
    /// The first four bytes.
    V6([u8; 4]),
}

/// The network of an address; none for those that are near, of which each
/// counts for itself.
pub fn net_of(ip: IpAddr) -> Option<Net> {
    if Scope::of(ip) != Scope::Global {
        return None;
    }
    Some(match ip {
        IpAddr::V4(ip) => {
            let [a, b, _, _] = ip.octets();
            Net::V4([a, b])
        }
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.octets();
            Net::V6([a, b, c, d])
        }
    })
}

impl Net {
    /// The bytes on disk; of no network, none.
    fn bytes(net: Option<&Self>) -> &[u8] {
        match net {
            None => &[],
            Some(Self::V4(bytes)) => bytes,
            Some(Self::V6(bytes)) => bytes,
        }
    }

    /// Reads them; the outer `None` is for bytes that are none of these.
    fn read(bytes: &[u8]) -> Option<Option<Self>> {
        match *bytes {
            [] => Some(None),
            [a, b] => Some(Some(Self::V4([a, b]))),
            [a, b, c, d] => Some(Some(Self::V6([a, b, c, d]))),
            _ => None,
        }
    }
}

/// What is to be done on disk after a node was met.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Noted {
    /// What to keep of it, if that is due.
    pub(super) keep: Option<Vec<u8>>,
    /// Who has made way for it.
    pub(super) forget: Option<NodeId>,
}

#[derive(Debug)]
struct Known {
    first_heard: Duration,
    last_heard: Duration,
    met: Option<Duration>,
    /// When it was last noted on disk that it was met.
    noted: Option<Duration>,
    /// None for a near node, which counts by itself.
    net: Option<Net>,
    rows: u16,
}

/// The nodes that may be witnesses.
#[derive(Debug, Default)]
pub(super) struct Witnesses {
    known: HashMap<NodeId, Known>,
    /// How many of them were met.
    met: usize,
}

impl Witnesses {
    /// This node is connected to that one.
    pub(super) fn met(&mut self, node: NodeId, ip: Option<IpAddr>, now: Moment) -> Noted {
        let mut noted = Noted { keep: None, forget: self.make_way(&node) };
        let known = self.entry(node, now.mono);
        let is_first = known.met.replace(now.mono).is_none();
        let net = ip.and_then(net_of);
        let every = if known.net == net { NOTED_EVERY } else { MOVED_EVERY };
        let is_due = known.noted.is_none_or(|at| at + every <= now.mono);
        known.net = net;
        if is_due {
            known.noted = Some(now.mono);
            let first = now.mono.saturating_sub(known.first_heard);
            let first_seen = now.wall.minus(first);
            let envelope = Net::bytes(known.net.as_ref());
            let stored = Stored { first_seen, seen: now.wall, stale: false, envelope };
            noted.keep = Some(stored.encode());
        }
        self.met += usize::from(is_first);
        noted
    }

    /// Takes in what was noted of a node that was met before the start.
    /// Whether it still matters.
    pub(super) fn load(&mut self, node: NodeId, stored: &Stored<'_>, now: Moment) -> bool {
        let Some(net) = Net::read(stored.envelope) else { return false };
        // A clock that was ahead would have it met for as long as it was ahead.
        if stored.seen > now.wall.plus(AHEAD_MAX) {
            return false;
        }
        let at = |wall| now.mono.saturating_sub(now.wall.since(wall));
        let met = at(stored.seen);
        if met + FORGET_AFTER <= now.mono || self.met >= MET_MAX {
            return false;
        }
        let first_heard = at(stored.first_seen).min(met);
        let known =
            Known { first_heard, last_heard: met, met: Some(met), noted: Some(met), net, rows: 0 };
        self.met += 1;
        self.known.insert(node, known).is_none()
    }

    /// Of those met, who makes way for one more: the one met the longest ago of
    /// the network that most of them are of. Ids cost nothing and addresses do,
    /// so that a crowd only crowds out its own.
    fn make_way(&mut self, node: &NodeId) -> Option<NodeId> {
        let is_met = self.known.get(node).is_some_and(|known| known.met.is_some());
        if is_met || self.met < MET_MAX {
            return None;
        }
        let met = || self.known.iter().filter_map(|(id, known)| Some((known.net, known.met?, *id)));
        let mut sizes = BTreeMap::<Option<Net>, usize>::new();
        for (net, ..) in met() {
            *sizes.entry(net).or_default() += 1;
        }
        let (crowded, _) = sizes.into_iter().max_by_key(|(_, size)| *size)?;
        let oldest = met().filter(|(net, ..)| *net == crowded).map(|(_, at, id)| (at, id)).min();
        let (_, oldest) = oldest?;
        self.known.remove(&oldest);
        self.met -= 1;
        Some(oldest)
    }

    /// A record names this witness.
    pub(super) fn heard(&mut self, node: NodeId, now: Duration) {
        if self.known.len() < KNOWN_MAX || self.known.contains_key(&node) {
            self.entry(node, now).last_heard = now;
        }
    }

    fn entry(&mut self, node: NodeId, now: Duration) -> &mut Known {
        let new =
            Known { first_heard: now, last_heard: now, met: None, noted: None, net: None, rows: 0 };
        self.known.entry(node).or_insert(new)
    }

    /// Forgets who has not been heard of for long; returns those of them that
    /// are noted on disk.
    pub(super) fn tick(&mut self, now: Duration) -> Vec<NodeId> {
        let mut noted = Vec::new();
        let count = &mut self.met;
        self.known.retain(|node, known| {
            let last = known.last_heard.max(known.met.unwrap_or_default());
            let keep = last + FORGET_AFTER > now;
            if !keep && known.met.is_some() {
                *count -= 1;
                noted.push(*node);
            }
            keep
        });
        noted.sort_unstable();
        noted
    }

    /// Begins to count anew for how many rows each is used.
    pub(super) fn recount(&mut self) {
        self.known.values_mut().for_each(|known| known.rows = 0);
    }

    /// How many of these count for one row.
    pub(super) fn credible(
        &mut self,
        nodes: impl IntoIterator<Item = NodeId>,
        now: Duration,
    ) -> u8 {
        let mut count = 0_u8;
        let mut nets = Vec::new();
        for node in nodes {
            let Some(known) = self.known.get_mut(&node) else { continue };
            let met = known.met.is_some_and(|at| at + MET_FOR > now);
            let old = known.first_heard + OLD_AFTER <= now;
            let distinct = known.net.is_none_or(|net| !nets.contains(&net));
            if (met || old) && distinct && known.rows < ROWS_PER_WITNESS {
                known.rows += 1;
                nets.extend(known.net);
                count += 1;
            }
        }
        count
    }
}
