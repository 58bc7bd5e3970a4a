//! Records that wait for their root's key chain (spec/directory §2).
//!
//! They are neither passed on nor held against whoever brought them, and make
//! way for one another: nobody can make a node keep much for a root that does
//! not exist.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use homehost_protocol::RootId;

use super::{Moment, Source};

/// Records that wait in all: 4 MB of the longest.
const PENNED_MAX: usize = 512;

/// Records that wait for one root: what one batch of a host's servers holds.
const PENNED_PER_ROOT_MAX: usize = 16;

/// How long a record waits; the chain is asked for at once, and again when the
/// record comes again.
const PENNED_FOR: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Penned {
    root: RootId,
    since: Duration,
    pub(super) source: Source,
    pub(super) bytes: Vec<u8>,
}

/// The records that wait, oldest first.
#[derive(Debug, Default)]
pub(super) struct Pen {
    penned: VecDeque<Penned>,
    per_root: BTreeMap<RootId, usize>,
}

impl Pen {
    /// Lets a record wait.
    pub(super) fn add(&mut self, root: RootId, bytes: &[u8], source: Source, now: Moment) {
        if self.penned.iter().any(|penned| penned.bytes == bytes) {
            return;
        }
        if self.per_root.get(&root).is_some_and(|count| *count >= PENNED_PER_ROOT_MAX) {
            self.drop_where(|penned| penned.root == root);
        } else if self.penned.len() >= PENNED_MAX {
            self.drop_where(|_| true);
        }
        *self.per_root.entry(root).or_default() += 1;
        self.penned.push_back(Penned { root, since: now.mono, source, bytes: bytes.to_vec() });
    }

    /// Drops the oldest record of those.
    fn drop_where(&mut self, which: impl Fn(&Penned) -> bool) {
        if let Some(at) = self.penned.iter().position(which)
            && let Some(penned) = self.penned.remove(at)
        {
            self.forget(&penned.root);
        }
    }

    fn forget(&mut self, root: &RootId) {
        if let Some(count) = self.per_root.get_mut(root) {
            *count -= 1;
            if *count == 0 {
                self.per_root.remove(root);
            }
        }
    }

    /// Lets out what waited for a root.
    pub(super) fn release(&mut self, root: &RootId) -> Vec<Penned> {
        if self.per_root.remove(root).is_none() {
            return Vec::new();
        }
        let (out, rest): (Vec<_>, Vec<_>) =
            self.penned.drain(..).partition(|penned| penned.root == *root);
        self.penned = rest.into();
        out
    }

    /// Drops what has waited long enough.
    pub(super) fn tick(&mut self, now: Moment) {
        while self.penned.front().is_some_and(|first| first.since + PENNED_FOR <= now.mono) {
            self.drop_where(|_| true);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.penned.len()
    }
}
