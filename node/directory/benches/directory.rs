//! What the directory costs on this machine, as a table of times
//! (docs/benchmarks.md). `cargo bench -p homehost-directory --bench directory`.

#![expect(unsafe_code, reason = "an allocator that counts can be written in no other way")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use homehost_directory::core::MONO_ORIGIN;
use homehost_directory::reconcile::{RANGES_MAX, Session, Snapshot};
use homehost_directory::{Admission, Directory, Moment, Query, Refusal, Sort, Source};
use homehost_protocol::keys::{DeviceKey, KeyDigest};
use homehost_protocol::limits::{RECONCILE_BYTES_MAX, REPLICA_ROWS_MAX};
use homehost_protocol::record::RecordSigner;
use homehost_protocol::record::listing::{ListingState, flags};
use homehost_protocol::record::presence::ServerPresence;
use homehost_protocol::validate::NoChains;
use homehost_protocol::{
    JoinAddress, Presence, RecId, Record, ServerListing, ServerNonce, Transport, UnixMillis,
    validate,
};

/// Counts the bytes that are set aside.
struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(at, layout) }
    }
}

const START: UnixMillis = UnixMillis(1_795_168_800_000);
const NOW: Moment = Moment { wall: START, mono: MONO_ORIGIN };

/// Servers of one root: many roots have one, but signing keys are dear.
const SERVERS_PER_ROOT: usize = 16;

fn main() {
    println!("{:<52} {:>10} {:>10} {:>10}", "", "median", "p99", "a second");
    let records = records(SERVERS_PER_ROOT);
    let directory = admission(&records);
    memory();
    refusals();
    searches(&directory);
    reconciliation();
}

struct Records {
    listings: Vec<Vec<u8>>,
    presences: Vec<Vec<u8>>,
}

/// A full replica as hosts would sign it.
fn records(per_root: usize) -> Records {
    let random = &mut fastrand::Rng::with_seed(1);
    let mut records = Records { listings: Vec::new(), presences: Vec::new() };
    for root in 0..REPLICA_ROWS_MAX / per_root {
        let mut seed = [1; 32];
        seed[..8].copy_from_slice(&(root as u64).to_be_bytes());
        let next = KeyDigest::of(&DeviceKey::from_seed([9; 32]).public());
        let network = "test".parse().expect("a name");
        let signer = RecordSigner::genesis(DeviceKey::from_seed(seed), next, network);
        let mut servers = Vec::new();
        for n in 0..per_root {
            let listing = listing(random, root, n);
            servers.push(ServerPresence {
                id: listing.id(&signer.root()),
                players: Some(random.u16(..20)),
                slots: None,
            });
            records.listings.push(sign(&signer, Record::ServerListing(listing)));
        }
        servers.sort_by_key(|server| server.id);
        records.presences.push(sign(&signer, Record::Presence(Presence { servers })));
    }
    records
}

fn sign(signer: &RecordSigner, record: Record) -> Vec<u8> {
    signer.sign(&record, START.0, START).expect("a record that holds")
}

const WORDS: [&str; 16] = [
    "castle", "moon", "valley", "peaceful", "survival", "skyblock", "arena", "classic", "sunday",
    "friends", "creative", "hardcore", "vanilla", "festival", "museum", "railway",
];

fn listing(random: &mut fastrand::Rng, root: usize, n: usize) -> ServerListing {
    let pick = |random: &mut fastrand::Rng, list: &[&str]| list[random.usize(..list.len())].into();
    let phrase = |random: &mut fastrand::Rng, words: usize| -> String {
        let words: Vec<String> = (0..words).map(|_| pick(random, &WORDS)).collect();
        words.join(" ")
    };
    let mut tags: Vec<String> = (0..3).map(|_| pick(random, &WORDS)).collect();
    tags.sort();
    tags.dedup();
    let [_, _, a, b] = (root as u32).to_be_bytes();
    let ip = Ipv4Addr::new(20 + n as u8, a, b, 1);
    let mut nonce = [0; 16];
    nonce[0] = n as u8;
    ServerListing {
        nonce: ServerNonce(nonce),
        state: ListingState::Live,
        game: pick(random, &["luanti", "minecraft", "openarena", "xonotic", "valheim", "rust"]),
        name: phrase(random, 3),
        description: Some(phrase(random, 8)),
        tags,
        region: Some(pick(random, &["eu", "us-east", "us-west", "asia", "sa", "au"])),
        language: Some(pick(random, &["en", "de", "fr", "es", "pt-br", "ja"])),
        game_version: Some(pick(random, &["5.6", "5.6.1", "5.60", "1.20.4", "1.21"])),
        addresses: vec![JoinAddress {
            socket: (ip, 30_000 + n as u16).into(),
            transport: Transport::Udp,
        }],
        slots: Some(20),
        flags: Some(random.u32(..16)),
        plugin_set: None,
        visibility: None,
    }
}

fn admission(records: &Records) -> Directory {
    let mut directory = Directory::new("test".parse().expect("a name"));
    let before = BYTES.load(Ordering::Relaxed);
    let mut times = Times::default();
    for bytes in &records.listings {
        let admission = times.take(|| directory.admit(bytes, Source::Own, NOW).0);
        assert_eq!(admission, Admission::New);
    }
    let held = BYTES.load(Ordering::Relaxed) - size_of_val(times.0.as_slice());
    times.print("validate and admit a listing");
    let whole = times.median();
    let network = "test".parse().expect("a name");
    let mut times = Times::default();
    for bytes in &records.listings {
        times.take(|| validate(bytes, &network, &NoChains, START));
    }
    times.print("of that, validate");
    let rest = whole.saturating_sub(times.median());
    let rate = 1.0 / rest.as_secs_f64();
    println!("{:<52} {rest:>10.1?} {:>10} {rate:>10.0}", "of that, admit", "");
    let rows = records.listings.len();
    let bytes = held - before;
    let mut times = Times::default();
    for bytes in &records.presences {
        times.take(|| directory.admit(bytes, Source::Own, NOW).0);
    }
    times.print("validate and admit a presence of 16 servers");
    let envelopes: usize = records.listings.iter().map(Vec::len).sum();
    println!("a row of {} bytes on the wire takes {} in memory", envelopes / rows, bytes / rows);
    assert_eq!(directory.stats().listings, REPLICA_ROWS_MAX);
    directory
}

/// Rows of one root each, the most that a row can take.
fn memory() {
    let records = records(1);
    let mut directory = Directory::new("test".parse().expect("a name"));
    for (what, envelopes) in [("row", &records.listings), ("presence", &records.presences)] {
        let before = BYTES.load(Ordering::Relaxed);
        for bytes in envelopes {
            assert_eq!(directory.admit(bytes, Source::Own, NOW).0, Admission::New);
        }
        let memory = BYTES.load(Ordering::Relaxed) - before;
        let wire: usize = envelopes.iter().map(Vec::len).sum();
        let [wire, memory] = [wire, memory].map(|bytes| bytes / envelopes.len());
        println!("one root each: a {what} of {wire} bytes on the wire takes {memory} in memory");
    }
}

fn refusals() {
    let records = records_of_one();
    let mut directory = Directory::new("test".parse().expect("a name"));
    for bytes in &records {
        directory.admit(bytes, Source::Gossip, NOW);
    }
    let mut refuse = |what: &str, bytes: &[u8], wanted: &dyn Fn(&Refusal) -> bool| {
        let mut times = Times::default();
        for _ in 0..20_000 {
            let admission = times.take(|| directory.admit(bytes, Source::Gossip, NOW).0);
            assert!(matches!(&admission, Admission::Refused(refusal) if wanted(refusal)));
        }
        times.print(what);
    };
    refuse("refuse a listing that is known", &records[1], &|r| *r == Refusal::Known);
    refuse("refuse a listing that is old", &records[0], &|r| *r == Refusal::Old);
    let mut forged = records[1].clone();
    *forged.last_mut().expect("bytes") ^= 1;
    refuse("refuse a listing with a wrong signature", &forged, &Refusal::is_blameworthy);
    let garbage: Vec<u8> = (0..500).map(|n| (n * 7 % 251) as u8).collect();
    refuse("refuse 500 bytes of garbage", &garbage, &Refusal::is_blameworthy);
}

/// Two versions of one listing.
fn records_of_one() -> [Vec<u8>; 2] {
    let next = KeyDigest::of(&DeviceKey::from_seed([9; 32]).public());
    let network = "test".parse().expect("a name");
    let signer = RecordSigner::genesis(DeviceKey::from_seed([2; 32]), next, network);
    let listing = listing(&mut fastrand::Rng::with_seed(2), 0, 0);
    [0, 1].map(|later| {
        let record = Record::ServerListing(listing.clone());
        signer.sign(&record, START.0 + later, START).expect("a listing that holds")
    })
}

fn searches(directory: &Directory) {
    let filters = Query {
        game: Some("luanti".into()),
        region: Some("eu".into()),
        language: Some("de".into()),
        text: Some("castle moon".into()),
        ..Query::default()
    };
    let text = Query { text: Some("castle rail".into()), ..Query::default() };
    let flags = Query {
        version: Some("5.6".into()),
        without_flags: flags::PASSWORD,
        has_players: true,
        ..Query::default()
    };
    for (what, query) in [
        ("search: three filters and text", filters),
        ("search: text alone", text),
        ("search: version, flags, players", flags),
        ("search: everything, by players", Query::default()),
        ("search: everything, by name", Query { sort: Sort::Name, ..Query::default() }),
        ("search: first page of 50", Query { limit: Some(50), ..Query::default() }),
    ] {
        let mut times = Times::default();
        let mut matching = 0;
        for _ in 0..500 {
            let page = times.take(|| directory.search(&query, NOW).expect("no cursor"));
            matching = page.matching;
        }
        times.print(&format!("{what} ({matching} rows)"));
    }
}

fn reconciliation() {
    let random = &mut fastrand::Rng::with_seed(1);
    let mut records = |count: usize| -> Vec<(UnixMillis, RecId)> {
        std::iter::repeat_with(|| {
            let id = std::array::from_fn(|_| random.u8(..));
            (UnixMillis(START.0 - random.u64(..86_400_000)), RecId(id))
        })
        .take(count)
        .collect()
    };
    let all = records(10_000);
    let full = records(REPLICA_ROWS_MAX);
    let mut times = Times::default();
    for _ in 0..100 {
        times.take(|| Snapshot::new(full.iter().copied()));
    }
    times.print("snapshot of 32,768 records");
    for lacking in [0, 1, 1_000] {
        let (ours, theirs) = (Snapshot::new(all[lacking..].to_vec()), Snapshot::new(all.clone()));
        let (mut times, mut trips, mut bytes) = (Times::default(), 0, 0);
        for _ in 0..100 {
            (trips, bytes) = times.take(|| reconcile(&ours, &theirs, lacking));
        }
        times.print(&format!("10,000 records, {lacking} lacking: {trips} trips, {bytes} bytes"));
    }
    let full = Snapshot::new(full);
    for (what, range) in [
        // A date one later, no id; nothing, a wrong fingerprint, an empty list.
        ("hostile: 6,500 ranges to skip", &[40_u8, 0, 0][..]),
        (
            "hostile: 3,072 wrong fingerprints",
            &[0x83, 0x70, 0, 1, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7],
        ),
        ("hostile: 6,500 empty lists", &[0x83, 0x70, 0, 2, 0]),
        ("hostile: lists at the far end", &[1, 0, 2, 0]),
    ] {
        let ranges = RANGES_MAX.min((RECONCILE_BYTES_MAX - 16) / range.len());
        // The first bound lies a day before the end; the others follow.
        let mut message = vec![0x61];
        let mut groups = Vec::new();
        let mut date = START.0 - 86_400_000 + 1;
        while date > 0 {
            groups.push((date & 0x7f) as u8 | if groups.is_empty() { 0 } else { 0x80 });
            date >>= 7;
        }
        message.extend(groups.iter().rev());
        message.extend([0, 0]);
        message.extend(range.repeat(ranges - 1));
        let mut times = Times::default();
        for _ in 0..100 {
            black_box(times.take(|| full.answer(&message)).expect("within the rules"));
        }
        times.print(what);
    }
}

fn reconcile(ours: &Snapshot, theirs: &Snapshot, lacking: usize) -> (usize, usize) {
    let (mut session, first) = Session::begin(ours.clone());
    let (mut trips, mut bytes, mut found) = (0, 0, 0);
    let mut next = Some(first);
    while let Some(message) = next {
        let answer = theirs.answer(&message).expect("an honest message");
        trips += 1;
        bytes += message.len() + answer.len();
        let step = session.step(&answer).expect("an honest answer");
        found += step.need.len();
        next = step.next;
    }
    assert_eq!(found, lacking);
    (trips, bytes)
}

#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn take<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = black_box(work());
        self.0.push(start.elapsed());
        result
    }

    fn median(&self) -> Duration {
        let mut times = self.0.clone();
        times.sort_unstable();
        times[times.len() / 2]
    }

    fn print(&mut self, what: &str) {
        self.0.sort_unstable();
        let at = |part: f64| self.0[((self.0.len() - 1) as f64 * part) as usize];
        let all: Duration = self.0.iter().sum();
        let rate = self.0.len() as f64 / all.as_secs_f64();
        println!("{what:<52} {:>10.1?} {:>10.1?} {rate:>10.0}", at(0.5), at(0.99));
    }
}
