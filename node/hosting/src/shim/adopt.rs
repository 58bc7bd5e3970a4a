//! How a shim comes to its game: it makes one, or takes over one whose shim died.

use std::io;
use std::path::Path;

use homehost_protocol::UnixMillis;
use homehost_runtime::wall_ms;

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

fn log_dir() -> &'static Path {
    Path::new("../logs")
}

fn started() -> Result<StartFile, String> {
    files::read(Path::new(files::START))
        .ok_or_else(|| format!("{} is missing or damaged", files::START))
}

/// Whether the run that `state.json` tells of has an end on record.
fn is_settled(state: &StateFile) -> bool {
    files::read::<ExitFile>(Path::new(files::EXIT)).is_some_and(|exit| exit.run == state.run)
}

/// Makes the process that `start.json` describes.
pub(super) fn spawn() -> Result<Begun, String> {
    let start = started()?;
    if let Some(state) = files::read::<StateFile>(Path::new(files::STATE))
        && !is_settled(&state)
        && platform::is_alive(&state)
    {
        return Err(format!("process {} of an earlier run is still alive", state.pid));
    }
    let mut log = Log::open(log_dir());
    let first_seq = log.begin_run();
    let parts = platform::spawn(&start)?;
    let state = StateFile {
        run: start.run,
        pid: parts.process.pid(),
        created: parts.process.created().to_owned(),
        started: UnixMillis(wall_ms()),
        first_seq,
        rung: None,
    };
    if let Err(error) = files::write(Path::new(files::STATE), &state) {
        parts.process.kill_group();
        return Err(format!("cannot write {} ({error}): free some space", files::STATE));
    }
    Ok(Begun::Runs(Box::new(Session { start, state, log, parts })))
}

/// Takes over the process that `state.json` names, if it is still that process.
pub(super) fn adopt() -> Result<Begun, String> {
    let state: StateFile = files::read(Path::new(files::STATE))
        .ok_or_else(|| format!("{} is missing or damaged", files::STATE))?;
    if is_settled(&state) {
        return Ok(Begun::Ended);
    }
    let start = started()?;
    let mut log = Log::open(log_dir());
    match platform::adopt(&state) {
        Some(parts) => Ok(Begun::Runs(Box::new(Session { start, state, log, parts }))),
        None => {
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
            record_exit(state.run, &report).map_err(|error| {
                format!("cannot write {} ({error}): free some space", files::EXIT)
            })?;
            Ok(Begun::Ended)
        }
    }
}

/// Writes down how a run ended.
pub(super) fn record_exit(run: u64, report: &ExitReport) -> io::Result<()> {
    files::write(Path::new(files::EXIT), &ExitFile { run, report: report.clone() })
}
