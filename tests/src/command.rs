//! Commands that end, and commands that go on printing.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::{Signal, send};

/// How a command ended and what it printed.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Answer {
    /// The one JSON value on standard output.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_str(&self.stdout) {
            Ok(value) => value,
            Err(error) => panic!("no JSON ({error}): {self:?}"),
        }
    }

    /// One JSON value a line.
    ///
    /// # Panics
    /// When a line is something else.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<Value> {
        self.stdout
            .lines()
            .map(|line| match serde_json::from_str(line) {
                Ok(value) => value,
                Err(error) => panic!("no JSON ({error}): {line:?}"),
            })
            .collect()
    }

    /// The sentence of a failure with this exit code, as `--json` prints it.
    ///
    /// # Panics
    /// When it ended otherwise.
    #[track_caller]
    pub fn refusal(&self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.stdout, "", "a failure prints no answer");
        match serde_json::from_str::<Value>(&self.stderr) {
            Ok(body) => body["error"]["message"].as_str().expect("a message").to_owned(),
            Err(error) => panic!("no JSON on standard error ({error}): {self:?}"),
        }
    }
}

/// Runs a command to its end, or kills it when its time is over.
///
/// # Panics
/// When it cannot be started or its time is over.
#[track_caller]
pub fn run(command: &mut Command, within: Duration) -> Answer {
    let begun = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = read_all(child.stdout.take());
    let stderr = read_all(child.stderr.take());
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break Some(status);
        }
        if begun.elapsed() > within {
            // It is over in any case; the panic below says so.
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        thread::sleep(Duration::from_millis(5));
    };
    let answer = Answer {
        code: status.and_then(|status| status.code()),
        stdout: stdout.join().expect("reading does not panic"),
        stderr: stderr.join().expect("reading does not panic"),
    };
    assert!(status.is_some(), "{command:?} did not end within {within:?}: {answer:?}");
    answer
}

fn read_all(from: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            // What was read until then is worth showing.
            let _ = from.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A process that prints lines, read as they come.
#[derive(Debug)]
pub struct Lines {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Lines {
    /// Starts it in a process group of its own, so that a Ctrl-C for the test
    /// is not one for it. Its lines also go to `log`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn start(command: &mut Command, log: std::fs::File) -> Self {
        Self::start_with(command.stdin(Stdio::null()), log)
    }

    /// As [`Lines::start`], for a process that is told what to do line by line.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn start_talk(command: &mut Command, log: std::fs::File) -> Self {
        Self::start_with(command.stdin(Stdio::piped()), log)
    }

    #[track_caller]
    fn start_with(command: &mut Command, mut log: std::fs::File) -> Self {
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(command, 0);
        command.stdout(Stdio::piped()).stderr(log.try_clone().expect("a file has two handles"));
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = child.stdout.take().expect("it is piped");
        let stdin = child.stdin.take();
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // A log that cannot be written must not stop the test.
                let _ = writeln!(log, "{line}");
                // Nobody waits for lines any more, but the pipe must not fill up.
                let _ = sender.send(line);
            }
        });
        Self { child, stdin, lines, seen: Vec::new() }
    }

    /// Tells it something; one that has ended shows when its answer is awaited.
    ///
    /// # Panics
    /// When it was not started to be talked to.
    #[track_caller]
    pub fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("it was started to be talked to");
        let _ = writeln!(stdin, "{line}");
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line for which `wanted` has a result.
    ///
    /// # Panics
    /// When there is none in time, with all lines so far.
    #[track_caller]
    pub fn find<T>(
        &mut self,
        within: Duration,
        what: &str,
        wanted: impl Fn(&str) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + within;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let found = wanted(&line);
                    self.seen.push(line);
                    if let Some(found) = found {
                        return found;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{what}: not within {within:?}; lines: {:#?}", self.seen)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.wait(Duration::from_secs(5));
                    panic!("{what}: it ended with {status:?}; lines: {:#?}", self.seen)
                }
            }
        }
    }

    /// All lines until now.
    pub fn seen(&mut self) -> &[String] {
        self.seen.extend(self.lines.try_iter());
        &self.seen
    }

    /// Sends it a signal.
    pub fn send(&self, signal: Signal) {
        send(self.child.id(), signal);
    }

    /// Waits for its end; the exit code, `None` after a signal.
    ///
    /// # Panics
    /// When it goes on.
    #[track_caller]
    pub fn wait(&mut self, within: Duration) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status.code();
            }
            assert!(begun.elapsed() <= within, "it did not end within {within:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
