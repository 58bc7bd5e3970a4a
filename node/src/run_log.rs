//! The first and the last line of a run in the node's own log: what came up, and
//! why it ended. No address is in them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use homehost_protocol::NetworkName;

/// Why a node ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Through the API, as by `homehost down`.
    Asked,
    /// By a signal, as by Ctrl-C or a service manager.
    Signal,
    /// The machine goes down.
    Machine,
    /// A part of it failed.
    Failure,
}

impl Why {
    fn text(self) -> &'static str {
        match self {
            Self::Asked => "it was asked to",
            Self::Signal => "a signal",
            Self::Machine => "the machine goes down",
            Self::Failure => "a part of it failed",
        }
    }
}

/// A run of the node that came up. What keeps one from that is said to whoever
/// starts it, and is not in the log.
#[derive(Debug)]
pub(crate) struct RunLog {
    told: AtomicBool,
}

impl RunLog {
    /// The first line.
    pub(crate) fn begin(network: &NetworkName, data_dir: &Path) -> Self {
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            %network,
            folder = %without_home(data_dir, home().as_deref()),
            pid = std::process::id(),
            "the node is up"
        );
        Self { told: AtomicBool::new(false) }
    }

    /// The last line; what is told first counts.
    pub(crate) fn ends(&self, why: Why) {
        if !self.told.swap(true, Ordering::Relaxed) {
            tracing::info!(why = why.text(), "the node stops");
        }
    }
}

fn home() -> Option<PathBuf> {
    let variable = if cfg!(windows) { "USERPROFILE" } else { "HOME" };
    std::env::var_os(variable).map(PathBuf::from)
}

/// A folder without the name of the person in whose home it lies.
fn without_home(path: &Path, home: Option<&Path>) -> String {
    let home = home.filter(|home| home.parent().is_some());
    match home.and_then(|home| path.strip_prefix(home).ok()) {
        Some(below) => Path::new("~").join(below).display().to_string(),
        None => path.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_folder_in_a_home_does_not_say_whose() {
        for (path, home, shown) in [
            ("/home/anna/.local/share/homehost", Some("/home/anna"), "~/.local/share/homehost"),
            ("/home/annabel/x", Some("/home/anna"), "/home/annabel/x"),
            ("/var/lib/homehost", Some("/"), "/var/lib/homehost"),
            ("/var/lib/homehost", Some(""), "/var/lib/homehost"),
            ("/var/lib/homehost", None, "/var/lib/homehost"),
        ] {
            assert_eq!(without_home(Path::new(path), home.map(Path::new)), shown);
        }
    }
}
