//! What a home PC does to a node: it sleeps, loses its network, runs out of
//! memory, and keeps its files over many releases.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use homehost_tests::process::{self, Signal, is_alive};
use homehost_tests::{Game, Node, Test, eventually, run};
use serde_json::Value;

const FOUND: Duration = Duration::from_secs(30);

/// What `up` says when it is refused.
#[track_caller]
fn refused(node: &Node<'_>, code: i32) -> String {
    let answer = run(&mut node.up_command(), Duration::from_secs(60));
    assert_eq!(answer.code, Some(code), "{answer:?}");
    let last = answer.stderr.trim_end().lines().last().unwrap_or_default();
    let body: Value = serde_json::from_str(last).unwrap_or_default();
    body["error"]["message"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
}

/// Every file below a folder but the lock, which says who had it last.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| name != "daemon.lock") {
                let bytes = fs::read(&path).expect("a file");
                files.insert(path, bytes);
            }
        }
    }
    files
}

#[test]
fn a_machine_that_slept_is_live_again() {
    let test = Test::new();
    let witness = test.node("witness", &[]);
    let node = test.node("node", &[&witness.address()]);
    let id = node.host(&Game::stand_in(&test, "Sleeper", 0))["id"].take();
    node.running("Sleeper");
    witness.sees(&id, "live", FOUND);
    process::send(node.pid(), Signal::Stop);
    witness.sees(&id, "stale", Duration::from_secs(150));
    // Meanwhile others went on.
    let news = witness.host(&Game::stand_in(&test, "News", 0))["id"].take();
    process::send(node.pid(), Signal::Continue);
    witness.sees(&id, "live", Duration::from_secs(60));
    node.sees(&news, "live", Duration::from_secs(60));
    node.connected_to(&witness);
}

#[test]
fn a_node_whose_peers_were_all_gone_finds_them_when_they_are_back() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let mut peers = ["a", "b"].map(|name| test.node(name, &[&node.address()]));
    let id = node.host(&Game::stand_in(&test, "Here", 0))["id"].take();
    for peer in &mut peers {
        peer.sees(&id, "live", FOUND);
        peer.kill();
    }
    eventually(Duration::from_secs(60), "it says that it is alone", || {
        let status = node.get("/api/v1/status").json();
        if status["alone"].is_string() { Ok(()) } else { Err(status.to_string()) }
    });
    for peer in &mut peers {
        peer.start();
        peer.connected_to(&node);
        peer.sees(&id, "live", FOUND);
    }
    let id = peers[0].host(&Game::stand_in(&test, "There", 0))["id"].take();
    node.sees(&id, "live", FOUND);
}

#[test]
fn a_game_that_prints_ten_thousand_lines_a_second_disturbs_nobody() {
    let test = Test::new();
    let mut node = test.node("node", &[]);
    let script = test.folder().join("chatter.sh");
    fs::write(&script, "while :; do seq 100000 100099; sleep 0.01; done\n").expect("it is ours");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o644)).expect("it is ours");
    let exec = format!("sh {}", script.display());
    let server = node.host(&Game::new("Chatter", "chatter", &exec));
    let quiet = node.host(&Game::stand_in(&test, "Quiet", 0));
    node.running("Quiet");
    // Until the log has been begun anew several times: what it may hold was
    // printed, and more.
    let logs = node.data_dir().join("servers").join(folder_of(&node, &server)).join("logs");
    let bytes = || files(&logs).values().map(|bytes| bytes.len() as u64).sum::<u64>();
    let mut most = 0;
    eventually(Duration::from_secs(240), "its log has been rotated", || {
        most = most.max(bytes());
        assert_eq!(node.get("/readyz").status, 200);
        let tail = node.cli(&["server", "logs", "Chatter", "--tail", "1"]).json_lines();
        let seq = tail.first().and_then(|line| line["seq"].as_u64()).unwrap_or(0);
        if seq > 200_000 { Ok(()) } else { Err(format!("{seq} lines, {most} bytes")) }
    });
    assert!(most <= 24 << 20, "{most} bytes of log");
    let memory = resident_kib(node.pid());
    assert!(memory < 256 << 10, "{memory} KiB");
    node.sees(&quiet["id"], "live", FOUND);
    let game = node.running("Chatter")["pid"].as_u64().expect("it runs");
    node.ok(&["server", "stop", "Chatter"]);
    assert!(!is_alive(u32::try_from(game).expect("a process id")));
    node.down_with_games();
}

fn folder_of(node: &Node<'_>, server: &Value) -> String {
    let shown = node.ok(&["server", "show", server["name"].as_str().expect("a name")]);
    let folder = shown["folder"].as_str().expect("a folder");
    Path::new(folder).file_name().expect("a name").to_string_lossy().into_owned()
}

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has memory");
    line.split_ascii_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

#[test]
fn too_little_memory_costs_nothing_that_was_stored() {
    let test = Test::new();
    let mut node = test.node("node", &[]);
    let root = node.ok(&["id"])["root"].take();
    let game = Game::stand_in(&test, "Kept", 0);
    assert_eq!(node.add(&game).code, Some(0));
    node.down();
    let (mut failed, mut survived) = (0, 0);
    for mebibytes in [24, 96, 192, 384, 1024, 4096] {
        let up = node.up_command();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -v {}; exec \"$@\"", mebibytes << 10), "sh"]);
        command.arg(up.get_program()).args(up.get_args());
        let log = test.folder().join(format!("memory-{mebibytes}"));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::File::create(&log).expect("the folder is ours"));
        let mut daemon = Ended(command.spawn().expect("sh is there"));
        let up = eventually(Duration::from_secs(90), "it is up or has ended", || {
            if daemon.0.try_wait().expect("it is ours").is_some() {
                return Ok(false);
            }
            match node.cli(&["status"]).code {
                Some(0) => Ok(true),
                other => Err(format!("{other:?}")),
            }
        });
        if up {
            survived += 1;
            node.ok(&["down"]);
        } else {
            failed += 1;
            let status = daemon.0.wait().expect("it is ours");
            // The system could not even load the program.
            if [Some(9), Some(11)].contains(&status.signal()) {
                continue;
            }
            let said = fs::read_to_string(&log).expect("it is ours");
            assert!(!said.trim().is_empty(), "with {mebibytes} MiB it ended without a word");
        }
        let status = daemon.0.wait().expect("it is ours");
        assert_eq!(status.success(), up, "{mebibytes} MiB: {status}");
    }
    assert!(failed > 0 && survived > 0, "{failed} failed, {survived} survived");
    node.start();
    assert_eq!(node.ok(&["id"])["root"], root);
    assert_eq!(node.ok(&["server", "show", "Kept"])["state"], "offline");
}

/// A process that does not outlive a test that failed.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn stores_that_are_damaged_or_of_a_newer_release_are_left_as_they_are() {
    let test = Test::new();
    let mut node = test.node("node", &[]);
    assert_eq!(node.add(&Game::stand_in(&test, "Kept", 0)).code, Some(0));
    node.down();
    let store = node.data_dir().join("store");
    let schema = store.join("replica/SCHEMA");
    let good = fs::read(&schema).expect("the replica has a version");
    fs::write(&schema, "7\n").expect("it is ours");
    let before = files(&store.join("replica"));
    let text = refused(&node, 2);
    assert!(text.contains("newer homehost") && text.contains("update homehost"), "{text}");
    assert!(files(&store.join("replica")) == before, "it was looked at and nothing else");
    fs::write(&schema, good).expect("it is ours");

    let ledger = store.join("ledger.redb");
    let good = fs::read(&ledger).expect("there is a ledger");
    fs::write(&ledger, vec![0x5a; good.len()]).expect("it is ours");
    let before = fs::read(&ledger).expect("there is a ledger");
    let text = refused(&node, 1);
    assert!(text.contains("damaged") && text.contains("restore it from a backup"), "{text}");
    assert!(text.contains(&ledger.display().to_string()), "{text}");
    assert!(fs::read(&ledger).expect("it is still there") == before, "it was left alone");
    fs::write(&ledger, good).expect("it is ours");
    node.start();
    assert_eq!(node.ok(&["server", "show", "Kept"])["state"], "offline");
}

/// The folder of each release that was ever made; see its README.
const FIXTURES: &[&str] = &["data-0.1"];

/// What of an identity and of a server must be found again.
const ID_KEYS: &[&str] = &["root", "node", "key"];
const SERVER_KEYS: &[&str] = &["id", "name", "game", "tags", "region", "exec", "query"];

fn fixture(name: &str) -> PathBuf {
    homehost_tests::source_dir().join("fixtures").join(name)
}

#[test]
fn folders_of_every_release_are_taken_over() {
    for name in FIXTURES {
        let test = Test::new();
        let from = fixture(name);
        let expected = fs::read(from.join("expected.json")).expect("what it holds");
        let expected: Value = serde_json::from_slice(&expected).expect("JSON");
        let mut node = test.stopped_node("node", &[]);
        for (path, bytes) in files(&from.join("data")) {
            let to = node.data_dir().join(path.strip_prefix(from.join("data")).expect("below"));
            fs::create_dir_all(to.parent().expect("a folder")).expect("the folder is ours");
            fs::write(to, bytes).expect("the folder is ours");
        }
        node.set_network(expected["network"].as_str().expect("a network"));
        node.start();
        let id = node.ok(&["id"]);
        for key in ID_KEYS {
            assert_eq!(id[key], expected["id"][key], "{name}");
        }
        assert_eq!(id["phrase"], "not-yet", "{name}: nobody was shown one");
        let server = node.ok(&["server", "show", "Fixture"]);
        for key in SERVER_KEYS {
            assert_eq!(server[key], expected["server"][key], "{name}: {key}");
        }
        let status = node.ok(&["status"]);
        assert_eq!(status["peers_remembered"], expected["peers_remembered"], "{name}");
        // It goes on, and once more.
        assert_eq!(node.add(&Game::stand_in(&test, "Another", 0)).code, Some(0));
        node.down();
        node.start();
        assert_eq!(node.ok(&["server", "ls"]).as_array().map(Vec::len), Some(2), "{name}");
    }
}

/// Writes the fixture of this release anew, over the one that is there.
#[test]
#[ignore = "only before a release, as its README says"]
fn make_the_fixture_of_this_release() {
    let test = Test::new();
    let to = fixture(FIXTURES.last().expect("there is one"));
    let peer = test.stopped_node("peer", &[]);
    let (mut peer, network) = (peer, "fixture");
    peer.set_network(network);
    peer.start();
    let mut node = test.stopped_node("node", &[&peer.address()]);
    node.set_network(network);
    node.start();
    node.connected_to(&peer);
    let game = Game::new("Fixture", "fixture-game", "/usr/bin/true --name {name}")
        .with("--port", "game=30123/udp")
        .with("--slots", "8")
        .with("--tag", "old")
        .with("--region", "eu");
    assert_eq!(node.add(&game).code, Some(0));
    let of = |value: Value, keys: &[&str]| -> Value {
        keys.iter().map(|key| ((*key).to_owned(), value[key].clone())).collect()
    };
    let expected = serde_json::json!({
        "network": network,
        "id": of(node.ok(&["id"]), ID_KEYS),
        "server": of(node.ok(&["server", "show", "Fixture"]), SERVER_KEYS),
        "peers_remembered": 1,
    });
    node.down();
    let _ = fs::remove_dir_all(to.join("data"));
    for (path, bytes) in files(node.data_dir()) {
        let below = path.strip_prefix(node.data_dir()).expect("below").to_owned();
        if ["identity", "store"].iter().any(|folder| below.starts_with(folder)) {
            let to = to.join("data").join(below);
            fs::create_dir_all(to.parent().expect("a folder")).expect("the source is ours");
            fs::write(to, bytes).expect("the source is ours");
        }
    }
    let mut text = serde_json::to_string_pretty(&expected).expect("it is JSON");
    text.push('\n');
    fs::write(to.join("expected.json"), text).expect("the source is ours");
}
