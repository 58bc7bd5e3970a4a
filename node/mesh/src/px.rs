//! Peer exchange (spec/mesh §16): signed records of hosts, and the book of them
//! that a bootstrap node keeps.
//!
//! [`Book`] is a core without socket or clock. It holds in memory what hosts said
//! of themselves while they are connected and for a while after, and forgets it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use homehost_protocol::Scope;
use homehost_protocol::rpc::px::{PX_RECORD_BYTES_MAX, PX_RECORDS_MAX};
use libp2p::core::{PeerRecord, SignedEnvelope};
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId};

use crate::deny::DenyList;
use crate::diversity::AddressBlock;
use crate::scope;

/// Addresses in one record, as in the routing table.
pub(crate) const ADDRESSES_MAX: usize = 8;

/// Records in the book: those of all connected hosts and of as many that have
/// just gone, at most 6 MB.
const BOOK_MAX: usize = 4096;

/// How long a host is named after its connection ended: one that only found its
/// peers is as good as one that stayed.
const NAMED_FOR: Duration = Duration::from_secs(1800);

/// Records of one block of addresses in one answer: no block fills it.
const PER_BLOCK_MAX: usize = 2;

/// Records in one answer of hosts that are reached through a relay alone: where
/// they are is not known, and each costs the relay something.
const RELAYED_MAX: usize = PX_RECORDS_MAX / 2;

/// A record whose signature was verified.
#[derive(Clone, Debug)]
pub(crate) struct SignedPeer {
    pub(crate) peer: PeerId,
    pub(crate) addresses: Vec<Multiaddr>,
    seq: u64,
    envelope: Vec<u8>,
}

impl SignedPeer {
    /// Reads a record from outside; none if it is not signed by whom it is of, or
    /// names no address or too many.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > PX_RECORD_BYTES_MAX {
            return None;
        }
        let envelope = SignedEnvelope::from_protobuf_encoding(bytes).ok()?;
        let record = PeerRecord::from_signed_envelope_interop(envelope).ok()?;
        let addresses = record.addresses().to_vec();
        (1..=ADDRESSES_MAX).contains(&addresses.len()).then(|| Self {
            peer: record.peer_id(),
            addresses,
            seq: record.seq(),
            envelope: bytes.to_vec(),
        })
    }

    /// Whether all of it may be said to somebody that far away.
    fn is_for(&self, asker: Scope) -> bool {
        self.addresses.iter().all(|address| match (asker, reach_of(address)) {
            (_, Scope::Nowhere) | (Scope::Nowhere, _) => false,
            (Scope::Loopback, _) => true,
            (Scope::OnLink, at) => at != Scope::Loopback,
            (Scope::Global, at) => at == Scope::Global,
        })
    }
}

/// How far an address reaches; through a relay, as far as the relay does.
fn reach_of(address: &Multiaddr) -> Scope {
    match scope::relay_of(address) {
        Some((_, way)) => scope::of(&way),
        None => scope::of(address),
    }
}

/// Our own record with these addresses; none without any.
pub(crate) fn sign(keypair: &Keypair, addresses: Vec<Multiaddr>) -> Option<Vec<u8>> {
    if addresses.is_empty() {
        return None;
    }
    let record = PeerRecord::new_interop(keypair, addresses).ok()?;
    let bytes = record.into_signed_envelope().into_protobuf_encoding();
    (bytes.len() <= PX_RECORD_BYTES_MAX).then_some(bytes)
}

#[derive(Debug)]
struct Held {
    record: SignedPeer,
    /// When its last connection ended.
    gone: Option<Instant>,
}

/// Hosts that were connected lately, and said where they are.
#[derive(Debug, Default)]
pub(crate) struct Book {
    held: HashMap<PeerId, Held>,
}

impl Book {
    /// A connected host said where it is. Says whether that is kept: an older
    /// record than the one that is known is not.
    pub(crate) fn put(&mut self, record: SignedPeer, now: Instant) -> bool {
        match self.held.get(&record.peer) {
            Some(held) if held.record.seq > record.seq => return false,
            Some(_) => {}
            None => {
                if !self.make_room(now) {
                    return false;
                }
            }
        }
        self.held.insert(record.peer, Held { record, gone: None });
        true
    }

    /// The last connection to a peer ended.
    pub(crate) fn left(&mut self, peer: &PeerId, now: Instant) {
        if let Some(held) = self.held.get_mut(peer) {
            held.gone = Some(now);
        }
    }

    /// A peer is connected again.
    pub(crate) fn returned(&mut self, peer: &PeerId) {
        if let Some(held) = self.held.get_mut(peer) {
            held.gone = None;
        }
    }

    /// Forgets whom the operator keeps out.
    pub(crate) fn keep_out(&mut self, list: &DenyList) {
        self.held.retain(|peer, held| {
            !list.denies_peer(peer)
                && !held.record.addresses.iter().any(|address| list.denies_address(address))
        });
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// Forgets who has been gone for too long; of the others the one that left
    /// first, if there is no room otherwise.
    fn make_room(&mut self, now: Instant) -> bool {
        if self.held.len() < BOOK_MAX {
            return true;
        }
        self.held.retain(|_, held| is_named(held, now));
        if self.held.len() >= BOOK_MAX {
            let first = self.held.iter().filter_map(|(peer, held)| Some((held.gone?, *peer))).min();
            let Some((_, peer)) = first else { return false };
            self.held.remove(&peer);
        }
        true
    }

    /// Some records for an asker that far away, of as many blocks of addresses as
    /// can be, those who are connected first.
    pub(crate) fn choose(
        &self,
        asker: (PeerId, Scope),
        now: Instant,
        random: &mut fastrand::Rng,
    ) -> Vec<Vec<u8>> {
        let fits = |held: &&Held| {
            is_named(held, now) && held.record.peer != asker.0 && held.record.is_for(asker.1)
        };
        let mut candidates: Vec<_> = self.held.values().filter(fits).collect();
        // The order of the map says nothing, and must decide nothing.
        candidates.sort_unstable_by_key(|held| held.record.peer);
        random.shuffle(&mut candidates);
        candidates.sort_by_key(|held| held.gone.is_some());
        let mut blocks: HashMap<AddressBlock, usize> = HashMap::new();
        let (mut chosen, mut relayed) = (Vec::new(), 0);
        for held in candidates {
            let ips = held.record.addresses.iter().filter_map(scope::ip_of);
            let mut of: Vec<_> = ips.filter_map(AddressBlock::of).collect();
            of.sort_unstable();
            of.dedup();
            let share = |block| blocks.get(block).copied().unwrap_or_default();
            if of.iter().any(|block| share(block) >= PER_BLOCK_MAX) {
                continue;
            }
            if held.record.addresses.iter().all(scope::is_relayed) {
                if relayed >= RELAYED_MAX {
                    continue;
                }
                relayed += 1;
            }
            for block in of {
                *blocks.entry(block).or_default() += 1;
            }
            chosen.push(held.record.envelope.clone());
            if chosen.len() == PX_RECORDS_MAX {
                break;
            }
        }
        chosen
    }
}

fn is_named(held: &Held, now: Instant) -> bool {
    held.gone.is_none_or(|gone| now.saturating_duration_since(gone) < NAMED_FOR)
}

#[cfg(test)]
mod tests;
