//! One string that gets anyone in, at the first start and later.

use std::fs;
use std::time::Duration;

use homehost_tests::{Node, Test, eventually, run};

const USAGE: i32 = 2;
const WRONG_STATE: i32 = 4;
const CONFLICT: i32 = 8;

const LOOPBACK: [&str; 5] =
    ["--no-mdns", "--http", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"];

fn invitation(node: &Node<'_>) -> String {
    let invitation = node.ok(&["mesh", "invite"]);
    invitation["text"].as_str().expect("a string").to_owned()
}

#[test]
fn an_invitation_gets_a_new_node_in_and_the_next_start_as_well() {
    let test = Test::new();
    let bootstrap = test.bootstrap();
    let host = test.node("host", &[bootstrap.address()]);
    eventually(Duration::from_secs(30), "the bootstrap node is in the invitation", || {
        let said = host.ok(&["mesh", "invite"]);
        let of = |node: &str| {
            let addresses = said["addresses"].as_array().expect("a list");
            addresses.iter().filter(|address| address["node"] == node).count()
        };
        let whole = of("this") == 2 && of("bootstrap") == 1;
        whole.then_some(()).ok_or(said.to_string())
    });
    let said = host.ok(&["mesh", "invite"]);
    assert_eq!(said["network"], test.network());
    let note = said["note"].as_str().expect("a sentence");
    assert!(note.contains("this machine"), "{note}");
    let text = invitation(&host);
    assert_eq!(host.plain(&["mesh", "invite"]).stdout.trim_end(), text, "a pipe gets it alone");

    let mut guest = test.stopped_node("guest", &[]);
    let mut options = vec!["--invite", &text];
    options.extend(LOOPBACK);
    guest.start_with(&options);
    guest.connected_to(&host);
    assert_eq!(guest.ok(&["status"])["network"], test.network());
    // Started as on any other day.
    guest.down();
    guest.start_with(&LOOPBACK);
    guest.connected_to(&host);
    assert_eq!(guest.ok(&["status"])["network"], test.network());
    guest.down();
    // With an option over the file, the invitation counts all the same.
    let mut options = vec!["--invite", &text, "--bootstrap", "/ip4/127.0.0.1/tcp/9"];
    options.extend(LOOPBACK);
    guest.start_with(&options);
    guest.connected_to(&host);
}

#[test]
fn a_running_node_joins_at_once_and_remembers() {
    let test = Test::new();
    let host = test.node("host", &[]);
    let text = invitation(&host);
    let mut guest = test.node("guest", &[]);
    let capitals = text.to_uppercase();
    let receipt = guest.ok(&["mesh", "join", &capitals]);
    assert_eq!(receipt["action"], "mesh-join");
    guest.connected_to(&host);
    let file = fs::read_to_string(guest.data_dir().join("config.toml")).expect("it was written");
    assert!(file.contains(&host.id()), "{file}");
    // What it writes is what the node is on already.
    eventually(Duration::from_secs(30), "the file is taken", || {
        let view = guest.ok(&["config", "show"]);
        let settings = view["settings"].as_array().expect("a list");
        let taken = |key: &str| {
            settings.iter().any(|of| {
                of["key"] == key && of["from"].as_str().is_some_and(|from| from.contains("toml"))
            })
        };
        taken("mesh.bootstrap").then_some(()).ok_or(view.to_string())
    });
    let attention = guest.ok(&["status"])["attention"].to_string();
    assert!(!attention.contains("restart"), "{attention}");
    guest.down();
    // No option names the network or anybody to join.
    guest.start_with(&LOOPBACK);
    guest.connected_to(&host);
    assert_eq!(guest.ok(&["status"])["network"], test.network());
    // Again is no mistake and adds nothing.
    guest.ok(&["mesh", "join", &text]);
    let again = fs::read_to_string(guest.data_dir().join("config.toml")).expect("it is there");
    assert_eq!(again, file);
}

#[test]
fn an_invitation_that_cannot_be_used_says_why() {
    let test = Test::new();
    let host = test.node("host", &[]);
    let text = invitation(&host);
    let mut other = test.stopped_node("other", &[]);
    other.set_network("elsewhere");
    other.start();

    let cut = &text[..text.len() - 3];
    for (invite, words) in [
        ("hello", &["not an invitation", "homehost1"][..]),
        (&"homehost1a".repeat(10_000), &["at most 1280 characters"]),
        (cut, &["not copied whole"]),
        ("homehost2aaaa", &["newer"]),
    ] {
        let said = other.cli(&["mesh", "join", invite]).refusal(USAGE);
        for word in words {
            assert!(said.contains(word), "{word} in {said}");
        }
    }
    let said = other.cli(&["mesh", "join", &text]).refusal(WRONG_STATE);
    assert!(said.contains("elsewhere") && said.contains(test.network()), "{said}");
    assert!(said.contains("homehost up --invite STRING` without --network"), "{said}");
    assert!(!other.data_dir().join("config.toml").exists(), "nothing was written");
    let said = host.cli(&["mesh", "join", &text]).refusal(USAGE);
    assert!(said.contains("own"), "{said}");

    let start = |node: &Node<'_>, options: &[&str]| {
        let mut command = node.command(&["up", "--invite", &text]);
        run(command.args(options).args(LOOPBACK), Duration::from_secs(60))
    };
    let said = start(&other, &[]).refusal(CONFLICT);
    assert!(said.contains("mesh join"), "{said}");
    other.down();
    let said = start(&other, &["--network", "elsewhere"]).refusal(WRONG_STATE);
    assert!(said.contains("--network") && said.contains("elsewhere"), "{said}");
    fs::write(other.data_dir().join("config.toml"), "[mesh]\nnetwork = \"elsewhere\"\n")
        .expect("the folder is ours");
    let said = start(&other, &[]).refusal(WRONG_STATE);
    assert!(said.contains("config.toml:2"), "{said}");
}
