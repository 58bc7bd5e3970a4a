//! Keys are rotated, revoked, backed up and shared, while games go on.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use homehost_tests::{Game, Node, Test, eventually};
use serde_json::Value;

use super::directory::copy;
use super::words::{self, WORDS};

/// Another one.
const OTHERS: &str = "legal winner thank year wave sausage worth useful legal winner thank yellow";

const FOUND: Duration = Duration::from_secs(20);

/// A node that is still to be started, whose phrase will be [`WORDS`].
pub(crate) fn with_known_phrase<'a>(test: &'a Test, name: &str) -> Node<'a> {
    let node = test.stopped_node(name, &[]);
    words::born(&node.data_dir().join("identity"));
    node
}

/// A file in the test's folder; its path as text.
pub(crate) fn file(test: &Test, name: &str, text: &str) -> String {
    let path = test.folder().join(name);
    fs::write(&path, text).expect("the folder is ours");
    path.to_str().expect("a plain path").to_owned()
}

/// Files in a folder and below that hold one of some texts.
pub(crate) fn holding(folder: &Path, texts: &[impl AsRef<str>]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        // A pipe among them would never end.
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(holding(&path, texts)),
            Ok(kind) if kind.is_file() => {
                let bytes = fs::read(&path).unwrap_or_default();
                let file = String::from_utf8_lossy(&bytes);
                if texts.iter().any(|text| file.contains(text.as_ref())) {
                    found.push(path);
                }
            }
            _ => {}
        }
    }
    found
}

#[track_caller]
fn problem(node: &Node<'_>, server: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually(FOUND, "the server's problem", || {
        let problem = node.ok(&["server", "show", server])["problem"].take();
        if wanted(&problem) { Ok(problem) } else { Err(problem.to_string()) }
    })
}

#[test]
fn a_rotation_changes_the_key_and_the_game_goes_on() {
    let test = Test::new();
    let mut node = with_known_phrase(&test, "node");
    node.start();
    let server = node.host(&Game::stand_in(&test, "Steady", 1));
    let pid = node.running("Steady")["pid"].take();
    node.sees(&server["id"], "live", FOUND);
    let before = node.ok(&["id"]);
    assert_eq!(
        (&before["key_epoch"], &before["device"], &before["events"]),
        (&0.into(), &0.into(), &1.into())
    );
    let words = file(&test, "words", &format!("{}\n", WORDS.to_uppercase()));
    let verified = node.ok(&["id", "recovery-phrase", "verify", "--phrase-file", &words]);
    assert!(
        verified["message"].as_str().is_some_and(|text| text.contains("recovery phrase of root"))
    );

    let receipt = node.ok(&["id", "rotate", "--phrase-file", &words]);
    assert_eq!(receipt["action"], "id-apply");
    let after = node.ok(&["id"]);
    assert_eq!(
        (&after["key_epoch"], &after["device"], &after["events"]),
        (&1.into(), &0.into(), &2.into())
    );
    assert_eq!(after["root"], before["root"]);
    assert_eq!(after["node"], before["node"]);
    assert_ne!(after["key"], before["key"]);
    let goes_on = |node: &Node<'_>| {
        assert_eq!(node.running("Steady")["pid"], pid);
        problem(node, "Steady", Value::is_null);
        assert_eq!(node.sees(&server["id"], "live", FOUND)["host"], before["root"]);
        assert_eq!(node.rows("?all=true").len(), 1, "listed once");
    };
    goes_on(&node);
    // The same words bring in the next key, also after a restart and without a node.
    node.down();
    let receipt = node.ok(&["id", "rotate", "--phrase-file", &words]);
    assert!(
        receipt["message"].as_str().is_some_and(|text| text.contains("homehost up")),
        "{receipt}"
    );
    assert_eq!(node.ok(&["id"])["network"], Value::Null);
    node.start();
    assert_eq!(node.ok(&["id"])["key_epoch"], 2);
    goes_on(&node);
    let words = ["abandon abandon", "ABANDON ABANDON"];
    assert_eq!(holding(node.data_dir(), &words), Vec::<PathBuf>::new(), "nowhere on the disk");
}

#[test]
fn wrong_words_change_nothing_and_are_explained() {
    let test = Test::new();
    let mut node = with_known_phrase(&test, "node");
    node.start();
    let before = node.ok(&["id"]);
    let root = before["root"].as_str().expect("a root");
    for (words, code, text) in [
        (OTHERS, 5, root),
        ("abandon about", 2, "has 12 words, these are 2"),
        (&WORDS.replace("about", "abot"), 2, "word 12"),
        (&WORDS.replace("about", "above"), 2, "one is wrong"),
    ] {
        let words = file(&test, "words", words);
        for verb in [
            &["id", "rotate"][..],
            &["id", "revoke", "--yes"],
            &["id", "recovery-phrase", "verify"],
        ] {
            let args = [verb, &["--phrase-file", &words]].concat();
            let refusal = node.cli(&args).refusal(code);
            assert!(refusal.contains(text), "{args:?}: {refusal}");
        }
    }
    // There is nobody to ask.
    for (args, text) in [
        (&["id", "rotate"][..], "--phrase-file"),
        (&["id", "recovery-phrase", "verify"], "--phrase-file"),
        (&["id", "backup", "/nowhere/b"], "--passphrase-file"),
    ] {
        let refusal = node.cli(args).refusal(2);
        assert!(refusal.contains(text), "{args:?}: {refusal}");
    }
    let refusal = node.cli(&["id", "recovery-phrase", "show"]).refusal(4);
    assert!(refusal.contains("shown once"), "{refusal}");
    assert_eq!(node.ok(&["id"]), before);
    let attention = node.ok(&["status"])["attention"].to_string();
    assert!(!attention.contains("recovery-phrase"), "{attention}");
}

#[test]
fn after_a_revocation_nothing_is_listed_until_a_rotation() {
    let test = Test::new();
    let mut node = with_known_phrase(&test, "node");
    node.start();
    node.host(&Game::stand_in(&test, "Steady", 1));
    let pid = node.running("Steady")["pid"].take();
    problem(&node, "Steady", Value::is_null);
    let words = file(&test, "words", WORDS);
    let refusal = node.cli(&["id", "revoke", "--phrase-file", &words]).refusal(2);
    assert!(refusal.contains("--yes"), "{refusal}");
    node.ok(&["id", "revoke", "--yes", "--phrase-file", &words]);
    let revoked = |problem: &Value| {
        problem.as_str().is_some_and(|text| text.contains("revoked") && text.contains("id rotate"))
    };
    for _ in 0..2 {
        problem(&node, "Steady", revoked);
        let view = node.ok(&["id"]);
        assert_eq!((&view["device"], &view["key_epoch"]), (&Value::Null, &1.into()));
        assert_eq!(node.ok(&["id", "devices"]), Value::Array(vec![]));
        assert!(node.ok(&["status"])["attention"].to_string().contains("id rotate"));
        let refusal = node.cli(&["id", "device", "add", &"a".repeat(52)]).refusal(4);
        assert!(refusal.contains("id rotate"), "{refusal}");
        // A start finds it as it was.
        node.down();
        let refusal = node.cli(&["id", "revoke", "--yes", "--phrase-file", &words]).refusal(7);
        assert!(refusal.contains("homehost up"), "{refusal}");
        node.start();
    }
    node.ok(&["id", "rotate", "--phrase-file", &words]);
    problem(&node, "Steady", Value::is_null);
    assert_eq!(node.ok(&["id"])["key_epoch"], 2);
    assert_eq!(node.running("Steady")["pid"], pid);
}

#[test]
fn a_backup_brings_the_same_root_back() {
    let test = Test::new();
    let mut node = with_known_phrase(&test, "node");
    node.start();
    let before = node.ok(&["id"]);
    let backup = test.folder().join("backup").to_str().expect("a plain path").to_owned();
    let short = file(&test, "short", "seven77\n");
    let refusal = node.cli(&["id", "backup", &backup, "--passphrase-file", &short]).refusal(2);
    assert!(refusal.contains("8 characters"), "{refusal}");
    let right = file(&test, "right", "correct horse battery\n");
    let wrong = file(&test, "wrong", "correct house battery\n");
    node.ok(&["id", "backup", &backup, "--passphrase-file", &right]);
    let refusal = node.cli(&["id", "backup", &backup, "--passphrase-file", &right]).refusal(8);
    assert!(refusal.contains("not replaced"), "{refusal}");

    let mut back = test.stopped_node("back", &[]);
    let no_backup = file(&test, "words", WORDS);
    for (file, passphrase, code, text) in [
        (&backup, &wrong, 5, "passphrase is wrong"),
        (&no_backup, &right, 2, "not a backup"),
        (&format!("{backup}-gone"), &right, 3, "failed to use"),
    ] {
        let args = ["id", "restore", file, "--passphrase-file", passphrase];
        let refusal = back.cli(&args).refusal(code);
        assert!(refusal.contains(text), "{refusal}");
        assert!(!back.data_dir().join("identity").exists(), "{file}");
    }
    let restored = back.ok(&["id", "restore", &backup, "--passphrase-file", &right]);
    assert!(restored["message"].as_str().is_some_and(|text| text.contains("homehost up")));
    // Before it has heard what became of the keys since, a rotation is a risk.
    let refusal = back.cli(&["id", "rotate", "--phrase-file", &no_backup]).refusal(4);
    assert!(refusal.contains("--force"), "{refusal}");
    // A bootstrap node cannot tell it.
    let boot = test.bootstrap();
    back.set_bootstrap(&[boot.address()]);
    back.start();
    eventually(FOUND, "it has asked all that it has", || {
        let (stats, status) = (back.ok(&["mesh", "stats"]), back.ok(&["status"]));
        let asked = stats["seconds"].as_u64() >= Some(7) && status["peers"] == 1;
        if asked { Ok(()) } else { Err(status.to_string()) }
    });
    let refusal = back.cli(&["id", "rotate", "--phrase-file", &no_backup]).refusal(4);
    assert!(refusal.contains("no host has answered"), "{refusal}");
    back.down();
    back.set_bootstrap(&[&node.address()]);
    back.start();
    let note = back.data_dir().join("identity/restored");
    eventually(FOUND, "it has heard from others", || {
        if note.exists() { Err("not yet".into()) } else { Ok(()) }
    });
    let view = back.ok(&["id"]);
    for same in ["root", "key", "key_epoch", "device", "phrase"] {
        assert_eq!(view[same], before[same], "{same}");
    }
    assert_ne!(view["node"], before["node"], "two machines may run");
    back.down();
    let args = ["id", "restore", &backup, "--passphrase-file", &right, "--same-machine"];
    let refusal = back.cli(&args).refusal(8);
    assert!(refusal.contains("move that folder away"), "{refusal}");
    let twin = test.stopped_node("twin", &[]);
    twin.ok(&args);
    assert_eq!(twin.ok(&["id"])["node"], before["node"]);
}

#[test]
fn a_second_machine_is_added_and_asks_to_join() {
    let test = Test::new();
    let mut home = with_known_phrase(&test, "home");
    home.start();
    let mut second = test.node("second", &[]);
    let root = home.ok(&["id"])["root"].as_str().expect("a root").to_owned();
    let key = second.ok(&["id", "device", "key"])["key"].as_str().expect("a key").to_owned();
    assert!(
        second.plain(&["id", "device", "key"]).stdout.contains(&format!("id device add {key}"))
    );

    let added = home.ok(&["id", "device", "add", &key]);
    let next = format!("homehost id device join {root}");
    assert!(added["message"].as_str().is_some_and(|text| text.contains(&next)), "{added}");
    let devices = home.ok(&["id", "devices"]);
    assert_eq!(
        (devices[0]["this"].as_bool(), devices[1]["device"].as_u64()),
        (Some(true), Some(1))
    );
    assert_eq!(devices[1]["key"], Value::from(key.as_str()));
    assert!(home.cli(&["id", "device", "add", &key]).refusal(8).contains("device 1 already"));
    assert!(home.cli(&["id", "device", "add", "x"]).refusal(2).contains("id device key"));

    // Its servers would get other ids.
    second.add(&Game::stand_in(&test, "In the way", 0));
    let refusal = second.cli(&["id", "device", "join", &root]).refusal(4);
    assert!(refusal.contains("homehost server rm"), "{refusal}");
    second.down();
    let offline = second.cli(&["id", "device", "join", &root]).refusal(4);
    assert_eq!(offline, refusal, "also without a node");
    second.start();
    second.ok(&["server", "rm", "In the way"]);
    second.ok(&["id", "device", "join", &root]);
    assert_eq!(second.ok(&["id"])["joining"], Value::from(root.as_str()));
    let answer = second.add(&Game::stand_in(&test, "Too early", 0));
    assert!(answer.refusal(4).contains("join --cancel"), "{answer:?}");
    second.down();
    second.start();
    assert_eq!(second.ok(&["id"])["joining"], Value::from(root.as_str()), "it still waits");
    second.ok(&["id", "device", "join", "--cancel"]);
    assert_eq!(second.ok(&["id"])["joining"], Value::Null);
    assert!(second.cli(&["id", "device", "join", "nobody"]).refusal(2).contains("root id"));
    assert_eq!(second.cli(&["id", "device", "add", &key]).code, Some(8), "it is its own device 0");

    // A rotation ends the other machine, unless it is to be kept.
    let words = file(&test, "words", WORDS);
    home.ok(&["id", "rotate", "--keep-devices", "--phrase-file", &words]);
    let devices = home.ok(&["id", "devices"]);
    assert_eq!(devices[1]["key"], Value::from(key.as_str()));
    home.ok(&["id", "device", "revoke", "1"]);
    assert_eq!(home.ok(&["id", "devices"])[1]["revoked"], Value::from(true));
    assert!(home.cli(&["id", "device", "revoke", "1"]).refusal(4).contains("does not sign"));
    home.ok(&["id", "device", "add", &key]);
    let receipt = home.ok(&["id", "rotate", "--phrase-file", &words]);
    assert!(receipt["message"].as_str().is_some_and(|text| text.contains("sign no longer")));
    assert_eq!(home.ok(&["id", "devices"]).as_array().map(Vec::len), Some(1));
}

#[test]
fn the_words_and_the_root_bring_an_identity_back_whose_disk_is_gone() {
    let test = Test::new();
    let mut home = with_known_phrase(&test, "home");
    home.start();
    let friend = test.node("friend", &[&home.address()]);
    let before = home.ok(&["id"]);
    let root = before["root"].as_str().expect("a root");
    let lost = home.host(&Game::stand_in(&test, "Lost", 1));
    friend.sees(&lost["id"], "live", FOUND);
    // Somebody has a copy of the keys.
    let mut old = test.stopped_node("old", &[&friend.address()]);
    copy(&home.data_dir().join("identity"), &old.data_dir().join("identity"));
    fs::remove_file(old.data_dir().join("identity/node.key")).expect("its own node key");
    home.down_with_games();
    fs::remove_dir_all(home.data_dir()).expect("the folder is ours");

    let address = friend.address();
    let mut back = test.stopped_node("back", &[&address]);
    let words = file(&test, "words", WORDS);
    let others = file(&test, "others", OTHERS);
    let nobody = "/ip4/127.0.0.1/tcp/1";
    let stranger = friend.ok(&["id"])["root"].as_str().expect("a root").to_owned();
    let unknown = "a".repeat(root.len());
    for (root, via, words, code, text) in [
        (root, address.as_str(), &others, 5, root),
        (&stranger, &address, &words, 5, "not that of root"),
        (&unknown, &address, &words, 3, "Ask another node"),
        ("castle", &address, &words, 2, "castle"),
        (root, nobody, &words, 7, "nobody answers"),
    ] {
        let answer = back.cli(&["id", "recover", root, "--via", via, "--phrase-file", words]);
        let refusal = answer.refusal(code);
        assert!(refusal.contains(text), "{refusal}");
        assert!(!back.data_dir().join("identity").exists(), "{refusal}");
    }
    let args = ["id", "recover", root, "--via", &address, "--phrase-file", &words];
    let recovered = back.ok(&args);
    let message = recovered["message"].as_str().expect("a message");
    for text in [root, "epoch 1", "homehost up --network", &address, "add them again"] {
        assert!(message.contains(text), "{text}: {message}");
    }
    let kept = fs::read(back.data_dir().join("identity/device.key")).expect("a key");
    let refusal = back.cli(&args).refusal(8);
    assert!(refusal.contains("move that folder away"), "{refusal}");
    assert_eq!(fs::read(back.data_dir().join("identity/device.key")).expect("a key"), kept);

    back.start();
    let after = back.ok(&["id"]);
    assert_eq!(after["root"], root);
    assert_eq!((&after["key_epoch"], &after["device"]), (&1.into(), &0.into()));
    assert_eq!(after["phrase"], "with-owner");
    assert_ne!(after["key"], before["key"]);
    assert_ne!(after["node"], before["node"]);
    let again = back.host(&Game::stand_in(&test, "Again", 1));
    let row = friend.sees(&again["id"], "live", FOUND);
    assert_eq!((row["host"].as_str(), &row["key_epoch"]), (Some(root), &1.into()));
    assert_eq!(row["key_conflict"], false);
    // What the lost key could do has ended.
    old.start();
    eventually(FOUND, "the old key has ended", || {
        let ended = old.ok(&["id"])["ended"].take();
        ended
            .as_str()
            .is_some_and(|text| text.contains("ended by a rotation"))
            .then_some(())
            .ok_or_else(|| ended.to_string())
    });
    let refused = old.host(&Game::stand_in(&test, "Forged", 1));
    old.running("Forged");
    let news = back.host(&Game::stand_in(&test, "News", 1));
    friend.sees(&news["id"], "live", FOUND);
    let rows = friend.rows("?all=true&limit=1000");
    assert!(rows.iter().all(|row| row["id"] != refused["id"]), "{rows:#?}");
    assert_eq!(holding(back.data_dir(), &["abandon abandon"]), Vec::<PathBuf>::new());
    // Whoever recovers it once more goes on from there.
    let twin = test.stopped_node("twin", &[]);
    let message = twin.ok(&args)["message"].to_string();
    assert!(message.contains("epoch 2, which goes on from epoch 1"), "{message}");
}

#[test]
fn a_root_that_never_had_a_server_is_known_to_others() {
    let test = Test::new();
    let boot = test.bootstrap();
    let hosts = ["a", "b"].map(|name| test.node(name, &[boot.address()]));
    // They have compared what they hold and will not do so again for minutes.
    for host in &hosts {
        eventually(FOUND, "it has compared", || {
            let repairs = host.ok(&["mesh", "stats"])["repairs"].take();
            let done = repairs["done"].as_u64().is_some_and(|done| done >= 2);
            done.then_some(()).ok_or_else(|| repairs.to_string())
        });
    }
    let mut home = with_known_phrase(&test, "home");
    home.set_bootstrap(&[boot.address()]);
    home.start();
    for host in &hosts {
        home.connected_to(host);
    }
    let root = home.ok(&["id"])["root"].as_str().expect("a root").to_owned();
    let others = file(&test, "others", OTHERS);
    let asker = test.stopped_node("asker", &[]);
    let knows = |address: &str| {
        eventually(FOUND, "it knows the root", || {
            let args = ["id", "recover", &root, "--via", address, "--phrase-file", &others];
            let answer = asker.cli(&args);
            // Nobody is asked for words before the root is known.
            if answer.code == Some(5) { Ok(()) } else { Err(format!("{answer:?}")) }
        });
    };
    for host in &hosts {
        knows(&host.address());
    }
    // A node that comes later compares.
    let late = test.node("late", &[&hosts[0].address()]);
    home.down();
    knows(&late.address());
    knows(boot.address());
    fs::remove_dir_all(home.data_dir()).expect("the folder is ours");
    let words = file(&test, "words", WORDS);
    let args = ["id", "recover", &root, "--phrase-file", &words, "--via", boot.address()];
    let [first, second] = [&hosts[0].address(), &late.address()].map(String::clone);
    asker.ok(&[&args[..], &["--via", &first, "--via", &second]].concat());
    assert_eq!(asker.ok(&["id"])["root"], Value::from(root));
}
