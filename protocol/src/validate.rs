//! One validation for every way in: gossip, RPC, disk, import (spec/records §10).
//!
//! Cheap checks come first and the signature last. The order of rows among
//! themselves, quotas and wishes are the directory's business.

use std::time::Duration;

use thiserror::Error;

use crate::cbor::{self, DecodeError};
use crate::chain::{Chain, ChainError};
use crate::envelope::{Envelope, EnvelopeError, SignatureError};
use crate::ids::{RecId, RootId};
use crate::keys::PublicKey;
use crate::limits::AHEAD_MAX;
use crate::network::NetworkName;
use crate::record::{BodyError, Header, Kind, Record, WireRecord};
use crate::time::UnixMillis;
use crate::version::RECORD_VERSION;

/// What is known of the keys of roots.
pub trait KeyChains {
    /// The key that may sign for a root's device in an epoch.
    fn signing_key(&self, root: &RootId, key_epoch: u16, dev: u8) -> KeyState;
}

/// What a chain says of one (epoch, device).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// This key signs.
    Valid(PublicKey),
    /// The key was rotated away or revoked.
    Revoked,
    /// The chain is not here, or ends before.
    Unknown,
    /// The root's keys contradict each other, and the branch that this reader
    /// saw first has none here.
    Conflict,
    /// The same, and this key of the branch seen first signs.
    Contested(PublicKey),
}

/// Knows no chains: epoch-0, device-0 records prove themselves, all others wait.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoChains;

impl KeyChains for NoChains {
    fn signing_key(&self, _: &RootId, _: u16, _: u8) -> KeyState {
        KeyState::Unknown
    }
}

/// A record that holds, with the bytes it came in left to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validated {
    /// Digest of the envelope.
    pub id: RecId,
    /// Header.
    pub header: Header,
    /// Body.
    pub record: Record,
}

/// The answer to bytes from outside.
#[derive(Debug)]
pub enum Verdict {
    /// It holds.
    Accept(Box<Validated>),
    /// No honest node could have passed it on.
    Reject(RejectReason),
    /// It does not count here and now; that is nobody's fault.
    Ignore(IgnoreReason),
    /// It may hold, which the root's key chain would tell.
    NeedChain(RootId),
}

/// Why no honest node could have passed a record on.
#[derive(Debug, Error)]
pub enum RejectReason {
    /// The envelope breaks its one encoding.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The payload is not deterministic CBOR of a record.
    #[error("payload: {0}")]
    Payload(#[source] DecodeError),
    /// Header and envelope name different kinds.
    #[error("kind of header and envelope differ")]
    KindMismatch,
    /// Longer than its kind may be.
    #[error("envelope has {bytes} bytes, more than a record of its kind may have")]
    TooLong {
        /// Bytes of the envelope.
        bytes: usize,
    },
    /// Signed for another network.
    #[error("record of another network")]
    WrongNetwork,
    /// The body breaks a rule.
    #[error("body: {0}")]
    Body(#[from] BodyError),
    /// Life longer than its kind may have.
    #[error("time to live is longer than its kind may have")]
    TtlTooLong,
    /// The events of a key chain do not hold.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The signing key is not the claimed root's.
    #[error("signed by a key that is not the claimed root's")]
    WrongSigner,
    /// The signature is wrong.
    #[error("bad signature")]
    BadSignature,
}

/// Why a record does not count here and now.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum IgnoreReason {
    /// A kind of a newer version.
    #[error("unknown kind of record")]
    UnknownKind,
    /// A record of a newer version.
    #[error("record of an unknown version")]
    UnknownVersion,
    /// A field of a newer version that must be understood.
    #[error("record with an unknown critical field")]
    UnknownCritical,
    /// Its time is over.
    #[error("expired")]
    Expired,
    /// Sequence number or time of issue lies too far ahead of this clock.
    #[error("from the future: seq or issue time more than ten minutes ahead of this clock")]
    Future,
    /// Other libraries would accept the signature.
    #[error("signature that only a lax verifier accepts")]
    LaxSignature,
    /// Signed by a key that its root has since taken back.
    #[error("signed by a revoked key")]
    RevokedKey,
    /// By what it says of itself, a newer version is known; its signature has not
    /// been looked at.
    #[error("a newer version is known")]
    Old,
    /// Signed by a key of a branch that contradicts the one seen first.
    #[error("signed by a key whose root's key chains contradict each other")]
    KeyConflict,
}

/// Validates an envelope against the clock and the known key chains.
pub fn validate(
    bytes: &[u8],
    network: &NetworkName,
    chains: &dyn KeyChains,
    now: UnixMillis,
) -> Verdict {
    validate_unless(bytes, network, chains, now, &|_, _| false)
}

/// The same; a record that `is_old`, by what it says of itself, is ignored as
/// such when all that is left to check is its signature, which is most of the
/// work.
pub fn validate_unless(
    bytes: &[u8],
    network: &NetworkName,
    chains: &dyn KeyChains,
    now: UnixMillis,
    is_old: &dyn Fn(&Header, &Record) -> bool,
) -> Verdict {
    match check(bytes, network, chains, now, is_old) {
        Ok(validated) => Verdict::Accept(Box::new(validated)),
        Err(Stop::Reject(reason)) => Verdict::Reject(reason),
        Err(Stop::Ignore(reason)) => Verdict::Ignore(reason),
        Err(Stop::NeedChain(root)) => Verdict::NeedChain(root),
    }
}

/// Whose statement an envelope claims to be, without any check of the claim.
/// `None` for bytes that validation would refuse anyway.
pub fn claimed_root(bytes: &[u8]) -> Option<RootId> {
    let envelope = Envelope::parse(bytes).ok()?;
    cbor::decode::<WireRecord>(envelope.payload).ok().map(|wire| wire.root)
}

/// Whose statement an envelope claims to be and when it claims to have been
/// signed, without any check of the claim. `None` for bytes that validation
/// would refuse anyway.
pub fn claimed_issue(bytes: &[u8]) -> Option<(RootId, UnixMillis)> {
    let envelope = Envelope::parse(bytes).ok()?;
    cbor::decode::<WireRecord>(envelope.payload).ok().map(|wire| (wire.root, wire.issued))
}

enum Stop {
    Reject(RejectReason),
    Ignore(IgnoreReason),
    NeedChain(RootId),
}

impl<T: Into<RejectReason>> From<T> for Stop {
    fn from(reason: T) -> Self {
        Self::Reject(reason.into())
    }
}

fn check(
    bytes: &[u8],
    network: &NetworkName,
    chains: &dyn KeyChains,
    now: UnixMillis,
    is_old: &dyn Fn(&Header, &Record) -> bool,
) -> Result<Validated, Stop> {
    let envelope = Envelope::parse(bytes)?;
    let kind = Kind::of_payload_type(envelope.payload_type)
        .ok_or(Stop::Ignore(IgnoreReason::UnknownKind))?;
    if bytes.len() > kind.envelope_bytes_max() {
        return Err(RejectReason::TooLong { bytes: bytes.len() }.into());
    }
    let wire: WireRecord = cbor::decode(envelope.payload).map_err(decode_stop)?;
    if wire.version != RECORD_VERSION {
        return Err(Stop::Ignore(IgnoreReason::UnknownVersion));
    }
    if wire.kind != kind.number() {
        return Err(RejectReason::KindMismatch.into());
    }
    if wire.network != *network {
        return Err(RejectReason::WrongNetwork.into());
    }
    let header = Header {
        network: wire.network,
        kind,
        root: wire.root,
        key_epoch: wire.key_epoch,
        dev: wire.dev,
        seq: wire.seq,
        issued: wire.issued,
        ttl: Duration::from_secs(wire.ttl_s.into()),
        next: wire.next,
    };
    let horizon = now.plus(AHEAD_MAX);
    if header.issued > horizon || UnixMillis(header.seq) > horizon {
        return Err(Stop::Ignore(IgnoreReason::Future));
    }
    if header.expires() <= now {
        return Err(Stop::Ignore(IgnoreReason::Expired));
    }
    let record = Record::decode(kind, &wire.body.0).map_err(|error| match error {
        BodyError::Decode(error) => decode_stop(error),
        error @ BodyError::Field(_) => Stop::Reject(RejectReason::Body(error)),
    })?;
    if header.ttl > record.ttl_max() {
        return Err(RejectReason::TtlTooLong.into());
    }
    let signer = match &record {
        // A chain says itself who carries it.
        Record::KeyChain(body) => carrier(&header, &Chain::verify(body)?)?,
        _ => signing_key(&header, &envelope, chains)?,
    };
    if signer != envelope.key {
        return Err(RejectReason::WrongSigner.into());
    }
    if is_old(&header, &record) {
        return Err(Stop::Ignore(IgnoreReason::Old));
    }
    envelope.verify().map_err(|error| match error {
        SignatureError::Bad => Stop::Reject(RejectReason::BadSignature),
        SignatureError::Lax => Stop::Ignore(IgnoreReason::LaxSignature),
    })?;
    let inner = match &record {
        Record::HostAnnouncement(host) => host.verify_node(&header),
        Record::ReachAttest(reach) => reach.verify(&header.root, &header.network),
        _ => true,
    };
    if !inner {
        return Err(RejectReason::BadSignature.into());
    }
    Ok(Validated { id: RecId::of(bytes), header, record })
}

/// The key that should have signed the record of a key chain.
fn carrier(header: &Header, chain: &Chain) -> Result<PublicKey, RejectReason> {
    let next = (chain.epoch() == 0).then(|| chain.next());
    let right = (header.root, header.key_epoch, header.dev, header.next)
        == (chain.root(), chain.epoch(), 0, next);
    if right { Ok(chain.carrier()) } else { Err(RejectReason::WrongSigner) }
}

/// The key that should have signed.
fn signing_key(
    header: &Header,
    envelope: &Envelope<'_>,
    chains: &dyn KeyChains,
) -> Result<PublicKey, Stop> {
    let first = header.key_epoch == 0 && header.dev == 0;
    match (first, header.next) {
        // A genesis that does not give the root proves a forgery; one that does
        // is still overruled by a chain that took the key back.
        (true, Some(next)) if RootId::of_genesis(envelope.key, next) != header.root => {
            Err(RejectReason::WrongSigner.into())
        }
        (true, Some(_)) => match chains.signing_key(&header.root, 0, 0) {
            KeyState::Valid(key) => Ok(key),
            KeyState::Unknown => Ok(envelope.key),
            KeyState::Revoked => Err(Stop::Ignore(IgnoreReason::RevokedKey)),
            KeyState::Contested(key) if key == envelope.key => Ok(key),
            KeyState::Conflict | KeyState::Contested(_) => {
                Err(Stop::Ignore(IgnoreReason::KeyConflict))
            }
        },
        (false, None) => match chains.signing_key(&header.root, header.key_epoch, header.dev) {
            // Another node may honestly hold a chain that contradicts ours, and
            // neither of us knows it yet.
            KeyState::Valid(key) if key != envelope.key => {
                Err(Stop::Ignore(IgnoreReason::KeyConflict))
            }
            KeyState::Valid(key) => Ok(key),
            KeyState::Unknown => Err(Stop::NeedChain(header.root)),
            KeyState::Revoked => Err(Stop::Ignore(IgnoreReason::RevokedKey)),
            KeyState::Contested(key) if key == envelope.key => Ok(key),
            KeyState::Conflict | KeyState::Contested(_) => {
                Err(Stop::Ignore(IgnoreReason::KeyConflict))
            }
        },
        (true, None) | (false, Some(_)) => Err(RejectReason::WrongSigner.into()),
    }
}

/// A newer writer's critical field is nobody's fault; all else is.
fn decode_stop(error: DecodeError) -> Stop {
    match &error {
        DecodeError::Shape(shape) if shape.to_string().starts_with(cbor::UNKNOWN_CRITICAL) => {
            Stop::Ignore(IgnoreReason::UnknownCritical)
        }
        _ => Stop::Reject(RejectReason::Payload(error)),
    }
}

#[cfg(test)]
mod tests;
