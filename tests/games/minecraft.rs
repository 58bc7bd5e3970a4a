//! A server of the Minecraft protocol (npm: minecraft-protocol), and a player
//! who joins it.

use std::process::Command;
use std::time::{Duration, Instant};

use homehost_tests::{Game, Lines, Test, source_dir};

use crate::{READY, STOPPED, installed, sees_players};

#[test]
fn a_player_who_joins_minecraft_is_counted_everywhere() {
    let test = Test::new();
    let modules = test.give(&installed("minecraft"));
    let scripts = source_dir().join("games/minecraft");
    let script = |name: &str| {
        let to = modules.join(name);
        std::fs::copy(scripts.join(name), &to).expect("the script is there");
        to.display().to_string()
    };
    let host = test.node("host", &[]);
    let other = test.node("other", &[&host.address()]);
    let exec = format!("node \"{}\" {{port.game}} {{slots}}", script("server.js"));
    let game = Game::new("Block World", "minecraft", &exec)
        .with("--port", "game=auto/tcp")
        .with("--query", "minecraft")
        .with("--slots", "7");
    let id = host.host(&game)["id"].take();
    let server = host.server_in("Block World", "running", READY);
    sees_players(&other, &id, 0);

    let port = server["ports"]["game"].as_str().expect("a port").trim_end_matches("/tcp");
    let mut player = Command::new("node");
    // It keeps files where it is started.
    player.args([script("player.js").as_str(), port, "Anna"]).current_dir(test.folder());
    let mut player = Lines::start(&mut player, test.log("player"));
    player.find(Duration::from_secs(30), "she joins", |line| (line == "joined").then_some(()));
    let row = sees_players(&other, &id, 1);
    assert_eq!(row["slots"], 7);
    drop(player);
    sees_players(&other, &id, 0);

    let begun = Instant::now();
    host.ok(&["server", "stop", "Block World"]);
    assert!(begun.elapsed() < STOPPED, "{:?}", begun.elapsed());
    other.sees(&id, "withdrawn", Duration::from_secs(3));
}
