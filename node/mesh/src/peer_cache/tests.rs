use std::collections::BTreeMap;
use std::sync::Mutex;

use homehost_protocol::NetworkName;

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

/// A world with two clocks.
struct World {
    cache: PeerCache,
    now: Now,
    random: fastrand::Rng,
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Now { at: Instant::now(), wall_ms: 1_700_000_000_000 };
        let random = fastrand::Rng::with_seed(seed);
        Self { cache: PeerCache::new(node(0), now), now, random }
    }

    fn pass(&mut self, time: Duration) {
        self.now.at += time;
        self.now.wall_ms += u64::try_from(time.as_millis()).unwrap();
        self.cache.tend(self.now);
    }

    fn joined(&mut self, n: u16, address: &str) {
        self.cache.joined(node(n), &[at(address)], Role::Host, self.now);
    }

    /// Comes, stays and goes.
    fn stayed(&mut self, n: u16, address: &str, time: Duration) {
        self.joined(n, address);
        self.pass(time);
        self.cache.left(node(n), self.now);
    }

    fn failed(&mut self, n: u16) {
        self.cache.failed(node(n), self.now);
    }

    fn worked(&mut self, way: Way) {
        self.cache.worked(way, self.now);
    }

    fn knows(&self, n: u16) -> bool {
        self.cache.peers.contains_key(&node(n))
    }

    fn anchors(&mut self) -> Vec<NodeId> {
        self.cache.anchors(self.now).into_iter().map(|(node, _)| node).collect()
    }

    /// What the next start knows.
    fn restarted(mut self) -> Self {
        let bytes = self.cache.encode(&network(), self.now);
        let mut cache = PeerCache::new(node(0), self.now);
        cache.decode(&bytes, &network(), self.now).unwrap();
        Self { cache, ..self }
    }
}

fn network() -> NetworkName {
    "cache-test".parse().unwrap()
}

/// A node whose id is a key, as those are that are read from a file.
fn node(n: u16) -> NodeId {
    static MADE: Mutex<BTreeMap<u16, NodeId>> = Mutex::new(BTreeMap::new());
    let make = || {
        let [a, b] = n.to_be_bytes();
        let mut seed = [7; 32];
        (seed[0], seed[1]) = (a, b);
        let keypair = libp2p::identity::Keypair::ed25519_from_bytes(seed).unwrap();
        crate::node_id::node_of(&keypair.public().to_peer_id()).unwrap()
    };
    *MADE.lock().unwrap().entry(n).or_insert_with(make)
}

fn at(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

/// The n-th address of a block.
fn in_block(block: u16, n: u8) -> String {
    format!("/ip4/{}.{}.1.{n}/tcp/4001", 20 + block / 200, block % 200)
}

#[test]
fn seeded_crowds_stay_within_every_bound() {
    for seed in 0..12 {
        let mut world = World::new(seed);
        for _ in 0..800 {
            let n = world.random.u16(1..600);
            let (block, host) = (world.random.u16(0..150), world.random.u8(1..250));
            match world.random.u8(0..10) {
                0 => world.joined(n, &format!("/ip4/192.168.1.{host}/tcp/4001")),
                1..=4 => world.joined(n, &in_block(block, host)),
                5 | 6 => world.cache.left(node(n), world.now),
                7 => world.failed(n),
                8 => world.worked(Way::Far),
                _ => world.pass(Duration::from_secs(600)),
            }
            let mut blocks: BTreeMap<AddressBlock, usize> = BTreeMap::new();
            let mut near = 0;
            for known in world.cache.peers.values() {
                assert!((1..=ADDRESSES_MAX).contains(&known.addresses.len()));
                match known.block {
                    Some(block) => *blocks.entry(block).or_default() += 1,
                    None => near += 1,
                }
            }
            assert!(world.cache.len() <= PEERS_MAX, "seed {seed}");
            assert!(near <= NEAR_MAX, "seed {seed}");
            assert!(blocks.values().all(|peers| *peers <= PER_BLOCK_MAX), "seed {seed}");
            assert!(world.cache.unsure.len() <= PEERS_MAX, "seed {seed}");
        }
        let before = world.cache.peers.keys().copied().collect::<Vec<_>>();
        let world = world.restarted();
        assert_eq!(world.cache.peers.keys().copied().collect::<Vec<_>>(), before);
    }
}

#[test]
fn many_ids_of_few_blocks_displace_nobody() {
    for seed in 0..10 {
        let mut world = World::new(seed);
        for n in 1..=40 {
            world.stayed(n, &in_block(n, 1), HOUR);
        }
        // An honest newcomer of a block that the attacker has, too.
        world.joined(41, &in_block(100, 1));
        for n in 1000..3000 {
            let (block, host) = (world.random.u16(100..104), world.random.u8(2..250));
            world.stayed(n, &in_block(block, host), Duration::from_secs(60));
        }
        assert!((1..=41).all(|n| world.knows(n)), "seed {seed}");
        assert!(world.cache.len() <= 40 + 4 * PER_BLOCK_MAX, "seed {seed}");
    }
}

#[test]
fn even_with_a_thousand_blocks_newcomers_displace_only_newcomers() {
    let mut world = World::new(1);
    for n in 1..=100 {
        world.stayed(n, &in_block(n, 1), HOUR);
    }
    for n in 1000..2000 {
        world.stayed(n, &in_block(n, 1), Duration::from_secs(60));
    }
    assert!((1..=100).all(|n| world.knows(n)));
    assert_eq!(world.cache.len(), PEERS_MAX);
    assert!(world.knows(1999), "there is room for the newest");
    // A day later half of the old ones are gone for good, and make room.
    for _ in 0..80 {
        world.pass(HOUR);
        world.worked(Way::Far);
        (1..=50).for_each(|n| world.failed(n));
    }
    assert!((1..=50).all(|n| !world.knows(n)));
    assert!((51..=100).all(|n| world.knows(n)));
}

#[test]
fn being_offline_says_nothing_about_others() {
    let mut world = World::new(2);
    for n in 1..=20 {
        world.stayed(n, &in_block(n, 1), HOUR);
    }
    let before = world.cache.peers.clone();
    // The router is off for two weeks.
    for _ in 0..14 * 24 * 4 {
        world.pass(Duration::from_secs(900));
        (1..=20).for_each(|n| world.failed(n));
    }
    world.pass(Duration::from_secs(60));
    // Someone of the LAN is no sign of the world.
    world.failed(7);
    world.worked(Way::Near);
    world.worked(Way::Far);
    let failures = |world: &World| -> Vec<u8> {
        world.cache.peers.values().map(|known| known.failures).collect()
    };
    assert_eq!(failures(&world).iter().sum::<u8>(), 1, "the one that failed as others answered");
    assert_eq!(world.cache.len(), before.len());
}

#[test]
fn one_who_is_gone_is_forgotten_after_days_and_one_who_returns_is_forgiven() {
    let mut world = World::new(3);
    world.stayed(1, &in_block(1, 1), HOUR);
    world.stayed(2, &in_block(2, 1), HOUR);
    let begun = world.now.at;
    while world.knows(1) {
        world.pass(Duration::from_secs(600));
        world.worked(Way::Far);
        world.failed(1);
        world.failed(2);
        // The second is off at night.
        if world.now.at.duration_since(begun).as_secs() / 3600 % 24 >= 8 {
            world.joined(2, &in_block(2, 1));
            world.cache.left(node(2), world.now);
        }
    }
    let took = world.now.at.duration_since(begun);
    assert!(took > 3 * DAY && took < 5 * DAY, "{took:?}");
    assert!(world.knows(2));
}

#[test]
fn the_anchors_are_those_who_stayed_longest_one_of_a_block() {
    let mut world = World::new(4);
    // Long ago.
    world.stayed(1, &in_block(1, 1), 10 * DAY);
    world.pass(10 * DAY);
    for (n, block) in [(2, 2), (3, 2), (4, 3), (5, 4), (6, 5), (7, 6)] {
        world.joined(n, &in_block(block, u8::try_from(n).unwrap()));
        world.pass(HOUR);
    }
    world.joined(8, "/ip4/192.168.1.7/tcp/4001");
    world.cache.joined(node(9), &[at(&in_block(9, 1))], Role::Bootstrap, world.now);
    let mut world = world.restarted();
    assert_eq!(world.anchors(), [2, 4, 5, 6].map(node), "2 and 3 are of one block");
    // Where there are none, those of the LAN and of long ago are better than nothing.
    let mut world = World::new(5);
    world.stayed(1, &in_block(1, 1), DAY);
    world.pass(DAY);
    world.stayed(2, "/ip4/192.168.1.7/tcp/4001", HOUR);
    world.stayed(3, "/ip4/192.168.1.8/tcp/4001", HOUR);
    assert_eq!(world.restarted().anchors()[0], node(1));
}

#[test]
fn all_have_their_turn_before_one_has_a_second() {
    let mut world = World::new(6);
    for n in 1..=20 {
        world.stayed(n, &in_block(n, 1), HOUR);
    }
    world.joined(21, &in_block(21, 1));
    let mut world = world.restarted();
    world.joined(21, &in_block(21, 1));
    let some = |world: &mut World, most, urgency| {
        let dials = world.cache.some(most, urgency, world.now, &mut world.random);
        dials.into_iter().map(|(node, _)| node).collect::<Vec<_>>()
    };
    let mut seen = BTreeSet::new();
    for _ in 0..4 {
        seen.extend(some(&mut world, 5, Urgency::Calm));
    }
    assert_eq!(seen, (1..=20).map(node).collect(), "not the one that is there");
    assert_eq!(some(&mut world, 5, Urgency::Calm), [], "all were dialled just now");
    assert_eq!(some(&mut world, 5, Urgency::Alone).len(), 5);
    world.pass(DIAL_AGAIN);
    assert_eq!(some(&mut world, 50, Urgency::Calm).len(), 20);
    world.worked(Way::Far);
    world.failed(1);
    world.pass(DIAL_AGAIN);
    assert!(!some(&mut world, 50, Urgency::Calm).contains(&node(1)), "its hour is not over");
}

#[test]
fn a_clock_that_was_wrong_spares_nobody_for_ever() {
    let mut world = World::new(7);
    world.stayed(1, &in_block(1, 1), HOUR);
    world.worked(Way::Far);
    world.now.wall_ms += 24 * 3_600_000;
    world.failed(1);
    world.now.wall_ms -= 24 * 3_600_000;
    for _ in 0..100 {
        world.pass(HOUR);
        world.worked(Way::Far);
        world.failed(1);
    }
    assert!(!world.knows(1));
    // What was seen in a time to come was seen now.
    let mut world = World::new(8);
    world.now.wall_ms += 24 * 3_600_000;
    world.stayed(1, &in_block(1, 1), HOUR);
    let bytes = world.cache.encode(&network(), world.now);
    world.now.wall_ms -= 24 * 3_600_000;
    let mut cache = PeerCache::new(node(0), world.now);
    cache.decode(&bytes, &network(), world.now).unwrap();
    assert_eq!(cache.peers[&node(1)].seen_ms, world.now.wall_ms);
}

#[test]
fn only_a_peer_s_own_plain_addresses_are_remembered() {
    let id = node(3);
    for (told, expected) in [
        (vec!["/ip4/20.1.1.1/tcp/4001", "/ip4/20.1.1.1/udp/4001/quic-v1"], 2),
        (vec!["/ip4/20.1.1.1/tcp/4001", "/ip4/21.1.1.1/tcp/4001"], 1),
        (vec!["/ip4/192.168.1.2/tcp/4001", "/ip4/20.1.1.1/tcp/4001"], 1),
        (vec!["/dns4/boot.example.org/tcp/4001"], 0),
        (vec!["/ip4/0.0.0.0/tcp/4001", "/ip4/20.1.1.1/tcp/0"], 0),
    ] {
        let told: Vec<_> = told.into_iter().map(at).collect();
        assert_eq!(fit(&told).len(), expected, "{told:?}");
    }
    let relay = at(&format!("/ip4/20.1.1.1/tcp/4001/p2p/{id}/p2p-circuit"));
    assert_eq!(fit(&[relay]), [], "that is the relay's");
}

#[test]
fn a_file_of_another_network_or_of_nobody_s_is_not_used() {
    let mut world = World::new(9);
    world.stayed(1, &in_block(1, 1), HOUR);
    let bytes = world.cache.encode(&network(), world.now);
    let mut cache = PeerCache::new(node(0), world.now);
    let other: NetworkName = "another".parse().unwrap();
    cache.decode(&bytes, &other, world.now).unwrap();
    assert_eq!(cache.len(), 0);
    for cut in 0..bytes.len() {
        assert!(cache.decode(&bytes[..cut], &network(), world.now).is_err());
    }
    assert!(cache.decode(&vec![b' '; 300_000], &network(), world.now).is_err());
    let text = String::from_utf8(bytes).unwrap();
    for (from, to) in [
        ("/ip4/20.1.1.1/tcp/4001", "/dns4/evil.example.org/tcp/4001"),
        ("/ip4/20.1.1.1/tcp/4001", "/ip4/0.0.0.0/tcp/4001"),
        ("\"host\"", "\"king\""),
        ("12D3KooW", "12D3KooX"),
    ] {
        assert!(text.contains(from), "{from}: {text}");
        cache.decode(text.replace(from, to).as_bytes(), &network(), world.now).unwrap();
        assert_eq!(cache.len(), 0, "{to}");
    }
    let newer = text.replace("\"role\"", "\"colour\":\"red\",\"role\"");
    cache.decode(newer.as_bytes(), &network(), world.now).unwrap();
    assert_eq!(cache.len(), 1);
}

#[test]
fn a_bad_peer_is_forgotten_at_once() {
    let mut world = World::new(10);
    world.stayed(1, &in_block(1, 1), 2 * HOUR);
    world.cache.tend(world.now);
    world.cache.banned(node(1), world.now);
    assert!(!world.knows(1));
    world.now.at += SAVE_SOON;
    assert!(world.cache.tend(world.now), "and that is saved");
}
