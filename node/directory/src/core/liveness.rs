//! When a host speaks, and when its silence makes a row stale (spec/mesh §5).

use std::time::Duration;

use super::row::{Row, RowStatus};
use super::{Directory, Moment};

/// Shortest presence interval: three of them are the 90 s within which a dead
/// host is stale everywhere.
const INTERVAL_MIN: Duration = Duration::from_secs(30);
/// Longest presence interval, for large networks.
const INTERVAL_MAX: Duration = Duration::from_secs(600);
/// Up to this many listings the interval stays at its shortest.
const SMALL_NETWORK: u32 = 128;
/// Missed intervals after which a row is stale.
const MISSED: u32 = 3;

/// The presence interval of a network: clamp(30 s × listings / 128, 30 s, 10 min).
pub fn presence_interval(listings: usize) -> Duration {
    let listings = u32::try_from(listings).unwrap_or(u32::MAX);
    (INTERVAL_MIN.saturating_mul(listings) / SMALL_NETWORK).clamp(INTERVAL_MIN, INTERVAL_MAX)
}

/// How long after it was last heard a row is stale.
pub fn stale_after(listings: usize) -> Duration {
    presence_interval(listings) * MISSED
}

impl Directory {
    pub(super) fn status_of(&self, row: &Row, now: Moment) -> (RowStatus, Option<Duration>) {
        let alive = row.last_alive();
        let status = if row.withdrawn {
            RowStatus::Withdrawn
        } else if alive.is_some_and(|at| now.mono < at + stale_after(self.live_listings)) {
            RowStatus::Live
        } else {
            RowStatus::Stale
        };
        (status, alive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_host_is_stale_within_90_s_while_the_network_is_small() {
        for listings in [0, 1, 128] {
            assert_eq!(stale_after(listings), Duration::from_secs(90));
        }
        assert_eq!(stale_after(256), Duration::from_secs(180));
        assert_eq!(stale_after(usize::MAX), Duration::from_secs(1800));
    }
}
