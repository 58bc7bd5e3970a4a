//! What peers are worth to us: a core without a clock (spec/mesh §3, §7).
//!
//! Two things count: whether what a peer says turns out true, and what it did
//! that no honest node does. The first moves its gossip score within bounds; of
//! the second a few in a row end the connection.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use libp2p::PeerId;

/// Most that truth and misdeeds together earn or cost in gossip. Below −10 a
/// peer gets no gossip; being silenced, at −80, takes more than our opinion.
pub(crate) const SCORE_MAX: f64 = 30.0;

/// What one misdeed costs.
const MISDEED_COST: f64 = 10.0;

/// Misdeeds after which a peer is left. One may be a fault of the disk, or of
/// a version between two releases.
pub(crate) const MISDEEDS_MAX: u32 = 4;

/// How long a misdeed is held against a peer that does no other: several
/// comparisons of replicas, which are ten minutes apart.
pub(crate) const FORGIVEN_AFTER: Duration = Duration::from_secs(3600);

/// Peers that are remembered, about 100 bytes each. Beyond it the one that was
/// heard of the longest ago is forgotten.
const REMEMBERED_MAX: usize = 1024;

/// The worth of a peer of which nothing is known.
const NEUTRAL: f64 = 0.5;

#[derive(Clone, Copy, Debug)]
struct Record {
    truth: f64,
    misdeeds: u32,
    last: Instant,
    touched: Instant,
}

/// What is known of peers, also after they have gone; bounded.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    of: HashMap<PeerId, Record>,
}

impl Standing {
    fn entry(&mut self, peer: PeerId, now: Instant) -> &mut Record {
        if self.of.len() >= REMEMBERED_MAX
            && !self.of.contains_key(&peer)
            && let Some(oldest) =
                self.of.iter().min_by_key(|(_, record)| record.touched).map(|(peer, _)| *peer)
        {
            self.of.remove(&oldest);
        }
        let new = Record { truth: NEUTRAL, misdeeds: 0, last: now, touched: now };
        let record = self.of.entry(peer).or_insert(new);
        record.touched = now;
        record
    }

    /// How often what this peer says turned out true, from 0 to 1.
    pub(crate) fn set_truth(&mut self, peer: PeerId, truth: f64, now: Instant) {
        // Not a number is no opinion.
        let truth = if truth.is_finite() { truth.clamp(0.0, 1.0) } else { NEUTRAL };
        self.entry(peer, now).truth = truth;
    }

    /// A peer did what no honest node does. Says whether to leave it.
    pub(crate) fn misdeed(&mut self, peer: PeerId, now: Instant) -> bool {
        let record = self.entry(peer, now);
        if now.saturating_duration_since(record.last) >= FORGIVEN_AFTER {
            record.misdeeds = 0;
        }
        record.misdeeds = record.misdeeds.saturating_add(1);
        record.last = now;
        record.misdeeds >= MISDEEDS_MAX
    }

    /// What a peer earns or loses in gossip.
    pub(crate) fn score(&self, peer: &PeerId, now: Instant) -> f64 {
        let Some(record) = self.of.get(peer) else { return 0.0 };
        let held = now.saturating_duration_since(record.last) < FORGIVEN_AFTER;
        let misdeeds = if held { f64::from(record.misdeeds) } else { 0.0 };
        let truth = (record.truth - NEUTRAL) * 2.0 * SCORE_MAX;
        (truth - MISDEED_COST * misdeeds).clamp(-SCORE_MAX, SCORE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeded_scores_stay_within_bounds_and_so_does_the_table() {
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut standing = Standing::default();
            let peers: Vec<_> = (0..1500).map(|_| PeerId::random()).collect();
            let mut now = Instant::now();
            for _ in 0..3000 {
                now += Duration::from_millis(random.u64(0..2000));
                let peer = peers[random.usize(0..peers.len())];
                if random.bool() {
                    standing.set_truth(peer, random.f64() * 4.0 - 2.0, now);
                } else {
                    standing.misdeed(peer, now);
                }
                let score = standing.score(&peer, now);
                assert!(score.abs() <= SCORE_MAX, "seed {seed}: {score}");
                assert!(standing.of.len() <= REMEMBERED_MAX, "seed {seed}");
            }
        }
    }

    #[test]
    fn truth_moves_the_score_both_ways_and_nonsense_does_not() {
        let (peer, now) = (PeerId::random(), Instant::now());
        let mut standing = Standing::default();
        let mut score = |truth| {
            standing.set_truth(peer, truth, now);
            standing.score(&peer, now)
        };
        assert_eq!([0.0, 0.5, 1.0].map(&mut score), [-30.0, 0.0, 30.0]);
        assert_eq!(score(f64::NAN), 0.0);
    }

    #[test]
    fn a_few_misdeeds_in_a_row_are_enough_and_old_ones_are_forgiven() {
        let (peer, start) = (PeerId::random(), Instant::now());
        let mut standing = Standing::default();
        for n in 1..MISDEEDS_MAX {
            assert!(!standing.misdeed(peer, start));
            assert_eq!(standing.score(&peer, start), -MISDEED_COST * f64::from(n));
        }
        let later = start + FORGIVEN_AFTER;
        assert_eq!(standing.score(&peer, later), 0.0);
        assert!(!standing.misdeed(peer, later), "they are forgiven");
        let leave = (0..MISDEEDS_MAX).map(|_| standing.misdeed(peer, later)).collect::<Vec<_>>();
        assert!(leave.contains(&true));
    }
}
