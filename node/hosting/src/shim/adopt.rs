//! How a shim comes to its game: it makes one, or takes over one whose shim died.

use std::io;
use std::path::PathBuf;

use homehost_protocol::UnixMillis;
use homehost_runtime::wall_ms;
use serde::de::DeserializeOwned;

use super::files::{self, ExitFile, StartFile, StateFile};
use super::log::Log;
use super::platform::{self, Parts};
use crate::view::ExitReport;

/// A game and all that its shim knows of it.
pub(super) struct Session {
    pub(super) start: StartFile,
    pub(super) state: StateFile,
    pub(super) log: Log,
    pub(super) parts: Parts,
}

/// What there is to do.
pub(super) enum Begun {
    /// A game to look after.
    Runs(Box<Session>),
    /// Nothing: it has ended and that is written down.
    Ended,
}

fn log_dir() -> PathBuf {
    platform::own("..").join(files::LOG_DIR)
}

/// Why there is no game.
pub(super) enum Problem {
    /// There is one already, or a shim that sees to it.
    Busy(String),
    /// It cannot be made or taken over.
    Failed(String),
}

impl From<String> for Problem {
    fn from(problem: String) -> Self {
        Self::Failed(problem)
    }
}

fn read<T: DeserializeOwned>(name: &str) -> Result<Option<T>, String> {
    files::read(&platform::own(name)).map_err(|error| format!("cannot read {name} ({error})"))
}

fn needed<T: DeserializeOwned>(name: &str) -> Result<T, String> {
    read(name)?.ok_or_else(|| format!("{name} is missing or damaged"))
}

fn no_space(name: &str, error: &io::Error) -> String {
    format!("cannot write {name} ({error}): free some space")
}

/// Whether the run that `state.json` tells of has an end on record.
fn is_settled(state: &StateFile) -> Result<bool, String> {
    Ok(read::<ExitFile>(files::EXIT)?.is_some_and(|exit| exit.run == state.run))
}

/// Makes the process that `start.json` describes.
pub(super) fn spawn() -> Result<Begun, Problem> {
    let start: StartFile = needed(files::START)?;
    if let Some(state) = read::<StateFile>(files::STATE)?
        && !is_settled(&state)?
        && platform::is_alive(&state)
    {
        let why = format!("process {} of an earlier run is still alive", state.pid);
        return Err(Problem::Busy(why));
    }
    let mut log = Log::open(&log_dir());
    let first_seq = log.begin_run(start.next_seq);
    let mut noted = None;
    // Written before the game's program is loaded: a game that runs is known.
    let made = platform::spawn(&start, &mut |made| {
        let state = StateFile {
            run: start.run,
            pid: made.pid,
            created: made.created,
            started: UnixMillis(wall_ms()),
            first_seq,
            rung: None,
            session: made.session,
        };
        files::write(&platform::own(files::STATE), &state)
            .map_err(|error| no_space(files::STATE, &error))?;
        noted = Some(state);
        Ok(())
    });
    match (made, noted) {
        (Ok(parts), Some(state)) => Ok(Begun::Runs(Box::new(Session { start, state, log, parts }))),
        (made, _) => {
            // There is no game, so nothing may say that there is one.
            let _ = std::fs::remove_file(platform::own(files::STATE));
            Err(made.err().unwrap_or_else(|| "the game was not made".into()).into())
        }
    }
}

/// Takes over the process that `state.json` names, if it is still that process.
pub(super) fn adopt() -> Result<Begun, Problem> {
    let state: StateFile = needed(files::STATE)?;
    if is_settled(&state)? {
        return Ok(Begun::Ended);
    }
    let start = needed(files::START)?;
    let mut log = Log::open(&log_dir());
    log.begin_at(state.first_seq);
    if let Some(parts) = platform::adopt(&state, &start)? {
        return Ok(Begun::Runs(Box::new(Session { start, state, log, parts })));
    }
    log.end();
    let report = ExitReport {
        code: None,
        signal: None,
        // A stop that was under way has reached its end.
        asked: state.rung.is_some(),
        rung: None,
        at: UnixMillis(wall_ms()),
        last_line: log.last_line().map(str::to_owned),
    };
    record_exit(state.run, &report).map_err(|error| no_space(files::EXIT, &error))?;
    Ok(Begun::Ended)
}

/// Writes down how a run ended.
pub(super) fn record_exit(run: u64, report: &ExitReport) -> io::Result<()> {
    files::write(&platform::own(files::EXIT), &ExitFile { run, report: report.clone() })
}
