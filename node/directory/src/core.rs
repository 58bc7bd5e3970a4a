//! The rules of the directory, without clock, socket or disk.
//!
//! Everything comes in through [`Directory::admit`]; what it wants done comes
//! out as [`Output`]s. Time is passed in as a [`Moment`].

mod admission;
mod answers;
mod chains;
mod crowd;
mod keys;
mod liveness;
mod load;
mod pace;
mod pen;
mod reach;
mod row;
mod rows;
mod texts;
mod witnesses;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use homehost_protocol::{NetworkName, NodeId, RecId, RootId, ServerId, UnixMillis};

pub use admission::{Admission, Judgement, Refusal, Source};
use chains::ChainBook;
pub(crate) use chains::key_state;
use crowd::Crowd;
pub use liveness::{presence_interval, stale_after};
pub use load::Loaded;
use pace::Buckets;
use pen::Pen;
use reach::HeldReach;
pub use reach::RowReach;
use row::{HostPresence, Row, Stored};
pub use row::{RowStatus, RowView};
use rows::{Rows, Slot};
pub(crate) use texts::{Said, Texts};
use witnesses::Witnesses;
pub use witnesses::{Net, net_of};

/// Now, on both clocks: the wall clock for what records say, the monotonic one
/// for how long ago something was heard.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Wall clock.
    pub wall: UnixMillis,
    /// Monotonic clock, as time since an origin that lies at least
    /// [`MONO_ORIGIN`] before the start: what a peer heard before we started
    /// must have a place, and an `Instant` cannot go back past the boot.
    pub mono: Duration,
}

impl Moment {
    /// The same moment, later; for tests and timers.
    pub fn plus(self, span: Duration) -> Self {
        Self { wall: self.wall.plus(span), mono: self.mono + span }
    }
}

/// How far back a [`Moment`] can reach: longer than any record lives.
pub const MONO_ORIGIN: Duration = Duration::from_secs(48 * 3600);

/// What the core wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Keep a row on disk.
    Store {
        /// Key in the replica.
        key: Vec<u8>,
        /// Value in the replica.
        value: Vec<u8>,
    },
    /// Remove a row from disk.
    Forget {
        /// Key in the replica.
        key: Vec<u8>,
    },
    /// A row is new, changed, or gone.
    Changed(ServerId),
    /// A server that was not known, told by others.
    Learned(ServerId),
    /// A host said that it runs servers whose listings are not here: ask whoever
    /// passed that on.
    Fetch(Vec<ServerId>),
    /// A record waits for the key chain of this root: ask whoever passed it on.
    FetchChain(RootId),
    /// The keys of a root are others now, or contradict each other.
    Keys(RootId),
}

/// How often rows are looked at for having fallen silent, so that the note on
/// disk is not much older than that.
const LOOK: Duration = Duration::from_secs(10);

/// Reach records up to which they are counted anew as soon as a witness is met.
const RECOUNT_AT_ONCE_MAX: usize = 1024;

/// How long a root must be known for its rows to stand above those of strangers.
const KNOWN_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Standing of rows that witnesses proved, the highest.
pub(crate) const STANDING_PROVED: u8 = 3;

/// A row that a search has found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'a> {
    pub(crate) id: ServerId,
    /// Name in lower case.
    pub(crate) name: &'a [u8],
    pub(crate) status: RowStatus,
    pub(crate) players: Option<u16>,
    pub(crate) first_seen: UnixMillis,
    pub(crate) standing: u8,
    /// Witnesses whose word counts here.
    pub(crate) witnesses: u8,
}

/// Device of a root.
type Device = (RootId, u8);

/// A record that is held and no row's, by what it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    Reach(ServerId),
    Presence(Device),
    /// The standing chain of a root, or its rival.
    Chain(RootId, u8),
}

/// The rows of one root.
#[derive(Debug)]
struct RootRows {
    /// Mostly one.
    slots: Box<[Slot]>,
    /// When the first of them was seen here.
    first_seen: UnixMillis,
}

impl RootRows {
    fn new(first_seen: UnixMillis) -> Self {
        Self { slots: Box::default(), first_seen }
    }

    /// Adds a row; returns those that were here and are of an older root now.
    fn add(&mut self, slot: Slot, first_seen: UnixMillis) -> Vec<Slot> {
        let older = first_seen < self.first_seen;
        let before = if older { self.slots.to_vec() } else { Vec::new() };
        self.first_seen = first_seen.min(self.first_seen);
        self.slots = self.slots.iter().copied().chain([slot]).collect();
        before
    }

    fn remove(&mut self, slot: Slot) {
        self.slots = self.slots.iter().copied().filter(|at| *at != slot).collect();
    }
}

/// The replica and its rules.
#[derive(Debug)]
pub struct Directory {
    network: NetworkName,
    rows: Rows,
    roots: BTreeMap<RootId, RootRows>,
    chains: ChainBook,
    reach: BTreeMap<ServerId, HeldReach>,
    /// Reach records whose listing is not here yet, and when they came.
    strays: BTreeMap<ServerId, (Duration, HeldReach)>,
    /// Every record that is held but those of rows, by its id.
    ids: HashMap<RecId, Held>,
    /// Records that were turned down, until when they are not asked for again.
    unwanted: HashMap<RecId, Duration>,
    pen: Pen,
    crowd: Crowd,
    witnesses: Witnesses,
    /// New roots that peers have brought by gossip.
    senders: Buckets<NodeId>,
    /// What each says of a row stands in the row, too.
    presences: HashMap<Device, HostPresence>,
    /// The same devices in order, so that those of a root can be counted.
    devices: BTreeSet<Device>,
    /// Devices whose presence came before any of their listings, oldest first.
    strangers: VecDeque<Device>,
    /// When rows are next looked at for having fallen silent.
    next_look: Duration,
    /// Whether a witness was met since the last count.
    recount_due: bool,
    /// Whether it only reads one answer: then there are no quotas.
    is_reading: bool,
    refused: BTreeMap<&'static str, u64>,
    admitted: u64,
    /// Rows that are no tombstones.
    live_listings: usize,
    /// Tombstones of servers that were never here.
    strange_tombstones: usize,
}

/// Figures for metrics and for `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Rows that are offers.
    pub listings: usize,
    /// Rows that are tombstones.
    pub tombstones: usize,
    /// Rows that witnesses proved.
    pub proved: usize,
    /// Hosts whose presence is known.
    pub hosts: usize,
    /// Key chains.
    pub chains: usize,
    /// Roots whose key chains contradict each other.
    pub conflicts: usize,
    /// Records that wait for a key chain.
    pub penned: usize,
    /// Records taken in since the start.
    pub admitted: u64,
    /// Records not taken in since the start, by reason.
    pub refused: BTreeMap<&'static str, u64>,
}

impl Directory {
    /// An empty directory of a network.
    pub fn new(network: NetworkName) -> Self {
        Self {
            network,
            rows: Rows::default(),
            roots: BTreeMap::new(),
            chains: ChainBook::default(),
            reach: BTreeMap::new(),
            strays: BTreeMap::new(),
            ids: HashMap::new(),
            unwanted: HashMap::new(),
            pen: Pen::default(),
            crowd: Crowd::default(),
            witnesses: Witnesses::default(),
            senders: admission::senders(),
            presences: HashMap::new(),
            devices: BTreeSet::new(),
            strangers: VecDeque::new(),
            next_look: Duration::ZERO,
            recount_due: false,
            is_reading: false,
            refused: BTreeMap::new(),
            admitted: 0,
            live_listings: 0,
            strange_tombstones: 0,
        }
    }

    /// An empty directory that takes in one answer and is dropped: whoever asks
    /// one node wants all that it says and that holds.
    pub fn of_one_answer(network: NetworkName) -> Self {
        Self { is_reading: true, ..Self::new(network) }
    }

    /// Figures of now.
    pub fn stats(&self) -> Stats {
        Stats {
            listings: self.live_listings,
            tombstones: self.rows.len() - self.live_listings,
            proved: self.crowd.proved(),
            hosts: self.presences.len(),
            chains: self.chains.len(),
            conflicts: self.chains.conflicts(),
            penned: self.pen.len(),
            admitted: self.admitted,
            refused: self.refused.clone(),
        }
    }

    /// How often a host speaks of its servers in a directory of this size.
    pub fn presence_interval(&self) -> Duration {
        presence_interval(self.live_listings)
    }

    /// Removes what is over: expired rows, tombstones that nothing can outlive
    /// any more, presence nobody refers to.
    pub fn tick(&mut self, now: Moment) -> Vec<Output> {
        let mut outputs = Vec::new();
        let over = self.rows.values().filter(|row| row.retain_until <= now.wall);
        let mut over: Vec<ServerId> = over.map(|row| row.id).collect();
        over.sort_unstable();
        for id in over {
            self.forget_row(&id, &mut outputs);
        }
        self.pen.tick(now);
        self.forget_strays(now);
        let mut silent = Vec::new();
        self.presences.retain(|device, presence| {
            let keep = presence.heard + homehost_protocol::limits::PRESENCE_TTL_MAX > now.mono;
            if !keep {
                self.ids.remove(&presence.rec_id);
                self.devices.remove(device);
                silent.push(*device);
            }
            keep
        });
        for device in silent {
            self.spread_presence(&device);
        }
        let look = now.mono >= self.next_look;
        if look {
            self.next_look = now.mono + LOOK;
            self.look(now, &mut outputs);
        }
        // In a small replica nobody waits for a proof to count.
        if look || (self.recount_due && self.reach.len() <= RECOUNT_AT_ONCE_MAX) {
            self.recount(now, &mut outputs);
        }
        outputs
    }

    /// What is looked at every few seconds.
    fn look(&mut self, now: Moment, outputs: &mut Vec<Output>) {
        self.note_silence(now, outputs);
        let forgotten = self.witnesses.tick(now.mono).into_iter();
        let forget = |node| Output::Forget { key: row::witness_key(&self.network, &node) };
        outputs.extend(forgotten.map(forget));
        self.unwanted.retain(|_, until| *until > now.mono);
        let over = self.reach.iter().filter(|(_, held)| held.header.expires() <= now.wall);
        for id in over.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.drop_reach(&id, outputs);
            self.set_proved(id, false);
            outputs.push(Output::Changed(id));
        }
        self.trim_chains(now, outputs);
    }

    /// Notes on disk which hosts have fallen silent, or speak again: after a
    /// restart a dead row must not look alive.
    fn note_silence(&mut self, now: Moment, outputs: &mut Vec<Output>) {
        let mut changed: Vec<(ServerId, bool)> = self
            .rows
            .values()
            .filter(|row| row.heard().is_some())
            .map(|row| (row, self.status_of(row, now).0 == RowStatus::Stale))
            .filter(|(row, stale)| row.stored_stale != *stale)
            .map(|(row, stale)| (row.id, stale))
            .collect();
        changed.sort_unstable();
        for (id, stale) in changed {
            let Some(view) = self.view(&id, now) else { continue };
            let Some(row) = self.rows.get_mut(&id) else { continue };
            row.stored_stale = stale;
            let stored = Stored {
                first_seen: row.first_seen,
                seen: view.seen,
                stale,
                envelope: &row.envelope,
            };
            let key = row::key(&self.network, &id);
            outputs.push(Output::Store { key, value: stored.encode() });
            outputs.push(Output::Changed(id));
        }
    }

    /// One row as a reader sees it.
    pub fn view(&self, id: &ServerId, now: Moment) -> Option<RowView> {
        self.rows.get(id).map(|row| self.view_of(id, row, now))
    }

    /// The rows whose flags and words are wanted, with what they are sorted by;
    /// witnesses are counted only if they are asked for.
    pub(crate) fn find(
        &self,
        now: Moment,
        (on_link, witnesses): (bool, bool),
        wanted: impl Fn(u32, &Said<'_>) -> bool,
    ) -> impl Iterator<Item = Found<'_>> {
        let wanted = move |row: &&Row| {
            (on_link || self.is_for_everyone(row)) && wanted(row.flags, &row.said())
        };
        self.rows.values().filter(wanted).map(move |row| {
            let status = self.status_of(row, now).0;
            let players = row.presence.and_then(|presence| presence.players);
            let proved = row.place.as_ref().is_some_and(|place| place.proved);
            let witnesses = witnesses && proved;
            Found {
                id: row.id,
                name: row.said().lower_name(),
                status,
                players: players.filter(|_| status == RowStatus::Live),
                first_seen: row.first_seen,
                standing: self.standing_of(row, now),
                witnesses: if witnesses { self.reach_of(row, now.wall).proved } else { 0 },
            }
        })
    }

    /// Drops a row and all that is about it, here and on disk.
    fn forget_row(&mut self, id: &ServerId, outputs: &mut Vec<Output>) {
        self.drop_reach(id, outputs);
        self.drop_row(id);
        outputs.push(Output::Forget { key: row::key(&self.network, id) });
        outputs.push(Output::Changed(*id));
    }

    fn drop_row(&mut self, id: &ServerId) -> Option<Row> {
        let (slot, row) = self.rows.remove(id)?;
        self.live_listings -= usize::from(!row.withdrawn);
        self.strange_tombstones -= usize::from(row.is_strange());
        if let Some(place) = &row.place {
            self.crowd.remove(id, slot, place);
        }
        if let Some(rows) = self.roots.get_mut(&row.header.root) {
            rows.remove(slot);
            if rows.slots.is_empty() {
                self.roots.remove(&row.header.root);
            }
        }
        Some(row)
    }

    /// The class in which a row stands before anything else is looked at
    /// (spec/directory §4): proved rows, then those of roots known for a day,
    /// then all others; last those whose root contradicts itself.
    fn standing_of(&self, row: &Row, now: Moment) -> u8 {
        if self.chains.is_in_conflict(&row.header.root) {
            return 0;
        }
        let proved = row.place.as_ref().is_some_and(|place| place.proved);
        if proved {
            return STANDING_PROVED;
        }
        let known = now.wall.since(row.root_seen) >= KNOWN_AFTER;
        1 + u8::from(known)
    }

    /// Whether a row may travel to nodes anywhere.
    fn is_for_everyone(&self, row: &Row) -> bool {
        !row.lan && (!self.network.is_main() || row.global)
    }
}

#[cfg(test)]
mod tests;
