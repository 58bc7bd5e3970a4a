//! When a node compares replicas, and with whom (spec/directory §5).
//!
//! After joining, with two peers; then every ten minutes with one at random and
//! with the one whose word proved truest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use homehost_protocol::NodeId;

/// Peers that are compared with after every join: one could be a liar.
const PER_JOIN: usize = 2;

/// How often a node compares with others, and by how much that varies.
const EVERY: Duration = Duration::from_secs(600);
const JITTER: f64 = 0.2;

/// How soon the same peer is compared with once more, when there is no other.
const REST: Duration = Duration::from_secs(3);

/// Whether a comparison came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Both replicas were compared whole.
    Done,
    /// It broke off.
    Failed,
}

/// The comparisons that are due and those that are under way.
#[derive(Debug)]
pub struct Plan {
    random: fastrand::Rng,
    /// Comparisons still owed since the last join.
    owed: usize,
    /// When the next regular ones are due.
    next: Instant,
    under_way: BTreeSet<NodeId>,
    /// When a peer may be compared with once more.
    rested: Instant,
    /// Who was compared with since the last join, so that the next is another.
    done: BTreeSet<NodeId>,
}

impl Plan {
    /// Of a node that has just started; `seed` spreads nodes over time and peers.
    pub fn new(seed: u64, now: Instant) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        Self {
            owed: PER_JOIN,
            next: now + pause(&mut random),
            rested: now,
            under_way: BTreeSet::new(),
            done: BTreeSet::new(),
            random,
        }
    }

    /// Peers are here again after there were none, or after a gap.
    pub fn joined(&mut self) {
        self.owed = PER_JOIN;
        self.done.clear();
    }

    /// Whether a peer is being compared with, and will tell all it has.
    pub fn is_under_way(&self, node: &NodeId) -> bool {
        self.under_way.contains(node)
    }

    /// With whom to compare from now on, each until [`Plan::ended`]. `holders`
    /// are the connected peers that keep a replica; `best` is the truest.
    pub fn due<T>(
        &mut self,
        holders: &BTreeMap<NodeId, T>,
        best: Option<NodeId>,
        now: Instant,
    ) -> Vec<NodeId> {
        if now >= self.next && !holders.is_empty() {
            self.next = now + pause(&mut self.random);
            self.done.clear();
            let any = self.random.choice(holders.keys()).copied();
            let chosen: BTreeSet<NodeId> = any.into_iter().chain(best).collect();
            return chosen.into_iter().filter(|node| self.under_way.insert(*node)).collect();
        }
        let mut chosen = Vec::new();
        while self.owed > self.under_way.len() {
            let free = || holders.keys().filter(|node| !self.under_way.contains(*node));
            let others: Vec<_> = free().filter(|node| !self.done.contains(*node)).collect();
            // With nobody else to ask, the same peer may know more by now.
            let again: Vec<_> = free().filter(|_| self.rested <= now).collect();
            let node = self.random.choice(others).or_else(|| self.random.choice(again)).copied();
            let Some(node) = node else { break };
            self.under_way.insert(node);
            chosen.push(node);
        }
        chosen
    }

    /// A comparison has ended.
    pub fn ended(&mut self, node: NodeId, how: Ended, now: Instant) {
        self.under_way.remove(&node);
        self.done.insert(node);
        self.rested = now + REST;
        if how == Ended::Done {
            self.owed = self.owed.saturating_sub(1);
        }
    }
}

fn pause(random: &mut fastrand::Rng) -> Duration {
    EVERY.mul_f64(1.0 - JITTER + 2.0 * JITTER * random.f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holders(count: u8) -> BTreeMap<NodeId, ()> {
        (1..=count).map(|n| (NodeId([n; 32]), ())).collect()
    }

    #[test]
    fn after_a_join_two_different_peers_are_compared_with() {
        for seed in 0..100 {
            let now = Instant::now();
            let mut plan = Plan::new(seed, now);
            assert_eq!(plan.due(&holders(0), None, now), []);
            let first = plan.due(&holders(1), None, now);
            assert_eq!(first.len(), 1, "seed {seed}");
            assert!(plan.is_under_way(&first[0]));
            plan.ended(first[0], Ended::Done, now);
            let second = plan.due(&holders(5), None, now);
            assert!(second.len() == 1 && second != first, "seed {seed}: {second:?}");
            plan.ended(second[0], Ended::Done, now);
            assert_eq!(plan.due(&holders(5), None, now), [], "seed {seed}");
            plan.joined();
            assert_eq!(plan.due(&holders(5), None, now).len(), 2, "seed {seed}");
        }
    }

    #[test]
    fn a_failed_comparison_is_made_up_for_and_the_only_peer_is_given_a_rest() {
        let now = Instant::now();
        let mut plan = Plan::new(1, now);
        let only = plan.due(&holders(1), None, now)[0];
        plan.ended(only, Ended::Failed, now);
        assert_eq!(plan.due(&holders(1), None, now), []);
        assert_eq!(plan.due(&holders(1), None, now + REST), [only]);
        plan.ended(only, Ended::Done, now + REST);
        assert_eq!(plan.due(&holders(1), None, now + 2 * REST), [only], "one is still owed");
    }

    #[test]
    fn seeded_hours_keep_the_pace_and_never_ask_a_peer_twice_at_once() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let start = Instant::now();
            let mut plan = Plan::new(seed, start);
            let best = Some(NodeId([1; 32]));
            let (mut now, mut open, mut regular) = (start, BTreeSet::new(), Vec::new());
            while now < start + Duration::from_secs(6 * 3600) {
                now += Duration::from_secs(5);
                let holders = holders(random.u8(1..9));
                let next = plan.next;
                let chosen = plan.due(&holders, best, now);
                if plan.next != next {
                    assert!(best.is_some_and(|best| plan.is_under_way(&best)), "seed {seed}");
                    regular.push(now);
                }
                for node in chosen {
                    assert!(open.insert(node), "seed {seed}: twice at once");
                }
                let ended: Vec<_> = open.iter().copied().filter(|_| random.bool()).collect();
                for node in ended {
                    let how = if random.u8(0..10) == 0 { Ended::Failed } else { Ended::Done };
                    open.remove(&node);
                    plan.ended(node, how, now);
                }
            }
            let gaps = regular.windows(2).map(|pair| pair[1] - pair[0]);
            let longest = gaps.max().unwrap_or(Duration::MAX);
            assert!(longest <= Duration::from_secs(725), "seed {seed}: {longest:?}");
            assert!(regular.len() <= 45, "seed {seed}: {}", regular.len());
        }
    }
}
