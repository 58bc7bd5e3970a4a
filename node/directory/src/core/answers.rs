//! What this node tells others: responses within their limits.

use std::collections::BTreeSet;
use std::time::Duration;

use homehost_protocol::rpc::query::Query;
use homehost_protocol::rpc::{HeldRecord, Request, Response, Set};
use homehost_protocol::{RecId, RootId, ServerId, UnixMillis};

use super::row::Row;
use super::{Device, Directory, Held, Moment};
use crate::search;

/// A response being filled.
struct Page<'a> {
    directory: &'a Directory,
    response: Response,
    bytes: usize,
    on_link: bool,
    now: Moment,
    given: BTreeSet<RecId>,
    hosts: BTreeSet<Device>,
    roots: BTreeSet<RootId>,
}

impl<'a> Page<'a> {
    fn new(directory: &'a Directory, on_link: bool, now: Moment) -> Self {
        Self {
            directory,
            response: Response::default(),
            bytes: 0,
            on_link,
            now,
            given: BTreeSet::new(),
            hosts: BTreeSet::new(),
            roots: BTreeSet::new(),
        }
    }

    fn held(&self, envelope: &[u8], heard: Option<Duration>) -> HeldRecord {
        let age_s = heard.map(|heard| {
            let age = self.now.mono.saturating_sub(heard);
            age.as_secs().try_into().unwrap_or(u32::MAX)
        });
        HeldRecord { envelope: envelope.to_vec(), age_s }
    }

    /// Adds records together; false when they do not fit.
    fn add(&mut self, records: Vec<HeldRecord>) -> bool {
        let bytes: usize = records.iter().map(HeldRecord::wire_bytes).sum();
        if self.bytes + bytes > Response::RECORDS_BYTES_MAX {
            return false;
        }
        self.bytes += bytes;
        self.response.records.extend(records);
        true
    }

    /// Adds a row and what a reader needs for it: its root's key chain, who
    /// reached it, the presence of its host. False when they do not fit.
    fn take(&mut self, id: &ServerId) -> bool {
        let Some(row) = self.directory.rows.get(id) else { return true };
        if !self.may_have(row) {
            return true;
        }
        let root = row.header.root;
        let device = (root, row.header.dev);
        let mut records = Vec::with_capacity(4);
        // Each before what it is needed for: keys before signatures, proofs
        // before the row that they make room for, the row before its presence.
        if !self.roots.contains(&root) {
            for held in self.directory.chains.records(&root) {
                records.push(self.held(&held.envelope, held.heard));
            }
        }
        if let Some(reach) = self.directory.reach.get(id) {
            records.push(self.held(&reach.envelope, reach.heard));
        }
        records.push(self.held(&row.envelope, row.heard()));
        if !self.hosts.contains(&device)
            && let Some(presence) = self.directory.presences.get(&device)
        {
            records.push(self.held(&presence.envelope, Some(presence.heard)));
        }
        let fits = self.add(records);
        if fits {
            self.hosts.insert(device);
            self.roots.insert(root);
        }
        fits
    }

    /// Rows that only an on-link peer may have are left out for others.
    fn may_have(&self, row: &Row) -> bool {
        self.on_link || self.directory.is_for_everyone(row)
    }

    fn take_record(&mut self, id: &RecId) -> bool {
        let directory = self.directory;
        if let Some(row) = directory.rows.of_record(id) {
            return !self.given.insert(*id)
                || !self.may_have(row)
                || self.add(vec![self.held(&row.envelope, row.heard())]);
        }
        let Some(held) = directory.ids.get(id).filter(|_| self.given.insert(*id)) else {
            return true;
        };
        let record = match held {
            Held::Reach(server) => directory
                .reach
                .get(server)
                .filter(|_| directory.rows.get(server).is_some_and(|row| self.may_have(row)))
                .map(|reach| self.held(&reach.envelope, reach.heard)),
            Held::Presence(device) => {
                let presence = directory.presences.get(device);
                presence.map(|presence| self.held(&presence.envelope, Some(presence.heard)))
            }
            Held::Chain(root, slot) => {
                let mut chains = directory.chains.records(root);
                chains.nth(usize::from(*slot)).map(|chain| self.held(&chain.envelope, chain.heard))
            }
        };
        record.is_none_or(|record| self.add(vec![record]))
    }
}

impl Directory {
    /// The answer to a peer's question. Offers are admitted, and reconciliation
    /// is answered from a snapshot; neither is for here.
    pub fn answer(&self, request: &Request, on_link: bool, now: Moment) -> Response {
        let mut response = match request {
            Request::Query { query, cursor } => self.query(query, cursor.as_deref(), on_link, now),
            Request::Get { ids } => self.get(ids, on_link, now),
            Request::Chains { roots } => self.chains(roots, now),
            Request::Records { ids } => return self.records(ids, on_link, now),
            Request::Offer { .. } | Request::Reconcile { .. } => return Response::default(),
        };
        // Who asks may be in no network yet.
        response.network = Some(self.network.clone());
        response
    }

    fn query(&self, query: &Query, cursor: Option<&[u8]>, on_link: bool, now: Moment) -> Response {
        let ranked = search::Query::of_peer(query, cursor);
        let ranked = match ranked.and_then(|query| self.ranked(&query, on_link, now)) {
            Ok(ranked) => ranked,
            Err(error) => return Response::trouble(error.into()),
        };
        let mut page = Page::new(self, on_link, now);
        let taken = ranked.ids().take_while(|id| page.take(id)).count();
        page.response.cursor = ranked.cursor(taken).map(|cursor| cursor.to_bytes());
        page.response.matching = u32::try_from(ranked.matching).ok();
        page.response
    }

    /// The rows of `ids`, with what a reader needs for them.
    pub fn get(&self, ids: &[ServerId], on_link: bool, now: Moment) -> Response {
        let mut page = Page::new(self, on_link, now);
        for id in ids {
            page.take(id);
        }
        page.response
    }

    /// Certain records, as many as fit; chains first, presences last.
    pub fn records(&self, ids: &[RecId], on_link: bool, now: Moment) -> Response {
        let mut page = Page::new(self, on_link, now);
        let rank = |id: &RecId| match self.ids.get(id) {
            Some(Held::Chain(..)) => 0,
            Some(Held::Reach(_)) => 1,
            Some(Held::Presence(_)) => 3,
            None => 2,
        };
        let mut ids = ids.to_vec();
        ids.sort_by_key(rank);
        for id in &ids {
            if !page.take_record(id) {
                break;
            }
        }
        page.response
    }

    /// The key chains of `roots`.
    pub fn chains(&self, roots: &[RootId], now: Moment) -> Response {
        let mut page = Page::new(self, false, now);
        for root in roots {
            let records = self.chains.records(root);
            let records = records.map(|held| page.held(&held.envelope, held.heard)).collect();
            page.add(records);
        }
        page.response
    }

    /// What two replicas compare, as dates and ids.
    pub fn set(&self, set: Set, on_link: bool) -> Vec<(UnixMillis, RecId)> {
        let may_have = |row: &Row| on_link || self.is_for_everyone(row);
        match set {
            Set::Rows => {
                let rows = self.rows.values().filter(|row| may_have(row));
                let reach =
                    self.reach.iter().filter(|(id, _)| self.rows.get(id).is_some_and(may_have));
                rows.map(|row| (row.header.issued, row.rec_id))
                    .chain(reach.map(|(_, held)| (held.header.issued, held.rec_id)))
                    .chain(self.chains.all().map(|held| (held.issued, held.rec_id)))
                    .collect()
            }
            Set::Presences => {
                let of = |device: &Device| on_link || self.speaks_to_everyone(&device.0);
                let presences = self.presences.iter().filter(|(device, _)| of(device));
                presences.map(|(_, presence)| (presence.issued, presence.rec_id)).collect()
            }
        }
    }

    /// Whether a root has a row that everyone may have, or none.
    fn speaks_to_everyone(&self, root: &RootId) -> bool {
        self.roots.get(root).is_none_or(|rows| {
            rows.slots.iter().any(|at| self.rows.at(*at).is_some_and(|r| self.is_for_everyone(r)))
        })
    }

    /// Which of these records this node should ask for: those that are not here
    /// and were not turned down lately.
    pub fn wanted(&mut self, ids: Vec<RecId>, now: Moment) -> Vec<RecId> {
        let unwanted = &self.unwanted;
        let is_unwanted = |id: &RecId| unwanted.get(id).is_some_and(|until| *until > now.mono);
        ids.into_iter().filter(|id| !self.holds(id) && !is_unwanted(id)).collect()
    }
}
