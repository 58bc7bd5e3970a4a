use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::dht::DhtRefusal;

/// Values are numbers: issuer, epoch, seq, expiry, and what fills them. There is
/// a clock, and an issuer whose keys were taken back.
struct Rules(AtomicU64, AtomicU64);

fn value(issuer: u8, order: (u16, u64), expires: u64, bytes: usize) -> Vec<u8> {
    let mut value = vec![issuer];
    value.extend(order.0.to_be_bytes());
    value.extend(order.1.to_be_bytes());
    value.extend(expires.to_be_bytes());
    value.resize(bytes.max(value.len()), 0);
    value
}

impl DhtRules for Rules {
    fn check(&self, _: &[u8], value: &[u8]) -> Result<DhtFacts, DhtRefusal> {
        let expires = u64::from_be_bytes(value[11..19].try_into().unwrap());
        if u64::from(value[0]) == self.1.load(Ordering::Relaxed) {
            return Err(DhtRefusal::Ignored("revoked".into()));
        }
        if expires <= self.now().0 {
            return Err(DhtRefusal::Ignored("expired".into()));
        }
        Ok(DhtFacts {
            id: RecId::of(value),
            issuer: RootId([value[0]; 32]),
            order: (
                u16::from_be_bytes(value[1..3].try_into().unwrap()),
                u64::from_be_bytes(value[3..11].try_into().unwrap()),
            ),
            expires: UnixMillis(expires),
            chain: None,
        })
    }

    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::Relaxed))
    }
}

/// Mirrors what it is told.
#[derive(Default)]
struct Mirror(Mutex<HashMap<Vec<u8>, Vec<u8>>>);

impl DhtKeeper for Mirror {
    fn kept(&self, key: &[u8], value: &[u8]) {
        self.0.lock().unwrap().insert(key.to_vec(), value.to_vec());
    }

    fn dropped(&self, key: &[u8]) {
        assert!(self.0.lock().unwrap().remove(key).is_some(), "it was never kept");
    }
}

struct Bench {
    records: Records,
    rules: Arc<Rules>,
    mirror: Arc<Mirror>,
}

impl Bench {
    fn new() -> Self {
        Self::with(Vec::new())
    }

    fn with(held: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        let rules = Arc::new(Rules(AtomicU64::new(0), AtomicU64::new(u64::MAX)));
        let mirror = Arc::new(Mirror::default());
        mirror.0.lock().unwrap().extend(held.iter().cloned());
        let (rules_too, keeper) = (Arc::clone(&rules) as _, Arc::clone(&mirror) as _);
        let config = DhtConfig { rules: rules_too, keeper, held };
        Self { records: Records::new(PeerId::random(), config, true), rules, mirror }
    }

    fn put(&mut self, key: &[u8], value: Vec<u8>) -> Kept {
        match self.rules.check(key, &value) {
            Ok(facts) => self.records.keep(key, value, &facts),
            Err(_) => Kept::No,
        }
    }

    fn at(&self, now: u64) {
        self.rules.0.store(now, Ordering::Relaxed);
    }

    fn check(&self, context: &str) {
        let records = &self.records;
        assert!(records.held.len() <= RECORDS_MAX, "{context}");
        assert!(records.bytes <= BYTES_MAX, "{context}");
        let bytes: usize = records.held.values().map(|held| held.value.len()).sum();
        assert_eq!(bytes, records.bytes, "{context}");
        assert_eq!(records.near.len(), records.held.len(), "{context}");
        let mut of: HashMap<RootId, usize> = HashMap::new();
        for held in records.held.values() {
            *of.entry(held.issuer).or_default() += 1;
        }
        assert_eq!(of, records.of, "{context}");
        assert!(of.values().all(|count| *count <= PER_ISSUER_MAX), "{context}");
        let mirror = self.mirror.0.lock().unwrap();
        assert_eq!(mirror.len(), records.held.len(), "{context}");
        for (key, held) in &records.held {
            assert_eq!(mirror.get(key), Some(&held.value), "{context}");
        }
    }
}

/// Longer than any clock here runs.
const FAR: u64 = 1 << 40;

#[test]
fn seeded_floods_never_exceed_the_bounds_and_leave_the_nearest() {
    for seed in 0..4 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bench = Bench::new();
        let large = seed % 2 == 0;
        let mut now = 0;
        let steps = if large { 6000 } else { 12_000 };
        for step in 0..steps {
            now += random.u64(0..10_000);
            bench.at(now);
            let bytes = if large { random.usize(4000..8500) } else { random.usize(19..80) };
            let expires = now + random.u64(1..40_000_000);
            let order = (random.u16(0..2), random.u64(0..4));
            let key = random.u32(0..20_000).to_be_bytes();
            bench.put(&key, value(random.u8(..), order, expires, bytes));
            if step % 500 == 0 {
                bench.check(&format!("seed {seed} step {step}"));
            }
        }
        bench.check(&format!("seed {seed}"));
    }
}

#[test]
fn a_full_store_gives_up_what_is_farthest_and_never_for_something_farther() {
    let mut bench = Bench::new();
    let key = |n: usize| n.to_be_bytes().to_vec();
    let mut distances: Vec<_> =
        (0..RECORDS_MAX * 2).map(|n| (bench.records.distance(&key(n)), n)).collect();
    for n in 0..RECORDS_MAX * 2 {
        let issuer = u8::try_from(n % 256).unwrap();
        let kept = bench.put(&key(n), value(issuer, (0, 1), FAR, 30));
        assert!(matches!(kept, Kept::New | Kept::Full), "{kept:?}");
    }
    bench.check("full");
    distances.sort();
    let nearest: HashSet<_> = distances[..RECORDS_MAX].iter().map(|(_, n)| key(*n)).collect();
    let held: HashSet<_> = bench.records.held.keys().cloned().collect();
    assert_eq!(held, nearest);
}

#[test]
fn one_issuer_gets_its_share_of_the_nearest_keys_and_others_get_theirs() {
    let mut bench = Bench::new();
    let mut distances = Vec::new();
    for n in 0..PER_ISSUER_MAX * 3 {
        let key = n.to_be_bytes();
        distances.push((bench.records.distance(&key), key.to_vec()));
        let kept = bench.put(&key, value(1, (0, 1), FAR, 30));
        assert!(matches!(kept, Kept::New | Kept::Quota), "{kept:?}");
    }
    distances.sort();
    let nearest: HashSet<_> =
        distances[..PER_ISSUER_MAX].iter().map(|(_, key)| key.clone()).collect();
    assert_eq!(bench.records.held.keys().cloned().collect::<HashSet<_>>(), nearest);
    assert_eq!(bench.put(b"of another", value(2, (0, 1), FAR, 30)), Kept::New);
    // A newer version of its own takes no other's place.
    let own = nearest.iter().next().unwrap();
    assert_eq!(bench.put(own, value(1, (0, 2), FAR, 30)), Kept::New);
    bench.check("quota");
}

#[test]
fn the_newest_stays_whatever_the_order_of_arrival() {
    for seed in 0..500 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bench = Bench::new();
        let mut versions: Vec<_> =
            (0..8).map(|n| value(1, (random.u16(0..3), random.u64(0..3)), FAR, 30 + n)).collect();
        random.shuffle(&mut versions);
        for version in &versions {
            bench.put(b"key", version.clone());
        }
        let rank = |version: &&Vec<u8>| {
            let facts = bench.rules.check(b"key", version).unwrap();
            (facts.order, std::cmp::Reverse(facts.id))
        };
        let best = versions.iter().max_by_key(rank).unwrap();
        assert_eq!(bench.records.value(b"key"), Some(best.as_slice()), "seed {seed}");
        assert_eq!(bench.put(b"key", best.clone()), Kept::Same);
    }
}

#[test]
fn what_holds_no_longer_gives_way_whatever_its_order() {
    let mut bench = Bench::new();
    assert_eq!(bench.put(b"key", value(1, (0, 9), FAR, 30)), Kept::New);
    assert_eq!(bench.put(b"key", value(2, (0, 1), FAR, 30)), Kept::Older);
    bench.rules.1.store(1, Ordering::Relaxed);
    assert_eq!(bench.put(b"key", value(2, (0, 1), FAR, 30)), Kept::New);
    bench.check("gave way");
}

#[test]
fn records_end_by_the_wall_clock_and_are_given_out_no_longer() {
    let mut bench = Bench::new();
    let kept_for = u64::try_from(KEPT_FOR.as_millis()).unwrap();
    assert_eq!(bench.put(b"short", value(1, (0, 1), 1000, 30)), Kept::New);
    assert_eq!(bench.put(b"long", value(1, (0, 1), FAR, 30)), Kept::New);
    let get = |bench: &Bench, key: &[u8]| bench.records.get(&RecordKey::new(&key)).is_some();
    bench.at(999);
    assert!(get(&bench, b"short"));
    bench.at(1000);
    assert!(!get(&bench, b"short") && get(&bench, b"long"));
    assert_eq!(bench.records.export().len(), 1);
    bench.at(kept_for - 1);
    assert!(get(&bench, b"long"));
    // Said again, it stays for as long again; and no longer than it says.
    assert_eq!(bench.put(b"long", value(1, (0, 1), FAR, 30)), Kept::Same);
    bench.at(kept_for + 1);
    assert!(get(&bench, b"long"));
    bench.at(2 * kept_for);
    assert!(!get(&bench, b"long"));
    bench.records.expire();
    assert!(bench.records.held.is_empty() && bench.records.bytes == 0);
    bench.check("all over");
}

#[test]
fn what_was_held_before_is_judged_anew() {
    let held = vec![
        (b"good".to_vec(), value(1, (0, 1), FAR, 30)),
        (b"over".to_vec(), value(1, (0, 1), 0, 30)),
    ];
    let bench = Bench::with(held);
    assert_eq!(bench.records.held.keys().collect::<Vec<_>>(), [b"good"]);
    bench.check("restored");
    let again = Bench::with(bench.records.export());
    assert_eq!(again.records.held.len(), 1);
}

#[test]
fn nothing_gets_in_unjudged_or_too_long_or_where_nothing_is_kept() {
    let mut bench = Bench::new();
    let record = Record::new(b"key".to_vec(), value(1, (0, 1), FAR, 30));
    assert!(bench.records.put(record).is_err());
    let provider = ProviderRecord::new(b"key".to_vec(), PeerId::random(), vec![]);
    assert!(bench.records.add_provider(provider).is_err());
    let long = value(1, (0, 1), FAR, ENVELOPE_BYTES_MAX + 1);
    assert_eq!(bench.put(b"key", long), Kept::TooLong);
    bench.records.takes = false;
    assert_eq!(bench.put(b"key", value(1, (0, 1), FAR, 30)), Kept::No);
    assert_eq!(bench.records.provide(b"key", PeerId::random(), None, vec![]), Kept::No);
    bench.check("empty");
}

#[test]
fn seeded_providers_keep_within_their_bounds_and_the_lively_stay() {
    for seed in 0..4 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bench = Bench::new();
        let peers: Vec<_> = (0..300).map(|_| PeerId::random()).collect();
        let own = ProviderRecord::new(b"k0".to_vec(), bench.records.own, vec![]);
        bench.records.add_provider(own).unwrap();
        for step in 0..1000_u64 {
            bench.at(step * 1000);
            let peer = random.usize(0..peers.len());
            let block = peer
                .is_multiple_of(3)
                .then(|| AddressBlock::V4([8, u8::try_from(peer % 9).unwrap()]));
            let key = format!("k{}", if random.bool() { 0 } else { random.u32(0..200) });
            bench.records.provide(key.as_bytes(), peers[peer], block, vec![]);
            let providers = &bench.records.providers;
            assert!(providers.len() <= PROVIDED_KEYS_MAX, "seed {seed}");
            let mut keys: HashMap<PeerId, usize> = HashMap::new();
            for of in providers.values() {
                assert!(of.len() <= PROVIDERS_PER_KEY_MAX, "seed {seed}");
                let mut blocks: HashMap<AddressBlock, usize> = HashMap::new();
                for provider in of {
                    *keys.entry(provider.peer).or_default() += 1;
                    if let Some(block) = provider.block {
                        *blocks.entry(block).or_default() += 1;
                    }
                }
                assert!(blocks.values().all(|n| *n <= PROVIDERS_PER_BLOCK_MAX), "seed {seed}");
            }
            assert!(keys.values().all(|n| *n <= KEYS_PER_PROVIDER_MAX), "seed {seed}");
        }
        let ours = bench.records.provided().count();
        assert_eq!(ours, 1, "seed {seed}: others do not push us out");
        bench.at(1_000_000 + u64::try_from(PROVIDES_FOR.as_millis()).unwrap());
        let left = bench.records.providers(&RecordKey::new(&"k0"));
        assert_eq!(left.len(), 1, "seed {seed}: only we still provide");
        let name = Multiaddr::empty().with_p2p(bench.records.own).unwrap();
        assert_eq!(left[0].addresses, [name], "no address of ours is told");
    }
}
