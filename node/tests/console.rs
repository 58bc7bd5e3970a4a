//! Windows: what a console tells the daemon that runs in it. Also under Wine.

#![cfg(windows)]
#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::io::{BufRead as _, BufReader};
use std::os::windows::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use windows_sys::Win32::System::Console::{
    AllocConsole, CTRL_BREAK_EVENT, GenerateConsoleCtrlEvent,
};
use windows_sys::Win32::System::Threading::CREATE_NEW_PROCESS_GROUP;

/// Far more than a start or an end takes.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn ctrl_break_ends_a_daemon_in_order() {
    #[expect(unsafe_code, reason = "std makes no consoles")]
    // SAFETY: no pointers; fails where there is a console already.
    let _ = unsafe { AllocConsole() };
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_homehost"))
        .args(["up", "--json", "--no-mdns", "--http", "127.0.0.1:0"])
        .args(["--network", "console-test", "--listen", "/ip4/127.0.0.1/tcp/0", "--data-dir"])
        .arg(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // The event is for it alone, and not for whoever runs this test.
        .creation_flags(CREATE_NEW_PROCESS_GROUP)
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(daemon.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    assert!(line.contains("\"api\""), "it is up: {line:?}");
    #[expect(unsafe_code, reason = "std raises no console events")]
    // SAFETY: no pointers.
    let raised = unsafe { GenerateConsoleCtrlEvent(CTRL_BREAK_EVENT, daemon.id()) };
    assert_ne!(raised, 0, "{}", std::io::Error::last_os_error());
    let begun = Instant::now();
    let ended = loop {
        if let Some(ended) = daemon.try_wait().unwrap() {
            break ended;
        }
        if begun.elapsed() > PATIENCE {
            daemon.kill().unwrap();
            panic!("it goes on after Ctrl-Break");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(ended.code(), Some(0));
    assert!(!folder.path().join("api.json").exists(), "it has said that it is gone");
}
