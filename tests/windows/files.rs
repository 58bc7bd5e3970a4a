//! Where a node of Windows keeps its things, and who may read them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use homehost_tests::{Game, Test, unix_path};
use serde_json::Value;

use crate::says;

/// The longest path of a folder in which Windows starts a program.
const CWD_MAX: usize = 258;

#[test]
fn names_with_spaces_and_umlauts_are_names_like_others() {
    let test = Test::new();
    let mut node = test.stopped_windows_node("windows", &[]);
    let folder = test.folder().join("Spiele für Öl & Größe");
    node.set_data_dir(folder.join("Häuser"));
    node.start();
    let name = "Grüße aus Köln – Nr. 1";
    let server = node.host(&Game::windows_stand_in(&test, name, 0));
    assert_eq!(server["name"], name);
    node.running(name);
    // Through the console and back, and to a person's eyes.
    node.ok(&["server", "input", name, "say schöne Grüße"]);
    says(&node, name, "[server] schöne Grüße");
    let shown = node.plain(&["server", "logs", name]);
    assert!(shown.stdout.contains("schöne Grüße"), "{shown:?}");
    let listed = node.plain(&["server", "ls"]);
    assert!(listed.stdout.contains(name), "{listed:?}");
    let status = node.plain(&["status"]);
    assert!(status.stdout.contains("Spiele für Öl & Größe"), "{status:?}");
    node.down();
    node.start();
    node.running(name);
    node.down_with_games();
}

#[test]
fn a_deep_data_folder_works_and_one_too_deep_for_games_is_explained() {
    let test = Test::new();
    let mut node = test.stopped_windows_node("windows", &[]);
    let mut folder = test.folder().to_owned();
    while folder.as_os_str().len() < CWD_MAX + 40 {
        folder.push("ein Ordner im Ordner");
    }
    node.set_data_dir(folder);
    node.start();
    let answer = node.add_and_start(&Game::windows_stand_in(&test, "Deep", 0));
    let text = answer.refusal(answer.code.expect("an exit code"));
    assert!(text.contains("--data-dir") && text.contains("258"), "{text}");
    node.down();
    node.start();
    assert_eq!(node.ok(&["server", "show", "Deep"])["name"], "Deep");
    node.down();
}

#[test]
fn keys_and_tokens_are_the_owners_alone() {
    let test = Test::new();
    let node = test.windows_node("windows", &[]);
    node.host(&Game::windows_stand_in(&test, "Closed", 0));
    // Wine keeps of a list what the permissions of Linux can say: that others
    // have none.
    let mode = |path: &Path| {
        let about =
            fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        about.permissions().mode() & 0o777
    };
    let data = node.data_dir();
    for folder in ["", "identity", "store", "servers", "shim"] {
        assert_eq!(mode(&data.join(folder)) & 0o007, 0, "folder {folder:?}");
    }
    let mut files = vec![data.join("api.token"), data.join("api.json")];
    for entry in fs::read_dir(data.join("identity")).expect("it is there").flatten() {
        files.push(entry.path());
    }
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        assert_eq!(mode(&file) & 0o007, 0, "{}", file.display());
    }
}

#[test]
fn without_a_folder_it_is_in_the_users_local_data() {
    let test = Test::new();
    let expected = unix_path(&local_data(&test)).join("HomeHost");
    // The prefix is the tests' own.
    let _ = fs::remove_dir_all(&expected);
    let mut up = test.windows_command();
    up.args(["up", "--json", "--no-mdns", "--http", "127.0.0.1:0", "--listen"]);
    up.args(["/ip4/127.0.0.1/tcp/0", "--network", test.network()]);
    let mut up = homehost_tests::Lines::start(&mut up, test.log("default"));
    let within = std::time::Duration::from_secs(60);
    let said: Value = up.find(within, "it is up", |line| serde_json::from_str(line).ok());
    let folder = said["status"]["data_dir"].as_str().expect("it says where");
    assert_eq!(unix_path(folder), expected);
    let mut down = test.windows_command();
    let answer = homehost_tests::run(down.args(["down", "--json"]), within);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert_eq!(up.wait(within), Some(0));
    assert!(expected.join("identity").is_dir());
    fs::remove_dir_all(PathBuf::from(&expected)).expect("it is ours");
}

/// `%LOCALAPPDATA%`.
fn local_data(test: &Test) -> String {
    let mut echo = test.windows_tool("cmd");
    let within = std::time::Duration::from_secs(60);
    let answer = homehost_tests::run(echo.args(["/c", "echo %LOCALAPPDATA%"]), within);
    answer.stdout.trim().to_owned()
}
