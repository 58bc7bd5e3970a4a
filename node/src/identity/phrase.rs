//! The recovery phrase: twelve words from which every recovery key of a root
//! follows (spec/records §5).
//!
//! Recovery keys sign key events and nothing else. The words are never logged,
//! never sent and never stored.

use std::io;

use bip39::{Language, Mnemonic};
use homehost_protocol::keys::{DeviceKey, KeyDigest};
use thiserror::Error;
use zeroize::{Zeroize as _, Zeroizing};

/// Words of a phrase: 128 bits.
pub(crate) const WORDS: usize = 12;

/// Bytes that a phrase stands for.
pub(crate) const ENTROPY_BYTES: usize = 16;

/// Context of the derivation of recovery keys.
const CONTEXT: &str = "homehost recovery key 1";

/// Why words are not a phrase. Which words they were is not repeated.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum PhraseError {
    /// Too many or too few.
    #[error("a recovery phrase has {WORDS} words, these are {0}: type all of them, in order")]
    Count(usize),
    /// A word that no phrase has.
    #[error("word {0} is in no recovery phrase: look for a slip of the pen")]
    Unknown(usize),
    /// The last word does not fit the others.
    #[error("these words do not belong together: one is wrong, or the order is")]
    Checksum,
}

/// Twelve words. Wiped when dropped, never printed by itself.
#[derive(Clone)]
pub(crate) struct Phrase(Mnemonic);

impl std::fmt::Debug for Phrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Phrase(secret)")
    }
}

impl Phrase {
    /// A new one.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub(crate) fn random() -> io::Result<Self> {
        let mut entropy = Zeroizing::new([0; ENTROPY_BYTES]);
        getrandom::fill(entropy.as_mut()).map_err(io::Error::other)?;
        Ok(Self::of_entropy(&entropy))
    }

    /// The phrase that stands for some bytes.
    pub(crate) fn of_entropy(entropy: &[u8; ENTROPY_BYTES]) -> Self {
        Self(Mnemonic::from_entropy(entropy).expect("16 bytes are the entropy of twelve words"))
    }

    /// Reads what a person typed: any white space, either case.
    ///
    /// # Errors
    /// See [`PhraseError`].
    pub(crate) fn parse(text: &str) -> Result<Self, PhraseError> {
        let count = text.split_whitespace().count();
        if count != WORDS {
            return Err(PhraseError::Count(count));
        }
        let mut words = Zeroizing::new(String::with_capacity(text.len() + 1));
        for word in text.split_whitespace() {
            if !words.is_empty() {
                words.push(' ');
            }
            words.extend(word.chars().map(|c| c.to_ascii_lowercase()));
        }
        Mnemonic::parse_in_normalized(Language::English, &words).map(Self).map_err(|error| {
            match error {
                bip39::Error::UnknownWord(at) => PhraseError::Unknown(at + 1),
                _ => PhraseError::Checksum,
            }
        })
    }

    /// The bytes that it stands for.
    #[cfg(test)]
    pub(crate) fn entropy(&self) -> Zeroizing<[u8; ENTROPY_BYTES]> {
        let (mut bytes, _) = self.0.to_entropy_array();
        let mut entropy = Zeroizing::new([0; ENTROPY_BYTES]);
        entropy.copy_from_slice(&bytes[..ENTROPY_BYTES]);
        bytes.zeroize();
        entropy
    }

    /// The words, in order.
    pub(crate) fn words(&self) -> Vec<&'static str> {
        self.0.words().collect()
    }

    /// The recovery key with which an epoch begins: 1 for the first rotation or
    /// revocation. BLAKE3 `derive_key` over the BIP-39 seed without passphrase
    /// and the epoch as 16 bits, big endian.
    pub(crate) fn key(&self, epoch: u16) -> DeviceKey {
        let mut seed = Zeroizing::new(self.0.to_seed_normalized(""));
        let input = Zeroizing::new([seed.as_ref(), &epoch.to_be_bytes()].concat());
        seed.zeroize();
        DeviceKey::from_seed(blake3::derive_key(CONTEXT, &input))
    }

    /// What the event before says of [`Self::key`].
    pub(crate) fn commitment(&self, epoch: u16) -> KeyDigest {
        KeyDigest::of(&self.key(epoch).public())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABANDON: &str = "abandon abandon abandon abandon abandon abandon abandon abandon \
                           abandon abandon abandon about";

    fn hex(bytes: &[u8]) -> String {
        data_encoding::HEXLOWER.encode(bytes)
    }

    /// The vector of spec/records §5: other programs must derive the same keys.
    #[test]
    fn keys_follow_from_the_words_as_the_specification_says() {
        let phrase = Phrase::parse(ABANDON).unwrap();
        assert_eq!(*phrase.entropy(), [0; 16]);
        assert_eq!(phrase.words().join(" "), ABANDON);
        let seed = phrase.0.to_seed_normalized("");
        assert!(hex(&seed).starts_with("5eb00bbddcf069084889a8ab91555681"), "BIP-39's own vector");
        let spec = include_str!("../../../docs/spec/records.md");
        for epoch in [1, 2, 258] {
            let (key, digest) = (phrase.key(epoch).public(), phrase.commitment(epoch));
            let row = format!("| {epoch} | `{}` | `{}` |", hex(&key.0), hex(&digest.0));
            assert!(spec.contains(&row), "docs/spec/records.md lacks the row {row}");
        }
    }

    #[test]
    fn a_slip_is_explained_and_never_repeated() {
        assert_eq!(*Phrase::parse(&ABANDON.to_uppercase()).unwrap().entropy(), [0; 16]);
        let error = |text: &str| Phrase::parse(text).unwrap_err();
        assert_eq!(error("abandon about"), PhraseError::Count(2));
        assert_eq!(error(""), PhraseError::Count(0));
        assert_eq!(error(&ABANDON.replacen("abandon", "abundon", 3)), PhraseError::Unknown(1));
        assert_eq!(error(&ABANDON.replace("about", "above")), PhraseError::Checksum);
        assert_eq!(error(&ABANDON.replace("about", "ünknown")), PhraseError::Unknown(12));
    }

    #[test]
    fn phrases_are_not_printed_and_not_alike() {
        let (one, other) = (Phrase::random().unwrap(), Phrase::random().unwrap());
        assert_eq!(format!("{one:?}"), "Phrase(secret)");
        assert_ne!(*one.entropy(), *other.entropy());
        assert_ne!(one.commitment(1), one.commitment(2));
        let again = Phrase::of_entropy(&one.entropy());
        assert_eq!(one.commitment(7), again.commitment(7));
    }
}
