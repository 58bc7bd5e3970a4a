//! What a person decided about one game server: start line, ports, query, stop,
//! and what its listing says.
//!
//! The crate interprets the first four and carries the rest. A definition is
//! plain data; whoever stores it may choose any self-describing format, and a
//! reader meets fields it does not know with indifference.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use homehost_protocol::record::listing::Visibility;
use homehost_protocol::{ServerId, ServerNonce, Transport};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How long each step of a stop may take before the next one is tried.
/// Worlds of popular games save within a few seconds; home disks are slow.
pub const STOP_STEP: Duration = Duration::from_secs(20);

/// Servers of one node; the presence record of a device has room for this many.
pub const SERVERS_MAX: usize = homehost_protocol::limits::SERVERS_PER_DEVICE_MAX;

/// Ports of one server. Real games use up to four.
pub const PORTS_MAX: usize = 16;

/// Everything that a person decided about one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerDefinition {
    /// Whose name it is on the mesh.
    #[serde(with = "id_text")]
    pub id: ServerId,
    /// Tells the servers of one root apart.
    #[serde(with = "id_text")]
    pub nonce: ServerNonce,
    /// The name that people use; unique on this node.
    pub name: String,
    /// Game slug, as in `luanti`.
    pub game: String,
    /// The start line, split into words; see [`crate::parse_exec`].
    pub exec: Vec<String>,
    /// Ports by name.
    #[serde(default)]
    pub ports: BTreeMap<String, PortRequest>,
    /// How to ask the game whether it answers and who plays.
    #[serde(default)]
    pub query: Query,
    /// What to write to the console for a clean stop, as in `quit`.
    #[serde(default)]
    pub stop_command: Option<String>,
    /// How long each step of a stop may take.
    #[serde(default = "stop_step", with = "millis")]
    pub stop_timeout: Duration,
    /// Places for players.
    #[serde(default)]
    pub slots: Option<u16>,
    /// What the person asked for last; a restarted daemon goes by it.
    #[serde(default)]
    pub wanted: Wanted,
    /// Name of the server's folder; chosen by the hosting when it is added.
    #[serde(default)]
    pub folder: Option<String>,
    /// One sentence for the listing.
    #[serde(default)]
    pub description: Option<String>,
    /// Tags for the listing, sorted and unique.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Region slug for the listing, as in `eu`.
    #[serde(default)]
    pub region: Option<String>,
    /// Language for the listing, as in `de`.
    #[serde(default)]
    pub language: Option<String>,
    /// Version of the game that players need.
    #[serde(default)]
    pub game_version: Option<String>,
    /// Flags of the listing.
    #[serde(default)]
    pub flags: Option<u32>,
    /// Who learns of it, unless it is everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visibility: Option<Visibility>,
}

fn stop_step() -> Duration {
    STOP_STEP
}

impl ServerDefinition {
    /// A definition with nothing but what every server has.
    pub fn new(id: ServerId, nonce: ServerNonce, name: impl Into<String>) -> Self {
        Self {
            id,
            nonce,
            name: name.into(),
            game: String::new(),
            exec: Vec::new(),
            ports: BTreeMap::new(),
            query: Query::default(),
            stop_command: None,
            stop_timeout: STOP_STEP,
            slots: None,
            wanted: Wanted::Stopped,
            folder: None,
            description: None,
            tags: Vec::new(),
            region: None,
            language: None,
            game_version: None,
            flags: None,
            visibility: None,
        }
    }

    /// The port that the query goes to: the named one, else `query`, else
    /// `game`, else the only one.
    pub fn query_port(&self) -> Option<(&str, &PortRequest)> {
        let found = match &self.query.port {
            Some(name) => self.ports.get_key_value(name),
            None => self
                .ports
                .get_key_value("query")
                .or_else(|| self.ports.get_key_value("game"))
                .or_else(|| self.ports.first_key_value().filter(|_| self.ports.len() == 1)),
        };
        found.map(|(name, request)| (name.as_str(), request))
    }

    /// The ports that were assigned, by name.
    pub fn assigned_ports(&self) -> BTreeMap<String, u16> {
        self.ports
            .iter()
            .filter_map(|(name, request)| Some((name.clone(), request.assigned?)))
            .collect()
    }
}

/// One port that a game needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRequest {
    /// Datagrams or streams.
    #[serde(with = "transport_text")]
    pub transport: Transport,
    /// What the person asked for.
    pub want: PortWant,
    /// What the server got; it stays with it.
    #[serde(default)]
    pub assigned: Option<u16>,
}

/// Which port a person asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortWant {
    /// Any free one.
    Auto,
    /// This one and no other.
    Fixed(u16),
}

/// How a game is asked whether it answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// The protocol.
    #[serde(default)]
    pub kind: QueryKind,
    /// Name of the port; see [`ServerDefinition::query_port`].
    #[serde(default)]
    pub port: Option<String>,
}

/// The query protocols that the hosting speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueryKind {
    /// Valve's A2S, spoken by Source games and many others.
    A2s,
    /// Minecraft, Java or Bedrock.
    Minecraft,
    /// Quake 3 `getstatus`.
    Quake3,
    /// Luanti (Minetest): whether it answers, and players from its console.
    Luanti,
    /// Only whether a TCP connection is accepted.
    Tcp,
    /// Nothing is asked; a game that stays alive counts as ready.
    #[default]
    None,
}

impl QueryKind {
    /// Every kind with its name.
    pub const ALL: [(&'static str, Self); 6] = [
        ("a2s", Self::A2s),
        ("minecraft", Self::Minecraft),
        ("quake3", Self::Quake3),
        ("luanti", Self::Luanti),
        ("tcp", Self::Tcp),
        ("none", Self::None),
    ];
}

impl fmt::Display for QueryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, kind)| kind == self).map_or("none", |(name, _)| name);
        f.write_str(name)
    }
}

/// A query that the hosting does not speak.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not a known query: use a2s, minecraft, quake3, luanti, tcp or none")]
pub struct UnknownQuery(String);

impl FromStr for QueryKind {
    type Err = UnknownQuery;
    fn from_str(text: &str) -> Result<Self, UnknownQuery> {
        Self::ALL
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, kind)| *kind)
            .ok_or_else(|| UnknownQuery(text.chars().take(40).collect()))
    }
}

/// What a person asked for last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// It should run.
    Running,
    /// It should not.
    #[default]
    Stopped,
}

/// Ids as text, so that formats without byte strings can hold them too.
mod id_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<T: ToString, S: Serializer>(id: &T, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&id.to_string())
    }

    pub(super) fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// The transport by its name.
mod transport_text {
    use homehost_protocol::Transport;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(value: &Transport, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&value.to_string())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Transport, D::Error> {
        String::deserialize(from)?.parse().map_err(|_| D::Error::custom("unknown transport"))
    }
}

/// A span as whole milliseconds.
mod millis {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(span: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(span.as_millis().try_into().unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition() -> ServerDefinition {
        ServerDefinition::new(ServerId([1; 32]), ServerNonce([2; 16]), "alpha")
    }

    fn port(want: PortWant) -> PortRequest {
        PortRequest { transport: Transport::Udp, want, assigned: None }
    }

    #[test]
    fn what_is_stored_comes_back() {
        let mut definition = definition();
        definition.ports.insert("game".into(), port(PortWant::Fixed(30_000)));
        definition.query.kind = QueryKind::A2s;
        definition.wanted = Wanted::Running;
        let text = serde_json::to_string(&definition).unwrap();
        assert_eq!(serde_json::from_str::<ServerDefinition>(&text).unwrap(), definition);
    }

    #[test]
    fn a_definition_of_another_version_is_read() {
        let text = format!(
            r#"{{"id":"{}","nonce":"{}","name":"a","game":"b","exec":["c"],"newer":[1]}}"#,
            ServerId([1; 32]),
            ServerNonce([2; 16])
        );
        let definition: ServerDefinition = serde_json::from_str(&text).unwrap();
        assert_eq!(definition.stop_timeout, STOP_STEP);
        assert_eq!(definition.wanted, Wanted::Stopped);
    }

    #[test]
    fn the_query_port_is_found_by_name_then_by_habit() {
        let mut definition = definition();
        assert!(definition.query_port().is_none());
        definition.ports.insert("main".into(), port(PortWant::Auto));
        assert_eq!(definition.query_port().unwrap().0, "main");
        definition.ports.insert("game".into(), port(PortWant::Auto));
        assert_eq!(definition.query_port().unwrap().0, "game");
        definition.ports.insert("query".into(), port(PortWant::Auto));
        assert_eq!(definition.query_port().unwrap().0, "query");
        definition.query.port = Some("main".into());
        assert_eq!(definition.query_port().unwrap().0, "main");
    }

    #[test]
    fn query_kinds_have_names() {
        for (name, kind) in QueryKind::ALL {
            assert_eq!(name.parse(), Ok(kind));
            assert_eq!(kind.to_string(), name);
        }
        assert!("gamespy".parse::<QueryKind>().is_err());
    }
}
