//! Which connections are too many: a core without clock or socket (spec/mesh §15).
//!
//! A home router has little room; what peers need of us and we of them fits in
//! forty connections.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p::PeerId;

/// Connections that an idle host keeps.
pub(crate) const IDLE_MAX: usize = 40;
/// How often it is looked at.
pub(crate) const EVERY: Duration = Duration::from_secs(60);
/// Peers of one bucket of the routing table that are kept before others are.
const PER_BUCKET: usize = 2;
/// Younger ones are left alone: they may be about to become neighbours.
const YOUNG: Duration = Duration::from_secs(90);

/// A connected peer, as far as it matters here.
#[derive(Clone, Debug)]
pub(crate) struct Connected {
    /// Who.
    pub(crate) peer: PeerId,
    /// Connections to it.
    pub(crate) links: usize,
    /// A neighbour in gossip, a relay of ours, or one that was asked to stay.
    pub(crate) needed: bool,
    /// Its bucket in the routing table, when it is in there.
    pub(crate) bucket: Option<u32>,
    /// How long it has been connected.
    pub(crate) age: Duration,
    /// Whether we dialled it: who crowds in cannot displace those.
    pub(crate) outgoing: bool,
    /// Whether it is here through a relay only.
    pub(crate) relayed: bool,
}

/// Whom to leave, so that `most` connections remain at most; fewer when those
/// that must stay are more.
pub(crate) fn surplus(connected: &[Connected], most: usize) -> Vec<PeerId> {
    let total: usize = connected.iter().map(|peer| peer.links).sum();
    let mut over = total.saturating_sub(most);
    if over == 0 {
        return Vec::new();
    }
    // The oldest of each bucket are what keeps the table diverse.
    let mut by_age: Vec<_> = connected.iter().filter(|peer| !peer.relayed).collect();
    by_age.sort_by_key(|peer| (std::cmp::Reverse(peer.age), peer.peer));
    let mut of_bucket: BTreeMap<u32, usize> = BTreeMap::new();
    let mut diverse = std::collections::BTreeSet::new();
    for peer in by_age {
        if let Some(bucket) = peer.bucket {
            let count = of_bucket.entry(bucket).or_default();
            *count += 1;
            if *count <= PER_BUCKET {
                diverse.insert(peer.peer);
            }
        }
    }
    let mut may_go: Vec<_> =
        connected.iter().filter(|peer| !peer.needed && peer.age >= YOUNG).collect();
    // Least worth first; among equals the youngest.
    may_go.sort_by_key(|peer| {
        let kept = diverse.contains(&peer.peer);
        (!peer.relayed, kept, peer.bucket.is_some(), peer.outgoing, peer.age, peer.peer)
    });
    let mut leave = Vec::new();
    for peer in may_go {
        if over == 0 {
            break;
        }
        over = over.saturating_sub(peer.links);
        leave.push(peer.peer);
    }
    leave
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected(random: &mut fastrand::Rng) -> Connected {
        Connected {
            peer: PeerId::random(),
            links: if random.u8(0..8) == 0 { 2 } else { 1 },
            needed: random.u8(0..6) == 0,
            bucket: random.bool().then(|| random.u32(240..256)),
            age: Duration::from_secs(random.u64(0..4000)),
            outgoing: random.bool(),
            relayed: random.u8(0..8) == 0,
        }
    }

    #[test]
    fn seeded_crowds_are_cut_down_and_the_needed_ones_stay() {
        for seed in 0..300 {
            let mut random = fastrand::Rng::with_seed(seed);
            let peers: Vec<_> = (0..random.usize(0..96)).map(|_| connected(&mut random)).collect();
            let leave = surplus(&peers, IDLE_MAX);
            let gone = |peer: &&Connected| leave.contains(&peer.peer);
            let total: usize = peers.iter().map(|p| p.links).sum();
            let left: usize = peers.iter().filter(|p| !gone(p)).map(|p| p.links).sum();
            assert!(peers.iter().filter(gone).all(|p| !p.needed && p.age >= YOUNG), "seed {seed}");
            let fixed = peers.iter().filter(|p| p.needed || p.age < YOUNG);
            let fixed: usize = fixed.map(|p| p.links).sum();
            assert!(left <= IDLE_MAX.max(fixed), "seed {seed}: {left}");
            assert!(total > IDLE_MAX || leave.is_empty(), "seed {seed}");
            assert!(leave.is_empty() || left + 2 > IDLE_MAX, "seed {seed}: not more than needed");
        }
    }

    #[test]
    fn relayed_ones_go_first_and_who_crowds_in_displaces_nobody_that_we_chose() {
        let mut random = fastrand::Rng::with_seed(1);
        let of = |random: &mut fastrand::Rng, outgoing, relayed| Connected {
            links: 1,
            needed: false,
            bucket: None,
            age: YOUNG * 2,
            outgoing,
            relayed,
            ..connected(random)
        };
        let chosen: Vec<_> = (0..20).map(|_| of(&mut random, true, false)).collect();
        let relayed: Vec<_> = (0..5).map(|_| of(&mut random, true, true)).collect();
        let crowd: Vec<_> = (0..30).map(|_| of(&mut random, false, false)).collect();
        let all = [chosen.clone(), relayed.clone(), crowd].concat();
        let leave = surplus(&all, IDLE_MAX);
        assert_eq!(leave.len(), 15);
        assert!(relayed.iter().all(|peer| leave.contains(&peer.peer)));
        assert!(!chosen.iter().any(|peer| leave.contains(&peer.peer)));
    }
}
