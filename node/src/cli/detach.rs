//! `homehost up --detach`: a daemon that outlives the terminal.
//!
//! The daemon is this program again, with `--detached`. It says one line on its
//! standard output, or one on its standard error, and writes its log to a file.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use homehost_api::{ApiError, ErrorKind};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::up::{Up, introduce};
use super::{Output, log_file};
use crate::exit::{Failure, failure};

/// Longest wait for the daemon's word. After a crash it reads its stores through,
/// on a slow disk that does much else.
const START: Duration = Duration::from_secs(120);

/// Longest wait for a daemon that has closed its output.
const END: Duration = Duration::from_secs(10);

/// Longest word.
const WORD_BYTES_MAX: u64 = 1024 * 1024;

#[derive(Deserialize)]
struct Refused {
    error: ApiError,
}

/// Starts the daemon and waits until it is up.
///
/// # Errors
/// The daemon's own sentence and exit code.
pub(crate) async fn start(data_dir: &Path, output: &Output) -> Result<(), Failure> {
    let log = log_file::path(data_dir);
    let unable = |error: std::io::Error| {
        failure(ErrorKind::Internal, format!("failed to start a daemon: {error}"))
    };
    let mut child = command(output)?.spawn().map_err(unable)?;
    let word = match (child.stdout.take(), tokio::time::Instant::now() + START) {
        (Some(out), until) => tokio::time::timeout_at(until, first_line(out)).await,
        (None, _) => Ok(String::new()),
    };
    match word {
        Ok(word) => match serde_json::from_str::<Up>(&word) {
            Ok(mut up) => {
                up.log = Some(log.display().to_string());
                introduce(&up, output);
                Ok(())
            }
            Err(_) => Err(last_word(child).await.unwrap_or_else(|| {
                let text = format!(
                    "the daemon ended before it was up: {} says why, or `homehost up` does",
                    log.display()
                );
                failure(ErrorKind::Internal, text)
            })),
        },
        Err(_) => {
            let text = format!(
                "the daemon (process {}) is still starting after {} s: see {} and `homehost status`",
                child.id().unwrap_or_default(),
                START.as_secs(),
                log.display()
            );
            Err(failure(ErrorKind::Timeout, text))
        }
    }
}

/// This command line again, for a process that has no terminal.
fn command(output: &Output) -> Result<Command, Failure> {
    let exe = std::env::current_exe().map_err(|error| {
        failure(ErrorKind::Internal, format!("failed to find this program's own file: {error}"))
    })?;
    let mut command = Command::new(exe);
    command.args(std::env::args_os().skip(1).filter(|arg| arg != "--detach")).arg("--detached");
    if !output.is_json() {
        command.arg("--json");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    #[cfg(windows)]
    {
        const DETACHED_PROCESS: u32 = 0x0000_0008;
        const CREATE_NEW_PROCESS_GROUP: u32 = 0x0000_0200;
        command.creation_flags(DETACHED_PROCESS | CREATE_NEW_PROCESS_GROUP);
    }
    Ok(command)
}

async fn first_line(from: impl AsyncRead + Unpin) -> String {
    let mut line = String::new();
    // What cannot be read is no word.
    let _ = BufReader::new(from.take(WORD_BYTES_MAX)).read_line(&mut line).await;
    line
}

/// What a daemon that is ending said of it.
async fn last_word(mut child: Child) -> Option<Failure> {
    let from = child.stderr.take()?;
    let mut said = Vec::new();
    let read = async {
        let _ = from.take(WORD_BYTES_MAX).read_to_end(&mut said).await;
        child.wait().await
    };
    let _ = tokio::time::timeout(END, read).await.ok()?;
    let said = String::from_utf8_lossy(&said);
    let last = said.trim_end().lines().last()?;
    if let Ok(refused) = serde_json::from_str::<Refused>(last) {
        return Some(refused.error);
    }
    // The command line itself was not understood.
    let usage = said.lines().find(|line| line.starts_with("error: "))?;
    Some(failure(ErrorKind::Usage, usage.trim_start_matches("error: ")))
}

/// Leaves the terminal from which the daemon was started, so that it may close.
pub(crate) fn leave_terminal() {
    // One that leads a session already has no terminal to leave.
    #[cfg(unix)]
    let _ = rustix::process::setsid();
    // Nobody reads what a panic prints.
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
}
