//! What a console of Windows tells the daemon in it. A node plays the game of
//! another: the ladder with which its shim stops it begins with Ctrl-C.

use homehost_tests::{Game, Test, eventually, windows_path};

use crate::FOUND;

#[test]
fn ctrl_c_ends_a_daemon_in_order() {
    let test = Test::new();
    let mut node = test.windows_node("windows", &[]);
    let inner = test.folder().join("inner");
    let exec = format!(
        "\"{}\" up --json --no-mdns --http 127.0.0.1:0 --network {} --listen /ip4/127.0.0.1/tcp/0 \
         --data-dir \"{}\"",
        windows_path(&test.windows_program()),
        test.network(),
        windows_path(&inner),
    );
    node.host(&Game::new("Inner", "node", &exec));
    eventually(FOUND, "the inner node is up", || {
        inner.join("api.json").exists().then_some(()).ok_or_else(|| "not yet".to_owned())
    });
    node.ok(&["server", "stop", "Inner"]);
    let server = node.server_in("Inner", "offline", FOUND);
    let exit = server["last_exit"].as_str().unwrap_or_default();
    assert!(exit.contains("Ctrl-C") && exit.contains("code 0"), "{server}");
    assert!(!inner.join("api.json").exists(), "it has said that it is gone");
    node.down();
}
