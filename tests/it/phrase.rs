//! A recovery phrase is shown in a terminal and stored nowhere.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use homehost_tests::{Game, Node, Terminal, Test, eventually};
use serde_json::Value;

use crate::identity::{file, holding};
use crate::words::WORDS;

const FOUND: Duration = Duration::from_secs(20);

/// Longest wait for what a program shows, on a machine that does much else.
const SHOWN: Duration = Duration::from_secs(60);

const SHOW: &[&str] = &["id", "recovery-phrase", "show"];

/// The words as they are shown, in their order.
fn read_words(terminal: &mut Terminal) -> Vec<String> {
    let shown = terminal.read_until("with others: ", SHOWN);
    let (_, grid) = shown.split_once("in this order:").expect("it says what they are");
    let (grid, _) = grid.split_once("Write them").expect("it says what to do");
    let mut cells: Vec<_> = grid.split_whitespace().collect();
    let mut words: Vec<(usize, String)> = cells
        .chunks_exact_mut(2)
        .map(|cell| (cell[0].parse().expect("a number"), cell[1].to_owned()))
        .collect();
    words.sort();
    assert_eq!(words.iter().map(|(at, _)| *at).collect::<Vec<_>>(), (1..=12).collect::<Vec<_>>());
    words.into_iter().map(|(_, word)| word).collect()
}

/// Writes the words down, up to the last of the three that are asked for.
fn write_down(terminal: &mut Terminal) -> (Vec<String>, String) {
    let words = read_words(terminal);
    terminal.type_line("");
    let asked = |terminal: &mut Terminal| {
        terminal.read_until("Word ", SHOWN);
        let number = terminal.read_until(": ", SHOWN);
        let number: usize = number.trim_end_matches(": ").parse().expect("a number");
        words[number - 1].clone()
    };
    for _ in 0..2 {
        let word = asked(terminal);
        terminal.type_line(&word);
    }
    let last = asked(terminal);
    (words, last)
}

/// Files of a node that hold words which follow each other.
fn holding_words(node: &Node<'_>, words: &[String]) -> Vec<PathBuf> {
    let rows: Vec<_> = words.windows(3).map(|three| three.join(" ")).collect();
    holding(node.data_dir(), &rows)
}

/// Rotates with words that come by standard input.
#[track_caller]
fn rotate(node: &Node<'_>, words: &[String]) -> Value {
    let mut command = node.command(&["id", "rotate", "--phrase-file", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program is there");
    let mut stdin = child.stdin.take().expect("it is piped");
    writeln!(stdin, "{}", words.join(" ")).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("a receipt")
}

#[test]
fn a_service_gets_its_phrase_later_and_everybody_hears_of_the_new_key() {
    let test = Test::new();
    let mut home = test.node("home", &[]);
    let friend = test.node("friend", &[&home.address()]);
    let server = home.host(&Game::stand_in(&test, "Steady", 1));
    let before = friend.sees(&server["id"], "live", FOUND);
    assert_eq!(before["key_epoch"], 0);
    let born = home.ok(&["id"]);
    assert_eq!(born["phrase"], "not-yet");
    let seed = home.data_dir().join("identity/recovery.seed");
    let interim = fs::read(&seed).expect("a key that stands in");
    assert_eq!(interim.len(), 32, "it is no phrase");
    assert!(home.ok(&["status"])["attention"].to_string().contains("recovery-phrase show"));
    // Another machine of the same owner.
    let key = friend.ok(&["id", "device", "key"])["key"].as_str().expect("a key").to_owned();
    home.ok(&["id", "device", "add", &key]);

    // Without a phrase there is nothing to rotate or to check, and without a
    // terminal none is shown.
    let words = file(&test, "words", WORDS);
    for verb in
        [&["id", "rotate"][..], &["id", "revoke", "--yes"], &["id", "recovery-phrase", "verify"]]
    {
        let refusal = home.cli(&[verb, &["--phrase-file", &words]].concat()).refusal(4);
        assert!(refusal.contains("no recovery phrase yet"), "{refusal}");
        assert!(refusal.contains("homehost id recovery-phrase show"), "{refusal}");
    }
    assert!(home.cli(SHOW).refusal(2).contains("in a terminal only"));

    // Whoever declines, or goes away, has changed nothing.
    let before_it = home.ok(&["id"]);
    let mut terminal = home.terminal(SHOW);
    let declined = read_words(&mut terminal);
    terminal.type_line("skip");
    let (code, shown) = terminal.ended(SHOWN);
    assert_eq!(code, Some(4), "{shown}");
    let mut terminal = home.terminal(SHOW);
    let left = read_words(&mut terminal);
    terminal.end_input();
    let (code, gone) = terminal.ended(SHOWN);
    assert_eq!(code, Some(1), "{gone}");
    for text in [shown, gone] {
        for part in ["nothing was changed", "count for nothing", "cross out"] {
            assert!(text.contains(part), "{text}");
        }
    }
    assert_eq!(home.ok(&["id"]), before_it);
    assert_ne!(declined, left, "words that were shown are not shown again");

    let mut terminal = home.terminal(SHOW);
    let (written, last) = write_down(&mut terminal);
    assert_ne!(written, left);
    assert_eq!(home.ok(&["id"]), before_it, "nothing counts before the third word");
    terminal.type_line(&last);
    let (code, shown) = terminal.ended(SHOWN);
    assert_eq!(code, Some(0), "{shown}");
    for part in ["never on this disk", "epoch 1", "is it yours?", "homehost id backup"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(shown.contains(born["root"].as_str().expect("a root")), "{shown}");
    let after = home.ok(&["id"]);
    assert_eq!((&after["key_epoch"], &after["phrase"]), (&1.into(), &"with-owner".into()));
    assert_eq!((&after["root"], &after["device"]), (&born["root"], &0.into()));
    assert_eq!(after["devices"][1]["key"], Value::from(key));
    assert!(!seed.exists());
    let epoch = |epoch: u64| {
        eventually(FOUND, "the listing is signed anew", || {
            let row = friend.sees(&server["id"], "live", FOUND);
            if row["key_epoch"] == epoch { Ok(row) } else { Err(row.to_string()) }
        })
    };
    let row = epoch(1);
    assert_eq!((&row["host"], &row["key_conflict"]), (&before["host"], &false.into()));
    assert!(!home.ok(&["status"])["attention"].to_string().contains("recovery-phrase"));
    assert!(home.cli(SHOW).refusal(4).contains("shown once"));

    rotate(&home, &written);
    epoch(2);
    home.down();
    home.start();
    assert_eq!(home.ok(&["id"])["key_epoch"], 2);
    for words in [&declined, &left, &written] {
        assert_eq!(holding_words(&home, words), Vec::<PathBuf>::new(), "nowhere on the disk");
    }
}

#[test]
fn a_phrase_is_had_without_a_node_too_and_words_count_only_if_all_went_well() {
    let test = Test::new();
    let mut home = test.node("home", &[]);
    let born = home.ok(&["id"]);
    // The node ends while somebody writes.
    let mut terminal = home.terminal(SHOW);
    let (_, last) = write_down(&mut terminal);
    home.down();
    terminal.type_line(&last);
    let (code, shown) = terminal.ended(SHOWN);
    assert_eq!(code, Some(7), "{shown}");
    for part in ["no node is running", "count for nothing", "cross out"] {
        assert!(shown.contains(part), "{shown}");
    }
    assert_eq!(home.ok(&["id"])["key_epoch"], 0);

    let mut terminal = home.terminal(SHOW);
    let (written, last) = write_down(&mut terminal);
    terminal.type_line(&last);
    let (code, shown) = terminal.ended(SHOWN);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("homehost up"), "{shown}");
    let after = home.ok(&["id"]);
    assert_eq!((&after["root"], &after["key_epoch"]), (&born["root"], &1.into()));
    let words = file(&test, "words", &written.join(" "));
    home.ok(&["id", "recovery-phrase", "verify", "--phrase-file", &words]);
    assert!(!home.data_dir().join("identity/recovery.seed").exists());
    home.start();
    assert_eq!(home.ok(&["id"])["phrase"], "with-owner");
}

#[test]
fn a_first_start_in_a_terminal_shows_a_phrase_and_keeps_none() {
    let test = Test::new();
    let up = ["up", "--http", "127.0.0.1:0", "--no-mdns", "--network", test.network()];
    let up = [&up[..], &["--listen", "/ip4/127.0.0.1/tcp/0"]].concat();
    for accepts in [true, false] {
        let node = test.stopped_node(if accepts { "accepts" } else { "declines" }, &[]);
        let mut terminal = node.terminal(&up);
        let words = if accepts {
            let (words, last) = write_down(&mut terminal);
            terminal.type_line(&last);
            terminal.read_until("never on this disk", SHOWN);
            words
        } else {
            let words = read_words(&mut terminal);
            terminal.type_line("skip");
            let shown = terminal.read_until("recovery-phrase show", SHOWN);
            assert!(shown.contains("count for nothing: cross out"), "{shown}");
            words
        };
        eventually(SHOWN, "it is up", || {
            let status = node.cli(&["status"]);
            if status.code == Some(0) { Ok(()) } else { Err(format!("{status:?}")) }
        });
        let phrase = if accepts { "with-owner" } else { "not-yet" };
        let view = node.ok(&["id"]);
        assert_eq!((&view["phrase"], &view["key_epoch"]), (&phrase.into(), &0.into()));
        let seed = fs::read(node.data_dir().join("identity/recovery.seed"));
        assert_eq!(seed.ok().map(|key| key.len()), (!accepts).then_some(32));
        if accepts {
            rotate(&node, &words);
            assert_eq!(node.ok(&["id"])["key_epoch"], 1);
        }
        node.ok(&["down"]);
        assert_eq!(terminal.ended(SHOWN).0, Some(0));
        assert_eq!(holding_words(&node, &words), Vec::<PathBuf>::new(), "nowhere on the disk");
    }
}
