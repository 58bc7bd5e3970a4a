//! How much of what peers asked for may wait until they read it: a core without
//! socket or clock (spec/mesh §7).
//!
//! One pool is shared by all. A peer may have a quarter of what is left of it:
//! one alone gets a whole burst, and the more do not read, the less each of them
//! gets. Who has not one whole answer unread is served also when the pool is
//! empty, so that those who do not read take nothing from those who do.

use std::collections::HashMap;
use std::hash::Hash;

use homehost_protocol::limits::RPC_RESPONSE_BYTES_MAX;
use libp2p::PeerId;

/// The pool, in bytes: 128 of the longest answers.
const POOL_BYTES: usize = 128 * RPC_RESPONSE_BYTES_MAX;

/// What there may be in all, with those that are served beyond the pool: one
/// answer for each of more peers than a host has, and of the many clients of a
/// bootstrap node.
const ALL_BYTES_MAX: usize = 2 * POOL_BYTES;

/// Requests that are being answered, and answers that are being written;
/// bounded by what [`Unread::begin`] lets in.
#[derive(Debug)]
pub(crate) struct Unread<Id> {
    open: HashMap<Id, PeerId>,
    of: HashMap<PeerId, usize>,
}

impl<Id> Default for Unread<Id> {
    fn default() -> Self {
        Self { open: HashMap::new(), of: HashMap::new() }
    }
}

impl<Id: Copy + Eq + Hash> Unread<Id> {
    /// Whether a request of a peer may be answered; it is being answered then,
    /// until [`Unread::end`]. What waits on the peer's connections, and on all,
    /// was written and has not left.
    pub(crate) fn begin(
        &mut self,
        id: Id,
        peer: PeerId,
        (waits, all_wait): (usize, usize),
    ) -> bool {
        let being = self.of.get(&peer).copied().unwrap_or_default();
        // An answer is as long as one may be until it is written.
        let own = being * RPC_RESPONSE_BYTES_MAX + waits;
        let all = self.open.len() * RPC_RESPONSE_BYTES_MAX + all_wait;
        let share = (POOL_BYTES.saturating_sub(all) / 4).max(RPC_RESPONSE_BYTES_MAX);
        let may = own < share && all < ALL_BYTES_MAX;
        if may && self.open.insert(id, peer).is_none() {
            *self.of.entry(peer).or_default() += 1;
        }
        may
    }

    /// A request was answered, or came to nothing.
    pub(crate) fn end(&mut self, id: &Id) {
        let Some(peer) = self.open.remove(id) else { return };
        if let Some(count) = self.of.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.of.remove(&peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks until it is refused, or so often.
    fn ask(unread: &mut Unread<(usize, usize)>, peer: (usize, PeerId), most: usize) -> usize {
        let wait = |n: &usize| unread.begin((peer.0, *n), peer.1, (0, 0));
        (0..most).take_while(wait).count()
    }

    #[test]
    fn one_peer_gets_a_whole_burst_and_many_get_less() {
        let mut unread = Unread::default();
        assert_eq!(ask(&mut unread, (0, PeerId::random()), 16), 16);
        // 64 peers, as many as a host lets in, each as greedy as it can be.
        let all: usize = (1..64).map(|n| ask(&mut unread, (n, PeerId::random()), 100)).sum();
        assert!(all < 128 + 63, "{all}");
        // And there is one for who comes after them all.
        assert_eq!(ask(&mut unread, (64, PeerId::random()), 100), 1);
    }

    #[test]
    fn what_is_written_and_has_not_left_counts() {
        let mut unread = Unread::default();
        let peer = PeerId::random();
        assert!(unread.begin(1, peer, (0, 0)));
        unread.end(&1);
        unread.end(&1);
        let share = POOL_BYTES / 4;
        assert!(!unread.begin(2, peer, (share, share)));
        assert!(unread.begin(2, PeerId::random(), (0, share)), "others read");
        assert!(unread.begin(3, PeerId::random(), (0, POOL_BYTES * 3 / 2)));
        assert!(!unread.begin(4, PeerId::random(), (0, ALL_BYTES_MAX)), "there is an end");
        unread.end(&2);
        unread.end(&3);
        assert!(unread.open.is_empty() && unread.of.is_empty());
    }
}
