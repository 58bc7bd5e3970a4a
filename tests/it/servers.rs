//! Servers are added, started, stopped and removed, and what goes wrong is said
//! in one sentence with the next step.

use std::net::UdpSocket;
use std::time::Duration;

use homehost_tests::{Game, Test, eventually};

/// Codes of exit, as the manual has them.
const USAGE: i32 = 2;
const NOT_FOUND: i32 = 3;
const WRONG_STATE: i32 = 4;
const CONFLICT: i32 = 8;

#[test]
fn what_makes_no_sense_is_refused_naming_the_option() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let ok = Game::stand_in(&test, "Fine", 0);
    for (game, words) in [
        (Game::new("X", "x", "sh -c 'echo"), &["--exec", "never closed"][..]),
        (Game::new("X", "x", ""), &["--exec", "empty"]),
        (Game::new("X", "x", "game --port {port}"), &["--exec", "{port}", "known are"]),
        (Game::new("X", "x", "game {port.query}"), &["{port.query}"]),
        (Game::new("X", "x", "game {slots}"), &["{slots}"]),
        (Game::new("X", "x", "game").with("--query", "gamespy"), &["--query", "a2s"]),
        (Game::new("X", "x", "game").with("--query", "a2s:other"), &["--query", "--port other="]),
        (Game::new("X", "x", "game").with("--port", "game=99999/udp"), &["--port", "65535"]),
        (Game::new("X", "x", "game").with("--port", "game"), &["--port", "game=auto/udp"]),
        (Game::new("X", "Not A Slug", "game"), &["game"]),
        (Game::new("X", "x", "game").with("--tag", "Not A Tag"), &["tag"]),
        (Game::new("", "x", "game"), &["name"]),
        (Game::new(&"long ".repeat(100), "x", "game"), &["name"]),
    ] {
        let text = node.add(&game).refusal(USAGE);
        for word in words {
            assert!(text.contains(word), "{word:?} in {text:?} about {game:?}");
        }
    }
    assert_eq!(node.ok(&["server", "ls"]), serde_json::json!([]), "nothing was half added");
    assert_eq!(node.add(&ok).code, Some(0));
    assert!(node.add(&ok).refusal(CONFLICT).contains("Fine"), "a name is taken once");
}

#[test]
fn servers_are_known_by_name_and_by_the_beginning_of_their_id() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let server = node.host(&Game::stand_in(&test, "Known One", 0));
    let id = server["id"].as_str().expect("an id");
    for which in ["Known One", id, &id[..8]] {
        assert_eq!(node.ok(&["server", "show", which])["id"], *id, "{which}");
    }
    for verb in ["show", "start", "stop", "restart", "kill", "rm", "logs"] {
        let text = node.cli(&["server", verb, "Nobody"]).refusal(NOT_FOUND);
        assert!(text.contains("Nobody") && text.contains("server ls"), "{verb}: {text}");
    }
    assert!(node.cli(&["server", "input", "Nobody", "x"]).refusal(NOT_FOUND).contains("Nobody"));
}

#[test]
fn a_running_server_is_not_removed_and_a_stopped_one_is() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let server = node.host(&Game::stand_in(&test, "Sturdy", 0));
    let folder = std::path::PathBuf::from(server["folder"].as_str().expect("a folder"));
    assert!(folder.exists());
    let text = node.cli(&["server", "rm", "Sturdy"]).refusal(WRONG_STATE);
    assert!(text.contains("stop it first"), "{text}");
    node.ok(&["server", "stop", "Sturdy"]);
    node.ok(&["server", "stop", "Sturdy"]);
    let text = node.cli(&["server", "input", "Sturdy", "say hi"]).refusal(WRONG_STATE);
    assert!(!text.is_empty());
    node.ok(&["server", "rm", "Sturdy"]);
    assert!(folder.exists(), "its files stay unless somebody says otherwise");
    assert_eq!(node.ok(&["server", "ls"]), serde_json::json!([]));

    let server = node.host(&Game::stand_in(&test, "Fleeting", 0));
    let folder = std::path::PathBuf::from(server["folder"].as_str().expect("a folder"));
    node.ok(&["server", "kill", "Fleeting"]);
    node.ok(&["server", "rm", "Fleeting", "--delete-data"]);
    assert!(!folder.exists());
}

#[test]
fn a_taken_port_is_explained() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let game = |name: &str, port: u16| {
        Game::stand_in(&test, name, 0).with("--port", &format!("extra={port}/udp"))
    };
    let explained = |text: &str, port: u16| {
        assert!(text.contains(&port.to_string()), "{text}");
        if cfg!(target_os = "linux") {
            let own = format!("process {}", std::process::id());
            assert!(text.contains(&own), "{text} names the program");
        }
    };
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let port = socket.local_addr().expect("it is bound").port();
    explained(&node.add(&game("Early", port)).refusal(CONFLICT), port);

    drop(socket);
    assert_eq!(node.add(&game("Late", port)).code, Some(0));
    let socket = UdpSocket::bind(("127.0.0.1", port)).expect("it was free a moment ago");
    explained(&node.cli(&["server", "start", "Late"]).refusal(CONFLICT), port);
    drop(socket);
    node.start_server("Late");

    let text = node.add(&game("Rival", port)).refusal(CONFLICT);
    assert!(text.contains("Late"), "another server of this node has it: {text}");
}

#[cfg(unix)]
#[test]
fn a_game_that_dies_at_once_is_explained() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let game = Game::new("Short", "short", "sh -c 'echo loading; echo no such map; exit 3'");
    let answer = node.add_and_start(&game);
    assert_ne!(answer.code, Some(0), "{answer:?}");
    let text = answer.refusal(answer.code.expect("an exit code"));
    for word in ["Short was added", "3", "no such map", "start line"] {
        assert!(text.contains(word), "{word:?} in {text:?}");
    }
    let server = node.server_in("Short", "crashed", Duration::from_secs(5));
    assert!(
        server["problem"].as_str().is_some_and(|text| text.contains("no such map")),
        "{server}"
    );
    assert_eq!(server["restarts"], 0, "a wrong start line is not bad luck");
    let lines = node.cli(&["server", "logs", "Short"]).json_lines();
    let texts: Vec<_> = lines.iter().filter_map(|line| line["text"].as_str()).collect();
    assert_eq!(texts, ["loading", "no such map"]);

    let missing = Game::new("Absent", "absent", "/no/such/program --port 1");
    let answer = node.add_and_start(&missing);
    assert_ne!(answer.code, Some(0), "{answer:?}");
    let text = answer.refusal(answer.code.expect("an exit code"));
    assert!(text.contains("/no/such/program"), "{text}");
}

#[test]
fn a_stop_command_is_typed_into_the_console() {
    let test = Test::new();
    let node = test.node("node", &[]);
    node.host(&Game::stand_in(&test, "Polite", 0).with("--stop-command", "quit"));
    node.running("Polite");
    node.ok(&["server", "input", "Polite", "join anna"]);
    eventually(Duration::from_secs(30), "anna is counted", || {
        let server = node.ok(&["server", "show", "Polite"]);
        if server["players"] == 1 { Ok(()) } else { Err(server.to_string()) }
    });
    node.ok(&["server", "stop", "Polite"]);
    let server = node.ok(&["server", "show", "Polite"]);
    assert_eq!(server["state"], "offline");
    assert_eq!(server["pid"], serde_json::Value::Null);
    let lines = node.cli(&["server", "logs", "Polite"]).json_lines();
    let texts: Vec<_> = lines.iter().filter_map(|line| line["text"].as_str()).collect();
    assert!(texts.contains(&"anna joined (1 online)"), "{texts:?}");
    assert_eq!(texts.last(), Some(&"shutting down"), "no signal was needed: {texts:?}");
}

#[test]
fn a_restart_gives_a_new_process_on_the_same_port() {
    let test = Test::new();
    let node = test.node("node", &[]);
    node.host(&Game::stand_in(&test, "Again", 0));
    let before = node.running("Again");
    node.ok(&["server", "restart", "Again"]);
    eventually(Duration::from_secs(30), "a new process", || {
        let now = node.running("Again");
        if now["pid"] == before["pid"] { Err(now.to_string()) } else { Ok(()) }
    });
    assert_eq!(node.running("Again")["ports"], before["ports"]);
}
