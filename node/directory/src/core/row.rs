//! A row of the replica, its form on disk, and how a reader sees it.

use std::net::IpAddr;
use std::time::Duration;

use homehost_protocol::record::Header;
use homehost_protocol::record::presence::ServerPresence;
use homehost_protocol::{
    JoinAddress, NetworkName, NodeId, Presence, RecId, RootId, Scope, ServerId, ServerListing,
    UnixMillis,
};

use super::crowd::Place;
use super::pace::Bucket;
use super::reach::RowReach;
use super::texts::{Said, Texts};
use super::{Device, Directory, Moment};

/// One listing or tombstone.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) id: ServerId,
    pub(super) rec_id: RecId,
    pub(super) header: RowHeader,
    /// The bytes that were received; these are stored and passed on.
    pub(super) envelope: Box<[u8]>,
    /// Where in them stands what a search looks for.
    pub(super) texts: Texts,
    pub(super) flags: u32,
    pub(super) withdrawn: bool,
    /// Whether all its addresses work from anywhere.
    pub(super) global: bool,
    /// Whether its host wants it told on its link alone.
    pub(super) lan: bool,
    /// All its addresses but the one in its place.
    pub(super) more_ips: Box<[IpAddr]>,
    /// When this version was first seen here.
    pub(super) first_seen: UnixMillis,
    /// When the network last vouched for this version, by the listing itself;
    /// until it has, for a row from disk, when it came into this process.
    since: Duration,
    /// Whether the network has vouched for it.
    vouched: bool,
    /// Wall-clock time for `seen`, while `heard` and presence are unknown.
    pub(super) seen: UnixMillis,
    /// When it may be forgotten.
    pub(super) retain_until: UnixMillis,
    /// When its root was first seen, as far as that is known.
    pub(super) root_seen: UnixMillis,
    /// What the newest presence of its device says, if there is one.
    pub(super) presence: Option<Spoken>,
    /// Whether the row on disk says that its host is silent.
    pub(super) stored_stale: bool,
    /// For a tombstone: whether the server was here before it.
    pub(super) was_here: bool,
    /// Where it counts; none for a tombstone.
    pub(super) place: Option<Place>,
    /// How often its host may say it anew.
    pub(super) pace: Bucket,
}

/// What is needed of a row's header.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowHeader {
    pub(super) root: RootId,
    pub(super) seq: u64,
    pub(super) issued: UnixMillis,
    pub(super) key_epoch: u16,
    pub(super) dev: u8,
}

impl From<&Header> for RowHeader {
    fn from(header: &Header) -> Self {
        let Header { root, seq, issued, key_epoch, dev, .. } = *header;
        Self { root, seq, issued, key_epoch, dev }
    }
}

impl RowHeader {
    /// Position among the versions of the row.
    pub(super) fn order(&self) -> (u16, u64) {
        (self.key_epoch, self.seq)
    }

    pub(super) fn device(&self) -> Device {
        (self.root, self.dev)
    }
}

/// What a presence says of one row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spoken {
    pub(super) heard: Duration,
    /// Whether it names the server.
    pub(super) runs: bool,
    pub(super) players: Option<u16>,
}

/// When a row came, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Came {
    pub(super) first_seen: UnixMillis,
    pub(super) heard: Option<Duration>,
    pub(super) seen: UnixMillis,
    pub(super) loaded: Duration,
    pub(super) retain_until: UnixMillis,
    pub(super) stored_stale: bool,
    pub(super) pace: Bucket,
}

impl Row {
    /// A row that has no place yet.
    pub(super) fn new(
        (rec_id, header): (RecId, &Header),
        listing: &ServerListing,
        envelope: &[u8],
        came: Came,
    ) -> Self {
        let Came { first_seen, heard, seen, loaded, retain_until, stored_stale, pace } = came;
        let ips = listing.addresses.iter().map(|at| at.socket.ip());
        Self {
            id: listing.id(&header.root),
            rec_id,
            header: header.into(),
            envelope: envelope.into(),
            texts: Texts::of(listing, envelope),
            flags: listing.flags.unwrap_or_default(),
            withdrawn: listing.is_withdrawn(),
            global: listing.addresses.iter().all(|at| at.scope() == Scope::Global),
            lan: listing.visibility.is_some(),
            more_ips: ips.skip(usize::from(!listing.is_withdrawn())).collect(),
            first_seen,
            since: heard.unwrap_or(loaded),
            vouched: heard.is_some(),
            seen,
            retain_until,
            root_seen: first_seen,
            presence: None,
            stored_stale,
            was_here: false,
            place: None,
            pace,
        }
    }

    /// What the host says of it, read from the envelope.
    ///
    /// # Panics
    /// Never: the envelope was validated before it became a row.
    pub(super) fn listing(&self) -> ServerListing {
        ServerListing::of_envelope(&self.envelope).expect("a listing that was validated")
    }

    /// When the network last vouched for it by the listing itself; `None` for a
    /// row from disk that nobody has confirmed yet.
    pub(super) fn heard(&self) -> Option<Duration> {
        self.vouched.then_some(self.since)
    }

    /// A row from disk is confirmed.
    pub(super) fn confirm(&mut self, heard: Duration) {
        (self.since, self.vouched) = (heard, true);
    }

    /// When it was last known to be alive, or `None` if its host says that it is
    /// not.
    pub(super) fn last_alive(&self) -> Option<Duration> {
        match self.presence {
            // A listing that is newer than the newest presence speaks for itself.
            Some(presence) if self.vouched && self.since > presence.heard => Some(self.since),
            Some(presence) => presence.runs.then_some(presence.heard),
            None => Some(self.since),
        }
    }

    /// What it says in words.
    pub(super) fn said(&self) -> Said<'_> {
        self.texts.on(&self.envelope)
    }

    /// Its addresses, without ports.
    pub(super) fn ips(&self) -> impl Iterator<Item = IpAddr> {
        let first = self.place.as_ref().and_then(|place| place.ip);
        first.into_iter().chain(self.more_ips.iter().copied())
    }

    /// Whether it is the tombstone of a server that was never here.
    pub(super) fn is_strange(&self) -> bool {
        self.withdrawn && !self.was_here
    }
}

/// The newest presence of a device.
#[derive(Debug)]
pub(super) struct HostPresence {
    pub(super) order: (u16, u64),
    pub(super) rec_id: RecId,
    pub(super) issued: UnixMillis,
    pub(super) pace: Bucket,
    pub(super) presence: Presence,
    pub(super) envelope: Vec<u8>,
    pub(super) heard: Duration,
}

impl HostPresence {
    /// What it says of one server.
    pub(super) fn of(&self, id: &ServerId) -> Option<&ServerPresence> {
        let servers = &self.presence.servers;
        servers.binary_search_by_key(id, |server| server.id).ok().map(|at| &servers[at])
    }

    /// The same, for its row.
    pub(super) fn spoken(&self, id: &ServerId) -> Spoken {
        let server = self.of(id);
        let players = server.and_then(|server| server.players);
        Spoken { heard: self.heard, runs: server.is_some(), players }
    }
}

/// What is known of a server's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowStatus {
    /// Its host spoke of it lately.
    Live,
    /// Its host has been silent for three intervals, or speaks no longer of it.
    Stale,
    /// Its host took it back.
    Withdrawn,
}

/// A row as a reader sees it.
#[derive(Clone, Debug)]
pub struct RowView {
    /// Server id.
    pub id: ServerId,
    /// Whose it is.
    pub host: RootId,
    /// How often its keys had been rotated when this was signed.
    pub key_epoch: u16,
    /// What the host says of it.
    pub listing: ServerListing,
    /// Players now, if that is known.
    pub players: Option<u16>,
    /// Places for players, if that is known.
    pub slots: Option<u16>,
    /// Status.
    pub status: RowStatus,
    /// Who reached it.
    pub reach: RowReach,
    /// How far up it stands before anything else is looked at (spec/directory §4).
    pub standing: u8,
    /// Whether its root's key chains contradict each other.
    pub key_conflict: bool,
    /// Whether the network has spoken of it since this node started; a row from
    /// disk has not been confirmed yet.
    pub confirmed: bool,
    /// When this version was signed, by its host's clock.
    pub issued: UnixMillis,
    /// When this version was first seen here.
    pub first_seen: UnixMillis,
    /// When it was last known to be alive.
    pub seen: UnixMillis,
}

impl RowView {
    /// Where to join.
    pub fn addresses(&self) -> &[JoinAddress] {
        &self.listing.addresses
    }
}

impl Directory {
    pub(super) fn view_of(&self, id: &ServerId, row: &Row, now: Moment) -> RowView {
        let (status, alive) = self.status_of(row, now);
        let listing = row.listing();
        let presence = self.presences.get(&row.header.device());
        let now_says = presence.and_then(|presence| presence.of(id));
        let alive = alive.filter(|_| row.vouched || presence.is_some());
        let seen = alive.map_or(row.seen, |at| {
            let ago = now.mono.saturating_sub(at).as_millis();
            UnixMillis(now.wall.0.saturating_sub(ago.try_into().unwrap_or(u64::MAX)))
        });
        RowView {
            id: *id,
            host: row.header.root,
            key_epoch: row.header.key_epoch,
            players: now_says
                .filter(|_| status == RowStatus::Live)
                .and_then(|presence| presence.players),
            slots: now_says.and_then(|presence| presence.slots).or(listing.slots),
            listing,
            status,
            reach: self.reach_of(row, now.wall),
            standing: self.standing_of(row, now),
            key_conflict: self.chains.is_in_conflict(&row.header.root),
            confirmed: row.vouched || now_says.is_some(),
            issued: row.header.issued,
            first_seen: row.first_seen,
            seen,
        }
    }
}

/// Version of the replica value below.
const VALUE_VERSION: u8 = 1;

/// Flag of a value: the host was silent.
const STALE: u8 = 1;

/// Key of a row in the replica: rows of several networks lie side by side.
pub(super) fn key(network: &NetworkName, id: &ServerId) -> Vec<u8> {
    [network.as_str().as_bytes(), b"/", id.as_ref()].concat()
}

/// Key of a root's chain in the replica.
pub(super) fn chain_key(network: &NetworkName, root: &RootId) -> Vec<u8> {
    [network.as_str().as_bytes(), b"/k", root.as_ref()].concat()
}

/// Key of a server's reach record in the replica.
pub(super) fn reach_key(network: &NetworkName, id: &ServerId) -> Vec<u8> {
    [network.as_str().as_bytes(), b"/r", id.as_ref()].concat()
}

/// Key of a node that was met, in the replica.
pub(super) fn witness_key(network: &NetworkName, node: &NodeId) -> Vec<u8> {
    [network.as_str().as_bytes(), b"/w", &node.0].concat()
}

/// What lies under a key of the replica, in the order in which it is read:
/// chains before what they sign, listings and witnesses before who reached
/// what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum KeyKind {
    Chain,
    Listing,
    Witness,
    Reach,
}

/// What a key of the replica is of, if it is of this network.
pub(super) fn kind_of_key(network: &NetworkName, key: &[u8]) -> Option<KeyKind> {
    let rest = key.strip_prefix(network.as_str().as_bytes())?.strip_prefix(b"/")?;
    match (rest.len() - ServerId::LEN.min(rest.len()), rest.first()?) {
        (0, _) if rest.len() == ServerId::LEN => Some(KeyKind::Listing),
        (1, b'k') => Some(KeyKind::Chain),
        (1, b'r') => Some(KeyKind::Reach),
        (1, b'w') => Some(KeyKind::Witness),
        _ => None,
    }
}

/// A record as it lies in the replica; only rows are ever stale. Of a witness
/// the network of its address stands in place of an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored<'a> {
    pub(super) first_seen: UnixMillis,
    pub(super) seen: UnixMillis,
    pub(super) stale: bool,
    pub(super) envelope: &'a [u8],
}

impl<'a> Stored<'a> {
    /// A record that is seen at this moment for the first time.
    pub(super) fn new(envelope: &'a [u8], now: UnixMillis) -> Self {
        Self { first_seen: now, seen: now, stale: false, envelope }
    }

    /// The bytes: version, flags, first seen, seen (Unix milliseconds, big
    /// endian), envelope.
    pub(super) fn encode(&self) -> Vec<u8> {
        let head = [VALUE_VERSION, if self.stale { STALE } else { 0 }];
        let times = [self.first_seen.0.to_be_bytes(), self.seen.0.to_be_bytes()].concat();
        [&head, times.as_slice(), self.envelope].concat()
    }

    pub(super) fn decode(value: &'a [u8]) -> Option<Self> {
        let (&[version, flags], rest) = value.split_first_chunk()?;
        let (first_seen, rest) = rest.split_first_chunk()?;
        let (seen, envelope) = rest.split_first_chunk()?;
        (version == VALUE_VERSION).then(|| Self {
            first_seen: UnixMillis(u64::from_be_bytes(*first_seen)),
            seen: UnixMillis(u64::from_be_bytes(*seen)),
            stale: flags & STALE != 0,
            envelope,
        })
    }
}
