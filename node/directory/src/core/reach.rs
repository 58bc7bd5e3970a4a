//! Who reached a server: records, and what they are worth (spec/directory §3).

use std::net::IpAddr;
use std::time::Duration;

use homehost_protocol::limits::{AHEAD_MAX, REACH_TTL_MAX};
use homehost_protocol::record::Header;
use homehost_protocol::{
    NodeId, ReachAttest, RecId, ServerId, ServerListing, UnixMillis, Validated,
};

use super::crowd::Place;
use super::pace::{Bucket, Pace};
use super::row::{self, Row};
use super::{Directory, Moment, Output, Refusal, Source};

/// Reach records whose listing is not here yet.
const STRAYS_MAX: usize = 1024;

/// How long they wait for it.
const STRAY_FOR: Duration = Duration::from_secs(60);

/// How often a host may say who reached a server: after a change, and hourly.
const REACH_PACE: Pace = Pace { burst: 8, every: Duration::from_secs(60) };

/// One witness of a held record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Witness {
    pub(super) node: NodeId,
    pub(super) at: UnixMillis,
}

/// A reach record as it came.
#[derive(Debug)]
pub(super) struct HeldReach {
    pub(super) rec_id: RecId,
    pub(super) header: Header,
    pub(super) envelope: Vec<u8>,
    address: IpAddr,
    pub(super) asked: u8,
    pub(super) witnesses: Box<[Witness]>,
    pub(super) heard: Option<Duration>,
    /// How often its host may say it anew.
    pace: Bucket,
    /// How many witnesses count, at the last count.
    pub(super) credible: u8,
}

/// What is known of a row's reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowReach {
    /// Witnesses whose word counts here.
    pub proved: u8,
    /// Witnesses that say so, whether their word counts here or not.
    pub said: u8,
    /// How many were asked, by the host's word.
    pub asked: u8,
    /// The newest statement.
    pub at: Option<UnixMillis>,
}

impl HeldReach {
    pub(super) fn new(
        bytes: &[u8],
        validated: Validated,
        reach: &ReachAttest,
        heard: Option<Duration>,
        now: Duration,
    ) -> Self {
        let witnesses = reach.attests.iter();
        Self {
            rec_id: validated.id,
            header: validated.header,
            envelope: bytes.to_vec(),
            address: reach.address.socket.ip(),
            asked: reach.asked,
            witnesses: witnesses.map(|a| Witness { node: a.node(), at: a.at() }).collect(),
            heard,
            pace: Bucket::full(REACH_PACE, now),
            credible: 0,
        }
    }

    /// The witnesses whose statements hold at this moment, about the address
    /// that the listing names first: where players go.
    fn fresh(
        &self,
        mut ips: impl Iterator<Item = IpAddr>,
        now: UnixMillis,
    ) -> impl Iterator<Item = Witness> {
        let about = ips.next() == Some(self.address);
        let witnesses = self.witnesses.iter().copied();
        witnesses
            .filter(move |w| about && w.at.plus(REACH_TTL_MAX) > now && w.at <= now.plus(AHEAD_MAX))
    }

    fn view(&self, row: &Row, now: UnixMillis) -> RowReach {
        let fresh: Vec<_> = self.fresh(row.ips(), now).collect();
        RowReach {
            proved: self.credible.min(fresh.len() as u8),
            said: fresh.len() as u8,
            asked: self.asked,
            at: fresh.iter().map(|witness| witness.at).max(),
        }
    }
}

impl Directory {
    /// This node is connected to a peer, whose word as a witness counts from
    /// now on. `ip` is the far end of the connection, if that is known.
    pub fn met(&mut self, node: NodeId, ip: Option<IpAddr>, now: Moment) -> Vec<Output> {
        let noted = self.witnesses.met(node, ip, now);
        self.recount_due = true;
        let key = |node| row::witness_key(&self.network, &node);
        let forget = noted.forget.map(|node| Output::Forget { key: key(node) });
        let keep = noted.keep.map(|value| Output::Store { key: key(node), value });
        forget.into_iter().chain(keep).collect()
    }

    pub(super) fn admit_reach(
        &mut self,
        bytes: &[u8],
        validated: Validated,
        reach: &ReachAttest,
        source: Source,
        now: Moment,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        let id = reach.id(&validated.header.root);
        let own = source == Source::Own;
        let stray = self.strays.get_mut(&id).map(|(_, held)| held);
        let mut pace = None;
        if let Some(before) = self.reach.get_mut(&id).or(stray) {
            super::admission::standing(
                (before.header.order(), before.rec_id),
                (validated.header.order(), validated.id),
                now.wall,
            )?;
            if !before.pace.take(REACH_PACE, now.mono) && !own {
                return Err(Refusal::Pace);
            }
            pace = Some(before.pace);
        }
        let heard = super::admission::heard_at(source, validated.header.issued, now);
        let mut held = HeldReach::new(bytes, validated, reach, heard, now.mono);
        held.pace = pace.unwrap_or(held.pace);
        if !self.rows.contains_key(&id) {
            self.stray(id, held, now);
            return Err(Refusal::NoListing);
        }
        let stored = row::Stored::new(bytes, now.wall);
        let key = row::reach_key(&self.network, &id);
        outputs.push(Output::Store { key, value: stored.encode() });
        self.hold_reach(id, held, now);
        outputs.push(Output::Changed(id));
        Ok(())
    }

    /// Keeps a record whose listing may follow.
    fn stray(&mut self, id: ServerId, held: HeldReach, now: Moment) {
        if self.strays.len() >= STRAYS_MAX
            && let Some(oldest) = self.strays.iter().min_by_key(|(_, (at, _))| *at)
        {
            let oldest = *oldest.0;
            self.strays.remove(&oldest);
        }
        self.strays.insert(id, (now.mono, held));
    }

    pub(super) fn forget_strays(&mut self, now: Moment) {
        self.strays.retain(|_, (at, _)| *at + STRAY_FOR > now.mono);
    }

    /// How many witnesses of a stray record count for a listing that comes in.
    pub(super) fn stray_proof(
        &mut self,
        id: &ServerId,
        listing: &ServerListing,
        now: Moment,
    ) -> u8 {
        let Some((_, held)) = self.strays.get(id) else { return 0 };
        let ips = listing.addresses.iter().map(|at| at.socket.ip());
        let fresh: Vec<_> = held.fresh(ips, now.wall).map(|w| w.node).collect();
        self.witnesses.credible(fresh, now.mono)
    }

    pub(super) fn hold_reach(&mut self, id: ServerId, mut held: HeldReach, now: Moment) {
        // Only of records that are held: a flood of others teaches nothing.
        for witness in &held.witnesses {
            self.witnesses.heard(witness.node, now.mono);
        }
        if let Some(row) = self.rows.get(&id) {
            let fresh: Vec<_> = held.fresh(row.ips(), now.wall).map(|w| w.node).collect();
            held.credible = self.witnesses.credible(fresh, now.mono);
        }
        if let Some(before) = self.reach.get(&id) {
            self.ids.remove(&before.rec_id);
        }
        self.ids.insert(held.rec_id, super::Held::Reach(id));
        let proved = held.credible > 0;
        self.reach.insert(id, held);
        self.set_proved(id, proved);
    }

    /// Counts one row's witnesses anew, after the row changed.
    pub(super) fn recount_row(&mut self, id: &ServerId, now: Moment) {
        let (Some(held), Some(row)) = (self.reach.get_mut(id), self.rows.get(id)) else { return };
        let fresh: Vec<_> = held.fresh(row.ips(), now.wall).map(|w| w.node).collect();
        held.credible = self.witnesses.credible(fresh, now.mono);
        let proved = held.credible > 0;
        self.set_proved(*id, proved);
    }

    /// Moves a row between those that are proved and those that are not.
    pub(super) fn set_proved(&mut self, id: ServerId, proved: bool) {
        let Some(slot) = self.rows.slot(&id) else { return };
        let Some(row) = self.rows.at_mut(slot) else { return };
        // A block that has its share of proved rows keeps the rest as claimed.
        let room = |place: &Place| place.proved || self.crowd.has_room_for_proved(place);
        let proved = proved && row.place.as_ref().is_some_and(room);
        if let Some(place) = row.place.as_mut().filter(|place| place.proved != proved) {
            self.crowd.remove(&id, slot, place);
            place.proved = proved;
            self.crowd.add(&id, slot, place);
        }
    }

    /// Counts anew whose word counts for which row: witnesses were met, or have
    /// grown old, and statements have.
    pub(super) fn recount(&mut self, now: Moment, outputs: &mut Vec<Output>) {
        self.recount_due = false;
        self.witnesses.recount();
        let mut changed = Vec::new();
        for (id, held) in &mut self.reach {
            let Some(row) = self.rows.get(id) else { continue };
            let fresh: Vec<_> = held.fresh(row.ips(), now.wall).map(|w| w.node).collect();
            let credible = self.witnesses.credible(fresh, now.mono);
            if credible != held.credible {
                held.credible = credible;
                changed.push((*id, credible > 0));
            }
        }
        for (id, proved) in changed {
            self.set_proved(id, proved);
            outputs.push(Output::Changed(id));
        }
    }

    pub(super) fn reach_of(&self, row: &Row, now: UnixMillis) -> RowReach {
        self.reach.get(&row.id).map(|held| held.view(row, now)).unwrap_or_default()
    }

    /// The witnesses that a server's record names, and when each reached it.
    pub fn witnesses_of(&self, id: &ServerId) -> Vec<(NodeId, UnixMillis)> {
        let held = self.reach.get(id);
        held.map(|held| held.witnesses.iter().map(|w| (w.node, w.at)).collect()).unwrap_or_default()
    }

    pub(super) fn drop_reach(&mut self, id: &ServerId, outputs: &mut Vec<Output>) {
        if let Some(held) = self.reach.remove(id) {
            self.ids.remove(&held.rec_id);
            outputs.push(Output::Forget { key: row::reach_key(&self.network, id) });
        }
    }
}
