//! The signed envelope: libp2p's `SignedEnvelope`, in one encoding only
//! (spec/records §3).
//!
//! The layout is protobuf: field 1 public key, 2 payload type, 3 payload,
//! 5 signature, each once, in this order, lengths in minimal varints, nothing
//! else. js-libp2p and go-libp2p open what is written here; what they would
//! also accept besides is refused here, because two encodings of one statement
//! would be two record ids, and any relay could mint more.

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::IsIdentity as _;
use ed25519_dalek::{Signature, Signer as _, SigningKey, Verifier as _, VerifyingKey};
use sha2::{Digest as _, Sha512};
use thiserror::Error;

use crate::keys::PublicKey;
use crate::limits::ENVELOPE_BYTES_MAX;
use crate::version::RECORD_DOMAIN;

/// Protobuf of a libp2p Ed25519 public key: type 1, then 32 bytes of data.
const KEY_PREFIX: [u8; 4] = [0x08, 0x01, 0x12, 0x20];
const KEY_BYTES: usize = KEY_PREFIX.len() + 32;

/// Why bytes are not an envelope in its one canonical encoding.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum EnvelopeError {
    /// Longer than [`ENVELOPE_BYTES_MAX`].
    #[error("envelope longer than {ENVELOPE_BYTES_MAX} bytes")]
    TooLong,
    /// A field ends past the end.
    #[error("truncated envelope")]
    Truncated,
    /// Another field, order, or length encoding.
    #[error("envelope not in its canonical encoding")]
    NotCanonical,
    /// Key of another type than Ed25519. Whether it is a point of the curve shows
    /// when the signature is checked.
    #[error("envelope key is not an Ed25519 key")]
    Key,
    /// Bytes follow the signature.
    #[error("trailing bytes after envelope")]
    Trailing,
}

/// Why a signature does not count.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum SignatureError {
    /// Wrong under every rule.
    #[error("bad signature")]
    Bad,
    /// Good under a rule that other libraries apply, bad under ours: a
    /// small-order key or a component outside the prime-order group.
    #[error("signature that only a lax verifier accepts")]
    Lax,
}

/// An envelope's parts, borrowed from the bytes that were received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Who signed.
    pub key: PublicKey,
    /// What the payload is, as in `/homehost/rec/server-listing/1`.
    pub payload_type: &'a [u8],
    /// The record.
    pub payload: &'a [u8],
    /// Ed25519 signature over [`signing_input`].
    pub signature: [u8; 64],
}

impl<'a> Envelope<'a> {
    /// Takes an envelope apart; the signature is not looked at.
    ///
    /// # Errors
    /// See [`EnvelopeError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        if bytes.len() > ENVELOPE_BYTES_MAX {
            return Err(EnvelopeError::TooLong);
        }
        let mut rest = bytes;
        let key = field(&mut rest, 1)?;
        let payload_type = field(&mut rest, 2)?;
        let payload = field(&mut rest, 3)?;
        let signature = field(&mut rest, 5)?;
        if !rest.is_empty() {
            return Err(EnvelopeError::Trailing);
        }
        let key = key.strip_prefix(&KEY_PREFIX).ok_or(EnvelopeError::Key)?;
        let key = PublicKey(key.try_into().map_err(|_| EnvelopeError::Key)?);
        let signature = signature.try_into().map_err(|_| EnvelopeError::NotCanonical)?;
        Ok(Self { key, payload_type, payload, signature })
    }

    /// Checks the signature, strictly.
    ///
    /// # Errors
    /// See [`SignatureError`].
    pub fn verify(&self) -> Result<(), SignatureError> {
        let key = VerifyingKey::from_bytes(&self.key.0).map_err(|_| SignatureError::Bad)?;
        let signature = Signature::from_bytes(&self.signature);
        let input = signing_input(self.payload_type, self.payload);
        if key.verify_strict(&input, &signature).is_ok() {
            Ok(())
        } else if key.verify(&input, &signature).is_ok()
            || holds_with_cofactor(&key, &input, &signature)
        {
            Err(SignatureError::Lax)
        } else {
            Err(SignatureError::Bad)
        }
    }
}

/// Whether a signature satisfies the equation of RFC 8032, section 5.1.7, in
/// which everything is multiplied by the cofactor: the laxest rule in use.
fn holds_with_cofactor(key: &VerifyingKey, input: &[u8], signature: &Signature) -> bool {
    let nonce = CompressedEdwardsY(*signature.r_bytes()).decompress();
    let s: Option<Scalar> = Scalar::from_canonical_bytes(*signature.s_bytes()).into();
    let (Some(nonce), Some(s)) = (nonce, s) else { return false };
    let hash = Sha512::new().chain_update(signature.r_bytes()).chain_update(key.as_bytes());
    let hash = hash.chain_update(input).finalize();
    let k = Scalar::from_bytes_mod_order_wide(&hash.into());
    let expected = EdwardsPoint::vartime_double_scalar_mul_basepoint(&k, &-key.to_edwards(), &s);
    (expected - nonce).mul_by_cofactor().is_identity()
}

/// Seals a payload: the bytes of a canonical envelope.
///
/// The caller keeps within [`ENVELOPE_BYTES_MAX`]; [`crate::record`] checks it.
pub fn seal(key: &SigningKey, payload_type: &[u8], payload: &[u8]) -> Vec<u8> {
    let signature = key.sign(&signing_input(payload_type, payload)).to_bytes();
    let mut bytes = Vec::with_capacity(KEY_BYTES + payload_type.len() + payload.len() + 80);
    let mut key_field = [0; KEY_BYTES];
    key_field[..KEY_PREFIX.len()].copy_from_slice(&KEY_PREFIX);
    key_field[KEY_PREFIX.len()..].copy_from_slice(key.verifying_key().as_bytes());
    for (number, value) in
        [(1, &key_field[..]), (2, payload_type), (3, payload), (5, &signature[..])]
    {
        bytes.push(number << 3 | 2);
        push_varint(&mut bytes, value.len());
        bytes.extend_from_slice(value);
    }
    bytes
}

/// What is signed: domain, payload type and payload, each behind its length
/// (libp2p RFC 0002).
fn signing_input(payload_type: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut input =
        Vec::with_capacity(RECORD_DOMAIN.len() + payload_type.len() + payload.len() + 8);
    for part in [RECORD_DOMAIN.as_bytes(), payload_type, payload] {
        push_varint(&mut input, part.len());
        input.extend_from_slice(part);
    }
    input
}

fn push_varint(bytes: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Takes the length-delimited field `number` from the front of `rest`.
fn field<'a>(rest: &mut &'a [u8], number: u8) -> Result<&'a [u8], EnvelopeError> {
    let (&tag, after) = rest.split_first().ok_or(EnvelopeError::Truncated)?;
    if tag != number << 3 | 2 {
        return Err(EnvelopeError::NotCanonical);
    }
    *rest = after;
    let mut length = 0_usize;
    // Two bytes of varint count to 16,383, more than an envelope may have.
    for shift in [0, 7] {
        let (&byte, after) = rest.split_first().ok_or(EnvelopeError::Truncated)?;
        *rest = after;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            if byte == 0 && shift > 0 {
                return Err(EnvelopeError::NotCanonical);
            }
            let (value, after) = rest.split_at_checked(length).ok_or(EnvelopeError::Truncated)?;
            *rest = after;
            return Ok(value);
        }
    }
    Err(EnvelopeError::NotCanonical)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        seal(&SigningKey::from_bytes(&[1; 32]), b"/homehost/rec/test/1", &[0xa0; 200])
    }

    #[test]
    fn what_is_sealed_opens() {
        let bytes = sample();
        let envelope = Envelope::parse(&bytes).expect("own bytes");
        assert_eq!(envelope.payload, [0xa0; 200]);
        assert_eq!(envelope.verify(), Ok(()));
    }

    #[test]
    fn truncation_at_every_offset_is_refused() {
        let bytes = sample();
        for end in 0..bytes.len() {
            assert!(Envelope::parse(&bytes[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let bytes = sample();
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let opened = Envelope::parse(&bytes).map(|envelope| envelope.verify());
            assert!(!matches!(opened, Ok(Ok(()))), "bit {bit}");
        }
    }

    #[test]
    fn other_encodings_of_the_same_statement_are_refused() {
        let bytes = sample();
        // A length in one byte more than it needs.
        let mut wide = bytes.clone();
        assert_eq!(wide[1], 36);
        wide.splice(1..2, [36 | 0x80, 0]);
        assert_eq!(Envelope::parse(&wide), Err(EnvelopeError::NotCanonical));
        // A field that protobuf readers skip.
        let mut extra = bytes.clone();
        extra.extend([6 << 3 | 2, 0]);
        assert_eq!(Envelope::parse(&extra), Err(EnvelopeError::Trailing));
        // A field twice: protobuf takes the last.
        let mut twice = bytes.clone();
        twice.splice(0..0, bytes[..38].iter().copied());
        assert_eq!(Envelope::parse(&twice), Err(EnvelopeError::NotCanonical));
        // Two fields in another order.
        let type_end = 38 + 2 + 20;
        let swapped = [&bytes[38..type_end], &bytes[..38], &bytes[type_end..]].concat();
        assert_eq!(Envelope::parse(&swapped), Err(EnvelopeError::NotCanonical));
        assert_eq!(Envelope::parse(&vec![0x0a; 9000]), Err(EnvelopeError::TooLong));
    }

    #[test]
    fn a_signature_by_a_small_order_key_is_lax() {
        // The identity point as key and as R with s = 0 satisfies the plain
        // equation for every message.
        let mut key = [0_u8; 32];
        key[0] = 1;
        let mut signature = [0_u8; 64];
        signature[0] = 1;
        let envelope =
            Envelope { key: PublicKey(key), payload_type: b"t", payload: b"p", signature };
        assert_eq!(envelope.verify(), Err(SignatureError::Lax));
    }

    #[test]
    fn a_signature_that_holds_only_with_the_cofactor_is_lax() {
        // Made by tests/interop/js/forge.js: the key has a torsion component.
        let text = "0a24080112209ea3f11f5bd34f0cd7147fd0a436c088f624c6100c1df6a53c0a29e05d60cea0121e\
         2f686f6d65686f73742f7265632f7365727665722d6c697374696e672f311aad01ab010102677665\
         63746f72730303045820b1b5cf5b71301daa1c19b3a32058413691e66750b44cbbf048ebf443e34b\
         642d05000600071b000001a1f8660d00081b000001a1f8660d00091a000151800a5820c42313e419\
         4d33bc103fc3134217bf851aa5ade3150a07e98e5aa2cd4d60f1830b5838a5015005050505050505\
         050505050505050505020003666c75616e7469046d53756e646179204c75616e74690a8183440808\
         0808197530002a40b3b911d949b2a0ac46b4b1caabb16f42e03b750b5df54df78fdf1a177648cdda\
         ee8da92f0c5f3382544b1809970c222e957ea6e5886cb5ccbaa113ef7e3bf406";
        let mut bytes: Vec<u8> = (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect();
        assert_eq!(Envelope::parse(&bytes).unwrap().verify(), Err(SignatureError::Lax));
        let last = bytes.len() - 2;
        bytes[last] ^= 1;
        assert_eq!(Envelope::parse(&bytes).unwrap().verify(), Err(SignatureError::Bad));
    }
}
