//! What the directory takes in, keeps, and says of a row's life.

mod abuse;
mod floods;
mod keys;

use std::collections::BTreeSet;

use super::*;
use homehost_protocol::keys::{DeviceKey, KeyDigest};
use homehost_protocol::record::RecordSigner;
use homehost_protocol::record::listing::ListingState;
use homehost_protocol::record::presence::ServerPresence;
use homehost_protocol::rpc::{Request, Response};
use homehost_protocol::validate::IgnoreReason;
use homehost_protocol::{Presence, RecId, Record, ServerListing, ServerNonce};

use crate::search::{Query, Sort};

fn moment(seconds: u64) -> Moment {
    Moment { wall: UnixMillis(1_795_168_800_000), mono: MONO_ORIGIN }
        .plus(Duration::from_secs(seconds))
}

fn signer_on(root: u8, network: &str) -> RecordSigner {
    let next = KeyDigest::of(&DeviceKey::from_seed([99; 32]).public());
    RecordSigner::genesis(DeviceKey::from_seed([root; 32]), next, network.parse().expect("a name"))
}

fn signer(root: u8) -> RecordSigner {
    signer_on(root, "test")
}

fn directory() -> Directory {
    Directory::new("test".parse().expect("a name"))
}

fn listing(n: u8) -> ServerListing {
    ServerListing {
        nonce: ServerNonce([n; 16]),
        state: ListingState::Live,
        game: "luanti".into(),
        name: format!("server {n}"),
        description: None,
        tags: vec![],
        region: None,
        language: None,
        game_version: None,
        addresses: vec![format!("8.8.{n}.8:30000/udp").parse().expect("an address")],
        slots: Some(20),
        flags: None,
        plugin_set: None,
        visibility: None,
    }
}

fn withdrawn(n: u8) -> ServerListing {
    ServerListing { state: ListingState::Withdrawn, addresses: vec![], ..listing(n) }
}

fn sign(root: u8, listing: ServerListing, seconds: u64) -> Vec<u8> {
    let at = moment(seconds).wall;
    signer(root).sign(&Record::ServerListing(listing), at.0, at).expect("a listing that holds")
}

fn presence(root: u8, servers: &[(u8, Option<u16>)], seconds: u64) -> Vec<u8> {
    let at = moment(seconds).wall;
    let mut servers: Vec<_> = servers
        .iter()
        .map(|(n, players)| ServerPresence { id: id(root, *n), players: *players, slots: None })
        .collect();
    servers.sort_by_key(|server| server.id);
    signer(root)
        .sign(&Record::Presence(Presence { servers }), at.0, at)
        .expect("a presence that holds")
}

fn id(root: u8, n: u8) -> ServerId {
    listing(n).id(&signer(root).root())
}

fn gossip(directory: &mut Directory, bytes: &[u8], seconds: u64) -> Admission {
    directory.admit(bytes, Source::Gossip, moment(seconds)).0
}

fn status(directory: &Directory, root: u8, n: u8, seconds: u64) -> RowStatus {
    directory.view(&id(root, n), moment(seconds)).expect("the row").status
}

fn found(directory: &Directory, query: &Query, seconds: u64) -> Vec<RowView> {
    directory.search(query, moment(seconds)).expect("no cursor").rows
}

#[test]
fn a_row_lives_as_long_as_its_host_speaks_of_it() {
    let mut directory = directory();
    assert_eq!(gossip(&mut directory, &sign(1, listing(1), 0), 0), Admission::New);
    assert_eq!(status(&directory, 1, 1, 89), RowStatus::Live);
    assert_eq!(status(&directory, 1, 1, 90), RowStatus::Stale);
    gossip(&mut directory, &presence(1, &[(1, Some(3))], 60), 60);
    assert_eq!(status(&directory, 1, 1, 149), RowStatus::Live);
    assert_eq!(directory.view(&id(1, 1), moment(149)).expect("the row").players, Some(3));
    assert_eq!(status(&directory, 1, 1, 150), RowStatus::Stale);
    assert_eq!(directory.view(&id(1, 1), moment(150)).expect("the row").players, None);
}

#[test]
fn old_records_are_refused_before_their_signature_is_looked_at() {
    let mut directory = directory();
    gossip(&mut directory, &sign(1, listing(1), 5), 5);
    gossip(&mut directory, &presence(1, &[(1, Some(3))], 5), 5);
    let forged = |mut bytes: Vec<u8>| {
        *bytes.last_mut().expect("bytes") ^= 1;
        bytes
    };
    for old in [sign(1, listing(1), 4), presence(1, &[], 4)] {
        assert_eq!(gossip(&mut directory, &forged(old.clone()), 6), refused(Refusal::Old));
        assert_eq!(gossip(&mut directory, &old, 6), refused(Refusal::Old));
    }
    // A forger of what is not behind is to blame.
    for new in [sign(1, listing(1), 5), sign(1, listing(1), 6), presence(1, &[], 6)] {
        let admission = gossip(&mut directory, &forged(new), 6);
        assert!(matches!(admission, Admission::Refused(Refusal::Invalid(_))), "{admission:?}");
    }
    assert_eq!(status(&directory, 1, 1, 6), RowStatus::Live);
}

fn refused(refusal: Refusal) -> Admission {
    Admission::Refused(refusal)
}

#[test]
fn a_presence_that_leaves_a_server_out_ends_it() {
    let mut directory = directory();
    gossip(&mut directory, &sign(1, listing(1), 0), 0);
    gossip(&mut directory, &presence(1, &[], 5), 5);
    assert_eq!(status(&directory, 1, 1, 5), RowStatus::Stale);
    // A newer listing speaks for itself until the next presence.
    gossip(&mut directory, &sign(1, listing(1), 6), 6);
    assert_eq!(status(&directory, 1, 1, 6), RowStatus::Live);
}

#[test]
fn unknown_players_are_not_zero() {
    let mut directory = directory();
    gossip(&mut directory, &sign(1, listing(1), 0), 0);
    gossip(&mut directory, &presence(1, &[(1, None)], 1), 1);
    assert_eq!(directory.view(&id(1, 1), moment(1)).expect("the row").players, None);
    let query = Query { has_players: true, ..Query::default() };
    assert!(found(&directory, &query, 1).is_empty());
}

#[test]
fn nothing_resurrects_what_was_withdrawn() {
    let mut directory = directory();
    let old = sign(1, listing(1), 0);
    gossip(&mut directory, &old, 0);
    assert_eq!(gossip(&mut directory, &sign(1, withdrawn(1), 1), 1), Admission::New);
    assert_eq!(gossip(&mut directory, &old, 2), Admission::Refused(Refusal::Old));
    assert_eq!(status(&directory, 1, 1, 2), RowStatus::Withdrawn);
    gossip(&mut directory, &presence(1, &[(1, Some(1))], 3), 3);
    assert_eq!(status(&directory, 1, 1, 3), RowStatus::Withdrawn);
    // Until after the old version is dead by itself, and then it is gone.
    directory.tick(moment(24 * 3600 + 2));
    assert_eq!(status(&directory, 1, 1, 24 * 3600), RowStatus::Withdrawn);
    let again = directory.admit(&old, Source::Gossip, moment(24 * 3600 + 2)).0;
    assert!(matches!(again, Admission::Refused(Refusal::Ignored(_))));
    directory.tick(moment(25 * 3600 + 2));
    assert!(directory.view(&id(1, 1), moment(25 * 3600 + 2)).is_none());
    assert_eq!(directory.stats().tombstones, 0);
}

#[test]
fn a_row_that_was_never_seen_alive_can_be_withdrawn() {
    let mut directory = directory();
    assert_eq!(gossip(&mut directory, &sign(1, withdrawn(1), 1), 1), Admission::New);
    let old = gossip(&mut directory, &sign(1, listing(1), 0), 2);
    assert_eq!(old, Admission::Refused(Refusal::Old));
}

#[test]
fn of_two_bodies_with_one_seq_the_lower_hash_stands() {
    let one = sign(1, listing(1), 0);
    let two = sign(1, ServerListing { name: "other".into(), ..listing(1) }, 0);
    let names: Vec<String> = [[&one, &two], [&two, &one]]
        .into_iter()
        .map(|order| {
            let mut directory = directory();
            for bytes in order {
                gossip(&mut directory, bytes, 0);
            }
            directory.view(&id(1, 1), moment(0)).expect("the row").listing.name
        })
        .collect();
    assert_eq!(names[0], names[1]);
}

#[test]
fn a_presence_of_unknown_servers_asks_for_them() {
    let mut directory = directory();
    gossip(&mut directory, &sign(1, listing(1), 0), 0);
    let bytes = presence(1, &[(1, None), (2, None)], 1);
    let (_, outputs) = directory.admit(&bytes, Source::Gossip, moment(1));
    assert!(outputs.contains(&Output::Fetch(vec![id(1, 2)])), "{outputs:?}");
}

#[test]
fn a_row_from_disk_is_shown_and_not_yet_confirmed() {
    let mut before = directory();
    let (_, outputs) = before.admit(&sign(1, listing(1), 0), Source::Gossip, moment(0));
    let Some(Output::Store { key, value }) = outputs.into_iter().next() else {
        panic!("a row to store")
    };
    let mut after = directory();
    assert_eq!(after.load(&key, &value, moment(3600)), Loaded::Row);
    let view = after.view(&id(1, 1), moment(3600)).expect("the row");
    assert_eq!((view.status, view.confirmed), (RowStatus::Live, false));
    assert_eq!(view.seen, moment(0).wall);
    assert_eq!(status(&after, 1, 1, 3690), RowStatus::Stale);
    // A peer that has heard of its host lately confirms it.
    let source = Source::Peer { on_link: false, age: Some(Duration::from_secs(20)) };
    let bytes = presence(1, &[(1, Some(2))], 3580);
    assert_eq!(after.admit(&bytes, source, moment(3600)).0, Admission::New);
    let view = after.view(&id(1, 1), moment(3600)).expect("the row");
    assert_eq!((view.status, view.confirmed), (RowStatus::Live, true));
    assert_eq!(view.seen, moment(3580).wall);
}

#[test]
fn damaged_and_foreign_rows_on_disk_are_dropped() {
    let mut directory = directory();
    let envelope = sign(1, listing(1), 0);
    let network = "test".parse().expect("a name");
    let times = (moment(0).wall, moment(0).wall);
    let stored = Stored { first_seen: times.0, seen: times.1, stale: false, envelope: &envelope };
    let good = stored.encode();
    assert_eq!(Stored::decode(&good), Some(stored));
    let key = row::key(&network, &id(1, 1));
    for end in 0..good.len() {
        assert_eq!(directory.load(&key, &good[..end], moment(0)), Loaded::Damaged, "{end}");
    }
    let other = row::key(&network, &id(1, 2));
    assert_eq!(directory.load(&other, &good, moment(0)), Loaded::Damaged);
    assert_eq!(directory.load(&key, &good, moment(0)), Loaded::Row);
}

#[test]
fn rows_of_another_network_and_of_a_wrong_clock_stay_on_disk() {
    let (_, outputs) = directory().admit(&sign(1, listing(1), 0), Source::Gossip, moment(0));
    let Some(Output::Store { key, value }) = outputs.into_iter().next() else {
        panic!("a row to store")
    };
    let mut elsewhere = Directory::new(NetworkName::main());
    assert_eq!(elsewhere.load(&key, &value, moment(0)), Loaded::Elsewhere);
    assert_eq!(elsewhere.load(&key, &value, moment(8 * 24 * 3600)), Loaded::Damaged);
    let dawn = Moment { wall: UnixMillis(1000), mono: MONO_ORIGIN };
    assert_eq!(directory().load(&key, &value, dawn), Loaded::Elsewhere);
    assert_eq!(directory().load(&key, &value, moment(25 * 3600)), Loaded::Damaged);
}

#[test]
fn what_came_in_while_the_clock_was_ahead_stands_in_nobody_s_way() {
    let day = 86_400;
    let mut directory = directory();
    for bytes in [sign(1, listing(1), day), presence(1, &[(1, Some(1))], day)] {
        let admission = directory.admit(&bytes, Source::Own, moment(day)).0;
        assert!(!matches!(admission, Admission::Refused(_)), "{admission:?}");
    }
    // The clock is set right; the other one goes on.
    let right = Moment { wall: moment(10).wall, mono: moment(day + 10).mono };
    for bytes in [sign(1, listing(1), 10), presence(1, &[(1, Some(2))], 10)] {
        let admission = directory.admit(&bytes, Source::Gossip, right).0;
        assert!(!matches!(admission, Admission::Refused(_)), "{admission:?}");
    }
    let late = Moment { wall: moment(20).wall, mono: moment(day + 20).mono };
    let again = directory.admit(&sign(1, listing(1), 9), Source::Gossip, late).0;
    assert_eq!(again, Admission::Refused(Refusal::Old), "they are in order again");
}

#[test]
fn a_dead_row_is_dead_after_a_restart_too() {
    let mut before = directory();
    before.admit(&sign(1, listing(1), 0), Source::Gossip, moment(0));
    assert_eq!(before.tick(moment(80)), []);
    let outputs = before.tick(moment(95));
    let Some(Output::Store { key, value }) = outputs.into_iter().next() else {
        panic!("a note on disk")
    };
    let mut after = directory();
    assert_eq!(after.load(&key, &value, moment(200)), Loaded::Row);
    let view = after.view(&id(1, 1), moment(200)).expect("the row");
    assert_eq!((view.status, view.confirmed), (RowStatus::Stale, false));
    assert_eq!(view.seen, moment(0).wall);
    // Its host speaks again, and that is noted too.
    gossip(&mut after, &presence(1, &[(1, None)], 201), 201);
    assert_eq!(status(&after, 1, 1, 201), RowStatus::Live);
}

#[test]
fn a_peer_that_only_has_its_disk_confirms_nothing() {
    let mut directory = directory();
    let bytes = sign(1, listing(1), 0);
    let disk = Source::Peer { on_link: false, age: None };
    assert_eq!(directory.admit(&bytes, disk, moment(9)).0, Admission::New);
    let view = directory.view(&id(1, 1), moment(9)).expect("the row");
    assert_eq!((view.status, view.confirmed), (RowStatus::Live, false));
    // One that has heard of it does.
    let heard = Source::Peer { on_link: false, age: Some(Duration::from_secs(1)) };
    directory.admit(&bytes, heard, moment(9));
    assert!(directory.view(&id(1, 1), moment(9)).expect("the row").confirmed);
}

#[test]
fn a_liar_cannot_keep_a_dead_host_alive() {
    let mut directory = directory();
    directory.admit(&sign(1, listing(1), 0), Source::Gossip, moment(0));
    let old = presence(1, &[(1, Some(9))], 10);
    let lie = Source::Peer { on_link: false, age: Some(Duration::ZERO) };
    assert_eq!(directory.admit(&old, lie, moment(2400)).0, Admission::New);
    assert_eq!(status(&directory, 1, 1, 2400), RowStatus::Stale);
}

#[test]
fn presences_of_nobody_make_way_for_one_another_only() {
    let mut directory = directory();
    gossip(&mut directory, &sign(1, listing(1), 0), 0);
    gossip(&mut directory, &presence(1, &[(1, Some(1))], 0), 0);
    for n in 0..1_200_u16 {
        let [a, b] = n.to_be_bytes();
        let mut seed = [7; 32];
        (seed[0], seed[1]) = (a, b);
        let next = KeyDigest::of(&DeviceKey::from_seed([99; 32]).public());
        let signer = RecordSigner::genesis(
            DeviceKey::from_seed(seed),
            next,
            "test".parse().expect("a name"),
        );
        let servers = vec![ServerPresence { id: ServerId(seed), players: None, slots: None }];
        let at = moment(1).wall;
        let bytes =
            signer.sign(&Record::Presence(Presence { servers }), at.0, at).expect("it holds");
        assert_eq!(gossip(&mut directory, &bytes, 1), Admission::New);
    }
    assert_eq!(directory.stats().hosts, 1025);
    assert_eq!(directory.view(&id(1, 1), moment(1)).expect("the row").players, Some(1));
}

#[test]
fn a_new_version_is_not_a_new_server() {
    let mut directory = directory();
    gossip(&mut directory, &sign(1, listing(1), 0), 0);
    gossip(&mut directory, &sign(1, listing(1), 100), 100);
    let view = directory.view(&id(1, 1), moment(100)).expect("the row");
    assert_eq!((view.first_seen, view.issued), (moment(0).wall, moment(100).wall));
}

#[test]
fn only_addresses_that_work_everywhere_travel_everywhere_on_main() {
    let lan = ServerListing {
        addresses: vec!["192.168.0.9:30000/udp".parse().expect("an address")],
        ..listing(1)
    };
    let at = moment(0).wall;
    let signer = signer_on(1, "main");
    let bytes = signer.sign(&Record::ServerListing(lan.clone()), at.0, at).expect("it holds");
    let mut directory = Directory::new(NetworkName::main());
    let mut admit = |source| directory.admit(&bytes, source, moment(0)).0;
    assert_eq!(admit(Source::Gossip), Admission::Refused(Refusal::Scope));
    let far = Source::Peer { on_link: false, age: Some(Duration::ZERO) };
    assert_eq!(admit(far), Admission::Refused(Refusal::Scope));
    let near = Source::Peer { on_link: true, age: Some(Duration::ZERO) };
    assert_eq!(admit(near), Admission::New);
    let id = lan.id(&signer.root());
    assert_eq!(directory.get(&[id], true, moment(0)).records.len(), 1);
    assert_eq!(directory.get(&[id], false, moment(0)).records.len(), 0);
}

#[test]
fn one_root_cannot_fill_the_replica() {
    let mut directory = directory();
    let refused = (0..200_u8)
        .filter(|n| gossip(&mut directory, &sign(1, listing(*n), 0), 0) != Admission::New)
        .count();
    assert_eq!(refused, 200 - 128);
}

#[test]
fn pages_hold_every_row_once_and_fit_a_response() {
    let mut directory = directory();
    let mut wanted = BTreeSet::new();
    for root in 1..=8 {
        for n in 0..100 {
            gossip(&mut directory, &sign(root, listing(n), 0), 0);
            wanted.insert(id(root, n));
        }
        gossip(&mut directory, &presence(root, &[(0, Some(1))], 1), 1);
    }
    let mut other = Directory::new("test".parse().expect("a name"));
    let mut after = None;
    let mut pages = 0;
    loop {
        let query = homehost_protocol::rpc::query::Query { all: Some(true), ..Default::default() };
        let request = Request::Query { query, cursor: after };
        let page = directory.answer(&request, false, moment(2));
        pages += 1;
        let next = page.cursor.clone();
        let bytes = page.encode();
        assert!(
            bytes.len() <= homehost_protocol::limits::RPC_RESPONSE_BYTES_MAX,
            "{}",
            bytes.len()
        );
        for held in Response::decode(&bytes).expect("own bytes").records {
            let age = held.age_s.map(|s| Duration::from_secs(s.into()));
            other.admit(&held.envelope, Source::Peer { on_link: false, age }, moment(2));
        }
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert!(pages > 1);
    assert_eq!(other.rows.values().map(|row| row.id).collect::<BTreeSet<_>>(), wanted);
    assert_eq!(other.view(&id(3, 0), moment(2)).expect("the row").players, Some(1));
}

#[test]
fn search_filters_and_sorts() {
    let mut directory = directory();
    let rows = [
        (1, "Sunday Luanti", "luanti", &["creative", "peaceful"][..], Some("eu"), Some(5)),
        (2, "Ärger im Süden", "luanti", &["pvp"][..], Some("eu"), None),
        (3, "arena", "openarena", &["pvp"][..], Some("us"), Some(9)),
        (4, "Blocks", "minecraft", &[][..], None, Some(0)),
    ];
    let mut players = vec![];
    for (n, name, game, tags, region, count) in rows {
        let listing = ServerListing {
            name: name.into(),
            game: game.into(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            region: region.map(str::to_owned),
            ..listing(n)
        };
        gossip(&mut directory, &sign(1, listing, 0), n.into());
        players.push((n, count));
    }
    gossip(&mut directory, &presence(1, &players, 5), 5);
    let find = |query: Query| -> Vec<String> {
        found(&directory, &query, 5).into_iter().map(|row| row.listing.name).collect()
    };
    let all = Query::default();
    assert_eq!(find(all.clone()), ["arena", "Sunday Luanti", "Blocks", "Ärger im Süden"]);
    assert_eq!(find(Query { game: Some("luanti".into()), ..all.clone() }).len(), 2);
    assert_eq!(find(Query { tags: vec!["pvp".into()], ..all.clone() }).len(), 2);
    assert_eq!(find(Query { region: Some("us".into()), ..all.clone() }), ["arena"]);
    let text = |text: &str| Query { text: Some(text.into()), ..Query::default() };
    assert_eq!(find(text("SÜDEN")), ["Ärger im Süden"]);
    assert_eq!(find(text("peace sun")), ["Sunday Luanti"]);
    assert_eq!(find(text("nothing")), Vec::<String>::new());
    let busy = Query { has_players: true, ..all.clone() };
    assert_eq!(find(busy), ["arena", "Sunday Luanti"]);
    let by_name = Query { sort: Sort::Name, limit: Some(2), ..all.clone() };
    assert_eq!(find(by_name), ["arena", "Blocks"]);
    assert_eq!(find(Query { sort: Sort::New, ..all })[0], "Blocks");
}

/// What any two replicas must agree on after they heard the same records, in
/// whatever order, how often, and by whichever way.
fn essence(directory: &Directory) -> Vec<(ServerId, RecId, Option<RecId>)> {
    let of = |row: &row::Row| {
        let presence = directory.presences.get(&(row.header.root, row.header.dev));
        (row.id, row.rec_id, presence.map(|presence| presence.rec_id))
    };
    let mut rows: Vec<_> = directory.rows.values().map(of).collect();
    rows.sort();
    rows
}

#[test]
fn gossip_is_judged_as_a_whole() {
    let now = moment(5);
    let judge = |directory: &mut Directory, batch: &[&[u8]]| {
        let batch: Vec<_> = batch.iter().map(|bytes| bytes.to_vec()).collect();
        directory.admit_gossip(NodeId([1; 32]), &batch, now).0
    };
    let (a, b) = (sign(1, listing(1), 0), sign(1, listing(2), 0));
    let mut bad = b.clone();
    let end = bad.len() - 1;
    bad[end] ^= 1;
    let mut directory = directory();
    assert_eq!(judge(&mut directory, &[&a]), Judgement::Accept);
    assert_eq!(judge(&mut directory, &[&a]), Judgement::Ignore);
    assert_eq!(judge(&mut directory, &[&a, &b]), Judgement::Accept);
    assert_eq!(judge(&mut directory, &[&sign(1, listing(3), 1), &bad]), Judgement::Reject);
    assert_eq!(judge(&mut directory, &[&bad, &sign(1, listing(4), 1)]), Judgement::Reject);
    // News of two roots: sound each, but nobody may bundle them.
    let two = [&sign(1, listing(5), 2)[..], &sign(2, listing(5), 2)];
    assert_eq!(judge(&mut directory, &two), Judgement::Reject);
    for (root, n) in [(1, 5), (2, 5)] {
        assert!(directory.view(&id(root, n), now).is_none(), "a row of root {root} was taken in");
    }
    let future = sign(1, listing(1), 5 + 660);
    assert_eq!(judge(&mut directory, &[&future]), Judgement::Ignore);
}

#[test]
fn replicas_agree_whatever_the_order() {
    for seed in 0..2_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut records = Vec::new();
        for _ in 0..rng.usize(1..12) {
            let (root, n, at) = (rng.u8(1..3), rng.u8(..3), rng.u64(..4));
            records.push(match rng.u8(..4) {
                0 => sign(root, withdrawn(n), at),
                1 => presence(root, &[(n, Some(1))], at),
                _ => sign(root, ServerListing { slots: Some(rng.u16(..3)), ..listing(n) }, at),
            });
        }
        let replicas: Vec<_> = (0..2)
            .map(|_| {
                let mut directory = directory();
                let mut heard = records.clone();
                heard.extend_from_within(..records.len() / 2);
                rng.shuffle(&mut heard);
                for bytes in heard {
                    let source = if rng.bool() {
                        Source::Gossip
                    } else {
                        Source::Peer {
                            on_link: rng.bool(),
                            age: rng.bool().then(|| Duration::from_secs(rng.u64(..9))),
                        }
                    };
                    directory.admit(&bytes, source, moment(5));
                }
                essence(&directory)
            })
            .collect();
        assert_eq!(replicas[0], replicas[1], "seed {seed}");
    }
}
