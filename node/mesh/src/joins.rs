//! How long it takes from a connection's first packet until we know who came: a
//! core without a clock.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Joins that the summary is of.
const REMEMBERED: usize = 1024;

/// How long the last joins took, at most a thousand of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JoinTimes {
    /// How many they are.
    pub count: usize,
    /// Half of them took no longer.
    pub p50: Duration,
    /// 99 in 100 of them took no longer.
    pub p99: Duration,
}

/// Measures joins; bounded by the limits of connections.
#[derive(Debug)]
pub(crate) struct Joins<Id> {
    arrivals: HashMap<Id, Instant>,
    took: VecDeque<Duration>,
}

impl<Id> Default for Joins<Id> {
    fn default() -> Self {
        Self { arrivals: HashMap::new(), took: VecDeque::new() }
    }
}

impl<Id: Copy + Eq + Hash> Joins<Id> {
    /// Somebody knocks.
    pub(crate) fn arrived(&mut self, id: Id, now: Instant) {
        self.arrivals.insert(id, now);
    }

    /// A connection came to nothing, or ended.
    pub(crate) fn left(&mut self, id: Id) {
        self.arrivals.remove(&id);
    }

    /// A peer said who it is. Says how long that took, the first time.
    pub(crate) fn joined(&mut self, id: Id, now: Instant) -> Option<Duration> {
        let took = now.saturating_duration_since(self.arrivals.remove(&id)?);
        if self.took.len() >= REMEMBERED {
            self.took.pop_front();
        }
        self.took.push_back(took);
        Some(took)
    }

    /// How long the last ones took.
    pub(crate) fn times(&self) -> JoinTimes {
        let mut sorted: Vec<_> = self.took.iter().copied().collect();
        sorted.sort_unstable();
        let at = |percent: usize| {
            let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
            sorted.get(index).copied().unwrap_or_default()
        };
        JoinTimes { count: sorted.len(), p50: at(50), p99: at(99) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_of_the_last_and_nothing_is_left_of_who_went() {
        let (mut joins, start) = (Joins::default(), Instant::now());
        assert_eq!(joins.times(), JoinTimes::default());
        joins.arrived(0, start);
        joins.left(0);
        assert_eq!(joins.joined(0, start), None);
        for id in 1..=3000_u64 {
            joins.arrived(id, start);
            let took = Duration::from_millis(if id <= 2000 { 60_000 } else { id - 2000 });
            assert_eq!(joins.joined(id, start + took), Some(took));
            assert_eq!(joins.joined(id, start + took), None, "it joined already");
        }
        assert!(joins.arrivals.is_empty());
        let times = joins.times();
        // The last 1,024: 24 slow ones and 1 to 1,000 ms.
        assert_eq!((times.count, times.p50), (REMEMBERED, Duration::from_millis(512)));
        assert_eq!(times.p99, Duration::from_secs(60));
    }
}
