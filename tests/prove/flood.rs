//! A node under attack, beside honest hosts: peers that keep every rule of the
//! wire and say as much as they can.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use homehost_protocol::gossip::Topic;
use homehost_protocol::limits::SERVERS_PER_DEVICE_MAX;
use homehost_protocol::{ServerId, ServerListing, UnixMillis};
use homehost_tests::{Game, Node, Test, eventually, exchange};
use serde_json::Value;

use crate::author::{Author, now};
use crate::peer::{Held, Peer};
use crate::table::{Table, memory};

/// Honest hosts with a server each; they are one another's witnesses.
const HONEST: usize = 4;

/// A row is found after a gossip or a question to a peer, and proved when the
/// first of them has looked.
const FOUND: Duration = Duration::from_secs(60);

/// By how much the node under test may grow, in MB.
const GROWTH_MAX: f64 = 60.0;

/// What its owner asks all the while.
const SEARCH: &str = "GET /api/v1/discover?limit=50&game=stand-in";

/// How much of everything is said.
struct Flood {
    peers: u8,
    /// Listings of fresh roots, half of them at a few addresses.
    listings: u32,
    /// Roots that revoke all their keys.
    revocations: u32,
    /// Presences of as many servers as a device may have, none of which exists.
    presences: u32,
    /// Roots that sign two versions with one number.
    equivocations: u32,
    /// Listings of a day ago.
    replays: u32,
}

#[test]
fn honest_rows_stay_in_front_of_a_flood() {
    let flood = Flood {
        peers: 4,
        listings: 2_000,
        revocations: 200,
        presences: 200,
        equivocations: 100,
        replays: 200,
    };
    let test = Test::new();
    let mut table = Table::new("a small flood");
    let stage = Stage::new(&test, 1);
    let peers = stage.peers(flood.peers, &Arc::new(Held::new(vec![])));
    let grown = stage.gossip(&flood, &peers, &mut table);
    assert!(grown <= GROWTH_MAX, "it grew by {grown} MB");
}

#[test]
#[ignore = "takes minutes: cargo xtask prove --only flood"]
fn fifty_thousand_listings() {
    let flood = Flood {
        peers: 8,
        listings: 50_000,
        revocations: 10_000,
        presences: 10_000,
        equivocations: 5_000,
        replays: 10_000,
    };
    let test = Test::new();
    let mut table = Table::new("flood: one node, 4 honest hosts, 8 hostile peers");
    let mut stage = Stage::new(&test, 1);
    let envelopes = listings(&test, &flood);
    let held =
        Arc::new(Held::new(envelopes.iter().cloned().map(|one| (one.issued, one.bytes)).collect()));
    let peers = stage.peers(flood.peers, &held);
    stage.gossip(&flood, &peers, &mut table);
    stage.reconciliation(&peers, &envelopes, &mut table);
}

/// One envelope and when it was issued.
#[derive(Clone)]
struct Said {
    issued: UnixMillis,
    bytes: Vec<u8>,
}

/// Where a flood's servers claim to be: half of them in a few places, half of
/// them all over the world.
fn address(n: u32) -> [u8; 4] {
    let [_, b, c, d] = n.to_be_bytes();
    if n.is_multiple_of(2) { [60, 0, 0, d % 8] } else { [61 + b, c, d, 1] }
}

fn listings(test: &Test, flood: &Flood) -> Vec<Said> {
    let said = |n| {
        let author = Author::new(test.network(), n);
        let issued = now();
        let listing = author.server("stand-in", address(n));
        Said { issued, bytes: author.listing(&listing, issued.0, issued) }
    };
    (0..flood.listings).map(said).collect()
}

/// All else that a flood says, as messages with their topics.
fn others(test: &Test, flood: &Flood) -> Vec<(Topic, Vec<u8>)> {
    // Roots that nobody has heard of yet.
    let mut number = 1_000_000;
    let mut fresh = || {
        number += 1;
        let author = Author::new(test.network(), number);
        let listing = author.server("stand-in", address(number));
        (author, listing)
    };
    let mut said = Vec::new();
    for _ in 0..flood.revocations {
        said.push((Topic::Listings, fresh().0.revocation()));
    }
    for _ in 0..flood.presences {
        let (author, listing) = fresh();
        let ids = (0..SERVERS_PER_DEVICE_MAX).map(|n| unheard_of(&author, &listing, n));
        said.push((Topic::Presence, author.presence(ids.collect())));
    }
    for _ in 0..flood.equivocations {
        let (author, listing) = fresh();
        for name in ["One", "Two"] {
            let listing = ServerListing { name: name.into(), ..listing.clone() };
            said.push((Topic::Listings, author.listing(&listing, 1, now())));
        }
    }
    let day = UnixMillis(now().0 - 25 * 3_600_000);
    for _ in 0..flood.replays {
        let (author, listing) = fresh();
        said.push((Topic::Listings, author.listing(&listing, day.0, day)));
    }
    said
}

fn unheard_of(author: &Author, listing: &ServerListing, n: usize) -> ServerId {
    let mut listing = listing.clone();
    listing.nonce.0[0] = u8::try_from(n).expect("few");
    author.id(&listing)
}

/// A node under test and honest hosts, whose servers it knows and has seen
/// proved.
struct Stage<'a> {
    test: &'a Test,
    node: Node<'a>,
    hosts: Vec<Node<'a>>,
    honest: BTreeSet<String>,
    memory: f64,
}

impl<'a> Stage<'a> {
    fn new(test: &'a Test, servers: usize) -> Self {
        let node = test.node("node", &[]);
        let address = node.address();
        let hosts: Vec<_> =
            (0..HONEST).map(|n| test.node(&format!("honest-{n}"), &[&address])).collect();
        let mut honest = BTreeSet::new();
        for (n, host) in hosts.iter().enumerate() {
            for m in 0..servers {
                let server = host.host(&Game::stand_in(test, &format!("Honest {n}.{m}"), 0));
                honest.insert(server["id"].as_str().expect("an id").to_owned());
            }
        }
        let stage = Self { test, memory: memory(node.pid()), node, hosts, honest };
        stage.in_front();
        stage
    }

    /// Waits until all honest rows are proved to the node, and in front.
    fn in_front(&self) {
        eventually(FOUND, "the honest rows are in front, and proved", || {
            let rows = self.node.rows("?limit=50");
            let front = rows.get(..self.honest.len()).unwrap_or_default();
            let proved = front.iter().all(|row| row["reach"] == "proved");
            let ids = ids(front);
            (proved && ids == self.honest).then_some(()).ok_or_else(|| format!("{front:#?}"))
        });
    }

    fn sees_late(&self, id: &Value, status: &str) {
        eventually(FOUND, &format!("the late server is {status}"), || {
            let rows = self.node.rows("?all=true&text=late");
            let is_there = rows.iter().any(|row| row["id"] == *id && row["status"] == status);
            is_there.then_some(()).ok_or_else(|| format!("{rows:#?}"))
        });
    }

    fn peers(&self, count: u8, held: &Arc<Held>) -> Vec<Peer> {
        let address = self.node.address();
        let peer = |n| Peer::join(self.test, 100 + n, &[&address], held.clone());
        (0..count).map(peer).collect()
    }

    /// Says everything by gossip, and returns by how much the node has grown.
    fn gossip(&self, flood: &Flood, peers: &[Peer], table: &mut Table) -> f64 {
        let listings = listings(self.test, flood);
        let listings: Vec<_> =
            listings.into_iter().map(|one| (Topic::Listings, one.bytes)).collect();
        let others = others(self.test, flood);
        let quiet = || thread::sleep(Duration::from_secs(2));
        let mut most = self.note("quiet, before", self.watched(quiet), table);
        for (what, messages) in [("listings", listings), ("all else", others)] {
            let begun = Instant::now();
            let seen = self.watched(|| {
                say(peers, &messages);
                self.settled();
            });
            let rate = messages.len() as f64 / begun.elapsed().as_secs_f64();
            table.figure(&format!("gossip: {what}"), &format!("{rate:.0} a second"));
            most = most.max(self.note(&format!("gossip of {what}"), seen, table));
        }
        most = most.max(self.note("quiet, after", self.watched(quiet), table));
        // Who comes now is heard all the same.
        let late = self.hosts[0].host(&Game::stand_in(self.test, "Late", 0));
        self.sees_late(&late["id"], "live");
        self.hosts[0].ok(&["server", "stop", "Late"]);
        self.sees_late(&late["id"], "withdrawn");
        self.in_front();
        let refused = self.stats()["refused"].clone();
        for (reason, count) in refused.as_object().expect("reasons") {
            table.figure(&format!("refused: {reason}"), &count.to_string());
        }
        for reason in ["prefix_quota", "equivocation", "expired"] {
            assert!(
                refused[reason].as_u64() > Some(0),
                "nothing was refused as {reason}: {refused}"
            );
        }
        most
    }

    /// Comes back among liars: they are whom it compares replicas with. They
    /// also offer what they have.
    fn reconciliation(&mut self, peers: &[Peer], envelopes: &[Said], table: &mut Table) {
        let addresses: Vec<String> = peers.iter().flat_map(Peer::addresses).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        self.node.down();
        self.node.set_bootstrap(&addresses);
        self.node.start();
        // It counts the word of witnesses whom it has met since its start.
        let begun = Instant::now();
        self.in_front();
        let took = format!("{:.1} s", begun.elapsed().as_secs_f64());
        table.figure("honest rows in front again after the restart", &took);
        let mut chunks = envelopes.chunks(16);
        let seen = self.watched(|| {
            let begun = Instant::now();
            loop {
                for peer in peers {
                    let chunk = chunks.next().unwrap_or_default();
                    peer.offer(&chunk.iter().map(|one| one.bytes.clone()).collect::<Vec<_>>());
                }
                let repairs = &self.stats()["repairs"];
                let ended = ["done", "failed"].map(|end| repairs[end].as_u64().unwrap_or(0));
                if ended.iter().sum::<u64>() >= 2 || begun.elapsed() > Duration::from_secs(300) {
                    break;
                }
                thread::sleep(Duration::from_millis(500));
            }
            table.figure("reconciliation took", &format!("{:.0} s", begun.elapsed().as_secs_f64()));
        });
        self.note("reconciliation and offers", seen, table);
        let stats = self.stats();
        table.figure("repairs", &stats["repairs"].to_string());
        table.figure("refused", &stats["refused"].to_string());
        self.in_front();
    }

    fn stats(&self) -> Value {
        self.node.get("/api/v1/mesh/stats").json()
    }

    /// Waits until the node has judged all that came.
    fn settled(&self) {
        let judged = || {
            let stats = self.stats();
            (stats["refused"].to_string(), stats["admitted"].as_u64())
        };
        let mut last = judged();
        loop {
            thread::sleep(Duration::from_secs(2));
            let next = judged();
            if next == last {
                return;
            }
            last = next;
        }
    }

    /// Searches all the while, as its owner would.
    fn watched(&self, work: impl FnOnce()) -> Seen {
        let stop = AtomicBool::new(false);
        let (address, token) = self.node.http();
        let (pid, honest) = (self.node.pid(), &self.honest);
        thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let (host, bearer) = (address.to_string(), format!("Bearer {token}"));
                let headers = [("Host", &*host), ("Authorization", &*bearer)];
                let mut seen = Seen { searches: vec![], lacking: BTreeSet::new(), memory: 0.0 };
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let response = exchange(address, SEARCH, &headers, "");
                    seen.searches.push(begun.elapsed());
                    let rows = response.json();
                    let rows = rows.as_array().expect("rows");
                    let front = ids(rows.get(..honest.len()).unwrap_or(rows));
                    seen.lacking.extend(honest.difference(&front).cloned());
                    seen.memory = seen.memory.max(memory(pid));
                    thread::sleep(Duration::from_millis(25));
                }
                seen
            });
            work();
            stop.store(true, Ordering::Relaxed);
            watch.join().expect("the node answers")
        })
    }

    /// Prints what was seen; no honest row was ever away.
    fn note(&self, during: &str, mut seen: Seen, table: &mut Table) -> f64 {
        let grown = seen.memory - self.memory;
        table.at_most(&format!("growth, {during}"), (grown, GROWTH_MAX), "MB");
        let most = Duration::from_millis(20);
        table.times(&format!("search, {during}"), &mut seen.searches, most);
        let lacking = &seen.lacking;
        assert!(lacking.is_empty(), "honest rows that were not in front: {during}: {lacking:?}");
        grown
    }
}

struct Seen {
    searches: Vec<Duration>,
    /// Honest rows that were not in front at some time.
    lacking: BTreeSet<String>,
    /// The most that the node had.
    memory: f64,
}

fn ids(rows: &[Value]) -> BTreeSet<String> {
    rows.iter().filter_map(|row| row["id"].as_str().map(str::to_owned)).collect()
}

/// All peers say their share at once, each message by itself.
fn say(peers: &[Peer], messages: &[(Topic, Vec<u8>)]) {
    thread::scope(|scope| {
        for (peer, share) in peers.iter().zip(messages.chunks(messages.len().div_ceil(peers.len())))
        {
            scope.spawn(move || {
                for (topic, envelope) in share {
                    peer.publish(*topic, vec![envelope.clone()]);
                }
            });
        }
    });
}
