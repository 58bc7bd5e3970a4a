//! What a bootstrap node relays (spec/mesh §13): enough for two nodes to agree on
//! a direct connection, or to say a few words when there is none, and no more.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId, relay};

use crate::crowd::{Block, Source};
use crate::scope;
use crate::token_bucket::{Budgets, Rate};

/// Hosts that may be reached through this node: most of those that it has places
/// for cannot be reached otherwise.
const RESERVATIONS_MAX: usize = 1024;
/// Of one host: an old and a new connection.
const RESERVATIONS_PER_PEER_MAX: usize = 2;
/// How long one holds; it is renewed before that.
const RESERVATION: Duration = Duration::from_secs(3600);

/// Connections that are relayed at once.
const CIRCUITS_MAX: usize = 256;
/// Of them those of one host.
const CIRCUITS_PER_PEER_MAX: usize = 8;
/// How long one may last: three attempts at a direct connection.
const CIRCUIT: Duration = Duration::from_secs(120);
/// Bytes of one, each way: both ends' introductions and some gossip.
const CIRCUIT_BYTES_MAX: u64 = 128 * 1024;

/// Reservations of one block of addresses: a house with its machines, at once,
/// and one in a minute; each is renewed once an hour.
const RESERVE_RATE: Rate = Rate { per_second: 1.0 / 60.0, burst: 16.0 };
/// Circuits that one block of addresses asks for.
const CIRCUIT_RATE: Rate = Rate { per_second: 1.0 / 15.0, burst: 32.0 };

/// Blocks whose budget is remembered.
const BLOCKS_MAX: usize = 4096;

pub(crate) fn config() -> relay::Config {
    let mut config = relay::Config {
        max_reservations: RESERVATIONS_MAX,
        max_reservations_per_peer: RESERVATIONS_PER_PEER_MAX,
        reservation_duration: RESERVATION,
        reservation_rate_limiters: vec![],
        max_circuits: CIRCUITS_MAX,
        max_circuits_per_peer: CIRCUITS_PER_PEER_MAX,
        max_circuit_duration: CIRCUIT,
        max_circuit_bytes: CIRCUIT_BYTES_MAX,
        circuit_src_rate_limiters: vec![],
    };
    config.reservation_rate_limiters.push(Box::new(by_block(RESERVE_RATE)));
    config.circuit_src_rate_limiters.push(Box::new(by_block(CIRCUIT_RATE)));
    // Also on the machine itself, which has no block.
    const A_MINUTE: Duration = Duration::from_secs(60);
    const AT_ONCE: NonZeroU32 = NonZeroU32::new(30).expect("30 is not 0");
    config.reservation_rate_per_peer(AT_ONCE, A_MINUTE).circuit_src_per_peer(AT_ONCE, A_MINUTE)
}

fn by_block(rate: Rate) -> impl FnMut(PeerId, &Multiaddr, Instant) -> bool + Send {
    let mut budgets = Budgets::<Block>::new(rate, BLOCKS_MAX);
    move |_: PeerId, address: &Multiaddr, now: Instant| {
        let block = scope::ip_of(address).and_then(Source::of).map(Source::block);
        block.is_none_or(|block| budgets.take(block, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_has_its_share_whatever_ids_it_makes() {
        let (mut limiter, now) = (by_block(RESERVE_RATE), Instant::now());
        let mut taken = |n: u8| {
            let address: Multiaddr = format!("/ip4/8.8.8.{n}/tcp/1").parse().unwrap();
            limiter(PeerId::random(), &address, now)
        };
        assert_eq!((0..200).filter(|n| taken(*n)).count(), 16);
        let other: Multiaddr = "/ip4/8.8.9.1/tcp/1".parse().unwrap();
        assert!(limiter(PeerId::random(), &other, now));
        let here: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        assert!((0..200).all(|_| limiter(PeerId::random(), &here, now)));
    }
}
