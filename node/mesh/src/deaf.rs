//! Peers that keep a replica and do not tell which topics they take: a core
//! without clock or socket (spec/mesh §3).
//!
//! A node that was carried to another network has forgotten its peers when it
//! comes back, and they may not have noticed that it was gone. Gossipsub tells
//! its topics with the first of several connections only, so such a peer hears
//! us and we never hear of its topics. To be left and dialled anew mends that.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libp2p::PeerId;

/// How long a peer may take at first: topics come with its first message, a round
/// trip or two after it has joined.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// How often in a row a peer is dialled anew. Whoever takes no gossip at all is
/// left in peace after that.
const TRIES_MAX: u8 = 3;

/// Peers that are remembered.
const PEERS_MAX: usize = 256;

#[derive(Debug)]
struct Peer {
    /// When it is too late; none while it is not connected.
    due: Option<Instant>,
    tries: u8,
}

/// Whom nothing was heard from.
#[derive(Debug, Default)]
pub(crate) struct Deaf {
    peers: BTreeMap<PeerId, Peer>,
}

impl Deaf {
    /// A peer that keeps a replica has joined, over a connection that we made.
    pub(crate) fn joined(&mut self, peer: PeerId, now: Instant) {
        if self.peers.len() >= PEERS_MAX {
            self.peers.retain(|_, peer| peer.due.is_some());
        }
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&peer) {
            return;
        }
        let known = self.peers.entry(peer).or_insert(Peer { due: None, tries: 0 });
        // The pauses grow: it may not have noticed yet that we were gone.
        known.due = (known.tries < TRIES_MAX).then(|| now + PATIENCE * (1 << known.tries));
    }

    /// It has told its topics.
    pub(crate) fn told(&mut self, peer: &PeerId) {
        self.peers.remove(peer);
    }

    /// It is not connected any more.
    pub(crate) fn left(&mut self, peer: &PeerId) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.due = None;
        }
    }

    /// Whom to leave and dial anew.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<PeerId> {
        let late = self.peers.iter_mut().filter(|(_, of)| of.due.is_some_and(|due| due <= now));
        late.map(|(peer, of)| {
            of.due = None;
            of.tries += 1;
            *peer
        })
        .collect()
    }

    /// When [`Self::due`] wants to be asked next.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.peers.values().filter_map(|peer| peer.due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_tells_nothing_is_dialled_anew_ever_later_and_not_for_ever() {
        let (peer, mut now) = (PeerId::random(), Instant::now());
        let mut deaf = Deaf::default();
        let mut pauses = Vec::new();
        for _ in 0..6 {
            deaf.joined(peer, now);
            assert_eq!(deaf.due(now), []);
            let Some(next) = deaf.next() else { break };
            pauses.push(next - now);
            now = next;
            assert_eq!(deaf.due(now), [peer]);
            assert_eq!((deaf.due(now), deaf.next()), (vec![], None), "once");
        }
        assert_eq!(pauses, [1, 2, 4].map(|times| PATIENCE * times));
        deaf.told(&peer);
        deaf.joined(peer, now);
        assert_eq!(deaf.next(), Some(now + PATIENCE), "it begins anew");
    }

    #[test]
    fn whoever_tells_or_leaves_is_not_waited_for_and_many_are_forgotten() {
        let now = Instant::now();
        let mut deaf = Deaf::default();
        for n in 0..2_000 {
            let peer = PeerId::random();
            deaf.joined(peer, now);
            match n % 3 {
                0 => deaf.told(&peer),
                1 => deaf.left(&peer),
                _ => {}
            }
            assert!(deaf.peers.len() <= PEERS_MAX);
        }
        let late = deaf.due(now + PATIENCE);
        assert!(!late.is_empty() && late.len() <= PEERS_MAX);
        assert_eq!(deaf.next(), None);
    }
}
