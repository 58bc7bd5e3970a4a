//! A node that was away finds its network again by what it remembers.

use std::io::Read as _;
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use homehost_mesh::{MeshConfig, Multiaddr, PeerKeeper, PeersConfig, Role};
use homehost_protocol::keys::DeviceKey;

use crate::node::{Node, config};

/// Keeps it as a disk would.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<Option<Vec<u8>>>>);

impl PeerKeeper for Disk {
    fn keep(&self, peers: Vec<u8>) {
        *self.0.lock().unwrap() = Some(peers);
    }
}

impl Disk {
    fn with(text: String) -> Self {
        Self(Arc::new(Mutex::new(Some(text.into_bytes()))))
    }

    fn of(&self, config: MeshConfig) -> MeshConfig {
        let held = self.0.lock().unwrap().clone();
        MeshConfig { peers: PeersConfig { held, keeper: Arc::new(self.clone()) }, ..config }
    }
}

/// A port where nobody is.
fn nobody() -> Multiaddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()
}

/// Remembered peers of the tests' network, the n-th at the n-th address.
fn remembered(addresses: impl IntoIterator<Item = String>) -> String {
    let row = |(n, address): (usize, String)| {
        let mut seed = [9; 32];
        seed[..8].copy_from_slice(&n.to_le_bytes());
        let node = homehost_protocol::NodeId(DeviceKey::from_seed(seed).public().0);
        format!(
            r#"{{"node":"{node}","addresses":["{address}"],"role":"host","seen_ms":1,"stayed_s":1}}"#
        )
    };
    let rows: Vec<_> = addresses.into_iter().enumerate().map(row).collect();
    format!(r#"{{"network":"mesh-test","peers":[{}]}}"#, rows.join(","))
}

#[tokio::test]
async fn without_any_bootstrap_node_a_restarted_node_finds_those_it_knew() {
    let boot = Node::start(config(1, Role::Bootstrap, &[]));
    let way = [boot.address().await];
    let [a, b] = [2, 3].map(|seed| Node::host(seed, &way));
    let disk = Disk::default();
    let c = Node::start(disk.of(config(4, Role::Host, &way)));
    c.knows([a.id(), b.id(), boot.id()]).await;
    c.status(|status| (status.remembered == 3).then_some(())).await;
    c.stop().await;
    boot.stop().await;

    let c = Node::start(disk.of(config(4, Role::Host, &way)));
    c.knows([a.id(), b.id()]).await;
    c.status(|status| (status.remembered == 3).then_some(())).await;
    for node in [a, b, c] {
        node.stop().await;
    }
}

#[tokio::test]
async fn what_another_network_remembers_is_not_used() {
    let a = Node::host(1, &[]);
    let disk = Disk::default();
    let b = Node::start(disk.of(config(2, Role::Host, &[a.address().await])));
    b.knows([a.id()]).await;
    b.stop().await;
    assert!(disk.0.lock().unwrap().is_some());
    let other = MeshConfig { network: "another".parse().unwrap(), ..config(2, Role::Host, &[]) };
    let mut b = Node::start(disk.of(other));
    b.address().await;
    b.hears_no_gossip().await;
    b.status(|status| (status.remembered == 0 && status.peers.is_empty()).then_some(())).await;
    assert_eq!(b.metric("libp2p_swarm_outgoing_connection_error_total"), "absent");
    for node in [a, b] {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_memory_of_liars_and_the_dead_keeps_nobody_from_the_true_network() {
    // One that takes every connection and says nothing, until it is cut.
    let tar = TcpListener::bind("127.0.0.1:0").unwrap();
    let sticky = format!("/ip4/127.0.0.1/tcp/{}", tar.local_addr().unwrap().port());
    let stuck = Arc::new(AtomicUsize::new(0));
    let count = stuck.clone();
    std::thread::spawn(move || {
        for stream in tar.incoming().flatten() {
            count.fetch_add(1, Ordering::Relaxed);
            std::thread::spawn(move || {
                let mut stream = stream;
                while stream.read(&mut [0; 256]).is_ok_and(|n| n > 0) {}
            });
        }
    });
    let dead = nobody().to_string();
    let addresses = (0..200).map(|n| if n % 2 == 0 { sticky.clone() } else { dead.clone() });
    let disk = Disk::with(remembered(addresses));

    let boot = Node::start(config(1, Role::Bootstrap, &[]));
    let way = [boot.address().await];
    let a = Node::host(2, &way);
    a.knows([boot.id()]).await;
    let b = Node::start(disk.of(config(3, Role::Host, &way)));
    let known = b.status(|status| (status.remembered > 0).then_some(status.remembered)).await;
    assert!(known <= 33, "{known}: neighbours have their share and no more");
    b.knows([a.id(), boot.id()]).await;
    // Four anchors at once, and few at a time after that.
    let stuck = stuck.load(Ordering::Relaxed);
    assert!(stuck <= 16, "{stuck} dials before it had joined");
    for node in [boot, a, b] {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_memory_of_one_island_does_not_hide_the_rest() {
    // Enough hosts to be content with.
    let first = Node::host(10, &[]);
    let way = [first.address().await];
    let mut island = vec![first];
    island.extend((11..19).map(|seed| Node::host(seed, &way)));
    let disk = Disk::default();
    let a = Node::start(disk.of(config(1, Role::Host, &way)));
    a.status(|status| (status.peers.len() >= 9).then_some(())).await;
    a.stop().await;

    let stranger = Node::host(2, &[]);
    let a = Node::start(disk.of(config(1, Role::Host, &[stranger.address().await])));
    a.knows(island.iter().map(Node::id).chain([stranger.id()])).await;
    a.stop().await;
    stranger.stop().await;
    for node in island {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_memory_that_cannot_be_read_is_begun_anew() {
    let a = Node::host(1, &[]);
    let disk = Disk::with("{\"network\":\"mesh-test\",\"peers\":[{".into());
    let b = Node::start(disk.of(config(2, Role::Host, &[a.address().await])));
    b.knows([a.id()]).await;
    b.stop().await;
    let kept = disk.0.lock().unwrap().clone().unwrap();
    assert!(String::from_utf8(kept).unwrap().contains(&a.id().to_string()));
    a.stop().await;
}
