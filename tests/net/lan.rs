//! A LAN party: a switch, three machines, and no way to the internet.

use std::time::{Duration, Instant};

use homehost_tests::{Node, Test};

use crate::home::place;
use crate::lab::{End, Lab};
use crate::reach::game_at;

/// mDNS asks every few seconds at first.
const FOUND: Duration = Duration::from_secs(60);

#[test]
fn a_lan_without_internet_finds_itself_and_its_servers() {
    let test = Test::new();
    let lab = Lab::new();
    let switch = lab.machine("switch");
    lab.bridge(&switch, "lan");
    let hosts = [1, 2, 3].map(|n| {
        let host = lab.machine(&format!("host{n}"));
        let port = format!("port{n}");
        lab.cable(End::new(&host, "lan"), End::new(&switch, &port));
        End::new(&switch, &port).joins("lan");
        // Of the block that machines give themselves when there is no router.
        End::new(&host, "lan").address(&format!("169.254.7.{n}/16"));
        // Where else multicast would go is not known without a router.
        crate::lab::ip(&host, &["route", "add", "224.0.0.0/4", "dev", "lan"]);
        host
    });
    let mut names = ["anna", "ben", "chris"].into_iter();
    let nodes: [Node<'_>; 3] = hosts.each_ref().map(|host| {
        let mut node = test.stopped_node(names.next().expect("three names"), &[]);
        node.set_network("main");
        node.set_place(place(host).with_mdns());
        node.start();
        node
    });
    let begun = Instant::now();
    for (n, node) in nodes.iter().enumerate() {
        for other in nodes.iter().skip(n + 1) {
            node.connected_to(other);
        }
    }
    println!("three hosts of a LAN found each other in {:.1} s", begun.elapsed().as_secs_f64());
    let id = nodes[0].host(&game_at(&test, "Party", "auto"))["id"].take();
    nodes[0].running("Party");
    for node in &nodes[1..] {
        let row = node.sees(&id, "live", FOUND);
        let address = row["addresses"][0].as_str().unwrap_or_default();
        assert!(address.starts_with("169.254.7.1:"), "players can join it: {row:#}");
        let name = id.as_str().expect("an id");
        let found = node.ok(&["lookup", name]);
        assert_eq!(found["row"]["name"], "Party", "{found:#}");
        assert!(found["answers"].as_u64() > Some(0), "the DHT serves the LAN: {found:#}");
    }
}
