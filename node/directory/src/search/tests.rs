//! What is found, in which order, and that a walk sees every row once.

use std::collections::BTreeMap;

use homehost_protocol::keys::{DeviceKey, KeyDigest};
use homehost_protocol::limits::CURSOR_BYTES_MAX;
use homehost_protocol::record::RecordSigner;
use homehost_protocol::record::listing::{ListingState, flags};
use homehost_protocol::record::presence::ServerPresence;
use homehost_protocol::rpc::{Request, Response, Trouble};
use homehost_protocol::validate::NoChains;
use homehost_protocol::{
    Presence, Record, ServerListing, ServerNonce, UnixMillis, Verdict, validate,
};

use super::*;
use crate::core::{Admission, MONO_ORIGIN, Source};

const NOW: Moment = Moment { wall: UnixMillis(1_795_168_800_000), mono: MONO_ORIGIN };

fn after(seconds: u64) -> Moment {
    NOW.plus(std::time::Duration::from_secs(seconds))
}

fn listing(n: u16) -> ServerListing {
    let mut nonce = [0; 16];
    nonce[..2].copy_from_slice(&n.to_be_bytes());
    ServerListing {
        nonce: ServerNonce(nonce),
        state: ListingState::Live,
        game: "luanti".into(),
        name: format!("Server {n}"),
        description: None,
        tags: vec![],
        region: None,
        language: None,
        game_version: None,
        addresses: vec!["8.8.8.8:30000/udp".parse().expect("an address")],
        slots: None,
        flags: None,
        plugin_set: None,
        visibility: None,
    }
}

fn signer(root: u8) -> RecordSigner {
    let next = KeyDigest::of(&DeviceKey::from_seed([99; 32]).public());
    let network = "test".parse().expect("a name");
    RecordSigner::genesis(DeviceKey::from_seed([root; 32]), next, network)
}

/// Rows of one root with their players, heard at a moment.
fn put(directory: &mut Directory, root: u8, rows: &[(ServerListing, Option<u16>)], now: Moment) {
    let signer = signer(root);
    let mut servers = Vec::new();
    let records = rows.iter().map(|(listing, players)| {
        servers.push(ServerPresence {
            id: listing.id(&signer.root()),
            players: *players,
            slots: None,
        });
        Record::ServerListing(listing.clone())
    });
    let mut records: Vec<Record> = records.collect();
    servers.sort_by_key(|server| server.id);
    records.push(Record::Presence(Presence { servers }));
    for record in records {
        let bytes = signer.sign(&record, now.wall.0, now.wall).expect("a record that holds");
        assert_eq!(directory.admit(&bytes, Source::Own, now).0, Admission::New);
    }
}

fn directory(rows: &[(ServerListing, Option<u16>)]) -> Directory {
    let mut directory = Directory::new("test".parse().expect("a name"));
    put(&mut directory, 1, rows, NOW);
    directory
}

fn names(directory: &Directory, query: &Query) -> Vec<String> {
    let page = directory.search(query, NOW).expect("no cursor of another order");
    assert_eq!(page.matching, page.rows.len());
    // One row is judged as the whole search judges it.
    let all = Query { all: true, ..Query::default() };
    for row in directory.search(&all, NOW).expect("no cursor").rows {
        let found = page.rows.iter().any(|other| other.id == row.id);
        assert_eq!(query.matches(&row), found, "{query:?} {row:?}");
    }
    page.rows.into_iter().map(|row| row.listing.name).collect()
}

#[test]
fn a_version_is_found_by_its_first_parts() {
    for (version, part, found) in [
        ("5.6", "5.6", true),
        ("5.6.1", "5.6", true),
        ("5.6-rc1", "5.6", true),
        ("5.60", "5.6", false),
        ("5.6rc1", "5.6", false),
        ("5.6", "5.6.1", false),
        ("15.6", "5.6", false),
        ("5.6.1", "5.", true),
        ("5.6", "5", true),
        ("5.6", "", true),
    ] {
        assert_eq!(begins(version, part), found, "{version} by {part}");
    }
}

#[test]
fn every_filter_leaves_out_what_it_should() {
    let rich = ServerListing {
        name: "Rich".into(),
        description: Some("With a Museum of trains".into()),
        tags: vec!["creative".into(), "railway".into()],
        region: Some("eu".into()),
        language: Some("de".into()),
        game_version: Some("5.6.1".into()),
        flags: Some(flags::PVP | flags::MODDED | 1 << 20),
        ..listing(1)
    };
    let plain = ServerListing { name: "Plain".into(), game: "xonotic".into(), ..listing(2) };
    let directory = directory(&[(rich, Some(3)), (plain, Some(0))]);
    let text = |text: &str| Some(text.to_owned());
    let query = Query::default;
    let only_rich = [
        Query { game: text("luanti"), ..query() },
        Query { tags: vec!["creative".into(), "railway".into()], ..query() },
        Query { region: text("eu"), ..query() },
        Query { language: text("de"), ..query() },
        Query { version: text("5.6"), ..query() },
        Query { flags: flags::PVP, ..query() },
        Query { flags: flags::PVP | flags::MODDED, ..query() },
        Query { text: text("MUSEUM rail"), ..query() },
        Query { has_players: true, ..query() },
    ];
    for wanted in &only_rich {
        assert_eq!(names(&directory, wanted), ["Rich"], "{wanted:?}");
    }
    assert_eq!(names(&directory, &Query { without_flags: flags::PVP, ..query() }), ["Plain"]);
    assert_eq!(names(&directory, &Query { text: text("plain"), ..query() }), ["Plain"]);
    for none in [
        Query { tags: vec!["creative".into(), "pvp".into()], ..query() },
        Query { flags: flags::PVP | flags::PASSWORD, ..query() },
        Query { flags: flags::PVP, without_flags: flags::MODDED, ..query() },
        Query { version: text("5.6.10"), ..query() },
        Query { text: text("museum plain"), ..query() },
        Query { proved: true, ..query() },
    ] {
        assert_eq!(names(&directory, &none), Vec::<String>::new(), "{none:?}");
    }
    assert_eq!(names(&directory, &Query { without_flags: flags::PASSWORD, ..query() }).len(), 2);
}

#[test]
fn a_peer_finds_what_its_owner_would() {
    let rows: Vec<_> = (0..40).map(|n| (listing(n), Some(n % 7))).collect();
    let directory = directory(&rows);
    let peer = PeerQuery {
        has_players: Some(true),
        text: Some("server 1".into()),
        sort: Some(SortBy::Name),
        limit: Some(3),
        ..PeerQuery::default()
    };
    let mut query = Query::of_peer(&peer, None).expect("no cursor");
    query.limit = None;
    let wanted = names(&directory, &query);
    assert!(wanted.len() > 6);
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let response = ask(&directory, &peer, cursor);
        assert_eq!(response.matching, Some(wanted.len() as u32));
        assert_eq!(response.network.as_ref().map(|name| name.as_str()), Some("test"));
        found.extend(response.records.iter().filter_map(|held| name_in(&held.envelope)));
        cursor = response.cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(found, wanted);
    // However many a peer wants, it gets what a peer may have.
    let greedy = PeerQuery { limit: Some(u16::MAX), ..PeerQuery::default() };
    assert_eq!(Query::of_peer(&greedy, None).map(|query| query.limit), Ok(Some(QUERY_ROWS_MAX)));
    assert_eq!(ask(&directory, &peer, Some(vec![2; 50])).trouble, Some(Trouble::Cursor));
    let other = PeerQuery { sort: Some(SortBy::New), ..peer.clone() };
    let cursor = ask(&directory, &peer, None).cursor;
    assert_eq!(ask(&directory, &other, cursor).trouble, Some(Trouble::Cursor));
}

fn name_in(envelope: &[u8]) -> Option<String> {
    let network = "test".parse().expect("a name");
    match validate(envelope, &network, &NoChains, NOW.wall) {
        Verdict::Accept(validated) => match validated.record {
            Record::ServerListing(listing) => Some(listing.name),
            _ => None,
        },
        verdict => panic!("{verdict:?}"),
    }
}

fn ask(directory: &Directory, query: &PeerQuery, cursor: Option<Vec<u8>>) -> Response {
    let request = Request::Query { query: query.clone(), cursor };
    directory.answer(&request, false, NOW)
}

#[test]
fn rows_come_by_standing_then_key_then_name_then_id() {
    let named = |n, name: &str| ServerListing { name: name.into(), ..listing(n) };
    // A root that is known for a day, and strangers who claim crowds.
    let mut directory = Directory::new("test".parse().expect("a name"));
    let old = [(named(1, "b"), Some(9)), (named(2, "a"), None), (named(3, "c"), Some(0))];
    put(&mut directory, 1, &old, NOW);
    let day = after(24 * 3600 - 1);
    put(&mut directory, 1, &old, day);
    put(&mut directory, 2, &[(named(1, "A liar"), Some(60_000)), (named(2, "B"), Some(8))], day);
    let now = after(24 * 3600);
    let sorted = |sort| -> Vec<String> {
        let query = Query { sort, ..Query::default() };
        let page = directory.search(&query, now).expect("no cursor");
        page.rows.into_iter().map(|row| row.listing.name).collect()
    };
    assert_eq!(sorted(Sort::Players), ["b", "c", "a", "A liar", "B"]);
    assert_eq!(sorted(Sort::Name), ["a", "b", "c", "A liar", "B"]);
    assert_eq!(sorted(Sort::New), ["a", "b", "c", "A liar", "B"]);
    assert_eq!(sorted(Sort::Proved), ["a", "b", "c", "A liar", "B"]);
}

const SORTS: [Sort; 4] = [Sort::Players, Sort::Name, Sort::New, Sort::Proved];

/// Rows with many equal names and counts, from several roots and moments.
fn crowd(random: &mut fastrand::Rng) -> Directory {
    let mut directory = Directory::new("test".parse().expect("a name"));
    for root in 1..=6 {
        let rows: Vec<_> = (0..random.u16(1..30))
            .map(|n| {
                let name = ["Ärger", "İstanbul", "castle", "moon"][random.usize(..4)];
                let players = random.bool().then(|| random.u16(..5));
                (ServerListing { name: name.into(), ..listing(n) }, players)
            })
            .collect();
        put(&mut directory, root, &rows, after(root.into()));
    }
    directory
}

#[test]
fn a_walk_sees_every_row_once_in_the_order_of_one_page() {
    for seed in 0..40 {
        let random = &mut fastrand::Rng::with_seed(seed);
        let directory = crowd(random);
        for sort in SORTS {
            let query = Query { sort, has_players: random.bool(), ..Query::default() };
            let whole = directory.search(&query, after(9)).expect("no cursor");
            assert_eq!(whole.next, None);
            let mut seen = Vec::new();
            let mut page = Query { limit: Some(random.usize(1..9)), ..query };
            loop {
                let found = directory.search(&page, after(9)).expect("our own cursor");
                assert_eq!(found.matching, whole.rows.len());
                seen.extend(found.rows.into_iter().map(|row| row.id));
                let Some(next) = found.next else { break };
                assert!(next.to_bytes().len() <= CURSOR_BYTES_MAX);
                page.cursor = Some(next.to_string().parse().expect("its own text"));
            }
            assert_eq!(seen, whole.rows.iter().map(|row| row.id).collect::<Vec<_>>(), "{seed}");
        }
    }
}

#[test]
fn a_walk_over_rows_that_change_comes_to_an_end() {
    for seed in 0..40 {
        let random = &mut fastrand::Rng::with_seed(seed);
        let mut directory = crowd(random);
        let mut query = Query { limit: Some(5), ..Query::default() };
        let mut times: BTreeMap<ServerId, usize> = BTreeMap::new();
        for step in 10.. {
            assert!(step < 300, "a walk without end");
            let found = directory.search(&query, after(step)).expect("our own cursor");
            for row in found.rows {
                *times.entry(row.id).or_default() += 1;
            }
            let Some(next) = found.next else { break };
            query.cursor = Some(next);
            let rows: Vec<_> = (0..8).map(|n| (listing(n), Some(random.u16(..9)))).collect();
            put(&mut directory, random.u8(1..=6), &rows, after(step));
        }
        assert!(times.len() > 5);
    }
}

#[test]
fn hostile_cursors_are_refused_or_harmless() {
    let random = &mut fastrand::Rng::with_seed(1);
    let directory = crowd(random);
    let query = Query { limit: Some(3), ..Query::default() };
    let next = directory.search(&query, after(9)).expect("no cursor").next.expect("more rows");
    let bytes = next.to_bytes();
    assert_eq!(Cursor::try_from(bytes.as_slice()), Ok(next.clone()));
    assert_eq!(
        Cursor::try_from([bytes.as_slice(), &[b'a'; 160]].concat().as_slice()),
        Err(CursorError)
    );
    for end in 0..bytes.len() {
        let cut = Cursor::try_from(&bytes[..end]);
        assert_eq!(cut.is_err(), end < 43 || str::from_utf8(&bytes[43..end]).is_err(), "{end}");
    }
    for (at, byte) in [(0, 0), (0, 2), (1, 4), (43, 0xff)] {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        assert_eq!(Cursor::try_from(bytes.as_slice()), Err(CursorError), "{at}");
    }
    for _ in 0..5_000 {
        let mut bytes = bytes.clone();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        let Ok(cursor) = Cursor::try_from(bytes.as_slice()) else { continue };
        let sort = cursor.sort;
        let query = Query { cursor: Some(cursor), sort, ..query.clone() };
        assert!(directory.search(&query, after(9)).is_ok());
    }
    let other = Query { sort: Sort::Name, cursor: Some(next), ..query };
    assert_eq!(directory.search(&other, after(9)).err(), Some(CursorError));
    for text in ["", "!", "a", &"a".repeat(10_000), "ÄÖÜ"] {
        assert_eq!(text.parse::<Cursor>(), Err(CursorError), "{text}");
    }
    let none = Query { limit: Some(0), ..Query::default() };
    assert_eq!(directory.search(&none, after(9)).expect("no cursor").next, None);
}

#[test]
fn a_page_that_is_full_before_its_limit_goes_on() {
    let mut directory = Directory::new("test".parse().expect("a name"));
    let long = |n| ServerListing {
        description: Some("d".repeat(120)),
        name: format!("{n:048}"),
        tags: (0..8).map(|tag| format!("{tag:016}")).collect(),
        ..listing(n)
    };
    for root in 1..=4 {
        let rows: Vec<_> = (0..50).map(|n| (long(n), None)).collect();
        put(&mut directory, root, &rows, NOW);
    }
    let (mut rows, mut pages, mut cursor) = (0, 0, None);
    loop {
        let response = ask(&directory, &PeerQuery::default(), cursor);
        rows += response.records.iter().filter(|held| name_in(&held.envelope).is_some()).count();
        pages += 1;
        cursor = response.cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!((rows, pages), (200, 2));
}

#[test]
fn rows_of_a_lan_are_neither_told_nor_counted_elsewhere() {
    let network = || "main".parse().expect("a name");
    let next = KeyDigest::of(&DeviceKey::from_seed([99; 32]).public());
    let signer = RecordSigner::genesis(DeviceKey::from_seed([1; 32]), next, network());
    let mut directory = Directory::new(network());
    for (n, address) in [(1, "8.8.8.8:30000/udp"), (2, "192.168.1.2:30000/udp")] {
        let listing =
            ServerListing { addresses: vec![address.parse().expect("an address")], ..listing(n) };
        let record = Record::ServerListing(listing);
        let bytes = signer.sign(&record, NOW.wall.0, NOW.wall).expect("a record that holds");
        assert_eq!(directory.admit(&bytes, Source::Own, NOW).0, Admission::New);
    }
    for (on_link, rows) in [(false, 1), (true, 2)] {
        let request = Request::Query { query: PeerQuery::default(), cursor: None };
        let response = directory.answer(&request, on_link, NOW);
        assert_eq!((response.records.len(), response.matching), (rows, Some(rows as u32)));
    }
}
