//! QUIC among what it meets on real networks.

use std::net::UdpSocket;
use std::time::Duration;

use homehost_mesh::{MeshConfig, Multiaddr, Role};

use crate::node::{Node, PATIENCE, config};

fn over_quic(seed: u8, bootstrap: &[Multiaddr]) -> Node {
    let listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()];
    Node::start(MeshConfig { listen, ..config(seed, Role::Host, bootstrap) })
}

/// Where the one socket of a node sends from and listens, an answer of "port
/// unreachable" could end the listening too: on Windows the next receive fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closed_ports_do_not_deafen_a_quic_socket() {
    let socket = || UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = |socket: &UdpSocket| -> Multiaddr {
        let port = socket.local_addr().unwrap().port();
        format!("/ip4/127.0.0.1/udp/{port}/quic-v1").parse().unwrap()
    };
    // All are bound at first, so that they differ; then only the last is.
    let mut sockets: Vec<_> = (0..8).map(|_| socket()).collect();
    let places: Vec<_> = sockets.iter().map(address).collect();
    let watcher = sockets.pop().unwrap();
    drop(sockets);
    watcher.set_read_timeout(Some(PATIENCE)).unwrap();

    let node = over_quic(1, &places);
    let dialled = tokio::task::spawn_blocking(move || watcher.recv(&mut [0; 1_500]).unwrap());
    assert!(dialled.await.unwrap() >= 1_200, "the first packet of a connection");
    let friend = over_quic(2, &[node.address().await]);
    friend.knows([node.id()]).await;
    node.knows([friend.id()]).await;
    let rtt = friend.status(|status| status.peers.first().map(|peer| peer.address.clone())).await;
    assert!(rtt.to_string().contains("/quic-v1"), "{rtt}");
    for node in [node, friend] {
        tokio::time::timeout(Duration::from_secs(30), node.stop()).await.unwrap();
    }
}
