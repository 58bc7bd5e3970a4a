//! Who makes room for whom when the replica is full (spec/directory §3).
//!
//! Roots cost nothing and an address can be claimed by anybody, so neither
//! alone can be counted on. Rows are counted by the block of their first
//! address, rows that witnesses proved apart from those that nobody did: a
//! claim never pushes out a proof.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use homehost_protocol::limits::REPLICA_ROWS_MAX;
use homehost_protocol::{Scope, ServerId, ServerListing, UnixMillis};

use super::Refusal;
use super::rows::Slot;

/// Rows that nobody proved, of all: a quarter.
pub(super) const UNPROVED_MAX: usize = REPLICA_ROWS_MAX / 4;

/// Tombstones of servers that were never here: a sixteenth.
pub(super) const STRANGE_TOMBSTONES_MAX: usize = REPLICA_ROWS_MAX / 16;

/// Rows of one address and of one block that nobody proved.
const UNPROVED_PER_ADDRESS: usize = 16;
const UNPROVED_PER_BLOCK: usize = 32;

/// Rows of one address and of one block that were proved: what one device may
/// run, and four such devices.
const PROVED_PER_ADDRESS: usize = 64;
const PROVED_PER_BLOCK: usize = 256;

/// What one party plausibly controls: /24 of IPv4, /48 of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Block {
    V4([u8; 3]),
    V6([u8; 6]),
}

impl Block {
    fn of(ip: IpAddr) -> Option<Self> {
        // Loopback and on-link addresses are told by near peers only, and a LAN
        // party is one block.
        if Scope::of(ip) != Scope::Global {
            return None;
        }
        Some(match ip {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, ..] = ip.octets();
                Self::V6([a, b, c, d, e, f])
            }
        })
    }
}

/// Which address of its block: all that is kept of one beside the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    V4(u8),
    V6([u8; 10]),
}

impl Within {
    fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::V4(ip.octets()[3]),
            IpAddr::V6(ip) => {
                let [.., a, b, c, d, e, f, g, h, i, j] = ip.octets();
                Self::V6([a, b, c, d, e, f, g, h, i, j])
            }
        }
    }
}

/// Where a row counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) proved: bool,
    /// When its root was first seen.
    pub(super) root_seen: UnixMillis,
    pub(super) ip: Option<IpAddr>,
}

impl Place {
    pub(super) fn of(listing: &ServerListing, root_seen: UnixMillis, proved: bool) -> Self {
        let ip = listing.addresses.first().map(|address| address.socket.ip());
        Self { proved, root_seen, ip }
    }

    fn block(&self) -> Option<Block> {
        self.ip.and_then(Block::of)
    }
}

/// A row in order of age of its root, the youngest last; then by the first bytes
/// of its id, which stand for all of them. The date is big endian, which keeps
/// its order without room between the fields.
type Seat = ([u8; 8], [u8; 8], Slot);

fn seat(id: &ServerId, slot: Slot, place: &Place) -> Seat {
    let first = id.0.first_chunk().copied().unwrap_or_default();
    (place.root_seen.0.to_be_bytes(), first, slot)
}

const FIRST: Seat = ([0; 8], [0; 8], Slot::FIRST);
const LAST: Seat = ([u8::MAX; 8], [u8::MAX; 8], Slot::LAST);

/// Proved or unproved rows.
///
/// Nearly every honest block has one row, so nothing is set aside for a block.
#[derive(Debug, Default)]
struct Rows {
    seats: BTreeSet<Seat>,
    blocks: BTreeMap<(Block, Seat), Within>,
    /// How many rows a block has, if it has several.
    counts: BTreeMap<Block, u32>,
    /// Those blocks by the number of their rows.
    sizes: BTreeSet<(u32, Block)>,
}

impl Rows {
    fn add(&mut self, seat: Seat, place: &Place) {
        self.seats.insert(seat);
        if let (Some(block), Some(ip)) = (place.block(), place.ip) {
            let before = self.count(block);
            self.blocks.insert((block, seat), Within::of(ip));
            self.resize(block, before, before + 1);
        }
    }

    fn remove(&mut self, seat: Seat, place: &Place) {
        self.seats.remove(&seat);
        if let Some(block) = place.block() {
            let before = self.count(block);
            if self.blocks.remove(&(block, seat)).is_some() {
                self.resize(block, before, before - 1);
            }
        }
    }

    fn resize(&mut self, block: Block, before: u32, after: u32) {
        self.sizes.remove(&(before, block));
        if after > 1 {
            self.counts.insert(block, after);
            self.sizes.insert((after, block));
        } else {
            self.counts.remove(&block);
        }
    }

    fn count(&self, block: Block) -> u32 {
        let several = self.counts.get(&block).copied();
        several.unwrap_or_else(|| u32::from(self.of_block(block).next().is_some()))
    }

    /// The rows of a block, the youngest last.
    fn of_block(&self, block: Block) -> impl DoubleEndedIterator<Item = (&Seat, &Within)> {
        let rows = self.blocks.range((block, FIRST)..=(block, LAST));
        rows.map(|((_, seat), within)| (seat, within))
    }

    /// The youngest row of the block, of one address or of all, with how many
    /// there are.
    fn youngest_of(&self, block: Block, ip: Option<IpAddr>) -> (usize, Option<Seat>) {
        let within = ip.map(Within::of);
        let of = |(_, at): &(&Seat, &Within)| within.is_none_or(|within| **at == within);
        let count = match ip {
            Some(_) => self.of_block(block).filter(of).count(),
            None => self.count(block) as usize,
        };
        let youngest = self.of_block(block).rev().find(of).map(|(seat, _)| *seat);
        (count, youngest)
    }

    /// The youngest row of the most crowded block, if it is more crowded than
    /// `block` would be.
    fn of_crowd(&self, block: Option<Block>) -> Option<Slot> {
        let (count, crowded) = self.sizes.last().copied()?;
        let own = block.map_or(0, |block| self.count(block));
        (count > own + 1).then(|| self.youngest_of(crowded, None).1.map(slot_of))?
    }
}

fn seen_of((seen, ..): &Seat) -> UnixMillis {
    UnixMillis(u64::from_be_bytes(*seen))
}

fn slot_of((_, _, slot): Seat) -> Slot {
    slot
}

/// All rows but tombstones, by place.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    proved: Rows,
    unproved: Rows,
}

impl Crowd {
    fn rows(&mut self, proved: bool) -> &mut Rows {
        if proved { &mut self.proved } else { &mut self.unproved }
    }

    pub(super) fn add(&mut self, id: &ServerId, slot: Slot, place: &Place) {
        self.rows(place.proved).add(seat(id, slot, place), place);
    }

    pub(super) fn remove(&mut self, id: &ServerId, slot: Slot, place: &Place) {
        self.rows(place.proved).remove(seat(id, slot, place), place);
    }

    pub(super) fn proved(&self) -> usize {
        self.proved.seats.len()
    }

    /// Whether one more row of this block may count as proved.
    pub(super) fn has_room_for_proved(&self, place: &Place) -> bool {
        let most = (PROVED_PER_ADDRESS, PROVED_PER_BLOCK);
        self.check_block(&self.proved, place, most, None).is_ok()
    }

    /// Whether a new row may come in, and which rows make way for it.
    ///
    /// # Errors
    /// When nobody does.
    pub(super) fn make_way(&self, place: &Place) -> Result<Vec<Slot>, Refusal> {
        let mut evicted = Vec::new();
        if place.proved {
            self.check_block(&self.proved, place, (PROVED_PER_ADDRESS, PROVED_PER_BLOCK), None)?;
            if self.proved.seats.len() + self.unproved.seats.len() >= REPLICA_ROWS_MAX {
                let unproved = self.unproved.of_crowd(None);
                let youngest = || self.unproved.seats.last().copied().map(slot_of);
                let crowd = || self.proved.of_crowd(place.block());
                let way = unproved.or_else(youngest).or_else(crowd);
                evicted.push(way.ok_or(Refusal::Full)?);
            }
        } else {
            let most = (UNPROVED_PER_ADDRESS, UNPROVED_PER_BLOCK);
            let way = self.check_block(&self.unproved, place, most, Some(place.root_seen))?;
            evicted.extend(way);
            let total = self.proved.seats.len() + self.unproved.seats.len();
            let full = self.unproved.seats.len() >= UNPROVED_MAX || total >= REPLICA_ROWS_MAX;
            if full && evicted.is_empty() {
                let young =
                    self.unproved.seats.last().filter(|seat| seen_of(seat) > place.root_seen);
                let way = self.unproved.of_crowd(place.block());
                let way = way.or(young.copied().map(slot_of));
                evicted.push(way.ok_or(Refusal::Full)?);
            }
        }
        Ok(evicted)
    }

    /// Checks the share of an address and its block; a row of an older root takes
    /// the place of a younger one's.
    fn check_block(
        &self,
        rows: &Rows,
        place: &Place,
        (per_address, per_block): (usize, usize),
        root_seen: Option<UnixMillis>,
    ) -> Result<Option<Slot>, Refusal> {
        let Some(block) = place.block() else { return Ok(None) };
        for (ip, most) in [(place.ip, per_address), (None, per_block)] {
            let (count, youngest) = rows.youngest_of(block, ip);
            if count >= most {
                let younger =
                    youngest.filter(|seat| root_seen.is_some_and(|seen| seen_of(seat) > seen));
                return younger.map(|seat| Some(slot_of(seat))).ok_or(Refusal::PrefixQuota);
            }
        }
        Ok(None)
    }
}
