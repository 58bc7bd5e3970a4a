//! Real game servers of others, found, counted and stopped.
//!
//! `cargo xtask test` installs them; without them these tests fail and say so.

#![cfg(target_os = "linux")]

mod a2s;
mod luanti;
mod minecraft;
mod quake;

use std::path::PathBuf;
use std::time::Duration;

use homehost_tests::{Node, eventually};
use serde_json::Value;

/// A game may make a world first.
const READY: Duration = Duration::from_secs(60);

/// A game that is asked to end ends on the first rung.
const STOPPED: Duration = Duration::from_secs(15);

/// Where `cargo xtask test` puts what no package of the system has.
fn installed(name: &str) -> PathBuf {
    homehost_tests::target_dir().join("test-games").join(name)
}

/// Waits until a node lists a server as live with so many players.
#[track_caller]
fn sees_players(node: &Node<'_>, id: &Value, players: u64) -> Value {
    eventually(READY, &format!("{players} players"), || {
        let row = node.sees(id, "live", READY);
        if row["players"] == players { Ok(row) } else { Err(row.to_string()) }
    })
}
