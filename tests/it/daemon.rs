//! The life of a daemon: without a terminal, under a service manager, and what
//! must not keep it from ending.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use homehost_tests::process::{Signal, is_alive, send, session};
use homehost_tests::{Game, Node, Test, eventually, run};
use serde_json::Value;

const START: Duration = Duration::from_secs(150);

#[track_caller]
fn pid(value: &Value) -> u32 {
    value.as_u64().and_then(|pid| pid.try_into().ok()).expect("a process id")
}

#[track_caller]
fn detached(node: &Node<'_>) -> Value {
    let answer = run(node.up_command().arg("--detach"), START);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert_eq!(answer.stderr, "");
    answer.json()
}

#[track_caller]
fn gone(pid: u32) {
    eventually(Duration::from_secs(20), "it has ended", || {
        if is_alive(pid) { Err(pid.to_string()) } else { Ok(()) }
    });
}

#[test]
fn a_detached_node_is_up_when_the_command_returns_and_has_no_terminal() {
    let test = Test::new();
    let node = test.stopped_node("node", &[]);
    let up = detached(&node);
    let daemon = pid(&up["status"]["pid"]);
    assert_eq!(session(daemon), Some(daemon), "a terminal that closes takes its session along");
    assert_eq!(node.ok(&["status"])["pid"], up["status"]["pid"]);
    let game = pid(&node.host(&Game::stand_in(&test, "Quiet", 0))["pid"]);

    let text = run(node.up_command().arg("--detach"), START).refusal(8);
    assert!(text.contains(&format!("process {daemon}")), "{text}");
    assert_eq!(node.ok(&["status"])["pid"], up["status"]["pid"], "the first one goes on");

    let log = up["log"].as_str().expect("it says where its log is");
    assert_eq!(std::path::Path::new(log), node.data_dir().join("logs/homehost.log"));
    let logged = || fs::read_to_string(log).expect("there is a log");
    let first = logged().lines().find(|line| line.contains("the node is up")).map(str::to_owned);
    let first = first.unwrap_or_else(|| panic!("nothing of its start: {}", logged()));
    for word in ["version=", test.network(), &format!("pid={daemon}")] {
        assert!(first.contains(word), "{word} in {first}");
    }
    assert!(!logged().contains('\u{1b}') && !logged().contains("the node stops"), "{}", logged());
    node.ok(&["down"]);
    gone(daemon);
    assert!(is_alive(game));
    assert!(logged().contains("the node stops why=\"it was asked to\""), "{}", logged());
    let up = detached(&node);
    let daemon = pid(&up["status"]["pid"]);
    send(daemon, Signal::Terminate);
    gone(daemon);
    assert!(logged().contains("the node stops why=\"a signal\""), "{}", logged());
    let up = detached(&node);
    assert_eq!(node.ok(&["server", "show", "Quiet"])["pid"], game);
    node.ok(&["down", "--games"]);
    gone(pid(&up["status"]["pid"]));
    assert!(!is_alive(game));
}

#[test]
fn what_keeps_a_detached_node_from_starting_is_said_as_if_it_were_not() {
    let test = Test::new();
    let node = test.stopped_node("node", &[]);
    let up = detached(&node);
    node.ok(&["down"]);
    gone(pid(&up["status"]["pid"]));
    let chain = node.data_dir().join("identity/chain");
    fs::write(&chain, "rubbish").expect("it is ours");
    let text = run(node.up_command().arg("--detach"), START).refusal(1);
    assert!(text.contains("chain") && text.contains("backup"), "{text}");
    let mut command = Command::new(test.program());
    command.args(["up", "--detach", "--json", "--http", "0.0.0.0:0", "--data-dir"]);
    let text = run(command.arg(test.folder().join("other")), START).refusal(2);
    assert!(text.contains("loopback"), "{text}");
    let answer = run(
        Command::new(test.program())
            .args(["up", "--detach", "--no-such-option", "--data-dir"])
            .arg(test.folder().join("other")),
        START,
    );
    assert_eq!(answer.code, Some(2), "{answer:?}");
}

#[test]
fn clients_that_never_read_keep_no_node_from_ending() {
    let test = Test::new();
    let mut node = test.node("node", &[]);
    node.host(&Game::stand_in(&test, "Steady", 0));
    let game = pid(&node.running("Steady")["pid"]);
    let (address, token) = node.http();
    let host = address.to_string();
    let mut half = TcpStream::connect(address).expect("it listens");
    write!(half, "GET /api/v1/status HTTP/1.1\r\nHost: {host}\r\n").expect("half a question");
    let mut deaf = TcpStream::connect(address).expect("it listens");
    write!(
        deaf,
        "GET /api/v1/servers/Steady/logs?follow=true HTTP/1.1\r\nHost: {host}\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    )
    .expect("a question whose answer nobody reads");
    let mesh = node.address();
    let port = mesh.split('/').nth(4).expect("a port");
    let silent = TcpStream::connect(format!("127.0.0.1:{port}")).expect("it listens");
    assert_eq!(node.end_by(Signal::Terminate), Some(0));
    assert!(is_alive(game));
    drop((half, deaf, silent));
    node.start();
    assert_eq!(node.running("Steady")["pid"], game);
    node.down_with_games();
}

/// Keys and values by section; a key may come more than once.
type Unit = BTreeMap<String, BTreeMap<String, Vec<String>>>;

#[track_caller]
fn unit(name: &str) -> Unit {
    let path = homehost_tests::source_dir().join("../node/packaging/systemd").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let mut unit = Unit::new();
    let mut section = None;
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            assert!(["Unit", "Service", "Install"].contains(&name), "{line}");
            section = Some(name.to_owned());
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("no assignment: {line}"));
        assert!(!line.ends_with('\\'), "a line goes on: {line}");
        let section = section.clone().expect("a section comes first");
        let values = unit.entry(section).or_default().entry(key.to_owned()).or_default();
        values.push(value.to_owned());
    }
    unit
}

#[track_caller]
fn only<'a>(unit: &'a Unit, section: &str, key: &str) -> &'a str {
    match unit[section].get(key).map(Vec::as_slice) {
        Some([value]) => value,
        other => panic!("{key}: {other:?}"),
    }
}

/// A command line of a unit, in the folder of a test.
fn line_of(unit: &Unit, key: &str, test: &Test, node: &Node<'_>) -> Command {
    let line = only(unit, "Service", key);
    let mut words = line.split(' ');
    assert_eq!(words.next(), Some("/usr/local/bin/homehost"), "{line}");
    let mut command = Command::new(test.program());
    for word in words {
        match word {
            "/var/lib/homehost" => command.arg(node.data_dir()),
            word => command.arg(word),
        };
    }
    command
}

/// systemd itself does not run where these tests do.
#[test]
fn the_units_of_systemd_leave_games_alone_until_the_machine_goes_down() {
    let (node, games) = (unit("homehost.service"), unit("homehost-games.service"));
    assert_eq!(only(&node, "Service", "KillMode"), "process");
    assert_eq!(only(&node, "Service", "KillSignal"), "SIGTERM");
    assert_eq!(only(&node, "Service", "OOMPolicy"), "continue");
    assert_eq!(only(&node, "Service", "Restart"), "on-failure");
    assert_eq!(only(&node, "Service", "RestartPreventExitStatus"), "2 5 8");
    // What games inherit and would break by.
    for harmful in [
        "PrivateTmp",
        "PrivateNetwork",
        "PrivateUsers",
        "PrivateDevices",
        "DynamicUser",
        "ProtectHome",
        "ProtectProc",
        "ProcSubset",
        "MemoryDenyWriteExecute",
        "SystemCallFilter",
        "SystemCallArchitectures",
        "RestrictAddressFamilies",
        "RestrictNamespaces",
        "RestrictRealtime",
        "LockPersonality",
        "MemoryMax",
        "TasksMax",
    ] {
        assert!(!node["Service"].contains_key(harmful), "{harmful}");
    }
    // Stopped before the node, while it and the network are still there …
    let after: Vec<_> = only(&games, "Unit", "After").split(' ').collect();
    assert!(after.contains(&"homehost.service") && after.contains(&"network.target"), "{after:?}");
    let after: Vec<_> = only(&node, "Unit", "After").split(' ').collect();
    assert!(after.contains(&"network.target"), "{after:?}");
    // … and at no other time: without these two it would go on at the shutdown.
    assert_eq!(only(&games, "Service", "Type"), "oneshot");
    assert_eq!(only(&games, "Service", "RemainAfterExit"), "yes");
    for tie in ["Requires", "Requisite", "BindsTo", "PartOf", "Wants", "DefaultDependencies"] {
        assert!(!games["Unit"].contains_key(tie), "{tie}");
    }
    let seconds: u64 = only(&games, "Service", "TimeoutStopSec").parse().expect("seconds");
    assert!(seconds > 150, "longer than `homehost down --games` waits");
    for unit in [&node, &games] {
        assert_eq!(only(unit, "Install", "WantedBy"), "multi-user.target");
    }
}

#[test]
fn what_the_units_of_systemd_run_works() {
    let test = Test::new();
    let (unit, games) = (unit("homehost.service"), unit("homehost-games.service"));
    let node = test.stopped_node("node", &[]);
    let start = || {
        let mut up = line_of(&unit, "ExecStart", &test, &node);
        up.args(["--json", "--no-mdns", "--http", "127.0.0.1:0", "--network", test.network()]);
        up.args(["--listen", "/ip4/127.0.0.1/tcp/0"]);
        let mut daemon = homehost_tests::Lines::start(&mut up, test.log("unit"));
        daemon.find(START, "it is up", |line| line.contains("\"api\"").then_some(()));
        daemon
    };
    let mut daemon = start();
    let game = pid(&node.host(&Game::stand_in(&test, "Served", 0))["pid"]);
    daemon.send(Signal::Terminate);
    assert_eq!(daemon.wait(Duration::from_secs(20)), Some(0));
    assert!(is_alive(game), "a restart of the service");
    let mut daemon = start();
    let stop = run(&mut line_of(&games, "ExecStop", &test, &node), Duration::from_secs(150));
    assert_eq!(stop.code, Some(0), "{stop:?}");
    assert_eq!(daemon.wait(Duration::from_secs(20)), Some(0));
    assert!(!is_alive(game), "the machine goes down");
}
