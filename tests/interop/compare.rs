//! Comparing replicas with who has none: questions that no honest side writes,
//! and answers that claim what nobody has (spec/mesh §4).

use homehost_tests::{Node, Test, eventually};
use serde_json::{Value, json};

use crate::author::Author;
use crate::js::{Js, Peer};
use crate::watch::Watch;
use crate::{FOUND, counter, hex};

/// "In all of time I have nothing", in negentropy's words.
const NOTHING: &str = "6100000200";

fn misdeeds(node: &Node<'_>, kind: &str) -> u64 {
    counter(node, &format!("homehost_mesh_misdeeds_total{{kind=\"{kind}\"}}"))
}

fn question(message: &str) -> Value {
    json!({"operation": "reconcile", "set": 1, "message": message})
}

/// Waits until so many more misdeeds were seen.
#[track_caller]
fn blamed(node: &Node<'_>, kind: &str, count: u64) {
    eventually(FOUND, &format!("{count} times {kind}"), || {
        let seen = misdeeds(node, kind);
        if seen >= count { Ok(()) } else { Err(seen.to_string()) }
    });
}

#[test]
fn questions_that_no_honest_side_writes_are_refused_and_held_against_it() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let honest = test.node("honest", &[&node.address()]);
    let js = Js::start(&test);
    let watch = Watch::begin(&test, &node, &honest);
    let friend = js.lone_peer("friend");
    friend.join(&node);
    let author = Author::new(&test, 7);
    let row = author.row(1, "Compared");
    friend.ask("ask", json!({"operation": "offer", "envelopes": [hex(&row.envelope)]}));
    node.sees(&row.id, "live", FOUND);
    // What it says is the list of what it has.
    let answer = friend.ask("ask", question(NOTHING));
    let id = hex(&homehost_protocol::RecId::of(&row.envelope).0);
    assert!(answer["message"].as_str().is_some_and(|message| message.contains(&id)), "{answer}");

    let many = |range: &[u8], count: usize| hex(&[&[0x61], &range.repeat(count)[..]].concat());
    let cases = [
        ("no bytes", String::new()),
        ("another version", "6200000200".into()),
        ("cut short", "61000002".into()),
        ("an unknown mode", "61000009".into()),
        ("ids that are not there", "61000002ff7f".into()),
        ("a number with no end", hex(&[&[0x61], &[0xff; 40][..]].concat())),
        ("a number that begins with zero", "6180000002".into()),
        ("backwards", "610502ffff000102000000".into()),
        ("6,501 ranges", many(&[1, 0, 0], 6_501)),
        ("20,000 ranges", many(&[1, 0, 0], 20_000)),
    ];
    for (at, (name, message)) in (1..).zip(&cases) {
        let peer = js.lone_peer(name);
        peer.join(&node);
        assert_eq!(refused(&peer, message), "refused", "{name}");
        blamed(&node, "nonsense", at);
        peer.ask("stop", json!({}));
    }
    // Longer than a message may be, or without what it needs: not a request.
    let peer = js.lone_peer("no request");
    peer.join(&node);
    let before = misdeeds(&node, "nonsense");
    peer.refusal("ask", question(&"61".repeat(60 * 1024 + 1)));
    peer.refusal("ask", json!({"operation": "reconcile", "set": 3, "message": NOTHING}));
    peer.refusal("ask", json!({"operation": "reconcile", "set": 1}));
    peer.refusal("ask", json!({"operation": "reconcile", "message": NOTHING}));
    assert_eq!(misdeeds(&node, "nonsense"), before);
    assert!(peer.is_connected());

    let peer = js.lone_peer("who does not learn");
    peer.join(&node);
    for _ in 0..4 {
        refused(&peer, "62");
    }
    peer.is_left(FOUND);
    assert_ne!(friend.ask("ask", question(NOTHING))["message"], Value::Null);
    watch.is_well("hostile questions");
}

#[track_caller]
fn refused(peer: &Peer<'_>, message: &str) -> String {
    let error = peer.refusal("ask", question(message));
    if error.contains("refused") { "refused".into() } else { error }
}

#[test]
fn who_claims_records_and_gives_none_is_blamed_and_costs_no_row() {
    /// As many as one message has room for.
    const CLAIMED: u64 = 1_900;
    let test = Test::new();
    let node = test.node("node", &[]);
    let honest = test.node("honest", &[&node.address()]);
    let js = Js::start(&test);
    let watch = Watch::begin(&test, &node, &honest);
    let liar = js.peer_with("liar", json!({"gossip": false}));
    liar.ask("claim_records", json!({"count": CLAIMED}));
    liar.join(&node);

    let stats = eventually(3 * FOUND, "it is seen that it withholds", || {
        let stats = node.ok(&["mesh", "stats"]);
        let withheld = stats["repairs"]["withheld"].as_u64();
        if withheld >= Some(CLAIMED) { Ok(stats) } else { Err(stats["repairs"].to_string()) }
    });
    println!("{}", stats["repairs"]);
    blamed(&node, "withheld", 1);
    let asked = liar.ask("was_asked", json!({}));
    println!("the liar was asked: {asked}");
    // Rows and presences are compared, and nothing is asked for twice.
    let claims = asked["claims"].as_u64().expect("a number");
    assert!(asked["withheld"].as_u64() <= Some(claims * CLAIMED), "{asked}");
    watch.is_well("claims");
}
