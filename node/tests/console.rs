//! Windows: what a console tells the daemon that runs in it. Wine 8 raises no
//! Ctrl-Break; Ctrl-C is part of the journey there.

#![cfg(windows)]
#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::io::{BufRead as _, BufReader};
use std::os::windows::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use windows_sys::Win32::System::Console::{CTRL_BREAK_EVENT, GenerateConsoleCtrlEvent};
use windows_sys::Win32::System::Threading::CREATE_NO_WINDOW;

/// Far more than a start or an end takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Set for the second process of a test, which has a console of its own.
const INSIDE: &str = "HOMEHOST_TEST_HAS_CONSOLE";

/// A daemon that does not outlive a failed test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // It has usually ended.
        let _ = self.0.kill();
    }
}

#[test]
fn ctrl_break_ends_a_daemon_in_order() {
    if std::env::var_os(INSIDE).is_none() {
        // Whoever runs this may have no console, or one that is not to be disturbed.
        let mut inside = Command::new(std::env::current_exe().unwrap());
        inside.args(["--exact", "ctrl_break_ends_a_daemon_in_order", "--nocapture"]);
        let inside = inside.env(INSIDE, "1").creation_flags(CREATE_NO_WINDOW);
        let output = inside.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_homehost"));
    daemon.args(["up", "--json", "--no-mdns", "--http", "127.0.0.1:0"]);
    daemon.args(["--network", "console-test", "--listen", "/ip4/127.0.0.1/tcp/0", "--data-dir"]);
    daemon.arg(folder.path()).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut daemon = Daemon(daemon.spawn().unwrap());
    let mut line = String::new();
    let mut out = BufReader::new(daemon.0.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    assert!(line.contains("\"api\""), "it is up: {line:?}");
    // To listen is to ignore what is raised here for the other.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _runtime = runtime.enter();
    let _deaf = tokio::signal::windows::ctrl_break().unwrap();
    #[expect(unsafe_code, reason = "std raises no console events")]
    // SAFETY: no pointers; group 0 is everything on this console.
    let raised = unsafe { GenerateConsoleCtrlEvent(CTRL_BREAK_EVENT, 0) };
    assert_ne!(raised, 0, "{}", std::io::Error::last_os_error());
    let begun = Instant::now();
    let ended = loop {
        if let Some(ended) = daemon.0.try_wait().unwrap() {
            break ended;
        }
        assert!(begun.elapsed() <= PATIENCE, "it goes on after Ctrl-Break");
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(ended.code(), Some(0));
    assert!(!folder.path().join("api.json").exists(), "it has said that it is gone");
}
