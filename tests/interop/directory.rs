//! The directory RPC, asked from JavaScript.

use std::collections::BTreeSet;

use homehost_tests::Test;
use serde_json::{Value, json};

use crate::author::{Author, now};
use crate::js::Js;
use crate::{FOUND, hex};

/// Rows of one author; more than a page has room for with those of four others.
const ROWS: u8 = 60;

/// Bytes of a server id in hexadecimal, as the wire has it.
fn wire_id(author: &Author, nonce: u8) -> String {
    hex(&author.server(nonce, "any").id(&author.root()).0)
}

fn records(answer: &Value) -> Vec<&str> {
    let records = answer["records"].as_array().expect("records");
    records.iter().map(|record| record["envelope"].as_str().expect("an envelope")).collect()
}

#[test]
fn a_replica_is_read_page_by_page_and_row_by_row() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let js = Js::start(&test);
    let peer = js.peer("peer");
    peer.join_gossip(&node);
    let authors = [7, 8, 9, 10, 11].map(|number| Author::new(&test, number));
    let mut all = BTreeSet::new();
    for author in &authors {
        let rows = author.long_rows(ROWS);
        let last = rows.last().expect("rows").id.clone();
        let envelopes: Vec<_> = rows.into_iter().map(|row| row.envelope).collect();
        peer.publish("list", &envelopes);
        all.extend(envelopes.iter().map(|envelope| hex(envelope)));
        node.sees(&last, "live", FOUND);
    }

    let mut read = BTreeSet::new();
    let mut pages = 0;
    let mut cursor = Value::Null;
    loop {
        let page = peer.ask("ask", json!({"operation": "query", "cursor": cursor}));
        assert_eq!(page["matching"], all.len(), "of the whole replica, whatever the page");
        assert_eq!(page["network"], test.network());
        for record in page["records"].as_array().expect("records") {
            let age = record["age"].as_u64().expect("an age in seconds");
            assert!(age < 300, "{record}");
        }
        assert!(page["bytes"].as_u64().is_some_and(|bytes| bytes <= 4 + 128 * 1024), "a page");
        for envelope in records(&page) {
            assert!(read.insert(envelope.to_owned()), "a row comes once");
        }
        pages += 1;
        cursor = page["cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    assert!(pages > 1, "{} rows are more than a page", read.len());
    assert_eq!(read, all);

    let [author, ..] = &authors;
    let ids: Vec<_> = [3, 5, 200].map(|nonce| wire_id(author, nonce)).into();
    let got = peer.ask("ask", json!({"operation": "get", "ids": ids}));
    let got = records(&got);
    assert_eq!(got.len(), 2, "the third is nobody's");
    for envelope in got {
        let opened = js.ask("open", json!({"envelope": envelope}));
        assert_eq!(opened["root"], hex(&author.root().0));
    }
}

#[test]
fn a_row_that_is_offered_is_taken_and_what_is_no_question_is_refused() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let js = Js::start(&test);
    let peer = js.peer("peer");
    peer.join(&node);
    let author = Author::new(&test, 7);
    let row = author.row_at(&author.server(1, "Offered"), now(), now().0);
    let envelopes = json!([hex(&row.envelope)]);
    let answer = peer.ask("ask", json!({"operation": "offer", "envelopes": envelopes}));
    assert_eq!(records(&answer), [""; 0]);
    assert_eq!(node.sees(&row.id, "live", FOUND)["name"], "Offered");

    let id = wire_id(&author, 1);
    for question in [
        json!({"operation": 77}),
        json!({"operation": "get", "ids": vec![&id; 65]}),
        json!({"operation": "get", "ids": ["00"]}),
        json!({"operation": "offer", "envelopes": vec![""; 17]}),
        json!({"operation": "offer", "envelopes": ["00".repeat(65 * 1024)]}),
    ] {
        peer.refusal("ask", question);
    }
    let after = peer.ask("ask", json!({"operation": "get", "ids": [id]}));
    assert_eq!(records(&after).len(), 1, "other questions are answered after that");
}

#[test]
fn who_asks_too_much_is_refused_for_a_while_and_not_cut_off() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let js = Js::start(&test);
    let peer = js.peer("peer");
    peer.join(&node);
    let refused = "homehost_mesh_rpc_refused_total{rpc=\"directory\",reason=\"budget\"}";
    assert_eq!(crate::counter(&node, refused), 0);
    let asked = peer.ask("ask_many", json!({"operation": "query", "count": 30}));
    let [answered, without] =
        ["answered", "refused"].map(|key| asked[key].as_u64().expect("a number"));
    assert_eq!(answered + without, 30);
    // While they are asked the bucket fills again, by two a second.
    assert!((16..26).contains(&answered), "{asked}");
    assert_eq!(crate::counter(&node, refused), without);
    assert!(peer.is_connected());
    homehost_tests::eventually(FOUND, "it is answered again", || {
        let asked = peer.ask("ask_many", json!({"operation": "query", "count": 1}));
        if asked["answered"] == 1 { Ok(()) } else { Err(asked.to_string()) }
    });
}
