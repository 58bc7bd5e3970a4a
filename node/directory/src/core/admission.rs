//! The one way in: validated, in order, wanted.

use std::cmp::Ordering;
use std::time::Duration;

use homehost_protocol::limits::{AHEAD_MAX, REPLICA_ROWS_MAX, SERVERS_PER_DEVICE_MAX};
use homehost_protocol::record::Header;
use homehost_protocol::record::listing::Visibility;
use homehost_protocol::validate::{IgnoreReason, claimed_root, validate_unless};
use homehost_protocol::{
    NetworkName, NodeId, Presence, RecId, Record, RootId, Scope, ServerId, ServerListing,
    UnixMillis, Validated, Verdict,
};

use super::crowd::{Place, STRANGE_TOMBSTONES_MAX};
use super::pace::{Bucket, Buckets, Pace};
use super::row::{self, Came, HostPresence, Row, Stored};
use super::{Device, Directory, Held, Moment, Output, RootRows};

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
    /// It says who reached a server whose listing is not here.
    #[error("its listing is not known yet")]
    NoListing,
    /// Its host says it too often.
    #[error("its host says it too often")]
    Pace,
    /// The peer that brought it has brought many new roots lately.
    #[error("its sender has brought many new roots lately")]
    SenderQuota,
    /// The block of its address has as many rows as it may have.
    #[error("the block of its address has as many servers as it may have")]
    PrefixQuota,
    /// Its addresses are not for this way of travelling.
    #[error("join addresses that do not belong on this network")]
    Scope,
    /// Only whoever has its id is to find it, and not by a search.
    #[error("it is unlisted")]
    Unlisted,
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

    /// Whether the record will be turned down in an hour as well, so that it need
    /// not be asked for again until then.
    fn lasts(&self) -> bool {
        match self {
            Self::Known | Self::NeedChain | Self::NoListing | Self::Pace | Self::SenderQuota => {
                false
            }
            Self::Ignored(reason) => *reason != IgnoreReason::Future,
            _ => true,
        }
    }

    /// A short name for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::Ignored(IgnoreReason::Expired) => "expired",
            Self::Ignored(IgnoreReason::Future) => "future",
            Self::Ignored(IgnoreReason::RevokedKey) => "revoked_key",
            Self::Ignored(IgnoreReason::KeyConflict) => "key_conflict",
            Self::Ignored(_) => "unknown_or_lax",
            Self::Known => "known",
            Self::Old => "old",
            Self::Equivocation => "equivocation",
            Self::NeedChain => "need_chain",
            Self::NoListing => "no_listing",
            Self::Pace => "pace",
            Self::SenderQuota => "sender_quota",
            Self::PrefixQuota => "prefix_quota",
            Self::Scope => "scope",
            Self::Unlisted => "unlisted",
            Self::RootQuota => "root_quota",
            Self::Full => "full",
            Self::NotKept => "not_kept",
        }
    }
}

/// Whether a listing may travel to nodes anywhere: on the public network only
/// with addresses that work from anywhere, and nowhere what is for a LAN.
pub(super) fn scope_fits_everyone(network: &NetworkName, listing: &ServerListing) -> bool {
    listing.visibility.is_none()
        && (!network.is_main()
            || listing.addresses.iter().all(|address| address.scope() == Scope::Global))
}

impl Directory {
    /// Takes in what came as one gossip message, and judges the message: it
    /// holds rows of one root, all of them sound, and at least one is news.
    pub fn admit_gossip(
        &mut self,
        from: NodeId,
        envelopes: &[Vec<u8>],
        now: Moment,
    ) -> (Judgement, Vec<Output>) {
        let mut outputs = Vec::new();
        let mut judgement = Judgement::Ignore;
        // Before any is taken in: what is rejected leaves nothing behind.
        let claimed: Vec<_> = envelopes.iter().map(|bytes| claimed_root(bytes)).collect();
        let mut roots = claimed.iter().flatten();
        if roots.next().is_some_and(|first| roots.any(|other| other != first)) {
            self.count("several_roots");
            return (Judgement::Reject, outputs);
        }
        for (bytes, root) in envelopes.iter().zip(claimed) {
            let stranger = root.is_some_and(|root| !self.roots.contains_key(&root));
            if stranger && self.senders.is_empty(&from, now.mono) {
                self.count(Refusal::SenderQuota.label());
                continue;
            }
            let (admission, more) = self.admit(bytes, Source::Gossip, now);
            outputs.extend(more);
            match admission {
                Admission::New => {
                    if stranger {
                        self.senders.take(from, now.mono);
                    }
                    if judgement == Judgement::Ignore {
                        judgement = Judgement::Accept;
                    }
                }
                Admission::Refused(refusal) if refusal.is_blameworthy() => {
                    judgement = Judgement::Reject;
                }
                Admission::Refused(_) => {}
            }
        }
        (judgement, outputs)
    }

    fn count(&mut self, label: &'static str) {
        *self.refused.entry(label).or_default() += 1;
    }

    /// Takes in one envelope, or says why not.
    pub fn admit(&mut self, bytes: &[u8], source: Source, now: Moment) -> (Admission, Vec<Output>) {
        let id = RecId::of(bytes);
        if self.holds(&id) {
            return self.confirm(id, source, bytes, now);
        }
        let mut outputs = Vec::new();
        // Replays are many and cheap to send; a signature is dear to check.
        let is_old =
            |header: &Header, record: &Record| self.is_old(header, record, source, now.wall);
        let verdict = validate_unless(bytes, &self.network, &self.chains, now.wall, &is_old);
        let result = match verdict {
            Verdict::Accept(validated) => {
                self.admit_validated(bytes, *validated, source, now, &mut outputs)
            }
            Verdict::Reject(reason) => Err(Refusal::Invalid(reason.to_string())),
            Verdict::Ignore(IgnoreReason::Old) => Err(Refusal::Old),
            Verdict::Ignore(reason) => Err(Refusal::Ignored(reason)),
            Verdict::NeedChain(root) => {
                self.pen.add(root, bytes, source, now);
                outputs.push(Output::FetchChain(root));
                Err(Refusal::NeedChain)
            }
        };
        let admission = match result {
            Ok(()) => {
                self.admitted += 1;
                Admission::New
            }
            Err(refusal) => {
                self.count(refusal.label());
                if refusal.lasts() && self.unwanted.len() < UNWANTED_MAX {
                    self.unwanted.insert(id, now.mono + UNWANTED_FOR);
                }
                Admission::Refused(refusal)
            }
        };
        (admission, outputs)
    }

    /// Whether a record is behind the one that stands, by what it says of itself.
    ///
    /// Nobody is blamed for such a record, so a forger who makes up old ones goes
    /// unblamed. That wins nothing: the same refusal can be had with a true old
    /// record, nothing of it is kept or passed on, and it costs no signature.
    fn is_old(&self, header: &Header, record: &Record, source: Source, now: UnixMillis) -> bool {
        let stands = match record {
            Record::ServerListing(listing) if self.check_scope(listing, source).is_ok() => {
                self.rows.get(&listing.id(&header.root)).map(|row| row.header.order())
            }
            Record::Presence(_) => {
                self.presences.get(&(header.root, header.dev)).map(|presence| presence.order)
            }
            Record::ReachAttest(reach) => {
                let id = reach.id(&header.root);
                let stray = || self.strays.get(&id).map(|(_, held)| held);
                self.reach.get(&id).or_else(stray).map(|held| held.header.order())
            }
            _ => None,
        };
        // One of the future is no judge of the present; see `standing`.
        stands.is_some_and(|order| {
            header.order() < order && UnixMillis(order.1) <= now.plus(AHEAD_MAX)
        })
    }

    /// A record that is held has come again: no signature is checked twice.
    fn confirm(
        &mut self,
        id: RecId,
        source: Source,
        bytes: &[u8],
        now: Moment,
    ) -> (Admission, Vec<Output>) {
        let mut outputs = Vec::new();
        // A peer that heard of a row that we have from disk confirms it.
        if source != Source::Gossip
            && let Some(server) = self.rows.of_record(&id).map(|row| row.id)
            && let Some(row) = self.rows.get_mut(&server)
            && row.heard().is_none()
            && *row.envelope == *bytes
            && let Some(heard) = heard_at(source, row.header.issued, now)
        {
            row.confirm(heard);
            outputs.push(Output::Changed(server));
        }
        self.count(Refusal::Known.label());
        (Admission::Refused(Refusal::Known), outputs)
    }

    fn admit_validated(
        &mut self,
        bytes: &[u8],
        validated: Validated,
        source: Source,
        now: Moment,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        match validated.record.clone() {
            Record::ServerListing(listing) => {
                self.admit_listing(bytes, validated, listing, source, now, outputs)
            }
            Record::Presence(presence) => {
                self.admit_presence(bytes, &validated, presence, source, now, outputs)
            }
            Record::KeyChain(body) => {
                self.admit_chain(bytes, &validated, &body, source, now, outputs)
            }
            Record::ReachAttest(reach) => {
                self.admit_reach(bytes, validated, &reach, source, now, outputs)
            }
            Record::HostAnnouncement(_) => Err(Refusal::NotKept),
        }
    }

    fn admit_listing(
        &mut self,
        bytes: &[u8],
        validated: Validated,
        listing: ServerListing,
        source: Source,
        now: Moment,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        let header = validated.header;
        let id = listing.id(&header.root);
        self.check_scope(&listing, source)?;
        let heard = heard_at(source, header.issued, now);
        let mut first_seen = now.wall;
        let mut retain_until = header.expires().min(now.wall.plus(header.ttl));
        let mut pace = Bucket::full(LISTING_PACE, now.mono);
        let own = source == Source::Own;
        let mut learned = false;
        let live_listings = self.live_listings;
        let rows = self.rows.len();
        if let Some(row) = self.rows.get_mut(&id) {
            standing((row.header.order(), row.rec_id), (header.order(), validated.id), now.wall)?;
            // Who only switches a server on and off is slowed down when it is
            // switched on.
            let ends = listing.is_withdrawn() && !row.withdrawn;
            if !row.pace.take(LISTING_PACE, now.mono) && !own && !ends {
                return Err(Refusal::Pace);
            }
            pace = row.pace;
            first_seen = row.first_seen;
            // Over its share, only servers that were proved leave a tombstone:
            // who lists and withdraws without end leaves nothing.
            let tombstones = rows - live_listings;
            let proved = row.place.as_ref().is_some_and(|place| place.proved);
            let most = if proved { TOMBSTONES_MAX } else { UNPROVED_TOMBSTONES_MAX };
            if ends && !own && tombstones >= most {
                self.forget_row(&id, outputs);
                return Ok(());
            }
            let moves = !listing.is_withdrawn()
                && (row.withdrawn
                    || row.ips().next() != listing.addresses.first().map(|a| a.socket.ip()));
            if listing.is_withdrawn() {
                // The version that it takes back may live longer than the
                // tombstone itself, if the host's clock went backwards.
                retain_until = retain_until.max(row.retain_until);
            }
            if moves && !own {
                self.move_row(&id, &listing, now, outputs)?;
            }
        } else if !own {
            self.make_room(&id, &header.root, &listing, now, outputs)?;
            learned = true;
        }
        let stored = Stored { first_seen, seen: now.wall, stale: false, envelope: bytes };
        outputs.push(Output::Store { key: row::key(&self.network, &id), value: stored.encode() });
        if learned {
            outputs.push(Output::Learned(id));
        }
        outputs.push(Output::Changed(id));
        let came = Came {
            first_seen,
            heard,
            seen: now.wall,
            loaded: now.mono,
            retain_until,
            stored_stale: false,
            pace,
        };
        self.put_row(Row::new((validated.id, &header), &listing, bytes, came), &listing);
        self.recount_row(&id, now);
        if let Some((_, held)) = self.strays.remove(&id) {
            let stored = Stored::new(&held.envelope, now.wall);
            let key = row::reach_key(&self.network, &id);
            outputs.push(Output::Store { key, value: stored.encode() });
            self.hold_reach(id, held, now);
        }
        Ok(())
    }

    fn admit_presence(
        &mut self,
        bytes: &[u8],
        validated: &Validated,
        presence: Presence,
        source: Source,
        now: Moment,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        let device = (validated.header.root, validated.header.dev);
        let order = validated.header.order();
        let mut pace = Bucket::full(PRESENCE_PACE, now.mono);
        match self.presences.get_mut(&device) {
            Some(before) => {
                standing((before.order, before.rec_id), (order, validated.id), now.wall)?;
                if !before.pace.take(PRESENCE_PACE, now.mono) && source != Source::Own {
                    return Err(Refusal::Pace);
                }
                pace = before.pace;
                let old = before.rec_id;
                self.ids.remove(&old);
            }
            None => self.make_room_for(device)?,
        }
        let missing = self.missing(&device.0, &presence);
        if !missing.is_empty() {
            outputs.push(Output::Fetch(missing));
        }
        outputs.extend(self.ids_of(&device.0).into_iter().map(Output::Changed));
        let heard = heard_at(source, validated.header.issued, now).unwrap_or_default();
        let envelope = bytes.to_vec();
        let rec_id = validated.id;
        let issued = validated.header.issued;
        let presence = HostPresence { order, rec_id, issued, pace, presence, envelope, heard };
        self.ids.insert(rec_id, Held::Presence(device));
        self.devices.insert(device);
        self.presences.insert(device, presence);
        self.spread_presence(&device);
        Ok(())
    }

    /// The servers of a presence whose live listing is not here.
    fn missing(&self, root: &RootId, presence: &Presence) -> Vec<ServerId> {
        let is_known =
            |id: &ServerId| self.rows.get(id).is_some_and(|row| row.header.root == *root);
        presence.servers.iter().map(|server| server.id).filter(|id| !is_known(id)).collect()
    }

    fn check_scope(&self, listing: &ServerListing, source: Source) -> Result<(), Refusal> {
        if listing.visibility == Some(Visibility::Unlisted) {
            return Err(Refusal::Unlisted);
        }
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
        if let Some(rows) = self.roots.get(&device.0) {
            // A device a row is the most that honest hosts need, and one more
            // that runs nothing at the moment.
            let devices = (device.0, 0)..=(device.0, u8::MAX);
            let quota = self.devices.range(devices).count() > rows.slots.len();
            let full = self.presences.len() >= REPLICA_ROWS_MAX + STRANGERS_MAX;
            return match (quota, full) {
                (true, _) => Err(Refusal::RootQuota),
                (false, true) => Err(Refusal::Full),
                (false, false) => Ok(()),
            };
        }
        self.strangers.push_back(device);
        while self.strangers.len() > STRANGERS_MAX
            && let Some(oldest) = self.strangers.pop_front()
        {
            if !self.roots.contains_key(&oldest.0)
                && let Some(presence) = self.presences.remove(&oldest)
            {
                self.ids.remove(&presence.rec_id);
                self.devices.remove(&oldest);
            }
        }
        Ok(())
    }

    /// Makes room for a row that is new here, if it may have any.
    fn make_room(
        &mut self,
        id: &ServerId,
        root: &RootId,
        listing: &ServerListing,
        now: Moment,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        let rows = self.roots.get(root);
        if rows.is_some_and(|rows| rows.slots.len() >= ROWS_PER_ROOT_MAX) {
            return Err(Refusal::RootQuota);
        }
        if listing.is_withdrawn() {
            let full = self.strange_tombstones >= STRANGE_TOMBSTONES_MAX;
            return if full { Err(Refusal::Full) } else { Ok(()) };
        }
        self.make_way(id, root, listing, now, outputs)
    }

    /// A server that is known comes back, or is somewhere else: it is counted
    /// like a new one.
    fn move_row(
        &mut self,
        id: &ServerId,
        listing: &ServerListing,
        now: Moment,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        let Some(slot) = self.rows.slot(id) else { return Ok(()) };
        let Some(row) = self.rows.at_mut(slot) else { return Ok(()) };
        let root = row.header.root;
        let place = row.place.take();
        if let Some(place) = &place {
            self.crowd.remove(id, slot, place);
        }
        let way = self.make_way(id, &root, listing, now, outputs);
        if way.is_err()
            && let (Some(place), Some(row)) = (place, self.rows.at_mut(slot))
        {
            self.crowd.add(id, slot, &place);
            row.place = Some(place);
        }
        way
    }

    fn make_way(
        &mut self,
        id: &ServerId,
        root: &RootId,
        listing: &ServerListing,
        now: Moment,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        if self.is_reading {
            return Ok(());
        }
        let root_seen = self.roots.get(root).map_or(now.wall, |rows| rows.first_seen);
        let proved = self.stray_proof(id, listing, now) > 0;
        for evicted in self.crowd.make_way(&Place::of(listing, root_seen, proved))? {
            let Some(evicted) = self.rows.at(evicted).map(|row| row.id) else { continue };
            self.count("evicted");
            self.forget_row(&evicted, outputs);
        }
        Ok(())
    }

    pub(super) fn put_row(&mut self, mut row: Row, listing: &ServerListing) {
        let before = self.drop_row(&row.id);
        let strange = before.as_ref().is_none_or(Row::is_strange);
        let place = before.as_ref().and_then(|row| row.place.as_ref());
        let proved = place.is_some_and(|place| place.proved);
        let (id, root) = (row.id, row.header.root);
        let root_seen = self.roots.get(&root).map_or(row.first_seen, |rows| rows.first_seen);
        row.root_seen = root_seen.min(row.first_seen);
        let presence = self.presences.get(&row.header.device());
        row.presence = presence.map(|presence| presence.spoken(&id));
        let place = (!row.withdrawn).then(|| Place::of(listing, row.root_seen, proved));
        row.was_here = row.withdrawn && !strange;
        row.place.clone_from(&place);
        self.live_listings += usize::from(!row.withdrawn);
        self.strange_tombstones += usize::from(row.is_strange());
        let root_seen = row.root_seen;
        let slot = self.rows.insert(row);
        if let Some(place) = &place {
            self.crowd.add(&id, slot, place);
        }
        let rows = self.roots.entry(root).or_insert_with(|| RootRows::new(root_seen));
        for slot in rows.add(slot, root_seen) {
            if let Some(row) = self.rows.at_mut(slot) {
                row.root_seen = root_seen;
            }
        }
    }

    /// Tells the rows of a device what its presence says, or that it has none.
    pub(super) fn spread_presence(&mut self, device: &Device) {
        let Some(rows) = self.roots.get(&device.0) else { return };
        let presence = self.presences.get(device);
        for slot in &rows.slots {
            if let Some(row) = self.rows.at_mut(*slot).filter(|row| row.header.dev == device.1) {
                row.presence = presence.map(|presence| presence.spoken(&row.id));
            }
        }
    }

    /// The servers of a root that have a row, in order.
    pub(super) fn ids_of(&self, root: &RootId) -> Vec<ServerId> {
        let slots = self.roots.get(root).into_iter().flat_map(|rows| &rows.slots);
        let mut ids: Vec<_> = slots.filter_map(|at| self.rows.at(*at)).map(|row| row.id).collect();
        ids.sort_unstable();
        ids
    }

    /// Whether this record is here.
    pub(super) fn holds(&self, id: &RecId) -> bool {
        self.rows.of_record(id).is_some() || self.ids.contains_key(id)
    }
}

/// How often a host may say a row anew: it changes its mind, it is no metronome.
pub(super) const LISTING_PACE: Pace = Pace { burst: 16, every: Duration::from_secs(10) };

/// How often a device may speak of its players.
const PRESENCE_PACE: Pace = Pace { burst: 16, every: Duration::from_secs(3) };

/// New roots that one peer may bring by gossip; reconciliation brings the rest,
/// at this node's own pace.
const SENDER_PACE: Pace = Pace { burst: 512, every: Duration::from_millis(200) };

/// Senders that are remembered: more than can be connected.
const SENDERS_MAX: usize = 1024;

/// Records that were turned down and are remembered.
const UNWANTED_MAX: usize = 16_384;

/// How long they are: until the reconciliation after next.
const UNWANTED_FOR: Duration = Duration::from_secs(30 * 60);

pub(super) fn senders() -> Buckets<NodeId> {
    Buckets::new(SENDER_PACE, SENDERS_MAX)
}

/// Rows of one root, tombstones included: what its device may run, and as many
/// that it stopped within a day.
const ROWS_PER_ROOT_MAX: usize = 2 * SERVERS_PER_DEVICE_MAX;

/// Tombstones in all, and those of servers that nobody had proved: a quarter of
/// the rows, and three quarters of that.
const TOMBSTONES_MAX: usize = REPLICA_ROWS_MAX / 4;
const UNPROVED_TOMBSTONES_MAX: usize = TOMBSTONES_MAX / 4 * 3;

/// Presences kept of roots whose listings are not here: they arrive in any
/// order, but a root that never shows a listing is nobody.
const STRANGERS_MAX: usize = 1024;

/// From disk: nobody has spoken of it yet.
pub(super) const DISK: Source = Source::Peer { on_link: false, age: None };

/// Whether a record replaces the one that stands: the higher order does, and of
/// two with one order the lower id. One that is of the future came in while this
/// machine's clock was wrong, and stands in nobody's way.
pub(super) fn standing(
    (old, old_id): ((u16, u64), RecId),
    (new, new_id): ((u16, u64), RecId),
    now: UnixMillis,
) -> Result<(), Refusal> {
    let of_the_future = |(_, seq)| UnixMillis(seq) > now.plus(AHEAD_MAX);
    if of_the_future(old) && old.0 == new.0 && new_id != old_id {
        return Ok(());
    }
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
pub(super) fn heard_at(source: Source, issued: UnixMillis, now: Moment) -> Option<Duration> {
    let age = match source {
        Source::Peer { age, .. } => age?.max(now.wall.since(issued.plus(AHEAD_MAX))),
        Source::Gossip | Source::Own => Duration::ZERO,
    };
    Some(now.mono.saturating_sub(age))
}
