//! A person at a terminal: reads what a program shows and types answers.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// What ends a line of input that is empty: the end of all input.
const CTRL_D: u8 = 4;

/// A program that has a terminal of its own, and whoever sits at it.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    unread: String,
}

impl Terminal {
    /// Starts a program in a new terminal.
    ///
    /// # Panics
    /// When there is none to be had, or it cannot be started.
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let keyboard = openpt(flags).expect("the system has pseudoterminals");
        grantpt(&keyboard).and_then(|()| unlockpt(&keyboard)).expect("it is ours");
        let name = ptsname(&keyboard, Vec::new()).expect("it has a name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let end = || Stdio::from(open(&name, flags, Mode::empty()).expect("it can be opened"));
        command.stdin(end()).stdout(end()).stderr(end()).process_group(0);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        // With it goes our hold on the program's end, so that its end is seen.
        drop(command);
        let keyboard = File::from(keyboard);
        let mut screen = keyboard.try_clone().expect("a terminal has two handles");
        let (sender, shown) = mpsc::channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { child, keyboard, screen: shown, unread: String::new() }
    }

    /// Reads on until a text is there; all that was shown since the last time.
    ///
    /// # Panics
    /// When it does not come in time.
    #[track_caller]
    pub fn read_until(&mut self, text: &str, within: Duration) -> String {
        let deadline = Instant::now() + within;
        loop {
            if let Some(at) = self.unread.find(text) {
                let rest = self.unread.split_off(at + text.len());
                return std::mem::replace(&mut self.unread, rest);
            }
            match self.screen.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.unread.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{text:?}: not within {within:?}, but {:?}", self.unread)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("{text:?}: it ended with {:?}", self.unread)
                }
            }
        }
    }

    /// Types a line.
    ///
    /// # Panics
    /// When the terminal is gone.
    #[track_caller]
    pub fn type_line(&mut self, line: &str) {
        self.keyboard.write_all(format!("{line}\n").as_bytes()).expect("the terminal is there");
    }

    /// Ends the input, as Ctrl-D does.
    ///
    /// # Panics
    /// When the terminal is gone.
    #[track_caller]
    pub fn end_input(&mut self) {
        self.keyboard.write_all(&[CTRL_D]).expect("the terminal is there");
    }

    /// Waits for the program's end: its exit code, and what it showed last.
    ///
    /// # Panics
    /// When it goes on.
    #[track_caller]
    pub fn ended(&mut self, within: Duration) -> (Option<i32>, String) {
        let deadline = Instant::now() + within;
        loop {
            match self.screen.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.unread.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("it did not end within {within:?}: {:?}", self.unread)
                }
                // Nobody has the other end any more.
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = self.child.wait().expect("a child can be waited for");
        (status.code(), std::mem::take(&mut self.unread))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
