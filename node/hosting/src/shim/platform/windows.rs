//! Windows: a job object, a console without a window, and named pipes.
//!
//! The shim is the only other process on the game's console, so a Ctrl-C that it
//! raises reaches the game and its children and nothing else. The job object
//! ends the whole tree with the shim: a game does not outlive its shim here, and
//! there is nothing to adopt.

use std::io::{self, Read as _, Write as _};
use std::os::windows::io::{AsRawHandle as _, FromRawHandle as _, OwnedHandle};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use tokio::net::windows::named_pipe::{
    ClientOptions, NamedPipeClient, NamedPipeServer, ServerOptions,
};
use tokio::signal::windows::{CtrlBreak, CtrlC, ctrl_break, ctrl_c};
use tokio::sync::{mpsc, oneshot};
use windows_sys::Win32::Foundation::ERROR_PIPE_BUSY;
use windows_sys::Win32::System::Console::{
    CTRL_BREAK_EVENT, CTRL_C_EVENT, GenerateConsoleCtrlEvent,
};
use windows_sys::Win32::System::JobObjects::{
    AssignProcessToJobObject, CreateJobObjectW, JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION, JobObjectExtendedLimitInformation,
    SetInformationJobObject, TerminateJobObject,
};
use windows_sys::Win32::System::Threading::{CREATE_BREAKAWAY_FROM_JOB, CREATE_NO_WINDOW};

use super::super::files::{StartFile, StateFile};
use super::{Ended, Made, Note, Parts, input_line};

/// What the daemon talks to a shim through.
pub(crate) type Connection = NamedPipeClient;

/// Pieces of the console that wait for the loop; then the pipe holds the game up.
const PIECES_MAX: usize = 16;

/// Bytes of one piece.
const PIECE_BYTES: usize = 16 * 1024;

/// Lines that wait for a game that does not read its console.
const INPUT_LINES_MAX: usize = 16;

/// The code that a killed game ends with: what the system itself uses for Ctrl-C
/// would claim a clean end.
const KILLED: u32 = 1;

/// Pause before a pipe is asked again whose instances are all taken.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// Nothing to do: handles are not inherited unless they are meant to be.
pub(in super::super) fn keep_files() {}

/// A process made by [`detached`] is in no console of the daemon's already.
pub(in super::super) fn detach() {}

/// Prepares a command whose process is to outlive the daemon: it gets a console
/// of its own that nobody sees, and leaves the daemon's job.
pub(crate) fn detached(command: &mut tokio::process::Command, leave_job: bool) {
    let leave = if leave_job { CREATE_BREAKAWAY_FROM_JOB } else { 0 };
    command.creation_flags(CREATE_NO_WINDOW | leave);
}

/// Nothing to do: the job object does it.
pub(crate) fn kill_outright(_state: &StateFile) {}

/// Makes a folder; who may enter follows from the one above.
pub(crate) fn make_dir(path: &Path, _mode: u32) -> io::Result<()> {
    std::fs::create_dir_all(path)
}

/// The job that holds the game and its children.
#[derive(Debug)]
struct Job(OwnedHandle);

impl Job {
    fn new() -> io::Result<Self> {
        #[expect(unsafe_code, reason = "std has no job objects; both pointers may be null")]
        // SAFETY: null asks for default security and no name.
        let handle = unsafe { CreateJobObjectW(std::ptr::null(), std::ptr::null()) };
        if handle.is_null() {
            return Err(io::Error::last_os_error());
        }
        #[expect(unsafe_code, reason = "takes over the handle that was just made")]
        // SAFETY: the handle is valid and owned by nobody else.
        let job = Self(unsafe { OwnedHandle::from_raw_handle(handle) });
        let mut limits = JOBOBJECT_EXTENDED_LIMIT_INFORMATION::default();
        limits.BasicLimitInformation.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE;
        let size = u32::try_from(size_of_val(&limits)).map_err(io::Error::other)?;
        #[expect(unsafe_code, reason = "std has no job objects")]
        // SAFETY: the pointer and size describe `limits`, which outlives the call.
        let done = unsafe {
            SetInformationJobObject(
                job.0.as_raw_handle(),
                JobObjectExtendedLimitInformation,
                (&raw const limits).cast(),
                size,
            )
        };
        if done == 0 { Err(io::Error::last_os_error()) } else { Ok(job) }
    }

    fn take(&self, child: &std::process::Child) -> io::Result<()> {
        #[expect(unsafe_code, reason = "std has no job objects")]
        // SAFETY: both handles are open for as long as the borrows last.
        let done =
            unsafe { AssignProcessToJobObject(self.0.as_raw_handle(), child.as_raw_handle()) };
        if done == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn terminate(&self) {
        #[expect(unsafe_code, reason = "std has no job objects")]
        // SAFETY: the handle is open for as long as the borrow lasts.
        let _ = unsafe { TerminateJobObject(self.0.as_raw_handle(), KILLED) };
    }
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

    /// Ctrl-Break to all on this console; the shim itself ignores it.
    pub(in super::super) fn terminate(&self) -> bool {
        raise(CTRL_BREAK_EVENT)
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

/// Name of the pipe of the server with this folder: names are global, and a
/// path may hold what a name may not.
fn pipe_name(run_dir: &Path) -> String {
    let path = std::path::absolute(run_dir).unwrap_or_else(|_| run_dir.to_owned());
    let path = path.to_string_lossy().to_lowercase();
    format!(r"\\.\pipe\homehost-shim-{}", &blake3::hash(path.as_bytes()).to_hex()[..32])
}

/// The shim's end of the control pipe.
#[derive(Debug)]
pub(in super::super) struct Listener {
    name: String,
    next: NamedPipeServer,
}

impl Listener {
    pub(in super::super) fn bind() -> io::Result<Self> {
        let name = pipe_name(&std::env::current_dir()?);
        let next = ServerOptions::new().first_pipe_instance(true).create(&name)?;
        Ok(Self { name, next })
    }

    /// # Cancel safety
    /// May be dropped and called again.
    pub(in super::super) async fn accept(&mut self) -> io::Result<NamedPipeServer> {
        self.next.connect().await?;
        let next = ServerOptions::new().create(&self.name)?;
        Ok(std::mem::replace(&mut self.next, next))
    }
}

/// Connects to the shim of the server with this folder.
pub(crate) async fn connect(dir: &Path) -> io::Result<Connection> {
    let name = pipe_name(&dir.join(super::super::files::RUN_DIR));
    loop {
        match ClientOptions::new().open(&name) {
            Err(error) if error.raw_os_error() == Some(ERROR_PIPE_BUSY.cast_signed()) => {
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            other => return other,
        }
    }
}
