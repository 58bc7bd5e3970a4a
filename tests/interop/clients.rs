//! Asking without joining (spec/mesh §10): JavaScript as the client of our nodes,
//! and as the node that our client asks and that lies.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use homehost_protocol::ServerListing;
use homehost_tests::{Answer, Test, eventually};
use serde_json::{Value, json};

use crate::author::{Author, Row, now};
use crate::js::{Js, Peer};
use crate::{FOUND, hex, tcp_address};

/// A peer that says that it is a client.
#[track_caller]
fn client<'a>(js: &'a Js<'_>, name: &str) -> Peer<'a> {
    js.peer_with(name, json!({"version": "/homehost/1", "gossip": false, "alone": true}))
}

/// Names of the rows of an answer, whose signatures hold.
#[track_caller]
fn names(js: &Js<'_>, answer: &Value) -> Vec<String> {
    let records = answer["records"].as_array().expect("records");
    let opened = records.iter().map(|held| js.ask("open", json!({"envelope": held["envelope"]})));
    opened.filter_map(|row| row["name"].as_str().map(str::to_owned)).collect()
}

#[test]
fn a_client_searches_at_a_host_and_at_a_bootstrap_node() {
    let test = Test::new();
    let boot = test.bootstrap();
    let node = test.node("node", &[boot.address()]);
    let js = Js::start(&test);
    let source = js.lone_peer("source");
    source.join_gossip(&node);
    let author = Author::new(&test, 7);
    let rows: Vec<_> = ["Castle", "Harbour", "Island", "Mill", "Tower"]
        .into_iter()
        .zip(1..)
        .map(|(name, nonce)| {
            let tags = if nonce % 2 == 1 { vec!["odd".into()] } else { vec![] };
            let listing = ServerListing { tags, ..author.server(nonce, name) };
            author.row_at(&listing, now(), now().0)
        })
        .collect();
    let envelopes: Vec<_> = rows.iter().map(|row| row.envelope.clone()).collect();
    source.publish("list", &envelopes);
    for row in &rows {
        node.sees(&row.id, "live", FOUND);
    }
    eventually(FOUND, "the bootstrap node is a peer", || {
        let peers = node.get("/api/v1/peers").json();
        let there = peers.as_array().into_iter().flatten().any(|peer| peer["role"] == "bootstrap");
        there.then_some(()).ok_or_else(|| peers.to_string())
    });

    for (whom, address) in [("host", tcp_address(&node)), ("bootstrap", boot.address().into())] {
        let client = client(&js, &format!("client of a {whom}"));
        client.ask("dial", json!({"address": address}));
        let mut found = BTreeSet::new();
        let mut cursor = Value::Null;
        for rows in [2, 2, 1] {
            let query = json!({"game": "foreign", "sort": 1, "limit": 2});
            let args = json!({"operation": "query", "query": query, "cursor": cursor});
            let page = client.ask("ask_as_client", args);
            assert_eq!(page["trouble"], Value::Null, "{whom}");
            assert_eq!(page["network"], test.network(), "{whom}");
            assert_eq!(page["matching"], 5, "{whom}");
            let names = names(&js, &page);
            assert_eq!(names.len(), rows, "{whom}: {names:?}");
            found.extend(names);
            cursor = page["cursor"].clone();
        }
        assert_eq!(cursor, Value::Null, "{whom}: there is no more");
        assert_eq!(found.len(), 5, "{whom}: {found:?}");
        let odd = json!({"operation": "query", "query": {"tags": ["odd"], "text": "ow"}});
        assert_eq!(names(&js, &client.ask("ask_as_client", odd)), ["Tower"], "{whom}");
        let broken = json!({"operation": "query", "cursor": "00".repeat(20)});
        assert_eq!(client.ask("ask_as_client", broken)["trouble"], 2, "{whom}");

        let id = hex(&author.server(3, "any").id(&author.root()).0);
        let got = client.ask("ask_as_client", json!({"operation": "get", "ids": [id]}));
        assert_eq!(names(&js, &got), ["Island"], "{whom}");
        for question in [
            json!({"operation": "offer", "envelopes": [hex(&envelopes[0])]}),
            json!({"operation": "reconcile", "set": 1, "message": "6100000200"}),
            json!({"operation": "records", "records": ["00".repeat(32)]}),
            json!({"operation": 77}),
        ] {
            assert!(client.refusal("ask_as_client", question).contains("refused"), "{whom}");
        }
        // By the name for peers it is not answered at all.
        client.refusal("ask", json!({"operation": "query"}));
        assert!(client.is_connected(), "{whom}");
        let peers = node.get("/api/v1/peers").json();
        assert!(!peers.to_string().contains(&client.id), "it joined nothing: {peers}");
        // Eight at once, and one a second; six were used.
        let args = json!({"operation": "query", "client": true, "count": 20});
        let many = client.ask("ask_many", args);
        assert!((1..9).contains(&many["answered"].as_u64().expect("a number")), "{whom}: {many}");
    }
}

/// A node by its own word that answers clients so.
#[track_caller]
fn liar<'a>(js: &'a Js<'_>, name: &str, answers: &Value) -> Peer<'a> {
    let liar = js.peer_with(name, json!({"gossip": false}));
    liar.ask("answer_clients", json!({"answers": answers}));
    liar
}

/// `homehost discover --via` a liar.
#[track_caller]
fn discover(test: &Test, liar: &Peer<'_>, args: &[&str]) -> (Answer, Duration) {
    let address = liar.ask("address", json!({}));
    let all = [&["discover", "--via", address.as_str().expect("an address")], args].concat();
    let begun = Instant::now();
    let answer = test.stopped_node("nobody", &[]).cli(&all);
    println!("{}: {:?} after {:?}", liar.id, answer.code, begun.elapsed());
    (answer, begun.elapsed())
}

fn held(row: &Row) -> Value {
    json!({"envelope": hex(&row.envelope), "age": 5})
}

fn shown(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.code, Some(0), "{answer:?}");
    let rows = answer.json();
    let rows = rows.as_array().expect("rows").iter();
    rows.map(|row| row["name"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn of_a_liars_answer_only_what_holds_is_shown() {
    let test = Test::new();
    let js = Js::start(&test);
    let author = Author::new(&test, 7);
    let good = author.row(1, "Good");
    let mut forged = author.row(2, "Forged");
    *forged.envelope.last_mut().expect("a signature") ^= 1;
    let strange = Author::of_network("another", 8).row(1, "Of Another Network");
    let old = author.row_at(
        &author.server(3, "Long Ago"),
        Author::ago(Duration::from_secs(25 * 3600)),
        1,
    );
    let noise = json!({"envelope": "ff".repeat(300), "age": 5});
    let records = json!([held(&forged), held(&good), held(&strange), held(&old), noise]);

    let all = json!([{"network": test.network(), "matching": 9_999, "records": records}]);
    let (answer, _) = discover(&test, &liar(&js, "mixed", &all), &[]);
    assert_eq!(shown(&answer), ["Good"]);
    let refused = answer.stderr.lines().filter(|line| line.starts_with("refused 1 record of it: "));
    assert_eq!(refused.count(), 4, "each by its reason: {}", answer.stderr);

    // It says that it is in another network, and that is what is believed.
    let all = json!([{"network": "another", "records": records}]);
    let (answer, _) = discover(&test, &liar(&js, "elsewhere", &all), &[]);
    assert_eq!(shown(&answer), ["Of Another Network"]);
    assert!(answer.stderr.contains("\"another\""), "{}", answer.stderr);

    let all = json!([{"network": test.network(), "records": [held(&good)]}]);
    let (answer, _) = discover(&test, &liar(&js, "unasked", &all), &["--game", "chess"]);
    assert_eq!(shown(&answer), [""; 0]);
    assert!(answer.stderr.contains("a server that was not asked for"), "{}", answer.stderr);
}

#[test]
fn a_liar_that_comes_to_no_end_is_left() {
    let test = Test::new();
    let js = Js::start(&test);
    let author = Author::new(&test, 7);
    let network = test.network();
    let page = |row: &Row| json!({"network": network, "records": [held(row)], "cursor": "fresh"});

    let same = json!([page(&author.row(1, "Again"))]);
    let peer = liar(&js, "the same for ever", &same);
    let (answer, took) = discover(&test, &peer, &[]);
    assert_eq!(shown(&answer), ["Again"]);
    assert_eq!(peer.ask("was_asked", json!({}))["asked"], 2);
    assert!(took < Duration::from_secs(20), "{took:?}");

    let mut forged = author.row(2, "Forged");
    *forged.envelope.last_mut().expect("a signature") ^= 1;
    let peer = liar(&js, "nothing that holds", &json!([page(&forged)]));
    let (answer, _) = discover(&test, &peer, &[]);
    assert_eq!(shown(&answer), [""; 0]);
    assert_eq!(peer.ask("was_asked", json!({}))["asked"], 1);

    // One sound row a page, each of another root: they cost nothing.
    let drops: Vec<_> =
        (100..300).map(|number| page(&Author::new(&test, number).row(1, "Drop"))).collect();
    let peer = liar(&js, "one by one", &json!(drops));
    let (answer, took) = discover(&test, &peer, &[]);
    let rows = shown(&answer).len();
    assert!(rows > 8 && rows < 100, "{rows} rows");
    assert!(took < Duration::from_secs(45), "{took:?}");
    assert!(answer.stderr.contains("may not be all"), "{}", answer.stderr);
}

#[test]
fn a_liar_that_gives_no_answer_is_told_from_one_with_nothing() {
    let test = Test::new();
    let js = Js::start(&test);
    for (name, lie, code, words) in [
        ("noise", json!({"raw": "ff".repeat(1000)}), 7, "refused to answer"),
        ("a frame of noise", json!({"raw": format!("00000010{}", "ff".repeat(16))}), 7, "refused"),
        ("a frame without an end", json!({"raw": "0001f000", "open": true}), 6, "in time"),
        (
            "too long a frame",
            json!({"raw": format!("00f00000{}", "00".repeat(1000))}),
            7,
            "refused",
        ),
        ("nothing", json!({"closed": true}), 7, "refused to answer"),
        ("silence", json!({"silent": true}), 6, "in time"),
        ("no replica", json!({"trouble": 1}), 7, "keeps no directory"),
        ("a trouble that is none", json!({"trouble": 99}), 7, "refused"),
    ] {
        let (answer, took) = discover(&test, &liar(&js, name, &json!([lie])), &[]);
        let message = answer.refusal(code);
        assert!(message.contains(words), "{name}: {message}");
        assert!(took < Duration::from_secs(20), "{name}: {took:?}");
    }
    // Rows without any; it is in the network of which it says that it is.
    let (answer, _) = discover(&test, &liar(&js, "empty", &json!([{}])), &[]);
    assert_eq!(shown(&answer), [""; 0]);
    assert!(answer.stderr.contains(test.network()), "{}", answer.stderr);

    let stranger = js.peer_with("stranger", json!({"gossip": false, "version": "ipfs/0.1.0"}));
    let (answer, _) = discover(&test, &stranger, &[]);
    assert!(answer.refusal(2).contains("not a HomeHost node"), "{answer:?}");
    let (answer, _) = discover(&test, &js.peer_with("mute", json!({"gossip": false})), &[]);
    assert!(answer.refusal(2).contains("does not answer clients"), "{answer:?}");
}
