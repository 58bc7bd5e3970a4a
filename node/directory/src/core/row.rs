//! A row of the replica, its form on disk, and how a reader sees it.

use std::time::Duration;

use homehost_protocol::record::Header;
use homehost_protocol::record::presence::ServerPresence;
use homehost_protocol::{
    JoinAddress, NetworkName, Presence, RecId, RootId, ServerId, ServerListing, UnixMillis,
};

use super::crowd::Place;
use super::pace::Bucket;
use super::reach::RowReach;
use super::{Directory, Moment};

/// One listing or tombstone.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) id: ServerId,
    pub(super) rec_id: RecId,
    pub(super) header: Header,
    pub(super) listing: ServerListing,
    /// The bytes that were received; these are stored and passed on.
    pub(super) envelope: Vec<u8>,
    /// When this version was first seen here.
    pub(super) first_seen: UnixMillis,
    /// When the network last vouched for this version, by the listing itself;
    /// `None` for a row from disk that nobody has confirmed yet.
    pub(super) heard: Option<Duration>,
    /// Wall-clock time for `seen`, while `heard` and presence are unknown.
    pub(super) seen: UnixMillis,
    /// When the row came into this process.
    pub(super) loaded: Duration,
    /// When it may be forgotten.
    pub(super) retain_until: UnixMillis,
    /// Lower-case name, description, game and tags, a line each: what free text
    /// is matched against.
    pub(super) text: String,
    /// Whether the row on disk says that its host is silent.
    pub(super) stored_stale: bool,
    /// For a tombstone: whether the server was here before it.
    pub(super) was_here: bool,
    /// Where it counts; none for a tombstone.
    pub(super) place: Option<Place>,
    /// How often its host may say it anew.
    pub(super) pace: Bucket,
}

impl Row {
    /// Whether it is the tombstone of a server that was never here.
    pub(super) fn is_strange(&self) -> bool {
        self.listing.is_withdrawn() && !self.was_here
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
        let presence = self.presences.get(&(row.header.root, row.header.dev));
        let now_says = presence.and_then(|presence| presence.of(id));
        let alive = alive.filter(|_| row.heard.is_some() || presence.is_some());
        let seen = alive.map_or(row.seen, |at| {
            let ago = now.mono.saturating_sub(at).as_millis();
            UnixMillis(now.wall.0.saturating_sub(ago.try_into().unwrap_or(u64::MAX)))
        });
        RowView {
            id: *id,
            host: row.header.root,
            key_epoch: row.header.key_epoch,
            listing: row.listing.clone(),
            players: now_says
                .filter(|_| status == RowStatus::Live)
                .and_then(|presence| presence.players),
            slots: now_says.and_then(|presence| presence.slots).or(row.listing.slots),
            status,
            reach: self.reach_of(row, now.wall),
            standing: self.standing_of(row, now),
            key_conflict: self.chains.is_in_conflict(&row.header.root),
            confirmed: row.heard.is_some() || now_says.is_some(),
            issued: row.header.issued,
            first_seen: row.first_seen,
            seen,
        }
    }
}

/// Lower-case text that free-text search looks into.
pub(crate) fn search_text(listing: &ServerListing) -> String {
    let mut text = listing.name.to_lowercase();
    for part in [listing.description.as_deref(), Some(listing.game.as_str())]
        .into_iter()
        .flatten()
        .chain(listing.tags.iter().map(String::as_str))
    {
        text.push('\n');
        text.push_str(&part.to_lowercase());
    }
    text
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

/// What lies under a key of the replica, in the order in which it is read:
/// chains before what they sign, listings before who reached them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum KeyKind {
    Chain,
    Listing,
    Reach,
}

/// What a key of the replica is of, if it is of this network.
pub(super) fn kind_of_key(network: &NetworkName, key: &[u8]) -> Option<KeyKind> {
    let rest = key.strip_prefix(network.as_str().as_bytes())?.strip_prefix(b"/")?;
    match (rest.len() - ServerId::LEN.min(rest.len()), rest.first()?) {
        (0, _) if rest.len() == ServerId::LEN => Some(KeyKind::Listing),
        (1, b'k') => Some(KeyKind::Chain),
        (1, b'r') => Some(KeyKind::Reach),
        _ => None,
    }
}

/// A record as it lies in the replica; only rows are ever stale.
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
