//! What readers see of a server: a snapshot, never a lock.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use homehost_protocol::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::definition::ServerDefinition;

/// One line of a game's console.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Counts up over the whole life of the server, across restarts.
    pub seq: u64,
    /// When it was read.
    pub at: UnixMillis,
    /// The text, without its line end; colour codes are kept.
    pub text: String,
}

/// How a game ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitReport {
    /// Its exit code, if it ended by itself and the code is known.
    #[serde(default)]
    pub code: Option<i32>,
    /// The signal that ended it.
    #[serde(default)]
    pub signal: Option<i32>,
    /// Whether someone had asked for it.
    #[serde(default)]
    pub asked: bool,
    /// The step of the stop that worked, as in `SIGINT`.
    #[serde(default)]
    pub rung: Option<String>,
    /// When.
    pub at: UnixMillis,
    /// The last line it printed.
    #[serde(default)]
    pub last_line: Option<String>,
}

impl fmt::Display for ExitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            // Windows puts NTSTATUS values here; they are known by their hex form.
            (Some(code), _) if code < 0 => write!(f, "exit code 0x{:08x}", code.cast_unsigned()),
            (Some(code), _) => write!(f, "exit code {code}"),
            (None, Some(signal)) => match signal_name(signal) {
                Some(name) => write!(f, "{name}"),
                None => write!(f, "signal {signal}"),
            },
            (None, None) => f.write_str("an exit that nobody saw"),
        }
    }
}

/// Names of the signals that end games, by their number on Linux.
fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        31 => "SIGSYS",
        _ => return None,
    })
}

/// Where a server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not running.
    Offline,
    /// The process runs or is being made; it has not answered yet.
    Starting,
    /// It answered.
    Running,
    /// It was asked to end.
    Stopping,
    /// It crashed and starts again at this moment.
    Backoff {
        /// The moment.
        until: UnixMillis,
    },
    /// It crashed and is left alone until a person starts it.
    Crashed,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Offline => "offline",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Backoff { .. } => "backoff",
            Self::Crashed => "crashed",
        })
    }
}

/// One server at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerView {
    /// What the person decided.
    pub definition: Arc<ServerDefinition>,
    /// Where it is in its life.
    pub state: State,
    /// Since when.
    pub since: UnixMillis,
    /// The game's process.
    pub pid: Option<u32>,
    /// Its ports by name.
    pub ports: BTreeMap<String, u16>,
    /// Players now; `None` when that is not known.
    pub players: Option<u16>,
    /// Places: what the game says, else what the definition says.
    pub slots: Option<u16>,
    /// Whether it answered in this run.
    pub ready: bool,
    /// When it first answered in this run.
    pub ready_at: Option<UnixMillis>,
    /// Restarts after a crash since a person started it.
    pub restarts: u32,
    /// How it ended last.
    pub last_exit: Option<ExitReport>,
    /// What is wrong, in one sentence that says what to do.
    pub problem: Option<String>,
    /// What is worth knowing and not wrong, as in another port than before.
    pub note: Option<String>,
    /// The step of the stop that is under way.
    pub stopping_by: Option<String>,
    /// When it last answered its query.
    pub answered: Option<UnixMillis>,
}
