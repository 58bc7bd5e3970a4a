//! What the DHT keeps here: a core without socket or clock (spec/mesh §8).
//!
//! Only [`Records::keep`] and [`Records::provide`] put anything in, and their
//! callers have had it judged: libp2p's own way in is closed.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use homehost_protocol::limits::ENVELOPE_BYTES_MAX;
use homehost_protocol::{RecId, RootId, UnixMillis};
use libp2p::kad::store::{Error, RecordStore, Result as StoreResult};
use libp2p::kad::{KBucketDistance, KBucketKey, ProviderRecord, Record, RecordKey};
use libp2p::{Multiaddr, PeerId};

use crate::dht::{DhtConfig, DhtFacts, DhtKeeper, DhtRules};
use crate::diversity::AddressBlock;

/// Records in all. In a network of 10,000 hosts with three records each, a node
/// is among the twenty nearest to sixty.
pub(crate) const RECORDS_MAX: usize = 4096;
/// Bytes of all values: half a home node's budget for a mesh of 10,000.
pub(crate) const BYTES_MAX: usize = 16 * 1024 * 1024;
/// Records of one root: two full devices, and far from the whole store.
pub(crate) const PER_ISSUER_MAX: usize = 128;
/// How long a record is kept that nobody puts again. Longer than the life of a
/// listing; a chain, which lives longer, is put again by its root's hosts.
const KEPT_FOR: Duration = Duration::from_secs(36 * 3600);

/// Providers of one key: more than anybody asks.
pub(crate) const PROVIDERS_PER_KEY_MAX: usize = 32;
/// Keys with providers.
pub(crate) const PROVIDED_KEYS_MAX: usize = 64;
/// Keys that one peer provides.
pub(crate) const KEYS_PER_PROVIDER_MAX: usize = 8;
/// Providers of one key from one block of addresses.
pub(crate) const PROVIDERS_PER_BLOCK_MAX: usize = 4;
/// How long a provider counts that does not say so again. It does every hour.
const PROVIDES_FOR: Duration = Duration::from_secs(24 * 3600);

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It is kept: the first under its key, or it overrules the one before.
    New,
    /// It was here already.
    Same,
    /// What is here stands.
    Older,
    /// Its issuer has its share, of records nearer to us.
    Quota,
    /// The store is full of records nearer to us.
    Full,
    /// Longer than a record may be.
    TooLong,
    /// It has expired, or this node keeps no records.
    No,
}

impl Kept {
    /// The word for it in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Same => "same",
            Self::Older => "older",
            Self::Quota => "quota",
            Self::Full => "full",
            Self::TooLong => "too_long",
            Self::No => "no",
        }
    }
}

#[derive(Debug)]
struct Held {
    value: Vec<u8>,
    id: RecId,
    issuer: RootId,
    until: UnixMillis,
    distance: KBucketDistance,
}

#[derive(Debug)]
struct Provider {
    peer: PeerId,
    block: Option<AddressBlock>,
    addresses: Vec<Multiaddr>,
    until: UnixMillis,
}

/// The records and providers that this node keeps for others; bounded.
pub(crate) struct Records {
    own: PeerId,
    rules: Arc<dyn DhtRules>,
    keeper: Arc<dyn DhtKeeper>,
    /// Whether anything is kept: not by a bootstrap node.
    takes: bool,
    held: HashMap<Vec<u8>, Held>,
    /// The keys in the order of their distance from us.
    near: BTreeSet<(KBucketDistance, Vec<u8>)>,
    bytes: usize,
    of: HashMap<RootId, usize>,
    providers: BTreeMap<Vec<u8>, Vec<Provider>>,
}

impl Records {
    /// A store of this peer, with what it held before.
    pub(crate) fn new(own: PeerId, config: DhtConfig, takes: bool) -> Self {
        let mut records = Self {
            own,
            rules: config.rules,
            keeper: config.keeper,
            takes,
            held: HashMap::new(),
            near: BTreeSet::new(),
            bytes: 0,
            of: HashMap::new(),
            providers: BTreeMap::new(),
        };
        for (key, value) in config.held {
            let kept = match records.rules.check(&key, &value) {
                Ok(facts) => records.keep(&key, value, &facts),
                Err(_) => Kept::No,
            };
            if !matches!(kept, Kept::New | Kept::Same) && !records.held.contains_key(&key) {
                records.keeper.dropped(&key);
            }
        }
        records
    }

    /// Whether this node keeps records at all.
    pub(crate) fn takes(&self) -> bool {
        self.takes
    }

    /// The rules that judge what comes in.
    pub(crate) fn rules(&self) -> Arc<dyn DhtRules> {
        Arc::clone(&self.rules)
    }

    fn distance(&self, key: &[u8]) -> KBucketDistance {
        KBucketKey::from(self.own).distance(&KBucketKey::new(RecordKey::new(&key)))
    }

    /// Keeps a record that was judged, if it stands against the one that is
    /// here and there is room for it.
    pub(crate) fn keep(&mut self, key: &[u8], value: Vec<u8>, facts: &DhtFacts) -> Kept {
        let now = self.rules.now();
        let until = facts.expires.min(now.plus(KEPT_FOR));
        if !self.takes || until <= now {
            return Kept::No;
        }
        if value.len() > ENVELOPE_BYTES_MAX {
            return Kept::TooLong;
        }
        if let Some(held) = self.held.get_mut(key) {
            if held.id == facts.id {
                // Said again, it is kept for longer.
                held.until = until;
                return Kept::Same;
            }
            if !self.stands_against(key, facts) {
                return Kept::Older;
            }
        }
        let distance = self.distance(key);
        if let Err(full) = self.make_room(key, value.len(), facts.issuer, distance, now) {
            return full;
        }
        self.forget(key);
        self.keeper.kept(key, &value);
        self.bytes += value.len();
        *self.of.entry(facts.issuer).or_default() += 1;
        self.near.insert((distance, key.to_vec()));
        let held = Held { value, id: facts.id, issuer: facts.issuer, until, distance };
        self.held.insert(key.to_vec(), held);
        Kept::New
    }

    /// Whether a record overrules the one that is kept under its key.
    fn stands_against(&self, key: &[u8], facts: &DhtFacts) -> bool {
        // It is judged anew: its key may have been taken back since, and then it
        // gives way to whatever holds.
        let held = self.held.get(key).map(|held| self.rules.check(key, &held.value));
        held.is_none_or(|held| held.map_or(true, |held| facts.overrules(&held)))
    }

    /// Makes room for a record: what has expired goes first, then what is
    /// farthest from us, as long as that is farther than the newcomer.
    fn make_room(
        &mut self,
        key: &[u8],
        bytes: usize,
        issuer: RootId,
        distance: KBucketDistance,
        now: UnixMillis,
    ) -> Result<(), Kept> {
        let replaced = self.held.get(key).map(|held| (held.value.len(), held.issuer));
        let freed = replaced.map_or(0, |(bytes, _)| bytes);
        let same_issuer = replaced.is_some_and(|(_, of)| of == issuer);
        let issuers = |records: &Self| {
            records.of.get(&issuer).copied().unwrap_or_default() - usize::from(same_issuer)
        };
        let is_full = |records: &Self| {
            records.held.len() - usize::from(replaced.is_some()) >= RECORDS_MAX
                || records.bytes - freed + bytes > BYTES_MAX
        };
        if issuers(self) >= PER_ISSUER_MAX || is_full(self) {
            self.sweep(now, Some(key));
        }
        if issuers(self) >= PER_ISSUER_MAX {
            let farthest =
                self.near.iter().rev().find(|(_, of)| {
                    of != key && self.held.get(of).is_some_and(|h| h.issuer == issuer)
                });
            match farthest.cloned() {
                Some((at, farthest)) if at > distance => self.drop(&farthest),
                _ => return Err(Kept::Quota),
            }
        }
        while is_full(self) {
            let farthest = self.near.iter().rev().find(|(_, other)| other != key);
            match farthest.cloned() {
                Some((at, farthest)) if at > distance => self.drop(&farthest),
                _ => return Err(Kept::Full),
            }
        }
        Ok(())
    }

    /// Forgets what has expired, but for one key.
    fn sweep(&mut self, now: UnixMillis, but: Option<&[u8]>) {
        let gone: Vec<_> = self
            .held
            .iter()
            .filter(|(key, held)| held.until <= now && but != Some(key))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.drop(&key);
        }
        for providers in self.providers.values_mut() {
            providers.retain(|provider| provider.until > now);
        }
        self.providers.retain(|_, providers| !providers.is_empty());
    }

    /// Forgets what has expired.
    pub(crate) fn expire(&mut self) {
        self.sweep(self.rules.now(), None);
    }

    fn drop(&mut self, key: &[u8]) {
        if self.forget(key) {
            self.keeper.dropped(key);
        }
    }

    fn forget(&mut self, key: &[u8]) -> bool {
        let Some(held) = self.held.remove(key) else { return false };
        self.near.remove(&(held.distance, key.to_vec()));
        self.bytes -= held.value.len();
        if let Some(count) = self.of.get_mut(&held.issuer) {
            *count -= 1;
            if *count == 0 {
                self.of.remove(&held.issuer);
            }
        }
        true
    }

    /// The value that is kept under a key and holds.
    pub(crate) fn value(&self, key: &[u8]) -> Option<&[u8]> {
        let now = self.rules.now();
        self.held.get(key).filter(|held| held.until > now).map(|held| held.value.as_slice())
    }

    /// All that is kept and holds.
    pub(crate) fn export(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let now = self.rules.now();
        let held = self.held.iter().filter(|(_, held)| held.until > now);
        held.map(|(key, held)| (key.clone(), held.value.clone())).collect()
    }

    /// A peer says that it provides a key. Whether it may say so of this key
    /// was decided before.
    pub(crate) fn provide(
        &mut self,
        key: &[u8],
        peer: PeerId,
        block: Option<AddressBlock>,
        addresses: Vec<Multiaddr>,
    ) -> Kept {
        let now = self.rules.now();
        if !self.takes {
            return Kept::No;
        }
        self.sweep(now, None);
        let provided = |(other, providers): &(&Vec<u8>, &Vec<Provider>)| {
            other.as_slice() != key && providers.iter().any(|provider| provider.peer == peer)
        };
        if self.providers.iter().filter(provided).count() >= KEYS_PER_PROVIDER_MAX {
            return Kept::Quota;
        }
        if !self.providers.contains_key(key) && self.providers.len() >= PROVIDED_KEYS_MAX {
            return Kept::Full;
        }
        let own = self.own;
        let providers = self.providers.entry(key.to_vec()).or_default();
        let before = providers.iter().position(|provider| provider.peer == peer);
        let known = before.map(|at| providers.remove(at)).is_some();
        let share = |provider: &&Provider| block.is_some() && provider.block == block;
        if providers.iter().filter(share).count() >= PROVIDERS_PER_BLOCK_MAX {
            return Kept::Quota;
        }
        if providers.len() >= PROVIDERS_PER_KEY_MAX {
            // They are in the order in which they spoke last: who is here still
            // speaks again every hour.
            let silent = providers.iter().position(|provider| provider.peer != own);
            silent.map(|at| providers.remove(at));
        }
        // We provide for as long as we run.
        let until = if peer == own { UnixMillis(u64::MAX) } else { now.plus(PROVIDES_FOR) };
        providers.push(Provider { peer, block, addresses, until });
        if known { Kept::Same } else { Kept::New }
    }

    fn instant(&self, until: UnixMillis) -> Option<Instant> {
        Some(Instant::now() + until.since(self.rules.now()).min(KEPT_FOR))
    }

    fn provider_record(&self, key: &[u8], provider: &Provider) -> ProviderRecord {
        let mut addresses = provider.addresses.clone();
        if addresses.is_empty() {
            // Left empty, libp2p would fill in all addresses of ours, whoever
            // asks, and say nothing of peers outside the routing table. The
            // bare name gives nothing away.
            addresses.extend(Multiaddr::empty().with_p2p(provider.peer));
        }
        ProviderRecord {
            key: RecordKey::new(&key),
            provider: provider.peer,
            expires: self.instant(provider.until),
            addresses,
        }
    }
}

impl RecordStore for Records {
    type RecordsIter<'a> = std::vec::IntoIter<Cow<'a, Record>>;
    type ProvidedIter<'a> = std::vec::IntoIter<Cow<'a, ProviderRecord>>;

    fn get(&self, key: &RecordKey) -> Option<Cow<'_, Record>> {
        let value = self.value(key.as_ref())?.to_vec();
        let until = self.held.get(key.as_ref() as &[u8])?.until;
        let expires = self.instant(until);
        Some(Cow::Owned(Record { key: key.clone(), value, publisher: None, expires }))
    }

    /// Refuses: nothing gets in unjudged.
    fn put(&mut self, _: Record) -> StoreResult<()> {
        Err(Error::MaxRecords)
    }

    fn remove(&mut self, key: &RecordKey) {
        self.drop(key.as_ref());
    }

    /// Nothing: records are not replicated from here (spec/mesh §8).
    fn records(&self) -> Self::RecordsIter<'_> {
        Vec::new().into_iter()
    }

    /// Only for ourselves; peers come in by [`Records::provide`].
    fn add_provider(&mut self, record: ProviderRecord) -> StoreResult<()> {
        if record.provider != self.own {
            return Err(Error::MaxProvidedKeys);
        }
        match self.provide(record.key.as_ref(), self.own, None, Vec::new()) {
            Kept::New | Kept::Same => Ok(()),
            _ => Err(Error::MaxProvidedKeys),
        }
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        let now = self.rules.now();
        let key: &[u8] = key.as_ref();
        let providers = self.providers.get(key).into_iter().flatten();
        let known = providers.filter(|provider| provider.until > now);
        known.map(|provider| self.provider_record(key, provider)).collect()
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        let ours = self.providers.iter().filter_map(|(key, providers)| {
            let own = providers.iter().find(|provider| provider.peer == self.own)?;
            Some(Cow::Owned(self.provider_record(key, own)))
        });
        ours.collect::<Vec<_>>().into_iter()
    }

    fn remove_provider(&mut self, key: &RecordKey, peer: &PeerId) {
        let key: &[u8] = key.as_ref();
        if let Some(providers) = self.providers.get_mut(key) {
            providers.retain(|provider| provider.peer != *peer);
            if providers.is_empty() {
                self.providers.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests;
