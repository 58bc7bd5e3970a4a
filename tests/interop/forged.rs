//! Records that are not as they should be: what no honest peer passes on is
//! rejected and its sender heard no longer; what may be nobody's fault is
//! ignored and its sender is a peer as before (spec/mesh §3, spec/records §10).

use std::time::Duration;

use homehost_protocol::gossip::encode_batches;
use homehost_protocol::{ServerListing, UnixMillis};
use homehost_tests::{Node, Test, eventually};
use serde_json::json;

use crate::author::{Author, now};
use crate::js::{Js, Peer};
use crate::watch::Watch;
use crate::{FOUND, counter, hex, unhex};

/// A row's fields, in the order in which an envelope has them.
fn fields(envelope: &[u8]) -> [&[u8]; 4] {
    let mut rest = envelope;
    [1, 2, 3, 5].map(|number| {
        assert_eq!(rest[0], number << 3 | 2);
        // Lengths of two bytes begin with one that says so.
        let (length, head) = match rest[1] {
            short @ 0..=127 => (usize::from(short), 2),
            low => (usize::from(low & 0x7f) | usize::from(rest[2]) << 7, 3),
        };
        let (field, after) = rest.split_at(head + length);
        rest = after;
        field
    })
}

/// The same statement in encodings that protobuf readers take.
fn other_encodings(envelope: &[u8]) -> [(&'static str, Vec<u8>); 5] {
    let [key, kind, payload, signature] = fields(envelope);
    let wide = [&[key[0], key[1] | 0x80, 0], &key[2..]].concat();
    [
        ("a wide length", [&wide, kind, payload, signature].concat()),
        ("another order of fields", [kind, key, payload, signature].concat()),
        ("a field twice", [key, key, kind, payload, signature].concat()),
        ("an unknown field", [envelope, &[0x32, 0]].concat()),
        ("a byte too many", [envelope, &[0]].concat()),
    ]
}

/// What to publish, and why.
struct Case {
    name: String,
    message: Vec<u8>,
}

impl Case {
    fn bytes(name: &str, message: Vec<u8>) -> Self {
        Self { name: name.to_owned(), message }
    }

    fn envelope(name: &str, envelope: Vec<u8>) -> Self {
        let message = encode_batches([envelope]).pop().expect("one message");
        Self::bytes(name, message)
    }
}

/// A row of `author`, signed anew by JavaScript.
#[track_caller]
fn forged(js: &Js<'_>, author: &Author, nonce: u8, how: &str, accepted_by: &[&str]) -> Vec<u8> {
    let row = author.row(nonce, how);
    let args = json!({"how": how, "seed": hex(&author.seed), "envelope": hex(&row.envelope)});
    let made = js.ask("forge", args);
    for rule in ["libp2p", "openssl", "noble"] {
        assert_eq!(made[rule], accepted_by.contains(&rule), "{rule} on {how}: {made}");
    }
    unhex(made["envelope"].as_str().expect("an envelope"))
}

const EVERYBODY: &[&str] = &["libp2p", "openssl", "noble"];

fn verdicts(node: &Node<'_>, verdict: &str) -> u64 {
    counter(node, &format!("homehost_mesh_gossip_total{{verdict=\"{verdict}\"}}"))
}

/// Publishes something and waits for the verdict.
#[track_caller]
fn judged(node: &Node<'_>, peer: &Peer<'_>, case: &Case, verdict: &str) {
    let before = verdicts(node, verdict);
    let rejected = verdicts(node, "reject");
    peer.publish_messages("list", std::slice::from_ref(&case.message));
    eventually(FOUND, &format!("a verdict on {}", case.name), || {
        // What others say meanwhile is sound: it is accepted or ignored.
        if verdicts(node, verdict) > before { Ok(()) } else { Err("none yet".into()) }
    });
    let rejects = verdicts(node, "reject") - rejected;
    assert_eq!(rejects, u64::from(verdict == "reject"), "rejects of {}", case.name);
}

#[test]
fn who_passes_on_what_is_forged_is_heard_no_longer() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let honest = test.node("honest", &[&node.address()]);
    let js = Js::start(&test);
    let watch = Watch::begin(&test, &node, &honest);
    let author = Author::new(&test, 7);
    let row = |nonce| author.row(nonce, "never to be seen").envelope;
    let strange = Author::of_network("another", 7).row(1, "of another network");

    let mut cases = vec![
        Case::envelope("a wrong signature", forged(&js, &author, 1, "wrong", &[])),
        Case::envelope("a malleable signature", forged(&js, &author, 2, "malleable", &[])),
        Case::envelope("a record of another network", strange.envelope),
        Case::bytes("no CBOR", vec![0xff; 100]),
        Case::bytes("CBOR of indefinite length", [&[0x9f], &batch(&row(3))[1..], &[0xff]].concat()),
        Case::bytes("an empty batch", vec![0x80]),
        Case::bytes("rows of two roots", two_roots(&test)),
        Case::bytes("a message that is too long", too_long(&author)),
    ];
    cases.extend(other_encodings(&row(4)).map(|(name, bytes)| Case::envelope(name, bytes)));
    for (number, case) in cases.iter().enumerate() {
        let peer = js.lone_peer(&format!("forger {number}"));
        peer.join_gossip(&node);
        judged(&node, &peer, case, "reject");

        // What it says now is sound, and nobody listens: a later row of
        // another peer is here while this one is not.
        let unheard = author.row(100, &format!("unheard {number}"));
        peer.publish("list", std::slice::from_ref(&unheard.envelope));
        peer.ask("ping", json!({}));
        let witness = js.lone_peer(&format!("witness {number}"));
        witness.join_gossip(&node);
        let heard = Author::new(&test, 200).row(u8::try_from(number).expect("few"), "heard");
        witness.publish("list", &[heard.envelope]);
        node.sees(&heard.id, "live", FOUND);
        let rows = node.rows("?all=true&limit=1000");
        assert!(!rows.iter().any(|row| row["id"] == unheard.id), "after {}", case.name);
        witness.ask("stop", json!({}));
        peer.ask("stop", json!({}));
    }
    assert!(node.rows("?all=true&text=never").is_empty());
    watch.is_well("forged records");
}

fn batch(envelope: &[u8]) -> Vec<u8> {
    encode_batches([envelope.to_vec()]).pop().expect("one message")
}

fn two_roots(test: &Test) -> Vec<u8> {
    let rows = [7, 8].map(|number| Author::new(test, number).row(5, "sound by itself").envelope);
    encode_batches(rows).pop().expect("one message")
}

/// More than a message may have, in a frame that may come.
fn too_long(author: &Author) -> Vec<u8> {
    let rows = (0..16).map(|nonce| {
        let description = "x".repeat(120);
        let server = author.server(nonce, "never to be seen at any time by any player");
        let server = ServerListing {
            description: Some(description),
            tags: (0..8).map(|n| format!("tag-number-{n}-of8")).collect(),
            ..server
        };
        author.row_at(&server, now(), now().0).envelope
    });
    let rows: Vec<_> = rows.collect();
    let mut message = vec![0x80 | 16];
    for row in rows {
        message.push(0x59);
        message.extend(u16::try_from(row.len()).expect("short").to_be_bytes());
        message.extend(row);
    }
    assert!((8_257..16_000).contains(&message.len()), "{}", message.len());
    message
}

#[test]
fn what_may_be_nobodys_fault_is_ignored() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let honest = test.node("honest", &[&node.address()]);
    let js = Js::start(&test);
    let watch = Watch::begin(&test, &node, &honest);
    let author = Author::new(&test, 7);
    let peer = js.lone_peer("peer");
    peer.join_gossip(&node);
    let listing = author.server(1, "Standing");
    let standing = author.row_at(&listing, now(), now().0);
    peer.publish("list", std::slice::from_ref(&standing.envelope));
    node.sees(&standing.id, "live", FOUND);

    let at = |nonce, issued: UnixMillis| {
        author.row_at(&author.server(nonce, "never to be seen"), issued, issued.0).envelope
    };
    let old = author.row_at(&author.server(1, "never to be seen"), now(), 5);
    let cases = [
        // Plain verifiers take these, so a relay may have passed them on.
        Case::envelope("small nonce", forged(&js, &author, 2, "small-order nonce", EVERYBODY)),
        Case::envelope("small key", forged(&js, &author, 3, "small-order key", EVERYBODY)),
        // The rule of RFC 8032, with the cofactor: js-libp2p has it where there
        // is no OpenSSL.
        Case::envelope("cofactored", forged(&js, &author, 8, "cofactored", &["noble"])),
        Case::envelope("an old version", old.envelope.clone()),
        Case::envelope("expired", at(4, Author::ago(Duration::from_secs(25 * 3600)))),
        Case::envelope("from the future", at(5, now().plus(Duration::from_secs(1200)))),
        // The same row in another message.
        Case::bytes("known", batch_of_two(&standing.envelope, &old.envelope)),
    ];
    for (number, case) in cases.iter().enumerate() {
        judged(&node, &peer, case, "ignore");
        // It is heard as before.
        let next = author.row(50 + u8::try_from(number).expect("few"), "Next");
        peer.publish("list", &[next.envelope]);
        node.sees(&next.id, "live", FOUND);
    }
    assert!(node.rows("?all=true&text=never").is_empty());
    // The forger's arithmetic is sound: with nothing forged it signs a record.
    let control = forged(&js, &author, 6, "sound", EVERYBODY);
    judged(&node, &peer, &Case::envelope("nothing forged", control), "accept");
    watch.is_well("records that do not count");
}

fn batch_of_two(a: &[u8], b: &[u8]) -> Vec<u8> {
    encode_batches([a.to_vec(), b.to_vec()]).pop().expect("one message")
}
