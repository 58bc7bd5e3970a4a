//! Deterministic CBOR (spec/records §2).
//!
//! [`check`] is a linear walk over bytes from outside that accepts exactly one
//! encoding of each value; `serde_cbor` alone accepts many (duplicate and
//! unsorted keys, indefinite lengths, wide integers, tags). Only bytes that
//! passed the walk are decoded. `cbor_map!` (internal) gives a struct integer
//! keys that are assigned by hand, never by the order of declaration.

use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::limits::CBOR_DEPTH_MAX;

/// Keys from here on may be ignored by a reader that does not know them; an
/// unknown key below is critical and refuses the whole record.
pub const FIRST_IGNORABLE_KEY: u64 = 128;

/// How the text of a decode error begins its mention of an unknown critical key;
/// serde's errors carry text only.
pub(crate) const UNKNOWN_CRITICAL: &str = "unknown critical key";

/// Why bytes are not one deterministic CBOR item.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum WalkError {
    /// The item goes on past the end.
    #[error("truncated CBOR")]
    Truncated,
    /// Bytes follow the item.
    #[error("trailing bytes after CBOR")]
    Trailing,
    /// A length or integer in more bytes than needed.
    #[error("CBOR integer not in its shortest form")]
    NotMinimal,
    /// Indefinite length, tag, float, or a simple value other than false, true, null.
    #[error("CBOR item of a kind that records do not use")]
    Forbidden,
    /// A map key that is not an unsigned integer.
    #[error("CBOR map key that is not an unsigned integer")]
    KeyKind,
    /// Map keys out of order or twice.
    #[error("CBOR map keys unsorted or repeated")]
    KeyOrder,
    /// Containers nested deeper than allowed.
    #[error("CBOR nested deeper than {CBOR_DEPTH_MAX}")]
    TooDeep,
    /// A text that is not UTF-8.
    #[error("CBOR text that is not UTF-8")]
    NotUtf8,
}

/// Why bytes could not be decoded as a wanted type.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// The bytes are not deterministic CBOR.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// They are, but not of the wanted shape.
    #[error("CBOR of another shape")]
    Shape(#[source] serde_cbor::Error),
}

/// Checks that `bytes` is exactly one CBOR item in its deterministic encoding.
///
/// Linear in the input, no allocation, recursion bounded by [`CBOR_DEPTH_MAX`].
///
/// # Errors
/// The first rule that the bytes break.
pub fn check(bytes: &[u8]) -> Result<(), WalkError> {
    let mut walk = Walk { rest: bytes };
    walk.item(0)?;
    if walk.rest.is_empty() { Ok(()) } else { Err(WalkError::Trailing) }
}

/// Checks, then decodes.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    check(bytes)?;
    decode_checked(bytes)
}

/// Decodes what [`check`] has passed before.
pub(crate) fn decode_checked<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    serde_cbor::from_slice(bytes).map_err(DecodeError::Shape)
}

/// Encodes a value of this crate's own types.
///
/// # Panics
/// Never for types of this crate: they hold only integers, bytes, texts, arrays
/// and maps of known length, which cannot fail to encode into memory.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_cbor::to_vec(value).expect("plain data encodes into memory")
}

/// A byte string on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blob(pub Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Blob;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a byte string")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.into()))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

/// A text on the wire, which a byte string is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text(pub(crate) String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Text;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.into()))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

struct Walk<'a> {
    rest: &'a [u8],
}

impl<'a> Walk<'a> {
    fn take(&mut self, length: u64) -> Result<&'a [u8], WalkError> {
        let length = usize::try_from(length).map_err(|_| WalkError::Truncated)?;
        let (head, rest) = self.rest.split_at_checked(length).ok_or(WalkError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// Reads an initial byte and its argument (RFC 8949 §3).
    fn head(&mut self) -> Result<(u8, u64), WalkError> {
        let first = self.take(1)?[0];
        let (major, info) = (first >> 5, first & 0x1f);
        let width = match info {
            0..=23 => return Ok((major, u64::from(info))),
            24..=27 => 1_usize << (info - 24),
            _ => return Err(WalkError::Forbidden),
        };
        // Major 7 with an argument is a float or an unassigned simple value.
        if major == 7 {
            return Err(WalkError::Forbidden);
        }
        let value = self
            .take(width as u64)?
            .iter()
            .fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        let smallest = match width {
            1 => 24,
            2 => 1 << 8,
            4 => 1 << 16,
            _ => 1 << 32,
        };
        if value < smallest { Err(WalkError::NotMinimal) } else { Ok((major, value)) }
    }

    fn item(&mut self, depth: usize) -> Result<(), WalkError> {
        match self.head()? {
            (0 | 1, _) => Ok(()),
            (2, length) => self.take(length).map(drop),
            (3, length) => {
                std::str::from_utf8(self.take(length)?).map(drop).map_err(|_| WalkError::NotUtf8)
            }
            (4, count) => {
                let depth = deeper(depth)?;
                // Each element takes at least a byte, so a false count ends at
                // the end of the input and not after `count` turns.
                (0..count).try_for_each(|_| self.item(depth))
            }
            (5, count) => {
                let depth = deeper(depth)?;
                let mut last = None;
                for _ in 0..count {
                    let (major, key) = self.head()?;
                    if major != 0 {
                        return Err(WalkError::KeyKind);
                    }
                    if last.is_some_and(|last| key <= last) {
                        return Err(WalkError::KeyOrder);
                    }
                    last = Some(key);
                    self.item(depth)?;
                }
                Ok(())
            }
            (7, 20..=22) => Ok(()),
            _ => Err(WalkError::Forbidden),
        }
    }
}

fn deeper(depth: usize) -> Result<usize, WalkError> {
    if depth == CBOR_DEPTH_MAX { Err(WalkError::TooDeep) } else { Ok(depth + 1) }
}

/// Declares a struct that is a CBOR map with integer keys.
///
/// `required KEY name: T` must be there; `optional KEY name: T` is an
/// `Option<T>` and `list KEY name: T` a `Vec<T>`, both left out when empty.
/// Texts have the modes `text`, `optional_text` and `text_list`: serde's own
/// `String` would also take a byte string.
/// Keys must be listed in ascending order, which [`check`] enforces on the wire.
macro_rules! cbor_map {
    (@type required $ty:ty) => { $ty };
    (@type optional $ty:ty) => { Option<$ty> };
    (@type list $ty:ty) => { Vec<$ty> };
    (@type text $ty:ty) => { $ty };
    (@type optional_text $ty:ty) => { Option<$ty> };
    (@type text_list $ty:ty) => { Vec<$ty> };
    (@present required $value:expr) => { true };
    (@present optional $value:expr) => { $value.is_some() };
    (@present list $value:expr) => { !$value.is_empty() };
    (@present text $value:expr) => { true };
    (@present optional_text $value:expr) => { $value.is_some() };
    (@present text_list $value:expr) => { !$value.is_empty() };
    (@unwrap required $key:literal $value:expr) => {
        $value.ok_or_else(|| serde::de::Error::custom(concat!("key ", $key, " is missing")))?
    };
    (@unwrap optional $key:literal $value:expr) => { $value };
    (@unwrap list $key:literal $value:expr) => {
        // An empty list is left out; said explicitly it would be a second spelling.
        match $value {
            Some(list) if list.is_empty() => {
                return Err(serde::de::Error::custom(concat!("key ", $key, " is empty")));
            }
            list => list.unwrap_or_default(),
        }
    };
    (@unwrap text $key:literal $value:expr) => {
        $crate::cbor::cbor_map!(@unwrap required $key $value).0
    };
    (@unwrap optional_text $key:literal $value:expr) => { $value.map(|text| text.0) };
    (@unwrap text_list $key:literal $value:expr) => {
        $crate::cbor::cbor_map!(@unwrap list $key $value)
            .into_iter()
            .map(|text| text.0)
            .collect()
    };
    (@wire required $ty:ty) => { $ty };
    (@wire optional $ty:ty) => { $ty };
    (@wire list $ty:ty) => { Vec<$ty> };
    (@wire text $ty:ty) => { $crate::cbor::Text };
    (@wire optional_text $ty:ty) => { $crate::cbor::Text };
    (@wire text_list $ty:ty) => { Vec<$crate::cbor::Text> };
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $( $(#[$field_meta:meta])* $mode:ident $key:literal $field:ident : $ty:ty, )*
        }
    ) => {
        $(#[$meta])*
        $vis struct $name {
            $( $(#[$field_meta])* pub $field: $crate::cbor::cbor_map!(@type $mode $ty), )*
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeMap as _;
                let count = 0 $( + usize::from($crate::cbor::cbor_map!(@present $mode self.$field)) )*;
                let mut map = serializer.serialize_map(Some(count))?;
                $(
                    if $crate::cbor::cbor_map!(@present $mode self.$field) {
                        map.serialize_entry(&($key as u64), &self.$field)?;
                    }
                )*
                map.end()
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl<'de> serde::de::Visitor<'de> for Visitor {
                    type Value = $name;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(concat!("the map of ", stringify!($name)))
                    }
                    fn visit_map<A: serde::de::MapAccess<'de>>(
                        self,
                        mut map: A,
                    ) -> Result<$name, A::Error> {
                        $( let mut $field: Option<$crate::cbor::cbor_map!(@wire $mode $ty)> = None; )*
                        while let Some(key) = map.next_key::<u64>()? {
                            match key {
                                $( $key => $field = Some(map.next_value()?), )*
                                $crate::cbor::FIRST_IGNORABLE_KEY.. => {
                                    map.next_value::<serde::de::IgnoredAny>()?;
                                }
                                _ => {
                                    return Err(serde::de::Error::custom(
                                        format_args!("{} {key}", $crate::cbor::UNKNOWN_CRITICAL),
                                    ));
                                }
                            }
                        }
                        Ok($name {
                            $( $field: $crate::cbor::cbor_map!(@unwrap $mode $key $field), )*
                        })
                    }
                }
                deserializer.deserialize_map(Visitor)
            }
        }
    };
}
pub(crate) use cbor_map;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_encoding_of_each_value_is_accepted() {
        for (hex, expected) in [
            ("00", Ok(())),
            ("17", Ok(())),
            ("1818", Ok(())),
            ("20", Ok(())),
            ("1817", Err(WalkError::NotMinimal)),
            ("190017", Err(WalkError::NotMinimal)),
            ("1a0000ffff", Err(WalkError::NotMinimal)),
            ("1b00000000ffffffff", Err(WalkError::NotMinimal)),
            ("1b0000000100000000", Ok(())),
            ("f4", Ok(())),
            ("f6", Ok(())),
            ("f7", Err(WalkError::Forbidden)),
            ("f818", Err(WalkError::Forbidden)),
            ("f90000", Err(WalkError::Forbidden)),
            ("c100", Err(WalkError::Forbidden)),
            ("9fff", Err(WalkError::Forbidden)),
            ("5fff", Err(WalkError::Forbidden)),
            ("bfff", Err(WalkError::Forbidden)),
            ("8100", Ok(())),
            ("81", Err(WalkError::Truncated)),
            ("810000", Err(WalkError::Trailing)),
            ("", Err(WalkError::Truncated)),
            ("9bffffffffffffffff", Err(WalkError::Truncated)),
            ("bbffffffffffffffff", Err(WalkError::Truncated)),
            ("5bffffffffffffffff00", Err(WalkError::Truncated)),
            ("a201000200", Ok(())),
            ("a202000100", Err(WalkError::KeyOrder)),
            ("a201000100", Err(WalkError::KeyOrder)),
            ("a1616100", Err(WalkError::KeyKind)),
            ("a12000", Err(WalkError::KeyKind)),
            ("62c328", Err(WalkError::NotUtf8)),
            ("8181818181818180", Ok(())),
            ("818181818181818180", Err(WalkError::TooDeep)),
        ] {
            let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).expect("hex in the table");
            assert_eq!(check(&bytes), expected, "{hex}");
        }
    }

    #[test]
    fn a_depth_bomb_ends_at_the_limit() {
        assert_eq!(check(&[0x81; 100_000]), Err(WalkError::TooDeep));
    }

    cbor_map! {
        /// A map for these tests.
        #[derive(Debug, PartialEq)]
        pub(super) struct Sample {
            /// A number.
            required 1 number: u8,
            /// A text.
            optional_text 2 text: String,
            /// Numbers.
            list 3 numbers: u16,
        }
    }

    #[test]
    fn fields_have_integer_keys_and_absent_ones_are_left_out() {
        let full = Sample { number: 1, text: Some("x".into()), numbers: vec![500] };
        let bytes = encode(&full);
        assert_eq!(bytes, [0xa3, 1, 1, 2, 0x61, b'x', 3, 0x81, 0x19, 1, 0xf4]);
        assert_eq!(decode::<Sample>(&bytes).expect("own bytes"), full);
        let bare = Sample { number: 1, text: None, numbers: vec![] };
        assert_eq!(encode(&bare), [0xa1, 1, 1]);
        assert_eq!(decode::<Sample>(&[0xa1, 1, 1]).expect("own bytes"), bare);
    }

    #[test]
    fn unknown_keys_are_critical_below_128_and_ignored_above() {
        assert!(decode::<Sample>(&[0xa2, 1, 1, 0x18, 0x7f, 0]).is_err());
        assert!(decode::<Sample>(&[0xa2, 1, 1, 0x18, 0x80, 0]).is_ok());
        assert!(decode::<Sample>(&[0xa1, 2, 0x61, b'x']).is_err(), "required key missing");
        assert!(decode::<Sample>(&[0xa2, 1, 1, 2, 0xf6]).is_err(), "null is not absence");
        assert!(decode::<Sample>(&[0xa2, 1, 1, 2, 0x41, b'x']).is_err(), "bytes are no text");
        assert!(decode::<Sample>(&[0xa2, 1, 1, 3, 0x80]).is_err(), "empty is left out");
    }
}
