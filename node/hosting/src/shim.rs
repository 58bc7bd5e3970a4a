//! The shim: one small process per game that owns it while daemons come and go.
//!
//! It owns the game's process group, its console and log, its input, its stop,
//! and a control socket. It never decides whether a game should run: it runs one
//! game once, writes down how that ended, and ends too.
//!
//! What it leaves in the server's `run` folder is its whole memory
//! ([`files`]), so that a shim that died can be followed by one that adopts the
//! game. On Windows a game does not outlive its shim: its console and its job
//! object go with it.

mod adopt;
pub(crate) mod files;
mod ladder;
pub(crate) mod log;
pub(crate) mod platform;
mod serve;
pub(crate) mod wire;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use adopt::{Begun, Problem};

/// The one line that a shim writes to its standard output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FirstWord {
    /// The game runs and the control socket listens.
    Runs {
        /// The game's process.
        pid: u32,
    },
    /// The game had ended before it could be adopted; `exit.json` says how.
    Ended,
    /// Another shim has a game of this server, or is about to make one, or a
    /// game is there without a shim. It is to be sought.
    Busy(String),
    /// Nothing runs.
    Failed(String),
}

/// What the hidden subcommand was asked.
#[derive(Debug, PartialEq, Eq)]
struct Args {
    /// The server's folder.
    dir: PathBuf,
    /// Take over a game whose shim died.
    adopt: bool,
}

impl Args {
    fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let (mut dir, mut adopt) = (None, false);
        while let Some(arg) = args.next() {
            match arg.to_str() {
                Some("--adopt") => adopt = true,
                Some("--dir") => dir = args.next().map(PathBuf::from),
                _ => return Err(format!("unknown argument {arg:?}")),
            }
        }
        dir.map(|dir| Self { dir, adopt }).ok_or_else(|| "--dir is missing".to_owned())
    }
}

/// Runs one game; `args` is what follows `__shim`.
///
/// Must be called before anything is loaded: the process stays as small as it
/// is at this moment for as long as the game runs.
pub fn shim_main(args: impl Iterator<Item = OsString>) -> ExitCode {
    match begin(args) {
        Ok(code) => code,
        Err(problem) => {
            say(&match problem {
                Problem::Busy(why) => FirstWord::Busy(why),
                Problem::Failed(why) => FirstWord::Failed(why),
            });
            ExitCode::FAILURE
        }
    }
}

fn begin(args: impl Iterator<Item = OsString>) -> Result<ExitCode, Problem> {
    let args = Args::parse(args)?;
    platform::keep_files();
    platform::detach();
    let run = args.dir.join(files::RUN_DIR);
    platform::enter(&run).map_err(|error| format!("cannot enter {}: {error}", run.display()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot make a runtime: {error}"))?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        // Before there is a game: signals that this process was told to ignore,
        // as in the background of a script, are the game's to receive again.
        let signals = platform::EndSignals::new();
        // Held until the process ends: never two shims for one server.
        let lock = files::lock().map_err(|error| format!("cannot take the lock: {error}"))?;
        let busy = || Problem::Busy("another shim runs this server".into());
        let _lock = lock.ok_or_else(busy)?;
        let begun = if args.adopt { adopt::adopt()? } else { adopt::spawn()? };
        match begun {
            Begun::Runs(session) => {
                let listener = platform::Listener::bind()
                    .map_err(|error| format!("cannot make the control socket: {error}"))?;
                say(&FirstWord::Runs { pid: session.state.pid });
                Ok(serve::serve(*session, listener, signals).await)
            }
            Begun::Ended => {
                say(&FirstWord::Ended);
                Ok(ExitCode::SUCCESS)
            }
        }
    })
}

/// Tells the daemon that made this process; it may be gone already.
fn say(word: &FirstWord) {
    if let Ok(mut line) = serde_json::to_string(word) {
        line.push('\n');
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_and_others_refused() {
        let parse = |args: &[&str]| Args::parse(args.iter().map(OsString::from));
        let dir = PathBuf::from("/x");
        assert_eq!(parse(&["--dir", "/x"]), Ok(Args { dir: dir.clone(), adopt: false }));
        assert_eq!(parse(&["--adopt", "--dir", "/x"]), Ok(Args { dir, adopt: true }));
        assert!(parse(&["--adopt"]).is_err());
        assert!(parse(&["--dir", "/x", "more"]).is_err());
    }
}
