//! js-libp2p, a libp2p that is not ours, as a peer of whole nodes: first a
//! decent one, then one that tries everything.
//!
//! `cargo xtask test` installs it (`js/package-lock.json`); without it these
//! tests fail and say so. It wants Node 22 and runs under Node 20 as well, with
//! one function that `js/with-resolvers.js` supplies.
//!
//! The JavaScript knows the protocol from docs/spec alone; what is asserted is
//! asserted here.

#![cfg(target_os = "linux")]

mod author;
mod clients;
mod compare;
mod decent;
mod dht;
mod directory;
mod forged;
mod gossip;
mod js;
mod rude;
mod watch;
mod witness;

use std::time::Duration;

use homehost_tests::Node;

/// A row is found after a gossip or two: a second or two here.
const FOUND: Duration = Duration::from_secs(20);

/// The address of a node over TCP, which is what JavaScript speaks here.
fn tcp_address(node: &Node<'_>) -> String {
    let status = node.get("/api/v1/status").json();
    let mut addresses = status["addresses"].as_array().into_iter().flatten();
    let address = addresses.find_map(|address| address.as_str().filter(|a| a.contains("/tcp/")));
    address.expect("it listens on TCP").to_owned()
}

/// A counter of a node, as in `homehost_mesh_gossip_total{verdict="reject"}`; 0
/// until it is counted for the first time.
fn counter(node: &Node<'_>, name: &str) -> u64 {
    let metrics = node.get("/metrics").body;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0, |count| count.trim().parse().expect("a counter is a whole number"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at: usize| text.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
    (0..text.len()).step_by(2).map(|at| byte(at).expect("hexadecimal digits")).collect()
}
