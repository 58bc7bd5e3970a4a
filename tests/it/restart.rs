//! Nodes that were away find their network again by themselves.

use std::fs;
use std::time::Duration;

use homehost_tests::{Game, Node, Test, eventually};

const FOUND: Duration = Duration::from_secs(30);

fn remembers(node: &Node<'_>, peers: u64) {
    eventually(FOUND, "it remembers its peers", || {
        let status = node.get("/api/v1/status").json();
        let enough = status["peers_remembered"].as_u64().is_some_and(|n| n >= peers);
        if enough { Ok(()) } else { Err(status.to_string()) }
    });
}

#[test]
fn a_cold_start_works_when_every_bootstrap_node_is_gone() {
    let test = Test::new();
    let boot = test.bootstrap();
    let host = test.node("host", &[boot.address()]);
    let mut away = test.node("away", &[boot.address()]);
    let before = host.host(&Game::stand_in(&test, "Before", 0));
    away.sees(&before["id"], "live", FOUND);
    remembers(&away, 2);
    away.down();
    boot.kill();
    let after = host.host(&Game::stand_in(&test, "After", 0));
    away.start();
    for server in [&before, &after] {
        eventually(FOUND, "others confirm what it knew", || {
            let row = away.sees(&server["id"], "live", FOUND);
            if row["confirmed"] == true { Ok(()) } else { Err(row.to_string()) }
        });
    }
    // And it is heard.
    let own = away.host(&Game::stand_in(&test, "Own", 0));
    host.sees(&own["id"], "live", FOUND);
    let text = away.plain(&["status"]);
    assert!(text.stdout.contains("remembered"), "{text:?}");
}

#[test]
fn a_damaged_replica_costs_no_memory_of_peers() {
    let test = Test::new();
    let host = test.node("host", &[]);
    let mut away = test.node("away", &[&host.address()]);
    remembers(&away, 1);
    away.down();
    let replica = away.data_dir().join("store/replica");
    fs::write(replica.join("SCHEMA"), "rubbish").expect("it is ours");
    // Nobody tells it whom to join.
    away.set_bootstrap(&[]);
    away.start();
    away.connected_to(&host);
    let server = host.host(&Game::stand_in(&test, "Healed", 0));
    away.sees(&server["id"], "live", FOUND);
}

#[test]
fn peers_of_another_network_are_not_remembered_in_this_one() {
    let test = Test::new();
    let host = test.node("host", &[]);
    let mut node = test.node("node", &[&host.address()]);
    remembers(&node, 1);
    node.down();
    node.set_bootstrap(&[]);
    node.set_network("elsewhere");
    node.start();
    assert_eq!(node.get("/api/v1/status").json()["peers_remembered"], 0);
    node.down();
    // And not forgotten in their own.
    node.set_network(test.network());
    node.start();
    node.connected_to(&host);
}
