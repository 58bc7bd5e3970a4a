//! The daemon's line to a shim: making one, finding one, and talking to it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::sync::mpsc;

use crate::console::Console;
use crate::definition::QueryKind;
use crate::folder::Folder;
use crate::query::PlayersFromLog;
use crate::shim::FirstWord;
use crate::shim::files::{self, ExitFile, StateFile};
use crate::shim::platform::{Connection, connect, detached, too_deep};
use crate::shim::wire::{self, FromShim, Status, ToShim};
use crate::view::ExitReport;

/// How long a shim may take to say its first word: a slow disk under load.
const FIRST_WORD: Duration = Duration::from_secs(30);

/// The longest first word.
const FIRST_WORD_BYTES_MAX: u64 = 16 * 1024;

/// How long a shim may take to answer a connection.
const HELLO: Duration = Duration::from_secs(5);

/// How long a shim is sought that is just starting or ending.
const ATTACH: Duration = Duration::from_secs(10);

/// Tries to put another shim in the place of one that died.
const ADOPTIONS_MAX: u32 = 5;

/// Between two looks.
const ATTACH_PAUSE: Duration = Duration::from_millis(100);

/// Requests that wait for the socket; a person sends them one by one.
pub(crate) const ASKS_MAX: usize = 32;

/// What the shim told.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    Status(Status),
    /// Players by the console, for games that tell only there.
    Players(Option<u16>),
    StdinRefused(String),
    /// The last event: the game ended.
    Exited(ExitReport),
    /// The last event: the shim is gone.
    Lost,
}

/// How often a shim is run again that [could not be](passes), and after what pause.
const SPAWN_AGAIN: u32 = 8;
const SPAWN_PAUSE: Duration = Duration::from_millis(250);

/// What became of the shim of an earlier daemon.
#[derive(Debug)]
pub(crate) enum Attached {
    /// It is there, or another has taken its place.
    Connected(Box<Connection>, Status),
    /// The game ended, as written down.
    Exited(ExitReport),
    /// Nothing ran.
    Nothing,
    /// It cannot be told; says why.
    Failed(String),
}

/// Makes a shim and waits for its first word.
pub(crate) async fn launch(exe: &Path, folder: &Folder, adopt: bool) -> Result<FirstWord, String> {
    if let Some(why) = [exe, &folder.data()].into_iter().find_map(too_deep) {
        return Err(why);
    }
    let spawn = |leave_job| {
        let mut command = tokio::process::Command::new(exe);
        command.arg("__shim").arg("--dir").arg(folder.path());
        if adopt {
            command.arg("--adopt");
        }
        // Nothing of the daemon's environment: it may hold secrets.
        command.env_clear();
        #[cfg(windows)]
        command.envs(
            ["SystemRoot", "PATH"].iter().filter_map(|name| Some((name, std::env::var_os(name)?))),
        );
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        detached(&mut command, leave_job);
        command.spawn()
    };
    // A job that lets nobody leave refuses; within it is better than nowhere.
    let run = || {
        spawn(true).or_else(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => spawn(false),
            _ => Err(error),
        })
    };
    let child = patiently(run).await;
    let mut child =
        child.map_err(|error| format!("cannot run {} as a shim ({error})", exe.display()))?;
    let out = child.stdout.take().ok_or("the shim has no output")?;
    let mut line = String::new();
    let mut out = BufReader::new(out.take(FIRST_WORD_BYTES_MAX));
    // Dropped while it runs, the child is left to run and reaped when it ends.
    match tokio::time::timeout(FIRST_WORD, out.read_line(&mut line)).await {
        Ok(Ok(_)) => serde_json::from_str(&line)
            .map_err(|_| "the shim ended without a word: see the system's log".to_owned()),
        Ok(Err(error)) => Err(format!("cannot hear the shim ({error})")),
        Err(_) => Err("the shim does not answer: see the load of this machine".to_owned()),
    }
}

/// Runs a program, again if it [cannot be](passes) for a moment.
async fn patiently<T>(mut run: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..SPAWN_AGAIN {
        match run() {
            Err(error) if passes(&error) => tokio::time::sleep(SPAWN_PAUSE).await,
            other => return other,
        }
    }
    run()
}

/// Whether a program that could not be run may be run in a moment.
fn passes(error: &io::Error) -> bool {
    /// Somebody else has the file open, as a virus scanner has a fresh one.
    const SHARING_VIOLATION: i32 = 32;
    /// What Wine says on a machine that does much else.
    const INTERNAL_ERROR: i32 = 1359;
    let of_windows = matches!(error.raw_os_error(), Some(SHARING_VIOLATION | INTERNAL_ERROR));
    error.kind() == io::ErrorKind::ExecutableFileBusy || cfg!(windows) && of_windows
}

/// Finds the game of an earlier daemon, or of a shim that died.
pub(crate) async fn attach(exe: &Path, folder: &Folder) -> Attached {
    let give_up = Instant::now() + ATTACH;
    let mut adoptions = 0;
    loop {
        let problem = match look(folder) {
            Ok(Seen::Nothing) => return Attached::Nothing,
            Ok(Seen::Ended(report)) => return Attached::Exited(report),
            // It has not said yet which process is its game.
            Ok(Seen::Starting) => "its shim is still starting".to_owned(),
            Ok(Seen::Game { shim }) => match greet(folder).await {
                Ok((stream, status)) => return Attached::Connected(Box::new(stream), status),
                Err(error) if shim => format!("its shim does not answer ({error})"),
                Err(_) => {
                    adoptions += 1;
                    match launch(exe, folder, true).await {
                        Ok(FirstWord::Runs { .. } | FirstWord::Ended) => continue,
                        Ok(FirstWord::Busy(why) | FirstWord::Failed(why)) | Err(why) => why,
                    }
                }
            },
            Err(error) => format!("its folder cannot be read ({error})"),
        };
        if adoptions >= ADOPTIONS_MAX || Instant::now() >= give_up {
            return Attached::Failed(problem);
        }
        tokio::time::sleep(ATTACH_PAUSE).await;
    }
}

/// What a server's folder shows.
enum Seen {
    Nothing,
    /// A shim lives and has noted no game yet, or is about to end.
    Starting,
    /// A game may be alive; its shim is or is not.
    Game {
        shim: bool,
    },
    Ended(ExitReport),
}

fn look(folder: &Folder) -> io::Result<Seen> {
    // First: a shim that ends in between has written down by then how it went.
    let shim = files::is_locked(&folder.run(""))?;
    let Some(state) = files::read::<StateFile>(&folder.run(files::STATE))? else {
        return Ok(if shim { Seen::Starting } else { Seen::Nothing });
    };
    Ok(match files::read::<ExitFile>(&folder.run(files::EXIT))? {
        Some(exit) if exit.run == state.run => Seen::Ended(exit.report),
        _ => Seen::Game { shim },
    })
}

/// Connects to a shim and hears how it is.
pub(crate) async fn greet(folder: &Folder) -> io::Result<(Connection, Status)> {
    let greeting = async {
        let mut stream = connect(folder.path()).await?;
        wire::hello(&mut stream).await?;
        match wire::receive(&mut stream).await? {
            Some(FromShim::Status(status)) => Ok((stream, status)),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "no status came first")),
        }
    };
    tokio::time::timeout(HELLO, greeting).await?
}

/// What the task of one connection works with.
pub(crate) struct Link {
    pub(crate) stream: Connection,
    pub(crate) status: Status,
    pub(crate) console: Arc<Console>,
    pub(crate) query: QueryKind,
    pub(crate) events: mpsc::Sender<LinkEvent>,
    pub(crate) asks: mpsc::Receiver<ToShim>,
}

impl Link {
    /// Passes messages on until the game ends or the shim is gone.
    pub(crate) async fn run(self) {
        let events = self.events.clone();
        let last = match self.talk().await {
            Ok(report) => LinkEvent::Exited(report),
            Err(_) => LinkEvent::Lost,
        };
        // Without an actor there is nobody to tell.
        let _ = events.send(last).await;
    }

    async fn talk(self) -> io::Result<ExitReport> {
        let Self { stream, status, console, query, events, mut asks } = self;
        let (mut read, mut write) = tokio::io::split(stream);
        wire::send(&mut write, &ToShim::Follow { after: console.latest() }).await?;
        let writer = async {
            while let Some(ask) = asks.recv().await {
                wire::send(&mut write, &ask).await?;
            }
            // The actor is gone: so is the reason to listen.
            Err(io::Error::from(io::ErrorKind::BrokenPipe))
        };
        let mut players = (query == QueryKind::Luanti).then(|| seen_so_far(&console, &status));
        let reader = async {
            let mut told = None;
            loop {
                let now = players.map(PlayersFromLog::players);
                if now != told {
                    told = now;
                    let _ = events.send(LinkEvent::Players(now.flatten())).await;
                }
                let Some(message) = wire::receive(&mut read).await? else { continue };
                let event = match message {
                    FromShim::Line(line) => {
                        if let Some(players) = &mut players {
                            players.line(&line.text);
                        }
                        if line.seq > console.latest() + 1 {
                            console.bridge_gap(&line).await;
                        }
                        console.push(line);
                        continue;
                    }
                    FromShim::Status(status) => LinkEvent::Status(status),
                    FromShim::StdinRefused { why } => LinkEvent::StdinRefused(why),
                    FromShim::Exited(report) => {
                        console.catch_up().await;
                        return Ok(report);
                    }
                };
                let _ = events.send(event).await;
            }
        };
        tokio::select! {
            result = reader => result,
            result = writer => result,
        }
    }
}

/// What the lines of this run tell that are here already.
fn seen_so_far(console: &Console, status: &Status) -> PlayersFromLog {
    let (lines, whole_run) = console.in_memory_after(status.first_seq.saturating_sub(1));
    let mut players = if whole_run { PlayersFromLog::fresh() } else { PlayersFromLog::default() };
    lines.iter().for_each(|line| players.line(&line.text));
    players
}

/// Forgets a run whose end was taken note of.
pub(crate) fn settle(folder: &Folder) {
    let state: PathBuf = folder.run(files::STATE);
    let _ = std::fs::remove_file(state);
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_that_is_held_open_is_run_when_it_is_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        std::fs::copy("/bin/true", &program).unwrap();
        let mut held = Some(std::fs::File::options().append(true).open(&program).unwrap());
        let mut tries = 0;
        let ended = patiently(|| {
            tries += 1;
            if tries == 3 {
                held = None;
            }
            std::process::Command::new(&program).status()
        });
        assert!(ended.await.unwrap().success());
        assert!(tries >= 3, "{tries}");
        let absent = folder.path().join("absent");
        let refused = patiently(|| std::process::Command::new(&absent).status()).await;
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
