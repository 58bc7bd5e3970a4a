//! What a node is told: by defaults, a file, the environment and options, the
//! later over the earlier, and of each value from where it came.
//!
//! [`SETTINGS`] is the one list of what can be said. [`mod@file`] reads and changes
//! `config.toml`, [`watch`] follows its changes while a node runs. Each part of
//! the node gets its own small struct made of a [`Config`], by value.

pub(crate) mod file;
mod log_filter;
mod settings;
pub(crate) mod watch;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use homehost_api::{ErrorKind, SettingView};
use homehost_mesh::Multiaddr;
use homehost_protocol::NetworkName;

pub(crate) use settings::{
    BOOTSTRAP, HTTP, Kind, LISTEN, LOG, LOG_VARIABLE, MDNS, NETWORK, PORT_MAPPING, SETTINGS,
    Setting, Value, docs, nearest, setting,
};

use crate::exit::{Failure, failure};

/// What variables of the environment begin with that are settings.
pub(crate) const VARIABLE_PREFIX: &str = "HOMEHOST__";

/// The file in the data folder that is read unless another is given.
pub(crate) fn default_file(data_dir: &Path) -> PathBuf {
    data_dir.join("config.toml")
}

/// The file that a node reads which is started now.
pub(crate) fn file_of(named: Option<&Path>, data_dir: &Path) -> PathBuf {
    named.map_or_else(|| default_file(data_dir), Path::to_owned)
}

/// What a node would be told that is started now, without options.
///
/// # Errors
/// One sentence.
pub(crate) fn at_rest(named: Option<&Path>, data_dir: &Path) -> Result<Config, Failure> {
    let below = file::load(&file_of(named, data_dir), named.is_some())?;
    let above = own_environment().map_err(|problems| refused(&problems))?;
    Ok(Config::of([below, above]))
}

/// From where a value came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The file, by its name and line.
    File(String, usize),
    /// A variable of the environment.
    Variable(String),
    /// An option of the command.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(name, line) => write!(f, "{name}:{line}"),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// A value that somebody gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

/// What one source says, by key.
pub(crate) type Layer = BTreeMap<&'static str, Given>;

/// Something in a source that cannot be taken, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {text}")]
pub(crate) struct Problem {
    /// File and line, or variable.
    pub(crate) place: String,
    pub(crate) text: String,
}

/// One sentence for all that is wrong.
pub(crate) fn refused(problems: &[Problem]) -> Failure {
    let mut text = problems.first().map(ToString::to_string).unwrap_or_default();
    match problems.len() {
        0 | 1 => {}
        2 => text.push_str(" (and one more: see `homehost config check`)"),
        n => text.push_str(&format!(" (and {} more: see `homehost config check`)", n - 1)),
    }
    failure(ErrorKind::Usage, text)
}

/// What counts, by key; a key that nobody gave is at its default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Config(Layer);

impl Config {
    /// Lays each layer over those before it.
    pub(crate) fn of(layers: impl IntoIterator<Item = Layer>) -> Self {
        Self(layers.into_iter().flatten().collect())
    }

    pub(crate) fn given(&self, key: &str) -> Option<&Given> {
        self.0.get(key)
    }

    /// Takes a value from another.
    fn take(&mut self, key: &'static str, from: &Self) {
        match from.0.get(key) {
            Some(given) => drop(self.0.insert(key, given.clone())),
            None => drop(self.0.remove(key)),
        }
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.0.get(key).map(|given| &given.value)
    }

    fn addresses(&self, key: &str) -> Vec<Multiaddr> {
        match self.value(key) {
            Some(Value::Addresses(addresses)) => addresses.clone(),
            _ => Vec::new(),
        }
    }

    /// Where to listen; nothing for all interfaces.
    pub(crate) fn listen(&self) -> Vec<Multiaddr> {
        self.addresses(LISTEN)
    }

    /// Whom to join first.
    pub(crate) fn bootstrap(&self) -> Vec<Multiaddr> {
        self.addresses(BOOTSTRAP)
    }

    pub(crate) fn network(&self) -> Option<NetworkName> {
        match self.value(NETWORK) {
            Some(Value::Network(name)) => Some(name.clone()),
            _ => None,
        }
    }

    pub(crate) fn mdns(&self) -> bool {
        !matches!(self.value(MDNS), Some(Value::Switch(false)))
    }

    pub(crate) fn port_mapping(&self) -> bool {
        !matches!(self.value(PORT_MAPPING), Some(Value::Switch(false)))
    }

    pub(crate) fn http(&self) -> Option<SocketAddr> {
        match self.value(HTTP) {
            Some(Value::Api(address)) => Some(*address),
            _ => None,
        }
    }

    pub(crate) fn log(&self) -> Option<&str> {
        match self.value(LOG) {
            Some(Value::Log(filter)) => Some(filter),
            _ => None,
        }
    }

    /// Every setting with its value and from where that came.
    pub(crate) fn view(&self) -> Vec<SettingView> {
        let view = |setting: &Setting| {
            let given = self.0.get(setting.key);
            SettingView {
                key: setting.key.to_owned(),
                value: given.map(|given| given.value.to_string()),
                default: setting.default.to_owned(),
                from: given.map_or_else(|| "default".to_owned(), |given| given.origin.to_string()),
                live: setting.live,
            }
        };
        SETTINGS.iter().map(view).collect()
    }
}

/// Reads the variables that are settings.
///
/// # Errors
/// All that cannot be taken.
pub(crate) fn environment(
    all: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Layer, Vec<Problem>> {
    let (mut layer, mut problems) = (Layer::new(), Vec::new());
    let mut variables = Vec::new();
    for (name, value) in all {
        let shown = name.to_string_lossy().into_owned();
        // An empty variable is how one is unset where that cannot be done.
        let log = shown == LOG_VARIABLE && !value.is_empty();
        if !log && !shown.starts_with(VARIABLE_PREFIX) {
            continue;
        }
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => variables.push((name, value)),
            (Ok(_), Err(value)) => {
                let value: String = value.to_string_lossy().chars().take(80).collect();
                let text = format!("its value {value:?} is not UTF-8: set it anew");
                problems.push(Problem { place: shown, text });
            }
            (Err(_), _) => {
                let text = "its name is not UTF-8, as no setting is called: unset it".to_owned();
                problems.push(Problem { place: shown, text });
            }
        }
    }
    // The short name of the filter before the long one, which counts more.
    variables.sort_by_key(|(name, _)| (name != LOG_VARIABLE, name.clone()));
    for (name, text) in variables {
        let key = match name.strip_prefix(VARIABLE_PREFIX) {
            Some(rest) => rest.to_ascii_lowercase().replace("__", "."),
            None => LOG.to_owned(),
        };
        let Some(setting) = setting(&key) else {
            let mut text = "no setting is called so".to_owned();
            if let Some(near) = nearest(&key) {
                text.push_str(&format!("; did you mean {}?", variable(near)));
            }
            problems.push(Problem { place: name, text });
            continue;
        };
        match setting.kind.read_text(&[&text]) {
            Ok(value) => {
                layer.insert(setting.key, Given { value, origin: Origin::Variable(name) });
            }
            Err(text) => problems.push(Problem { place: name, text }),
        }
    }
    if problems.is_empty() { Ok(layer) } else { Err(problems) }
}

/// The variable for a key.
pub(crate) fn variable(key: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"))
}

/// Variables that nobody reads and that were likely meant as settings: those with
/// one underscore where two belong.
pub(crate) fn mistaken(names: impl IntoIterator<Item = String>) -> Vec<Problem> {
    let mut problems: Vec<_> = names
        .into_iter()
        .filter(|name| !name.starts_with(VARIABLE_PREFIX) && name != LOG_VARIABLE)
        .filter_map(|name| {
            let flat = name.strip_prefix("HOMEHOST_")?.replace("__", "_");
            let meant = SETTINGS.iter().map(|setting| variable(setting.key));
            let mut meant =
                meant.filter(|of| of[VARIABLE_PREFIX.len()..].replace("__", "_") == flat);
            let text =
                format!("this is no setting and counts nothing; did you mean {}?", meant.next()?);
            Some(Problem { place: name, text })
        })
        .collect();
    problems.sort_by(|a, b| a.place.cmp(&b.place));
    problems
}

/// [`mistaken`] of this process's variables.
pub(crate) fn own_mistaken() -> Vec<Problem> {
    mistaken(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()))
}

/// This process's variables.
pub(crate) fn own_environment() -> Result<Layer, Vec<Problem>> {
    environment(std::env::vars_os())
}

/// What is said of a file that names another network than an invitation that it
/// keeps: an option or a variable counts more, but only as long as it is given.
pub(crate) fn another_network(given: &Given, invited: &NetworkName) -> String {
    format!(
        "{} says the network {}: `homehost config set {NETWORK} {invited}` lets a start without \
         other words find the way, too",
        given.origin, given.value
    )
}

#[cfg(test)]
mod tests;
