//! Who may enter the routing table: no block of addresses may fill it.
//!
//! Someone who rents a block gets as many ids as they like, but a small share of
//! every bucket: from afar, a peer enters at the address at which it is seen
//! (`scope.rs`), and so cannot choose in which block it counts. Addresses of
//! this machine and of the local link are exempt: a peer from afar cannot claim
//! them, and a LAN party is one block.

use std::net::IpAddr;

use homehost_protocol::Scope;

/// Peers of one block in one bucket. As go-libp2p's `IPGroupFilter`.
pub(crate) const PER_BUCKET_MAX: usize = 2;

/// Peers of one block in the whole table. As go-libp2p's `IPGroupFilter`.
pub(crate) const PER_TABLE_MAX: usize = 3;

/// A block of addresses that one party plausibly controls: /16 of IPv4, /32 of
/// IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressBlock {
    /// The first two bytes of an IPv4 address, also of a mapped one.
    V4([u8; 2]),
    /// The first four bytes of an IPv6 address.
    V6([u8; 4]),
}

impl AddressBlock {
    /// The block of an address; none for loopback and the local link.
    pub fn of(ip: IpAddr) -> Option<Self> {
        match Scope::of(ip) {
            Scope::Loopback | Scope::OnLink => return None,
            Scope::Global | Scope::Nowhere => {}
        }
        match ip {
            IpAddr::V4(ip) => Some(Self::v4(ip.octets())),
            IpAddr::V6(ip) => Some(match ip.to_ipv4_mapped() {
                Some(v4) => Self::v4(v4.octets()),
                None => {
                    let [a, b, c, d, ..] = ip.octets();
                    Self::V6([a, b, c, d])
                }
            }),
        }
    }

    fn v4([a, b, _, _]: [u8; 4]) -> Self {
        Self::V4([a, b])
    }
}

/// One address of one peer in the routing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry<Id> {
    pub(crate) peer: Id,
    /// Index of its bucket.
    pub(crate) bucket: u32,
    pub(crate) ip: IpAddr,
}

/// Whether `candidate` may enter a table that holds `table`.
///
/// The counts are taken anew each time, so that they cannot drift from the
/// table: it has a few hundred entries, and is asked once per new peer.
pub(crate) fn admits<Id: Ord + Copy>(
    table: impl IntoIterator<Item = Entry<Id>>,
    candidate: Entry<Id>,
) -> bool {
    let Some(block) = AddressBlock::of(candidate.ip) else { return true };
    let mut all = std::collections::BTreeSet::new();
    let mut bucket = 0;
    for entry in table {
        let counts = entry.peer != candidate.peer && AddressBlock::of(entry.ip) == Some(block);
        // A peer with two addresses in a block is still one peer.
        if counts && all.insert(entry.peer) {
            bucket += usize::from(entry.bucket == candidate.bucket);
        }
    }
    all.len() < PER_TABLE_MAX && bucket < PER_BUCKET_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn some_ip(random: &mut fastrand::Rng) -> IpAddr {
        match random.u8(0..4) {
            0 => Ipv4Addr::new(127, 0, 0, random.u8(1..)).into(),
            1 => Ipv4Addr::new(192, 168, random.u8(..), 1).into(),
            2 => Ipv4Addr::new(8, random.u8(0..3), random.u8(..), 1).into(),
            _ => Ipv6Addr::new(0x2a01, random.u16(0..3), random.u16(..), 0, 0, 0, 0, 1).into(),
        }
    }

    #[test]
    fn seeded_tables_never_exceed_the_caps_and_never_refuse_the_near() {
        for seed in 0..3000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut table = Vec::new();
            for _ in 0..random.usize(1..120) {
                // Some leave in between.
                if random.u8(0..8) == 0 && !table.is_empty() {
                    let peer = {
                        let e: &Entry<u32> = &table[random.usize(0..table.len())];
                        e.peer
                    };
                    table.retain(|entry| entry.peer != peer);
                }
                let peer = random.u32(0..60);
                let entry = Entry { peer, bucket: 240 + peer % 16, ip: some_ip(&mut random) };
                let admitted = admits(table.iter().copied(), entry);
                if AddressBlock::of(entry.ip).is_none() {
                    assert!(admitted, "seed {seed}: {} was refused", entry.ip);
                }
                if admitted && !table.contains(&entry) {
                    table.push(entry);
                }
            }
            let mut per_table: BTreeMap<AddressBlock, BTreeSet<u32>> = BTreeMap::new();
            let mut per_bucket: BTreeMap<(AddressBlock, u32), BTreeSet<u32>> = BTreeMap::new();
            for entry in &table {
                let Some(block) = AddressBlock::of(entry.ip) else { continue };
                per_table.entry(block).or_default().insert(entry.peer);
                per_bucket.entry((block, entry.bucket)).or_default().insert(entry.peer);
            }
            assert!(per_table.values().all(|peers| peers.len() <= PER_TABLE_MAX), "seed {seed}");
            assert!(per_bucket.values().all(|peers| peers.len() <= PER_BUCKET_MAX), "seed {seed}");
        }
    }

    #[test]
    fn blocks_are_as_wide_as_said() {
        let of = |text: &str| AddressBlock::of(text.parse().unwrap());
        assert_eq!(of("8.8.1.1"), of("8.8.255.255"));
        assert_ne!(of("8.8.1.1"), of("8.9.1.1"));
        assert_eq!(of("2a01:4f8::1"), of("2a01:4f8:ffff::1"));
        assert_ne!(of("2a01:4f8::1"), of("2a01:4f9::1"));
        assert_eq!(of("::ffff:8.8.1.1"), of("8.8.1.1"));
        assert_eq!(of("10.0.0.1"), None);
    }

    #[test]
    fn a_block_gets_its_share_and_no_more() {
        let entry = |peer: u32, bucket, ip: &str| Entry { peer, bucket, ip: ip.parse().unwrap() };
        let two = [entry(1, 255, "8.8.0.1"), entry(2, 255, "8.8.0.2")];
        assert!(!admits(two, entry(3, 255, "8.8.9.9")));
        assert!(admits(two, entry(3, 254, "8.8.9.9")));
        assert!(admits(two, entry(2, 255, "8.8.9.9")), "it is in the table already");
        let three = [two[0], two[1], entry(3, 254, "8.8.0.3")];
        assert!(!admits(three, entry(4, 253, "8.8.9.9")));
        assert!(admits(three, entry(4, 253, "9.8.9.9")));
    }
}
