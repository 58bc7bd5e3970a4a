//! Streams, frames and sockets that no decent peer would open: after each, the
//! node is well and the others do not notice.

use std::time::Duration;

use homehost_protocol::gossip::encode_batches;
use homehost_tests::{Test, eventually};
use serde_json::{Value, json};

use crate::author::Author;
use crate::js::{Js, Peer};
use crate::watch::Watch;
use crate::{FOUND, counter, hex, tcp_address};

/// The protocols that a node offers, as it says itself.
#[track_caller]
fn offered(peer: &Peer<'_>) -> Vec<String> {
    let said = peer.ask("identify", json!({}));
    let names = said["protocols"].as_array().expect("protocols");
    assert!(names.len() > 5, "{said}");
    names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

fn number(of: &Value, key: &str) -> u64 {
    of[key].as_u64().unwrap_or_else(|| panic!("{key} of {of}"))
}

#[test]
fn garbage_on_every_protocol_harms_nobody() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let honest = test.node("honest", &[&node.address()]);
    let js = Js::start(&test);
    let watch = Watch::begin(&test, &node, &honest);
    let scout = js.peer("scout");
    scout.join(&node);
    for (at, protocol) in offered(&scout).iter().enumerate() {
        let peer = js.raw_peer(&format!("garbage {at}"));
        for (bytes, framed, ended) in
            [(5, false, true), (4_000, false, true), (4_000, true, true), (200_000, false, false)]
        {
            peer.try_dial(&node);
            let how = json!({
                "protocol": protocol, "count": 20, "bytes": bytes, "framed": framed, "ended": ended
            });
            let done = peer.ask("garbage", how);
            assert_eq!(number(&done, "opened") + number(&done, "refused"), 20, "{protocol} {done}");
        }
        peer.ask("stop", json!({}));
        js.ask("release", json!({}));
        watch.is_well(&format!("garbage on {protocol}"));
    }
}

#[test]
fn streams_and_sockets_on_which_nothing_is_said_harm_nobody() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let honest = test.node("honest", &[&node.address()]);
    let js = Js::start(&test);
    let watch = Watch::begin(&test, &node, &honest);
    let scout = js.peer("scout");
    scout.join(&node);
    for (at, protocol) in offered(&scout).iter().enumerate() {
        let peer = js.raw_peer(&format!("silent {at}"));
        peer.join(&node);
        let done = peer.ask("half_open", json!({"protocol": protocol, "count": 600}));
        println!("{protocol}: {done}");
        watch.is_well(&format!("silent streams of {protocol}"));
        peer.ask("stop", json!({}));
        js.ask("release", json!({}));
    }
    // A frame of the directory that is announced and does not come.
    let peer = js.raw_peer("announcer");
    peer.join(&node);
    let directory = format!("/homehost/{}/directory/1", test.network());
    let begun = hex(&(16_u32 * 1024).to_be_bytes());
    let args = json!({"protocol": directory, "count": 600, "data": begun});
    println!("announced: {}", peer.ask("half_open", args));
    watch.is_well("frames that do not come");
    js.ask("release", json!({}));

    for bytes in [0, 5_000] {
        let address = tcp_address(&node);
        let args = json!({"address": address, "count": 200, "bytes": bytes});
        assert_eq!(js.ask("sockets", args), 200);
        watch.is_well(&format!("200 sockets with {bytes} bytes"));
        // Strangers are let in again while they are held: handshakes end.
        let late = js.peer(&format!("late {bytes}"));
        eventually(Duration::from_secs(30), "a newcomer gets in", || {
            late.try_dial(&node);
            let peers = node.get("/api/v1/peers").json();
            let found = peers.as_array().into_iter().flatten().any(|peer| peer["node"] == late.id);
            found.then_some(()).ok_or_else(|| peers.to_string())
        });
        js.ask("release", json!({}));
    }
}

#[test]
fn floods_of_gossip_frames_harm_nobody() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let honest = test.node("honest", &[&node.address()]);
    let js = Js::start(&test);
    let watch = Watch::begin(&test, &node, &honest);
    let author = Author::new(&test, 7);
    for (name, what, args) in [
        ("a long frame", "long_frame", json!({"bytes": 40 * 1024})),
        ("a very long frame", "long_frame", json!({"bytes": 32 * 1024 * 1024})),
        ("10,000 subscriptions", "subscriptions", json!({"count": 10_000})),
        ("2,000 changes of mind", "flapping", json!({"topic": "list", "count": 2_000})),
        ("500 frames of control messages", "control", json!({"topic": "list", "count": 500})),
    ] {
        let peer = js.raw_peer(name);
        peer.join(&node);
        let done = peer.ask(what, args.clone());
        // What the node takes was sent to the end.
        let whole = args.get("count").is_none() || number(&done, "sent") == number(&done, "of");
        assert!(whole, "{name}: {done}");
        watch.is_well(name);
        peer.ask("stop", json!({}));
        js.ask("release", json!({}));
    }

    // Signed messages are not for this network, whatever they carry, and who
    // sends them is not heard any more.
    let peer = js.raw_peer("signer");
    peer.join(&node);
    let [signed, after] = [1, 2].map(|nonce| author.row(nonce, "never to be seen"));
    let [message, next] = [signed, after].map(|row| encode_batches([row.envelope]).remove(0));
    peer.ask("signed_message", json!({"topic": "list", "data": hex(&message)}));
    peer.ask("full_frames", json!({"topic": "list", "messages": [hex(&next)]}));
    watch.is_well("a signed message");
    assert!(node.rows("?all=true&text=never").is_empty());
}

#[test]
fn answers_that_are_not_read_harm_nobody() {
    // Half of those that a host lets in.
    const SLOW: u64 = 30;
    let test = Test::new();
    let node = test.node("node", &[]);
    let honest = test.node("honest", &[&node.address()]);
    let js = Js::start(&test);
    let watch = Watch::begin(&test, &node, &honest);
    // Rows enough that every answer is as long as one may be.
    let source = js.peer("source");
    source.join_gossip(&node);
    for number in [7, 8, 9, 10, 11] {
        let rows = Author::new(&test, number).long_rows(60);
        let last = rows.last().expect("64").id.clone();
        source.publish("list", &rows.into_iter().map(|row| row.envelope).collect::<Vec<_>>());
        node.sees(&last, "live", FOUND);
    }
    let page = source.ask("ask", json!({"operation": "query"}));
    assert!(number(&page, "bytes") > 100 * 1024, "{}", page["bytes"]);

    let way = js.ask("slow_way", json!({"address": tcp_address(&node)}));
    let names: Vec<_> = (0..SLOW).map(|at| format!("slow {at}")).collect();
    for name in &names {
        let peer = js.raw_peer(name);
        peer.ask("dial", json!({"address": way}));
        peer.known_to(&node);
    }
    js.ask("stall", json!({}));
    let refused = |reason| {
        let label = format!("{{rpc=\"directory\",reason=\"{reason}\"}}");
        counter(&node, &format!("homehost_mesh_rpc_refused_total{label}"))
    };
    let args = json!({"operation": "query", "peers": names, "seconds": 20});
    let sent = js.ask("ask_unread", args);
    let (unread, budget) = (refused("unread"), refused("budget"));
    println!("{sent}: {budget} over the budget, {unread} because of what was not read");
    // Who reads is answered all the while.
    assert_eq!(source.ask("ask", json!({"operation": "query"}))["trouble"], Value::Null);
    watch.is_well("answers that are not read");
    assert!(number(&sent, "sent") > SLOW * 50, "{sent}");
    assert!(unread > SLOW, "{unread}");
    js.ask("flow", json!({}));
    js.ask("release", json!({}));
    watch.is_well("answers that are read late");
}
