//! Records: a header that every statement has, and the body of its kind
//! (spec/records §4).

pub mod host;
pub mod listing;
pub mod presence;
pub mod reach;

use std::time::Duration;

use thiserror::Error;

use crate::cbor::{self, Blob, cbor_map};
use crate::chain::{Chain, KeyChain};
use crate::envelope;
use crate::ids::RootId;
use crate::keys::{DeviceKey, KeyDigest};
use crate::limits;
use crate::network::NetworkName;
use crate::time::UnixMillis;
use crate::version::RECORD_VERSION;
use host::HostAnnouncement;
use listing::ServerListing;
use presence::Presence;
use reach::ReachAttest;

/// The kinds of records of version 1 that this crate can read. Other numbers
/// are assigned in spec/records §6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Which keys sign for a root.
    KeyChain,
    /// Where a device's node is and what it can do.
    HostAnnouncement,
    /// One hosted game server.
    ServerListing,
    /// Who is playing on a device's servers now.
    Presence,
    /// Who reached a server.
    ReachAttest,
}

impl Kind {
    /// All kinds, for readers that look one up.
    pub const ALL: [Self; 5] = [
        Self::KeyChain,
        Self::HostAnnouncement,
        Self::ServerListing,
        Self::Presence,
        Self::ReachAttest,
    ];

    /// The number in the header.
    pub fn number(self) -> u16 {
        match self {
            Self::KeyChain => 1,
            Self::HostAnnouncement => 2,
            Self::ServerListing => 3,
            Self::Presence => 4,
            Self::ReachAttest => 5,
        }
    }

    /// The payload type of the envelope.
    pub fn payload_type(self) -> &'static str {
        match self {
            Self::KeyChain => "/homehost/rec/key-chain/1",
            Self::HostAnnouncement => "/homehost/rec/host-announcement/1",
            Self::ServerListing => "/homehost/rec/server-listing/1",
            Self::Presence => "/homehost/rec/presence/1",
            Self::ReachAttest => "/homehost/rec/reach-attest/1",
        }
    }

    /// The kind of a payload type.
    pub fn of_payload_type(payload_type: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.payload_type().as_bytes() == payload_type)
    }

    /// Longest envelope of this kind in bytes.
    pub fn envelope_bytes_max(self) -> usize {
        match self {
            Self::KeyChain => limits::ENVELOPE_BYTES_MAX,
            Self::HostAnnouncement => limits::HOST_BYTES_MAX,
            Self::ServerListing => limits::LISTING_BYTES_MAX,
            Self::Presence => limits::PRESENCE_BYTES_MAX,
            Self::ReachAttest => limits::REACH_BYTES_MAX,
        }
    }
}

/// What every record says besides its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The network it belongs to.
    pub network: NetworkName,
    /// What the body is.
    pub kind: Kind,
    /// Whose statement it is.
    pub root: RootId,
    /// How often the root's keys were rotated.
    pub key_epoch: u16,
    /// Which of the root's machines signed.
    pub dev: u8,
    /// Orders the versions of one row: a newer one has a higher number.
    pub seq: u64,
    /// When it was signed, by the signer's clock.
    pub issued: UnixMillis,
    /// How long it holds.
    pub ttl: Duration,
    /// The next-key digest of the genesis; with the envelope's key it proves the
    /// root of an epoch-0, device-0 record without the chain.
    pub next: Option<KeyDigest>,
}

impl Header {
    /// Position among the versions of one row.
    pub fn order(&self) -> (u16, u64) {
        (self.key_epoch, self.seq)
    }

    /// When the record ceases to hold.
    pub fn expires(&self) -> UnixMillis {
        self.issued.plus(self.ttl)
    }
}

cbor_map! {
    /// A record as it stands in the payload. The body is a byte string that
    /// holds its own CBOR item, so that a header can be read without knowing
    /// the kind.
    #[derive(Debug)]
    pub(crate) struct WireRecord {
        /// Version of the record format.
        required 1 version: u8,
        /// Network.
        required 2 network: NetworkName,
        /// Kind number.
        required 3 kind: u16,
        /// Root.
        required 4 root: RootId,
        /// Key epoch.
        required 5 key_epoch: u16,
        /// Device.
        required 6 dev: u8,
        /// Sequence number.
        required 7 seq: u64,
        /// Issued, Unix milliseconds.
        required 8 issued: UnixMillis,
        /// Time to live in seconds.
        required 9 ttl_s: u32,
        /// Next-key digest.
        optional 10 next: KeyDigest,
        /// Body.
        required 11 body: Blob,
    }
}

/// A decoded body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// See [`KeyChain`].
    KeyChain(KeyChain),
    /// See [`HostAnnouncement`].
    HostAnnouncement(HostAnnouncement),
    /// See [`ServerListing`].
    ServerListing(ServerListing),
    /// See [`Presence`].
    Presence(Presence),
    /// See [`ReachAttest`].
    ReachAttest(ReachAttest),
}

impl Record {
    /// The kind of this body.
    pub fn kind(&self) -> Kind {
        match self {
            Self::KeyChain(_) => Kind::KeyChain,
            Self::HostAnnouncement(_) => Kind::HostAnnouncement,
            Self::ServerListing(_) => Kind::ServerListing,
            Self::Presence(_) => Kind::Presence,
            Self::ReachAttest(_) => Kind::ReachAttest,
        }
    }

    /// Decodes and checks a body of `kind`.
    pub(crate) fn decode(kind: Kind, body: &[u8]) -> Result<Self, BodyError> {
        let record = match kind {
            Kind::KeyChain => Self::KeyChain(cbor::decode(body)?),
            Kind::HostAnnouncement => Self::HostAnnouncement(cbor::decode(body)?),
            Kind::ServerListing => Self::ServerListing(cbor::decode(body)?),
            Kind::Presence => Self::Presence(cbor::decode(body)?),
            Kind::ReachAttest => Self::ReachAttest(cbor::decode(body)?),
        };
        record.check()?;
        Ok(record)
    }

    fn encode(&self) -> Vec<u8> {
        match self {
            Self::KeyChain(body) => cbor::encode(body),
            Self::HostAnnouncement(body) => cbor::encode(body),
            Self::ServerListing(body) => cbor::encode(body),
            Self::Presence(body) => cbor::encode(body),
            Self::ReachAttest(body) => cbor::encode(body),
        }
    }

    /// Checks every field against its limit and rule.
    ///
    /// # Errors
    /// The first field that breaks one.
    pub fn check(&self) -> Result<(), FieldError> {
        match self {
            // Its events are checked whole, by `Chain::verify`.
            Self::KeyChain(_) => Ok(()),
            Self::HostAnnouncement(body) => body.check(),
            Self::ServerListing(body) => body.check(),
            Self::Presence(body) => body.check(),
            Self::ReachAttest(body) => body.check(),
        }
    }

    /// How long a record of this kind may hold at most.
    pub fn ttl_max(&self) -> Duration {
        match self {
            Self::KeyChain(_) => limits::KEY_CHAIN_TTL_MAX,
            Self::HostAnnouncement(_) => limits::HOST_TTL_MAX,
            Self::ServerListing(body) if body.is_withdrawn() => limits::TOMBSTONE_TTL,
            Self::ServerListing(_) => limits::LISTING_TTL_MAX,
            Self::Presence(_) => limits::PRESENCE_TTL_MAX,
            Self::ReachAttest(_) => limits::REACH_TTL_MAX,
        }
    }
}

/// A field that breaks its limit or rule. The text names the field and what
/// would be right, for the person who typed it.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{field} {rule}")]
pub struct FieldError {
    /// The field, as a person knows it.
    pub field: &'static str,
    /// What it must be, as in `must have at most 48 bytes (has 60): shorten it`.
    pub rule: String,
}

impl FieldError {
    pub(crate) fn new(field: &'static str, rule: impl Into<String>) -> Self {
        Self { field, rule: rule.into() }
    }
}

/// Why a body was refused.
#[derive(Debug, Error)]
pub enum BodyError {
    /// Not deterministic CBOR of the right shape.
    #[error(transparent)]
    Decode(#[from] cbor::DecodeError),
    /// A field breaks its rule.
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// Why a record was not signed.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SignError {
    /// A field breaks its rule.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// Each field fits but the whole does not.
    #[error("the listing has {bytes} bytes, {over} more than fit: shorten {longest}")]
    TooLong {
        /// Bytes of the envelope.
        bytes: usize,
        /// How many bytes too many.
        over: usize,
        /// The field that takes most room.
        longest: &'static str,
    },
}

/// Signs records for one device of one root.
#[derive(Clone, Debug)]
pub struct RecordSigner {
    key: DeviceKey,
    network: NetworkName,
    root: RootId,
    key_epoch: u16,
    dev: u8,
    /// Only for epoch 0 and device 0.
    next: Option<KeyDigest>,
}

impl RecordSigner {
    /// A signer for device 0 in epoch 0: the root follows from the keys.
    pub fn genesis(key: DeviceKey, next: KeyDigest, network: NetworkName) -> Self {
        let root = RootId::of_genesis(key.public(), next);
        Self { key, network, root, key_epoch: 0, dev: 0, next: Some(next) }
    }

    /// A signer for the device of `chain` whose key this is; none when the key
    /// may not sign, or no longer.
    pub fn of_chain(key: DeviceKey, chain: &Chain, network: NetworkName) -> Option<Self> {
        let dev = chain.device_of(&key.public())?;
        Some(Self::of_device(key, chain, dev, network))
    }

    /// A signer for the record that carries `chain`: device 0, or the key that
    /// revoked all others.
    pub fn carrier_of(key: DeviceKey, chain: &Chain, network: NetworkName) -> Option<Self> {
        (key.public() == chain.carrier()).then(|| Self::of_device(key, chain, 0, network))
    }

    fn of_device(key: DeviceKey, chain: &Chain, dev: u8, network: NetworkName) -> Self {
        let key_epoch = chain.epoch();
        let next = (key_epoch == 0 && dev == 0).then(|| chain.next());
        Self { key, network, root: chain.root(), key_epoch, dev, next }
    }

    /// The epoch that it signs in.
    pub fn key_epoch(&self) -> u16 {
        self.key_epoch
    }

    /// The device that it signs for.
    pub fn dev(&self) -> u8 {
        self.dev
    }

    /// The root that signs.
    pub fn root(&self) -> RootId {
        self.root
    }

    /// The network that records are signed for.
    pub fn network(&self) -> &NetworkName {
        &self.network
    }

    /// Signs `record` as version `seq` of its row, with the longest life its
    /// kind may have.
    ///
    /// The caller has stored `seq` durably before.
    ///
    /// # Errors
    /// See [`SignError`]; nothing that fails here would be accepted by anyone.
    pub fn sign(
        &self,
        record: &Record,
        seq: u64,
        issued: UnixMillis,
    ) -> Result<Vec<u8>, SignError> {
        record.check()?;
        let kind = record.kind();
        let wire = WireRecord {
            version: RECORD_VERSION,
            network: self.network.clone(),
            kind: kind.number(),
            root: self.root,
            key_epoch: self.key_epoch,
            dev: self.dev,
            seq,
            issued,
            ttl_s: record.ttl_max().as_secs().try_into().expect("lives are below 2^32 seconds"),
            next: self.next,
            body: Blob(record.encode()),
        };
        let payload = cbor::encode(&wire);
        let envelope =
            envelope::seal(&self.key.signing(), kind.payload_type().as_bytes(), &payload);
        let most = kind.envelope_bytes_max();
        if envelope.len() > most {
            return Err(SignError::TooLong {
                bytes: envelope.len(),
                over: envelope.len() - most,
                longest: record.longest_field(),
            });
        }
        Ok(envelope)
    }
}

impl Record {
    fn longest_field(&self) -> &'static str {
        match self {
            Self::KeyChain(_) => "the chain",
            Self::HostAnnouncement(_) => "the addresses",
            Self::ServerListing(body) => body.longest_field(),
            Self::Presence(_) => "the list of servers",
            Self::ReachAttest(_) => "the list of witnesses",
        }
    }
}

/// Refuses a text that is empty, too long, or holds characters that do not show.
pub(crate) fn check_text(
    field: &'static str,
    text: &str,
    bytes_max: usize,
) -> Result<(), FieldError> {
    if text.is_empty() || text.trim() != text {
        return Err(FieldError::new(field, "must not be empty or begin or end with a space"));
    }
    if text.len() > bytes_max {
        return Err(FieldError::new(
            field,
            format!("must have at most {bytes_max} bytes (has {}): shorten it", text.len()),
        ));
    }
    // Direction overrides and zero-width characters let one name pose as another.
    if text.chars().any(|c| c.is_control() || is_invisible(c)) {
        return Err(FieldError::new(field, "must not contain control or invisible characters"));
    }
    Ok(())
}

fn is_invisible(c: char) -> bool {
    // U+200D joins emoji sequences and is left alone.
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}' | '\u{200b}' | '\u{200c}' | '\u{200e}' | '\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// Refuses what is not a slug: `a-z`, `0-9` and inner hyphens.
pub(crate) fn check_slug(
    field: &'static str,
    text: &str,
    bytes_max: usize,
) -> Result<(), FieldError> {
    if crate::network::is_slug(text, bytes_max) {
        Ok(())
    } else {
        let rule = format!("must be 1 to {bytes_max} of a-z, 0-9 and inner hyphens");
        Err(FieldError::new(field, rule))
    }
}
