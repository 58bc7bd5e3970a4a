//! A place in a result, as it is handed out and comes back.
//!
//! It says between which keys the page before ended, so that it needs nobody to
//! remember it, and rows that come and go do not disturb it: every page begins
//! behind the last row of the page before.

use std::cmp::Reverse;
use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use homehost_protocol::ServerId;
use homehost_protocol::limits::CURSOR_BYTES_MAX;
use homehost_protocol::rpc::Trouble;
use homehost_protocol::rpc::query::SortBy;
use thiserror::Error;

use super::Sort;
use super::order::{Key, Name};

/// Where a page ended. As bytes: version 1, order, standing, value (big endian),
/// id, name; its text is their base32.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub(super) sort: Sort,
    standing: u8,
    value: u64,
    id: ServerId,
    name: String,
}

/// A text or bytes that are no cursor, or not one of this search.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("this cursor is not of this search: begin anew without one")]
pub struct CursorError;

impl From<CursorError> for Trouble {
    fn from(_: CursorError) -> Self {
        Self::Cursor
    }
}

const VERSION: u8 = 1;

/// Room for a name: 48 bytes in lower case are at most 72.
const NAME_BYTES_MAX: usize = CURSOR_BYTES_MAX - (1 + 1 + 1 + 8 + ServerId::LEN);

impl Cursor {
    pub(super) fn after(sort: Sort, key: &Key<'_>) -> Self {
        let Key { standing: Reverse(standing), value: Reverse(value), name, id } = *key;
        let name = name.as_str();
        let name = &name[..name.floor_char_boundary(NAME_BYTES_MAX)];
        Self { sort, standing, value, id, name: name.to_owned() }
    }

    pub(super) fn key(&self, sort: Sort) -> Result<Key<'_>, CursorError> {
        if self.sort != sort {
            return Err(CursorError);
        }
        Ok(Key {
            standing: Reverse(self.standing),
            value: Reverse(self.value),
            name: Name(self.name.as_bytes()),
            id: self.id,
        })
    }

    /// Its bytes, at most [`CURSOR_BYTES_MAX`].
    pub fn to_bytes(&self) -> Vec<u8> {
        let head = [VERSION, SortBy::from(self.sort).into(), self.standing];
        [&head, self.value.to_be_bytes().as_slice(), self.id.as_ref(), self.name.as_bytes()]
            .concat()
    }
}

impl TryFrom<&[u8]> for Cursor {
    type Error = CursorError;
    fn try_from(bytes: &[u8]) -> Result<Self, CursorError> {
        let (&[version, sort, standing], rest) = bytes.split_first_chunk().ok_or(CursorError)?;
        let (value, rest) = rest.split_first_chunk().ok_or(CursorError)?;
        let (id, name) = rest.split_first_chunk().ok_or(CursorError)?;
        if version != VERSION || name.len() > NAME_BYTES_MAX {
            return Err(CursorError);
        }
        Ok(Self {
            sort: SortBy::try_from(sort).map_err(|_| CursorError)?.into(),
            standing,
            value: u64::from_be_bytes(*value),
            id: ServerId(*id),
            name: str::from_utf8(name).map_err(|_| CursorError)?.to_owned(),
        })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32_NOPAD.encode(&self.to_bytes()).to_ascii_lowercase())
    }
}

impl FromStr for Cursor {
    type Err = CursorError;
    fn from_str(text: &str) -> Result<Self, CursorError> {
        if text.len() > BASE32_NOPAD.encode_len(CURSOR_BYTES_MAX) {
            return Err(CursorError);
        }
        let bytes = BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes());
        Self::try_from(bytes.map_err(|_| CursorError)?.as_slice())
    }
}
