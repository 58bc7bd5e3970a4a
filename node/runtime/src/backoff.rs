//! Exponential backoff without a clock of its own.

use std::time::Duration;

/// Delays that double from `first` to `most`, until [`Backoff::reset`].
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// Begins at `first` and never exceeds `most`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, next: first }
    }

    /// The delay to wait now; the one after it is twice as long.
    ///
    /// `jitter` in 0..=1 stretches the delay by up to a quarter, so that many
    /// nodes that failed together do not come back together.
    pub fn next_delay(&mut self, jitter: f64) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).min(self.most);
        delay + delay.mul_f64(jitter.clamp(0.0, 1.0) / 4.0)
    }

    /// Begins anew, after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_most_and_begin_anew() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, second * 5);
        let delays: Vec<_> = (0..4).map(|_| backoff.next_delay(0.0).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 5]);
        backoff.reset();
        assert_eq!(backoff.next_delay(1.0), second.mul_f64(1.25));
    }
}
