//! Our stand-in against a reader of A2S that others wrote (PyPI: python-a2s):
//! what our own query and our own answer agree on must also be the protocol.

use std::process::Command;
use std::time::Duration;

use homehost_tests::{Game, Test, run};
use serde_json::Value;

use crate::{installed, sees_players};

const SCRIPT: &str = "
import a2s, json, sys
at = ('127.0.0.1', int(sys.argv[1]))
info = a2s.info(at)
print(json.dumps({
    'name': info.server_name,
    'players': info.player_count,
    'slots': info.max_players,
    'port': info.port,
    'names': sorted(player.name for player in a2s.players(at)),
    'rules': len(a2s.rules(at)),
}))
";

#[test]
fn others_read_our_stand_in_as_we_do() {
    let test = Test::new();
    let host = test.node("host", &[]);
    let id = host.host(&Game::stand_in(&test, "Étoile ★", 2))["id"].take();
    let server = host.running("Étoile ★");
    sees_players(&host, &id, 2);
    host.ok(&["server", "input", "Étoile ★", "join anna"]);
    sees_players(&host, &id, 3);

    let port = server["ports"]["game"].as_str().expect("a port").trim_end_matches("/udp");
    let python = installed("python").join("bin/python");
    assert!(python.exists(), "{}: `cargo xtask test` makes it", python.display());
    let answer = run(Command::new(python).args(["-c", SCRIPT, port]), Duration::from_secs(30));
    assert_eq!(answer.code, Some(0), "{answer:?}");
    let seen: Value = answer.json();
    assert_eq!(seen["name"], "Étoile ★");
    assert_eq!((&seen["players"], &seen["slots"]), (&3.into(), &16.into()));
    assert_eq!(seen["port"].to_string(), port);
    assert_eq!(seen["names"], serde_json::json!(["anna", "player1", "player2"]));
}
