//! What goes wrong around a node is one clear sentence and an exit code.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use homehost_tests::{Game, Node, Test, run};

/// What `up` says when it is refused.
#[track_caller]
fn refused(node: &Node<'_>, code: i32) -> String {
    let answer = run(&mut node.up_command(), Duration::from_secs(30));
    assert_eq!(answer.code, Some(code), "{answer:?}");
    assert_eq!(answer.stdout, "");
    // The log comes first on the same stream.
    let last = answer.stderr.trim_end().lines().last().unwrap_or_default();
    let body: serde_json::Value = serde_json::from_str(last).unwrap_or_default();
    body["error"]["message"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
}

#[test]
fn a_second_daemon_is_refused_and_the_first_goes_on() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let text = refused(&node, 8);
    assert!(text.contains(&node.data_dir().display().to_string()), "{text}");
    assert!(text.contains(&format!("process {}", node.pid())), "{text}");
    assert!(text.contains("folder of its own"), "{text}");
    assert_eq!(node.get("/readyz").status, 200);
    assert_eq!(node.ok(&["status"])["pid"], node.pid());
}

#[test]
fn a_damaged_identity_is_explained_and_not_replaced() {
    let test = Test::new();
    let mut node = test.node("node", &[]);
    let root = node.ok(&["id"])["root"].take();
    node.down();
    let identity = node.data_dir().join("identity");
    for name in ["device.key", "chain", "node.key"] {
        let path = identity.join(name);
        let good = fs::read(&path).expect(name);
        fs::write(&path, b"rubbish").expect(name);
        let text = refused(&node, 1);
        assert!(text.contains(name), "{text}");
        assert!(text.contains("damaged") && text.contains("backup"), "{text}");
        assert_eq!(fs::read(&path).expect(name), b"rubbish", "it is left for the owner to see");
        fs::write(&path, good).expect(name);
    }
    node.start();
    assert_eq!(node.ok(&["id"])["root"], root);
}

#[test]
fn an_empty_ledger_is_refused_and_a_missing_one_is_missed() {
    let test = Test::new();
    let mut node = test.node("node", &[]);
    assert_eq!(node.add(&Game::stand_in(&test, "Kept", 0)).code, Some(0));
    node.down();
    let ledger = node.data_dir().join("store/ledger.redb");
    let good = fs::read(&ledger).expect("the ledger is there");
    // What a power cut leaves of a file.
    fs::write(&ledger, "").expect("it is ours");
    let text = refused(&node, 1);
    assert!(text.contains("0 bytes") && text.contains("backup"), "{text}");
    assert_eq!(fs::read(&ledger).expect("it is there"), b"", "it is left for the owner to see");

    fs::remove_file(&ledger).expect("it is ours");
    node.start();
    let attention = node.ok(&["status"])["attention"].to_string();
    assert!(attention.contains("ledger.redb was missing"), "{attention}");
    assert_eq!(node.ok(&["server", "ls"]).as_array().map(Vec::len), Some(0));
    node.down();
    fs::write(&ledger, good).expect("it is ours");
    node.start();
    assert_eq!(node.ok(&["server", "ls"])[0]["name"], "Kept");
    let attention = node.ok(&["status"])["attention"].to_string();
    assert!(!attention.contains("missing"), "{attention}");
}

#[test]
fn a_taken_api_port_is_explained() {
    let test = Test::new();
    let node = test.stopped_node("node", &[]);
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = other.local_addr().expect("it is bound").to_string();
    let mut command = Command::new(test.program());
    command.args(["up", "--json", "--no-mdns", "--http", &address, "--data-dir"]);
    command.arg(node.data_dir()).args(["--listen", "/ip4/127.0.0.1/tcp/0"]);
    let text = run(&mut command, Duration::from_secs(30)).refusal(8);
    assert!(text.contains(&address) && text.contains("--http"), "{text}");
}

#[test]
fn a_taken_mesh_port_is_explained() {
    let test = Test::new();
    let node = test.stopped_node("node", &[]);
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = other.local_addr().expect("it is bound").port();
    let mut command = Command::new(test.program());
    command.args(["up", "--json", "--no-mdns", "--http", "127.0.0.1:0", "--data-dir"]);
    command.arg(node.data_dir()).args(["--listen", &format!("/ip4/127.0.0.1/tcp/{port}")]);
    let text = run(&mut command, Duration::from_secs(30)).refusal(8);
    assert!(text.contains(&port.to_string()) && text.contains("--listen"), "{text}");
}

#[test]
fn a_second_daemon_has_harmed_nothing() {
    let test = Test::new();
    let mut node = test.node("node", &[]);
    node.host(&Game::stand_in(&test, "Calm", 0));
    let before = node.running("Calm")["pid"].take();
    refused(&node, 8);
    assert_eq!(node.running("Calm")["pid"], before);
    assert_eq!(node.ok(&["server", "ls"])[0]["name"], "Calm", "it is still found by the verbs");
    node.down_with_games();
}

#[test]
fn rubbish_on_its_ports_does_not_disturb_a_node() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let mesh = node.address();
    let mesh = mesh.split('/').collect::<Vec<_>>();
    let mesh = format!("{}:{}", mesh[2], mesh[4]);
    let http = node.http().0.to_string();
    let long = [b'A'; 100_000];
    for address in [&mesh, &http] {
        for bytes in [&b"\0\0\0\0"[..], b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n", b"\xff\xfe", &long]
        {
            let mut stream = TcpStream::connect(address.as_str()).expect("it listens");
            // It may close before all is written.
            let _ = stream.write_all(bytes);
        }
    }
    let friend = test.node("friend", &[&node.address()]);
    let server = node.host(&Game::stand_in(&test, "Unmoved", 0));
    friend.sees(&server["id"], "live", Duration::from_secs(20));
}

#[test]
fn a_damaged_replica_is_healed() {
    let test = Test::new();
    let a = test.node("a", &[]);
    let mut b = test.node("b", &[&a.address()]);
    let theirs = a.host(&Game::stand_in(&test, "Theirs", 0));
    let own = b.host(&Game::stand_in(&test, "Own", 0));
    for server in [&theirs, &own] {
        b.sees(&server["id"], "live", Duration::from_secs(20));
    }
    b.down();
    let mut damaged = 0;
    let mut folders = vec![b.data_dir().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.components().any(|part| part.as_os_str() == "replica") {
                let size = entry.metadata().expect("a file").len();
                fs::write(&path, vec![0x5a; usize::try_from(size).expect("small")]).expect("ours");
                damaged += 1;
            }
        }
    }
    assert!(damaged > 0, "there was a replica");
    b.start();
    for server in [&theirs, &own] {
        b.sees(&server["id"], "live", Duration::from_secs(20));
    }
}

#[test]
fn an_api_beyond_loopback_is_refused() {
    let test = Test::new();
    let answer = run(
        Command::new(test.program())
            .args(["up", "--json", "--no-mdns", "--http", "0.0.0.0:0", "--data-dir"])
            .arg(test.folder().join("open")),
        Duration::from_secs(30),
    );
    assert!(answer.refusal(2).contains("loopback"), "{answer:?}");
}

#[cfg(unix)]
#[test]
fn another_user_is_not_told_that_there_is_no_node() {
    let test = Test::new();
    let mut node = test.node("node", &[]);
    another_user_is_refused(&node);
    assert_eq!(node.ok(&["status"])["pid"], node.pid());
    node.down();
    another_user_is_refused(&node);
    assert_eq!(node.cli(&["id"]).code, Some(0), "its own user may");
}

#[cfg(unix)]
#[track_caller]
fn another_user_is_refused(node: &Node<'_>) {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;

    const NOBODY: u32 = 65534;
    // Root passes every door, and can be somebody else; anybody else can shut one.
    let is_root = rustix::process::geteuid().is_root();
    let set_mode = |mode| {
        if !is_root {
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(node.data_dir(), mode).expect("it is ours");
        }
    };
    set_mode(0o000);
    let commands = [&["status"][..], &["server", "ls"], &["id"], &["doctor"], &["down"]];
    let answers = commands.map(|args| {
        let mut command = node.command(args);
        if is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        run(&mut command, Duration::from_secs(30))
    });
    set_mode(0o711);
    for answer in answers {
        let text = answer.refusal(5);
        assert!(text.contains("another user") && text.contains("sudo"), "{text}");
    }
}
