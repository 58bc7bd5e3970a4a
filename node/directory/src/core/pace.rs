//! How often something may happen: a bucket of tokens that fills with time.

use std::collections::BTreeMap;
use std::time::Duration;

/// How a bucket fills.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Tokens at first, and at most.
    pub(super) burst: u16,
    /// Time that one token takes.
    pub(super) every: Duration,
}

/// A bucket. It starts full.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    /// When it would have been empty: full is `burst × every` ago.
    empty_at: Duration,
}

impl Bucket {
    pub(super) fn full(pace: Pace, now: Duration) -> Self {
        Self { empty_at: now.saturating_sub(pace.every * u32::from(pace.burst)) }
    }

    /// Whether it holds no token.
    pub(super) fn is_empty(&self, pace: Pace, now: Duration) -> bool {
        self.empty_at + pace.every > now
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, pace: Pace, now: Duration) -> bool {
        if self.is_empty(pace, now) {
            return false;
        }
        let full = now.saturating_sub(pace.every * u32::from(pace.burst));
        self.empty_at = self.empty_at.max(full) + pace.every;
        true
    }

    /// Whether it is full again, so that it need not be remembered.
    pub(super) fn is_full(&self, pace: Pace, now: Duration) -> bool {
        self.empty_at + pace.every * u32::from(pace.burst) <= now
    }
}

/// A bucket for each of many, of which only those that are not full are kept.
#[derive(Debug)]
pub(super) struct Buckets<Id> {
    pace: Pace,
    most: usize,
    buckets: BTreeMap<Id, Bucket>,
}

impl<Id: Ord + Copy> Buckets<Id> {
    pub(super) fn new(pace: Pace, most: usize) -> Self {
        Self { pace, most, buckets: BTreeMap::new() }
    }

    pub(super) fn is_empty(&self, id: &Id, now: Duration) -> bool {
        self.buckets.get(id).is_some_and(|bucket| bucket.is_empty(self.pace, now))
    }

    /// Takes a token of one; false when it has none, or too many others are
    /// remembered.
    pub(super) fn take(&mut self, id: Id, now: Duration) -> bool {
        if !self.buckets.contains_key(&id) && self.buckets.len() >= self.most {
            let pace = self.pace;
            self.buckets.retain(|_, bucket| !bucket.is_full(pace, now));
            if self.buckets.len() >= self.most {
                return false;
            }
        }
        let bucket = self.buckets.entry(id).or_insert_with(|| Bucket::full(self.pace, now));
        bucket.take(self.pace, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_pace() {
        let pace = Pace { burst: 3, every: Duration::from_secs(10) };
        let at = |seconds: u64| Duration::from_secs(1000 + seconds);
        let mut bucket = Bucket::full(pace, at(0));
        assert_eq!((0..5).filter(|_| bucket.take(pace, at(0))).count(), 3);
        assert!(!bucket.take(pace, at(9)));
        assert!(bucket.take(pace, at(10)));
        assert!(!bucket.is_full(pace, at(39)));
        assert!(bucket.is_full(pace, at(40)));
        assert_eq!((0..5).filter(|_| bucket.take(pace, at(500))).count(), 3, "no more than full");
    }
}
