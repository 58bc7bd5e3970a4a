use super::*;
use std::collections::BTreeMap;

fn key(seed: u16) -> Keypair {
    let mut bytes = [7; 32];
    bytes[..2].copy_from_slice(&seed.to_be_bytes());
    Keypair::ed25519_from_bytes(bytes).unwrap()
}

fn record(seed: u16, addresses: &[&str]) -> Vec<u8> {
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    sign(&key(seed), addresses).unwrap()
}

fn read(seed: u16, addresses: &[&str]) -> SignedPeer {
    SignedPeer::read(&record(seed, addresses)).unwrap()
}

fn named(book: &Book, scope: Scope, now: Instant) -> Vec<PeerId> {
    let mut random = fastrand::Rng::with_seed(1);
    let chosen = book.choose((PeerId::random(), scope), now, &mut random);
    chosen.iter().map(|bytes| SignedPeer::read(bytes).unwrap().peer).collect()
}

const HERE: &str = "/ip4/8.8.8.8/tcp/4001";

#[test]
fn only_what_its_peer_signed_is_read() {
    let bytes = record(1, &[HERE, "/ip6/2a01:4f8::1/udp/4001/quic-v1"]);
    let read = SignedPeer::read(&bytes).unwrap();
    assert_eq!((read.peer, read.addresses.len()), (key(1).public().to_peer_id(), 2));
    for at in 0..bytes.len() {
        assert!(SignedPeer::read(&bytes[..at]).is_none(), "cut at {at}");
        let mut bent = bytes.clone();
        bent[at] ^= 1;
        let same = |read: SignedPeer| (read.peer, read.addresses) == (read.peer, vec![]);
        assert!(!SignedPeer::read(&bent).is_some_and(same), "bent at {at}");
    }
    // In another's name.
    let theirs = PeerRecord::new_interop(&key(2), vec![HERE.parse().unwrap()]).unwrap();
    let theirs = theirs.into_signed_envelope().into_protobuf_encoding();
    let own_key = key(1).public().encode_protobuf();
    let their_key = key(2).public().encode_protobuf();
    let at = theirs.windows(their_key.len()).position(|part| part == their_key).unwrap();
    let mut forged = theirs.clone();
    forged[at..at + own_key.len()].copy_from_slice(&own_key);
    assert!(SignedPeer::read(&theirs).is_some() && SignedPeer::read(&forged).is_none());
    // Too much, and nothing.
    let many = vec![HERE.parse().unwrap(); ADDRESSES_MAX + 1];
    assert!(SignedPeer::read(&sign(&key(1), many).unwrap()).is_none());
    assert!(sign(&key(1), vec![]).is_none());
    assert!(sign(&key(1), vec![HERE.parse().unwrap(); 200]).is_none());
    assert!(SignedPeer::read(&[0; PX_RECORD_BYTES_MAX + 1]).is_none());
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..2000 {
        let garbage: Vec<u8> = (0..random.usize(0..300)).map(|_| random.u8(..)).collect();
        assert!(SignedPeer::read(&garbage).is_none());
    }
}

#[test]
fn who_has_left_is_named_for_a_while_and_after_those_who_are_here() {
    let (mut book, now) = (Book::default(), Instant::now());
    for seed in 0..20 {
        assert!(book.put(read(seed, &[&format!("/ip4/8.{seed}.0.1/tcp/1")]), now));
    }
    let gone = key(3).public().to_peer_id();
    book.left(&gone, now);
    assert_eq!(named(&book, Scope::Global, now).len(), PX_RECORDS_MAX);
    assert!(!named(&book, Scope::Global, now).contains(&gone), "there are enough others");
    for seed in (0..20).filter(|seed| *seed != 3) {
        book.left(&key(seed).public().to_peer_id(), now + Duration::from_secs(60));
    }
    book.returned(&gone);
    assert_eq!(named(&book, Scope::Global, now)[0], gone);
    book.left(&gone, now);
    let later = now + NAMED_FOR;
    assert!(!named(&book, Scope::Global, later).contains(&gone));
    assert_eq!(named(&book, Scope::Global, later).len(), PX_RECORDS_MAX);
    assert!(named(&book, Scope::Global, later + Duration::from_secs(60)).is_empty());
}

#[test]
fn nobody_is_told_of_places_that_are_not_for_them() {
    let (mut book, now) = (Book::default(), Instant::now());
    book.put(read(1, &["/ip4/127.0.0.1/tcp/1"]), now);
    book.put(read(2, &["/ip4/192.168.1.2/tcp/1", HERE]), now);
    book.put(read(3, &["/ip4/9.9.9.9/tcp/1"]), now);
    let counts = [Scope::Loopback, Scope::OnLink, Scope::Global, Scope::Nowhere]
        .map(|scope| named(&book, scope, now).len());
    assert_eq!(counts, [3, 2, 1, 0]);
    let own = (key(3).public().to_peer_id(), Scope::Global);
    assert!(book.choose(own, now, &mut fastrand::Rng::with_seed(1)).is_empty());
    book.keep_out(&DenyList::parse("9.9.0.0/16").unwrap());
    assert!(named(&book, Scope::Global, now).is_empty());
}

#[test]
fn hosts_behind_a_relay_are_half_of_an_answer_and_as_far_as_the_relay() {
    let (mut book, now) = (Book::default(), Instant::now());
    let relay = PeerId::random();
    for seed in 0..20 {
        book.put(read(seed, &[&format!("{HERE}/p2p/{relay}/p2p-circuit")]), now);
    }
    assert_eq!(named(&book, Scope::Global, now).len(), RELAYED_MAX);
    let near = format!("/ip4/192.168.1.2/tcp/1/p2p/{relay}/p2p-circuit");
    let mut book = Book::default();
    book.put(read(1, &[&near]), now);
    assert!(named(&book, Scope::Global, now).is_empty());
    assert_eq!(named(&book, Scope::OnLink, now).len(), 1);
}

#[test]
fn an_older_record_does_not_replace_a_newer_one() {
    let (mut book, now) = (Book::default(), Instant::now());
    let mut newer = read(1, &[HERE]);
    newer.seq += 1;
    assert!(book.put(newer, now));
    assert!(!book.put(read(1, &["/ip4/9.9.9.9/tcp/1"]), now));
    assert_eq!(book.len(), 1);
}

#[test]
fn seeded_books_stay_bounded_and_answers_diverse() {
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut book, mut now) = (Book::default(), Instant::now());
        for n in 0..60 {
            let ip = format!("/ip4/8.{}.0.{n}/tcp/1", random.u8(0..6));
            let record = read(n, &[&ip]);
            let peer = record.peer;
            book.put(record, now);
            if random.bool() {
                book.left(&peer, now);
            }
            now += Duration::from_secs(random.u64(0..60));
            let asker = (peer, Scope::Global);
            let chosen = book.choose(asker, now, &mut random);
            assert!(chosen.len() <= PX_RECORDS_MAX);
            let mut blocks: BTreeMap<_, usize> = BTreeMap::new();
            for bytes in &chosen {
                let read = SignedPeer::read(bytes).unwrap();
                assert_ne!(read.peer, peer);
                let block = AddressBlock::of(scope::ip_of(&read.addresses[0]).unwrap());
                *blocks.entry(block).or_default() += 1;
            }
            assert!(blocks.values().all(|count| *count <= PER_BLOCK_MAX), "seed {seed}");
        }
    }
}

#[test]
fn a_full_book_takes_newcomers_for_those_who_left_and_for_nobody_else() {
    let (mut book, now) = (Book::default(), Instant::now());
    let template = read(0, &[HERE]);
    let some = |n: u64| {
        let mut peer = template.clone();
        peer.peer = PeerId::random();
        peer.seq += n;
        peer
    };
    let first = some(0);
    book.put(first.clone(), now);
    for n in 1..BOOK_MAX as u64 {
        assert!(book.put(some(n), now));
    }
    assert!(!book.put(some(0), now), "everybody is here");
    book.left(&first.peer, now);
    assert!(book.put(some(0), now));
    assert_eq!(book.len(), BOOK_MAX);
}
