//! Hosts that move, sleep, and come back.

use std::time::{Duration, Instant};

use homehost_tests::process::{self, Signal};
use homehost_tests::{Node, Test, eventually};

use crate::home::{Home, Internet, Kind, move_over};
use crate::lab::ip;
use crate::mesh::Mesh;
use crate::reach::game_at;

/// Longest wait on a machine that does much else.
const REJOINED: Duration = Duration::from_secs(60);

/// The goal: a person has just opened the lid of a laptop.
const GOAL: Duration = Duration::from_secs(5);

/// Longest wait until others give up a host that says nothing any more.
const GIVEN_UP: Duration = Duration::from_secs(180);

/// Waits until a node sees nobody with this id.
#[track_caller]
fn has_lost(peer: &Node<'_>, id: &str) {
    eventually(GIVEN_UP, "it is given up", || {
        let peers = peer.get("/api/v1/peers").json();
        let found = peers.as_array().into_iter().flatten().any(|row| row["node"] == id);
        if found { Err(peers.to_string()) } else { Ok(()) }
    });
}

/// Publishes a server and waits until a friend has it: the node is back when
/// others hear what it says. Says how long that took; it must not be longer
/// than it may.
#[track_caller]
fn is_heard(test: &Test, node: &Node<'_>, friend: &Node<'_>, after: &str, most: Duration) {
    let begun = Instant::now();
    let id = node.host(&game_at(test, after, "auto"))["id"].take();
    friend.sees(&id, "live", REJOINED);
    let took = begun.elapsed();
    println!("{after}: heard after {:.1} s", took.as_secs_f64());
    assert!(took <= most, "{after}: {took:?}");
}

fn moved(most: Duration) {
    let test = Test::new();
    let internet = Internet::new();
    let open: [Home; 2] = [(); 2].map(|()| internet.home(Kind::Open));
    let [old, new] = [(); 2].map(|()| internet.home(Kind::PortRestricted));
    internet.second_cable(&old.host, &new);
    let mesh = Mesh::new(&test, &[&open[0]]);
    let friend = mesh.node("friend", open[1].place());
    let node = mesh.node("node", old.place());
    node.connected_to(&friend);
    is_heard(&test, &node, &friend, "at home", REJOINED);

    move_over(&old.host);
    is_heard(&test, &node, &friend, "carried to another network", most);
}

fn pulled(most: Duration) {
    let test = Test::new();
    let internet = Internet::new();
    let open: [Home; 2] = [(); 2].map(|()| internet.home(Kind::Open));
    let home = internet.home(Kind::PortRestricted);
    let mesh = Mesh::new(&test, &[&open[0]]);
    let friend = mesh.node("friend", open[1].place());
    let node = mesh.node("node", home.place());
    node.connected_to(&friend);
    // A cable that is pulled, and found on the floor a while later.
    ip(&home.host, &["link", "set", "lan", "down"]);
    has_lost(&friend, &node.id());
    ip(&home.host, &["link", "set", "lan", "up"]);
    ip(&home.host, &["route", "add", "default", "via", "192.168.1.1"]);
    is_heard(&test, &node, &friend, "plugged in again", most);
}

fn slept(most: Duration) {
    let test = Test::new();
    let internet = Internet::new();
    let open: [Home; 2] = [(); 2].map(|()| internet.home(Kind::Open));
    let home = internet.home(Kind::PortRestricted);
    let mesh = Mesh::new(&test, &[&open[0]]);
    let friend = mesh.node("friend", open[1].place());
    let node = mesh.node("node", home.place());
    node.connected_to(&friend);
    let id = node.id();
    // A lid that is closed stops all at once; others notice by and by.
    process::send(node.pid(), Signal::Stop);
    has_lost(&friend, &id);
    process::send(node.pid(), Signal::Continue);
    is_heard(&test, &node, &friend, "woken up", most);
}

#[test]
fn a_host_that_moves_to_another_network_comes_back() {
    moved(REJOINED);
}

#[test]
#[ignore = "a figure: `cargo xtask prove --only net`"]
fn a_host_that_moves_is_back_within_five_seconds() {
    moved(GOAL);
}

#[test]
#[ignore = "a figure: `cargo xtask prove --only net`"]
fn a_host_that_was_unplugged_is_back_within_five_seconds() {
    pulled(GOAL);
}

#[test]
#[ignore = "a figure: `cargo xtask prove --only net`"]
fn a_host_that_slept_is_back_within_five_seconds() {
    slept(GOAL);
}
