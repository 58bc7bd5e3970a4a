//! A js-libp2p peer that does as it should is a peer like any other.

use std::time::Duration;

use homehost_tests::{Test, eventually};
use serde_json::json;

use crate::author::{Author, now};
use crate::js::Js;
use crate::{FOUND, hex};

#[test]
fn it_meets_a_host() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let js = Js::start(&test);
    let peer = js.peer_with("peer", json!({"agent": "js-libp2p/3 (host)"}));
    let met = peer.dial(&node);
    assert_eq!(met["node"], json!(node.id()));
    assert_eq!(met["encryption"], "/noise");
    assert_eq!(met["muxer"], "/yamux/1.0.0");

    let network = test.network();
    let said = peer.ask("identify", json!({}));
    assert_eq!(said["version"], format!("/homehost/1/{network}"));
    let agent = said["agent"].as_str().expect("an agent");
    assert!(agent.starts_with("homehost/") && agent.ends_with(" (host)"), "{agent}");
    for protocol in [
        "/ipfs/id/1.0.0",
        "/ipfs/id/push/1.0.0",
        "/ipfs/ping/1.0.0",
        "/meshsub/1.2.0",
        &format!("/homehost/{network}/kad/1.0.0"),
        &format!("/homehost/{network}/directory/1"),
    ] {
        let offered = said["protocols"].as_array().expect("protocols");
        assert!(offered.contains(&json!(protocol)), "{protocol} is not in {offered:?}");
    }
    assert_ne!(said["addresses"], json!([]));
    let observed = said["observed"].as_str().expect("where it sees us");
    assert!(observed.starts_with("/ip4/127.0.0.1/tcp/"), "{observed}");
    let ms = peer.ask("ping", json!({})).as_f64().expect("milliseconds");
    assert!(ms < 1000.0, "{ms}");

    let shown = peer.known_to(&node);
    assert_eq!(shown["role"], "host");
    assert_eq!(shown["direction"], "incoming");
    assert!(shown["agent"].as_str().is_some_and(|agent| agent.contains("js-libp2p/3")), "{shown}");
}

#[test]
fn it_meets_a_bootstrap_node_which_names_the_hosts() {
    let test = Test::new();
    let boot = test.bootstrap();
    let [a, b] = ["a", "b"].map(|name| test.node(name, &[boot.address()]));
    a.connected_to(&b);
    let js = Js::start(&test);
    let peer = js.peer("peer");
    peer.ask("dial", json!({"address": boot.address()}));
    let said = peer.ask("identify", json!({}));
    assert!(said["agent"].as_str().is_some_and(|agent| agent.ends_with(" (bootstrap)")), "{said}");
    let offered = said["protocols"].as_array().expect("protocols");
    let of =
        |part: &str| offered.iter().any(|name| name.as_str().is_some_and(|n| n.contains(part)));
    assert!(!of("meshsub") && !of("directory"), "it holds nothing: {offered:?}");

    eventually(FOUND, "both hosts are found in the DHT", || {
        let found = peer.ask("closest", json!({"key": "00".repeat(32)}));
        let peers = found["peers"].as_array().expect("peers");
        let all = [&a, &b].iter().all(|node| peers.contains(&json!(node.id())));
        all.then_some(()).ok_or_else(|| found.to_string())
    });
}

#[test]
fn it_is_left_at_once_when_it_is_of_another_network() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let js = Js::start(&test);
    let ours = js.peer("ours");
    ours.join(&node);
    for (name, version) in [
        ("theirs", "/homehost/1/another"),
        ("newer", &format!("/homehost/2/{}", test.network())),
        // What js-libp2p says unless it is told otherwise.
        ("nobody's", "ipfs/0.1.0"),
    ] {
        let stranger = js.peer_with(name, json!({"version": version}));
        stranger.dial(&node);
        stranger.is_left(Duration::from_secs(5));
        // It is not let in again; its dial fails or is undone.
        for _ in 0..3 {
            stranger.try_dial(&node);
            stranger.is_left(Duration::from_secs(5));
        }
    }
    let peers = node.get("/api/v1/peers").json();
    assert_eq!(peers.as_array().map(Vec::len), Some(1), "{peers}");
    assert!(ours.is_connected());
}

#[test]
fn dht_names_are_computed_from_what_is_under_them() {
    let test = Test::new();
    let js = Js::start(&test);
    let author = Author::new(&test, 7);
    let listing = author.server(1, "Named");
    let [old, new] = [1, 2].map(|seq| author.row_at(&listing, now(), seq));
    let key = format!("/hhl/{}", old.id.as_str().expect("an id"));
    let value = hex(&old.envelope);
    js.ask("validate", json!({"key": key, "value": value}));
    for wrong in [format!("/hhl/{}", author.root()), key.replace("hhl", "hhh"), key.to_uppercase()]
    {
        let refused = js.refusal("validate", json!({"key": wrong, "value": value}));
        assert!(refused.contains("belong") || refused.contains("namespace"), "{refused}");
    }
    let values = json!([value, hex(&new.envelope), value]);
    assert_eq!(js.ask("select", json!({"key": key, "values": values})), 1);
}
