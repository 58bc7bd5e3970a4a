//! The demo, from its first line to the last process that it ends.

#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use homehost_tests::process::{self, Signal};
use homehost_tests::{Lines, Test};

#[test]
fn the_demo_shows_three_hosts_and_leaves_nothing_behind() {
    let test = Test::new();
    let folder = test.folder().join("tmp");
    fs::create_dir(&folder).expect("the folder is ours");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o711)).expect("it is ours");
    let mut command = Command::new(test.program());
    command.arg("demo").env("TMPDIR", &folder);
    let mut demo = Lines::start(&mut command, test.log("demo"));
    for host in 1..=3 {
        let begins = format!("what host {host} sees");
        demo.find(Duration::from_secs(90), &begins, |line| line.starts_with(&begins).then_some(()));
        for server in ["Castle Builders", "Quiet Valley", "Sunday Luanti"] {
            demo.find(Duration::from_secs(5), server, |line| {
                (line.starts_with(server) && line.contains("127.0.0.1:")).then_some(())
            });
        }
    }
    assert!(fs::read_dir(&folder).expect("it is there").count() > 0, "it lives there");
    assert!(process::naming(&folder).len() >= 10, "a bootstrap node, hosts, shims and games");
    demo.send(Signal::Interrupt);
    assert_eq!(demo.wait(Duration::from_secs(60)), Some(0), "{:#?}", demo.seen());
    assert_eq!(process::naming(&folder), [0_u32; 0]);
    let left: Vec<_> = fs::read_dir(&folder).expect("it is there").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(demo.seen().iter().all(|line| !line.contains('\u{1b}')), "a pipe gets plain text");
}
