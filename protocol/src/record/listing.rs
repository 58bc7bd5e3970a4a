//! A server listing: what a player needs to choose and join a server
//! (spec/records §7).

use serde::{Deserialize, Serialize};

use super::{FieldError, WireRecord, check_slug, check_text};
use crate::address::{JoinAddress, Scope};
use crate::cbor::{self, cbor_map};
use crate::envelope::Envelope;
use crate::ids::{RootId, ServerId, ServerNonce, byte_id};
use crate::limits;

byte_id! {
    /// Digest of the set of plugins that a server runs.
    PluginSet, 32
}

impl std::fmt::Debug for PluginSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PluginSet({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

/// Whether the row is an offer or a tombstone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum ListingState {
    /// The server can be joined; 0.
    Live,
    /// The host took it back; 1. Nothing of a lower order counts any more.
    Withdrawn,
}

impl From<ListingState> for u8 {
    fn from(state: ListingState) -> Self {
        match state {
            ListingState::Live => 0,
            ListingState::Withdrawn => 1,
        }
    }
}

impl TryFrom<u8> for ListingState {
    type Error = &'static str;
    fn try_from(number: u8) -> Result<Self, Self::Error> {
        match number {
            0 => Ok(Self::Live),
            1 => Ok(Self::Withdrawn),
            _ => Err("unknown listing state"),
        }
    }
}

/// Who learns of a server that is not for everybody.
///
/// The field is critical: a reader that does not know it would list the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum Visibility {
    /// Whoever has its id finds it in the DHT; no search does; 1.
    Unlisted,
    /// Nodes on the link of its host; 2.
    Lan,
}

impl From<Visibility> for u8 {
    fn from(visibility: Visibility) -> Self {
        match visibility {
            Visibility::Unlisted => 1,
            Visibility::Lan => 2,
        }
    }
}

impl TryFrom<u8> for Visibility {
    type Error = &'static str;
    fn try_from(number: u8) -> Result<Self, Self::Error> {
        match number {
            1 => Ok(Self::Unlisted),
            2 => Ok(Self::Lan),
            _ => Err("unknown visibility"),
        }
    }
}

/// Flags of a listing. Unknown bits are kept and ignored.
pub mod flags {
    /// Players need a password.
    pub const PASSWORD: u32 = 1;
    /// Only invited players get in.
    pub const WHITELIST: u32 = 1 << 1;
    /// The game is modified.
    pub const MODDED: u32 = 1 << 2;
    /// Players fight each other.
    pub const PVP: u32 = 1 << 3;
}

cbor_map! {
    /// One hosted game server.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ServerListing {
        /// Tells the servers of one root apart; the id follows from it.
        required 1 nonce: ServerNonce,
        /// Offer or tombstone.
        required 2 state: ListingState,
        /// Game slug, as in `luanti`.
        text 3 game: String,
        /// The name that players see.
        text 4 name: String,
        /// One sentence.
        optional_text 5 description: String,
        /// Tags, sorted and unique.
        text_list 6 tags: String,
        /// Region slug, as in `eu`.
        optional_text 7 region: String,
        /// Language, as in `de`.
        optional_text 8 language: String,
        /// Version of the game that players need.
        optional_text 9 game_version: String,
        /// Where to join, best first. Empty in a tombstone.
        list 10 addresses: JoinAddress,
        /// Places for players.
        optional 11 slots: u16,
        /// See [`flags`].
        optional 12 flags: u32,
        /// The plugins it runs.
        optional 13 plugin_set: PluginSet,
        /// Who learns of it, unless it is everybody.
        optional 14 visibility: Visibility,
    }
}

impl ServerListing {
    /// The id of this server, given whose it is.
    pub fn id(&self, root: &RootId) -> ServerId {
        ServerId::derive(root, &self.nonce)
    }

    /// The listing in an envelope that was validated before; nothing is checked
    /// again.
    pub fn of_envelope(bytes: &[u8]) -> Option<Self> {
        let envelope = Envelope::parse(bytes).ok()?;
        let wire: WireRecord = cbor::decode_checked(envelope.payload).ok()?;
        cbor::decode_checked(&wire.body.0).ok()
    }

    /// Whether this is a tombstone.
    pub fn is_withdrawn(&self) -> bool {
        self.state == ListingState::Withdrawn
    }

    /// Checks every field against its limit and rule.
    ///
    /// # Errors
    /// The first field that breaks one.
    pub fn check(&self) -> Result<(), FieldError> {
        check_slug("game", &self.game, limits::GAME_BYTES_MAX)?;
        check_text("name", &self.name, limits::NAME_BYTES_MAX)?;
        if let Some(text) = &self.description {
            check_text("description", text, limits::DESCRIPTION_BYTES_MAX)?;
        }
        if self.tags.len() > limits::TAGS_MAX {
            let rule = format!("must be at most {}: leave some out", limits::TAGS_MAX);
            return Err(FieldError::new("tags", rule));
        }
        for tag in &self.tags {
            check_slug("tag", tag, limits::TAG_BYTES_MAX)?;
        }
        if !self.tags.is_sorted_by(|a, b| a < b) {
            return Err(FieldError::new("tags", "must be sorted and without repetition"));
        }
        if let Some(slug) = &self.region {
            check_slug("region", slug, limits::REGION_BYTES_MAX)?;
        }
        if let Some(slug) = &self.language {
            check_slug("language", slug, limits::LANGUAGE_BYTES_MAX)?;
        }
        if let Some(text) = &self.game_version {
            check_text("game version", text, limits::GAME_VERSION_BYTES_MAX)?;
        }
        if self.addresses.len() > limits::JOIN_ADDRESSES_MAX {
            let rule = format!("must be at most {}", limits::JOIN_ADDRESSES_MAX);
            return Err(FieldError::new("addresses", rule));
        }
        for (at, address) in self.addresses.iter().enumerate() {
            if !address.is_sound() {
                return Err(FieldError::new("addresses", "must be plain IPv4 or IPv6 with a port"));
            }
            if self.addresses[..at].contains(address) {
                return Err(FieldError::new("addresses", "must not repeat"));
            }
        }
        let is_lan = self.visibility == Some(Visibility::Lan);
        if is_lan && self.addresses.iter().any(|address| address.scope() == Scope::Global) {
            let rule = "must not be global ones for a server of the LAN";
            return Err(FieldError::new("addresses", rule));
        }
        if self.addresses.is_empty() && !self.is_withdrawn() {
            return Err(FieldError::new("addresses", "must have at least one for a live listing"));
        }
        Ok(())
    }

    /// The text field that takes most room.
    pub(super) fn longest_field(&self) -> &'static str {
        [
            ("the description", self.description.as_ref().map_or(0, String::len)),
            ("the name", self.name.len()),
            ("the tags", self.tags.iter().map(|tag| tag.len() + 1).sum()),
        ]
        .into_iter()
        .max_by_key(|(_, bytes)| *bytes)
        .map_or("the name", |(field, _)| field)
    }
}
