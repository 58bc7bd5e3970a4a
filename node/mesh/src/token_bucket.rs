//! Token buckets, one for each peer, without a clock of their own.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How fast a bucket fills and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate {
    /// Tokens per second.
    pub(crate) per_second: f64,
    /// Tokens of a full bucket.
    pub(crate) burst: f64,
}

/// A budget that refills with time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenBucket {
    tokens: f64,
    at: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub(crate) fn full(rate: Rate, now: Instant) -> Self {
        Self { tokens: rate.burst, at: now }
    }

    fn level(&self, rate: Rate, now: Instant) -> f64 {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        (self.tokens + seconds * rate.per_second).min(rate.burst)
    }

    /// Takes one token, if there is a whole one.
    pub(crate) fn take(&mut self, rate: Rate, now: Instant) -> bool {
        self.reserve(rate, Duration::ZERO, now).is_some()
    }

    /// Takes one token that is there within `patience`, and says how long to
    /// wait for it.
    pub(crate) fn reserve(
        &mut self,
        rate: Rate,
        patience: Duration,
        now: Instant,
    ) -> Option<Duration> {
        let level = self.level(rate, now);
        self.at = self.at.max(now);
        self.tokens = level;
        let wait = Duration::from_secs_f64(((1.0 - level) / rate.per_second).max(0.0));
        (wait <= patience).then(|| {
            self.tokens = level - 1.0;
            wait
        })
    }
}

/// Budgets of many parties, bounded.
#[derive(Debug)]
pub(crate) struct Budgets<K> {
    rate: Rate,
    most: usize,
    buckets: HashMap<K, TokenBucket>,
}

impl<K: Copy + Eq + Hash> Budgets<K> {
    /// Remembers at most `most` parties.
    pub(crate) fn new(rate: Rate, most: usize) -> Self {
        Self { rate, most, buckets: HashMap::new() }
    }

    /// Takes one token of `key`'s budget, if there is one.
    ///
    /// When the table is full, budgets that have refilled are forgotten, which
    /// changes nothing for them; when all are in use, a newcomer is refused.
    pub(crate) fn take(&mut self, key: K, now: Instant) -> bool {
        let rate = self.rate;
        if self.buckets.len() >= self.most && !self.buckets.contains_key(&key) {
            self.buckets.retain(|_, bucket| bucket.level(rate, now) < rate.burst);
            if self.buckets.len() >= self.most {
                return false;
            }
        }
        self.buckets.entry(key).or_insert_with(|| TokenBucket::full(rate, now)).take(rate, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 2.0, burst: 16.0 };

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let start = Instant::now();
        let mut budgets = Budgets::new(RATE, 8);
        let granted = (0..100).filter(|_| budgets.take(1, start)).count();
        assert_eq!(granted, 16);
        let later = start + Duration::from_secs(3);
        assert_eq!((0..100).filter(|_| budgets.take(1, later)).count(), 6);
        assert!(budgets.take(2, start), "others have their own budget");
        let much_later = start + Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| budgets.take(1, much_later)).count(), 16);
    }

    #[test]
    fn who_is_patient_gets_a_place_in_the_queue() {
        let now = Instant::now();
        let mut bucket = TokenBucket::full(RATE, now);
        let patience = Duration::from_secs(2);
        let waits: Vec<_> = (0..30).map_while(|_| bucket.reserve(RATE, patience, now)).collect();
        assert_eq!(waits.len(), 16 + 4);
        assert!(waits[..16].iter().all(Duration::is_zero));
        assert_eq!(waits[19], patience);
        assert!(!bucket.take(RATE, now + patience), "they have been promised away");
        assert!(bucket.take(RATE, now + patience + Duration::from_millis(500)));
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing() {
        let start = Instant::now() + Duration::from_secs(100);
        let mut budgets = Budgets::new(RATE, 8);
        while budgets.take(1, start) {}
        assert!(!budgets.take(1, start.checked_sub(Duration::from_secs(50)).unwrap()));
        assert!(!budgets.take(1, start));
    }

    #[test]
    fn the_table_is_bounded_and_forgets_only_the_refilled() {
        let start = Instant::now();
        let mut budgets = Budgets::new(RATE, 4);
        for key in 0..4 {
            assert!(budgets.take(key, start));
        }
        assert!(!budgets.take(9, start), "all four are in use");
        assert!(budgets.take(9, start + Duration::from_secs(1)));
        assert!(budgets.buckets.len() <= 4);
    }

    #[test]
    fn seeded_cases_never_grant_more_than_the_rate() {
        for seed in 0..2000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let rate =
                Rate { per_second: 0.1 + random.f64() * 10.0, burst: 1.0 + random.f64() * 20.0 };
            let start = Instant::now();
            let (mut now, mut granted) = (start, 0_u32);
            let mut bucket = TokenBucket::full(rate, start);
            for _ in 0..200 {
                now += Duration::from_millis(random.u64(0..300));
                granted += u32::from(bucket.take(rate, now));
            }
            let most = rate.burst + (now - start).as_secs_f64() * rate.per_second;
            assert!(f64::from(granted) <= most + 1e-6, "seed {seed}: {granted} of {most}");
        }
    }
}
