//! Whether the machine slept: a core without clock (spec/mesh §15).
//!
//! On Linux the steady clock stops while a machine is suspended and the wall
//! clock goes on; on Windows both go on, and a tick comes late.

use std::time::{Duration, Instant};

/// How often the clocks are compared: a node is back within seconds.
pub(crate) const TICK: Duration = Duration::from_secs(1);

/// A pause after which connections are not trusted any more. Routers forget UDP
/// after thirty seconds, peers give up after as many.
const SLEPT: Duration = Duration::from_secs(20);

/// Compares two clocks.
#[derive(Debug)]
pub(crate) struct Sleep {
    steady: Instant,
    wall_ms: u64,
}

impl Sleep {
    pub(crate) fn new(now: Instant, wall_ms: u64) -> Self {
        Self { steady: now, wall_ms }
    }

    /// Says whether the machine slept since the last tick. A clock that is set
    /// ahead looks the same, and costs one search for peers.
    pub(crate) fn tick(&mut self, now: Instant, wall_ms: u64) -> bool {
        let steady = now.saturating_duration_since(self.steady);
        let wall = Duration::from_millis(wall_ms.saturating_sub(self.wall_ms));
        (self.steady, self.wall_ms) = (now, wall_ms);
        // Work that keeps the task busy makes both late, but not by that much.
        wall.saturating_sub(steady) >= SLEPT || steady >= SLEPT + TICK * 10
    }

    /// When to tick next.
    pub(crate) fn next(&self) -> Instant {
        self.steady + TICK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_noticed_on_both_kinds_of_clock_and_small_steps_are_not() {
        let start = Instant::now();
        let mut sleep = Sleep::new(start, 1_000_000);
        for (steady, wall, slept) in [
            (1, 1, false),
            (2, 2, false),
            // Suspended for an hour, with a steady clock that stops.
            (3, 3603, true),
            (4, 3604, false),
            // With one that goes on.
            (3604, 7204, true),
            // The wall clock is set back, and a little ahead.
            (3605, 100, false),
            (3606, 106, false),
            // The task was busy.
            (3616, 116, false),
        ] {
            let now = start + Duration::from_secs(steady);
            let said = sleep.tick(now, 1_000_000 + wall * 1000);
            assert_eq!(said, slept, "{steady} {wall}");
        }
    }
}
