//! A process that waits, before it becomes the game, until it is on record.
//!
//! Otherwise a shim that dies between the two leaves a game behind that nobody
//! knows, and its successor starts a second one on the same world. The child
//! waits on a pipe whose other end only its maker has: if that closes without a
//! word, the child ends too.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

use rustix::pipe::PipeFlags;
use rustix::process::Pid;

/// Why there is no game.
pub(super) enum Failed {
    /// The system refused.
    Spawn(io::Error),
    /// It could not be noted; says why.
    Refused(String),
}

impl From<rustix::io::Errno> for Failed {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Spawn(error.into())
    }
}

/// Makes a process, has it noted, and lets it go on.
pub(super) fn spawn(
    mut command: Command,
    note: impl FnOnce(Pid) -> Result<(), String>,
) -> Result<Child, Failed> {
    let (its_number, tell_number) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (leave, give_leave) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let makers_end = give_leave.as_raw_fd();
    let wait = move || wait_for_leave(&tell_number, &leave, makers_end);
    #[expect(unsafe_code, reason = "only the child itself can wait between fork and exec")]
    // SAFETY: the closure makes system calls only; it neither allocates nor takes
    // a lock, which another thread might hold at the moment of the fork.
    unsafe {
        command.pre_exec(wait);
    }
    // `spawn` returns when the game's program is loaded, so it waits as well. Its
    // command, and with it our copy of the child's ends, goes when it is through.
    let spawning = std::thread::spawn(move || command.spawn());
    let mut number = [0; 4];
    let noted = match std::fs::File::from(its_number).read_exact(&mut number) {
        Ok(()) => Pid::from_raw(i32::from_ne_bytes(number)).map(note),
        // There was no process that could have told.
        Err(_) => None,
    };
    if let Some(Ok(())) = noted {
        // A child that is gone by now is an error of `spawn`.
        let _ = std::fs::File::from(give_leave).write_all(b"!");
    } else {
        drop(give_leave);
    }
    let spawned = spawning.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
    match (noted, spawned) {
        (Some(Err(problem)), _) => Err(Failed::Refused(problem)),
        (_, spawned) => spawned.map_err(Failed::Spawn),
    }
}

/// In the child: tells its number and waits.
fn wait_for_leave(tell: &OwnedFd, leave: &OwnedFd, makers_end: i32) -> io::Result<()> {
    #[expect(unsafe_code, reason = "the fork made a copy that no variable of the child owns")]
    // SAFETY: nothing in the child uses it again. Open, it would keep the pipe
    // from ending with its maker.
    unsafe {
        rustix::io::close(makers_end);
    }
    let number = rustix::process::getpid().as_raw_pid().to_ne_bytes();
    rustix::io::write(tell, &number)?;
    loop {
        match rustix::io::read(leave, &mut [0_u8; 1]) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(1) => {
                // A game gets no more rights than it begins with, as by a
                // setuid program.
                rustix::thread::set_no_new_privs(true)?;
                return Ok(());
            }
            Ok(_) => return Err(io::ErrorKind::BrokenPipe.into()),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: &std::path::Path) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo $$ > \"$0\""]).arg(path);
        command
    }

    #[test]
    fn a_process_that_is_not_noted_does_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ran");
        let refused = spawn(touch(&path), |_| Err("no".into()));
        assert!(matches!(refused, Err(Failed::Refused(why)) if why == "no"));
        let mut noted = 0;
        let mut child = spawn(touch(&path), |pid| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(!path.exists());
            noted = pid.as_raw_pid();
            Ok(())
        })
        .unwrap_or_else(|_| panic!("it can be made"));
        child.wait().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().trim(), noted.to_string());
    }

    #[test]
    fn a_missing_program_is_an_error_of_its_own() {
        let failed = spawn(Command::new("/no/such/program"), |_| Ok(()));
        assert!(
            matches!(failed, Err(Failed::Spawn(error)) if error.kind() == io::ErrorKind::NotFound)
        );
    }
}
