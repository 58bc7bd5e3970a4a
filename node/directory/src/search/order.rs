//! Which row comes before which (spec/directory §4).

use std::cmp::Reverse;

use homehost_protocol::ServerId;

use super::Sort;
use crate::core::{Found, STANDING_PROVED};

/// Place of a row in a result; what comes first is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key<'a> {
    /// A flood of liars stays behind honest rows whatever it says of itself.
    pub(super) standing: Reverse<u8>,
    /// What is sorted by.
    pub(super) value: Reverse<u64>,
    pub(super) name: Name<'a>,
    pub(super) id: ServerId,
}

impl<'a> Key<'a> {
    pub(super) fn of(row: &Found<'a>, sort: Sort) -> Self {
        let value = match sort {
            Sort::Players => players(row.players, row.standing == STANDING_PROVED),
            Sort::Name => 0,
            Sort::New => row.first_seen.0,
            Sort::Proved => row.witnesses.into(),
        };
        Self {
            standing: Reverse(row.standing),
            value: Reverse(value),
            name: Name(row.name),
            id: row.id,
        }
    }
}

/// A name as its bytes. They are looked at when two rows are equal otherwise,
/// which saves most rows of a search a look into memory far away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name<'a>(pub(super) &'a [u8]);

impl<'a> Name<'a> {
    pub(super) fn as_str(self) -> &'a str {
        std::str::from_utf8(self.0).unwrap_or_default()
    }
}

/// From how many players on a row that nobody proved gains nothing by more.
const UNPROVED_PLAYERS_MAX: u16 = 8;

/// What a count is worth; an unknown one is worth less than an empty server.
///
/// A count that nobody checked costs nothing to make up. It is worth its power
/// of two only, and no more than eight: enough to tell a lively server from an
/// empty one, and nothing to be won by saying more than others.
fn players(count: Option<u16>, proved: bool) -> u64 {
    match count {
        None => 0,
        Some(count) if proved => 1 + u64::from(count),
        Some(0) => 1,
        Some(count) => 2 + u64::from(count.min(UNPROVED_PLAYERS_MAX).ilog2()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_gains_nothing_beyond_eight_players() {
        let claimed = [None, Some(0), Some(1), Some(2), Some(3), Some(4), Some(7), Some(8)];
        let worth = claimed.map(|count| players(count, false));
        assert_eq!(worth, [0, 1, 2, 3, 3, 4, 4, 5]);
        assert_eq!(players(Some(u16::MAX), false), 5);
        assert_eq!(players(Some(u16::MAX), true), 65_536);
        assert!(players(Some(0), true) > players(None, true));
    }
}
