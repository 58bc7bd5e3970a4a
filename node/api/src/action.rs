//! Everything that a person can do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Server, Visibility};

/// On whose behalf something is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Principal {
    /// Whoever can read the token file of this node: its owner on this machine.
    LocalOwner,
}

/// A command, as it is sent, audited and replayed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Action {
    /// Define a server.
    ServerAdd(Box<NewServer>),
    /// Start it.
    ServerStart {
        /// Id, unique beginning of an id, or name.
        server: String,
    },
    /// Stop it, gently first.
    ServerStop {
        /// Id, unique beginning of an id, or name.
        server: String,
    },
    /// Stop and start it.
    ServerRestart {
        /// Id, unique beginning of an id, or name.
        server: String,
    },
    /// End it at once, without a save.
    ServerKill {
        /// Id, unique beginning of an id, or name.
        server: String,
    },
    /// Forget it.
    ServerRemove {
        /// Id, unique beginning of an id, or name.
        server: String,
        /// Whether its folder is deleted too.
        delete_data: bool,
    },
    /// Change who learns of it.
    ServerSet {
        /// Id, unique beginning of an id, or name.
        server: String,
        /// Who learns of it.
        visibility: Visibility,
    },
    /// Send a line to its console.
    ServerInput {
        /// Id, unique beginning of an id, or name.
        server: String,
        /// The line, without its end.
        line: String,
    },
    /// Join a network's nodes at the addresses of an invitation.
    MeshJoin {
        /// The invitation, as it was pasted.
        invite: String,
    },
    /// Stop this node.
    NodeStop {
        /// Whether its game servers are stopped first; otherwise they go on and
        /// the next start of the node finds them.
        games: bool,
    },
    /// Make the key of the next rotation ready, and tell from where it goes on.
    IdPrepare,
    /// Go on with a rotation or revocation that was signed elsewhere.
    IdApply {
        /// The signed key event, in hexadecimal.
        event: String,
        /// Machines that are added again after a rotation.
        #[serde(default)]
        keep_devices: Vec<u8>,
        /// The record that carries a revocation, in hexadecimal: nobody can sign
        /// it afterwards.
        #[serde(default)]
        record: Option<String>,
        /// Rotate also where that may contradict another rotation.
        #[serde(default)]
        force: bool,
    },
    /// Let another machine sign.
    IdDeviceAdd {
        /// Its public key, in base32.
        key: String,
    },
    /// Let a machine sign no longer.
    IdDeviceRevoke {
        /// Its number.
        device: u8,
    },
    /// Become a device of another root as soon as that root says so.
    IdDeviceJoin {
        /// Root id; null waits no longer.
        root: Option<String>,
    },
}

impl Action {
    /// Its name in the audit log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ServerAdd(_) => "server-add",
            Self::ServerStart { .. } => "server-start",
            Self::ServerStop { .. } => "server-stop",
            Self::ServerRestart { .. } => "server-restart",
            Self::ServerKill { .. } => "server-kill",
            Self::ServerRemove { .. } => "server-remove",
            Self::ServerSet { .. } => "server-set",
            Self::ServerInput { .. } => "server-input",
            Self::MeshJoin { .. } => "mesh-join",
            Self::NodeStop { .. } => "node-stop",
            Self::IdPrepare => "id-prepare",
            Self::IdApply { .. } => "id-apply",
            Self::IdDeviceAdd { .. } => "id-device-add",
            Self::IdDeviceRevoke { .. } => "id-device-revoke",
            Self::IdDeviceJoin { .. } => "id-device-join",
        }
    }
}

/// A server to be defined.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewServer {
    /// The name that players see.
    pub name: String,
    /// Game slug, as in `luanti`.
    pub game: String,
    /// Start line, with `{data}`, `{name}`, `{slots}` and `{port.NAME}`; no shell.
    pub exec: String,
    /// Ports by name, as in `game` → `auto/udp` or `30000/udp`.
    #[serde(default)]
    pub ports: BTreeMap<String, String>,
    /// How to ask the game whether it is there: `a2s`, `minecraft`, `quake3`,
    /// `luanti`, `tcp` or `none`, with `:PORT` for another port than the usual.
    #[serde(default = "none")]
    pub query: String,
    /// What to type into its console to stop it.
    #[serde(default)]
    pub stop_command: Option<String>,
    /// One sentence for players.
    #[serde(default)]
    pub description: Option<String>,
    /// Tags for players.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Region slug.
    #[serde(default)]
    pub region: Option<String>,
    /// Language.
    #[serde(default)]
    pub language: Option<String>,
    /// Version of the game that players need.
    #[serde(default)]
    pub game_version: Option<String>,
    /// Places for players.
    #[serde(default)]
    pub slots: Option<u16>,
    /// Whether players need a password.
    #[serde(default)]
    pub password: bool,
    /// Who learns of it.
    #[serde(default)]
    pub visibility: Visibility,
    /// Whether it is started at once.
    #[serde(default)]
    pub start: bool,
}

fn none() -> String {
    "none".into()
}

/// An action and the key that makes a repeat harmless.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionRequest {
    /// Up to 64 characters chosen by the caller; without one every request is new.
    #[serde(default)]
    pub key: Option<String>,
    /// What to do.
    pub action: Action,
}

/// What an action led to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// Number in the audit log.
    pub id: u64,
    /// Name of the action.
    pub action: String,
    /// When it was done, RFC 3339.
    pub at: String,
    /// One sentence for the person who asked.
    pub message: String,
    /// The server that it was about, as it is after the action.
    pub server: Option<Server>,
    /// What `id-prepare` made ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared: Option<PreparedKeys>,
}

/// What whoever has the recovery phrase needs to sign a rotation or revocation.
/// All of it is public.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedKeys {
    /// The key events until now, as the body of a key chain record, in
    /// hexadecimal.
    pub chain: String,
    /// The key that a rotation brings in, in base32.
    pub key: String,
    /// The network that records are signed for.
    pub network: Option<String>,
}
