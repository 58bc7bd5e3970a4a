//! Clocks that are wrong.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use homehost_tests::{Game, Test, eventually};

/// The library that shows a process another time of day.
fn other_clock() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").expect("a folder").flatten();
    let places = folders.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
    places.into_iter().find(|path| path.exists()).expect("`cargo xtask test` installs faketime")
}

#[test]
fn a_clock_a_day_off_is_named_and_all_is_well_when_it_is_set_right() {
    for off in ["+1d", "-1d"] {
        let test = Test::new();
        let witness = test.node("witness", &[]);
        let theirs = witness.host(&Game::stand_in(&test, "Theirs", 0))["id"].take();
        witness.running("Theirs");
        let clock = test.folder().join("clock");
        let set = |to: &str| fs::write(&clock, format!("{to}\n")).expect("the folder is ours");
        set(off);
        let mut node = test.stopped_node("node", &[&witness.address()]);
        node.set_env("LD_PRELOAD", &other_clock().display().to_string());
        node.set_env("FAKETIME_TIMESTAMP_FILE", &clock.display().to_string());
        for name in [
            "FAKETIME_NO_CACHE",
            "FAKETIME_DONT_FAKE_MONOTONIC",
            "DONT_FAKE_MONOTONIC",
            "NO_FAKE_STAT",
        ] {
            node.set_env(name, "1");
        }
        node.start();
        let own = node.host(&Game::stand_in(&test, "Own", 0))["id"].take();
        node.running("Own");
        let says = |what: &str, there: bool| {
            eventually(Duration::from_secs(150), what, || {
                let status = node.get("/api/v1/status").json();
                let lines = status["attention"].as_array().cloned().unwrap_or_default();
                let told = lines.iter().filter_map(|line| line.as_str());
                let told = told.into_iter().any(|line| line.contains("clock"));
                if told == there { Ok(status) } else { Err(status.to_string()) }
            })
        };
        let status = says("the clock is named", true);
        assert!(status["attention"].to_string().contains("24 hours"), "{off}: {status}");
        let (level, said) = crate::diagnosis(&node, "clock");
        // One other host may be the one that is wrong.
        assert!(level == "amber" && said.contains("24 hours"), "{off}: {said}");
        // No restart.
        set("+0");
        witness.sees(&own, "live", Duration::from_secs(150));
        node.sees(&theirs, "live", Duration::from_secs(150));
        says("the clock is right", false);
        // What was refused before the clock was set speaks no more.
        eventually(Duration::from_secs(150), "the doctor is content with the clock", || {
            let (level, said) = crate::diagnosis(&node, "clock");
            if level == "green" && said.contains("agrees") { Ok(()) } else { Err(said) }
        });
        node.ok(&["server", "stop", "Own"]);
        witness.sees(&own, "withdrawn", Duration::from_secs(60));
        node.down_with_games();
    }
}
