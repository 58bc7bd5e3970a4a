//! The one way in: validated, in order, wanted.

use std::cmp::Ordering;
use std::time::Duration;

use homehost_protocol::limits::{AHEAD_MAX, REPLICA_ROWS_MAX, SERVERS_PER_DEVICE_MAX};
use homehost_protocol::record::Header;
use homehost_protocol::validate::{IgnoreReason, NoChains, claimed_root};
use homehost_protocol::{
    NetworkName, Presence, RecId, Record, RootId, Scope, ServerId, ServerListing, Validated,
    Verdict, validate,
};

use super::liveness::stale_after;
use super::row::{self, HostPresence, Row, Stored};
use super::{Device, Directory, Moment, Output};

/// How a record came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// By gossip: it may have come from anywhere.
    Gossip,
    /// By the directory RPC, from a peer on the same link or not.
    Peer {
        /// Whether that peer is on the same link or machine.
        on_link: bool,
        /// How long ago that peer last heard of it, as it says; `None` when it
        /// only has it from its disk.
        age: Option<Duration>,
    },
    /// Signed by this node.
    Own,
}

/// What became of a row from disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// It is in.
    Row,
    /// It is sound, but not for here and now; it should stay on disk.
    Elsewhere,
    /// It holds no longer and should be removed from disk.
    Damaged,
}

/// What became of a record.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// New here, and kept.
    New,
    /// Not taken in.
    Refused(Refusal),
}

/// What becomes of a gossip message (spec/mesh §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Sound and news: it is passed on.
    Accept,
    /// Nothing new, or not for here and now: it is not passed on.
    Ignore,
    /// No honest node could have passed it on: its sender is blamed.
    Reject,
}

/// Why a record was not taken in.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    /// No honest node could have passed it on.
    #[error("{0}")]
    Invalid(String),
    /// It does not count here and now.
    #[error("{0}")]
    Ignored(IgnoreReason),
    /// Here already.
    #[error("known already")]
    Known,
    /// A newer version is here.
    #[error("a newer version is known")]
    Old,
    /// Another record of the same sequence number stands.
    #[error("another record with the same sequence number stands")]
    Equivocation,
    /// Its root needs a key chain that is not here.
    #[error("the key chain of its root is not known")]
    NeedChain,
    /// Its addresses are not for this way of travelling.
    #[error("join addresses that do not belong on this network")]
    Scope,
    /// Its root has as many rows as a root may have.
    #[error("its root has as many servers as it may have")]
    RootQuota,
    /// The replica is full.
    #[error("the replica is full")]
    Full,
    /// A kind of record that the directory does not keep.
    #[error("not a record of the directory")]
    NotKept,
}

impl Refusal {
    /// Whether the peer that passed it on is to blame (spec/mesh §3).
    pub fn is_blameworthy(&self) -> bool {
        matches!(self, Self::Invalid(_) | Self::Scope)
    }

    /// A short name for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::Ignored(IgnoreReason::Expired) => "expired",
            Self::Ignored(IgnoreReason::Future) => "future",
            Self::Ignored(_) => "unknown_or_lax",
            Self::Known => "known",
            Self::Old => "old",
            Self::Equivocation => "equivocation",
            Self::NeedChain => "need_chain",
            Self::Scope => "scope",
            Self::RootQuota => "root_quota",
            Self::Full => "full",
            Self::NotKept => "not_kept",
        }
    }
}

/// Whether a listing may travel to nodes anywhere: on the public network only
/// with addresses that work from anywhere.
pub(super) fn scope_fits_everyone(network: &NetworkName, listing: &ServerListing) -> bool {
    !network.is_main() || listing.addresses.iter().all(|address| address.scope() == Scope::Global)
}

impl Directory {
    /// Takes in what came as one gossip message, and judges the message: it
    /// holds rows of one root, all of them sound, and at least one is news.
    pub fn admit_gossip(&mut self, envelopes: &[Vec<u8>], now: Moment) -> (Judgement, Vec<Output>) {
        let mut outputs = Vec::new();
        let mut judgement = Judgement::Ignore;
        let mut root = None;
        for bytes in envelopes {
            if claimed_root(bytes).is_some_and(|of| *root.get_or_insert(of) != of) {
                *self.refused.entry("several_roots").or_default() += 1;
                return (Judgement::Reject, outputs);
            }
            let (admission, more) = self.admit(bytes, Source::Gossip, now);
            outputs.extend(more);
            match admission {
                Admission::New if judgement == Judgement::Ignore => judgement = Judgement::Accept,
                Admission::Refused(refusal) if refusal.is_blameworthy() => {
                    judgement = Judgement::Reject;
                }
                _ => {}
            }
        }
        (judgement, outputs)
    }

    /// Takes in one envelope, or says why not.
    pub fn admit(&mut self, bytes: &[u8], source: Source, now: Moment) -> (Admission, Vec<Output>) {
        let mut outputs = Vec::new();
        let result = match validate(bytes, &self.network, &NoChains, now.wall) {
            Verdict::Accept(validated) => {
                self.admit_validated(bytes, *validated, source, now, &mut outputs)
            }
            Verdict::Reject(reason) => Err(Refusal::Invalid(reason.to_string())),
            Verdict::Ignore(reason) => Err(Refusal::Ignored(reason)),
            Verdict::NeedChain(_) => Err(Refusal::NeedChain),
        };
        let admission = match result {
            Ok(()) => {
                self.admitted += 1;
                Admission::New
            }
            Err(refusal) => {
                *self.refused.entry(refusal.label()).or_default() += 1;
                Admission::Refused(refusal)
            }
        };
        (admission, outputs)
    }

    /// Takes in a row from disk.
    pub fn load(&mut self, key: &[u8], value: &[u8], now: Moment) -> Loaded {
        let Some(stored) = Stored::decode(value) else { return Loaded::Damaged };
        if !row::is_key_of(&self.network, key) {
            // Another network's, where this node may return to.
            let old = now.wall.since(stored.seen) > OTHER_NETWORK_KEPT;
            return if old { Loaded::Damaged } else { Loaded::Elsewhere };
        }
        let validated = match validate(stored.envelope, &self.network, &NoChains, now.wall) {
            Verdict::Accept(validated) => validated,
            // The clock may be wrong, and be set in a moment.
            Verdict::Ignore(IgnoreReason::Future) => return Loaded::Elsewhere,
            _ => return Loaded::Damaged,
        };
        let Record::ServerListing(listing) = validated.record else { return Loaded::Damaged };
        let id = listing.id(&validated.header.root);
        if row::key(&self.network, &id) != key {
            return Loaded::Damaged;
        }
        // A row whose host was silent is stale from the beginning.
        let silent = if stored.stale { stale_after(REPLICA_ROWS_MAX) } else { Duration::ZERO };
        self.put_row(Row {
            id,
            rec_id: validated.id,
            retain_until: validated.header.expires(),
            text: row::search_text(&listing),
            header: validated.header,
            listing,
            envelope: stored.envelope.to_vec(),
            first_seen: stored.first_seen,
            heard: None,
            seen: stored.seen,
            loaded: now.mono.saturating_sub(silent),
            stored_stale: stored.stale,
        });
        Loaded::Row
    }

    fn admit_validated(
        &mut self,
        bytes: &[u8],
        validated: Validated,
        source: Source,
        now: Moment,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        match &validated.record {
            Record::ServerListing(_) => self.admit_listing(bytes, validated, source, now, outputs),
            Record::Presence(_) => self.admit_presence(bytes, validated, source, now, outputs),
            Record::KeyChain(_) | Record::HostAnnouncement(_) | Record::ReachAttest(_) => {
                Err(Refusal::NotKept)
            }
        }
    }

    fn admit_listing(
        &mut self,
        bytes: &[u8],
        validated: Validated,
        source: Source,
        now: Moment,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        let Record::ServerListing(listing) = validated.record else { return Ok(()) };
        let header = validated.header;
        let id = listing.id(&header.root);
        self.check_scope(&listing, source)?;
        let heard = heard_at(source, &header, now);
        let mut first_seen = now.wall;
        let mut retain_until = header.expires().min(now.wall.plus(header.ttl));
        if let Some(row) = self.rows.get_mut(&id) {
            if row.rec_id == validated.id {
                // A peer that heard of a row that we have from disk confirms it.
                if row.heard.is_none() && heard.is_some() && source != Source::Gossip {
                    row.heard = heard;
                    outputs.push(Output::Changed(id));
                }
                return Err(Refusal::Known);
            }
            standing((row.header.order(), row.rec_id), (header.order(), validated.id))?;
            first_seen = row.first_seen;
            if listing.is_withdrawn() {
                // The version that it takes back may live longer than the
                // tombstone itself, if the host's clock went backwards.
                retain_until = retain_until.max(row.retain_until);
            }
        } else if source != Source::Own {
            self.check_room(&header.root)?;
        }
        let stored = Stored { first_seen, seen: now.wall, stale: false, envelope: bytes };
        outputs.push(Output::Store { key: row::key(&self.network, &id), value: stored.encode() });
        outputs.push(Output::Changed(id));
        self.put_row(Row {
            id,
            rec_id: validated.id,
            header,
            text: row::search_text(&listing),
            listing,
            envelope: bytes.to_vec(),
            first_seen,
            heard,
            seen: now.wall,
            loaded: now.mono,
            retain_until,
            stored_stale: false,
        });
        Ok(())
    }

    fn admit_presence(
        &mut self,
        bytes: &[u8],
        validated: Validated,
        source: Source,
        now: Moment,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        let Record::Presence(presence) = validated.record else { return Ok(()) };
        let device = (validated.header.root, validated.header.dev);
        let order = validated.header.order();
        let before = self.presences.get(&device);
        match before {
            Some(before) => standing((before.order, before.rec_id), (order, validated.id))?,
            None => self.make_room_for(device)?,
        }
        let missing = self.missing(&device.0, &presence);
        if !missing.is_empty() {
            outputs.push(Output::Fetch(missing));
        }
        if let Some(ids) = self.of_root.get(&device.0) {
            outputs.extend(ids.iter().map(|id| Output::Changed(*id)));
        }
        let heard = heard_at(source, &validated.header, now).unwrap_or_default();
        let envelope = bytes.to_vec();
        let rec_id = validated.id;
        let presence = HostPresence { order, rec_id, presence, envelope, heard };
        self.presences.insert(device, presence);
        Ok(())
    }

    /// The servers of a presence whose live listing is not here.
    fn missing(&self, root: &RootId, presence: &Presence) -> Vec<ServerId> {
        let known = self.of_root.get(root);
        presence
            .servers
            .iter()
            .map(|server| server.id)
            .filter(|id| !known.is_some_and(|ids| ids.contains(id)))
            .collect()
    }

    fn check_scope(&self, listing: &ServerListing, source: Source) -> Result<(), Refusal> {
        let fits = match source {
            Source::Own => true,
            Source::Gossip | Source::Peer { on_link: false, .. } => {
                scope_fits_everyone(&self.network, listing)
            }
            Source::Peer { on_link: true, .. } => {
                !self.network.is_main()
                    || listing
                        .addresses
                        .iter()
                        .all(|a| matches!(a.scope(), Scope::Global | Scope::OnLink))
            }
        };
        if fits { Ok(()) } else { Err(Refusal::Scope) }
    }

    /// Makes room for the presence of a device that has none yet. Presences of
    /// roots without a row make way for one another and for nobody else.
    fn make_room_for(&mut self, device: Device) -> Result<(), Refusal> {
        if self.of_root.contains_key(&device.0) {
            // A device a row is the most that honest hosts need.
            let full = self.presences.len() >= REPLICA_ROWS_MAX + STRANGERS_MAX;
            return if full { Err(Refusal::Full) } else { Ok(()) };
        }
        self.strangers.push_back(device);
        while self.strangers.len() > STRANGERS_MAX
            && let Some(oldest) = self.strangers.pop_front()
        {
            if !self.of_root.contains_key(&oldest.0) {
                self.presences.remove(&oldest);
            }
        }
        Ok(())
    }

    fn check_room(&self, root: &RootId) -> Result<(), Refusal> {
        if self.of_root.get(root).is_some_and(|ids| ids.len() >= ROWS_PER_ROOT_MAX) {
            return Err(Refusal::RootQuota);
        }
        if self.rows.len() >= REPLICA_ROWS_MAX {
            return Err(Refusal::Full);
        }
        Ok(())
    }

    fn put_row(&mut self, row: Row) {
        self.drop_row(&row.id);
        self.live_listings += usize::from(!row.listing.is_withdrawn());
        self.of_root.entry(row.header.root).or_default().insert(row.id);
        self.rows.insert(row.id, row);
    }
}

/// Rows of one root, tombstones included: what its device may run, and as many
/// that it stopped within a day.
const ROWS_PER_ROOT_MAX: usize = 2 * SERVERS_PER_DEVICE_MAX;

/// Presences kept of roots whose listings are not here: they arrive in any
/// order, but a root that never shows a listing is nobody.
const STRANGERS_MAX: usize = 1024;

/// How long rows of another network stay on disk for a node that may return.
const OTHER_NETWORK_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Whether a record replaces the one that stands: the higher order does, and of
/// two with one order the lower id.
fn standing(
    (old, old_id): ((u16, u64), RecId),
    (new, new_id): ((u16, u64), RecId),
) -> Result<(), Refusal> {
    match new.cmp(&old) {
        Ordering::Less => Err(Refusal::Old),
        Ordering::Equal if new_id == old_id => Err(Refusal::Known),
        Ordering::Equal if new_id > old_id => Err(Refusal::Equivocation),
        Ordering::Equal | Ordering::Greater => Ok(()),
    }
}

/// When the network last vouched for a record. A peer's word on its age counts
/// only as far as the record's own date allows: a liar could otherwise keep a
/// dead host alive.
fn heard_at(source: Source, header: &Header, now: Moment) -> Option<Duration> {
    let age = match source {
        Source::Peer { age, .. } => age?.max(now.wall.since(header.issued.plus(AHEAD_MAX))),
        Source::Gossip | Source::Own => Duration::ZERO,
    };
    Some(now.mono.saturating_sub(age))
}
