//! What an operator does with a running node, by the program itself.

#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

#[path = "support/daemon.rs"]
mod daemon;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use daemon::{Daemon, Host, Seen, node_at, operate, operated, program, until};

const QUIET: &str = "error,homehost=info";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_banned_leaves_at_once_and_may_return_when_it_is_taken_back() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("data");
    let daemon = Daemon::start(&folder, &[], QUIET);
    let node = node_at(&daemon.at);
    let mut host = Host::join(1, &daemon.at);
    host.sees(Seen::Joined(node)).await;
    let id = host.id().to_string();
    until("the host is shown", || operated(&folder, "peers").contains(&id).then_some(())).await;
    let peers = operated(&folder, "peers");
    assert!(peers.contains("/ip4/127.0.0.1/tcp/") && peers.contains("test/1"), "{peers}");
    let status = operated(&folder, "status");
    assert!(status.contains("connected 1 host,") && status.contains("0 entries"), "{status}");

    let said = operated(&folder, &format!("ban {id}"));
    assert!(said.contains("keeps out 1 entry"), "{said}");
    host.sees(Seen::Left(node)).await;
    until("the host is gone", || (!operated(&folder, "peers").contains(&id)).then_some(())).await;
    let said = operated(&folder, &format!("ban {id}"));
    assert!(said.contains("already"), "{said}");

    let said = operated(&folder, &format!("unban {id}"));
    assert!(said.contains("keeps out 0 entries"), "{said}");
    host.sees(Seen::Joined(node)).await;
    assert_eq!(operate(&folder, &format!("unban {id}")).0, Some(2));
    assert_eq!(operate(&folder, "ban somebody").0, Some(2));

    // By address, as well, and by what an editor writes.
    std::fs::write(folder.join("deny.txt"), "# my own machine\n127.0.0.0/8 # all of it\n").unwrap();
    host.sees(Seen::Left(node)).await;
    let status = operated(&folder, "status");
    assert!(status.contains("1 entry"), "{status}");
    let said = operate(&folder, "unban 127.0.0.1");
    assert!(said.0 == Some(2) && said.1.contains("wider"), "{said:?}");
    operated(&folder, "unban 127.0.0.0/8");
    host.sees(Seen::Joined(node)).await;
    assert_eq!(std::fs::read_to_string(folder.join("deny.txt")).unwrap(), "# my own machine\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_banned_is_not_named_to_others() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("data");
    let daemon = Daemon::start(&folder, &[], QUIET);
    let node = node_at(&daemon.at);
    let mut banned = Host::join(1, &daemon.at);
    banned.sees(Seen::Joined(node)).await;
    operated(&folder, &format!("ban {}", banned.id()));
    banned.sees(Seen::Left(node)).await;
    let mut one = Host::join(2, &daemon.at);
    let other = Host::join(3, &daemon.at);
    // Both come from the same answers that would name the third.
    one.sees(Seen::Joined(other.id())).await;
    assert!(!one.knows(banned.id()) && !other.knows(banned.id()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_line_is_named_and_the_list_as_it_was_holds() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("data");
    let list = parent.path().join("list.txt");
    std::fs::write(&list, "192.0.2.7\n").unwrap();
    let options = ["--deny-list", list.to_str().unwrap()];
    let daemon = Daemon::start(&folder, &options, QUIET);
    std::fs::write(&list, "192.0.2.7\nnobody\n192.0.2.8\n").unwrap();
    until("the mistake is noticed", || daemon.log().contains("line 2").then_some(())).await;
    let status = operated(&folder, "status");
    assert!(status.contains("line 2: \"nobody\"") && status.contains("1 entry"), "{status}");
    let (code, said) = operate(&folder, "ban 192.0.2.9");
    assert!(code == Some(2) && said.contains("line 2") && said.contains("list.txt"), "{said}");
    std::fs::remove_file(&list).unwrap();
    until("that it is gone is said", || daemon.log().contains("is gone").then_some(())).await;
    assert!(operated(&folder, "status").contains("1 entry"));
    std::fs::write(&list, "").unwrap();
    until("it is empty", || operated(&folder, "status").contains("0 entries").then_some(())).await;
    drop(daemon);

    // With nothing good to go on with, it does not start.
    std::fs::write(&list, "nobody\n").unwrap();
    let mut command = program();
    command.arg("--data-dir").arg(&folder).args(options).args(["--listen", daemon::ANY_PORT]);
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && text.contains("line 1"), "{text}");
}

#[test]
fn bans_and_unbans_at_the_same_time_are_all_kept() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path();
    let list = folder.join("deny.txt");
    let old = (0..12).map(|n| format!("198.51.100.{n}\n")).collect::<String>();
    std::fs::write(&list, format!("# mine\n{old}")).unwrap();
    std::thread::scope(|scope| {
        for n in 0..12 {
            scope.spawn(move || operated(folder, &format!("ban 192.0.2.{n}")));
            scope.spawn(move || operated(folder, &format!("unban 198.51.100.{n}")));
        }
    });
    let text = std::fs::read_to_string(&list).unwrap();
    let mut left: Vec<_> = text.lines().collect();
    left.sort_unstable();
    let mut expected: Vec<_> = (0..12).map(|n| format!("192.0.2.{n}")).collect();
    expected.push("# mine".to_owned());
    expected.sort_unstable();
    assert_eq!(left, expected);
}

#[test]
fn a_list_that_vanished_is_not_begun_anew() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("data");
    let list = parent.path().join("list.txt");
    std::fs::write(&list, "192.0.2.7\n192.0.2.8\n").unwrap();
    let options = ["--deny-list", list.to_str().unwrap()];
    let daemon = Daemon::start(&folder, &options, QUIET);
    std::fs::remove_file(&list).unwrap();
    for line in ["ban 192.0.2.9", "unban 192.0.2.7"] {
        let (code, said) = operate(&folder, line);
        assert_eq!(code, Some(2), "{line}: {said}");
        for word in ["list.txt is gone", "2 entries", "make an empty one"] {
            assert!(said.contains(word), "{word} in {said}");
        }
    }
    assert!(!list.exists());
    // Another list is none of its business.
    let other = parent.path().join("other.txt");
    let said = operated(&folder, &format!("ban 192.0.2.9 --deny-list {}", other.display()));
    assert!(said.contains("another list"), "{said}");
    std::fs::write(&list, "").unwrap();
    operated(&folder, "ban 192.0.2.9");
    std::fs::remove_file(&list).unwrap();
    drop(daemon);

    let mut command = program();
    command.arg("--data-dir").arg(&folder).args(options).args(["--listen", daemon::ANY_PORT]);
    command.env("HOMEHOST_LOG", QUIET).stdout(std::process::Stdio::null());
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut text = String::new();
    for line in std::io::BufRead::lines(stderr).map_while(Result::ok) {
        text.push_str(&line);
        if line.contains("introducing") {
            // It should not have started, and does not end by itself.
            child.kill().unwrap();
        }
    }
    let status = child.wait().unwrap();
    assert!(status.code() == Some(2) && text.contains("make an empty one"), "{text}");
}

#[test]
fn without_a_running_node_a_ban_waits_and_a_question_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path();
    for question in ["status", "peers"] {
        let (code, text) = operate(folder, question);
        assert!(code == Some(7) && text.contains("no node is running"), "{text}");
    }
    let said = operated(folder, "ban 192.0.2.7");
    assert!(said.contains("from the next start"), "{said}");
    // What a crash leaves behind is no node.
    std::fs::write(
        folder.join("control.json"),
        r#"{"address":"127.0.0.1:1","token":"x","deny_list":"/nowhere"}"#,
    )
    .unwrap();
    assert_eq!(operate(folder, "status").0, Some(7));
}

/// Asks by hand.
fn get(at: &str, path: &str, more: &str) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nhost: x\r\n{more}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn only_who_may_read_the_folder_may_ask_and_the_page_names_nobody() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("data");
    let mut daemon = Daemon::start(&folder, &["--metrics", "127.0.0.1:0"], QUIET);
    let place = std::fs::read_to_string(folder.join("control.json")).unwrap();
    let place: serde_json::Value = serde_json::from_str(&place).unwrap();
    let at = place["address"].as_str().unwrap();
    for (more, answer) in [
        (String::new(), "401"),
        ("authorization: Bearer 00\r\n".into(), "401"),
        (format!("authorization: Bearer {}\r\n", place["token"].as_str().unwrap()), "200"),
    ] {
        for path in ["/status", "/peers"] {
            let got = get(at, path, &more);
            assert!(got.starts_with(&format!("HTTP/1.0 {answer}")), "{got}");
        }
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(folder.join("control.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let line = daemon.line();
    let at = line.strip_prefix("metrics http://").unwrap().strip_suffix("/metrics").unwrap();
    let page = get(at, "/", "");
    assert!(page.starts_with("HTTP/1.0 200") && page.contains("Bootstrap node of"), "{page}");
    assert!(page.contains("default-src 'none'") && !page.contains("127.0.0.1"), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_have_no_address_in_them_unless_the_operator_asks_for_it() {
    for (options, level, written) in [
        (&[][..], QUIET, false),
        (&[], "debug", false),
        (&["--log-format", "json"], "debug", false),
        (&["--log-addresses"], "debug", true),
        (&["--log-format", "json", "--log-addresses"], "debug", true),
    ] {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("data");
        let daemon = Daemon::start(&folder, options, level);
        let node = node_at(&daemon.at);
        let mut host = Host::join(1, &daemon.at);
        host.sees(Seen::Joined(node)).await;
        operated(&folder, "ban 127.0.0.1");
        host.sees(Seen::Left(node)).await;
        until("the log is there", || daemon.log().contains("deny list").then_some(())).await;
        let log = daemon.log();
        assert_eq!(log.contains("127.0.0.1"), written, "{options:?} {level}: {log}");
        if options.contains(&"json") {
            for line in log.lines() {
                let line: serde_json::Value = serde_json::from_str(line).expect(line);
                assert!(line["level"].is_string() && line["timestamp"].is_string(), "{line}");
            }
        }
    }
}
