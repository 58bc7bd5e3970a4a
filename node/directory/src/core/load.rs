//! What lies on disk, taken in at a start.
//!
//! It is judged like what comes from a peer: a disk may be damaged, and keys may
//! have ended since.

use std::time::Duration;

use homehost_protocol::limits::REPLICA_ROWS_MAX;
use homehost_protocol::validate::IgnoreReason;
use homehost_protocol::{NodeId, Record, Verdict, validate};

use super::admission::{DISK, LISTING_PACE};
use super::liveness::stale_after;
use super::pace::Bucket;
use super::reach::HeldReach;
use super::row::{self, Came, KeyKind, Row, Stored};
use super::{Directory, Moment};

/// How long rows of another network stay on disk for a node that may return.
const OTHER_NETWORK_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// What became of a row from disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// It is in.
    Row,
    /// It is sound, but not for here and now; it should stay on disk.
    Elsewhere,
    /// It holds no longer and should be removed from disk.
    Damaged,
}

impl Directory {
    /// Takes in what lies on disk. The keys of the store may come in any order.
    pub fn load_all(
        &mut self,
        mut stored: Vec<(Vec<u8>, Vec<u8>)>,
        now: Moment,
    ) -> Vec<(Vec<u8>, Loaded)> {
        stored.sort_by_cached_key(|(key, _)| row::kind_of_key(&self.network, key));
        stored
            .into_iter()
            .map(|(key, value)| {
                let loaded = self.load(&key, &value, now);
                (key, loaded)
            })
            .collect()
    }

    /// Takes in a record from disk; chains must come before what they sign.
    pub fn load(&mut self, key: &[u8], value: &[u8], now: Moment) -> Loaded {
        match row::kind_of_key(&self.network, key) {
            None => {
                // Another network's, where this node may return to.
                let Some(stored) = Stored::decode(value) else { return Loaded::Damaged };
                let old = now.wall.since(stored.seen) > OTHER_NETWORK_KEPT;
                if old { Loaded::Damaged } else { Loaded::Elsewhere }
            }
            Some(KeyKind::Listing) => self.load_row(key, value, now),
            Some(KeyKind::Witness) => self.load_witness(key, value, now),
            Some(KeyKind::Chain | KeyKind::Reach) => self.load_record(key, value, now),
        }
    }

    fn load_record(&mut self, key: &[u8], value: &[u8], now: Moment) -> Loaded {
        let Some(stored) = Stored::decode(value) else { return Loaded::Damaged };
        let validated = match validate(stored.envelope, &self.network, &self.chains, now.wall) {
            Verdict::Accept(validated) => *validated,
            Verdict::Ignore(IgnoreReason::Future) => return Loaded::Elsewhere,
            _ => return Loaded::Damaged,
        };
        let root = validated.header.root;
        let mut outputs = Vec::new();
        match validated.record.clone() {
            Record::KeyChain(body) if row::chain_key(&self.network, &root) == key => {
                let bytes = stored.envelope;
                match self.admit_chain(bytes, &validated, &body, DISK, now, &mut outputs) {
                    Ok(()) => Loaded::Row,
                    Err(_) => Loaded::Damaged,
                }
            }
            Record::ReachAttest(reach) => {
                let id = reach.id(&root);
                if row::reach_key(&self.network, &id) != key || !self.rows.contains_key(&id) {
                    return Loaded::Damaged;
                }
                self.hold_reach(
                    id,
                    HeldReach::new(stored.envelope, validated, &reach, None, now.mono),
                    now,
                );
                Loaded::Row
            }
            _ => Loaded::Damaged,
        }
    }

    fn load_row(&mut self, key: &[u8], value: &[u8], now: Moment) -> Loaded {
        let Some(stored) = Stored::decode(value) else { return Loaded::Damaged };
        let validated = match validate(stored.envelope, &self.network, &self.chains, now.wall) {
            Verdict::Accept(validated) => validated,
            // The clock may be wrong, and be set in a moment.
            Verdict::Ignore(IgnoreReason::Future) => return Loaded::Elsewhere,
            _ => return Loaded::Damaged,
        };
        let Record::ServerListing(listing) = validated.record else { return Loaded::Damaged };
        let id = listing.id(&validated.header.root);
        if row::key(&self.network, &id) != key {
            return Loaded::Damaged;
        }
        // A row whose host was silent is stale from the beginning.
        let silent = if stored.stale { stale_after(REPLICA_ROWS_MAX) } else { Duration::ZERO };
        let came = Came {
            first_seen: stored.first_seen,
            heard: None,
            seen: stored.seen,
            loaded: now.mono.saturating_sub(silent),
            retain_until: validated.header.expires(),
            stored_stale: stored.stale,
            pace: Bucket::full(LISTING_PACE, now.mono),
        };
        let named = (validated.id, &validated.header);
        self.put_row(Row::new(named, &listing, stored.envelope, came), &listing);
        Loaded::Row
    }

    /// Takes in a node that was met before the start.
    pub(super) fn load_witness(&mut self, key: &[u8], value: &[u8], now: Moment) -> Loaded {
        let (Some(stored), Some(node)) = (Stored::decode(value), key.last_chunk()) else {
            return Loaded::Damaged;
        };
        if self.witnesses.load(NodeId(*node), &stored, now) { Loaded::Row } else { Loaded::Damaged }
    }
}
