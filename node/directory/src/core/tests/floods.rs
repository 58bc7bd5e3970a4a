//! Liars by the thousand: honest rows stay, and stay in front.

use std::net::Ipv4Addr;

use homehost_protocol::record::reach::{Probe, ProbeProtocol};
use homehost_protocol::{JoinAddress, ReachAttest, Transport};

use super::*;

fn node(n: u8) -> DeviceKey {
    DeviceKey::from_seed([200 + n; 32])
}

fn node_id(n: u8) -> NodeId {
    NodeId(node(n).public().0)
}

fn address(ip: [u8; 4]) -> JoinAddress {
    JoinAddress { socket: (Ipv4Addr::from(ip), 30_000).into(), transport: Transport::Udp }
}

fn numbered(n: u32) -> RecordSigner {
    let mut seed = [3; 32];
    seed[..4].copy_from_slice(&n.to_be_bytes());
    let next = KeyDigest::of(&DeviceKey::from_seed([99; 32]).public());
    RecordSigner::genesis(DeviceKey::from_seed(seed), next, "test".parse().expect("a name"))
}

fn listed(signer: &RecordSigner, at: [u8; 4], seconds: u64) -> Vec<u8> {
    let wall = moment(seconds).wall;
    let listing = ServerListing { addresses: vec![address(at)], ..listing(0) };
    signer.sign(&Record::ServerListing(listing), wall.0, wall).expect("a listing that holds")
}

fn id_of(signer: &RecordSigner) -> ServerId {
    listing(0).id(&signer.root())
}

fn proof(signer: &RecordSigner, at: [u8; 4], witnesses: &[u8], seconds: u64) -> Vec<u8> {
    let wall = moment(seconds).wall;
    let probe =
        Probe { server: id_of(signer), address: address(at), protocol: ProbeProtocol::Luanti };
    let mut attests: Vec<_> = witnesses
        .iter()
        .map(|n| probe.attest(signer.network(), wall, Some(1), &node(*n)))
        .collect();
    attests.sort_by_key(homehost_protocol::record::reach::Attest::node);
    let reach = ReachAttest {
        nonce: listing(0).nonce,
        address: probe.address,
        protocol: probe.protocol,
        asked: 7,
        attests,
    };
    signer.sign(&Record::ReachAttest(reach), wall.0 + 1, wall).expect("a proof that holds")
}

fn view(directory: &Directory, signer: &RecordSigner, seconds: u64) -> Option<RowView> {
    directory.view(&id_of(signer), moment(seconds))
}

#[test]
fn a_proof_counts_by_the_witnesses_that_this_node_met() {
    let mut directory = directory();
    let host = numbered(1);
    directory.met(node_id(1), Some(Ipv4Addr::new(9, 1, 0, 1).into()), moment(0));
    directory.met(node_id(2), Some(Ipv4Addr::new(9, 1, 200, 1).into()), moment(0));
    directory.met(node_id(3), Some(Ipv4Addr::new(9, 2, 0, 1).into()), moment(0));
    gossip(&mut directory, &listed(&host, [8, 1, 1, 1], 0), 0);
    assert_eq!(view(&directory, &host, 0).expect("the row").reach, RowReach::default());
    // Two of one block count once; one that nobody met does not count.
    let bytes = proof(&host, [8, 1, 1, 1], &[1, 2, 3, 4], 1);
    assert_eq!(gossip(&mut directory, &bytes, 1), Admission::New);
    let row = view(&directory, &host, 1).expect("the row");
    assert_eq!((row.reach.proved, row.reach.said, row.reach.asked), (2, 4, 7));
    assert_eq!((row.reach.at, row.standing), (Some(moment(1).wall), 3));
    // Its word is over after six hours, whoever gave it.
    let later = 6 * 3600 + 1;
    directory.tick(moment(later));
    let row = view(&directory, &host, later).expect("the row");
    assert_eq!((row.reach, row.standing), (RowReach::default(), 1));
}

#[test]
fn a_proof_of_another_address_proves_nothing() {
    let mut directory = directory();
    let host = numbered(1);
    directory.met(node_id(1), None, moment(0));
    gossip(&mut directory, &listed(&host, [8, 1, 1, 1], 0), 0);
    gossip(&mut directory, &proof(&host, [8, 1, 1, 2], &[1], 1), 1);
    assert_eq!(view(&directory, &host, 1).expect("the row").reach.said, 0);
}

#[test]
fn a_witness_that_is_met_later_counts_from_then_on() {
    let mut directory = directory();
    let host = numbered(1);
    gossip(&mut directory, &listed(&host, [8, 1, 1, 1], 0), 0);
    gossip(&mut directory, &proof(&host, [8, 1, 1, 1], &[1], 0), 0);
    assert_eq!(view(&directory, &host, 0).expect("the row").reach.proved, 0);
    directory.met(node_id(1), None, moment(1));
    directory.tick(moment(2));
    assert_eq!(view(&directory, &host, 2).expect("the row").reach.proved, 1);
    // Or when it has been heard of for a day.
    let other = numbered(2);
    gossip(&mut directory, &listed(&other, [8, 1, 2, 1], 3), 3);
    gossip(&mut directory, &proof(&other, [8, 1, 2, 1], &[2], 3), 3);
    let day = 24 * 3600;
    for seconds in [day - 100, day + 4] {
        gossip(&mut directory, &listed(&other, [8, 1, 2, 1], seconds), seconds);
        gossip(&mut directory, &proof(&other, [8, 1, 2, 1], &[2], seconds), seconds);
        directory.tick(moment(seconds));
        let proved = view(&directory, &other, seconds).expect("the row").reach.proved;
        assert_eq!(proved, u8::from(seconds > day), "after {seconds} s");
    }
}

/// A replica of what `outputs` said, in a directory that starts later.
fn restarted(outputs: &[Output], seconds: u64) -> (Directory, Vec<Loaded>) {
    let stored = outputs.iter().filter_map(|output| match output {
        Output::Store { key, value } => Some((key.clone(), value.clone())),
        _ => None,
    });
    let mut directory = directory();
    let loaded = directory.load_all(stored.collect(), moment(seconds));
    (directory, loaded.into_iter().map(|(_, loaded)| loaded).collect())
}

#[test]
fn a_witness_that_was_met_counts_right_after_a_restart() {
    let host = numbered(1);
    let at = [8, 1, 1, 1];
    let mut before = directory();
    // Of one network two count once, after the restart as well.
    let ips = [Ipv4Addr::new(9, 1, 0, 1), Ipv4Addr::new(9, 1, 200, 1), Ipv4Addr::new(9, 2, 0, 1)];
    let mut outputs = Vec::new();
    for (n, ip) in (1..).zip(ips) {
        outputs.extend(before.met(node_id(n), Some(ip.into()), moment(0)));
    }
    for bytes in [listed(&host, at, 0), proof(&host, at, &[1, 2, 3, 4], 0)] {
        let (admission, said) = before.admit(&bytes, Source::Gossip, moment(0));
        assert_eq!(admission, Admission::New);
        outputs.extend(said);
    }
    let hour = 3600;
    let (after, loaded) = restarted(&outputs, hour);
    assert_eq!(loaded, [Loaded::Row; 5]);
    let row = view(&after, &host, hour).expect("the row");
    assert_eq!((row.reach.proved, row.reach.said, row.standing), (2, 4, 3));
    // What was met two days ago is over, and goes.
    let (_, loaded) = restarted(&outputs[..3], 48 * hour);
    assert_eq!(loaded, [Loaded::Damaged; 3]);
    // So does what a clock noted that was ahead.
    let mut ahead = directory();
    let outputs = ahead.met(node_id(1), None, moment(hour));
    let (_, loaded) = restarted(&outputs, 0);
    assert_eq!(loaded, [Loaded::Damaged]);
}

#[test]
fn a_crowd_of_one_network_does_not_push_out_witnesses_of_others() {
    let mut directory = directory();
    let host = numbered(1);
    let at = [8, 1, 1, 1];
    gossip(&mut directory, &listed(&host, at, 0), 0);
    gossip(&mut directory, &proof(&host, at, &[1], 0), 0);
    directory.met(node_id(1), Some(Ipv4Addr::new(9, 1, 0, 1).into()), moment(0));
    for n in 0..10_000_u32 {
        let mut id = [7; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        directory.met(NodeId(id), Some(Ipv4Addr::new(9, 2, 0, 1).into()), moment(1));
    }
    directory.tick(moment(20));
    assert_eq!(view(&directory, &host, 20).expect("the row").reach.proved, 1);
}

#[test]
fn a_meeting_is_noted_once_an_hour_and_forgotten_with_its_witness() {
    let mut directory = directory();
    let mut noted = |n: u32, seconds| {
        let mut node = [7; 32];
        node[..4].copy_from_slice(&n.to_be_bytes());
        directory.met(NodeId(node), None, moment(seconds))
    };
    let first = noted(0, 0);
    assert!(matches!(&first[..], [Output::Store { .. }]), "{first:?}");
    assert_eq!(noted(0, 3599), []);
    assert_eq!(noted(0, 3600).len(), 1);
    for n in 1..4096 {
        assert_eq!(noted(n, 3601).len(), 1);
    }
    let crowded = noted(4096, 3602);
    let [Output::Store { key, .. }] = &first[..] else { panic!("{first:?}") };
    assert_eq!(crowded.first(), Some(&Output::Forget { key: key.clone() }));
    let gone = directory.tick(moment(3602 + 48 * 3600));
    let gone = gone.iter().filter(|output| matches!(output, Output::Forget { .. }));
    assert_eq!(gone.count(), 4096);
}

#[test]
fn one_witness_cannot_prove_without_end() {
    let mut directory = directory();
    directory.met(node_id(1), None, moment(0));
    for n in 0..600_u32 {
        let (host, at) = (numbered(n), [8, (n >> 8) as u8, n as u8, 1]);
        gossip(&mut directory, &listed(&host, at, 0), 0);
        gossip(&mut directory, &proof(&host, at, &[1], 0), 0);
    }
    assert_eq!(directory.stats().proved, 512);
    directory.tick(moment(20));
    assert_eq!(directory.stats().proved, 512, "nor when it is counted anew");
}

#[test]
fn an_address_taken_by_liars_is_not_lost_to_its_owner() {
    let mut directory = directory();
    directory.met(node_id(1), None, moment(0));
    let at = [8, 1, 1, 1];
    let liars = (0..100)
        .filter(|n| gossip(&mut directory, &listed(&numbered(*n), at, 0), 0) == Admission::New);
    assert_eq!(liars.count(), 16);
    let owner = numbered(1000);
    let refused = gossip(&mut directory, &listed(&owner, at, 1), 1);
    assert_eq!(refused, Admission::Refused(Refusal::PrefixQuota));
    // With its proof before it, as hosts say it, it comes in.
    let proof = gossip(&mut directory, &proof(&owner, at, &[1], 2), 2);
    assert_eq!(proof, Admission::Refused(Refusal::NoListing));
    assert_eq!(gossip(&mut directory, &listed(&owner, at, 2), 2), Admission::New);
    assert_eq!(view(&directory, &owner, 2).expect("the row").standing, 3);
}

#[test]
fn fifty_thousand_signed_lies_leave_honest_rows_in_place_and_in_front() {
    let mut directory = directory();
    directory.met(node_id(1), None, moment(0));
    let honest: Vec<_> = (0..200_u32).map(|n| (numbered(n), [9, 1, n as u8, 1])).collect();
    for (host, at) in &honest {
        gossip(&mut directory, &listed(host, *at, 0), 0);
    }
    for (host, at) in &honest[..100] {
        gossip(&mut directory, &proof(host, *at, &[1], 0), 0);
    }
    // From a few blocks first, then from addresses that nobody has.
    for n in 1000..51_000_u32 {
        let [a, b, c, d] = n.wrapping_mul(2_654_435_761).to_be_bytes();
        let at = if n < 10_000 { [8, 8, c & 3, d] } else { [5 + a % 3, b, c, d] };
        gossip(&mut directory, &listed(&numbered(n), at, 60), 60);
    }
    directory.tick(moment(61));
    assert!(directory.rows.len() <= 8192 + 100, "{} rows", directory.rows.len());
    for (host, _) in &honest {
        assert!(view(&directory, host, 61).is_some());
    }
    let few_blocks = directory
        .rows
        .values()
        .filter(|row| row.listing().addresses[0].to_string().starts_with("8.8."));
    assert!(few_blocks.count() <= 4 * 32);
    let found = found(&directory, &Query { limit: Some(100), ..Query::default() }, 61);
    let proved: BTreeSet<_> = honest[..100].iter().map(|(host, _)| id_of(host)).collect();
    assert!(found.iter().all(|row| proved.contains(&row.id)), "proved rows come first");
    // New hosts that are proved still come in, and new ones that are not, when
    // their block is not crowded.
    let late = numbered(100_000);
    gossip(&mut directory, &proof(&late, [9, 9, 9, 9], &[1], 70), 70);
    assert_eq!(gossip(&mut directory, &listed(&late, [9, 9, 9, 9], 70), 70), Admission::New);
}

#[test]
fn a_sender_cannot_bring_new_roots_without_end() {
    let mut directory = directory();
    let mut bring = |from: u8, n: u32, seconds| {
        let [_, b, c, d] = n.to_be_bytes();
        let bytes = listed(&numbered(n), [8, b, c, d], seconds);
        directory.admit_gossip(NodeId([from; 32]), &[bytes], moment(seconds)).0
    };
    let mut accepted = |from: u8, roots: std::ops::Range<u32>, seconds| {
        roots.map(|n| n << 8).filter(|n| bring(from, *n, seconds) == Judgement::Accept).count()
    };
    assert_eq!(accepted(1, 0..600, 0), 512);
    assert_eq!(accepted(2, 1000..1100, 0), 100, "another sender is heard");
    assert_eq!(accepted(1, 2000..2100, 10), 50);
}

#[test]
fn storms_of_one_host_are_slowed_down_and_its_end_is_heard() {
    let mut directory = directory();
    let accepted = (0..1000).filter(|n| {
        let bytes = sign_ms(1, listing(1), *n);
        gossip(&mut directory, &bytes, 1) == Admission::New
    });
    assert_eq!(accepted.count(), 17, "the first and its burst");
    let spoken = (0..1000).filter(|n| {
        let wall = UnixMillis(moment(1).wall.0 + n);
        let record = Record::Presence(Presence { servers: vec![] });
        let bytes = signer(1).sign(&record, wall.0, wall).expect("a presence");
        gossip(&mut directory, &bytes, 1) == Admission::New
    });
    assert_eq!(spoken.count(), 17);
    let end = sign_ms(1, withdrawn(1), 5000);
    assert_eq!(gossip(&mut directory, &end, 5), Admission::New);
    assert_eq!(status(&directory, 1, 1, 5), RowStatus::Withdrawn);
}

fn sign_ms(root: u8, listing: ServerListing, ms: u64) -> Vec<u8> {
    let wall = UnixMillis(moment(0).wall.0 + ms);
    signer(root).sign(&Record::ServerListing(listing), wall.0, wall).expect("a listing that holds")
}

#[test]
fn tombstones_of_servers_that_never_were_are_bounded() {
    let mut directory = directory();
    let kept = (0..3000_u32).filter(|n| {
        let wall = moment(0).wall;
        let record = Record::ServerListing(withdrawn(0));
        let bytes = numbered(*n).sign(&record, wall.0, wall).expect("a tombstone");
        gossip(&mut directory, &bytes, 0) == Admission::New
    });
    assert_eq!(kept.count(), 2048);
}

#[test]
fn what_was_turned_down_is_not_asked_for_again_at_once() {
    let mut directory = directory();
    let at = [8, 1, 1, 1];
    let bytes: Vec<_> = (0..20).map(|n| listed(&numbered(n), at, 0)).collect();
    for bytes in &bytes {
        gossip(&mut directory, bytes, 0);
    }
    let ids: Vec<_> = bytes.iter().map(|bytes| RecId::of(bytes)).collect();
    let new = RecId([7; 32]);
    let asked = [ids.clone(), vec![new]].concat();
    assert_eq!(directory.wanted(asked.clone(), moment(1)), [new]);
    assert_eq!(directory.wanted(asked, moment(30 * 60)).len(), 1 + 4);
}
