//! The directory under strangers: proofs, lookups, clients, and keys that change.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use homehost_tests::{Answer, Game, Node, Test, eventually, run};
use serde_json::Value;

use crate::identity::{file, with_known_phrase};
use crate::words::WORDS;

const FOUND: Duration = Duration::from_secs(30);

/// The command line without a node and without a folder.
fn alone(test: &Test, args: &[&str]) -> Answer {
    let mut command = Command::new(test.program());
    command.args(args).env("HOMEHOST_DATA_DIR", test.folder().join("nowhere"));
    run(&mut command, Duration::from_secs(60))
}

/// A row of a node, once it is as wanted.
#[track_caller]
fn row(node: &Node<'_>, id: &Value, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually(FOUND, what, || {
        let rows = node.rows("?all=true");
        let row = rows.iter().find(|row| row["id"] == *id);
        match row {
            Some(row) if wanted(row) => Ok(row.clone()),
            row => Err(format!("{row:#?}")),
        }
    })
}

#[test]
fn peers_prove_what_they_reach_and_say_why_not() {
    let test = Test::new();
    let boot = test.bootstrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| test.node(name, &[boot.address()]));
    let open = a.host(&Game::stand_in(&test, "Open", 3));
    let program = test.program().display();
    let exec = format!("\"{program}\" __a2s-game --port {{port.game}}");
    let quiet = a.host(&Game::new("Quiet", "other", &exec).with("--port", "game=auto/udp"));

    for node in [&b, &c] {
        let row = row(node, &open["id"], "the proof", |row| row["reach_said"] == 2);
        assert_eq!((&row["reach"], &row["reach_asked"]), (&"proved".into(), &2.into()));
        assert!(row["reach_at"].is_string());
        let row = self::row(node, &quiet["id"], "the other", |row| row["status"] == "live");
        assert_eq!((&row["reach"], &row["reach_said"]), (&"claimed".into(), &0.into()));
    }
    let reach = a.ok(&["server", "reach", "Open"]);
    assert_eq!(reach["witnesses"].as_array().map(Vec::len), Some(2), "{reach:#}");
    for witness in reach["witnesses"].as_array().expect("witnesses") {
        assert_eq!((&witness["reached"], &witness["players"]), (&"127.0.0.1".into(), &3.into()));
    }
    let summary = reach["summary"].as_str().expect("a sentence");
    assert!(summary.contains("2 of 2 peers got through"), "{summary}");
    eventually(FOUND, "what is wrong with the other", || {
        let summary = a.ok(&["server", "reach", "Quiet"])["summary"].take();
        let said = summary.as_str().is_some_and(|text| text.contains("--query"));
        if said { Ok(()) } else { Err(summary.to_string()) }
    });
    // Proved rows stand before claimed ones, and can be asked for alone.
    let names = |query: &str| -> Vec<Value> {
        b.rows(query).iter_mut().map(|row| row["name"].take()).collect()
    };
    assert_eq!(names("?sort=name"), ["Open", "Quiet"]);
    assert_eq!(names("?proved=true"), ["Open"]);
    // What is switched off was proved, and is no longer.
    a.ok(&["server", "stop", "Open"]);
    row(&b, &open["id"], "the end", |row| row["status"] == "withdrawn");
}

#[test]
fn a_server_is_found_by_its_id_and_what_nobody_knows_is_said_so() {
    let test = Test::new();
    let boot = test.bootstrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| test.node(name, &[boot.address()]));
    let server = a.host(&Game::stand_in(&test, "Castle", 0));
    let id = server["id"].as_str().expect("an id");
    row(&c, &server["id"], "it is known", |row| row["status"] == "live");
    let lookup = eventually(FOUND, "two agree", || {
        let lookup = c.ok(&["lookup", id]);
        if lookup["agree"] == 2 { Ok(lookup) } else { Err(lookup.to_string()) }
    });
    assert_eq!((&lookup["row"]["name"], &lookup["voices"]), (&"Castle".into(), &2.into()));
    let text = c.plain(&["lookup", id]).stdout;
    assert!(text.contains("Castle") && text.contains("2 of 2 answers agree"), "{text}");
    let unknown = c.cli(&["lookup", &"a".repeat(52)]).refusal(3);
    assert!(unknown.contains("none knows this server"), "{unknown}");
    let wrong = c.cli(&["lookup", "castle"]).refusal(2);
    assert!(wrong.contains("discover --json"), "{wrong}");
    // The end of a server is looked up like its life.
    a.ok(&["server", "stop", "Castle"]);
    eventually(FOUND, "the tombstone", || {
        let status = b.ok(&["lookup", id])["row"]["status"].take();
        if status == "withdrawn" { Ok(()) } else { Err(status.to_string()) }
    });
}

#[test]
fn who_has_no_node_asks_any_one_and_checks_what_it_says() {
    let test = Test::new();
    let boot = test.bootstrap();
    // A bootstrap node alone has nobody to ask.
    let refusal = alone(&test, &["discover", "--via", boot.address(), "--json"]).refusal(7);
    assert!(refusal.contains("keeps no directory"), "{refusal}");

    let [a, b] = ["a", "b"].map(|name| test.node(name, &[boot.address()]));
    let castle = Game::stand_in(&test, "Castle", 2).with("--region", "eu").with("--tag", "pvp");
    let castle = a.host(&castle.with("--lang", "de").with("--game-version", "5.6.1"));
    let moon = b.host(&Game::stand_in(&test, "Moon", 0));
    for node in [&a, &b] {
        for server in [&castle, &moon] {
            row(node, &server["id"], "it is proved", |row| row["reach_said"] == 1);
        }
    }
    for address in [a.address(), boot.address().to_owned()] {
        let asked = alone(&test, &["discover", "--via", &address, "--sort", "name", "--json"]);
        assert!(asked.stderr.contains(test.network()), "it adopts the network: {asked:?}");
        let rows = asked.json();
        assert_eq!(rows.as_array().map(Vec::len), Some(2), "{rows:#}");
        assert_eq!((&rows[0]["name"], &rows[0]["status"]), (&"Castle".into(), &"live".into()));
        assert_eq!((&rows[0]["players"], &rows[0]["reach_said"]), (&2.into(), &1.into()));
        // Whom this client would believe it cannot say.
        assert_eq!(rows[0]["reach"], "claimed");
        let filters =
            ["--region", "eu", "--lang", "de", "--version", "5.6", "--tag", "pvp", "--proved"];
        let args = [&["discover", "--via", &address, "--json"][..], &filters].concat();
        let rows = alone(&test, &args).json();
        assert_eq!((rows.as_array().map(Vec::len), &rows[0]["name"]), (Some(1), &"Castle".into()));
        // One page after the other.
        let args = ["discover", "--via", &address, "--sort", "name", "--limit", "1", "--json"];
        let first = alone(&test, &args);
        let hint = first.stderr.lines().find_map(|line| line.split_once("--cursor "));
        let (_, cursor) = hint.expect("there are more");
        let second = alone(&test, &[&args[..], &["--cursor", cursor.trim()]].concat()).json();
        assert_eq!(
            (&first.json()[0]["name"], &second[0]["name"]),
            (&"Castle".into(), &"Moon".into())
        );
    }
    // What one of two leaves out is seen by the other.
    let lonely = test.node("lonely", &[]);
    let (whole, lonely) = (a.address(), lonely.address());
    let both = alone(&test, &["discover", "--via", &lonely, "--via", &whole, "--json"]);
    assert_eq!(both.json().as_array().map(Vec::len), Some(2));
    assert!(both.stderr.contains("leaves out 2 servers"), "{both:?}");
    // One that is gone spoils nothing.
    let gone = "/ip4/127.0.0.1/tcp/1";
    let rest = alone(&test, &["discover", "--via", gone, "--via", &whole, "--json"]);
    assert_eq!(rest.json().as_array().map(Vec::len), Some(2));
    assert!(rest.stderr.contains(gone), "{rest:?}");
    let long = "x".repeat(25);
    let args = ["discover", "--via", &whole, "--game", &long, "--json"];
    let long = alone(&test, &args).refusal(2);
    assert!(long.contains("24 bytes"), "{long}");
    assert!(!test.folder().join("nowhere").exists(), "it keeps nothing");
    let nobody = alone(&test, &["discover", "--via", "/ip4/127.0.0.1/tcp/1"]);
    assert_eq!(nobody.code, Some(7), "{nobody:?}");
    let somebody_else = format!("/ip4/127.0.0.1/tcp/1/p2p/{}", a.id());
    assert_eq!(alone(&test, &["discover", "--via", &somebody_else]).code, Some(7));
    assert_eq!(alone(&test, &["discover", "--via", "castle"]).code, Some(2));
}

#[test]
fn a_rotation_is_seen_by_all_and_the_old_key_is_refused() {
    let test = Test::new();
    let mut home = with_known_phrase(&test, "home");
    home.start();
    let [b, c] = ["b", "c"].map(|name| test.node(name, &[&home.address()]));
    let server = home.host(&Game::stand_in(&test, "Steady", 1));
    let proved = |row: &Value| row["status"] == "live" && row["reach_said"] == 2;
    let before = row(&c, &server["id"], "it is known and proved", proved);
    // A thief has a copy of the whole folder.
    let mut thief = test.stopped_node("thief", &[&c.address()]);
    copy(&home.data_dir().join("identity"), &thief.data_dir().join("identity"));

    let words = file(&test, "words", WORDS);
    home.ok(&["id", "rotate", "--phrase-file", &words]);
    for node in [&b, &c] {
        // What others reached stays proved, whatever it is signed with.
        let newer = |row: &Value| proved(row) && row["key_epoch"] == 1;
        let row = row(node, &server["id"], "it is signed anew", newer);
        assert_eq!((&row["host"], &row["key_conflict"]), (&before["host"], &false.into()));
    }
    // The thief learns that its key has ended, and lists nothing.
    fs::remove_file(thief.data_dir().join("identity/node.key")).expect("its own node key");
    thief.start();
    eventually(FOUND, "the thief's key has ended", || {
        let ended = thief.ok(&["id"])["ended"].take();
        if ended.is_null() { Err("it still signs".into()) } else { Ok(()) }
    });
    // So does what they reached while nothing is signed.
    home.ok(&["id", "revoke", "--yes", "--phrase-file", &words]);
    home.ok(&["id", "rotate", "--phrase-file", &words]);
    let newest = |row: &Value| proved(row) && row["key_epoch"] == 3;
    row(&c, &server["id"], "it is signed and proved after a revocation", newest);
    // A node that only ever hears of it takes it in.
    let late = test.node("late", &[&b.address()]);
    let row = row(&late, &server["id"], "it is known", |row| row["status"] == "live");
    assert_eq!(row["host"], before["host"]);
    home.down();
    home.start();
    assert_eq!(home.ok(&["id"])["key_epoch"], 3);
    self::row(&late, &server["id"], "it goes on", |row| row["status"] == "live");
}

#[test]
fn a_second_machine_joins_and_lists_under_the_same_owner() {
    let test = Test::new();
    let mut home = with_known_phrase(&test, "home");
    home.start();
    let [second, friend] = ["second", "friend"].map(|name| test.node(name, &[&home.address()]));
    let root = home.ok(&["id"])["root"].as_str().expect("a root").to_owned();
    let key = second.ok(&["id", "device", "key"])["key"].as_str().expect("a key").to_owned();
    home.ok(&["id", "device", "add", &key]);
    second.ok(&["id", "device", "join", &root]);
    eventually(FOUND, "it has joined", || {
        let view = second.ok(&["id"]);
        let joined = view["root"] == root.as_str() && view["device"] == 1;
        if joined { Ok(()) } else { Err(view.to_string()) }
    });
    let servers = [
        home.host(&Game::stand_in(&test, "At home", 0)),
        second.host(&Game::stand_in(&test, "Upstairs", 0)),
    ];
    for server in &servers {
        let row = row(&friend, &server["id"], "it is listed", |row| row["status"] == "live");
        assert_eq!(row["host"], root.as_str());
    }
    home.ok(&["id", "device", "revoke", "1"]);
    eventually(FOUND, "it signs no longer", || {
        let ended = second.ok(&["id"])["ended"].take();
        if ended.is_null() { Err("it still signs".into()) } else { Ok(()) }
    });
    eventually(FOUND, "its row is gone", || {
        let left = friend.rows("?all=true").len();
        if left == 1 { Ok(()) } else { Err(format!("{left} rows")) }
    });
}

#[test]
fn an_owner_who_contradicts_himself_is_shown_so() {
    let test = Test::new();
    let mut home = with_known_phrase(&test, "home");
    home.start();
    let friend = test.node("friend", &[&home.address()]);
    let server = home.host(&Game::stand_in(&test, "Steady", 0));
    row(&friend, &server["id"], "it is known", |row| row["status"] == "live");
    // Two copies are rotated by the same words, to different keys.
    let mut twin = test.stopped_node("twin", &[&friend.address()]);
    copy(&home.data_dir().join("identity"), &twin.data_dir().join("identity"));
    fs::remove_file(twin.data_dir().join("identity/node.key")).expect("its own node key");
    let words = file(&test, "words", WORDS);
    home.ok(&["id", "rotate", "--phrase-file", &words]);
    twin.ok(&["id", "rotate", "--phrase-file", &words]);
    row(&friend, &server["id"], "it is signed anew", |row| row["status"] == "live");
    twin.start();
    let row = row(&friend, &server["id"], "the conflict", |row| row["key_conflict"] == true);
    assert_eq!(row["host"], home.ok(&["id"])["root"]);
    let text = friend.plain(&["discover"]).stdout;
    assert!(text.contains("key conflict"), "{text}");
    for node in [&home, &twin] {
        eventually(FOUND, "its owner is told", || {
            let conflict = node.ok(&["id"])["conflict"].take();
            if conflict.is_string() { Ok(()) } else { Err(node.ok(&["id"]).to_string()) }
        });
    }
    eventually(FOUND, "it is counted", || {
        let conflicts = friend.ok(&["mesh", "stats"])["key_conflicts"].take();
        if conflicts == 1 { Ok(()) } else { Err(conflicts.to_string()) }
    });
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the folder is ours");
    for entry in fs::read_dir(from).expect("it is there").flatten() {
        fs::copy(entry.path(), to.join(entry.file_name())).expect("the folder is ours");
    }
}
