//! What a node says of its own health, and what leaves it when somebody helps.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use homehost_tests::{Game, Node, Test, run};
use serde_json::Value;

const UNHEALTHY: i32 = 9;

fn level<'a>(report: &'a Value, check: &str) -> &'a str {
    let findings = report["findings"].as_array().expect("a list");
    let found = findings.iter().find(|finding| finding["check"] == check);
    found.unwrap_or_else(|| panic!("nothing of {check}: {report}"))["level"]
        .as_str()
        .expect("a level")
}

#[test]
fn a_node_is_looked_at_whether_it_runs_or_not() {
    let test = Test::new();
    let mut node = test.stopped_node("node", &[]);
    let report = node.ok(&["doctor"]);
    assert_eq!(level(&report, "node"), "amber", "nothing is there yet: {report}");
    assert_eq!(level(&report, "identity"), "amber");
    assert!(!node.data_dir().exists(), "looking makes nothing");

    node.start();
    let friend = test.node("friend", &[&node.address()]);
    friend.connected_to(&node);
    node.host(&Game::stand_in(&test, "Healthy", 1));
    node.running("Healthy");
    let report = node.ok(&["doctor"]);
    for check in ["node", "disk", "clock", "store", "peers"] {
        assert_eq!(level(&report, check), "green", "{check}: {report}");
    }
    assert_eq!(level(&report, "network"), "amber", "loopback alone: {report}");
    assert_ne!(level(&report, "server Healthy"), "red", "{report}");
    let plain = node.plain(&["doctor"]);
    assert!(plain.stdout.contains("homehost id recovery-phrase show"), "{plain:?}");
    node.down_with_games();
    assert_eq!(level(&node.ok(&["doctor"]), "identity"), "amber", "its phrase is unseen");
}

#[test]
fn what_is_red_ends_with_9_and_says_what_to_do() {
    let test = Test::new();
    let mut node = test.stopped_node("node", &[]);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("it is bound").port();
    fs::create_dir_all(node.data_dir()).expect("the folder is ours");
    let file = node.data_dir().join("config.toml");
    fs::write(&file, format!("[http]\nlisten = \"127.0.0.1:{port}\"\n")).expect("it is ours");
    let answer = node.cli(&["doctor"]);
    assert_eq!(answer.code, Some(UNHEALTHY), "{answer:?}");
    assert_eq!(level(&answer.json(), &format!("port {port}/tcp (api)")), "red");
    assert_eq!(answer.json()["worst"], "red");
    drop(taken);
    assert_eq!(node.cli(&["doctor"]).code, Some(0));

    fs::write(&file, "[mesh]\nmdsn = true\n").expect("the folder is ours");
    let answer = node.cli(&["doctor"]);
    assert_eq!(answer.code, Some(UNHEALTHY), "nothing starts with that: {answer:?}");
    assert_eq!(level(&answer.json(), "settings"), "red");

    // The file that `up` is given, in the place of the folder's own.
    let other = test.folder().join("other.toml");
    let named = other.display().to_string();
    let answer = node.cli(&["doctor", "--config", &named]);
    assert_eq!(answer.code, Some(UNHEALTHY), "`up` refuses one that is absent: {answer:?}");
    assert!(answer.stdout.contains("other.toml"), "{answer:?}");
    fs::write(&other, "").expect("the folder is ours");
    assert_eq!(node.cli(&["doctor", "--config", &named]).code, Some(0));

    fs::write(&file, "").expect("the folder is ours");
    node.start();
    fs::write(&other, "[mesh]\nmdsn = true\n").expect("the folder is ours");
    let report = node.ok(&["doctor"]);
    assert!(!report.to_string().contains("other.toml"), "the node has its own: {report}");
    let report = node.ok(&["doctor", "--config", &named]);
    assert_eq!(level(&report, "settings"), "amber", "{report}");
    node.down();
    fs::write(node.data_dir().join("identity").join("chain"), "no chain").expect("it is ours");
    let answer = node.cli(&["doctor"]);
    assert_eq!(answer.code, Some(UNHEALTHY), "{answer:?}");
    assert_eq!(level(&answer.json(), "identity"), "red");
}

/// What `up` and the doctor say of a node at rest.
#[track_caller]
fn refused_and_red(node: &Node<'_>, code: i32, check: &str, word: &str) {
    let answer = node.cli(&["doctor"]);
    assert_eq!(answer.code, Some(UNHEALTHY), "{answer:?}");
    let report = answer.json();
    assert_eq!(level(&report, check), "red", "{report}");
    let findings = report["findings"].as_array().expect("a list");
    let found = findings.iter().find(|finding| finding["check"] == check).expect("it is there");
    assert!(found["said"].as_str().is_some_and(|said| said.contains(word)), "{found}");
    let answer = run(&mut node.up_command(), Duration::from_secs(30));
    assert_eq!(answer.code, Some(code), "{answer:?}");
}

#[test]
fn what_up_refuses_is_red_before() {
    let test = Test::new();
    let mut node = test.node("node", &[]);
    node.down();
    assert_eq!(level(&node.ok(&["doctor"]), "store"), "green");
    let ledger = node.data_dir().join("store/ledger.redb");
    let sound = fs::read(&ledger).expect("the ledger is there");
    for damaged in [&[][..], &sound[..sound.len() / 2], &vec![0; sound.len()][..]] {
        fs::write(&ledger, damaged).expect("it is ours");
        refused_and_red(&node, 1, "store", "damaged");
        assert!(fs::read(&ledger).expect("it is there") == damaged, "looking changes nothing");
    }
    fs::write(&ledger, &sound).expect("it is ours");
    let schema = node.data_dir().join("store/replica/SCHEMA");
    fs::write(&schema, "999\n").expect("it is ours");
    refused_and_red(&node, 2, "store", "newer homehost");
    fs::write(&schema, "1\n").expect("it is ours");
    assert_eq!(level(&node.ok(&["doctor"]), "store"), "green");
    node.start();
    node.down();

    let file = test.folder().join("file");
    fs::write(&file, "no folder").expect("it is ours");
    for path in [file.clone(), file.join("below")] {
        node.set_data_dir(path);
        refused_and_red(&node, 1, "disk", "no folder");
    }
}

#[cfg(unix)]
#[test]
fn a_bundle_holds_what_helps_and_nothing_that_was_planted() {
    use homehost_tests::eventually;

    let test = Test::new();
    let mut node = test.stopped_node("geheim-anna", &[]);
    fs::create_dir_all(node.data_dir()).expect("the folder is ours");
    fs::write(
        node.data_dir().join("config.toml"),
        "# planted-comment\n[mesh]\nbootstrap = [\"/ip4/203.0.113.77/tcp/4001\", \
         \"/dns4/planted-host.example.org/tcp/4001\", \"/dns4/plantedpc/tcp/4001\"]\n",
    )
    .expect("the folder is ours");
    node.start();
    let script = "echo listening on 198.51.100.78:27015; echo from 2001:db8::77; \
                  echo rcon password is planted-rcon; echo token=planted-token; \
                  echo started with planted-start; echo at planted-cafe.example.net; \
                  echo mail planted.anna@example.org; echo the key is planted-env; \
                  echo legal winner thank year wave sausage worth useful legal winner thank yellow; \
                  echo at /home/planted-home/x and by planted-sudo; echo pins 73519 and zq7x1; \
                  echo words planted-pw1 and planted-pw2 from 203-0-113-79; \
                  for n in $(seq 195); do printf 'x '; done; echo planted-start; \
                  echo $((40+2)) sheep; echo ready; sleep 600";
    // Words of a script that stands in the start line would be known by it.
    let says = test.folder().join("says.sh");
    fs::write(&says, script).expect("the folder is ours");
    let exec = format!(
        "sh {} --admin planted-start --motd=planted-motd /srv/planted-path -pplanted-pw1 \
         -pw:planted-pw2 --pin 73519 -k=zq7x1",
        says.display()
    );
    node.host(&Game::new("Planted Party", "stand-in", &exec).with("--port", "game=auto/udp"));
    eventually(Duration::from_secs(30), "the game has spoken", || {
        let lines = node.cli(&["server", "logs", "Planted Party"]).stdout;
        lines.contains("ready").then_some(()).ok_or(lines)
    });
    let bundle = test.folder().join("bundle.tar");
    let path = bundle.display().to_string();
    let mut command = node.command(&["doctor", "--bundle", &path]);
    let answer = run(
        command
            .env("MY_API_TOKEN", "planted-env")
            .env("USER", "planted-user")
            .env("SUDO_USER", "planted-sudo"),
        Duration::from_secs(60),
    );
    assert!(matches!(answer.code, Some(0 | UNHEALTHY)), "{answer:?}");
    let bytes = fs::read(&bundle).expect("it was written");
    let text = String::from_utf8_lossy(&bytes).to_lowercase();
    let status = node.ok(&["status"]);
    let identity = node.ok(&["id"]);
    let of = |value: &Value| value.as_str().expect("a text").to_lowercase();
    let (_, token) = node.http();
    let folder = test.folder().display().to_string().to_lowercase();
    let planted = [
        "planted".to_owned(),
        "geheim-anna".to_owned(),
        "203.0.113.77".to_owned(),
        "198.51.100.78".to_owned(),
        "203-0-113-79".to_owned(),
        "73519".to_owned(),
        "zq7x1".to_owned(),
        "2001:db8".to_owned(),
        "example.org".to_owned(),
        "example.net".to_owned(),
        "sausage".to_owned(),
        token.to_lowercase(),
        of(&status["node"]),
        of(&status["root"]),
        of(&identity["key"]),
        folder,
    ];
    for secret in planted {
        let at = text.find(&secret).map(|at| &text[at.saturating_sub(120)..]);
        let around = at.map(|rest| rest.chars().take(240).collect::<String>());
        assert_eq!(around, None, "{secret} is in the bundle");
    }
    for file in ["identity/device.key", "identity/node.key", "identity/recovery.seed"] {
        let secret = fs::read(node.data_dir().join(file)).expect("it is there");
        assert!(!bytes.windows(secret.len()).any(|part| part == secret), "{file}");
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!text.contains(&hex), "{file} in hexadecimal");
    }
    for helps in [
        "doctor.json",
        "config.json",
        "mesh.bootstrap",
        "config.toml:3",
        "42 sheep",
        "--motd=<value>",
        "stand-in",
    ] {
        assert!(text.contains(helps), "{helps} is missing");
    }
    // What is there is not written over.
    let answer = node.cli(&["doctor", "--bundle", &path]);
    assert_ne!(answer.code, Some(0));
    assert!(answer.stderr.contains("there already"), "{answer:?}");
    node.down_with_games();

    // Without a running node the settings are in it all the same.
    let bundle = test.folder().join("at-rest.tar");
    node.ok(&["doctor", "--bundle", &bundle.display().to_string()]);
    let text = String::from_utf8_lossy(&fs::read(&bundle).expect("it was written")).to_lowercase();
    for helps in ["mesh.bootstrap", "config.toml:3", "mesh.listen"] {
        assert!(text.contains(helps), "{helps} is missing");
    }
    for secret in ["planted", "geheim-anna", "203.0.113.77", "example.org"] {
        assert!(!text.contains(secret), "{secret} is in the bundle");
    }
    let ending = fs::read_dir(test.folder()).expect("it is ours").flatten();
    let left = ending.filter(|of| of.file_name().to_string_lossy().starts_with(".homehost"));
    assert_eq!(left.count(), 0, "nothing is left beside it");
}
