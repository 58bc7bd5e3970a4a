//! The command line: codes of exit, JSON for programs, plain text for pipes.

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use homehost_tests::process::Signal;
#[cfg(unix)]
use homehost_tests::process::send;
use homehost_tests::{Game, Test, run};

#[test]
fn without_a_node_every_verb_says_so() {
    let test = Test::new();
    let node = test.stopped_node("nobody", &[]);
    for args in [
        &["status"][..],
        &["id"],
        &["peers"],
        &["discover"],
        &["discover", "--watch"],
        &["down"],
        &["down", "--games"],
        &["server", "ls"],
        &["server", "show", "x"],
        &["server", "start", "x"],
        &["server", "stop", "x"],
        &["server", "restart", "x"],
        &["server", "kill", "x"],
        &["server", "logs", "x"],
        &["server", "input", "x", "y"],
        &["server", "rm", "x"],
        &["server", "add", "x", "--game", "x", "--exec", "x"],
    ] {
        let text = node.cli(args).refusal(7);
        assert!(text.contains("homehost up"), "{args:?}: {text}");
        let plain = node.plain(args);
        assert_eq!((plain.code, plain.stdout.as_str()), (Some(7), ""), "{args:?}");
        assert_eq!(plain.stderr.trim_end().lines().count(), 1, "one sentence: {plain:?}");
    }
}

#[test]
fn a_node_that_was_killed_is_missed_in_the_same_words() {
    let test = Test::new();
    let mut node = test.node("node", &[]);
    node.kill();
    assert!(node.cli(&["status"]).refusal(7).contains("homehost up"));
}

/// What a daemon that was killed left behind names a port that anybody may have.
#[test]
fn whoever_has_the_port_of_a_dead_node_is_not_asked() {
    let test = Test::new();
    let node = test.stopped_node("node", &[]);
    let silent = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let address = silent.local_addr().expect("it is bound");
    fs::create_dir_all(node.data_dir()).expect("the folder is ours");
    let place = serde_json::json!({ "address": address, "pid": 1 }).to_string();
    fs::write(node.data_dir().join("api.json"), place).expect("the folder is ours");
    fs::write(node.data_dir().join("api.token"), "x").expect("the folder is ours");
    for args in [&["status"][..], &["down"], &["config", "show"], &["discover", "--watch"]] {
        let answer = node.cli(args);
        // Settings are read without a node as well.
        let code = if args[0] == "config" { 0 } else { 7 };
        assert_eq!(answer.code, Some(code), "{args:?}: {answer:?}");
    }
    silent.set_nonblocking(true).expect("it is ours");
    let nobody = silent.accept().expect_err("nobody came");
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
}

#[cfg(unix)]
#[test]
fn a_node_that_is_stuck_is_given_up() {
    let test = Test::new();
    let node = test.node("node", &[]);
    send(node.pid(), Signal::Stop);
    let said = node.cli(&["status"]).refusal(6);
    send(node.pid(), Signal::Continue);
    assert!(said.contains("10 s") && said.contains("log"), "{said}");
    node.ok(&["status"]);
}

#[cfg(target_os = "linux")]
#[test]
fn an_answer_that_cannot_be_written_is_an_error_and_a_reader_who_has_enough_is_none() {
    use std::process::Stdio;
    let test = Test::new();
    for args in [&["config", "show", "--docs"][..], &["--help"]] {
        let into = |stdout: Stdio| {
            let mut command = Command::new(test.program());
            command.args(args).arg("--data-dir").arg(test.folder());
            let child = command.stdout(stdout).stderr(Stdio::piped()).spawn();
            let output = child.and_then(std::process::Child::wait_with_output).expect("it runs");
            (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let full = fs::File::options().write(true).open("/dev/full").expect("Linux has it");
        let (code, said) = into(full.into());
        assert_eq!(code, Some(1), "{args:?}: {said}");
        assert!(said.contains("error: failed to write to standard output"), "{said}");
        let (reader, writer) = std::io::pipe().expect("the system has pipes");
        drop(reader);
        assert_eq!(into(writer.into()), (Some(0), String::new()), "{args:?}");
    }
}

#[test]
fn wrong_use_ends_with_2_and_help_with_0() {
    let test = Test::new();
    let homehost =
        |args: &[&str]| run(Command::new(test.program()).args(args), Duration::from_secs(30));
    for args in [
        &[][..],
        &["fly"],
        &["up", "--listen", "somewhere"],
        &["up", "--network", "No Spaces"],
        &["discover", "--sort", "luck"],
        &["server", "add", "x"],
        &["status", "--no-such-option"],
    ] {
        let answer = homehost(args);
        assert_eq!(answer.code, Some(2), "{args:?}: {answer:?}");
        assert!(!answer.stderr.is_empty(), "{args:?}");
    }
    for args in [&["--help"][..], &["server", "add", "--help"], &["--version"]] {
        let answer = homehost(args);
        assert_eq!(answer.code, Some(0), "{args:?}: {answer:?}");
        assert!(
            answer.stdout.contains("homehost") || answer.stdout.contains("Usage"),
            "{answer:?}"
        );
        assert!(!answer.stdout.contains("__"), "hidden programs stay hidden: {answer:?}");
    }
}

#[test]
fn every_verb_speaks_json_to_programs_and_plain_text_to_pipes() {
    let test = Test::new();
    let mut node = test.node("node", &[]);
    let friend = test.node("friend", &[&node.address()]);
    friend.connected_to(&node);
    let server = node.host(&Game::stand_in(&test, "Voluble", 3));
    node.running("Voluble");
    friend.sees(&server["id"], "live", Duration::from_secs(20));
    let second = Game::stand_in(&test, "Second", 0);
    assert_eq!(node.add(&second).json()["action"], "server-add");

    for args in [
        &["status"][..],
        &["id"],
        &["peers"],
        &["discover"],
        &["discover", "--all", "--game", "stand-in"],
        &["server", "ls"],
        &["server", "show", "Voluble"],
        &["server", "logs", "Voluble"],
        &["server", "input", "Voluble", "say \u{1b}[31mred\u{1b}[0m"],
        &["server", "restart", "Voluble"],
        &["server", "start", "Voluble"],
        &["server", "stop", "Voluble"],
        &["server", "kill", "Voluble"],
        &["server", "logs", "Voluble", "--tail", "5"],
    ] {
        let json = node.cli(args);
        assert_eq!(json.code, Some(0), "{args:?}: {json:?}");
        assert!(!json.json_lines().is_empty(), "{args:?}: {json:?}");
        let plain = node.plain(args);
        assert_eq!(plain.code, Some(0), "{args:?}: {plain:?}");
        assert!(!plain.stdout.trim().is_empty(), "{args:?}");
        for (what, answer) in [("JSON", &json), ("text", &plain)] {
            let clean = !answer.stdout.contains('\u{1b}') && !answer.stderr.contains('\u{1b}');
            assert!(clean, "{what} of {args:?}: {answer:?}");
        }
    }
    assert!(node.plain(&["server", "rm", "Second"]).stdout.contains("Second"));
    let receipt = node.ok(&["server", "rm", "Voluble", "--delete-data"]);
    assert_eq!(receipt["action"], "server-remove");
    // A failure is JSON, too, or one line without colour.
    let plain = node.plain(&["server", "show", "Voluble"]);
    assert_eq!(plain.stderr.lines().count(), 1);
    assert!(plain.stderr.starts_with("error: "), "{plain:?}");
    assert!(!plain.stderr.contains('\u{1b}'), "{plain:?}");
    node.down_with_games();
}

#[test]
fn watching_goes_on_until_it_is_interrupted() {
    let test = Test::new();
    let mut node = test.node("node", &[]);
    let mut watch = node.follow(&["discover", "--watch"]);
    let server = node.host(&Game::stand_in(&test, "Passing", 0));
    let within = Duration::from_secs(20);
    let change = |line: &str, change: &str| {
        let event: serde_json::Value = serde_json::from_str(line).expect("one JSON value a line");
        let id = if change == "put" { &event["row"]["id"] } else { &event["id"] };
        (event["change"] == change && *id == server["id"]).then_some(())
    };
    watch.find(within, "the new row", |line| change(line, "put"));
    let mut logs = node.follow(&["server", "logs", "Passing", "--follow"]);
    node.ok(&["server", "input", "Passing", "say hello"]);
    logs.find(within, "the new line", |line| line.contains("[server] hello").then_some(()));
    node.ok(&["server", "stop", "Passing"]);
    watch.find(within, "its withdrawal", |line| change(line, "gone"));
    if cfg!(unix) {
        watch.send(Signal::Interrupt);
        assert_eq!(watch.wait(Duration::from_secs(5)), Some(0));
    }
    // Those who still read learn of the end.
    node.down();
    logs.wait(Duration::from_secs(10));
}
