//! What a patient liar tried, each once: found by review, and closed.

use std::net::Ipv4Addr;

use homehost_protocol::chain::SignedKeyEvent;
use homehost_protocol::record::reach::{Probe, ProbeProtocol};
use homehost_protocol::{Chain, JoinAddress, ReachAttest, Transport};

use super::*;

fn key(n: u32) -> DeviceKey {
    let mut seed = [3; 32];
    seed[..4].copy_from_slice(&n.to_be_bytes());
    DeviceKey::from_seed(seed)
}
fn numbered(n: u32) -> RecordSigner {
    let next = KeyDigest::of(&DeviceKey::from_seed([99; 32]).public());
    RecordSigner::genesis(key(n), next, "test".parse().expect("sound"))
}
fn address(ip: [u8; 4]) -> JoinAddress {
    JoinAddress { socket: (Ipv4Addr::from(ip), 30_000).into(), transport: Transport::Udp }
}
fn row(signer: &RecordSigner, n: u8, at: [u8; 4], state: ListingState, seconds: u64) -> Vec<u8> {
    let wall = moment(seconds).wall;
    let live = state == ListingState::Live;
    let addresses = if live { vec![address(at)] } else { vec![] };
    let l = ServerListing { addresses, state, ..listing(n) };
    signer.sign(&Record::ServerListing(l), wall.0, wall).expect("sound")
}
fn proof(
    signer: &RecordSigner,
    n: u8,
    at: [u8; 4],
    witnesses: &[u32],
    stated: u64,
    seconds: u64,
) -> Vec<u8> {
    let wall = moment(seconds).wall;
    let id = listing(n).id(&signer.root());
    let probe = Probe { server: id, address: address(at), protocol: ProbeProtocol::Luanti };
    let mut attests: Vec<_> = witnesses
        .iter()
        .map(|w| probe.attest(signer.network(), moment(stated).wall, None, &key(*w)))
        .collect();
    attests.sort_by_key(homehost_protocol::record::reach::Attest::node);
    let reach = ReachAttest {
        nonce: listing(n).nonce,
        address: probe.address,
        protocol: probe.protocol,
        asked: 7,
        attests,
    };
    signer.sign(&Record::ReachAttest(reach), wall.0, wall).expect("sound")
}

#[test]
fn who_comes_back_is_counted_like_a_new_one() {
    let mut d = directory();
    let mut t = 0;
    for root in 0..20_u32 {
        let s = numbered(root);
        for n in 0..100_u8 {
            t += 1;
            gossip(&mut d, &row(&s, n, [8, 8, 8, 8], ListingState::Live, t), t);
            t += 1;
            gossip(&mut d, &row(&s, n, [8, 8, 8, 8], ListingState::Withdrawn, t), t);
        }
    }
    for root in 0..20_u32 {
        let s = numbered(root);
        for n in 0..100_u8 {
            t += 1;
            gossip(&mut d, &row(&s, n, [8, 8, 8, 8], ListingState::Live, t), t);
        }
    }
    assert!(d.stats().listings <= 16, "{} of one address", d.stats().listings);
}

#[test]
fn proofs_and_chains_have_a_pace() {
    let mut d = directory();
    let s = numbered(1);
    gossip(&mut d, &row(&s, 1, [8, 8, 8, 8], ListingState::Live, 0), 0);
    let mut accepted = 0;
    for k in 0..500_u64 {
        let wall = moment(1).wall;
        let reach = ReachAttest {
            nonce: listing(1).nonce,
            address: address([8, 8, 8, 8]),
            protocol: ProbeProtocol::Luanti,
            asked: 0,
            attests: vec![],
        };
        let bytes = s.sign(&Record::ReachAttest(reach), wall.0 + k, wall).expect("sound");
        let (j, _) = d.admit_gossip(NodeId([1; 32]), &[bytes], moment(1));
        accepted += u32::from(j == Judgement::Accept);
    }
    assert_eq!(accepted, 9, "the first and its burst");
    let chain =
        Chain::genesis(key(1).public(), KeyDigest::of(&DeviceKey::from_seed([99; 32]).public()));
    let c =
        RecordSigner::carrier_of(key(1), &chain, "test".parse().expect("sound")).expect("sound");
    let mut accepted = 0;
    for k in 0..500_u64 {
        let wall = moment(1).wall;
        let bytes = c.sign(&Record::KeyChain(chain.to_body()), wall.0 + k, wall).expect("sound");
        let (j, _) = d.admit_gossip(NodeId([1; 32]), &[bytes], moment(1));
        accepted += u32::from(j == Judgement::Accept);
    }
    assert_eq!(accepted, 5, "the first and its burst");
}

#[test]
fn a_statement_from_the_future_proves_nothing() {
    let mut d = directory();
    let s = numbered(1);
    let w = NodeId(key(500).public().0);
    let year = 365 * 24 * 3600;
    let mut t = 0;
    d.met(w, None, moment(0));
    gossip(&mut d, &row(&s, 1, [8, 8, 8, 8], ListingState::Live, 0), 0);
    while t < 3 * 24 * 3600 {
        d.met(w, None, moment(t));
        gossip(&mut d, &row(&s, 1, [8, 8, 8, 8], ListingState::Live, t + 1), t + 1);
        // the same old statement, dated a year ahead, again and again
        gossip(&mut d, &proof(&s, 1, [8, 8, 8, 8], &[500], year, t + 1), t + 1);
        d.tick(moment(t + 2));
        t += 4 * 3600;
    }
    let v = d.view(&listing(1).id(&s.root()), moment(t)).expect("sound");
    assert_eq!((v.reach.proved, v.reach.said), (0, 0));
}

#[test]
fn a_proof_is_about_the_address_where_players_go() {
    let mut d = directory();
    let s = numbered(1);
    d.met(NodeId(key(500).public().0), None, moment(0));
    let wall = moment(0).wall;
    let l = ServerListing {
        addresses: vec![address([9, 9, 9, 9]), address([8, 8, 8, 8])],
        ..listing(1)
    };
    let bytes = s.sign(&Record::ServerListing(l), wall.0, wall).expect("sound");
    gossip(&mut d, &bytes, 0);
    gossip(&mut d, &proof(&s, 1, [8, 8, 8, 8], &[500], 1, 1), 1);
    let v = d.view(&listing(1).id(&s.root()), moment(2)).expect("sound");
    assert_eq!((v.reach.proved, v.standing), (0, 1));
}

#[test]
fn who_passes_on_a_branch_that_we_do_not_know_is_not_blamed() {
    let next = KeyDigest::of(&DeviceKey::from_seed([99; 32]).public());
    let genesis = Chain::genesis(key(1).public(), next);
    let branch = |k: u32| {
        let mut c = genesis.clone();
        let e = c.addition(1, key(k).public());
        c.extend(&SignedKeyEvent::sign(&e, &c.root(), &key(1))).expect("sound");
        let s =
            RecordSigner::carrier_of(key(1), &c, "test".parse().expect("sound")).expect("sound");
        let wall = moment(u64::from(k)).wall;
        let bytes = s.sign(&Record::KeyChain(c.to_body()), wall.0, wall).expect("sound");
        (RecordSigner::of_chain(key(k), &c, "test".parse().expect("sound")).expect("sound"), bytes)
    };
    let ((sa, a), (_sb, b)) = (branch(10), branch(20));
    let (mut na, mut nb) = (directory(), directory());
    let rpc = Source::Peer { on_link: false, age: None };
    assert_eq!(na.admit(&a, rpc, moment(30)).0, Admission::New);
    assert_eq!(nb.admit(&b, rpc, moment(30)).0, Admission::New);
    let bytes = row(&sa, 1, [8, 8, 8, 8], ListingState::Live, 31);
    let (first, _) = na.admit_gossip(NodeId([7; 32]), std::slice::from_ref(&bytes), moment(31));
    let (second, _) = nb.admit_gossip(NodeId([8; 32]), &[bytes], moment(31));
    assert_eq!((first, second), (Judgement::Accept, Judgement::Ignore));
}

#[test]
fn witnesses_that_were_met_cannot_be_crowded_out() {
    let mut d = directory();
    for k in 0..2400_u32 {
        let s = numbered(10_000 + k);
        let witnesses: Vec<u32> = (0..7).map(|n| 100_000 + k * 7 + n).collect();
        let bytes = proof(&s, 1, [8, 8, 8, 8], &witnesses, 0, 0);
        assert_eq!(d.admit_gossip(NodeId([1; 32]), &[bytes], moment(0)).0, Judgement::Ignore);
    }
    let honest = numbered(1);
    d.met(NodeId(key(500).public().0), Some(Ipv4Addr::new(9, 1, 0, 1).into()), moment(1));
    gossip(&mut d, &row(&honest, 1, [8, 1, 1, 1], ListingState::Live, 1), 1);
    gossip(&mut d, &proof(&honest, 1, [8, 1, 1, 1], &[500], 1, 1), 1);
    d.tick(moment(20));
    let v = d.view(&listing(1).id(&honest.root()), moment(20)).expect("sound");
    assert_eq!((v.reach.proved, v.reach.said), (1, 1));
}

#[test]
fn an_address_has_its_share_of_proofs() {
    let mut d = directory();
    d.met(NodeId(key(500).public().0), None, moment(0));
    for k in 0..400_u32 {
        let s = numbered(20_000 + k);
        gossip(&mut d, &row(&s, 1, [8, 8, 8, 8], ListingState::Live, 1), 1);
        gossip(&mut d, &proof(&s, 1, [8, 8, 8, 8], &[500], 1, 2), 2);
    }
    assert_eq!(d.stats().proved, 64);
    d.tick(moment(30));
    assert_eq!(d.stats().proved, 64);
}

#[test]
fn chains_of_roots_that_have_gone_are_bounded() {
    let mut d = directory();
    let next = KeyDigest::of(&DeviceKey::from_seed([99; 32]).public());
    let mut t = 0;
    for k in 0..6000_u32 {
        t += 1;
        let s = numbered(30_000 + k);
        let chain = Chain::genesis(key(30_000 + k).public(), next);
        let c = RecordSigner::carrier_of(key(30_000 + k), &chain, "test".parse().expect("sound"))
            .expect("sound");
        let [_, a, b, e] = k.to_be_bytes();
        gossip(&mut d, &row(&s, 1, [9, a + 1, b, e], ListingState::Live, t), t);
        let wall = moment(t).wall;
        gossip(
            &mut d,
            &c.sign(&Record::KeyChain(chain.to_body()), wall.0, wall).expect("sound"),
            t,
        );
    }
    let later = t + 26 * 3600;
    d.tick(moment(later));
    assert_eq!((d.stats().listings, d.stats().chains), (0, 4096));
    assert_eq!(d.ids.len(), 4096);
}

#[test]
fn machines_without_servers_cannot_use_up_the_presences() {
    let next = KeyDigest::of(&DeviceKey::from_seed([99; 32]).public());
    let mut d = directory();
    let net: NetworkName = "test".parse().expect("sound");
    for r in 0..200_u32 {
        let root = key(40_000 + r);
        let mut c = Chain::genesis(root.public(), next);
        for n in 1..=31_u32 {
            let e = c.addition(n as u8, key(1_000_000 + r * 32 + n).public());
            c.extend(&SignedKeyEvent::sign(&e, &c.root(), &root)).expect("sound");
        }
        let wall = moment(1).wall;
        let [_, _, a, b] = r.to_be_bytes();
        let s0 = RecordSigner::carrier_of(root.clone(), &c, net.clone()).expect("sound");
        gossip(&mut d, &row(&s0, 1, [9, a + 1, b, 1], ListingState::Live, 1), 1);
        gossip(&mut d, &s0.sign(&Record::KeyChain(c.to_body()), wall.0, wall).expect("sound"), 1);
        for n in 1..=31_u32 {
            let s = RecordSigner::of_chain(key(1_000_000 + r * 32 + n), &c, net.clone())
                .expect("sound");
            let p = s
                .sign(&Record::Presence(Presence { servers: vec![] }), wall.0, wall)
                .expect("sound");
            gossip(&mut d, &p, 1);
        }
    }
    let honest = numbered(1);
    gossip(&mut d, &row(&honest, 1, [8, 8, 8, 8], ListingState::Live, 2), 2);
    let wall = moment(3).wall;
    let p = Presence {
        servers: vec![ServerPresence {
            id: listing(1).id(&honest.root()),
            players: Some(3),
            slots: None,
        }],
    };
    let bytes = honest.sign(&Record::Presence(p), wall.0, wall).expect("sound");
    assert_eq!(d.stats().hosts, 2 * 200, "a machine a row, and one more");
    assert_eq!(gossip(&mut d, &bytes, 3), Admission::New);
}
