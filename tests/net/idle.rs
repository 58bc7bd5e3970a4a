//! What a node sends when nobody asks it for anything.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use homehost_protocol::Scope;
use homehost_tests::{Node, Test, eventually};
use serde_json::Value;

use crate::capture::{Amount, Capture, Flow, TCP, UDP};
use crate::home::{Home, Internet, Kind, place};
use crate::lab::End;
use crate::mesh::Mesh;
use crate::reach::game;

/// Whether a packet that a host sends into its home may go to an address that
/// is not global: to the router, to other nodes of this home, or to all who
/// listen for mDNS and SSDP. ICMP, ARP and IGMP are the kernel's own affair.
fn may_stay_near(flow: &Flow) -> bool {
    let router: IpAddr = "192.168.1.1".parse().expect("an address");
    let near: IpAddr = crate::home::SECOND.parse().expect("an address");
    match (flow.protocol, flow.to, flow.to_port) {
        (UDP, to, 5351) if to == router => true,
        (TCP, to, _) if to == router => true,
        (UDP, to, 1900 | 5353) => to.is_multicast(),
        (UDP | TCP, to, _) => to == near,
        _ => true,
    }
}

/// Packets from a host, or through a router, that go where no one asked for them.
fn astray(flows: &BTreeMap<Flow, Amount>, may: impl Fn(&Flow) -> bool) -> Vec<(Flow, Amount)> {
    let far = |flow: &Flow| flow.scope() == Scope::Global;
    let astray = flows.iter().filter(|(flow, _)| !far(flow) && !may(flow));
    astray.map(|(flow, amount)| (*flow, *amount)).collect()
}

/// Bytes of streams by protocol, both ways.
fn by_protocol(node: &Node<'_>) -> BTreeMap<String, u64> {
    let stats = node.get("/api/v1/mesh/stats").json();
    let rows = stats["traffic"].as_array().cloned().unwrap_or_default();
    let bytes = |row: &Value, way: &str| row[way].as_u64().unwrap_or_default();
    rows.iter()
        .map(|row| {
            let name = row["protocol"].as_str().unwrap_or_default().to_owned();
            (name, bytes(row, "received") + bytes(row, "sent"))
        })
        .collect()
}

fn watched(idle: Duration) {
    let test = Test::new();
    let internet = Internet::new();
    let open: [Home; 3] = [(); 3].map(|()| internet.home(Kind::Open));
    let (home, stranger) = (internet.home(Kind::Upnp), internet.home(Kind::PortRestricted));
    let near = internet.second_host(&home);
    let router = home.router.as_ref().expect("it has one");
    // From before the first packet.
    let [inside, outside] =
        [End::new(&home.host, "lan"), End::new(router, "wan")].map(Capture::start);

    let mesh = Mesh::new(&test, &[&open[0]]);
    let others = [
        mesh.node("open1", open[1].place()),
        mesh.node("open2", open[2].place()),
        // It has the same address at home, and says so to whoever asks.
        mesh.node("stranger", stranger.place()),
        mesh.node("near", place(&near).with_mdns()),
    ];
    let node = mesh.node("node", home.place().with_mdns());
    for other in [&others[0], &others[1], &others[3]] {
        let id = other.id();
        eventually(Duration::from_secs(120), "it is connected", || {
            let peers = node.get("/api/v1/peers").json();
            let found = peers.as_array().into_iter().flatten().any(|peer| peer["node"] == id);
            found.then_some(()).ok_or_else(|| peers.to_string())
        });
    }
    let id = node.host(&game(&test, "Castle"))["id"].take();
    node.running("Castle");
    others[0].sees(&id, "live", Duration::from_secs(120));

    let (before, traffic) = (outside.so_far(), by_protocol(&node));
    let begun = Instant::now();
    std::thread::sleep(idle);
    let seconds = begun.elapsed().as_secs_f64();
    let (after, later) = (outside.so_far(), by_protocol(&node));

    let wrong = astray(&inside.so_far(), |flow| {
        flow.from == home.inside() && may_stay_near(flow) || flow.from != home.inside()
    });
    assert!(wrong.is_empty(), "packets of the host to nowhere: {wrong:#?}");
    let wrong = astray(&after, |flow| !matches!(flow.protocol, TCP | UDP));
    assert!(wrong.is_empty(), "packets that leave the home to nowhere: {wrong:#?}");

    println!("idle for {seconds:.0} s with {} peers; bytes a second, both ways:", peers(&node));
    for (protocol, bytes) in &later {
        let bytes = bytes - traffic.get(protocol).copied().unwrap_or_default();
        println!("  {protocol:32} {:8.1}", bytes as f64 / seconds);
    }
    let total = |flows: &BTreeMap<Flow, Amount>| {
        flows.values().fold(Amount::default(), |sum, one| Amount {
            packets: sum.packets + one.packets,
            bytes: sum.bytes + one.bytes,
        })
    };
    let (before, after) = (total(&before), total(&after));
    println!(
        "  on the cable to the internet, both nodes of the home: {:.1} B/s, {:.1} packets/s",
        (after.bytes - before.bytes) as f64 / seconds,
        (after.packets - before.packets) as f64 / seconds
    );
}

fn peers(node: &Node<'_>) -> usize {
    node.get("/api/v1/peers").json().as_array().map_or(0, Vec::len)
}

#[test]
fn no_packet_goes_where_nobody_can_answer() {
    watched(Duration::from_secs(20));
}

#[test]
#[ignore = "takes minutes: `cargo xtask prove --only net`"]
fn five_idle_minutes() {
    watched(Duration::from_secs(300));
}
