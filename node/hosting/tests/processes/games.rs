//! Games that misbehave: what no real server does on command.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::{Command, ExitCode};
use std::time::Duration;

/// Between two lines of a game that counts.
const TICK: Duration = Duration::from_millis(2);

/// Runs the game that the arguments name.
pub(crate) fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<String> = args.map(|arg| arg.into_string().unwrap()).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["dies", code] => {
            say("loading");
            say("\u{1b}[31mthe map is missing\u{1b}[0m");
            ExitCode::from(code.parse::<u8>().unwrap())
        }
        ["counts"] => count(),
        ["stubborn"] => stubborn(),
        ["family"] => {
            let exe = std::env::current_exe().unwrap();
            #[expect(clippy::zombie_processes, reason = "a game that leaves its child behind")]
            let child = Command::new(exe).args(["__test-game", "stubborn"]).spawn().unwrap();
            say(&format!("child {}", child.id()));
            read_until_quit()
        }
        #[cfg(unix)]
        ["wanders"] => wander(),
        ["outrun", port, lock] => outrun(port.parse().unwrap(), lock),
        _ => ExitCode::from(99),
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// Numbers without end.
fn count() -> ExitCode {
    let mut number: u64 = 0;
    loop {
        number += 1;
        say(&format!("tick {number}"));
        std::thread::sleep(TICK);
    }
}

/// Hears every signal that can be heard and does nothing about it.
fn stubborn() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        #[cfg(unix)]
        let _deaf = {
            use tokio::signal::unix::{SignalKind, signal};
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal)
        };
        say(&format!("deaf {}", std::process::id()));
        std::future::pending::<ExitCode>().await
    })
}

/// Leaves its process group for that of its child.
#[cfg(unix)]
fn wander() -> ExitCode {
    let exe = std::env::current_exe().unwrap();
    let mut child = Command::new(exe);
    std::os::unix::process::CommandExt::process_group(&mut child, 0);
    #[expect(clippy::zombie_processes, reason = "a game that leaves its child behind")]
    let child = child.args(["__test-game", "stubborn"]).spawn().unwrap();
    rustix::process::setpgid(None, Some(rustix::process::Pid::from_child(&child))).unwrap();
    say(&format!("child {}", child.id()));
    read_until_quit()
}

/// The first time, another program takes the port just before this one would.
fn outrun(port: u16, lock: &str) -> ExitCode {
    if std::fs::exists(lock).unwrap() {
        say(&format!("got {port}"));
        return read_until_quit();
    }
    std::fs::write(lock, "").unwrap();
    let exe = std::env::current_exe().unwrap();
    // In a session of its own, or it would end with this game.
    #[cfg(unix)]
    let mut thief = Command::new("setsid");
    #[cfg(unix)]
    thief.arg(exe);
    #[cfg(not(unix))]
    let mut thief = Command::new(exe);
    thief.args(["__a2s-game", "--port", &port.to_string(), "--exit-after", "10"]);
    thief.stdin(std::process::Stdio::null());
    #[expect(clippy::zombie_processes, reason = "the program that was quicker stays")]
    thief.spawn().unwrap();
    while std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok() {
        std::thread::sleep(TICK);
    }
    say("the port is taken");
    ExitCode::FAILURE
}

fn read_until_quit() -> ExitCode {
    for line in std::io::stdin().lines() {
        if line.is_ok_and(|line| line == "quit") {
            break;
        }
    }
    ExitCode::SUCCESS
}
