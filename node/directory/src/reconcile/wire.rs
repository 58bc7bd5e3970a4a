//! The form of a reconciliation message: checked before it is worked on, and
//! taken apart so that a long one can be said in several.
//!
//! The negentropy crate reads leniently: a number that is cut short is zero, and
//! ranges may run backwards. Nothing there grows without bound, but a message
//! that no honest side writes is refused before any work is done for it.

use std::collections::VecDeque;

use homehost_protocol::limits::RECONCILE_BYTES_MAX;
use negentropy::{FINGERPRINT_SIZE, ID_SIZE, Id, PROTOCOL_VERSION};

use super::ReconcileError;

/// Ranges of one message. A fingerprint takes at least 19 bytes, so that an
/// honest side writes at most 3,234 ranges and as many to skip between them.
pub const RANGES_MAX: usize = 6_500;

/// An end of a range: everything of an earlier date, and of that date every id
/// below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bound {
    /// Milliseconds; the greatest number stands for infinity.
    date: u64,
    /// Beginning of an id, filled up with zeros.
    id: [u8; ID_SIZE],
    /// How much of the id is said.
    len: usize,
}

impl Bound {
    /// Whether nothing lies beyond.
    fn is_infinite(&self) -> bool {
        self.date == u64::MAX
    }

    /// Whether it lies before another.
    pub(super) fn is_below(&self, other: &Self) -> bool {
        (self.date, self.id) < (other.date, other.id)
    }
}

impl From<Bound> for negentropy::Bound {
    fn from(bound: Bound) -> Self {
        let mut item = negentropy::Item::with_timestamp(bound.date);
        item.id = Id::from_byte_array(bound.id);
        Self { item, id_len: bound.len }
    }
}

/// A range that is to be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) lower: Bound,
    pub(super) upper: Bound,
    /// How it is compared: mode, and fingerprint or ids.
    body: Vec<u8>,
}

impl Range {
    /// A range that holds these ids.
    pub(super) fn of_ids(lower: Bound, upper: Bound, ids: &[Id]) -> Self {
        let mut writer = Writer { bytes: vec![IDS], date: 0 };
        writer.number(ids.len() as u64);
        ids.iter().for_each(|id| writer.bytes.extend_from_slice(id.as_bytes()));
        Self { lower, upper, body: writer.bytes }
    }

    /// Whether it is compared by its ids.
    pub(super) fn is_list(&self) -> bool {
        self.body.first() == Some(&IDS)
    }
}

/// The end of a message that may have been cut for its length: a fingerprint of
/// everything behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rest {
    /// Where it begins.
    pub(super) lower: Bound,
    /// How many bytes lie before it.
    pub(super) at: usize,
}

/// Checks that a message is complete, in order, and within its limits. Reads
/// every byte once and sets nothing aside. Tells how it ends.
pub(super) fn check(message: &[u8]) -> Result<Option<Rest>, ReconcileError> {
    if message.len() > RECONCILE_BYTES_MAX {
        return Err(ReconcileError::TooLong(message.len()));
    }
    let Some((&version, rest)) = message.split_first() else {
        return Err(ReconcileError::Malformed);
    };
    if u64::from(version) != PROTOCOL_VERSION {
        return Err(ReconcileError::Version);
    }
    let mut reader = Reader { rest, date: 0 };
    let mut before = Bound::default();
    let mut ranges = 0;
    let mut last = None;
    while !reader.rest.is_empty() {
        ranges += 1;
        let at = message.len() - reader.rest.len();
        if ranges > RANGES_MAX {
            return Err(ReconcileError::TooManyRanges);
        }
        let (upper, body) = reader.range().ok_or(ReconcileError::Malformed)?;
        if upper.is_below(&before) {
            return Err(ReconcileError::Malformed);
        }
        let is_rest = upper.is_infinite() && body.first() == Some(&FINGERPRINT);
        last = is_rest.then_some(Rest { lower: before, at });
        before = upper;
    }
    Ok(last)
}

/// The ranges that a message of our own compares.
pub(super) fn ranges(message: &[u8]) -> Vec<Range> {
    let mut reader = Reader { rest: message.get(1..).unwrap_or_default(), date: 0 };
    let mut ranges = Vec::new();
    let mut lower = Bound::default();
    while let Some((upper, body)) = reader.range() {
        if body != [SKIP] {
            ranges.push(Range { lower, upper, body: body.to_vec() });
        }
        lower = upper;
    }
    ranges
}

/// A message of as many of these ranges, one after the other, as fit; says how
/// many those are.
pub(super) fn message(ranges: &VecDeque<Range>, most: usize) -> (Vec<u8>, usize) {
    let mut writer = Writer { bytes: vec![PROTOCOL_VERSION as u8], date: 0 };
    let mut lower = Bound::default();
    for (count, range) in ranges.iter().enumerate() {
        let room = most - writer.bytes.len();
        let fits = 2 * BOUND_BYTES_MAX + 1 + range.body.len() <= room;
        // Only where the peer has answered what was not asked do ranges overlap.
        if !fits || range.lower.is_below(&lower) {
            return (writer.bytes, count);
        }
        if range.lower != lower {
            writer.bound(&range.lower);
            writer.bytes.push(SKIP);
        }
        writer.bound(&range.upper);
        writer.bytes.extend_from_slice(&range.body);
        lower = range.upper;
    }
    (writer.bytes, ranges.len())
}

const SKIP: u8 = 0;
const FINGERPRINT: u8 = 1;
const IDS: u8 = 2;

/// A bound: a date, a length, an id.
const BOUND_BYTES_MAX: usize = 10 + 1 + ID_SIZE;

struct Reader<'a> {
    rest: &'a [u8],
    /// The date of the bound before: dates are told as differences.
    date: u64,
}

impl<'a> Reader<'a> {
    /// Reads a range: its upper end and its body.
    fn range(&mut self) -> Option<(Bound, &'a [u8])> {
        // Zero stands for infinity, everything else is one more than it says.
        self.date = match self.number()? {
            0 => u64::MAX,
            more => self.date.saturating_add(more - 1),
        };
        let len = self.number()?;
        let prefix = self.bytes(len, 1)?;
        let mut upper = Bound { date: self.date, id: [0; ID_SIZE], len: prefix.len() };
        upper.id.get_mut(..prefix.len())?.copy_from_slice(prefix);
        let body = self.rest;
        match self.bytes(1, 1)? {
            [SKIP] => {}
            [FINGERPRINT] => drop(self.bytes(1, FINGERPRINT_SIZE)?),
            [IDS] => {
                let ids = self.number()?;
                self.bytes(ids, ID_SIZE)?;
            }
            _ => return None,
        }
        Some((upper, &body[..body.len() - self.rest.len()]))
    }

    /// A number of 64 bits in groups of seven, highest first, without leading
    /// zeros.
    fn number(&mut self) -> Option<u64> {
        let mut number: u64 = 0;
        loop {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            if number == 0 && byte == 0x80 || number.leading_zeros() < 7 {
                return None;
            }
            number = number << 7 | u64::from(byte & 0x7f);
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
    }

    /// The next `count` × `size` bytes, if there are as many.
    fn bytes(&mut self, count: u64, size: usize) -> Option<&'a [u8]> {
        let bytes = usize::try_from(count).ok()?.checked_mul(size)?;
        let (bytes, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(bytes)
    }
}

struct Writer {
    bytes: Vec<u8>,
    /// The date of the bound before.
    date: u64,
}

impl Writer {
    fn bound(&mut self, bound: &Bound) {
        if bound.is_infinite() {
            self.bytes.push(0);
        } else {
            self.number(bound.date - self.date + 1);
        }
        self.date = bound.date;
        self.number(bound.len as u64);
        self.bytes.extend_from_slice(&bound.id[..bound.len]);
    }

    fn number(&mut self, number: u64) {
        let groups = (64 - number.leading_zeros()).div_ceil(7).max(1);
        for group in (0..groups).rev() {
            let more = if group == 0 { 0 } else { 0x80 };
            self.bytes.push((number >> (7 * group)) as u8 & 0x7f | more);
        }
    }
}
