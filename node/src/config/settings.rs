//! The one list of settings: what they are called, what they take, what they do.

use std::fmt;
use std::net::SocketAddr;

use homehost_mesh::Multiaddr;
use homehost_mesh::address::{is_listenable, is_reachable};
use homehost_protocol::NetworkName;
use toml_edit::Item;

use super::log_filter;

pub(crate) const LISTEN: &str = "mesh.listen";
pub(crate) const BOOTSTRAP: &str = "mesh.bootstrap";
pub(crate) const NETWORK: &str = "mesh.network";
pub(crate) const MDNS: &str = "mesh.mdns";
pub(crate) const PORT_MAPPING: &str = "mesh.port_mapping";
pub(crate) const HTTP: &str = "http.listen";
pub(crate) const LOG: &str = "log";

/// The variable that said what is logged before there were settings.
pub(crate) const LOG_VARIABLE: &str = "HOMEHOST_LOG";

/// Addresses of one setting; each is dialled or listened on.
pub(super) const ADDRESSES_MAX: usize = 64;

/// What is shown of a wrong value.
const SHOWN_CHARS: usize = 80;

/// One thing that can be set.
#[derive(Debug)]
pub(crate) struct Setting {
    /// Its name in the file, as in `mesh.listen`.
    pub(crate) key: &'static str,
    pub(crate) kind: Kind,
    /// Whether a change counts while the node runs; others wait for a restart.
    pub(crate) live: bool,
    /// The option of `homehost up` that says the same.
    pub(crate) flag: Option<&'static str>,
    /// What holds when nobody says anything, for a person.
    pub(crate) default: &'static str,
    /// What it does, one sentence a line.
    pub(crate) about: &'static str,
    /// A value as the file has it.
    pub(crate) example: &'static str,
}

/// All settings. A new one needs somebody who asked for it.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting {
        key: LOG,
        kind: Kind::Log,
        live: true,
        flag: None,
        default: "\"warn,libp2p=error,homehost=info\"",
        about: "What is logged to standard error: a level, or levels for parts of the program.\n\
                The variable HOMEHOST_LOG says the same.",
        example: "\"warn,libp2p=error,homehost=debug\"",
    },
    Setting {
        key: HTTP,
        kind: Kind::Api,
        live: false,
        flag: Some("--http"),
        default: "the first free port from 7780",
        about: "Loopback address of the HTTP API.",
        example: "\"127.0.0.1:7780\"",
    },
    Setting {
        key: BOOTSTRAP,
        kind: Kind::Dial,
        live: true,
        flag: Some("--bootstrap"),
        default: "[]",
        about: "Nodes to join first; ask your community for one.\n\
                An invitation (homehost mesh join) adds its addresses here.",
        example: "[\"/ip4/203.0.113.7/tcp/4001\", \"/dns4/boot.example.org/tcp/4001\"]",
    },
    Setting {
        key: LISTEN,
        kind: Kind::Listen,
        live: false,
        flag: Some("--listen"),
        default: "all interfaces, on the first free port from 4011",
        about: "Where others reach this node: /tcp/PORT, or /udp/PORT/quic-v1, of an IP address.\n\
                Port 0 is a free one.",
        example: "[\"/ip4/0.0.0.0/tcp/4011\", \"/ip4/0.0.0.0/udp/4011/quic-v1\"]",
    },
    Setting {
        key: MDNS,
        kind: Kind::Switch,
        live: false,
        flag: Some("--no-mdns"),
        default: "true",
        about: "Whether to look for nodes on the LAN.",
        example: "false",
    },
    Setting {
        key: PORT_MAPPING,
        kind: Kind::Switch,
        live: false,
        flag: Some("--no-port-mapping"),
        default: "true",
        about: "Whether to ask the router to forward ports (UPnP, NAT-PMP, PCP).",
        example: "false",
    },
    Setting {
        key: NETWORK,
        kind: Kind::Network,
        live: false,
        flag: Some("--network"),
        default: "main; local when every mesh.listen is loopback",
        about: "The network to join: nodes of different networks never meet.",
        example: "\"my-club\"",
    },
];

/// The setting of a name.
pub(crate) fn setting(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// The key that somebody may have meant.
pub(crate) fn nearest(key: &str) -> Option<&'static str> {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let distance = |of: &Setting| {
        let whole = strsim::damerau_levenshtein(of.key, key);
        // The right name in the wrong section is one mistake.
        if last(of.key) == last(key) { whole.min(1) } else { whole }
    };
    let near = SETTINGS.iter().map(|of| (distance(of), of.key)).min()?;
    (near.0 <= (key.chars().count() / 3).max(1)).then_some(near.1)
}

/// What a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Addresses to dial.
    Dial,
    /// Addresses to listen on.
    Listen,
    Network,
    Switch,
    Api,
    Log,
}

impl Kind {
    fn expected(self) -> &'static str {
        match self {
            Self::Dial | Self::Listen => {
                "a list of multiaddrs, as in [\"/ip4/203.0.113.7/tcp/4001\"]"
            }
            Self::Network => "the name of a network, as in \"main\"",
            Self::Switch => "true or false",
            Self::Api => "a loopback address with a port, as in \"127.0.0.1:7780\"",
            Self::Log => "a filter of the log, as in \"warn,homehost=debug\"",
        }
    }

    /// Reads what was typed, or stands in a variable: of a list, the items with
    /// commas or spaces between, or as separate words.
    ///
    /// # Errors
    /// What was expected.
    pub(crate) fn read_text(self, words: &[&str]) -> Result<Value, String> {
        if matches!(self, Self::Dial | Self::Listen) {
            // As it stands in the file is fine, too.
            let bare = |c: char| c == ',' || c.is_whitespace() || "[]\"'".contains(c);
            let items = words.iter().flat_map(|word| word.split(bare));
            return self.list(items.filter(|item| !item.is_empty()));
        }
        match words {
            [word] => self.single(word.trim_matches('"')),
            _ => Err(format!("expected {}, found {} words", self.expected(), words.len())),
        }
    }

    /// Reads what stands in the file.
    ///
    /// # Errors
    /// What was expected and what was found.
    pub(super) fn read_item(self, item: &Item) -> Result<Value, String> {
        let wrong = || format!("expected {}, found {}", self.expected(), found(item));
        match self {
            Self::Dial | Self::Listen => {
                let array = item.as_array().ok_or_else(wrong)?;
                let items: Option<Vec<_>> = array.iter().map(|item| item.as_str()).collect();
                self.list(items.ok_or_else(|| {
                    format!("expected {}, found other things in the list", self.expected())
                })?)
            }
            Self::Switch => item.as_bool().map(Value::Switch).ok_or_else(wrong),
            Self::Network | Self::Api | Self::Log => self.single(item.as_str().ok_or_else(wrong)?),
        }
    }

    fn list<'a>(self, items: impl IntoIterator<Item = &'a str>) -> Result<Value, String> {
        let mut addresses = Vec::new();
        for item in items {
            let address = item.parse::<Multiaddr>().map_err(|_| self.not(item))?;
            if address.is_empty() {
                return Err(self.not(item));
            }
            self.fits(&address)?;
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.len() > ADDRESSES_MAX {
            return Err(format!("at most {ADDRESSES_MAX} addresses are taken: leave some out"));
        }
        Ok(Value::Addresses(addresses))
    }

    /// Whether an address can be used for what it is given for.
    ///
    /// # Errors
    /// Why not, with an example.
    pub(crate) fn fits(self, address: &Multiaddr) -> Result<(), String> {
        let shown: String = address.to_string().chars().take(SHOWN_CHARS).collect();
        match self {
            Self::Listen if !is_listenable(address) => Err(format!(
                "{shown} cannot be listened on: an IP address with /tcp/PORT or \
                 /udp/PORT/quic-v1 can, as in /ip4/0.0.0.0/tcp/4011"
            )),
            Self::Dial if !is_reachable(&before_relay(address)) => Err(format!(
                "{shown} cannot be dialled: an IP address or a name can, with /tcp/PORT or \
                 /udp/PORT/quic-v1, as in /dns4/boot.example.org/tcp/4001"
            )),
            _ => Ok(()),
        }
    }

    fn single(self, text: &str) -> Result<Value, String> {
        match self {
            Self::Dial | Self::Listen => self.list([text]),
            Self::Network => match text.parse::<NetworkName>() {
                Ok(name) => Ok(Value::Network(name)),
                Err(error) => Err(format!("{}: {error}", self.not(text))),
            },
            Self::Switch => match text {
                "true" => Ok(Value::Switch(true)),
                "false" => Ok(Value::Switch(false)),
                _ => Err(self.not(text)),
            },
            Self::Api => match text.parse::<SocketAddr>() {
                Ok(address) if address.ip().is_loopback() => Ok(Value::Api(address)),
                _ => Err(self.not(text)),
            },
            Self::Log => match log_filter::read(text) {
                Ok(filter) => Ok(Value::Log(filter)),
                Err(why) => Err(format!("{}: {why}", self.not(text))),
            },
        }
    }

    fn not(self, text: &str) -> String {
        // A hostile text may be long; what is shown is bounded.
        let text: String = text.chars().take(SHOWN_CHARS).collect();
        format!("expected {}, found {text:?}", self.expected())
    }
}

/// The address of the relay, if it leads through one.
fn before_relay(address: &Multiaddr) -> Multiaddr {
    let text = address.to_string();
    let relay = text.split_once("/p2p-circuit").and_then(|(relay, _)| relay.parse().ok());
    relay.unwrap_or_else(|| address.clone())
}

fn found(item: &Item) -> &'static str {
    match item.type_name() {
        "string" => "a text",
        "integer" | "float" => "a number",
        "boolean" => "true or false",
        "array" | "array of tables" => "a list",
        "datetime" => "a date",
        _ => "a section",
    }
}

/// A value that is sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Addresses(Vec<Multiaddr>),
    Network(NetworkName),
    Switch(bool),
    Api(SocketAddr),
    Log(String),
}

impl Value {
    /// As the file has it.
    pub(super) fn to_toml(&self) -> toml_edit::Value {
        match self {
            Self::Addresses(list) => {
                list.iter().map(ToString::to_string).collect::<toml_edit::Array>().into()
            }
            Self::Network(name) => name.as_str().into(),
            Self::Switch(on) => (*on).into(),
            Self::Api(address) => address.to_string().into(),
            Self::Log(filter) => filter.as_str().into(),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to_toml().to_string().trim())
    }
}

/// A whole file in which every setting is explained and none is set.
pub(crate) fn docs() -> String {
    let mut text = String::from(
        "# Settings of a HomeHost node.\n\
         #\n\
         # What stands here counts unless a variable HOMEHOST__SECTION__KEY or an option of\n\
         # `homehost up` says something else. A line counts once its # is removed.\n",
    );
    let mut section = "";
    for setting in SETTINGS {
        let (of, name) = setting.key.rsplit_once('.').unwrap_or(("", setting.key));
        if of != section {
            section = of;
            text.push_str(&format!("\n[{of}]\n"));
        }
        text.push('\n');
        for line in setting.about.lines() {
            text.push_str(&format!("# {line}\n"));
        }
        if let Some(flag) = setting.flag {
            text.push_str(&format!(
                "# Option: {flag}. Variable: {}.\n",
                super::variable(setting.key)
            ));
        } else {
            text.push_str(&format!("# Variable: {}.\n", super::variable(setting.key)));
        }
        text.push_str(if setting.live {
            "# A change counts at once.\n"
        } else {
            "# A change counts after a restart of the node.\n"
        });
        text.push_str(&format!("# Default: {}.\n", setting.default));
        text.push_str(&format!("#{name} = {}\n", setting.example));
    }
    text
}
