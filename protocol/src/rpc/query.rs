//! What a search asks for (spec/directory §4).

use serde::{Deserialize, Serialize};

use crate::cbor::cbor_map;
use crate::limits::{
    GAME_BYTES_MAX, GAME_VERSION_BYTES_MAX, LANGUAGE_BYTES_MAX, QUERY_TEXT_BYTES_MAX,
    REGION_BYTES_MAX, TAG_BYTES_MAX, TAGS_MAX,
};

/// Orders of a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum SortBy {
    /// Most players first; 0.
    #[default]
    Players,
    /// By name; 1.
    Name,
    /// First seen last comes first; 2.
    New,
    /// Most witnesses first; 3.
    Proved,
}

impl SortBy {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Players, Self::Name, Self::New, Self::Proved];
}

impl From<SortBy> for u8 {
    fn from(sort: SortBy) -> Self {
        match sort {
            SortBy::Players => 0,
            SortBy::Name => 1,
            SortBy::New => 2,
            SortBy::Proved => 3,
        }
    }
}

impl TryFrom<u8> for SortBy {
    type Error = &'static str;
    fn try_from(number: u8) -> Result<Self, Self::Error> {
        Self::ALL.into_iter().find(|sort| u8::from(*sort) == number).ok_or("unknown order")
    }
}

cbor_map! {
    /// What is looked for. Everything left out does not matter; an empty query
    /// finds every live row.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Query {
        /// Game slug.
        optional_text 1 game: String,
        /// Tags, all of which the row must have.
        text_list 2 tags: String,
        /// Region slug.
        optional_text 3 region: String,
        /// Language.
        optional_text 4 language: String,
        /// Beginning of the game's version: `5.6` finds `5.6` and `5.6.1`, not `5.60`.
        optional_text 5 version: String,
        /// Flags that must be set (see [`crate::record::listing::flags`]).
        optional 6 flags: u32,
        /// Flags that must not be set.
        optional 7 without_flags: u32,
        /// Only where somebody plays.
        optional 8 has_players: bool,
        /// Only where witnesses that the answering node trusts got through.
        optional 9 proved: bool,
        /// Words, each of which must be part of name, description, game or tags.
        optional_text 10 text: String,
        /// Order.
        optional 11 sort: SortBy,
        /// Most rows wanted.
        optional 12 limit: u16,
        /// Also stale and withdrawn rows.
        optional 13 all: bool,
    }
}

impl Query {
    pub(super) fn is_bounded(&self) -> bool {
        let fits = |text: &Option<String>, most| text.as_ref().is_none_or(|t| t.len() <= most);
        fits(&self.game, GAME_BYTES_MAX)
            && fits(&self.region, REGION_BYTES_MAX)
            && fits(&self.language, LANGUAGE_BYTES_MAX)
            && fits(&self.version, GAME_VERSION_BYTES_MAX)
            && fits(&self.text, QUERY_TEXT_BYTES_MAX)
            && self.tags.len() <= TAGS_MAX
            && self.tags.iter().all(|tag| tag.len() <= TAG_BYTES_MAX)
    }
}
