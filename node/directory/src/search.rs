//! Search over the local replica: filters, free text, orders, pages
//! (spec/directory §4).
//!
//! Every row is looked at. The cheapest question comes first, so that three
//! filters over a full replica take a millisecond or two; an index would cost
//! memory on every node and time on every change to save that.

mod cursor;
mod order;

use homehost_protocol::ServerId;
use homehost_protocol::limits::QUERY_ROWS_MAX;
use homehost_protocol::rpc::query::{Query as PeerQuery, SortBy};
use memchr::memmem::Finder;

use crate::core::{Directory, Moment, RowStatus, RowView, Said, Texts};
pub use cursor::{Cursor, CursorError};
use order::Key;

/// Rows that one search returns at most: more than a person reads.
pub const RESULTS_MAX: usize = 1_000;

/// What a person looks for. An empty query finds every live row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Game slug.
    pub game: Option<String>,
    /// Tags, all of which the row must have.
    pub tags: Vec<String>,
    /// Region slug.
    pub region: Option<String>,
    /// Language.
    pub language: Option<String>,
    /// Beginning of the game's version, in whole parts: `5.6` finds `5.6` and
    /// `5.6.1`, not `5.60`.
    pub version: Option<String>,
    /// Flags that must be set.
    pub flags: u32,
    /// Flags that must not be set.
    pub without_flags: u32,
    /// Only rows that witnesses got through to whose word counts here.
    pub proved: bool,
    /// Words, each of which must be part of name, description, game or tags.
    pub text: Option<String>,
    /// Only rows that somebody plays on.
    pub has_players: bool,
    /// Also rows whose host is silent, and rows that were taken back.
    pub all: bool,
    /// Order of the result.
    pub sort: Sort,
    /// Most rows wanted; [`RESULTS_MAX`] at most.
    pub limit: Option<usize>,
    /// Where the page before ended.
    pub cursor: Option<Cursor>,
}

/// Orders of a result, within rows of one standing; ties are broken by name,
/// then by id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Most players first; unknown counts come last.
    #[default]
    Players,
    /// By name.
    Name,
    /// First seen last comes first.
    New,
    /// Most witnesses first.
    Proved,
}

impl From<SortBy> for Sort {
    fn from(sort: SortBy) -> Self {
        match sort {
            SortBy::Players => Self::Players,
            SortBy::Name => Self::Name,
            SortBy::New => Self::New,
            SortBy::Proved => Self::Proved,
        }
    }
}

impl From<Sort> for SortBy {
    fn from(sort: Sort) -> Self {
        match sort {
            Sort::Players => Self::Players,
            Sort::Name => Self::Name,
            Sort::New => Self::New,
            Sort::Proved => Self::Proved,
        }
    }
}

/// A page of a result.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The rows, in order.
    pub rows: Vec<RowView>,
    /// Where the result goes on, if it does.
    pub next: Option<Cursor>,
    /// How many rows match in all.
    pub matching: usize,
}

/// A page of a result, before anybody sees it.
pub(crate) struct Ranked<'a> {
    sort: Sort,
    /// In order.
    keys: Vec<Key<'a>>,
    /// Whether the result goes on.
    more: bool,
    pub(crate) matching: usize,
}

impl Ranked<'_> {
    pub(crate) fn ids(&self) -> impl Iterator<Item = ServerId> {
        self.keys.iter().map(|key| key.id)
    }

    /// Where the result goes on after its first `taken` rows.
    pub(crate) fn cursor(&self, taken: usize) -> Option<Cursor> {
        let goes_on = self.more || taken < self.keys.len();
        let last = taken.checked_sub(1).and_then(|last| self.keys.get(last));
        last.filter(|_| goes_on).map(|key| Cursor::after(self.sort, key))
    }
}

impl Directory {
    /// The rows that match, in order, from the query's cursor on.
    ///
    /// # Errors
    /// When the cursor is of another order than the query.
    pub fn search(&self, query: &Query, now: Moment) -> Result<Page, CursorError> {
        let ranked = self.ranked(query, true, now)?;
        Ok(Page {
            rows: ranked.ids().filter_map(|id| self.view(&id, now)).collect(),
            next: ranked.cursor(ranked.keys.len()),
            matching: ranked.matching,
        })
    }

    /// The same, without the views. Rows that only an on-link peer may have are
    /// left out for others.
    pub(crate) fn ranked(
        &self,
        query: &Query,
        on_link: bool,
        now: Moment,
    ) -> Result<Ranked<'_>, CursorError> {
        let after = query.cursor.as_ref().map(|cursor| cursor.key(query.sort)).transpose()?;
        let words = query.words();
        let words: Vec<_> = words.iter().map(Finder::new).collect();
        let wanted = |flags: u32, said: &Said<'_>| query.wants_listing(flags, said, &words);
        let witnesses = query.proved || query.sort == Sort::Proved;
        let mut keys: Vec<Key<'_>> = self
            .find(now, (on_link, witnesses), wanted)
            .filter(|row| query.wants_now(row.status, row.players, row.witnesses))
            .map(|row| Key::of(&row, query.sort))
            .collect();
        let matching = keys.len();
        if let Some(after) = &after {
            keys.retain(|key| key > after);
        }
        // Only what is returned is sorted whole.
        let limit = query.limit.unwrap_or(RESULTS_MAX).min(RESULTS_MAX);
        let more = keys.len() > limit;
        if more {
            keys.select_nth_unstable(limit);
            keys.truncate(limit);
        }
        keys.sort_unstable();
        Ok(Ranked { sort: query.sort, keys, more, matching })
    }
}

impl Query {
    /// What a peer asks for, in the same meaning.
    ///
    /// # Errors
    /// When the cursor is none of ours.
    pub fn of_peer(query: &PeerQuery, cursor: Option<&[u8]>) -> Result<Self, CursorError> {
        let query = query.clone();
        Ok(Self {
            game: query.game,
            tags: query.tags,
            region: query.region,
            language: query.language,
            version: query.version,
            flags: query.flags.unwrap_or_default(),
            without_flags: query.without_flags.unwrap_or_default(),
            proved: query.proved.unwrap_or_default(),
            text: query.text,
            has_players: query.has_players.unwrap_or_default(),
            all: query.all.unwrap_or_default(),
            sort: query.sort.unwrap_or_default().into(),
            limit: Some(query.limit.map_or(QUERY_ROWS_MAX, usize::from).min(QUERY_ROWS_MAX)),
            cursor: cursor.map(Cursor::try_from).transpose()?,
        })
    }

    /// The same for asking a peer, with a limit of its own.
    pub fn to_peer(&self, limit: u16) -> PeerQuery {
        let flag = |wanted: bool| wanted.then_some(true);
        let bits = |bits: u32| (bits != 0).then_some(bits);
        PeerQuery {
            game: self.game.clone(),
            tags: self.tags.clone(),
            region: self.region.clone(),
            language: self.language.clone(),
            version: self.version.clone(),
            flags: bits(self.flags),
            without_flags: bits(self.without_flags),
            has_players: flag(self.has_players),
            proved: flag(self.proved),
            text: self.text.clone(),
            sort: Some(self.sort.into()),
            limit: Some(limit),
            all: flag(self.all),
        }
    }

    /// Whether a row is in the result: a change to one row needs no new search.
    pub fn matches(&self, row: &RowView) -> bool {
        let words = self.words();
        let words: Vec<_> = words.iter().map(Finder::new).collect();
        let bytes = Texts::bytes_of(&row.listing);
        let texts = Texts::of(&row.listing, &bytes);
        self.wants_listing(row.listing.flags.unwrap_or_default(), &texts.on(&bytes), &words)
            && self.wants_now(row.status, row.players, row.reach.proved)
    }

    fn words(&self) -> Vec<String> {
        let words = self.text.iter().flat_map(|text| text.split_whitespace());
        words.map(str::to_lowercase).collect()
    }

    /// Whether what the host says of the server is looked for.
    fn wants_listing(&self, flags: u32, said: &Said<'_>, words: &[Finder<'_>]) -> bool {
        let is = |wanted: &Option<String>, said: &[u8]| {
            wanted.as_ref().is_none_or(|wanted| wanted.as_bytes() == said && !said.is_empty())
        };
        flags & self.flags == self.flags
            && flags & self.without_flags == 0
            && is(&self.game, said.game())
            && is(&self.region, said.region())
            && is(&self.language, said.language())
            && self.version.as_ref().is_none_or(|wanted| {
                let version = said.version();
                !version.is_empty() && begins(version, wanted)
            })
            && self.tags.iter().all(|wanted| said.tags().any(|tag| tag == wanted.as_bytes()))
            && words.iter().all(|word| said.has(word))
    }

    /// Whether its state of this moment is looked for.
    fn wants_now(&self, status: RowStatus, players: Option<u16>, witnesses: u8) -> bool {
        (self.all || status == RowStatus::Live)
            && (!self.has_players || players.is_some_and(|players| players > 0))
            && (!self.proved || witnesses > 0)
    }
}

/// Whether a version begins with `part`, and `part` ends where a number or word
/// of it does.
fn begins(version: &str, part: &str) -> bool {
    let goes_on = |text: &str| text.starts_with(|c: char| c.is_alphanumeric());
    version
        .strip_prefix(part)
        .is_some_and(|rest| !goes_on(rest) || !part.ends_with(|c: char| c.is_alphanumeric()))
}

#[cfg(test)]
mod tests;
