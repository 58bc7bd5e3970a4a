//! Who learns of a server: everybody, whoever has its id, or the LAN.

use std::time::Duration;

use homehost_tests::{Game, Node, Test, eventually};
use serde_json::Value;

const WITHIN: Duration = Duration::from_secs(60);

const NOT_FOUND: i32 = 3;

fn lists(node: &Node<'_>, id: &str) -> bool {
    node.rows("?all=true&limit=1000").iter().any(|row| row["id"] == id && row["status"] == "live")
}

fn id_of(server: &Value) -> &str {
    server["id"].as_str().expect("an id")
}

#[test]
fn an_unlisted_server_is_found_by_its_id_and_by_no_search() {
    let test = Test::new();
    let bootstrap = test.bootstrap();
    let host = test.node("host", &[bootstrap.address()]);
    let friend = test.node("friend", &[bootstrap.address()]);
    friend.connected_to(&host);
    let hidden = host.host(&Game::stand_in(&test, "Hidden", 2).with("--visibility", "unlisted"));
    assert_eq!(hidden["visibility"], "unlisted");
    host.running("Hidden");
    // What is said after it has come, so that it could have come as well.
    let open = host.host(&Game::stand_in(&test, "Open", 2));
    friend.sees(&open["id"], "live", WITHIN);
    let id = id_of(&hidden);
    let found = eventually(WITHIN, "the friend finds it by its id", || {
        let answer = friend.cli(&["lookup", id]);
        if answer.code == Some(0) { Ok(answer.json()) } else { Err(format!("{answer:?}")) }
    });
    assert_eq!(found["row"]["name"], "Hidden");
    assert_eq!(found["row"]["addresses"], hidden_addresses(&host, "Hidden"));
    for node in [&host, &friend] {
        assert!(!lists(node, id), "no search has it");
    }
    assert_eq!(friend.rows("?all=true&limit=1000").len(), 1, "the open one alone");
    eventually(WITHIN, "nobody is asked to look, and that is said", || {
        let reach = host.ok(&["server", "reach", "Hidden"]);
        let said = reach["summary"].as_str().is_some_and(|text| text.contains("unlisted"));
        said.then_some(()).ok_or(reach.to_string())
    });
}

fn hidden_addresses(node: &Node<'_>, name: &str) -> Value {
    node.ok(&["server", "show", name])["addresses"].clone()
}

#[test]
fn a_server_of_the_lan_is_told_on_the_link_and_not_to_the_dht() {
    let test = Test::new();
    let host = test.node("host", &[]);
    let neighbour = test.node("neighbour", &[&host.address()]);
    neighbour.connected_to(&host);
    let open = host.host(&Game::stand_in(&test, "Open", 1));
    let near = host.host(&Game::stand_in(&test, "Near", 1).with("--visibility", "lan"));
    // On loopback the neighbour is on the link.
    neighbour.sees(&near["id"], "live", WITHIN);
    neighbour.sees(&open["id"], "live", WITHIN);
    // A neighbour that comes later hears of it, too.
    let late = test.node("late", &[&host.address()]);
    late.connected_to(&host);
    late.sees(&near["id"], "live", WITHIN);
    late.sees(&open["id"], "live", WITHIN);
    let answer = late.cli(&["lookup", id_of(&near)]);
    // It is known from the link; nobody keeps it for strangers.
    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert_eq!(answer.json()["known"], true, "{answer:?}");
    assert_eq!(answer.json()["agree"], 0, "{answer:?}");
    host.ok(&["server", "stop", "Near"]);
    neighbour.sees(&near["id"], "withdrawn", WITHIN);
}

#[test]
fn a_change_takes_a_server_back_and_shows_it_again() {
    let test = Test::new();
    let bootstrap = test.bootstrap();
    let host = test.node("host", &[bootstrap.address()]);
    let friend = test.node("friend", &[bootstrap.address()]);
    friend.connected_to(&host);
    let server = host.host(&Game::stand_in(&test, "Moody", 1));
    let id = id_of(&server);
    friend.sees(&server["id"], "live", WITHIN);
    let receipt = host.ok(&["server", "set", "Moody", "--visibility", "unlisted"]);
    assert_eq!(receipt["action"], "server-set");
    assert_eq!(receipt["server"]["visibility"], "unlisted");
    friend.sees(&server["id"], "withdrawn", WITHIN);
    eventually(WITHIN, "the friend finds it by its id", || {
        let answer = friend.cli(&["lookup", id]);
        let live = answer.code == Some(0) && answer.json()["row"]["status"] == "live";
        live.then_some(()).ok_or(format!("{answer:?}"))
    });
    host.ok(&["server", "set", "Moody", "--visibility", "public"]);
    friend.sees(&server["id"], "live", WITHIN);
    let text = host.cli(&["server", "set", "Nobody", "--visibility", "lan"]).refusal(NOT_FOUND);
    assert!(text.contains("server ls"), "{text}");
}
