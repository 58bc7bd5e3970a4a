//! What a search looks for in a listing, without a copy of it.
//!
//! The texts of a listing stand in its envelope as they are; only where they
//! stand is kept, and name and description in lower case if that differs.

use homehost_protocol::ServerListing;
use homehost_protocol::limits::TAGS_MAX;
use memchr::memmem::{self, Finder};

/// A stretch of the bytes; no text of a listing is empty, so an empty one is
/// none.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: [u8; 2],
    bytes: u8,
}

impl Span {
    fn start(self) -> usize {
        u16::from_be_bytes(self.start).into()
    }

    fn end(self) -> usize {
        self.start() + usize::from(self.bytes)
    }

    fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start()..self.end()).unwrap_or_default()
    }
}

/// Where the texts of a listing stand in certain bytes.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    game: Span,
    name: Span,
    description: Span,
    region: Span,
    language: Span,
    version: Span,
    /// The first of the tags, between each two of which is one byte.
    tags: [u8; 2],
    tag_bytes: [u8; TAGS_MAX],
    /// Name and description in lower case, a line each, if that differs.
    lower: Option<Box<str>>,
    /// Length of the name in lower case.
    lower_name: u8,
}

impl Texts {
    /// Of a listing and the envelope, or other bytes, that its texts stand in,
    /// in the order of their keys.
    pub(crate) fn of(listing: &ServerListing, bytes: &[u8]) -> Self {
        let mut rest = Rest { bytes, at: 0 };
        let game = rest.find(&listing.game);
        let name = rest.find(&listing.name);
        let description = rest.find(listing.description.as_deref().unwrap_or_default());
        let (tags, tag_bytes) = rest.find_tags(&listing.tags);
        let region = rest.find(listing.region.as_deref().unwrap_or_default());
        let language = rest.find(listing.language.as_deref().unwrap_or_default());
        let version = rest.find(listing.game_version.as_deref().unwrap_or_default());
        let said = [Some(&listing.name), listing.description.as_ref()];
        let lower = said.into_iter().flatten().any(|text| !is_lower(text));
        let lower = lower.then(|| {
            let lower = said.into_iter().flatten().map(|text| text.to_lowercase());
            lower.collect::<Vec<_>>().join("\n").into_boxed_str()
        });
        let lower_name = lower
            .as_deref()
            .map_or(listing.name.len(), |lower| lower.split('\n').next().unwrap_or_default().len());
        let lower_name = lower_name.try_into().unwrap_or(u8::MAX);
        Self {
            game,
            name,
            description,
            region,
            language,
            version,
            tags,
            tag_bytes,
            lower,
            lower_name,
        }
    }

    /// The same texts as bytes of their own.
    pub(crate) fn bytes_of(listing: &ServerListing) -> Vec<u8> {
        let mut texts = vec![listing.game.as_str(), &listing.name];
        texts.extend(listing.description.as_deref());
        texts.extend(listing.tags.iter().map(String::as_str));
        let facts = [&listing.region, &listing.language, &listing.game_version];
        texts.extend(facts.into_iter().flatten().map(String::as_str));
        texts.join("\n").into_bytes()
    }

    /// The texts, read from those bytes.
    pub(crate) fn on<'a>(&'a self, bytes: &'a [u8]) -> Said<'a> {
        Said { texts: self, bytes }
    }
}

fn is_lower(text: &str) -> bool {
    text.chars().all(|c| c.to_lowercase().eq([c]))
}

/// Bytes in which texts are looked for, one behind another.
struct Rest<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Rest<'_> {
    fn find(&mut self, text: &str) -> Span {
        let found = memmem::find(&self.bytes[self.at..], text.as_bytes());
        let (Some(found), Ok(bytes)) = (found, u8::try_from(text.len())) else {
            return Span::default();
        };
        let Ok(start) = u16::try_from(self.at + found) else { return Span::default() };
        self.at += found + text.len();
        Span { start: start.to_be_bytes(), bytes }
    }

    fn find_tags(&mut self, tags: &[String]) -> ([u8; 2], [u8; TAGS_MAX]) {
        let mut lengths = [0; TAGS_MAX];
        let Some(first) = tags.first() else { return ([0; 2], lengths) };
        let starts = memmem::find_iter(&self.bytes[self.at..], first.as_bytes());
        for start in starts.map(|start| self.at + start) {
            let mut at = start;
            let stand_here = tags.iter().all(|tag| {
                let here = self.bytes.get(at..at + tag.len());
                at += tag.len() + 1;
                here == Some(tag.as_bytes())
            });
            if stand_here && let Ok(start) = u16::try_from(start) {
                for (length, tag) in lengths.iter_mut().zip(tags) {
                    *length = tag.len().try_into().unwrap_or_default();
                }
                self.at = at - 1;
                return (start.to_be_bytes(), lengths);
            }
        }
        ([0; 2], lengths)
    }
}

/// What a listing says in words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said<'a> {
    texts: &'a Texts,
    bytes: &'a [u8],
}

impl<'a> Said<'a> {
    pub(crate) fn game(&self) -> &'a [u8] {
        self.texts.game.of(self.bytes)
    }

    /// Empty for none.
    pub(crate) fn region(&self) -> &'a [u8] {
        self.texts.region.of(self.bytes)
    }

    /// Empty for none.
    pub(crate) fn language(&self) -> &'a [u8] {
        self.texts.language.of(self.bytes)
    }

    /// None is empty.
    pub(crate) fn version(&self) -> &'a str {
        std::str::from_utf8(self.texts.version.of(self.bytes)).unwrap_or_default()
    }

    pub(crate) fn tags(&self) -> impl Iterator<Item = &'a [u8]> {
        let Self { texts, bytes } = *self;
        let lengths = texts.tag_bytes.iter().take_while(|length| **length > 0);
        lengths.scan(usize::from(u16::from_be_bytes(texts.tags)), move |at, length| {
            let start = *at;
            *at += usize::from(*length) + 1;
            bytes.get(start..start + usize::from(*length))
        })
    }

    /// The name in lower case. Nothing of it is looked at here.
    pub(crate) fn lower_name(&self) -> &'a [u8] {
        match &self.texts.lower {
            Some(lower) => lower.as_bytes().get(..self.texts.lower_name.into()),
            None => Some(self.texts.name.of(self.bytes)),
        }
        .unwrap_or_default()
    }

    /// Whether a word in lower case is a part of name, description, game or tags.
    pub(crate) fn has(&self, word: &Finder<'_>) -> bool {
        let is_in = |text: &[u8]| word.find(text).is_some();
        // They stand close together: one look tells of most that none has it.
        let tags: usize = self.texts.tag_bytes.iter().map(|length| usize::from(*length) + 1).sum();
        let end = usize::from(u16::from_be_bytes(self.texts.tags)) + tags;
        let end = end.min(self.bytes.len()).max(self.texts.name.end());
        let end = end.max(self.texts.description.end());
        if let Some(lower) = &self.texts.lower
            && is_in(lower.as_bytes())
        {
            return true;
        }
        let all = self.bytes.get(self.texts.game.start()..end).unwrap_or_default();
        if !is_in(all) {
            return false;
        }
        let as_it_is = self.texts.lower.is_none();
        is_in(self.game())
            || self.tags().any(is_in)
            || as_it_is && is_in(self.texts.name.of(self.bytes))
            || as_it_is && is_in(self.texts.description.of(self.bytes))
    }
}
