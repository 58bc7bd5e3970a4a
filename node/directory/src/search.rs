//! Search over the local replica: filters, free text, sorts.

use std::cmp::Ordering;

use homehost_protocol::ServerListing;

use crate::core::{Directory, Found, Moment, RowStatus, RowView};

/// Rows that one search returns at most: more than a person reads.
pub const RESULTS_MAX: usize = 1_000;

/// What a person looks for. An empty query finds every live row.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Game slug.
    pub game: Option<String>,
    /// Tags, all of which the row must have.
    pub tags: Vec<String>,
    /// Region slug.
    pub region: Option<String>,
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
}

/// Orders of a result; ties are broken by name, then by id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Most players first; unknown counts come last.
    #[default]
    Players,
    /// By name.
    Name,
    /// First seen last comes first.
    New,
}

impl Directory {
    /// The rows that match, in order.
    pub fn search(&self, query: &Query, now: Moment) -> Vec<RowView> {
        let words: Vec<String> = query
            .text
            .iter()
            .flat_map(|text| text.split_whitespace())
            .map(str::to_lowercase)
            .collect();
        let mut found: Vec<Found<'_>> = self
            .find(now, |listing, text| query.wants_listing(listing, text, &words))
            .filter(|row| query.wants_now(row))
            .collect();
        let order = |a: &Found<'_>, b: &Found<'_>| {
            let first = match query.sort {
                // `None` is the smallest, so unknown counts come last.
                Sort::Players => b.players.cmp(&a.players),
                Sort::Name => Ordering::Equal,
                Sort::New => b.first_seen.cmp(&a.first_seen),
            };
            first.then_with(|| a.name.cmp(b.name)).then_with(|| a.id.cmp(&b.id))
        };
        // Only what is returned is sorted whole.
        let limit = query.limit.unwrap_or(RESULTS_MAX).min(RESULTS_MAX);
        if found.len() > limit {
            found.select_nth_unstable_by(limit, order);
            found.truncate(limit);
        }
        found.sort_unstable_by(order);
        found.iter().filter_map(|row| self.view(&row.id, now)).collect()
    }
}

impl Query {
    /// Whether what the host says of the server is looked for.
    fn wants_listing(&self, listing: &ServerListing, text: &str, words: &[String]) -> bool {
        self.game.as_ref().is_none_or(|game| listing.game == *game)
            && self.region.as_ref().is_none_or(|region| listing.region.as_ref() == Some(region))
            && self.tags.iter().all(|tag| listing.tags.contains(tag))
            && words.iter().all(|word| text.contains(word.as_str()))
    }

    /// Whether its state of this moment is looked for.
    fn wants_now(&self, row: &Found<'_>) -> bool {
        (self.all || row.status == RowStatus::Live)
            && (!self.has_players || row.players.is_some_and(|players| players > 0))
    }
}
