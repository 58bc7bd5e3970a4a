//! Windows: a job object, a console without a window, and named pipes.
//!
//! The shim is the only other process on the game's console, so a Ctrl-C that it
//! raises reaches the game and its children and nothing else. The job object
//! ends the whole tree with the shim: a game does not outlive its shim here, and
//! there is nothing to adopt.

mod job;
mod pipe;

use std::io::{self, Read as _, Write as _};
use std::os::windows::ffi::OsStrExt as _;
use std::os::windows::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::SyncSender;

use homehost_runtime::files::{Access, make_folder};
use tokio::signal::windows::{CtrlBreak, CtrlC, ctrl_break, ctrl_c};
use tokio::sync::{mpsc, oneshot};
use windows_sys::Win32::Globalization::CP_UTF8;
use windows_sys::Win32::System::Console::{
    CTRL_BREAK_EVENT, CTRL_C_EVENT, GenerateConsoleCtrlEvent, SetConsoleCP, SetConsoleCtrlHandler,
    SetConsoleOutputCP,
};
use windows_sys::Win32::System::Threading::{
    CREATE_BREAKAWAY_FROM_JOB, CREATE_NO_WINDOW, CREATE_SUSPENDED,
};

use self::job::{Job, resume};
use super::super::files::{StartFile, StateFile};
use super::{Ended, Made, Note, Parts, input_line};

pub(in super::super) use self::pipe::Listener;
pub(crate) use self::pipe::{Connection, connect};

/// Pieces of the console that wait for the loop; then the pipe holds the game up.
const PIECES_MAX: usize = 16;

/// Bytes of one piece.
const PIECE_BYTES: usize = 16 * 1024;

/// Lines that wait for a game that does not read its console.
const INPUT_LINES_MAX: usize = 16;

/// The longest path of a program, and of the folder in which it starts, in UTF-16
/// units: `MAX_PATH` less a closing backslash and zero. Files may lie deeper.
const PATH_UNITS_MAX: usize = 258;

/// The folder of this shim's files.
static RUN_DIR: OnceLock<PathBuf> = OnceLock::new();

/// Makes a folder the one of this shim. It does not become the current one,
/// whose path may not be long; nor does any other stay so that a person might
/// want to remove.
pub(in super::super) fn enter(run_dir: &Path) -> io::Result<()> {
    let run_dir = std::path::absolute(run_dir)?;
    if !run_dir.is_dir() {
        return Err(io::ErrorKind::NotFound.into());
    }
    if let Some(root) = std::env::var_os("SystemRoot") {
        // Where it is does not matter then.
        let _ = std::env::set_current_dir(root);
    }
    RUN_DIR.get_or_init(|| run_dir);
    Ok(())
}

fn run_dir() -> &'static Path {
    RUN_DIR.get().map_or(Path::new(""), PathBuf::as_path)
}

/// A file of this shim's folder.
pub(in super::super) fn own(name: &str) -> PathBuf {
    run_dir().join(name)
}

/// Nothing to do: handles are not inherited unless they are meant to be.
pub(in super::super) fn keep_files() {}

/// A process made by [`detached`] is in no console of the daemon's already. Its
/// own is made ready for the game: it speaks UTF-8, and Ctrl-C is heard in it
/// also if the daemon was told to ignore it.
pub(in super::super) fn detach() {
    #[expect(unsafe_code, reason = "std does not set up a console")]
    // SAFETY: no pointers. Without a console they fail, and there is nothing to
    // set up.
    unsafe {
        SetConsoleOutputCP(CP_UTF8);
        SetConsoleCP(CP_UTF8);
        SetConsoleCtrlHandler(None, 0);
    }
}

/// Prepares a command whose process is to outlive the daemon: it gets a console
/// of its own that nobody sees, and leaves the daemon's job.
pub(crate) fn detached(command: &mut tokio::process::Command, leave_job: bool) {
    let leave = if leave_job { CREATE_BREAKAWAY_FROM_JOB } else { 0 };
    command.creation_flags(CREATE_NO_WINDOW | leave);
}

/// Why no program can be started from a file or in a folder, if that is so.
pub(crate) fn too_deep(path: &Path) -> Option<String> {
    let units = path.as_os_str().encode_wide().count();
    (units > PATH_UNITS_MAX).then(|| {
        format!(
            "the path {} has {units} characters, and Windows starts no program with one of more \
             than {PATH_UNITS_MAX}: choose a data folder with a shorter path, with --data-dir",
            path.display()
        )
    })
}

/// Nothing to do: the job object does it.
pub(crate) fn kill_outright(_state: &StateFile) {}

/// Makes a folder that only the user of this process enters. Games run as that
/// user, whatever the mode says on Unix.
pub(crate) fn make_dir(path: &Path, _mode: u32) -> io::Result<()> {
    make_folder(path, Access::Private)
}

/// The process that is the game.
#[derive(Debug)]
pub(in super::super) struct Process {
    job: Job,
    end: oneshot::Receiver<Ended>,
}

impl Process {
    /// Resolves when the process has ended.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub(in super::super) async fn ended(&mut self) -> Ended {
        (&mut self.end).await.unwrap_or_default()
    }

    /// The code is known already.
    pub(in super::super) fn reap(&mut self, seen: Ended) -> Ended {
        seen
    }

    /// Ctrl-C to all on this console; the shim itself ignores it.
    pub(in super::super) fn interrupt(&self) -> bool {
        raise(CTRL_C_EVENT)
    }

    /// Ctrl-Break to all on this console, which the shim itself ignores, and the
    /// end of every window.
    pub(in super::super) fn terminate(&self) -> bool {
        let windows = self.job.close_windows();
        raise(CTRL_BREAK_EVENT) || windows
    }

    /// Nothing to wait for: a job ends as one.
    pub(in super::super) async fn gone(&self) {}

    /// Ends the whole job.
    pub(in super::super) fn kill_group(&self) {
        self.job.terminate();
    }
}

fn raise(event: u32) -> bool {
    #[expect(unsafe_code, reason = "std cannot raise console events")]
    // SAFETY: no pointers; group 0 is everything on this console.
    let done = unsafe { GenerateConsoleCtrlEvent(event, 0) };
    done != 0
}

/// What the game prints.
#[derive(Debug)]
pub(in super::super) struct Output {
    pieces: mpsc::Receiver<Vec<u8>>,
}

impl Output {
    /// # Cancel safety
    /// Nothing is lost when it is dropped.
    pub(in super::super) async fn read(&mut self, buffer: &mut [u8]) -> usize {
        match self.pieces.recv().await {
            Some(piece) => copy(&piece, buffer),
            None => std::future::pending().await,
        }
    }

    /// What is left once the game has ended; 0 at the end.
    pub(in super::super) async fn read_rest(&mut self, buffer: &mut [u8]) -> usize {
        self.pieces.recv().await.map_or(0, |piece| copy(&piece, buffer))
    }
}

fn copy(piece: &[u8], buffer: &mut [u8]) -> usize {
    // The loop's buffer is larger than any piece.
    let length = piece.len().min(buffer.len());
    buffer[..length].copy_from_slice(&piece[..length]);
    length
}

/// What the game reads.
#[derive(Debug)]
pub(in super::super) struct Input(SyncSender<Vec<u8>>);

impl Input {
    pub(in super::super) fn write_line(&mut self, line: &str) -> Result<(), String> {
        let mut bytes = input_line(line)?;
        bytes.insert(bytes.len() - 1, b'\r');
        self.0
            .try_send(bytes)
            .map_err(|_| "the game does not read its console: use what it offers instead".into())
    }
}

/// Makes the game.
pub(in super::super) fn spawn(start: &StartFile, note: &mut Note<'_>) -> Result<Parts, String> {
    let no_pipe = |error: io::Error| format!("cannot make the game's console: {error}");
    let (mut from_game, to_shim) = io::pipe().map_err(no_pipe)?;
    let stderr = to_shim.try_clone().map_err(no_pipe)?;
    let (program, args) = start.argv.split_first().ok_or("the start line is empty")?;
    let mut command = Command::new(resolved(program, &start.cwd));
    command.args(args).current_dir(&start.cwd).env_clear().envs(&start.env);
    command.stdin(Stdio::piped()).stdout(Stdio::from(to_shim)).stderr(Stdio::from(stderr));
    // It runs once it is in its job and noted.
    command.creation_flags(CREATE_SUSPENDED);
    let job = Job::new().map_err(|error| format!("cannot make a job object: {error}"))?;
    let mut child = command.spawn().map_err(|error| explain(&error, program))?;
    // The writing ends of this process go, or the pipe would never end.
    drop(command);
    if let Err(error) = job.take(&child) {
        let _ = child.kill();
        return Err(format!("cannot put the game into its job object: {error}"));
    }
    let (pid, stdin) = (child.id(), child.stdin.take());
    // Should this process die before it is noted, the job object ends the game.
    if let Err(problem) = note(Made { pid, created: String::new(), session: None }) {
        job.terminate();
        return Err(problem);
    }
    if let Err(error) = resume(pid) {
        job.terminate();
        return Err(format!("cannot let the game run: {error}"));
    }
    let (pieces_in, pieces) = mpsc::channel(PIECES_MAX);
    std::thread::spawn(move || {
        let mut buffer = vec![0; PIECE_BYTES];
        while let Ok(length) = from_game.read(&mut buffer) {
            if length == 0 || pieces_in.blocking_send(buffer[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    let (lines_in, lines) = std::sync::mpsc::sync_channel::<Vec<u8>>(INPUT_LINES_MAX);
    std::thread::spawn(move || {
        let Some(mut stdin) = stdin else { return };
        for line in lines {
            if stdin.write_all(&line).and_then(|()| stdin.flush()).is_err() {
                return;
            }
        }
    });
    let (told, end) = oneshot::channel();
    std::thread::spawn(move || {
        let code = child.wait().ok().and_then(|status| status.code());
        let _ = told.send(Ended { code, signal: None });
    });
    let process = Process { job, end };
    Ok(Parts { process, output: Output { pieces }, input: Input(lines_in) })
}

/// A path is meant from the game's folder; a bare name is looked up.
fn resolved(program: &str, cwd: &Path) -> PathBuf {
    if program.contains(['/', '\\']) { cwd.join(program) } else { PathBuf::from(program) }
}

fn explain(error: &io::Error, program: &str) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!(
            "the program {program} was not found: correct the start line or install the game"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "the program {program} may not be run: allow it in its properties or the virus scanner"
        ),
        _ => format!("the program {program} could not be run ({error})"),
    }
}

/// Nothing: the game ended with its shim.
pub(in super::super) fn adopt(
    _state: &StateFile,
    _start: &StartFile,
) -> Result<Option<Parts>, String> {
    Ok(None)
}

/// Nothing outlives its shim.
pub(in super::super) fn is_alive(_state: &StateFile) -> bool {
    false
}

/// Console events. To listen is to ignore what the shim raises itself, so none
/// of them is a request here.
#[derive(Debug)]
pub(in super::super) struct EndSignals {
    interrupt: Option<CtrlC>,
    terminate: Option<CtrlBreak>,
}

impl EndSignals {
    pub(in super::super) fn new() -> Self {
        Self { interrupt: ctrl_c().ok(), terminate: ctrl_break().ok() }
    }

    /// # Cancel safety
    /// May be dropped and called again.
    pub(in super::super) async fn received(&mut self) {
        let Self { interrupt, terminate } = self;
        loop {
            let heard = tokio::select! {
                heard = async { interrupt.as_mut()?.recv().await } => heard,
                heard = async { terminate.as_mut()?.recv().await } => heard,
            };
            if heard.is_none() {
                std::future::pending::<()>().await;
            }
        }
    }
}
