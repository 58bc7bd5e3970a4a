//! A mesh of twenty processes on loopback: how soon things are known, and what
//! it costs when nothing happens.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use homehost_protocol::cbor;
use homehost_protocol::gossip::Topic;
use homehost_protocol::record::RecordSigner;
use homehost_protocol::{Chain, DeviceKey, KeyChain, Record};
use homehost_tests::{Game, Node, Test, eventually};
use serde_json::Value;

use crate::author::{Author, now};
use crate::peer::{Held, Peer};
use crate::table::{Table, memory};
use crate::words::{self, WORDS};

/// Nodes of the mesh.
const NODES: usize = 20;

/// How many of them host a server.
const HOSTS: usize = 8;

/// A row is found after a gossip or a question to a peer.
const FOUND: Duration = Duration::from_secs(60);

#[test]
#[ignore = "takes minutes: cargo xtask prove --only mesh"]
fn twenty_nodes() {
    let test = Test::new();
    let mut table = Table::new("mesh: 20 nodes in 20 processes, a bootstrap node, 8 servers");
    let boot = test.bootstrap();
    let start = |n| {
        let mut node = test.stopped_node(&format!("node-{n}"), &[boot.address()]);
        if n == 0 {
            words::born(&node.data_dir().join("identity"));
        }
        node.start();
        node
    };
    let nodes: Vec<Node<'_>> = (0..NODES).map(start).collect();
    let servers: Vec<Value> = nodes[..HOSTS]
        .iter()
        .enumerate()
        .map(|(n, node)| node.host(&Game::stand_in(&test, &format!("Server {n}"), 1)))
        .collect();
    for node in &nodes {
        for server in &servers {
            node.sees(&server["id"], "live", FOUND);
        }
    }
    joins(&test, boot.address(), &mut table);
    gossip(&test, boot.address(), &nodes, &mut table);
    lookups(&nodes, &servers, &mut table);
    idle(&nodes, &mut table);
    rotation(&test, boot.address(), &nodes, &servers, &mut table);
}

/// Nodes that are new, and that come back with what they knew.
fn joins(test: &Test, bootstrap: &str, table: &mut Table) {
    let [mut cold, mut all, mut warm, mut confirmed] = [const { Vec::new() }; 4];
    for n in 0..5 {
        let mut node = test.stopped_node(&format!("late-{n}"), &[bootstrap]);
        let begun = Instant::now();
        node.start();
        cold.push(until(&node, begun, |rows| !rows.is_empty()));
        all.push(until(&node, begun, |rows| rows.len() == HOSTS));
        node.down();
        let begun = Instant::now();
        node.start();
        warm.push(until(&node, begun, |rows| rows.len() == HOSTS));
        confirmed.push(until(&node, begun, |rows| rows.iter().all(|r| r["confirmed"] == true)));
        node.down();
    }
    let second = Duration::from_secs(1);
    table.times("first row of a new node", &mut cold, 2 * second);
    table.times("all rows of a new node", &mut all, 2 * second);
    table.times("all rows after a restart", &mut warm, second);
    table.times("all rows confirmed after a restart", &mut confirmed, 2 * second);
}

/// The time since the start until a search gives what is wanted.
fn until(node: &Node<'_>, begun: Instant, wanted: impl Fn(&[Value]) -> bool) -> Duration {
    while !wanted(&node.rows("?game=stand-in")) {
        assert!(begun.elapsed() < FOUND, "{:#?}", node.rows("?all=true"));
        thread::sleep(Duration::from_millis(10));
    }
    begun.elapsed()
}

/// New listings, from the call that publishes them to the event of each node.
fn gossip(test: &Test, bootstrap: &str, nodes: &[Node<'_>], table: &mut Table) {
    const LISTINGS: u32 = 50;
    let author = Peer::join(test, 1, &[bootstrap], Arc::new(Held::new(vec![])));
    thread::sleep(Duration::from_secs(5));
    let mut times = Vec::new();
    thread::scope(|scope| {
        let readers: Vec<_> = nodes
            .iter()
            .map(|node| {
                let mut events = node.events("/api/v1/discover/watch?game=gossiped");
                scope.spawn(move || {
                    let mut came = BTreeMap::new();
                    while came.len() < LISTINGS as usize {
                        let id = events.find(FOUND, "a gossiped row", |event| {
                            event["row"]["id"].as_str().map(str::to_owned)
                        });
                        came.entry(id).or_insert_with(Instant::now);
                    }
                    came
                })
            })
            .collect();
        let mut said = BTreeMap::new();
        for n in 0..LISTINGS {
            let root = Author::new(test.network(), n);
            let [.., a, b] = n.to_be_bytes();
            let listing = root.server("gossiped", [80, a, b, 1]);
            let envelope = root.listing(&listing, now().0, now());
            said.insert(root.id(&listing).to_string(), Instant::now());
            author.publish(Topic::Listings, vec![envelope]);
            thread::sleep(Duration::from_millis(700));
        }
        for reader in readers {
            let came = reader.join().expect("every node hears of every listing");
            times.extend(came.iter().map(|(id, at)| *at - said[id]));
        }
    });
    table.times("gossip, publish to event stream", &mut times, Duration::from_millis(300));
}

fn lookups(nodes: &[Node<'_>], servers: &[Value], table: &mut Table) {
    let mut times = Vec::new();
    let mut answered = 0;
    for node in nodes {
        for server in servers {
            let path = format!("/api/v1/lookup/{}", server["id"].as_str().expect("an id"));
            let begun = Instant::now();
            let lookup = node.get(&path).json();
            times.push(begun.elapsed());
            assert_eq!(lookup["row"]["id"], server["id"], "{lookup}");
            answered += usize::from(lookup["answers"] != 0);
        }
    }
    table.percentile("lookup by id over HTTP", &mut times, (95, Duration::from_millis(200)));
    table.figure("lookups that peers answered", &answered.to_string());
}

/// Bytes of all nodes by protocol.
fn traffic(nodes: &[Node<'_>]) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for node in nodes {
        let stats = node.get("/api/v1/mesh/stats").json();
        for one in stats["traffic"].as_array().expect("protocols") {
            let bytes = ["received", "sent"].map(|way| one[way].as_f64().expect("bytes"));
            let name = one["protocol"].as_str().expect("a name").to_owned();
            *sums.entry(name).or_default() += bytes[0] + bytes[1];
        }
    }
    sums
}

fn idle(nodes: &[Node<'_>], table: &mut Table) {
    thread::sleep(Duration::from_secs(10));
    let (before, begun) = (traffic(nodes), Instant::now());
    thread::sleep(Duration::from_secs(60));
    let (after, seconds) = (traffic(nodes), begun.elapsed().as_secs_f64());
    let mut total = 0.0;
    for (protocol, bytes) in after {
        let rate = (bytes - before.get(&protocol).unwrap_or(&0.0)) / seconds / nodes.len() as f64;
        total += rate;
        let what = format!("idle traffic of a node, both ways: {protocol}");
        table.figure(&what, &format!("{rate:.0} B/s"));
    }
    table.figure("idle traffic of a node, both ways: all", &format!("{total:.0} B/s"));
    let memory: Vec<f64> = nodes.iter().map(|node| memory(node.pid())).collect();
    let mean = memory.iter().sum::<f64>() / memory.len() as f64;
    let most = memory.iter().copied().fold(0.0, f64::max);
    table.figure("memory of a node: mean, most", &format!("{mean:.1} MB, {most:.1} MB"));
}

/// The owner of the first node gets a new key; the old one is stolen.
fn rotation(
    test: &Test,
    bootstrap: &str,
    nodes: &[Node<'_>],
    servers: &[Value],
    table: &mut Table,
) {
    let (node, id) = (&nodes[0], &servers[0]["id"]);
    let folder = node.data_dir().join("identity");
    let thief = Thief::steal(test, &folder);
    let phrase = test.folder().join("phrase");
    fs::write(&phrase, WORDS).expect("the folder is ours");

    let row = |node: &Node<'_>| {
        let rows = node.rows("?game=stand-in");
        rows.into_iter().find(|row| row["id"] == *id)
    };
    let issued = row(node).expect("it is listed")["issued"].clone();
    let mut times = Vec::new();
    thread::scope(|scope| {
        let readers: Vec<_> = nodes
            .iter()
            .map(|node| {
                let mut events = node.events("/api/v1/discover/watch?game=stand-in");
                let issued = &issued;
                scope.spawn(move || {
                    events.find(FOUND, "the row under the new key", |event| {
                        let row = &event["row"];
                        (row["id"] == *id && row["issued"] != *issued).then(Instant::now)
                    })
                })
            })
            .collect();
        let begun = Instant::now();
        node.ok(&["id", "rotate", "--phrase-file", phrase.to_str().expect("UTF-8")]);
        for reader in readers {
            times.push(reader.join().expect("every node hears of it") - begun);
        }
    });
    table.times("rotation, command to event stream", &mut times, Duration::from_secs(5));

    // What the old key says now counts nowhere.
    let peer = Peer::join(test, 2, &[bootstrap], Arc::new(Held::new(vec![])));
    peer.publish(Topic::Listings, vec![thief.listing()]);
    eventually(FOUND, "all refuse the old key", || {
        let refused = |node: &Node<'_>| {
            let stats = node.get("/api/v1/mesh/stats").json();
            stats["refused"]["revoked_key"].as_u64().unwrap_or(0)
        };
        // The peers of the thief hear of it and tell nobody.
        let refused = nodes.iter().filter(|node| refused(node) > 0).count();
        (refused > 0).then_some(()).ok_or_else(|| "nobody was told".into())
    });
    thread::sleep(Duration::from_secs(2));
    for node in nodes {
        let rows = node.rows("?game=stand-in&all=true");
        assert_eq!(rows.len(), HOSTS, "nothing is listed by a key that ended: {rows:#?}");
        assert!(rows.iter().all(|row| row["key_conflict"] == false), "{rows:#?}");
    }
    table.figure("rows of a key that ended, taken in", "0");
}

/// Somebody with a copy of a node's signing key.
struct Thief {
    signer: RecordSigner,
    network: String,
}

impl Thief {
    fn steal(test: &Test, folder: &std::path::Path) -> Self {
        let seed = fs::read(folder.join("device.key")).expect("a key");
        let key = DeviceKey::from_seed(seed.try_into().expect("32 bytes"));
        let chain: KeyChain = cbor::decode(&fs::read(folder.join("chain")).expect("a chain"))
            .expect("the chain is sound");
        let chain = Chain::verify(&chain).expect("the chain is sound");
        let network = test.network().to_owned();
        let signer = RecordSigner::of_chain(key, &chain, network.parse().expect("a name"));
        Self { signer: signer.expect("it may sign now"), network }
    }

    fn listing(&self) -> Vec<u8> {
        let listing = Author::new(&self.network, 0).server("stand-in", [80, 0, 0, 1]);
        let seq = now().0 + 3_600_000;
        self.signer.sign(&Record::ServerListing(listing), seq, now()).expect("it keeps the rules")
    }
}
