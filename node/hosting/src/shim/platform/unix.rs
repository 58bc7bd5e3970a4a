//! Linux: sessions, process groups, pidfds, FIFOs and a socket in a folder.
//!
//! The game holds both ends of its console and of its input, for its standard
//! streams are FIFOs opened for reading and writing. So a shim that dies sends
//! it neither an end of input nor a SIGPIPE; what it prints waits in the pipe
//! until the next shim opens the FIFO again.

mod family;
mod gate;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{CWD, FileType, Gid, Mode, Uid};
use rustix::io::FdFlags;
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::net::unix::pipe;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tokio::sync::oneshot;

use super::super::files::{RUN_DIR, StartFile, StateFile};
use super::{Ended, Made, Note, Parts, input_line};

/// What the daemon talks to a shim through.
pub(crate) type Connection = UnixStream;

const CONSOLE: &str = "console";
const STDIN: &str = "stdin";
const CONTROL: &str = "control";

/// What a console may hold while no shim reads it. The most that an ordinary
/// user may ask for (`/proc/sys/fs/pipe-max-size`).
const CONSOLE_BYTES: usize = 1024 * 1024;

/// How long what a game left behind may take to go once it is killed: a process
/// that waits for a broken disk may take for ever.
const SWEEP: Duration = Duration::from_secs(1);

/// Between two looks at what is left.
const SWEEP_PAUSE: Duration = Duration::from_millis(5);

/// The thread that waits for the game does nothing else.
const WATCH_STACK_BYTES: usize = 64 * 1024;

/// Sees to it that no file which is open now is handed to a game: a daemon's
/// files may have come along, and not all of them say that they are private.
pub(in super::super) fn keep_files() {
    /// Standard input, output and error are given to each process anew.
    const STANDARD: RawFd = 3;
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers = open.filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok());
    for number in numbers.filter(|number| *number >= STANDARD) {
        #[expect(unsafe_code, reason = "what another program left open has a number only")]
        // SAFETY: it is borrowed for one call that closes nothing; a number that
        // is not open any more, as that of the listing itself, is an error.
        let file = unsafe { BorrowedFd::borrow_raw(number) };
        let _ = rustix::io::fcntl_setfd(file, FdFlags::CLOEXEC);
    }
}

/// Makes a folder the one of this shim, and the current one: every path is
/// relative from here on, and a socket's path has to be short.
pub(in super::super) fn enter(run_dir: &Path) -> io::Result<()> {
    std::env::set_current_dir(run_dir)
}

/// A file of this shim's folder.
pub(in super::super) fn own(name: &str) -> PathBuf {
    PathBuf::from(name)
}

/// Leaves the daemon's session, so that neither its terminal nor its end
/// reaches this process.
pub(in super::super) fn detach() {
    // Fails only for a group leader, which then is on its own already.
    let _ = rustix::process::setsid();
    // What a shim makes is its own; the game gets another mask.
    rustix::process::umask(Mode::from_raw_mode(0o077));
}

/// Prepares a command whose process is to outlive the daemon. Here the shim
/// itself sees to that.
pub(crate) fn detached(_command: &mut tokio::process::Command, _leave_job: bool) {}

/// Nothing: the one path that has to be short is relative.
pub(crate) fn too_deep(_path: &Path) -> Option<String> {
    None
}

/// Kills the game of that state without its shim, if it still is that game.
pub(crate) fn kill_outright(state: &StateFile) {
    if is_alive(state)
        && let Some(pid) = i32::try_from(state.pid).ok().and_then(Pid::from_raw)
    {
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        // It may have left the group that bears its number.
        let _ = rustix::process::kill_process(pid, Signal::KILL);
        // The shim is the first of the session, and is to tell of the end.
        for member in family::members(pid, state.session) {
            if Some(member.as_raw_pid().unsigned_abs()) != state.session {
                let _ = rustix::process::kill_process(member, Signal::KILL);
            }
        }
    }
}

/// The process that is the game.
#[derive(Debug)]
pub(in super::super) struct Process {
    pid: Pid,
    created: String,
    /// The session of the game, where it is nobody else's.
    session: Option<u32>,
    /// Always this process, whatever becomes of its number.
    pidfd: Arc<OwnedFd>,
    /// Resolves when the process has ended.
    end: oneshot::Receiver<()>,
    /// Only the shim that made it can read its exit code.
    child: Option<Child>,
}

impl Process {
    fn watch(pid: Pid, session: Option<u32>, child: Option<Child>) -> io::Result<Self> {
        let pidfd = Arc::new(rustix::process::pidfd_open(pid, PidfdFlags::empty())?);
        let watched = pidfd.clone();
        let (created, _) = created(pid).ok_or(io::ErrorKind::NotFound)?;
        let (told, end) = oneshot::channel();
        std::thread::Builder::new().name("watch".into()).stack_size(WATCH_STACK_BYTES).spawn(
            move || {
                wait_for_end(&watched);
                let _ = told.send(());
            },
        )?;
        Ok(Self { pid, created, session, pidfd, end, child })
    }

    /// Resolves when the process has ended. It is not reaped yet, so that its
    /// number cannot become another's while the group is swept.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub(in super::super) async fn ended(&mut self) -> Ended {
        let _ = (&mut self.end).await;
        Ended::default()
    }

    /// Collects the exit code where that is possible.
    pub(in super::super) fn reap(&mut self, unseen: Ended) -> Ended {
        match self.child.as_mut().map(Child::wait) {
            Some(Ok(status)) => Ended { code: status.code(), signal: status.signal() },
            _ => unseen,
        }
    }

    /// SIGINT, as from Ctrl-C, to the whole group.
    pub(in super::super) fn interrupt(&self) -> bool {
        self.signal(Signal::INT)
    }

    /// SIGTERM to the whole group.
    pub(in super::super) fn terminate(&self) -> bool {
        self.signal(Signal::TERM)
    }

    /// SIGKILL to whatever is left of the group and of the session.
    pub(in super::super) fn kill_group(&self) {
        self.signal(Signal::KILL);
        self.kill_members();
    }

    /// Kills what is left until nothing is, or until it will not go.
    pub(in super::super) async fn gone(&self) {
        self.signal(Signal::KILL);
        let give_up = Instant::now() + SWEEP;
        while self.kill_members() && Instant::now() < give_up {
            tokio::time::sleep(SWEEP_PAUSE).await;
        }
    }

    /// Whether there were any.
    fn kill_members(&self) -> bool {
        let us = rustix::process::getpid();
        let members = family::members(self.pid, self.session);
        let mut members = members.into_iter().filter(|member| *member != us).peekable();
        let any = members.peek().is_some();
        for member in members {
            let _ = rustix::process::kill_process(member, Signal::KILL);
        }
        any
    }

    fn signal(&self, signal: Signal) -> bool {
        let group = rustix::process::kill_process_group(self.pid, signal).is_ok();
        // A game can leave the group that was made for it.
        let left = rustix::process::getpgid(Some(self.pid)).is_ok_and(|group| group != self.pid);
        let leader = left && rustix::process::pidfd_send_signal(&*self.pidfd, signal).is_ok();
        group || leader
    }
}

/// Blocks until the process of a pidfd has ended: it is readable from then on.
fn wait_for_end(pidfd: &OwnedFd) {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    while matches!(rustix::event::poll(&mut fds, None), Err(rustix::io::Errno::INTR)) {}
}

/// What the game prints.
#[derive(Debug)]
pub(in super::super) struct Output(pipe::Receiver);

impl Output {
    fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let receiver = pipe::OpenOptions::new().read_write(true).open_receiver(path)?;
        // A smaller pipe works too, it only holds less.
        let _ = rustix::pipe::fcntl_setpipe_size(receiver.as_fd(), CONSOLE_BYTES);
        Ok(Self(receiver))
    }

    /// Bytes read, or 0 after a hindrance.
    ///
    /// # Cancel safety
    /// Nothing is lost when it is dropped.
    pub(in super::super) async fn read(&mut self, buffer: &mut [u8]) -> usize {
        if self.0.readable().await.is_err() {
            return std::future::pending().await;
        }
        self.0.try_read(buffer).unwrap_or(0)
    }

    /// What is left in the pipe once the game has ended; 0 at the end.
    pub(in super::super) async fn read_rest(&mut self, buffer: &mut [u8]) -> usize {
        // Straight from the pipe: the reactor may not know yet what is in it.
        rustix::io::read(self.0.as_fd(), buffer).unwrap_or(0)
    }
}

/// What the game reads.
#[derive(Debug)]
pub(in super::super) struct Input(pipe::Sender);

impl Input {
    fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        pipe::OpenOptions::new().read_write(true).open_sender(path).map(Self)
    }

    pub(in super::super) fn write_line(&mut self, line: &str) -> Result<(), String> {
        match rustix::io::write(self.0.as_fd(), &input_line(line)?) {
            Ok(_) => Ok(()),
            Err(rustix::io::Errno::AGAIN) => {
                Err("the game does not read its console: use what it offers instead".into())
            }
            Err(error) => Err(format!("the game's console cannot be written to ({error})")),
        }
    }
}

/// Makes the game.
pub(in super::super) fn spawn(start: &StartFile, note: &mut Note<'_>) -> Result<Parts, String> {
    for name in [CONSOLE, STDIN] {
        make_fifo(name, start).map_err(|error| format!("cannot make the FIFO {name}: {error}"))?;
    }
    let no_pipe = |error| format!("cannot open the game's console: {error}");
    let output = Output::open(CONSOLE).map_err(no_pipe)?;
    let input = Input::open(STDIN).map_err(no_pipe)?;
    let console = both_ends(CONSOLE).map_err(no_pipe)?;
    let stderr = console.try_clone().map_err(no_pipe)?;
    let stdin = both_ends(STDIN).map_err(no_pipe)?;
    let (program, args) = start.argv.split_first().ok_or("the start line is empty")?;
    let mut command = Command::new(resolved(program, &start.cwd));
    command.args(args).current_dir(&start.cwd).env_clear().envs(&start.env);
    command.stdin(Stdio::from(stdin)).stdout(Stdio::from(console)).stderr(Stdio::from(stderr));
    // Its own group: one signal reaches all of it and nothing else.
    command.process_group(0);
    if let Some(account) = &start.account {
        // Without groups of its own std clears the supplementary ones.
        command.gid(account.gid).uid(account.uid);
    }
    // The group may read what the game writes, strangers may not.
    let ours = rustix::process::umask(Mode::from_raw_mode(0o027));
    let session = family::own_session();
    let child = gate::spawn(command, |pid| {
        let (created, _) = created(pid).ok_or("the game's process cannot be seen in /proc")?;
        note(Made { pid: pid.as_raw_pid().unsigned_abs(), created, session })
    });
    rustix::process::umask(ours);
    let child = child.map_err(|failed| match failed {
        gate::Failed::Spawn(error) => explain(&error, program, start),
        gate::Failed::Refused(problem) => problem,
    })?;
    let pid = Pid::from_child(&child);
    match Process::watch(pid, session, Some(child)) {
        Ok(process) => Ok(Parts { process, output, input }),
        Err(error) => {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
            Err(format!("cannot watch the game's process ({error}): Linux 5.3 or newer is needed"))
        }
    }
}

/// A path is meant from the game's folder; a bare name is looked up.
fn resolved(program: &str, cwd: &Path) -> PathBuf {
    if program.contains('/') { cwd.join(program) } else { PathBuf::from(program) }
}

fn explain(error: &io::Error, program: &str, start: &StartFile) -> String {
    let program = resolved(program, &start.cwd);
    let program = program.display();
    match error.kind() {
        io::ErrorKind::NotFound => format!(
            "the program {program} was not found: correct the start line or install the game"
        ),
        io::ErrorKind::PermissionDenied => {
            let who = start.account.as_ref().map_or_else(
                || "this user".to_owned(),
                |account| format!("the user {}", account.name),
            );
            format!(
                "the program {program} may not be run by {who}: make it executable and its \
                 folders accessible"
            )
        }
        _ => format!("the program {program} could not be run ({error})"),
    }
}

fn make_fifo(name: &str, start: &StartFile) -> io::Result<()> {
    match std::fs::remove_file(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    rustix::fs::mknodat(CWD, name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
    if let Some(account) = &start.account {
        // Games that open `/dev/stdout` open this file anew.
        let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
        rustix::fs::chown(name, Some(uid), Some(gid))?;
    }
    Ok(())
}

fn both_ends(name: &str) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(name)
}

/// Takes over a game that an earlier shim made.
///
/// `None` means that it has ended; what is only in the way is an error, or a
/// living game would be declared dead.
pub(in super::super) fn adopt(
    state: &StateFile,
    start: &StartFile,
) -> Result<Option<Parts>, String> {
    let Some(pid) = i32::try_from(state.pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    let process = match Process::watch(pid, state.session, None) {
        Ok(process) => process,
        Err(_) if !is_alive(state) => return Ok(None),
        Err(error) => return Err(format!("cannot watch the game's process ({error})")),
    };
    // The descriptor is bound to one process, so this cannot change afterwards.
    if process.created != state.created {
        return Ok(None);
    }
    let no_pipe = |error| format!("cannot open the game's console: {error}");
    let output = fifo_of(pid, Stream { name: CONSOLE, number: 1 }, start).and_then(Output::open);
    let input = fifo_of(pid, Stream { name: STDIN, number: 0 }, start).and_then(Input::open);
    let (output, input) = (output.map_err(no_pipe)?, input.map_err(no_pipe)?);
    Ok(Some(Parts { process, output, input }))
}

/// One of a game's standard streams.
#[derive(Clone, Copy)]
struct Stream {
    /// Of its FIFO.
    name: &'static str,
    /// In the game.
    number: u32,
}

/// Where the FIFO of a living game can be opened. Someone who tidied the folder
/// up may have removed its name, but the game still has it.
fn fifo_of(game: Pid, stream: Stream, start: &StartFile) -> io::Result<PathBuf> {
    use std::os::unix::fs::FileTypeExt as _;
    let named = PathBuf::from(stream.name);
    if std::fs::symlink_metadata(&named).is_ok_and(|file| file.file_type().is_fifo()) {
        return Ok(named);
    }
    let open = format!("/proc/{}/fd/{}", game.as_raw_pid(), stream.number);
    if std::fs::metadata(&open).is_ok_and(|file| file.file_type().is_fifo()) {
        return Ok(open.into());
    }
    // The game closed it: it can at least be stopped by signals.
    make_fifo(stream.name, start)?;
    Ok(named)
}

/// Whether the process of that state still is the one it was.
pub(in super::super) fn is_alive(state: &StateFile) -> bool {
    i32::try_from(state.pid)
        .ok()
        .and_then(Pid::from_raw)
        .and_then(created)
        .is_some_and(|(created, ended)| created == state.created && !ended)
}

/// When a process was created: ticks since the boot (proc(5), `stat` field 22),
/// and which boot; and whether it has ended and only waits to be reaped.
fn created(pid: Pid) -> Option<(String, bool)> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    created_in(&stat).map(|(ticks, ended)| (format!("{}:{ticks}", boot.trim()), ended))
}

fn created_in(stat: &str) -> Option<(u64, bool)> {
    // The second field is the program's name and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X");
    Some((fields.nth(18)?.parse().ok()?, ended))
}

/// Signals that ask the shim itself to end, as a machine sends when it shuts
/// down: they stop the game in order. A hangup is ignored.
#[derive(Debug)]
pub(in super::super) struct EndSignals {
    terminate: Option<SignalStream>,
    interrupt: Option<SignalStream>,
    hangup: Option<SignalStream>,
}

impl EndSignals {
    pub(in super::super) fn new() -> Self {
        let stream = |kind| signal(kind).ok();
        Self {
            terminate: stream(SignalKind::terminate()),
            interrupt: stream(SignalKind::interrupt()),
            hangup: stream(SignalKind::hangup()),
        }
    }

    /// # Cancel safety
    /// May be dropped and called again.
    pub(in super::super) async fn received(&mut self) {
        async fn one(stream: &mut Option<SignalStream>) {
            let heard = match stream {
                Some(stream) => stream.recv().await,
                None => None,
            };
            if heard.is_none() {
                std::future::pending::<()>().await;
            }
        }
        loop {
            tokio::select! {
                () = one(&mut self.terminate) => return,
                () = one(&mut self.interrupt) => return,
                () = one(&mut self.hangup) => {}
            }
        }
    }
}

/// The shim's end of the control socket, in the current folder.
#[derive(Debug)]
pub(in super::super) struct Listener(UnixListener);

impl Listener {
    pub(in super::super) fn bind() -> io::Result<Self> {
        match std::fs::remove_file(CONTROL) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        UnixListener::bind(CONTROL).map(Self)
    }

    /// # Cancel safety
    /// May be dropped and called again.
    pub(in super::super) async fn accept(&mut self) -> io::Result<UnixStream> {
        self.0.accept().await.map(|(stream, _)| stream)
    }
}

/// Connects to the shim of the server with this folder.
///
/// A socket's path has room for 107 bytes; going through the descriptor of its
/// folder keeps it short however deep that is.
pub(crate) async fn connect(dir: &Path) -> io::Result<Connection> {
    let run = File::open(dir.join(RUN_DIR))?;
    UnixStream::connect(format!("/proc/self/fd/{}/{CONTROL}", run.as_raw_fd())).await
}

/// Makes a folder that others may pass through or not.
pub(crate) fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_creation_time_is_read_whatever_the_name() {
        let rest = (4..=22).map(|field| field.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(created_in(&format!("12 (a) b) S {rest} 23")), Some((22, false)));
        assert_eq!(created_in(&format!("12 (a) Z {rest}")), Some((22, true)));
        for stat in ["", "12", "12 (a)", "12 (a) S 1 2", "12 (a) S x"] {
            assert_eq!(created_in(stat), None, "{stat}");
        }
    }

    #[test]
    fn this_process_is_alive_and_another_creation_is_not() {
        let pid = std::process::id();
        let mut state = StateFile {
            run: 1,
            pid,
            created: created(rustix::process::getpid()).unwrap().0,
            started: homehost_protocol::UnixMillis(0),
            first_seq: 1,
            rung: None,
            session: None,
        };
        assert!(is_alive(&state));
        state.created.push('1');
        assert!(!is_alive(&state));
    }
}
