//! What a person can see of the network beyond the rows of a search.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::DirectoryRow;

/// What the DHT says of one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// Server id.
    pub id: String,
    /// The server, if anybody knows it.
    pub row: Option<DirectoryRow>,
    /// Peers that answered.
    pub answers: usize,
    /// Peers that gave the version that is shown.
    pub agree: usize,
    /// How many of those are independent: a block of addresses is one voice.
    pub voices: usize,
    /// Whether this node's own replica had it before it asked.
    pub known: bool,
    /// Milliseconds that it took.
    pub took_ms: u64,
}

/// Who could reach a server of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerReach {
    /// Server id.
    pub id: String,
    /// Name.
    pub name: String,
    /// When peers were asked last, RFC 3339; null when nobody was yet.
    pub at: Option<String>,
    /// What they were asked for, as in `30000/udp by luanti`.
    pub asked: Option<String>,
    /// What each said.
    pub witnesses: Vec<Witness>,
    /// One sentence: how it stands and what to do next.
    pub summary: String,
}

/// What one peer said that was asked to reach a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witness {
    /// Its peer id.
    pub node: String,
    /// Its address as this node sees it.
    pub from: Option<String>,
    /// The address at which it reached the server.
    pub reached: Option<String>,
    /// Players that it saw, if the game tells.
    pub players: Option<u16>,
    /// Why it did not reach it.
    pub problem: Option<String>,
}

/// What the mesh costs and what came of it, since the node's start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshStats {
    /// Seconds since the start.
    pub seconds: u64,
    /// Bytes by protocol: content of streams, without what transports add.
    pub traffic: Vec<Traffic>,
    /// Servers that are offered.
    pub listings: usize,
    /// Servers that were taken back and are remembered as such.
    pub tombstones: usize,
    /// Servers that witnesses proved.
    pub proved: usize,
    /// Hosts whose presence is known.
    pub hosts: usize,
    /// Key chains.
    pub key_chains: usize,
    /// Roots whose key chains contradict each other.
    pub key_conflicts: usize,
    /// Records that wait for a key chain.
    pub penned: usize,
    /// Records taken in.
    pub admitted: u64,
    /// Records not taken in, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Comparisons of whole replicas with peers.
    pub repairs: Repairs,
}

/// Bytes of one protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Which.
    pub protocol: String,
    /// Bytes that came.
    pub received: u64,
    /// Bytes that went.
    pub sent: u64,
}

/// Comparisons of whole replicas with peers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repairs {
    /// That came to their end.
    pub done: u64,
    /// That failed.
    pub failed: u64,
    /// Round trips of comparing.
    pub rounds: u64,
    /// Records that they brought.
    pub records: u64,
    /// Records that peers said they have and did not give.
    pub withheld: u64,
}
