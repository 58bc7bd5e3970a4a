//! The rows of a replica, found by server or by record.
//!
//! An id has 32 bytes, and many things refer to a row. Here ids stand in the
//! rows only; whatever refers to one holds its slot, which has four.

use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashTable;
use homehost_protocol::{RecId, ServerId};

use super::row::Row;

/// Where a row lies, as long as it is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot(u32);

impl Slot {
    /// Before and behind all others.
    pub(super) const FIRST: Self = Self(0);
    pub(super) const LAST: Self = Self(u32::MAX);
}

/// All rows.
#[derive(Debug, Default)]
pub(super) struct Rows {
    slots: Slots,
    by_id: HashTable<Slot>,
    by_record: HashTable<Slot>,
    /// Secret, so that nobody can choose ids that collide.
    secret: RandomState,
}

#[derive(Debug, Default)]
struct Slots {
    rows: Vec<Option<Box<Row>>>,
    free: Vec<Slot>,
}

impl Slots {
    fn get(&self, slot: Slot) -> Option<&Row> {
        self.rows.get(slot.0 as usize)?.as_deref()
    }

    fn is(&self, slot: Slot, is: impl FnOnce(&Row) -> bool) -> bool {
        self.get(slot).is_some_and(is)
    }
}

impl Rows {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn slot(&self, id: &ServerId) -> Option<Slot> {
        let hash = self.secret.hash_one(id);
        self.by_id.find(hash, |slot| self.slots.is(*slot, |row| row.id == *id)).copied()
    }

    pub(super) fn contains_key(&self, id: &ServerId) -> bool {
        self.slot(id).is_some()
    }

    pub(super) fn get(&self, id: &ServerId) -> Option<&Row> {
        self.at(self.slot(id)?)
    }

    pub(super) fn get_mut(&mut self, id: &ServerId) -> Option<&mut Row> {
        self.at_mut(self.slot(id)?)
    }

    /// The row in a slot.
    pub(super) fn at(&self, slot: Slot) -> Option<&Row> {
        self.slots.get(slot)
    }

    pub(super) fn at_mut(&mut self, slot: Slot) -> Option<&mut Row> {
        self.slots.rows.get_mut(slot.0 as usize)?.as_deref_mut()
    }

    /// The row whose record this is.
    pub(super) fn of_record(&self, id: &RecId) -> Option<&Row> {
        let hash = self.secret.hash_one(id);
        let slot = self.by_record.find(hash, |slot| self.slots.is(*slot, |r| r.rec_id == *id))?;
        self.at(*slot)
    }

    /// Puts in a row whose id has none.
    pub(super) fn insert(&mut self, row: Row) -> Slot {
        let Self { slots, by_id, by_record, secret } = self;
        let hashes = (secret.hash_one(row.id), secret.hash_one(row.rec_id));
        let slot = slots.free.pop().unwrap_or_else(|| {
            slots.rows.push(None);
            Slot(u32::try_from(slots.rows.len() - 1).expect("rows are bounded"))
        });
        slots.rows[slot.0 as usize] = Some(Box::new(row));
        by_id.insert_unique(hashes.0, slot, |slot| {
            slots.get(*slot).map_or(0, |row| secret.hash_one(row.id))
        });
        by_record.insert_unique(hashes.1, slot, |slot| {
            slots.get(*slot).map_or(0, |row| secret.hash_one(row.rec_id))
        });
        slot
    }

    /// Takes a row out.
    pub(super) fn remove(&mut self, id: &ServerId) -> Option<(Slot, Row)> {
        let slot = self.slot(id)?;
        let row = self.slots.rows.get_mut(slot.0 as usize)?.take()?;
        for (table, hash) in [
            (&mut self.by_id, self.secret.hash_one(row.id)),
            (&mut self.by_record, self.secret.hash_one(row.rec_id)),
        ] {
            if let Ok(entry) = table.find_entry(hash, |at| *at == slot) {
                entry.remove();
            }
        }
        self.slots.free.push(slot);
        Some((slot, *row))
    }

    /// All rows, in no order.
    pub(super) fn values(&self) -> impl Iterator<Item = &Row> {
        self.slots.rows.iter().flatten().map(|row| &**row)
    }
}
