//! Everything that a person can see.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::PathKind;

/// What a node is and how it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Version of the program.
    pub version: String,
    /// Peer id.
    pub node: String,
    /// Root id of the owner.
    pub root: String,
    /// Network.
    pub network: String,
    /// When it started, RFC 3339.
    pub started: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// Its folder.
    pub data_dir: String,
    /// Where it listens, as multiaddrs with the peer id.
    pub addresses: Vec<String>,
    /// Connected peers.
    pub peers: usize,
    /// Peers that it remembers over a restart, connected or not.
    #[serde(default)]
    pub peers_remembered: usize,
    /// A sentence when it has no peer.
    pub alone: Option<String>,
    /// Listings in the replica.
    pub listings: usize,
    /// Tombstones in the replica.
    pub tombstones: usize,
    /// Its own servers that are running.
    pub servers_running: usize,
    /// Its own servers.
    pub servers: usize,
    /// What to tell the owner before the first server is listed for everybody;
    /// null once it was told, and where no address of a home would be told.
    #[serde(default)]
    pub before_public: Option<String>,
    /// What its owner should look at, in sentences that say what to do.
    #[serde(default)]
    pub attention: Vec<String>,
    /// Why nothing can be written to its folder now, as in "its disk is full";
    /// null when it can be.
    #[serde(default)]
    pub unwritable: Option<String>,
    /// What others' dates say of this machine's clock now; null while nobody
    /// spoke.
    #[serde(default)]
    pub clock: Option<ClockView>,
    /// Records not taken in since the start, by reason.
    pub refused: BTreeMap<String, u64>,
}

/// What others' dates say of the clock of a machine, each owner's word once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockView {
    /// How far it is off and what that means, as in "it is …"; null when it is
    /// as others have it.
    pub problem: Option<String>,
    /// How many others say so.
    #[serde(default)]
    pub owners: usize,
}

/// What a node was told, and from where it knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigView {
    /// The file that is read.
    pub file: String,
    /// Whether it is there.
    pub exists: bool,
    /// Every setting.
    pub settings: Vec<SettingView>,
    /// Settings that the file has changed and that count after a restart.
    pub waiting: Vec<String>,
    /// Why the file as it is now is not taken; the one before it counts.
    pub problem: Option<String>,
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingView {
    /// Its name, as in `mesh.listen`.
    pub key: String,
    /// Its value in TOML; null when it is at its default.
    pub value: Option<String>,
    /// The default, for a person.
    pub default: String,
    /// From where the value came: `default`, a file and line, a variable or an
    /// option.
    pub from: String,
    /// Whether a change counts while the node runs.
    pub live: bool,
}

/// Who a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Peer id of this machine.
    pub node: String,
    /// Root id of its owner.
    pub root: String,
    /// Number of this device among the owner's; null when it may not sign.
    pub device: Option<u8>,
    /// How often the owner's keys were rotated or revoked.
    pub key_epoch: u16,
    /// Network; null when no node is running.
    pub network: Option<String>,
    /// Where the keys lie.
    pub folder: String,
    /// Public half of this machine's signing key, in base32.
    pub key: String,
    /// Why this machine may not sign, and what to do.
    pub ended: Option<String>,
    /// The machines that sign for the owner, and those that did in this epoch.
    pub devices: Vec<Device>,
    /// Events of the owner's key chain.
    pub events: usize,
    /// Whether the owner has a recovery phrase.
    pub phrase: PhraseState,
    /// Root id that this machine waits to join.
    pub joining: Option<String>,
    /// A sentence when others hold key events that deny those of this node.
    pub conflict: Option<String>,
    /// Whether no rotation mends that.
    #[serde(default)]
    pub conflict_is_final: bool,
}

/// A machine of an owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its number; 0 may add and revoke others.
    pub device: u8,
    /// Its public key, in base32.
    pub key: String,
    /// Whether it may sign no longer.
    pub revoked: bool,
    /// Whether it is this machine.
    pub this: bool,
}

/// Whether an owner has a recovery phrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PhraseState {
    /// Its owner has it, and this machine does not.
    WithOwner,
    /// There is none: an interim recovery key lies on this machine's disk. What
    /// earlier releases said instead is read as this.
    #[serde(alias = "unseen", alias = "impossible")]
    NotYet,
}

/// A connected peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Peer id.
    pub node: String,
    /// Multiaddr of the connection.
    pub address: String,
    /// `host` or `bootstrap`.
    pub role: String,
    /// Program and version that it names.
    pub agent: String,
    /// `outgoing` or `incoming`.
    pub direction: String,
    /// How it is reached.
    pub path: PathKind,
    /// `tcp` or `quic`; null through a relay.
    pub transport: Option<String>,
    /// Round trip in milliseconds, once it is known.
    pub rtt_ms: Option<u64>,
    /// Seconds since the connection was made.
    pub connected_s: u64,
}

/// State of a hosted server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServerState {
    /// Not running.
    Offline,
    /// Running, but its query is not answered yet.
    Starting,
    /// Running and answering.
    Running,
    /// Being stopped.
    Stopping,
    /// Ended unasked; it will be started again in a moment.
    Backoff,
    /// Ended unasked too often; waits for a person.
    Crashed,
}

impl ServerState {
    /// The word for it, as in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
            Self::Crashed => "crashed",
        }
    }
}

/// Who learns of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Visibility {
    /// Everybody.
    #[default]
    Public,
    /// Whoever has its id.
    Unlisted,
    /// Nodes on the LAN of its host.
    Lan,
}

impl Visibility {
    /// The word for it, as in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Unlisted => "unlisted",
            Self::Lan => "lan",
        }
    }
}

/// A hosted server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Server id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Game slug.
    pub game: String,
    /// State.
    pub state: ServerState,
    /// Since when, RFC 3339.
    pub since: String,
    /// Process id of the game.
    pub pid: Option<u32>,
    /// Ports by name, as in `game` → `30000/udp`.
    pub ports: BTreeMap<String, String>,
    /// Players now, if that is known.
    pub players: Option<u16>,
    /// Places, if that is known.
    pub slots: Option<u16>,
    /// Unasked ends since a person started it.
    pub restarts: u32,
    /// How it ended last.
    pub last_exit: Option<String>,
    /// What is wrong and what to do next.
    pub problem: Option<String>,
    /// What is worth knowing and not wrong.
    pub note: Option<String>,
    /// Where players join, as far as this node knows.
    pub addresses: Vec<String>,
    /// Start line as it was given.
    pub exec: Vec<String>,
    /// Kind of query.
    pub query: String,
    /// Tags.
    pub tags: Vec<String>,
    /// Region.
    pub region: Option<String>,
    /// Who learns of it.
    #[serde(default)]
    pub visibility: Visibility,
    /// Its folder for the game's files.
    pub folder: String,
}

/// One line of a server's console.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Number of the line since the game was started.
    pub seq: u64,
    /// When it was written, RFC 3339.
    pub at: String,
    /// The line.
    pub text: String,
}

/// Orders of a search.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SortBy {
    /// Most players first.
    #[default]
    Players,
    /// By name.
    Name,
    /// Newest first.
    New,
    /// Most witnesses first.
    Proved,
}

/// What to look for. Everything left out does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiscoverQuery {
    /// Game slug.
    pub game: Option<String>,
    /// Tags, separated by commas, all of which must be there.
    pub tags: Option<String>,
    /// Region slug.
    pub region: Option<String>,
    /// Language.
    pub language: Option<String>,
    /// Beginning of the game's version, in whole parts: `5.6` finds `5.6.1`, not
    /// `5.60`.
    pub version: Option<String>,
    /// Whether players need a password.
    pub password: Option<bool>,
    /// Whether only invited players get in.
    pub whitelist: Option<bool>,
    /// Whether the game is modified.
    pub modded: Option<bool>,
    /// Whether players fight each other.
    pub pvp: Option<bool>,
    /// Only where witnesses got through.
    pub proved: bool,
    /// Words, each of which must be in name, description, game or tags.
    pub text: Option<String>,
    /// Only where somebody plays.
    pub has_players: bool,
    /// Also stale and withdrawn rows.
    pub all: bool,
    /// Order.
    pub sort: SortBy,
    /// Most rows wanted.
    pub limit: Option<usize>,
    /// Where the page before ended.
    pub cursor: Option<String>,
}

/// A page of servers of the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectoryPage {
    /// The rows, in order.
    pub rows: Vec<DirectoryRow>,
    /// The cursor that goes on, if the result does.
    pub next: Option<String>,
    /// How many rows match in all.
    pub matching: usize,
}

/// What is known of a row's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RowStatus {
    /// Its host spoke of it lately.
    Live,
    /// Its host is silent.
    Stale,
    /// Its host took it back.
    Withdrawn,
}

/// How far a row's addresses are known to be reachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// Only the host says so, or witnesses whose word does not count here.
    Claimed,
    /// Witnesses got through whose word counts here.
    Proved,
}

/// A server of the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryRow {
    /// Server id.
    pub id: String,
    /// Root id of its host.
    pub host: String,
    /// How often the host's keys had been rotated when this was signed.
    pub key_epoch: u16,
    /// Name.
    pub name: String,
    /// Game slug.
    pub game: String,
    /// Tags.
    pub tags: Vec<String>,
    /// Region.
    pub region: Option<String>,
    /// Players now; null when unknown, which is not 0.
    pub players: Option<u16>,
    /// Places; null when unknown.
    pub slots: Option<u16>,
    /// Where to join, as in `203.0.113.7:30000/udp`.
    pub addresses: Vec<String>,
    /// Status.
    pub status: RowStatus,
    /// Reach.
    pub reach: Reach,
    /// Witnesses that got through and whose word counts here.
    pub reach_proved: u8,
    /// Witnesses that got through, whether their word counts here or not.
    pub reach_said: u8,
    /// Witnesses that were asked, by the host's word.
    pub reach_asked: u8,
    /// When the last of them got through, RFC 3339.
    pub reach_at: Option<String>,
    /// How many seconds ago that was.
    #[serde(default)]
    pub reach_age_s: Option<u64>,
    /// Whether its host's key chains contradict each other: somebody else may
    /// have its keys.
    pub key_conflict: bool,
    /// When this version was signed, RFC 3339, by the host's clock.
    pub issued: String,
    /// When it was last known to be alive, RFC 3339.
    pub seen: String,
    /// False for a row that this node knew before its restart and that nobody
    /// has spoken of since.
    pub confirmed: bool,
    /// One sentence of the host.
    pub description: Option<String>,
    /// Language.
    pub language: Option<String>,
    /// Version of the game that players need.
    pub version: Option<String>,
    /// Whether players need a password.
    pub password: bool,
    /// Whether only invited players get in.
    pub whitelist: bool,
    /// Whether the game is modified.
    pub modded: bool,
    /// Whether players fight each other.
    pub pvp: bool,
}

/// A change to the result of a search.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum DirectoryChange {
    /// A row is new in the result, or different.
    Put {
        /// The row.
        row: Box<DirectoryRow>,
    },
    /// A row is no longer in the result.
    Gone {
        /// Its id.
        id: String,
    },
}
