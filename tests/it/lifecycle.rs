//! Daemons come, go and die; games and listings do not notice.

#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use homehost_tests::process::{self, Signal, is_alive, parent};
use homehost_tests::{Game, Node, Test, eventually};
use serde_json::Value;

const FOUND: Duration = Duration::from_secs(20);

fn pid(server: &Value) -> u32 {
    server["pid"].as_u64().and_then(|pid| pid.try_into().ok()).expect("a process id")
}

#[test]
fn a_game_goes_on_while_its_daemon_is_away() {
    let test = Test::new();
    let witness = test.node("witness", &[]);
    let mut node = test.node("node", &[&witness.address()]);
    let id = node.host(&Game::stand_in(&test, "Steady", 1))["id"].take();
    let game = pid(&node.running("Steady"));
    witness.sees(&id, "live", FOUND);

    node.down();
    assert!(is_alive(game));
    witness.sees(&id, "live", Duration::ZERO);
    node.start();
    assert_eq!(pid(&node.running("Steady")), game);
    // A signal to the daemon leaves games alone, too.
    assert_eq!(node.end_by(Signal::Terminate), Some(0));
    assert!(is_alive(game));
    node.start();
    let server = node.running("Steady");
    assert_eq!((pid(&server), &server["restarts"]), (game, &Value::from(0)));
    for node in [&witness, &node] {
        node.sees(&id, "live", FOUND);
        assert_eq!(node.rows("?all=true").len(), 1, "listed once");
    }
    // It is still in hand: its console is read and it can be stopped.
    node.ok(&["server", "input", "Steady", "say still here"]);
    says(&node, "Steady", "[server] still here");
    node.ok(&["server", "stop", "Steady"]);
    assert!(!is_alive(game));
    witness.sees(&id, "withdrawn", Duration::from_secs(3));
}

#[test]
fn a_killed_daemon_costs_no_game_and_no_line() {
    let test = Test::new();
    let witness = test.node("witness", &[]);
    let mut node = test.node("node", &[&witness.address()]);
    let id = node.host(&Game::stand_in(&test, "Steady", 1))["id"].take();
    // It counts, whoever listens.
    let script = test.folder().join("count.sh");
    fs::write(&script, "i=0; while :; do i=$((i+1)); echo \"tick $i\"; sleep 0.02; done\n")
        .expect("the folder can be written");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o644)).expect("it is ours");
    node.host(&Game::new("Counter", "counter", &format!("sh {}", script.display())));
    let games = ["Steady", "Counter"].map(|name| pid(&node.running(name)));
    witness.sees(&id, "live", FOUND);

    for _ in 0..3 {
        let before = ticks(&node).last().copied().expect("it has begun");
        node.kill();
        assert!(games.iter().all(|game| is_alive(*game)));
        node.start();
        assert_eq!(["Steady", "Counter"].map(|name| pid(&node.running(name))), games);
        // Until now it wrote to nobody; every line is there, once.
        eventually(Duration::from_secs(10), "the count goes on", || {
            let now = ticks(&node).last().copied().unwrap_or(0);
            if now > before + 20 { Ok(()) } else { Err(format!("{before} … {now}")) }
        });
        for node in [&witness, &node] {
            node.sees(&id, "live", FOUND);
            assert_eq!(node.rows("?all=true").len(), 1, "listed once");
        }
    }
    assert_eq!(node.running("Steady")["restarts"], 0);
}

/// What the counter printed so far: all numbers from the first on.
#[track_caller]
fn ticks(node: &Node<'_>) -> Vec<u64> {
    let answer = node.cli(&["server", "logs", "Counter", "--tail", "10000"]);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    let lines = answer.json_lines();
    let seqs: Vec<u64> = lines.iter().filter_map(|line| line["seq"].as_u64()).collect();
    assert_eq!(seqs.len(), lines.len());
    let first = seqs.first().copied().unwrap_or(0);
    assert!(seqs.iter().copied().eq(first..first + seqs.len() as u64), "{seqs:?}");
    let ticks: Vec<u64> = lines
        .iter()
        .filter_map(|line| line["text"].as_str()?.strip_prefix("tick ")?.parse().ok())
        .collect();
    assert!(ticks.iter().copied().eq(1..=ticks.len() as u64), "{ticks:?}");
    ticks
}

#[track_caller]
fn says(node: &Node<'_>, server: &str, text: &str) {
    eventually(Duration::from_secs(10), text, || {
        let lines = node.cli(&["server", "logs", server]).json_lines();
        let said = lines.iter().any(|line| line["text"] == text);
        said.then_some(()).ok_or_else(|| format!("{lines:#?}"))
    });
}

#[test]
fn a_game_whose_shim_was_killed_is_adopted() {
    let test = Test::new();
    let mut node = test.node("node", &[]);
    node.host(&Game::stand_in(&test, "Orphan", 0));
    let game = pid(&node.running("Orphan"));
    let shim = parent(game).expect("the game has a shim");
    assert_ne!(shim, node.pid());
    process::send(shim, Signal::Kill);
    eventually(Duration::from_secs(5), "the shim is gone", || {
        if is_alive(shim) { Err(shim.to_string()) } else { Ok(()) }
    });
    node.kill();
    node.start();
    let server = node.running("Orphan");
    assert_eq!((pid(&server), &server["restarts"]), (game, &Value::from(0)));
    node.ok(&["server", "stop", "Orphan"]);
    assert!(!is_alive(game));
}

#[test]
fn a_game_that_crashed_is_started_again() {
    let test = Test::new();
    let witness = test.node("witness", &[]);
    let node = test.node("node", &[&witness.address()]);
    let id = node.host(&Game::stand_in(&test, "Fragile", 0))["id"].take();
    let first = pid(&node.running("Fragile"));
    process::send(first, Signal::Kill);
    let again = eventually(FOUND, "it runs again", || {
        let server = node.running("Fragile");
        if pid(&server) == first { Err(server.to_string()) } else { Ok(server) }
    });
    assert_eq!(again["restarts"], 1);
    witness.sees(&id, "live", FOUND);
}

#[test]
fn the_servers_of_a_dead_host_are_stale_within_90_seconds() {
    let test = Test::new();
    let witness = test.node("witness", &[]);
    let mut host = test.node("host", &[&witness.address()]);
    let id = host.host(&Game::stand_in(&test, "Doomed", 0))["id"].take();
    let game = pid(&host.running("Doomed"));
    witness.sees(&id, "live", FOUND);
    // The machine loses its power.
    host.kill();
    let shim = parent(game).expect("the game has a shim");
    process::send(shim, Signal::Kill);
    process::send(game, Signal::Kill);
    let dead = Instant::now();
    witness.sees(&id, "stale", Duration::from_secs(95));
    assert!(dead.elapsed() > Duration::from_secs(30), "one silent moment is no death");
    assert!(witness.rows("").is_empty(), "what is stale is hidden");
    let all = witness.ok(&["discover", "--all"]);
    assert_eq!((&all[0]["id"], &all[0]["status"]), (&id, &Value::from("stale")));
}

#[test]
fn games_do_not_have_the_rights_of_root() {
    let test = Test::new();
    let node = test.node("node", &[]);
    node.host(&Game::stand_in(&test, "Humble", 0));
    let game = pid(&node.running("Humble"));
    let (daemon, game) = (process::user(node.pid()), process::user(game));
    if daemon == Some(0) {
        assert_ne!(game, Some(0));
    } else {
        // There is no other account to give.
        assert_eq!(game, daemon);
    }
    for secret in ["identity/node.key", "identity/device.key", "api.token"] {
        let mode = fs::metadata(node.data_dir().join(secret)).expect(secret).permissions().mode();
        assert_eq!(mode & 0o077, 0, "{secret} is for its owner alone");
    }
}

#[test]
fn down_with_games_leaves_no_process() {
    let test = Test::new();
    let mut node = test.node("node", &[]);
    for name in ["One", "Two"] {
        node.host(&Game::stand_in(&test, name, 0));
    }
    assert!(process::naming(test.folder()).len() >= 5, "a daemon, two shims, two games");
    node.down_with_games();
    eventually(Duration::from_secs(5), "nothing is left", || {
        let left = process::naming(test.folder());
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    // They were to run, and do so again; what a person stopped stays stopped.
    node.start();
    for name in ["One", "Two"] {
        node.running(name);
    }
    node.ok(&["server", "stop", "One"]);
    node.down_with_games();
    node.start();
    node.running("Two");
    assert_eq!(node.ok(&["server", "show", "One"])["state"], "offline");
}
