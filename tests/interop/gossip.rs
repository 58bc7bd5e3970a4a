//! Gossip between js-libp2p and our nodes: the same records, the same message
//! ids, and frames that both can read.

use homehost_protocol::envelope::Envelope;
use homehost_protocol::gossip::{decode_batch, encode_batches};
use homehost_protocol::record::listing::ListingState;
use homehost_tests::{Game, Node, Test, eventually};
use serde_json::{Value, json};

use crate::author::{Author, now};
use crate::js::{Js, Peer};
use crate::{FOUND, hex, unhex};

/// The envelope of the first row with a name that a peer hears.
#[track_caller]
fn hears_row(peer: &Peer<'_>, js: &Js<'_>, topic: &str, name: &str) -> (Vec<u8>, Value) {
    // An envelope that is heard but not wanted is shown when the time is over.
    let batch = |event: &Value| {
        let of = event["topic"].as_str().is_some_and(|on| on.contains(topic));
        let data = unhex(event["data"].as_str()?);
        of.then(|| decode_batch(&data).expect("nodes send batches"))
    };
    let part = name.as_bytes();
    let envelope = peer.hears(&format!("{name} arrives"), "message", |event| {
        batch(event)?.into_iter().find(|bytes| bytes.windows(part.len()).any(|w| w == part))
    });
    let opened = js.ask("open", json!({"envelope": hex(&envelope)}));
    (envelope, opened)
}

#[test]
fn what_a_host_says_is_heard_and_opened() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let js = Js::start(&test);
    let peer = js.peer("peer");
    peer.join_gossip(&node);
    node.host(&Game::stand_in(&test, "Sunday Castle", 2));

    let (envelope, opened) = hears_row(&peer, &js, "/list/0/0", "Sunday Castle");
    let ours = Envelope::parse(&envelope).expect("an envelope");
    assert_eq!(opened["type"], "/homehost/rec/server-listing/1");
    assert_eq!(opened["payload"], hex(ours.payload));
    assert_eq!(opened["key"], hex(&ours.key.0));
    assert_eq!(opened["network"], test.network());
    assert_eq!(opened["name"], "Sunday Castle");

    let (_, opened) = hears_row(&peer, &js, "/pres/0/0", "presence/1");
    assert_eq!(opened["type"], "/homehost/rec/presence/1");
}

#[test]
fn what_it_passes_on_is_listed_everywhere() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let far = test.node("far", &[&node.address()]);
    far.connected_to(&node);
    let js = Js::start(&test);
    let peer = js.peer("peer");
    peer.join_gossip(&node);
    let other = js.peer("other");
    other.join_gossip(&far);

    let author = Author::new(&test, 7);
    let listing = author.server(1, "Far Island");
    let row = author.row_at(&listing, now(), now().0);
    peer.publish("list", &[row.envelope]);
    for node in [&node, &far] {
        let row = node.sees(&row.id, "live", FOUND);
        assert_eq!(row["name"], "Far Island");
        assert_eq!(row["host"], author.root().to_string());
        assert_eq!(row["addresses"], json!([listing.addresses[0].to_string()]));
    }
    // As a person sees it.
    let shown = node.ok(&["discover", "--game", "foreign"]);
    assert_eq!(shown[0]["name"], "Far Island");
    // From one js-libp2p to the other, with our nodes between them.
    hears_row(&other, &js, "/list/0/0", "Far Island");

    peer.publish("pres", &[author.presence(&listing, 5)]);
    players(&far, &row.id, 5);
    let mut gone = listing;
    gone.state = ListingState::Withdrawn;
    let gone = author.row_at(&gone, now(), now().0 + 1);
    peer.publish("list", &[gone.envelope]);
    far.sees(&row.id, "withdrawn", FOUND);
}

#[track_caller]
fn players(node: &Node<'_>, id: &Value, players: u64) {
    eventually(FOUND, &format!("{players} players"), || {
        let row = node.sees(id, "live", FOUND);
        if row["players"] == players { Ok(()) } else { Err(row.to_string()) }
    });
}

#[test]
fn frames_as_long_as_they_may_be_are_all_heard() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let js = Js::start(&test);
    let peer = js.raw_peer("peer");
    peer.join(&node);
    let rows: Vec<_> = (1..=40).map(|number| Author::new(&test, number).row(1, "Long")).collect();
    let messages = rows.iter().flat_map(|row| encode_batches([row.envelope.clone()]));
    let messages: Vec<_> = messages.map(|message| hex(&message)).collect();
    let sent = peer.ask("full_frames", json!({"topic": "list", "messages": messages}));
    assert_eq!(sent["sent"], 40, "{sent}");
    for row in &rows {
        node.sees(&row.id, "live", FOUND);
    }
}

#[test]
fn a_node_with_much_to_announce_keeps_its_frames_short() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let js = Js::start(&test);
    let reader = js.raw_peer("reader");
    reader.join(&node);
    reader.ask("subscribe_lazily", json!({"topic": "list"}));
    reader.hears("it is asked into the mesh", "declined", |_| Some(()));
    let peer = js.lone_peer("peer");
    peer.join_gossip(&node);
    let rows = (1..=1_500).map(|number| Author::new(&test, number).row(1, "One of many").envelope);
    let messages: Vec<_> = rows.flat_map(|row| encode_batches([row])).collect();
    peer.publish_messages("list", &messages);
    let longest = eventually(FOUND, "many are announced at once", || {
        let longest = reader.ask("longest", json!({}));
        let many = longest["ids"].as_u64() >= Some(300);
        if many { Ok(longest) } else { Err(longest.to_string()) }
    });
    // What is longer is not read by anyone, and nor is anything after it.
    assert!(longest["frame"].as_u64() <= Some(16 * 1024), "{longest}");
}

#[test]
fn both_count_the_same_message_ids() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let js = Js::start(&test);
    let peer = js.peer("peer");
    peer.join_gossip(&node);
    let collector = js.raw_peer("collector");
    collector.join(&node);
    let author = Author::new(&test, 7);
    let row = author.row(1, "Wanted");
    let messages = peer.publish("list", &[row.envelope]);
    node.sees(&row.id, "live", FOUND);
    // It never subscribed, so it gets only what it asks for by its id.
    collector.ask("want", json!({"topic": "list", "data": hex(&messages[0])}));
    collector.hears("the message with this id", "message", |event| {
        (event["data"] == hex(&messages[0])).then_some(())
    });
}
