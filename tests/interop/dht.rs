//! Records in the DHT, with js-libp2p as one of those who keep and seek them
//! (spec/mesh §8).

use homehost_tests::{Game, Node, Test, eventually};
use serde_json::{Value, json};

use crate::author::{Author, Row, now};
use crate::js::{Js, Peer};
use crate::watch::Watch;
use crate::{FOUND, counter, hex};

fn listing_key(id: &Value) -> String {
    format!("/hhl/{}", id.as_str().expect("an id"))
}

/// Waits until a peer's search brings a value; opens it.
#[track_caller]
fn finds(js: &Js<'_>, peer: &Peer<'_>, key: &str) -> Value {
    let value = eventually(FOUND, &format!("{key} is found"), || {
        let found = peer.try_ask("get", json!({"key": key}))?;
        found["values"][0].as_str().map(str::to_owned).ok_or_else(|| found.to_string())
    });
    js.ask("validate", json!({"key": key, "value": value}));
    js.ask("open", json!({"envelope": value}))
}

/// Puts a record of this peer and keeps it there too.
#[track_caller]
fn puts(peer: &Peer<'_>, key: &str, envelope: &[u8]) {
    // It may not know yet that those whom it met keep records.
    eventually(FOUND, "somebody takes a record", || {
        let done = peer.ask("put", json!({"key": key, "value": hex(envelope)}));
        if done["peers"] == json!([]) { Err(done.to_string()) } else { Ok(()) }
    });
}

/// What the other end of a peer's connection keeps.
#[track_caller]
fn held(peer: &Peer<'_>, key: &str) -> Value {
    peer.ask("held", json!({"key": key}))
}

fn fate(node: &Node<'_>, fate: &str) -> u64 {
    counter(node, &format!("homehost_mesh_dht_puts_total{{fate=\"{fate}\"}}"))
}

#[test]
fn what_a_host_says_of_itself_is_found_by_its_name() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let far = test.node("far", &[&node.address()]);
    far.connected_to(&node);
    let js = Js::start(&test);
    let peer = js.peer("peer");
    peer.join(&far);
    let server = node.host(&Game::stand_in(&test, "In The Phone Book", 3));

    let opened = finds(&js, &peer, &listing_key(&server["id"]));
    assert_eq!(opened["type"], "/homehost/rec/server-listing/1");
    assert_eq!(opened["name"], "In The Phone Book");
    assert_eq!(opened["network"], test.network());

    let root = node.ok(&["id"])["root"].as_str().expect("a root").to_owned();
    let opened = finds(&js, &peer, &format!("/hhh/{root}/0"));
    assert_eq!(opened["type"], "/homehost/rec/host-announcement/1");
}

#[test]
fn what_it_puts_is_looked_up_and_those_who_agree_are_counted() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let far = test.node("far", &[&node.address()]);
    far.connected_to(&node);
    let js = Js::start(&test);
    let peer = js.peer("peer");
    peer.join(&node);
    let author = Author::new(&test, 7);
    let row = author.row(1, "Only By Its Id");
    puts(&peer, &listing_key(&row.id), &row.envelope);

    let id = row.id.as_str().expect("an id");
    let lookup = eventually(FOUND, "two of them agree", || {
        let lookup = far.ok(&["lookup", id]);
        let agree = lookup["agree"].as_u64() >= Some(2);
        if agree { Ok(lookup) } else { Err(lookup.to_string()) }
    });
    assert_eq!(lookup["row"]["name"], "Only By Its Id");
    assert_eq!(lookup["row"]["host"], author.root().to_string());
    assert!(lookup["answers"].as_u64() >= lookup["agree"].as_u64(), "{lookup}");
    assert!(lookup["voices"].as_u64() >= Some(2), "each is near: {lookup}");
}

#[test]
fn the_newer_version_wins_and_who_had_the_old_one_gets_it() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let far = test.node("far", &[&node.address()]);
    far.connected_to(&node);
    let js = Js::start(&test);
    let holder = js.peer("holder");
    holder.join(&node);
    let author = Author::new(&test, 7);
    let version = |name, seq| author.row_at(&author.server(1, name), now(), seq);
    let [old, new] = [version("Old Name", 1), version("New Name", 2)];
    let key = listing_key(&old.id);
    puts(&holder, &key, &old.envelope);

    // Past everybody's checks, so that one of them is not told.
    let writer = js.lone_peer("writer");
    writer.join(&node);
    assert_eq!(held(&writer, &key), hex(&old.envelope));
    let put = |row: &Row| {
        let puts = json!([{"key": key, "value": hex(&row.envelope)}]);
        assert_eq!(writer.ask("put_raw", json!({"puts": puts}))["answered"], 1);
    };
    put(&new);
    assert_eq!(held(&writer, &key), hex(&new.envelope));
    let reader = js.lone_peer("reader");
    reader.ask("dial", json!({"address": holder.ask("address", json!({}))}));
    assert_eq!(held(&reader, &key), hex(&old.envelope), "it has not heard of the new one");

    let lookup = node.ok(&["lookup", old.id.as_str().expect("an id")]);
    assert_eq!(lookup["row"]["name"], "New Name");
    eventually(FOUND, "the stale holder is repaired", || {
        let held = held(&reader, &key);
        if held == hex(&new.envelope) { Ok(()) } else { Err(held.to_string()) }
    });

    // There is no way back.
    let older = fate(&node, "older");
    put(&old);
    assert_eq!(held(&writer, &key), hex(&new.envelope));
    assert_eq!(fate(&node, "older"), older + 1);
}

#[test]
fn a_key_chain_is_kept_and_is_what_a_lookup_needs() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let far = test.node("far", &[&node.address()]);
    far.connected_to(&node);
    let js = Js::start(&test);
    let [peer, other] = ["peer", "other"].map(|name| js.peer(name));
    peer.join(&node);
    other.join(&far);
    let (author, chain) = Author::new(&test, 7).rotated(1);
    let key = format!("/hhk/{}", author.root());
    puts(&peer, &key, &chain);
    let opened = finds(&js, &other, &key);
    assert_eq!(opened["type"], "/homehost/rec/key-chain/1");
    assert_eq!(opened["epoch"], 1);

    // Nobody can judge this without the chain.
    let row = author.row(1, "With A New Key");
    puts(&peer, &listing_key(&row.id), &row.envelope);
    let id = row.id.as_str().expect("an id");
    let lookup = eventually(FOUND, "the row and its chain are found", || {
        let answer = far.cli(&["lookup", id]);
        if answer.code == Some(0) { Ok(answer.json()) } else { Err(format!("{answer:?}")) }
    });
    assert_eq!(lookup["row"]["name"], "With A New Key");
}

#[test]
fn hostile_puts_are_not_kept_and_cost_little() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let honest = test.node("honest", &[&node.address()]);
    let js = Js::start(&test);
    let watch = Watch::begin(&test, &node, &honest);
    let author = Author::new(&test, 7);
    let [good, other] = [1, 2].map(|nonce| author.row(nonce, "Good"));
    let mut forged = other.envelope.clone();
    *forged.last_mut().expect("a signature") ^= 1;
    let strange = Author::of_network("another", 7).row(1, "of another network");
    let raw = |key: &str, value: &[u8]| json!({"key": key, "value": hex(value)});

    let friend = js.lone_peer("friend");
    friend.join(&node);
    let key = listing_key(&good.id);
    friend.ask("put_raw", json!({"puts": [raw(&key, &good.envelope)]}));
    assert_eq!(held(&friend, &key), hex(&good.envelope));

    for (name, key, value, expected) in [
        ("forged", listing_key(&other.id), &forged, "invalid"),
        ("under another's key", key.clone(), &other.envelope, "invalid"),
        ("of another network", listing_key(&strange.id), &strange.envelope, "invalid"),
        ("9 kB of nothing", listing_key(&other.id), &vec![0x0a; 9 * 1024], "invalid"),
        ("no bytes", listing_key(&other.id), &vec![], "invalid"),
        ("under no key of ours", "/pk/anything".into(), &other.envelope, "ignored"),
        ("in capitals", key.to_uppercase(), &good.envelope, "ignored"),
    ] {
        let before = fate(&node, expected);
        let peer = js.lone_peer(name);
        peer.join(&node);
        peer.ask("put_raw", json!({"puts": [raw(&key, value)]}));
        eventually(FOUND, &format!("{name} is {expected}"), || {
            let after = fate(&node, expected);
            if after == before + 1 { Ok(()) } else { Err(after.to_string()) }
        });
        peer.ask("stop", json!({}));
    }
    assert_eq!(held(&friend, &key), hex(&good.envelope), "it stands");
    assert_eq!(held(&friend, &listing_key(&other.id)), Value::Null);

    let peer = js.lone_peer("a long one");
    peer.join(&node);
    let long = json!([raw(&listing_key(&other.id), &vec![0x0a; 20 * 1024])]);
    assert_eq!(peer.ask("put_raw", json!({"puts": long}))["answered"], 0, "it is not even read");
    let peer = js.lone_peer("who does not learn");
    peer.join(&node);
    let again = vec![raw(&listing_key(&other.id), &forged); 4];
    peer.ask("put_raw", json!({"puts": again}));
    peer.is_left(FOUND);

    // Sound ones, and far too many.
    let flood: Vec<_> = (100..2_100)
        .map(|number| Author::new(&test, number).row(1, "One of thousands"))
        .map(|row| raw(&listing_key(&row.id), &row.envelope))
        .collect();
    let kept = fate(&node, "new");
    let begun = std::time::Instant::now();
    let peer = js.lone_peer("flood");
    peer.join(&node);
    let done = peer.ask("put_raw", json!({"puts": flood}));
    let answered = done["answered"].as_u64().expect("a number");
    let most = 20 + begun.elapsed().as_secs() + 1;
    let kept = fate(&node, "new") - kept;
    let over = fate(&node, "budget");
    println!("{done}: {kept} kept and {over} over the budget within {:?}", begun.elapsed());
    assert!((20..=most).contains(&kept), "{kept} of at most {most}");
    assert!(over > 100 && over + kept >= answered, "all others were over its budget");
    assert_eq!(held(&friend, &key), hex(&good.envelope), "it still answers");
    watch.is_well("hostile puts");
}
