//! Luanti (Debian: minetest-server), added with the words of the manual.

use std::time::Instant;

use homehost_tests::process::is_alive;
use homehost_tests::{Game, Test};

use crate::{READY, STOPPED, sees_players};

#[test]
fn luanti_is_found_on_another_node_and_stopped_by_ctrl_c() {
    let program = "/usr/lib/minetest/minetestserver";
    assert!(std::path::Path::new(program).exists(), "{program}: install minetest-server");
    let test = Test::new();
    let host = test.node("host", &[]);
    let other = test.node("other", &[&host.address()]);
    let game = Game::new(
        "Sunday Luanti",
        "luanti",
        "/usr/lib/minetest/minetestserver --world {data}/world --gameid minetest --port \
         {port.game} --logfile {data}/server.log",
    )
    .with("--port", "game=auto/udp")
    .with("--query", "luanti")
    .with("--tag", "creative")
    .with("--region", "eu")
    .with("--slots", "20");
    let id = host.host(&game)["id"].take();
    let server = host.server_in("Sunday Luanti", "running", READY);
    let pid = server["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a process");
    let row = sees_players(&other, &id, 0);
    assert_eq!((&row["game"], &row["slots"]), (&"luanti".into(), &20.into()));
    let found = other.ok(&["discover", "--game", "luanti", "--tag", "creative", "--region", "eu"]);
    assert_eq!(found[0]["id"], id);

    let begun = Instant::now();
    host.ok(&["server", "stop", "Sunday Luanti"]);
    assert!(begun.elapsed() < STOPPED, "{:?}", begun.elapsed());
    assert!(!is_alive(pid));
    other.sees(&id, "withdrawn", std::time::Duration::from_secs(3));
    let server = host.ok(&["server", "show", "Sunday Luanti"]);
    assert_eq!(server["state"], "offline");
    // Luanti's own code after Ctrl-C is 0 or 1, by what it was doing.
    let exit = server["last_exit"].as_str().expect("it ended").to_lowercase();
    assert!(exit.contains("sigint"), "the first rung was enough: {exit}");
    let world = host.data_dir().join("servers/sunday-luanti/data/world");
    // It is written at a clean end and at no other time.
    let saved = std::fs::read_dir(&world).expect("a world").flatten().map(|file| file.file_name());
    let saved: Vec<_> = saved.collect();
    assert!(saved.iter().any(|name| name == "env_meta.txt"), "the world was saved: {saved:?}");
}
