//! The engine of Quake 3 with a map and the rules of OpenArena (Debian:
//! ioquake3-server, openarena-server, openarena-081-maps).

use std::time::{Duration, Instant};

use homehost_tests::{Game, Test};

use crate::{READY, STOPPED, installed, sees_players};

#[test]
fn quake_answers_and_obeys_its_console() {
    let test = Test::new();
    let folder = test.give(&installed("quake"));
    let folder = folder.display();
    let host = test.node("host", &[]);
    let other = test.node("other", &[&host.address()]);
    let exec = format!(
        "{folder}/ioq3ded +set dedicated 1 +set com_basegame baseoa +set com_standalone 1 \
         +set fs_basepath {folder} +set fs_homepath {{data}} +set net_enabled 1 \
         +set net_ip 127.0.0.1 +set net_port {{port.game}} +set sv_maxclients {{slots}} \
         +set sv_hostname {{name}} +set bot_enable 0 +set vm_game 0 +set sv_pure 0 \
         +map q3dm6ish"
    );
    let game = Game::new("Arena", "openarena", &exec)
        .with("--port", "game=auto/udp")
        .with("--query", "quake3")
        .with("--stop-command", "quit")
        .with("--slots", "12");
    let id = host.host(&game)["id"].take();
    host.server_in("Arena", "running", READY);
    let row = sees_players(&other, &id, 0);
    assert_eq!(row["slots"], 12);

    let begun = Instant::now();
    host.ok(&["server", "stop", "Arena"]);
    assert!(begun.elapsed() < STOPPED, "{:?}", begun.elapsed());
    other.sees(&id, "withdrawn", Duration::from_secs(3));
    let lines = host.cli(&["server", "logs", "Arena"]).json_lines();
    let quit = lines.iter().filter_map(|line| line["text"].as_str());
    assert!(quit.clone().any(|text| text.contains("Server Shutdown")), "{lines:#?}");
    assert!(!quit.clone().any(|text| text.contains("Received signal")), "no signal was needed");
}
