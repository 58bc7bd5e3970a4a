//! A day on which every bootstrap node is gone, in minutes: whole nodes, whose
//! clocks are fast.

use std::time::{Duration, Instant};

use homehost_tests::{FastClock, Game, Node, Place, Test, eventually};
use serde_json::Value;

/// Longest real wait, on a machine that does much else.
const FOUND: Duration = Duration::from_secs(90);

/// Longest real pause of a busy machine.
const PAUSE: Duration = Duration::from_secs(10);

/// How often is looked, in real time.
const LOOK: Duration = Duration::from_secs(1);

/// Whether a node has all others as peers.
#[track_caller]
fn has_all(node: &Node<'_>, others: &[String]) {
    let own = node.id();
    eventually(FOUND, "nobody is lost for long", || {
        let peers = node.get("/api/v1/peers").json();
        let is_there = |id: &String| {
            peers.as_array().into_iter().flatten().any(|peer| peer["node"] == id.as_str())
        };
        let all = others.iter().filter(|id| **id != own).all(is_there);
        if all { Ok(()) } else { Err(peers.to_string()) }
    });
}

/// Each node has one row of each server, and none stays stale: a machine that
/// does much else for a second is silent for a minute on these clocks.
#[track_caller]
fn all_are_live(nodes: &[Node<'_>; 3], ids: &[Value], when: Duration) {
    for (n, node) in nodes.iter().enumerate() {
        eventually(PAUSE, "no row stays stale", || {
            let rows = node.rows("?all=true&limit=1000");
            ids.iter().try_for_each(|id| {
                let mut of_id = rows.iter().filter(|row| row["id"] == *id);
                let row = of_id.next().unwrap_or_else(|| panic!("{n} lost {id} at {when:?}"));
                assert!(of_id.next().is_none(), "{n} lists it twice: {rows:#?}");
                let live = row["status"] == "live";
                live.then_some(()).ok_or_else(|| format!("{n} at {when:?}: {row:#}"))
            })
        });
    }
}

fn without_bootstrap_nodes(day: Duration, speed: u32) {
    let test = Test::new();
    let clock = FastClock::new(speed);
    let boot = test.bootstrap_at("bootstrap", test.network(), &clock.at(Place::default()));
    let mut nodes = ["anna", "ben", "chris"].map(|name| {
        let mut node = test.stopped_node(name, &[boot.address()]);
        node.set_place(clock.at(Place::default()));
        node.start();
        node
    });
    let ids = nodes.each_ref().map(|node| node.id());
    let servers: Vec<Value> = ["One", "Two", "Three"]
        .iter()
        .zip(&nodes)
        .map(|(name, node)| node.host(&Game::stand_in(&test, name, 3))["id"].take())
        .collect();
    for node in &nodes {
        has_all(node, &ids);
        for id in &servers {
            node.sees(id, "live", FOUND);
        }
    }
    let attention = |node: &Node<'_>| node.get("/api/v1/status").json()["attention"].take();
    let before = nodes.each_ref().map(attention);
    boot.kill();

    let begun = Instant::now();
    let mut looks = 0;
    while begun.elapsed() < clock.real(day) {
        all_are_live(&nodes, &servers, begun.elapsed() * speed);
        nodes.iter().for_each(|node| has_all(node, &ids));
        looks += 1;
        std::thread::sleep(LOOK);
    }
    println!("{:.1} hours, looked at {looks} times", day.as_secs_f64() / 3600.0);
    eventually(PAUSE, "nobody has to do anything", || {
        let now = nodes.each_ref().map(attention);
        if now == before { Ok(()) } else { Err(format!("{now:?}")) }
    });

    // What is new is heard, and who was away finds the others from memory.
    let evening = nodes[0].host(&Game::stand_in(&test, "Evening", 1))["id"].take();
    nodes.iter().for_each(|node| drop(node.sees(&evening, "live", FOUND)));
    nodes[2].down();
    nodes[2].start();
    has_all(&nodes[2], &ids);
    nodes[2].sees(&evening, "live", FOUND);
    nodes[1].sees(&servers[2], "live", FOUND);
}

#[test]
fn two_hours_without_bootstrap_nodes_change_nothing() {
    without_bootstrap_nodes(Duration::from_secs(2 * 3600), 40);
}

#[test]
#[ignore = "takes minutes: `cargo xtask prove --only day`"]
fn a_day_without_bootstrap_nodes_changes_nothing() {
    without_bootstrap_nodes(Duration::from_secs(24 * 3600), 240);
}
