//! What one node says, the others find.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use homehost_tests::{Game, Test, eventually};
use serde_json::Value;

/// A row is found after a gossip or a question to a peer: a second or two here.
const FOUND: Duration = Duration::from_secs(20);

/// Players are asked of the game and told a moment later.
const PLAYERS: Duration = Duration::from_secs(45);

fn names(rows: &[Value]) -> BTreeSet<&str> {
    rows.iter().filter_map(|row| row["name"].as_str()).collect()
}

#[test]
fn three_hosts_find_each_others_servers() {
    let test = Test::new();
    let boot = test.bootstrap();
    let hosts = ["a", "b", "c"].map(|name| test.node(name, &[boot.address()]));
    let games = [
        Game::stand_in(&test, "Sunday Castle", 2).with("--tag", "creative").with("--region", "eu"),
        Game::stand_in(&test, "Moon Base", 0)
            .with("--tag", "pvp")
            .with("--tag", "creative")
            .with("--region", "us-west")
            .with("--description", "Low gravity"),
    ];
    let [castle, moon] = [0, 1].map(|n| hosts[n].host(&games[n]));
    // A game of another kind that nobody can ask: players are not known.
    let program = test.program().display();
    let exec = format!("\"{program}\" __a2s-game --port {{port.game}}");
    let quiet = Game::new("Quiet Valley", "other-game", &exec)
        .with("--port", "game=auto/udp")
        .with("--region", "eu");
    let valley = hosts[2].host(&quiet);

    for host in &hosts {
        for server in [&castle, &moon, &valley] {
            host.sees(&server["id"], "live", FOUND);
        }
        let row = eventually(PLAYERS, "the players are known", || {
            let row = host.sees(&castle["id"], "live", FOUND);
            if row["players"] == 2 { Ok(row) } else { Err(row.to_string()) }
        });
        assert_shape(&row);
        assert_eq!(row["name"], "Sunday Castle");
        assert_eq!(row["slots"], 16);
        assert_eq!(row["tags"], serde_json::json!(["creative"]));
        let port = castle["ports"]["game"].as_str().expect("a port").trim_end_matches("/udp");
        assert_eq!(row["addresses"], serde_json::json!([format!("127.0.0.1:{port}/udp")]));
        let identity = hosts[0].ok(&["id"]);
        assert_eq!(row["host"], identity["root"]);

        let unknown = host.sees(&valley["id"], "live", FOUND);
        assert_shape(&unknown);
        assert_eq!(unknown["players"], Value::Null, "unknown is not 0");
        assert_eq!(unknown["slots"], Value::Null);
        let empty = eventually(PLAYERS, "nobody plays, and that is known", || {
            let row = host.sees(&moon["id"], "live", FOUND);
            if row["players"] == 0 { Ok(row) } else { Err(row.to_string()) }
        });
        assert_eq!(empty["description"], "Low gravity");

        for (args, expected) in [
            (&["discover"][..], &["Sunday Castle", "Moon Base", "Quiet Valley"][..]),
            (&["discover", "--game", "stand-in"], &["Sunday Castle", "Moon Base"]),
            (&["discover", "--tag", "creative"], &["Sunday Castle", "Moon Base"]),
            (&["discover", "--tag", "creative", "--tag", "pvp"], &["Moon Base"]),
            (&["discover", "--region", "eu"], &["Sunday Castle", "Quiet Valley"]),
            (&["discover", "--region", "eu", "--game", "stand-in"], &["Sunday Castle"]),
            (&["discover", "--text", "GRAVITY"], &["Moon Base"]),
            (&["discover", "--text", "sunday cas"], &["Sunday Castle"]),
            (&["discover", "--has-players"], &["Sunday Castle"]),
            (&["discover", "--game", "nobody-plays-this"], &[]),
            (&["discover", "--region", "eu", "--lang", "xx"], &[]),
            (&["discover", "--with", "password"], &[]),
            (
                &["discover", "--without", "password", "--without", "pvp", "--region", "eu"],
                &["Sunday Castle", "Quiet Valley"],
            ),
            (&["discover", "--version", "99"], &[]),
        ] {
            let rows = host.ok(args);
            let rows = rows.as_array().expect("rows");
            assert_eq!(names(rows), expected.iter().copied().collect(), "{args:?}");
        }
        assert_eq!(host.ok(&["discover", "--limit", "1"]).as_array().map(Vec::len), Some(1));
        let page = host.cli(&["discover", "--sort", "name", "--limit", "2"]);
        let cursor = page.stderr.split("--cursor ").nth(1).expect("a hint that there is more");
        let cursor = cursor.trim();
        let last = host.ok(&["discover", "--sort", "name", "--limit", "2", "--cursor", cursor]);
        assert_eq!(last.as_array().map(Vec::len), Some(1));
        assert!(host.cli(&["discover", "--cursor", cursor]).refusal(2).contains("cursor"));
        let sorted = host.ok(&["discover", "--sort", "name"]);
        assert_eq!(sorted[0]["name"], "Moon Base");
        let sorted = host.ok(&["discover", "--sort", "players"]);
        assert_eq!(sorted[0]["name"], "Sunday Castle");
    }
}

/// The shape that programs rely on.
#[track_caller]
fn assert_shape(row: &Value) {
    let is = |key: &str, right: fn(&Value) -> bool| {
        assert!(row.get(key).is_some_and(right), "{key} of {row:#}");
    };
    let text = |value: &Value| value.is_string();
    let text_or_null = |value: &Value| value.is_string() || value.is_null();
    let number_or_null = |value: &Value| value.is_u64() || value.is_null();
    for key in ["id", "host", "name", "game", "status", "reach"] {
        is(key, text);
    }
    for key in ["issued", "seen"] {
        is(key, |value| value.as_str().is_some_and(|time| time.len() >= 20 && time.ends_with('Z')));
    }
    for key in ["region", "description", "language", "version"] {
        is(key, text_or_null);
    }
    for key in ["players", "slots"] {
        is(key, number_or_null);
    }
    for key in ["tags", "addresses"] {
        is(key, |value| value.as_array().is_some_and(|list| list.iter().all(Value::is_string)));
    }
    for key in ["key_epoch", "reach_proved", "reach_said", "reach_asked"] {
        is(key, Value::is_u64);
    }
    is("reach_at", text_or_null);
    is("reach_age_s", number_or_null);
    for key in ["confirmed", "key_conflict", "password", "whitelist", "modded", "pvp"] {
        is(key, Value::is_boolean);
    }
    assert!(row["reach"] == "claimed" || row["reach"] == "proved", "{row:#}");
    assert_eq!(row.as_object().map(serde_json::Map::len), Some(28), "{row:#}");
}

#[test]
fn a_late_joiner_asks_its_first_peer() {
    let test = Test::new();
    let a = test.node("a", &[]);
    let b = test.node("b", &[&a.address()]);
    let servers =
        [a.host(&Game::stand_in(&test, "One", 0)), b.host(&Game::stand_in(&test, "Two", 0))];
    for server in &servers {
        a.sees(&server["id"], "live", FOUND);
    }
    let late = test.node("late", &[&a.address()]);
    let begun = Instant::now();
    for server in &servers {
        late.sees(&server["id"], "live", Duration::from_secs(5));
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn a_stopped_server_is_withdrawn_everywhere_and_stays_so() {
    let test = Test::new();
    let boot = test.bootstrap();
    let [a, b, mut c] = ["a", "b", "c"].map(|name| test.node(name, &[boot.address()]));
    let server = a.host(&Game::stand_in(&test, "Brief", 0));
    for node in [&a, &b, &c] {
        node.sees(&server["id"], "live", FOUND);
    }
    // One is away and comes back with what it knew.
    c.down();
    a.ok(&["server", "stop", "Brief"]);
    let stopped = Instant::now();
    for node in [&a, &b] {
        node.sees(&server["id"], "withdrawn", Duration::from_secs(3));
    }
    assert!(stopped.elapsed() < Duration::from_secs(3), "{:?}", stopped.elapsed());
    assert!(b.rows("").is_empty(), "what is withdrawn is hidden");

    c.start();
    c.sees(&server["id"], "withdrawn", FOUND);
    // Whatever it had to say has been said once its own news is everywhere.
    let news = c.host(&Game::stand_in(&test, "News", 0));
    for node in [&a, &b, &c] {
        node.sees(&news["id"], "live", FOUND);
        node.sees(&server["id"], "withdrawn", Duration::ZERO);
        assert_eq!(names(&node.rows("")), BTreeSet::from(["News"]));
    }

    // What was stopped may be started again.
    a.start_server("Brief");
    for node in [&a, &b, &c] {
        node.sees(&server["id"], "live", FOUND);
    }
}

#[test]
fn leaving_with_the_games_withdraws_them() {
    let test = Test::new();
    let a = test.node("a", &[]);
    let mut b = test.node("b", &[&a.address()]);
    let servers = ["One", "Two"].map(|name| b.host(&Game::stand_in(&test, name, 0)));
    for server in &servers {
        a.sees(&server["id"], "live", FOUND);
    }
    b.down_with_games();
    for server in &servers {
        a.sees(&server["id"], "withdrawn", Duration::from_secs(3));
    }
}

#[test]
fn without_its_bootstrap_node_a_network_goes_on() {
    let test = Test::new();
    let boot = test.bootstrap();
    let [a, b] = ["a", "b"].map(|name| test.node(name, &[boot.address()]));
    a.connected_to(&b);
    let before = a.host(&Game::stand_in(&test, "Before", 0));
    b.sees(&before["id"], "live", FOUND);
    boot.kill();
    let after = b.host(&Game::stand_in(&test, "After", 0));
    for node in [&a, &b] {
        node.sees(&after["id"], "live", FOUND);
        node.sees(&before["id"], "live", FOUND);
    }
    a.ok(&["server", "stop", "Before"]);
    b.sees(&before["id"], "withdrawn", Duration::from_secs(3));
    a.connected_to(&b);
}

#[test]
fn a_node_that_is_alone_after_a_restart_shows_what_it_knew_as_such() {
    let test = Test::new();
    let mut a = test.node("a", &[]);
    let mut b = test.node("b", &[&a.address()]);
    let server = a.host(&Game::stand_in(&test, "Known", 0));
    let row = b.sees(&server["id"], "live", FOUND);
    assert_eq!(row["confirmed"], true);
    b.down();
    a.kill();
    b.start();
    let row = b.sees(&server["id"], "live", Duration::from_secs(5));
    assert_eq!(row["confirmed"], false, "nobody has spoken of it since");
    let alone = eventually(Duration::from_secs(15), "it says that it is alone", || {
        let status = b.get("/api/v1/status").json();
        status["alone"].as_str().map(str::to_owned).ok_or_else(|| status.to_string())
    });
    assert!(alone.contains("--bootstrap"), "{alone}");
    // Its host comes back, with the game that went on.
    a.set_bootstrap(&[&b.address()]);
    a.start();
    eventually(FOUND, "it is confirmed again", || {
        let row = b.sees(&server["id"], "live", FOUND);
        if row["confirmed"] == true { Ok(()) } else { Err(row.to_string()) }
    });
}

#[test]
fn two_networks_do_not_mix() {
    let test = Test::new();
    let a = test.node("a", &[]);
    let address = a.address();
    let friend = test.node("friend", &[&address]);
    let mut stranger = test.stopped_node("stranger", &[&address]);
    stranger.set_network("another");
    stranger.start();
    let server = a.host(&Game::stand_in(&test, "Ours", 0));
    let theirs = stranger.host(&Game::stand_in(&test, "Theirs", 0));
    friend.sees(&server["id"], "live", FOUND);
    eventually(Duration::from_secs(15), "the stranger knows that it is alone", || {
        let status = stranger.get("/api/v1/status").json();
        if status["alone"].is_string() { Ok(()) } else { Err(status.to_string()) }
    });
    let ids =
        |rows: Vec<Value>| rows.into_iter().map(|mut row| row["id"].take()).collect::<Vec<_>>();
    assert_eq!(ids(stranger.rows("?all=true")), [theirs["id"].clone()]);
    assert_eq!(ids(a.rows("?all=true")), [server["id"].clone()]);
    assert_eq!(ids(friend.rows("?all=true")), [server["id"].clone()]);
}
