//! Join, publish, be found, come back: what a host on Windows does.

use std::time::Duration;

use homehost_tests::process::is_alive;
use homehost_tests::{Game, Node, Test, eventually};
use serde_json::Value;

use crate::{FOUND, games, pid, says};

#[test]
fn a_server_on_windows_is_found_outlives_its_daemons_and_ends_when_asked() {
    let test = Test::new();
    let bootstrap = test.bootstrap();
    let linux = test.node("linux", &[bootstrap.address()]);
    let mut windows = test.windows_node("windows", &[bootstrap.address()]);
    windows.connected_to(&linux);

    // Both ways.
    let there = linux.host(&Game::stand_in(&test, "Penguin", 1))["id"].take();
    let here = windows.host(&Game::windows_stand_in(&test, "Pane", 2))["id"].take();
    let game = pid(&windows.running("Pane"));
    assert_eq!(linux.sees(&here, "live", FOUND)["name"], "Pane");
    eventually(FOUND, "its players are counted", || {
        let row = linux.sees(&here, "live", FOUND);
        if row["players"] == 2 { Ok(()) } else { Err(row.to_string()) }
    });
    assert_eq!(windows.sees(&there, "live", FOUND)["name"], "Penguin");

    // It goes on without a daemon, and the next daemon has it in hand.
    let [process] = games(&test)[..] else { panic!("one game of Windows: {:?}", games(&test)) };
    windows.down();
    assert!(is_alive(process));
    linux.sees(&here, "live", Duration::ZERO);
    windows.start();
    let server = windows.running("Pane");
    assert_eq!((pid(&server), &server["restarts"]), (game, &Value::from(0)));
    windows.ok(&["server", "input", "Pane", "say still here"]);
    says(&windows, "Pane", "[server] still here");
    linux.sees(&here, "live", FOUND);

    // Gently: what it says at its end is there.
    windows.down_with_games();
    assert!(!is_alive(process));
    linux.sees(&here, "withdrawn", FOUND);
    // It is still wanted, so that the next daemon starts it again.
    windows.start();
    let server = windows.running("Pane");
    assert_eq!(server["last_exit"], "exit code 0 after Ctrl-C", "{server}");
    assert_ne!(pid(&server), game);
    says(&windows, "Pane", "Ctrl-C received, shutting down");
    windows.down_with_games();
}

#[test]
fn a_terminated_daemon_costs_no_game_no_line_and_no_listing() {
    let test = Test::new();
    let linux = test.node("linux", &[]);
    let mut windows = test.windows_node("windows", &[&linux.address()]);
    let ticking = Game::windows_stand_in(&test, "Clock", 0).with_exec("--tick 20");
    let id = windows.host(&ticking)["id"].take();
    let game = pid(&windows.running("Clock"));
    let [process] = games(&test)[..] else { panic!("one game of Windows: {:?}", games(&test)) };
    linux.sees(&id, "live", FOUND);
    for _ in 0..2 {
        let before = ticks(&windows).last().copied().expect("it has begun");
        windows.kill();
        assert!(is_alive(process));
        windows.start();
        let server = windows.running("Clock");
        assert_eq!((pid(&server), &server["restarts"]), (game, &Value::from(0)));
        eventually(Duration::from_secs(30), "the count goes on", || {
            let now = ticks(&windows).last().copied().unwrap_or(0);
            if now > before + 20 { Ok(()) } else { Err(format!("{before} … {now}")) }
        });
        for node in [&linux, &windows] {
            node.sees(&id, "live", FOUND);
            assert_eq!(node.rows("?all=true").len(), 1, "listed once");
        }
    }
    windows.down_with_games();
}

/// What the clock printed so far: all numbers from the first on.
#[track_caller]
fn ticks(node: &Node<'_>) -> Vec<u64> {
    let answer = node.cli(&["server", "logs", "Clock", "--tail", "10000"]);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    let lines = answer.json_lines();
    let ticks: Vec<u64> = lines
        .iter()
        .filter_map(|line| line["text"].as_str()?.strip_prefix("tick ")?.parse().ok())
        .collect();
    assert!(ticks.iter().copied().eq(1..=ticks.len() as u64), "{ticks:?}");
    ticks
}

#[test]
fn what_wine_lacks_is_said_once_and_tcp_goes_on() {
    let test = Test::new();
    let linux = test.node("linux", &[]);
    let mut windows = test.windows_node("windows", &[&linux.address()]);
    windows.connected_to(&linux);
    linux.connected_to(&windows);
    let peers = windows.get("/api/v1/peers").json();
    assert!(peers[0]["address"].as_str().is_some_and(|at| at.contains("/tcp/")), "{peers}");
    let status = windows.get("/api/v1/status").json();
    let addresses = status["addresses"].to_string();
    assert!(addresses.contains("/tcp/") && !addresses.contains("quic"), "{status}");
    windows.down();
    let log = test.read_log("windows");
    for (said, about) in [("not listening", "QUIC"), ("dials leave from new ports", "ports")] {
        let times = log.lines().filter(|line| line.contains(said)).count();
        assert_eq!(times, 1, "{about} in {log}");
    }
}
