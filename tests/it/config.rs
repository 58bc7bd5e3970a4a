//! Settings: from where they come, what is refused, what changes at runtime.

use std::fs;
use std::time::Duration;

use homehost_tests::{Test, eventually, run};
use serde_json::Value;

const USAGE: i32 = 2;
const NOT_FOUND: i32 = 3;

const WITHIN: Duration = Duration::from_secs(30);

fn setting(view: &Value, key: &str) -> Value {
    let settings = view["settings"].as_array().expect("a list");
    settings.iter().find(|of| of["key"] == key).expect("it is listed").clone()
}

#[test]
fn a_node_goes_by_its_file_and_says_from_where_each_value_came() {
    let test = Test::new();
    let mut node = test.stopped_node("node", &[]);
    fs::create_dir_all(node.data_dir()).expect("the folder is ours");
    fs::write(
        node.data_dir().join("config.toml"),
        "# mine\n[mesh]\nmdns = false\nnetwork = \"elsewhere\"\n",
    )
    .expect("the folder is ours");
    node.start();
    let view = node.ok(&["config", "show"]);
    let network = setting(&view, "mesh.network");
    assert_eq!(network["from"], "--network", "options count more: {network}");
    assert_eq!(network["value"], format!("\"{}\"", test.network()));
    assert_eq!(setting(&view, "log")["from"], "HOMEHOST_LOG");
    assert_eq!(setting(&view, "mesh.bootstrap")["from"], "default");
    node.down();
    // Nobody runs: what the next start would take, without options.
    let view = node.ok(&["config", "show"]);
    assert_eq!(setting(&view, "mesh.network")["value"], "\"elsewhere\"");
    assert_eq!(setting(&view, "mesh.network")["from"], "config.toml:4");
    let plain = node.plain(&["config", "show"]);
    assert!(plain.stdout.contains("mesh.mdns\tfalse\tconfig.toml:3"), "{plain:?}");
}

#[test]
fn mistakes_are_refused_with_their_line_and_change_nothing() {
    let test = Test::new();
    let node = test.stopped_node("node", &[]);
    fs::create_dir_all(node.data_dir()).expect("the folder is ours");
    let file = node.data_dir().join("config.toml");
    let broken = "[mesh]\nbootstap = []\n";
    fs::write(&file, broken).expect("the folder is ours");
    let said = "config.toml:2: mesh.bootstap is not a setting; did you mean mesh.bootstrap?";
    let answer = run(&mut node.up_command(), WITHIN);
    assert_eq!(answer.refusal(USAGE), said, "nothing starts");
    assert!(node.cli(&["config", "check"]).refusal(USAGE).ends_with(said));
    assert_eq!(node.cli(&["config", "show"]).refusal(USAGE), said);
    let text = node.cli(&["config", "set", "mesh.mdns", "false"]).refusal(USAGE);
    assert_eq!(text, said, "what is broken is not written to");
    assert_eq!(fs::read_to_string(&file).expect("it is there"), broken);

    // Each mistake has a line of its own.
    fs::write(&file, "[mesh]\nbootstap = []\nmdns = 3\n").expect("the folder is ours");
    let answer = node.plain(&["config", "check"]);
    assert_eq!(answer.code, Some(USAGE), "{answer:?}");
    let lines: Vec<_> = answer.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{answer:?}");
    assert!(lines[0].contains("config.toml:2: mesh.bootstap"), "{answer:?}");
    assert!(
        lines[1].starts_with("  ") && lines[1].contains("config.toml:3: mesh.mdns"),
        "{answer:?}"
    );

    // The variables are checked with the file.
    fs::write(&file, "").expect("the folder is ours");
    for (name, words) in [
        ("HOMEHOST__MESH__MDSN", "HOMEHOST__MESH__MDNS?"),
        ("HOMEHOST_MESH_MDNS", "HOMEHOST__MESH__MDNS?"),
    ] {
        let mut command = node.command(&["config", "check"]);
        let text = run(command.env(name, "true"), WITHIN).refusal(USAGE);
        assert!(text.contains(name) && text.contains(words), "{text}");
    }
    let absent = test.folder().join("absent.toml").display().to_string();
    let text = node.cli(&["config", "check", &absent]).refusal(NOT_FOUND);
    assert!(text.contains("absent.toml"), "{text}");
    let mut command = node.up_command();
    let text = run(command.args(["--config", &absent]), WITHIN).refusal(NOT_FOUND);
    assert!(text.contains("--docs"), "{text}");
    let mut command = node.up_command();
    let text = run(command.env("HOMEHOST__MESH__MDSN", "true"), WITHIN).refusal(USAGE);
    assert!(text.contains("HOMEHOST__MESH__MDNS?"), "{text}");

    fs::write(&file, "").expect("the folder is ours");
    for (listen, words) in [
        ("/dns4/localhost/tcp/4001", "cannot be listened on"),
        ("/ip4/192.0.2.1/tcp/0", "an address that this machine has"),
    ] {
        let mut command = node.command(&["up", "--no-mdns", "--http", "127.0.0.1:0"]);
        let text = run(command.args(["--listen", listen]), WITHIN).refusal(USAGE);
        assert!(text.contains(words) && text.contains("/ip4/0.0.0.0/tcp/4011"), "{text}");
    }
    for (args, words) in [
        (&["config", "set", "mesh.bootstap", "x"][..], &["did you mean mesh.bootstrap?"][..]),
        (&["config", "set", "mesh.bootstrap", "x"], &["multiaddrs", "\"x\""]),
        (&["config", "set", "mesh.mdns"], &["true or false"]),
    ] {
        let text = node.cli(args).refusal(USAGE);
        for word in words {
            assert!(text.contains(word), "{word} in {text}");
        }
    }
    assert_eq!(fs::read_to_string(&file).expect("it is there"), "");
}

#[test]
fn the_documented_file_is_one_to_begin_with() {
    let test = Test::new();
    let node = test.stopped_node("node", &[]);
    let docs = node.plain(&["config", "show", "--docs"]);
    fs::create_dir_all(node.data_dir()).expect("the folder is ours");
    let file = node.data_dir().join("config.toml");
    fs::write(&file, &docs.stdout).expect("the folder is ours");
    node.ok(&["config", "check"]);
    node.ok(&["config", "set", "mesh.mdns", "false"]);
    let set = fs::read_to_string(&file).expect("it is there");
    for line in docs.stdout.lines() {
        assert!(set.contains(line), "{line:?} is gone from {set}");
    }
    assert_eq!(setting(&node.ok(&["config", "show"]), "mesh.mdns")["value"], "false");
}

#[test]
fn a_running_node_takes_what_can_change_and_keeps_the_last_good() {
    let test = Test::new();
    let other = test.node("other", &[]);
    let mut node = test.stopped_node("node", &[]);
    fs::create_dir_all(node.data_dir()).expect("the folder is ours");
    let file = node.data_dir().join("config.toml");
    node.start();
    let attention = || node.ok(&["status"])["attention"].to_string();

    node.ok(&["config", "set", "mesh.bootstrap", &other.address()]);
    node.connected_to(&other);

    fs::write(&file, "[mesh]\nbootstrap = 1\n").expect("the folder is ours");
    eventually(WITHIN, "the broken file is told", || {
        let said = attention();
        let told = said.contains("config.toml:2") && said.contains("still count");
        told.then_some(()).ok_or(said)
    });
    let view = node.ok(&["config", "show"]);
    let bootstrap = setting(&view, "mesh.bootstrap");
    assert!(bootstrap["value"].as_str().expect("a value").contains("/ip4/127.0.0.1/"), "{view}");
    assert!(view["problem"].as_str().expect("a sentence").contains("config.toml:2"), "{view}");

    fs::write(
        &file,
        "[http]\nlisten = \"127.0.0.1:7999\"\n[mesh]\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\n",
    )
    .expect("the folder is ours");
    eventually(WITHIN, "the mended file is taken", || {
        let view = node.ok(&["config", "show"]);
        let mended = view["problem"] == Value::Null;
        let gone = setting(&view, "mesh.bootstrap")["from"] == "default";
        (mended && gone).then_some(()).ok_or(view.to_string())
    });
    // The options of this start lie over both.
    assert!(!attention().contains("restart"), "{}", attention());

    // Nothing but the text tells these two apart.
    let taken_from = |from: &str| {
        eventually(WITHIN, "the file is taken", || {
            let view = node.ok(&["config", "show"]);
            let taken = setting(&view, "mesh.bootstrap")["from"] == from;
            taken.then_some(()).ok_or(view.to_string())
        });
    };
    let bootstrap = format!("bootstrap = [\"{}\"]\n", other.address());
    fs::write(&file, format!("[mesh]\n{bootstrap}\n")).expect("the folder is ours");
    taken_from("config.toml:2");
    let modified = fs::metadata(&file).and_then(|of| of.modified()).expect("it is there");
    fs::write(&file, format!("\n[mesh]\n{bootstrap}")).expect("the folder is ours");
    let written = fs::File::options().write(true).open(&file).expect("it is ours");
    written.set_modified(modified).expect("it is ours");
    taken_from("config.toml:3");

    // Without the file, what it said goes on.
    let text = fs::read(&file).expect("it is there");
    fs::remove_file(&file).expect("it is ours");
    eventually(WITHIN, "it is missed", || {
        let said = attention();
        let told = said.contains("config.toml is gone") && said.contains("still count");
        told.then_some(()).ok_or(said)
    });
    let view = node.ok(&["config", "show"]);
    assert_eq!(setting(&view, "mesh.bootstrap")["from"], "config.toml:3", "{view}");
    fs::write(&file, text).expect("the folder is ours");
    eventually(WITHIN, "it is there again", || {
        let said = attention();
        if said.contains("gone") { Err(said) } else { Ok(()) }
    });
    node.down();
}

#[test]
fn what_needs_a_restart_is_said_to_wait_for_one() {
    let test = Test::new();
    let folder = test.folder().join("plain");
    fs::create_dir_all(&folder).expect("the folder is ours");
    let file = folder.join("config.toml");
    let settings = |network: &str| {
        format!(
            "[http]\nlisten = \"127.0.0.1:0\"\n[mesh]\nmdns = false\nnetwork = \"{network}\"\n\
             listen = [\"/ip4/127.0.0.1/tcp/0\"]\n"
        )
    };
    fs::write(&file, settings(test.network())).expect("the folder is ours");
    let mut node = test.stopped_node("plain", &[]);
    node.start_with(&[]);
    let status = node.ok(&["status"]);
    assert_eq!(status["network"], test.network(), "no option was given: {status}");
    assert!(!status["attention"].to_string().contains("restart"), "{status}");
    fs::write(&file, settings("another")).expect("the folder is ours");
    eventually(WITHIN, "the change is told", || {
        let said = node.ok(&["status"])["attention"].to_string();
        let told = said.contains("mesh.network") && said.contains("restart");
        told.then_some(()).ok_or(said)
    });
    assert_eq!(node.ok(&["config", "show"])["waiting"], serde_json::json!(["mesh.network"]));
    assert_eq!(node.ok(&["status"])["network"], test.network());
    node.down();
    node.start_with(&[]);
    assert_eq!(node.ok(&["status"])["network"], "another");
    node.down();
}

#[cfg(unix)]
#[test]
fn an_edit_that_does_not_check_is_kept_beside_the_old_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let test = Test::new();
    let node = test.stopped_node("node", &[]);
    fs::create_dir_all(node.data_dir()).expect("the folder is ours");
    let file = node.data_dir().join("config.toml");
    let old = "# mine\n[mesh]\nmdns = true\n";
    fs::write(&file, old).expect("the folder is ours");
    let editor = |name: &str, script: &str| {
        let path = test.folder().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("the folder is ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
        let mut command = node.command(&["config", "edit"]);
        command.env_remove("VISUAL").env("EDITOR", path);
        run(&mut command, WITHIN)
    };
    let text = editor("wrong", "sed -i s/mdns/mdsn/ \"$1\"").refusal(USAGE);
    let beside = node.data_dir().join("config.edited.toml");
    for word in ["config.toml:3", "did you mean mesh.mdns?", &beside.display().to_string()] {
        assert!(text.contains(word), "{word} in {text}");
    }
    assert_eq!(fs::read_to_string(&file).expect("it is there"), old);
    assert!(fs::read_to_string(&beside).expect("it is there").contains("mdsn"));
    // The next edit goes on with it.
    let answer = editor("right", "sed -i 's/mdsn = true/mdns = false/' \"$1\"");
    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert_eq!(fs::read_to_string(&file).expect("it is there"), "# mine\n[mesh]\nmdns = false\n");
    assert!(!beside.exists());
    let answer = editor("failing", "exit 3");
    assert_ne!(answer.code, Some(0));
    assert!(answer.stderr.contains("nothing was saved"), "{answer:?}");
    for (name, script) in [("absent", "rm \"$0\"; exit 0"), ("leaves-nothing", "rm \"$1\"")] {
        let answer = editor(name, script);
        assert_eq!(answer.code, Some(0), "{answer:?}");
        assert!(answer.stdout.contains("nothing changed"), "{answer:?}");
        let kept = fs::read_to_string(&file).expect("it is there");
        assert_eq!(kept, "# mine\n[mesh]\nmdns = false\n", "{name}");
    }
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_refused_at_once() {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::symlink;
    let test = Test::new();
    let node = test.stopped_node("node", &[]);
    fs::create_dir_all(node.data_dir()).expect("the folder is ours");
    let file = node.data_dir().join("config.toml");
    let everyone_says = |code: i32, words: &str| {
        for args in
            [&["config", "check"][..], &["config", "show"], &["config", "set", "log", "info"]]
        {
            let said = node.cli(args).refusal(code);
            assert!(said.contains(words), "{args:?}: {said}");
        }
        let said = run(&mut node.up_command(), WITHIN).refusal(code);
        assert!(said.contains(words), "{said}");
    };
    let made = std::process::Command::new("mkfifo").arg(&file).status().expect("it runs");
    assert!(made.success());
    everyone_says(USAGE, "plain file");
    fs::remove_file(&file).expect("it is ours");
    symlink("/dev/zero", &file).expect("the folder is ours");
    everyone_says(USAGE, "plain file");
    fs::remove_file(&file).expect("it is ours");
    symlink("elsewhere.toml", &file).expect("the folder is ours");
    everyone_says(NOT_FOUND, "is a link to elsewhere.toml, which is not there");
    // What it leads to may be written later.
    fs::write(node.data_dir().join("elsewhere.toml"), "").expect("the folder is ours");
    node.ok(&["config", "set", "mesh.mdns", "false"]);
    assert!(file.is_symlink());

    let mut command = node.command(&["config", "check"]);
    let value = std::ffi::OsStr::from_bytes(b"\xff");
    let said = run(command.env("HOMEHOST__LOG", value), WITHIN).refusal(USAGE);
    assert!(said.contains("HOMEHOST__LOG") && said.contains("UTF-8"), "{said}");
    let mut command = node.up_command();
    let said = run(command.env("HOMEHOST_LOG", "debgu"), WITHIN).refusal(USAGE);
    assert!(said.contains("did you mean debug?"), "{said}");
}
