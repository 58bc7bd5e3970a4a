//! Nodes on Windows among nodes on Linux. The former run under Wine, in a prefix
//! of its own; `cargo xtask test` makes it and builds the programs.

#![cfg(target_os = "linux")]

mod console;
mod files;
mod journey;

use std::time::Duration;

use homehost_tests::{Node, Test, eventually, process};
use serde_json::Value;

/// Within this a listing is found: a few seconds, on a machine that does much
/// else.
const FOUND: Duration = Duration::from_secs(40);

/// A number of Windows, which is not that of Linux.
#[track_caller]
fn pid(server: &Value) -> u32 {
    server["pid"].as_u64().and_then(|pid| pid.try_into().ok()).expect("a process id")
}

/// Processes of this test that run the stand-in on Windows.
fn games(test: &Test) -> Vec<u32> {
    process::naming(test.folder()).into_iter().filter(|pid| is_game(*pid)).collect()
}

fn is_game(pid: u32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line);
    line.contains("homehost.exe") && line.contains("__a2s-game")
}

/// Waits until a server's console has a line.
#[track_caller]
fn says(node: &Node<'_>, server: &str, text: &str) {
    eventually(Duration::from_secs(30), text, || {
        let lines = node.cli(&["server", "logs", server]).json_lines();
        let said = lines.iter().any(|line| line["text"] == text);
        said.then_some(()).ok_or_else(|| format!("{lines:#?}"))
    });
}
