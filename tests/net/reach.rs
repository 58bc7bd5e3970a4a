//! Who is told that a server can be reached: those whom it is true for.

use std::time::Duration;

use homehost_tests::{Game, Node, Test, eventually};
use serde_json::Value;

use crate::home::{Home, Internet, Kind};
use crate::mesh::Mesh;
use crate::router::GAME_PORT;

/// Witnesses are asked twelve seconds after the last of them came, and take as
/// long as a query may to find that nobody answers.
const ASKED: Duration = Duration::from_secs(90);

/// Gossip, or the next comparison with a peer.
const FOUND: Duration = Duration::from_secs(90);

/// A game that listens on all addresses of its host, at the one port that a
/// person would have forwarded.
pub(crate) fn game(test: &Test, name: &str) -> Game {
    game_at(test, name, &GAME_PORT.to_string())
}

/// The same at another port, or at any (`auto`).
pub(crate) fn game_at(test: &Test, name: &str, port: &str) -> Game {
    let program = test.program().display();
    let exec = format!(
        "\"{program}\" __a2s-game --port {{port.game}} --name {{name}} --slots {{slots}} --bind ::"
    );
    Game::new(name, "stand-in", &exec)
        .with("--port", &format!("game={port}/udp"))
        .with("--query", "a2s")
        .with("--slots", "16")
}

/// What the node says of its only server, once all its witnesses were asked.
#[track_caller]
fn reach(node: &Node<'_>, name: &str, witnesses: usize) -> Value {
    eventually(ASKED, "witnesses were asked", || {
        let reach = node.ok(&["server", "reach", name]);
        let asked = reach["witnesses"].as_array().map_or(0, Vec::len);
        if asked >= witnesses { Ok(reach) } else { Err(reach.to_string()) }
    })
}

#[test]
fn a_server_is_proved_exactly_where_players_get_through() {
    let test = Test::new();
    let internet = Internet::new();
    let open: [Home; 3] = [(); 3].map(|()| internet.home(Kind::Open));
    let mesh = Mesh::new(&test, &[&open[0]]);
    let at = |name: &str, home: &Home| mesh.node(name, home.place());
    let witnesses = [at("witness1", &open[1]), at("witness2", &open[2])];
    // A cone opens for who writes first, and a game server never does. The
    // poor cables change nothing in what gets through.
    let kinds: Vec<Kind> =
        Kind::ALL.into_iter().filter(|kind| !matches!(kind, Kind::Far | Kind::Slow)).collect();
    let homes: Vec<Home> = kinds.iter().map(|kind| internet.home(*kind)).collect();
    for (kind, home) in kinds.iter().zip(&homes) {
        let node = at(&kind.to_string(), home);
        node.connected_to(&witnesses[0]);
        node.connected_to(&witnesses[1]);
        let id = node.host(&game(&test, "Castle"))["id"].take();
        node.running("Castle");
        let said = reach(&node, "Castle", 2);
        let through = said["witnesses"].as_array().into_iter().flatten();
        let through: Vec<&Value> = through
            .filter_map(|witness| witness["reached"].as_str().map(|_| &witness["reached"]))
            .collect();
        let wanted = if kind.takes_strangers() { 2 } else { 0 };
        assert_eq!(through.len(), wanted, "{kind}: {said:#}");
        for reached in through {
            let own = [home.outside4.map(|ip| ip.to_string()), home.host6.map(|ip| ip.to_string())];
            assert!(own.iter().flatten().any(|ip| reached == ip), "{kind}: {said:#}");
        }
        // And so it is for whoever looks for a server.
        let row = eventually(FOUND, "the row tells what witnesses said", || {
            let row = witnesses[0].sees(&id, "live", FOUND);
            // Of a host with addresses of both families each may have been reached
            // by one: then one counts.
            let right = row["reach_said"].as_u64() >= Some(wanted as u64 / 2);
            if right && row["reach_asked"] == 2 { Ok(row) } else { Err(row.to_string()) }
        });
        let (said, reach) = (&row["reach_said"], &row["reach"]);
        assert_eq!(*reach, if wanted > 0 { "proved" } else { "claimed" }, "{kind}: {row:#}");
        assert!(wanted > 0 || *said == 0, "{kind}: {row:#}");
        node.ok(&["down", "--games"]);
    }
}
