//! The rules of the directory, without clock, socket or disk.
//!
//! Everything comes in through [`Directory::admit`]; what it wants done comes
//! out as [`Output`]s. Time is passed in as a [`Moment`].

mod admission;
mod liveness;
mod row;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use homehost_protocol::rpc::{HeldRecord, Response};
use homehost_protocol::{NetworkName, RootId, ServerId, ServerListing, UnixMillis};

pub use admission::{Admission, Judgement, Loaded, Refusal, Source};
pub use liveness::{presence_interval, stale_after};
use row::{HostPresence, Row, Stored};
pub use row::{RowStatus, RowView};

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
    /// A host said that it runs servers whose listings are not here: ask whoever
    /// passed that on.
    Fetch(Vec<ServerId>),
}

/// How often rows are looked at for having fallen silent, so that the note on
/// disk is not much older than that.
const LOOK: Duration = Duration::from_secs(10);

/// A row that a search has found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'a> {
    pub(crate) id: ServerId,
    /// In lower case.
    pub(crate) name: &'a str,
    pub(crate) status: RowStatus,
    pub(crate) players: Option<u16>,
    pub(crate) first_seen: UnixMillis,
}

/// Device of a root.
type Device = (RootId, u8);

/// The replica and its rules.
#[derive(Debug)]
pub struct Directory {
    network: NetworkName,
    rows: BTreeMap<ServerId, Row>,
    of_root: BTreeMap<RootId, BTreeSet<ServerId>>,
    /// Looked up for every row of a search; its order never shows.
    presences: HashMap<Device, HostPresence>,
    /// Devices whose presence came before any of their listings, oldest first.
    strangers: VecDeque<Device>,
    /// When rows are next looked at for having fallen silent.
    next_look: Duration,
    refused: BTreeMap<&'static str, u64>,
    admitted: u64,
    /// Rows that are no tombstones.
    live_listings: usize,
}

/// Figures for metrics and for `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Rows that are offers.
    pub listings: usize,
    /// Rows that are tombstones.
    pub tombstones: usize,
    /// Hosts whose presence is known.
    pub hosts: usize,
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
            rows: BTreeMap::new(),
            of_root: BTreeMap::new(),
            presences: HashMap::new(),
            strangers: VecDeque::new(),
            next_look: Duration::ZERO,
            refused: BTreeMap::new(),
            admitted: 0,
            live_listings: 0,
        }
    }

    /// Figures of now.
    pub fn stats(&self) -> Stats {
        Stats {
            listings: self.live_listings,
            tombstones: self.rows.len() - self.live_listings,
            hosts: self.presences.len(),
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
        let over: Vec<ServerId> = self
            .rows
            .iter()
            .filter(|(_, row)| row.retain_until <= now.wall)
            .map(|(id, _)| *id)
            .collect();
        let mut outputs = Vec::new();
        for id in over {
            outputs.push(Output::Forget { key: row::key(&self.network, &id) });
            outputs.push(Output::Changed(id));
            self.drop_row(&id);
        }
        self.presences.retain(|_, presence| {
            presence.heard + homehost_protocol::limits::PRESENCE_TTL_MAX > now.mono
        });
        if now.mono >= self.next_look {
            self.next_look = now.mono + LOOK;
            self.note_silence(now, &mut outputs);
        }
        outputs
    }

    /// Notes on disk which hosts have fallen silent, or speak again: after a
    /// restart a dead row must not look alive.
    fn note_silence(&mut self, now: Moment, outputs: &mut Vec<Output>) {
        let changed: Vec<(ServerId, bool)> = self
            .rows
            .values()
            .filter(|row| row.heard.is_some())
            .map(|row| (row, self.status_of(row, now).0 == RowStatus::Stale))
            .filter(|(row, stale)| row.stored_stale != *stale)
            .map(|(row, stale)| (row.id, stale))
            .collect();
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

    /// The rows whose listing and search text are wanted, with what they are
    /// sorted by.
    pub(crate) fn find(
        &self,
        now: Moment,
        wanted: impl Fn(&ServerListing, &str) -> bool,
    ) -> impl Iterator<Item = Found<'_>> {
        let rows = self.rows.values().filter(move |row| wanted(&row.listing, &row.text));
        rows.map(move |row| {
            let status = self.status_of(row, now).0;
            let presence = self.presences.get(&(row.header.root, row.header.dev));
            let players = presence
                .filter(|_| status == RowStatus::Live)
                .and_then(|presence| presence.of(&row.id))
                .and_then(|server| server.players);
            Found { id: row.id, name: row.name(), status, players, first_seen: row.first_seen }
        })
    }

    /// The rows after `after`, as many as fit one response, with the presence
    /// of their hosts. Rows that only an on-link peer may have are left out for
    /// others.
    pub fn page(&self, after: Option<ServerId>, on_link: bool, now: Moment) -> Response {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let mut page = Page::new(on_link);
        for (id, row) in self.rows.range((from, Unbounded)) {
            if !page.take(self, row, now) {
                page.response.cursor = page.last.map(|id| id.0.to_vec());
                break;
            }
            page.last = Some(*id);
        }
        page.response
    }

    /// The rows of `ids`, with the presence of their hosts.
    pub fn get(&self, ids: &[ServerId], on_link: bool, now: Moment) -> Response {
        let mut page = Page::new(on_link);
        for row in ids.iter().filter_map(|id| self.rows.get(id)) {
            page.take(self, row, now);
        }
        page.response
    }

    fn drop_row(&mut self, id: &ServerId) {
        let Some(row) = self.rows.remove(id) else { return };
        self.live_listings -= usize::from(!row.listing.is_withdrawn());
        if let Some(ids) = self.of_root.get_mut(&row.header.root) {
            ids.remove(id);
            if ids.is_empty() {
                self.of_root.remove(&row.header.root);
            }
        }
    }

    fn is_for_everyone(&self, row: &Row) -> bool {
        admission::scope_fits_everyone(&self.network, &row.listing)
    }
}

/// A response being filled.
struct Page {
    response: Response,
    bytes: usize,
    on_link: bool,
    hosts: BTreeSet<Device>,
    last: Option<ServerId>,
}

impl Page {
    fn new(on_link: bool) -> Self {
        Self {
            response: Response::default(),
            bytes: 0,
            on_link,
            hosts: BTreeSet::new(),
            last: None,
        }
    }

    /// Adds a row and its host's presence; false when they do not fit.
    fn take(&mut self, directory: &Directory, row: &Row, now: Moment) -> bool {
        if !self.on_link && !directory.is_for_everyone(row) {
            return true;
        }
        let held = |envelope: &[u8], heard: Option<Duration>| HeldRecord {
            envelope: envelope.to_vec(),
            age_s: heard.map(|heard| {
                let age = now.mono.saturating_sub(heard);
                age.as_secs().try_into().unwrap_or(u32::MAX)
            }),
        };
        let device = (row.header.root, row.header.dev);
        let mut records = Vec::with_capacity(2);
        // The listing goes first: a presence of unknown servers asks for them.
        records.push(held(&row.envelope, row.heard));
        if !self.hosts.contains(&device)
            && let Some(presence) = directory.presences.get(&device)
        {
            records.push(held(&presence.envelope, Some(presence.heard)));
        }
        let bytes: usize = records.iter().map(HeldRecord::wire_bytes).sum();
        if self.bytes + bytes > Response::RECORDS_BYTES_MAX {
            return false;
        }
        self.bytes += bytes;
        self.hosts.insert(device);
        self.response.records.extend(records);
        true
    }
}

#[cfg(test)]
mod tests;
