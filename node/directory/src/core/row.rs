//! A row of the replica, its form on disk, and how a reader sees it.

use std::time::Duration;

use homehost_protocol::record::Header;
use homehost_protocol::record::presence::ServerPresence;
use homehost_protocol::{
    JoinAddress, Presence, RecId, RootId, ServerId, ServerListing, UnixMillis,
};

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
    /// What free text is matched against.
    pub(super) text: String,
}

/// The newest presence of a device.
#[derive(Debug)]
pub(super) struct HostPresence {
    pub(super) order: (u16, u64),
    pub(super) rec_id: RecId,
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
    /// What the host says of it.
    pub listing: ServerListing,
    /// Players now, if that is known.
    pub players: Option<u16>,
    /// Places for players, if that is known.
    pub slots: Option<u16>,
    /// Status.
    pub status: RowStatus,
    /// Whether the network has spoken of it since this node started; a row from
    /// disk has not been confirmed yet.
    pub confirmed: bool,
    /// When this version was signed, by its host's clock.
    pub issued: UnixMillis,
    /// When this version was first seen here.
    pub first_seen: UnixMillis,
    /// When it was last known to be alive.
    pub seen: UnixMillis,
    /// Lower-case name, description, game and tags.
    pub text: String,
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
            listing: row.listing.clone(),
            players: now_says
                .filter(|_| status == RowStatus::Live)
                .and_then(|presence| presence.players),
            slots: now_says.and_then(|presence| presence.slots).or(row.listing.slots),
            status,
            confirmed: row.heard.is_some() || now_says.is_some(),
            issued: row.header.issued,
            first_seen: row.first_seen,
            seen,
            text: row.text.clone(),
        }
    }
}

/// Lower-case text that free-text search looks into.
pub(super) fn search_text(listing: &ServerListing) -> String {
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

/// First byte of a replica key that holds a listing.
const LISTING_KEY: u8 = b'l';
/// Version of the replica value below.
const VALUE_VERSION: u8 = 1;

/// Key of a row in the replica.
pub(super) fn key(id: &ServerId) -> Vec<u8> {
    [&[LISTING_KEY], id.as_ref()].concat()
}

/// Value of a row in the replica: version, first seen, seen (Unix milliseconds,
/// big endian), envelope.
pub(super) fn value(first_seen: UnixMillis, seen: UnixMillis, envelope: &[u8]) -> Vec<u8> {
    [&[VALUE_VERSION][..], &first_seen.0.to_be_bytes(), &seen.0.to_be_bytes(), envelope].concat()
}

/// A value taken apart: first seen, seen, envelope.
pub(super) fn parse_value(value: &[u8]) -> Option<(UnixMillis, UnixMillis, &[u8])> {
    let (&version, rest) = value.split_first()?;
    let (first_seen, rest) = rest.split_first_chunk()?;
    let (seen, envelope) = rest.split_first_chunk()?;
    (version == VALUE_VERSION).then(|| {
        (
            UnixMillis(u64::from_be_bytes(*first_seen)),
            UnixMillis(u64::from_be_bytes(*seen)),
            envelope,
        )
    })
}
