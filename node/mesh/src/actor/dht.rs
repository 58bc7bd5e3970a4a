//! Records in the DHT: what is put here, and what we put, look for and provide
//! (spec/mesh §8).

use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use homehost_protocol::dht::{DhtKey, REPLICA_KEY};
use homehost_protocol::{NodeId, RecId, RootId};
use libp2p::PeerId;
use libp2p::kad::{
    self, GetProvidersOk, GetRecordError, GetRecordOk, InboundRequest, PeerRecord, ProviderRecord,
    PutRecordError, QueryId, QueryResult, Quorum, Record, RecordKey,
};
use tokio::sync::oneshot;

use super::Actor;
use crate::dht::{DhtAnswer, DhtError, DhtFacts, DhtRefusal, DhtVote};
use crate::node_id::{node_of, peer_of};
use crate::record_store::Kept;
use crate::token_bucket::{Budgets, Rate};
use crate::{Misdeed, Role, scope};

/// Puts of one peer: a host that has just joined puts what it has, some dozen
/// records; after that one now and then.
const PUT_RATE: Rate = Rate { per_second: 1.0, burst: 20.0 };

/// Peers whose put budget is remembered.
const PUT_BUDGETS_MAX: usize = 1024;

/// Searches and puts of ours under way at once. Each asks up to twenty peers.
const OPERATIONS_MAX: usize = 32;

/// Answers with a record after which a search ends: a second opinion from each
/// of several blocks of addresses is among them.
const ANSWERS_ENOUGH: usize = 8;

/// How long a search goes on once it has a valid answer, in round trips to
/// peers that are far: a dial takes four or five, and a question one more. Dials
/// of dead peers take seconds.
const ANSWER_ROUND_TRIPS: u32 = 6;

/// The least and the most of it; the most also where no round trip is known.
const ANSWER_PATIENCE: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_millis(1_000);

/// How long a put waits for the slowest of those it was sent to.
const PUT_PATIENCE: Duration = Duration::from_secs(4);

/// How often what has expired is forgotten.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);

/// What is asked of the DHT.
pub(crate) enum DhtCommand {
    Put { key: DhtKey, value: Vec<u8>, reply: oneshot::Sender<Result<usize, DhtError>> },
    Get { key: DhtKey, reply: oneshot::Sender<Result<DhtAnswer, DhtError>> },
    Provide { reply: oneshot::Sender<Result<(), DhtError>> },
    Providers { reply: oneshot::Sender<Result<Vec<NodeId>, DhtError>> },
    Export { reply: oneshot::Sender<Vec<(Vec<u8>, Vec<u8>)>> },
}

/// A record that a search found, or none at a peer that has none.
struct Found {
    peer: PeerId,
    id: Option<RecId>,
    facts: Option<DhtFacts>,
}

/// A search under way.
struct Search {
    key: RecordKey,
    best: Option<(DhtFacts, Vec<u8>)>,
    found: Vec<Found>,
    need_chains: BTreeSet<RootId>,
    /// When it ends with what it has, once it has something.
    until: Option<Instant>,
    reply: oneshot::Sender<Result<DhtAnswer, DhtError>>,
}

/// Something of ours that is under way.
enum Operation {
    Get(Search),
    /// Looking for those who should have it.
    Closest {
        record: Record,
        reply: oneshot::Sender<Result<usize, DhtError>>,
    },
    Send {
        to: usize,
        until: Instant,
        reply: oneshot::Sender<Result<usize, DhtError>>,
    },
    Provide(oneshot::Sender<Result<(), DhtError>>),
    Providers {
        found: BTreeSet<NodeId>,
        reply: oneshot::Sender<Result<Vec<NodeId>, DhtError>>,
    },
}

/// What the actor knows of the DHT's records besides the store.
pub(super) struct Dht {
    operations: HashMap<QueryId, Operation>,
    budgets: Budgets<NodeId>,
    expire_at: Instant,
}

impl Dht {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            operations: HashMap::new(),
            budgets: Budgets::new(PUT_RATE, PUT_BUDGETS_MAX),
            expire_at: now + EXPIRE_EVERY,
        }
    }

    /// When [`Actor::tend_dht`] wants to be called.
    pub(super) fn next(&self) -> Instant {
        let sends = self.operations.values().filter_map(|operation| match operation {
            Operation::Send { until, .. } => Some(*until),
            Operation::Get(search) => search.until,
            _ => None,
        });
        sends.chain([self.expire_at]).min().unwrap_or(self.expire_at)
    }
}

/// How long a search waits for more answers, `rtt` being that of peers which are
/// far.
fn patience(rtt: Option<Duration>) -> Duration {
    let (least, most) = ANSWER_PATIENCE.into_inner();
    rtt.map_or(most, |rtt| (rtt * ANSWER_ROUND_TRIPS).clamp(least, most))
}

impl Actor {
    /// Does what is due by the clock.
    pub(super) fn tend_dht(&mut self, now: Instant) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        if now >= self.dht.expire_at {
            self.dht.expire_at = now + EXPIRE_EVERY;
            kad.store_mut().expire();
        }
        for (id, operation) in &mut self.dht.operations {
            if let Operation::Get(Search { until, .. }) = operation
                && until.is_some_and(|until| now >= until)
            {
                // As below.
                *until = Some(now + *ANSWER_PATIENCE.end());
                if let Some(mut query) = kad.query_mut(id) {
                    query.finish();
                }
            }
            if let Operation::Send { until, .. } = operation
                && now >= *until
            {
                // Its end is told soon; whatever comes, this is not due at once
                // again, which would leave no time for anything else.
                *until = now + PUT_PATIENCE;
                if let Some(mut query) = kad.query_mut(id) {
                    query.finish();
                }
            }
        }
    }

    pub(super) fn obey_dht(&mut self, command: DhtCommand) {
        let busy = self.dht.operations.len() >= OPERATIONS_MAX;
        // Whoever asked may have gone; what it asked for is done all the same.
        match command {
            DhtCommand::Put { reply, .. } if busy => drop(reply.send(Err(DhtError::Busy))),
            DhtCommand::Get { reply, .. } if busy => drop(reply.send(Err(DhtError::Busy))),
            DhtCommand::Provide { reply } if busy => drop(reply.send(Err(DhtError::Busy))),
            DhtCommand::Providers { reply } if busy => drop(reply.send(Err(DhtError::Busy))),
            DhtCommand::Put { key, value, reply } => self.dht_put(key, value, reply),
            DhtCommand::Get { key, reply } => self.dht_get(key, reply),
            DhtCommand::Provide { reply } => self.dht_provide(reply),
            DhtCommand::Providers { reply } => {
                let kad = &mut self.swarm.behaviour_mut().kad;
                let id = kad.get_providers(RecordKey::new(&REPLICA_KEY));
                let found = BTreeSet::new();
                self.dht.operations.insert(id, Operation::Providers { found, reply });
            }
            DhtCommand::Export { reply } => {
                let _ = reply.send(self.swarm.behaviour_mut().kad.store_mut().export());
            }
        }
    }

    fn dht_put(
        &mut self,
        key: DhtKey,
        value: Vec<u8>,
        reply: oneshot::Sender<Result<usize, DhtError>>,
    ) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        if !kad.store_mut().takes() {
            let _ = reply.send(Err(DhtError::Role));
            return;
        }
        let key = key.to_string().into_bytes();
        let facts = match kad.store_mut().rules().check(&key, &value) {
            Ok(facts) => facts,
            Err(refusal) => {
                let _ = reply.send(Err(refusal.into()));
                return;
            }
        };
        kad.store_mut().keep(&key, value.clone(), &facts);
        let id = kad.get_closest_peers(key.clone());
        let record = self.record(RecordKey::from(key), value, &facts);
        self.dht.operations.insert(id, Operation::Closest { record, reply });
    }

    fn dht_get(&mut self, key: DhtKey, reply: oneshot::Sender<Result<DhtAnswer, DhtError>>) {
        let key = RecordKey::from(key.to_string().into_bytes());
        let kad = &mut self.swarm.behaviour_mut().kad;
        // What is kept here comes as the first answer.
        let id = kad.get_record(key.clone());
        let (best, found, need_chains) = (None, Vec::new(), BTreeSet::new());
        let search = Search { key, best, found, need_chains, until: None, reply };
        self.dht.operations.insert(id, Operation::Get(search));
    }

    fn dht_provide(&mut self, reply: oneshot::Sender<Result<(), DhtError>>) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        match kad.start_providing(RecordKey::new(&REPLICA_KEY)) {
            Ok(id) => {
                self.dht.operations.insert(id, Operation::Provide(reply));
            }
            Err(_) => drop(reply.send(Err(DhtError::Role))),
        }
    }

    /// A record as libp2p carries it; nobody is named as its publisher, which
    /// would prove nothing.
    fn record(&mut self, key: RecordKey, value: Vec<u8>, facts: &DhtFacts) -> Record {
        let now = self.swarm.behaviour_mut().kad.store_mut().rules().now();
        let expires = Some(Instant::now() + facts.expires.since(now));
        Record { key, value, publisher: None, expires }
    }

    /// Whether a peer keeps no records, by its own word.
    fn keeps_nothing(&self, peer: &PeerId) -> bool {
        self.peers.role(peer) == Some(Role::Bootstrap)
    }

    /// A peer told us to keep something.
    pub(super) fn on_kad_request(&mut self, request: InboundRequest) {
        match request {
            InboundRequest::PutRecord { source, record: Some(record), .. } => {
                let fate = self.on_put(source, record);
                self.metrics.dht_put(fate);
            }
            InboundRequest::AddProvider { record: Some(record) } => {
                let fate = self.on_provider(record);
                self.metrics.dht_provider(fate);
            }
            _ => {}
        }
    }

    /// What becomes of a record that a peer put here, in the words of metrics.
    fn on_put(&mut self, source: PeerId, record: Record) -> &'static str {
        let store = self.swarm.behaviour_mut().kad.store_mut();
        if !store.takes() {
            return Kept::No.label();
        }
        let rules = store.rules();
        let Some(node) = node_of(&source).filter(|_| !self.clients.contains(&source)) else {
            return Kept::No.label();
        };
        if !self.dht.budgets.take(node, Instant::now()) {
            return "budget";
        }
        let key: &[u8] = record.key.as_ref();
        match rules.check(key, &record.value) {
            Ok(facts) => {
                let store = self.swarm.behaviour_mut().kad.store_mut();
                store.keep(key, record.value, &facts).label()
            }
            Err(DhtRefusal::Invalid(reason)) => {
                tracing::debug!(%node, reason, "put an invalid record");
                self.misdeed(source, Misdeed::InvalidRecord);
                "invalid"
            }
            Err(DhtRefusal::Ignored(_)) => "ignored",
            Err(DhtRefusal::NeedChain(_)) => "need_chain",
        }
    }

    /// What becomes of a provider record; libp2p has seen to it that the
    /// provider is the sender.
    fn on_provider(&mut self, record: ProviderRecord) -> &'static str {
        let (peer, key) = (record.provider, record.key);
        if !self.swarm.behaviour_mut().kad.store_mut().takes() {
            return Kept::No.label();
        }
        let Some(node) = node_of(&peer).filter(|_| self.peers.has_joined(&peer)) else {
            return Kept::No.label();
        };
        if !self.dht.budgets.take(node, Instant::now()) {
            return "budget";
        }
        if key.as_ref() as &[u8] != REPLICA_KEY.as_bytes() {
            return "ignored";
        }
        let Some(link) = self.peers.any_link(&peer) else { return "gone" };
        let block = scope::ip_of(&link.address).and_then(crate::AddressBlock::of);
        let addresses = self.peers.addresses(&peer).to_vec();
        let store = self.swarm.behaviour_mut().kad.store_mut();
        store.provide(key.as_ref(), peer, block, addresses).label()
    }

    /// Goes on with what is under way.
    pub(super) fn on_kad_progress(&mut self, id: QueryId, result: QueryResult, last: bool) {
        match result {
            QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(found))) => {
                self.on_found(id, found);
                if last {
                    self.search_ended(id, Vec::new());
                }
            }
            QueryResult::GetRecord(Ok(GetRecordOk::FinishedWithNoAdditionalRecord {
                cache_candidates,
            })) => self.search_ended(id, cache_candidates.into_values().collect()),
            QueryResult::GetRecord(Err(GetRecordError::NotFound { closest_peers, .. })) => {
                self.search_ended(id, closest_peers);
            }
            QueryResult::GetRecord(Err(GetRecordError::Timeout { .. })) => {
                self.search_ended(id, Vec::new());
            }
            QueryResult::GetClosestPeers(closest) => {
                let peers = match closest {
                    Ok(closest) => closest.peers,
                    Err(kad::GetClosestPeersError::Timeout { peers, .. }) => peers,
                };
                if last && let Some(Operation::Closest { .. }) = self.dht.operations.get(&id) {
                    self.send_out(id, peers.into_iter().map(|peer| peer.peer_id).collect());
                }
            }
            QueryResult::PutRecord(sent) => {
                let Some(Operation::Send { to, reply, .. }) = self.dht.operations.remove(&id)
                else {
                    return;
                };
                let taken = match sent {
                    Ok(_) => to,
                    Err(
                        PutRecordError::QuorumFailed { success, .. }
                        | PutRecordError::Timeout { success, .. },
                    ) => success.len(),
                };
                let _ = reply.send(Ok(taken));
            }
            QueryResult::GetProviders(found) => {
                if let Ok(GetProvidersOk::FoundProviders { providers, .. }) = found
                    && let Some(Operation::Providers { found, .. }) =
                        self.dht.operations.get_mut(&id)
                {
                    found.extend(providers.iter().filter_map(node_of));
                }
                if last
                    && let Some(Operation::Providers { mut found, reply }) =
                        self.dht.operations.remove(&id)
                {
                    found.retain(|node| peer_of(*node) != Some(*self.swarm.local_peer_id()));
                    let _ = reply.send(Ok(found.into_iter().collect()));
                }
            }
            QueryResult::StartProviding(_) => {
                if let Some(Operation::Provide(reply)) = self.dht.operations.remove(&id) {
                    let _ = reply.send(Ok(()));
                }
            }
            QueryResult::Bootstrap(_)
            | QueryResult::RepublishProvider(_)
            | QueryResult::RepublishRecord(_) => {}
        }
    }

    /// Those who should have a record are known: it is sent to them.
    fn send_out(&mut self, id: QueryId, mut peers: Vec<PeerId>) {
        let Some(Operation::Closest { record, reply }) = self.dht.operations.remove(&id) else {
            return;
        };
        let own = *self.swarm.local_peer_id();
        peers.retain(|peer| *peer != own && !self.keeps_nothing(peer));
        if peers.is_empty() {
            let _ = reply.send(Ok(0));
            return;
        }
        let to = peers.len();
        let kad = &mut self.swarm.behaviour_mut().kad;
        // All of them, so that libp2p says how many there were.
        let id = kad.put_record_to(record, peers.into_iter(), Quorum::All);
        let until = Instant::now() + PUT_PATIENCE;
        self.dht.operations.insert(id, Operation::Send { to, until, reply });
    }

    fn on_found(&mut self, id: QueryId, found: PeerRecord) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        let Some(Operation::Get(search)) = self.dht.operations.get_mut(&id) else { return };
        let value = found.record.value;
        let judged = kad.store_mut().rules().check(search.key.as_ref(), &value);
        let mut invalid = None;
        let facts = match judged {
            Ok(facts) => {
                if search.best.as_ref().is_none_or(|(best, _)| facts.overrules(best)) {
                    search.best = Some((facts.clone(), value.clone()));
                }
                Some(facts)
            }
            Err(DhtRefusal::NeedChain(root)) => {
                search.need_chains.insert(root);
                None
            }
            Err(DhtRefusal::Ignored(_)) => None,
            Err(DhtRefusal::Invalid(_)) => {
                invalid = found.peer;
                None
            }
        };
        if facts.is_some() && search.until.is_none() {
            search.until = Some(Instant::now() + patience(self.peers.far_rtt()));
        }
        if let Some(peer) = found.peer
            && invalid.is_none()
        {
            search.found.push(Found { peer, id: Some(RecId::of(&value)), facts });
        }
        let valid = search.found.iter().filter(|found| found.facts.is_some()).count();
        if valid >= ANSWERS_ENOUGH
            && let Some(mut query) = kad.query_mut(&id)
        {
            query.finish();
        }
        if let Some(peer) = invalid {
            self.metrics.dht_put("found_invalid");
            self.misdeed(peer, Misdeed::InvalidRecord);
        }
    }

    /// A search has ended; `empty` had nothing.
    fn search_ended(&mut self, id: QueryId, empty: Vec<PeerId>) {
        let Some(Operation::Get(mut search)) = self.dht.operations.remove(&id) else { return };
        let own = *self.swarm.local_peer_id();
        for peer in empty {
            let answered = search.found.iter().any(|found| found.peer == peer);
            if peer != own && !answered && !self.keeps_nothing(&peer) {
                search.found.push(Found { peer, id: None, facts: None });
            }
        }
        let best = search.best.as_ref().map(|(facts, _)| facts.id);
        let votes = search.found.iter().filter_map(|found| {
            let ip = self.peers.any_link(&found.peer).and_then(|link| scope::ip_of(&link.address));
            Some(DhtVote {
                node: node_of(&found.peer)?,
                scope: self.peers.scope(&found.peer),
                block: ip.and_then(crate::AddressBlock::of),
                rec_id: found.id,
                agrees: best.is_some() && found.id == best,
            })
        });
        let answers = votes.collect();
        if let Some((facts, value)) = &search.best {
            self.repair(&search, facts, value);
        }
        let _ = search.reply.send(Ok(DhtAnswer {
            best: search.best.map(|(_, value)| value),
            answers,
            need_chains: search.need_chains.into_iter().collect(),
        }));
    }

    /// Gives the best record to those of the asked who had an older one or none,
    /// us among them if we keep this key.
    fn repair(&mut self, search: &Search, facts: &DhtFacts, value: &[u8]) {
        let key: &[u8] = search.key.as_ref();
        let kad = &mut self.swarm.behaviour_mut().kad;
        if kad.store_mut().value(key).is_some() {
            kad.store_mut().keep(key, value.to_vec(), facts);
        }
        let stale: Vec<_> = search
            .found
            .iter()
            .filter(|found| found.id != Some(facts.id))
            .map(|found| found.peer)
            .collect();
        if !stale.is_empty() {
            let record = self.record(search.key.clone(), value.to_vec(), facts);
            let kad = &mut self.swarm.behaviour_mut().kad;
            kad.put_record_to(record, stale.into_iter(), Quorum::All);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_waits_as_long_as_far_peers_need_and_never_long() {
        let ms = Duration::from_millis;
        for (rtt, wanted) in [(None, 1000), (Some(0), 100), (Some(40), 240), (Some(900), 1000)] {
            assert_eq!(patience(rtt.map(ms)), ms(wanted), "{rtt:?}");
        }
    }
}
