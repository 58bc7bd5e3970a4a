//! Processes: signals, whether they live, and the end of all that a test started.

#[cfg(target_os = "linux")]
use std::fs;
use std::path::Path;
#[cfg(target_os = "linux")]
use std::time::{Duration, Instant};

/// What can be sent to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// A polite request.
    Terminate,
    /// `kill -9`.
    Kill,
    /// It stands still, as in a machine that sleeps.
    #[cfg(unix)]
    Stop,
    /// It goes on.
    #[cfg(unix)]
    Continue,
}

/// Sends a signal to a process; one that has gone is no error.
#[cfg(unix)]
pub fn send(pid: u32, signal: Signal) {
    use rustix::process::{Pid, Signal as Unix, kill_process};
    let signal = match signal {
        Signal::Interrupt => Unix::INT,
        Signal::Terminate => Unix::TERM,
        Signal::Kill => Unix::KILL,
        Signal::Stop => Unix::STOP,
        Signal::Continue => Unix::CONT,
    };
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    let _ = kill_process(pid, signal);
}

/// Ends a process; one that has gone is no error.
#[cfg(not(unix))]
pub fn send(pid: u32, _signal: Signal) {
    let pid = pid.to_string();
    let _ = std::process::Command::new("taskkill").args(["/F", "/PID", &pid]).output();
}

/// Whether a process runs; one that ended and waits for its parent does not.
#[cfg(target_os = "linux")]
pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in brackets, may contain anything; the state follows it.
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// The parent of a process.
#[cfg(target_os = "linux")]
pub fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The user whose rights a process has.
#[cfg(target_os = "linux")]
pub fn user(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("Uid:"))?;
    // Real, effective, saved, file system.
    line.split_ascii_whitespace().nth(2)?.parse().ok()
}

/// Processes of this machine whose command line names something in a folder.
/// The folder of a test has a name that no other process can know.
#[cfg(target_os = "linux")]
pub fn naming(folder: &Path) -> Vec<u32> {
    let folder = folder.as_os_str().as_encoded_bytes();
    let own = std::process::id();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != own && is_alive(*pid))
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.windows(folder.len()).any(|part| part == folder)
        })
        .collect()
}

/// Kills every process that names something in a test's folder, until there is
/// none: a shim that was about to start a game has one chance to do so.
#[cfg(target_os = "linux")]
pub(crate) fn sweep(folder: &Path) {
    let begun = Instant::now();
    loop {
        let left = naming(folder);
        if left.is_empty() || begun.elapsed() > Duration::from_secs(10) {
            return;
        }
        for pid in left {
            send(pid, Signal::Kill);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Elsewhere what a test started is ended by its nodes alone.
#[cfg(not(target_os = "linux"))]
pub(crate) fn sweep(_folder: &Path) {}
