//! Faults of the machine itself. They need root, for file systems of their own.

#![cfg(target_os = "linux")]

mod clock;
mod crowd;
mod day;
#[expect(dead_code, reason = "this crowd says nothing")]
#[path = "../prove/peer.rs"]
mod peer;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use homehost_tests::{Game, Node, Test, eventually, run};

/// A file system in memory, in the folder of a test.
struct Disk(PathBuf);

impl Disk {
    fn new(test: &Test, name: &str, bytes: u64) -> Self {
        let path = test.folder().join(name);
        fs::create_dir(&path).expect("the folder is ours");
        let disk = Self(path);
        disk.mount(&["-t", "tmpfs", "-o", &format!("size={bytes},mode=0711"), "tmpfs"]);
        disk
    }

    fn mount(&self, args: &[&str]) {
        let answer = run(Command::new("mount").args(args).arg(&self.0), Duration::from_secs(10));
        assert_eq!(
            answer.code,
            Some(0),
            "these tests need root and the right to mount: {answer:?}"
        );
    }

    fn read_only(&self) {
        self.mount(&["-o", "remount,ro"]);
    }

    fn read_write(&self) {
        self.mount(&["-o", "remount,rw"]);
    }

    /// Makes it read-only under a node that runs. The kernel refuses that of a
    /// file system on which files are open for writing, so a read-only view of it
    /// is laid over it: what is opened from now on cannot be written, and what is
    /// open already can.
    fn cover_read_only(&self) -> Cover<'_> {
        let path = self.0.as_os_str();
        let args = [OsStr::new("--bind"), path, path];
        let answer = run(Command::new("mount").args(args), Duration::from_secs(10));
        assert_eq!(answer.code, Some(0), "{answer:?}");
        let cover = Cover(&self.0);
        self.mount(&["-o", "remount,bind,ro"]);
        cover
    }
}

/// A read-only view that lies over a disk until it is dropped.
struct Cover<'a>(&'a Path);

impl Drop for Cover<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: after a failed test, processes that still use it are about to be killed.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// What `up` says when it is refused.
#[track_caller]
fn refused(node: &Node<'_>, code: i32) -> String {
    let answer = run(&mut node.up_command(), Duration::from_secs(30));
    assert_eq!(answer.code, Some(code), "{answer:?}");
    let last = answer.stderr.trim_end().lines().last().unwrap_or_default();
    let body: serde_json::Value = serde_json::from_str(last).unwrap_or_default();
    body["error"]["message"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
}

/// The level and the sentence of one finding of the doctor.
fn diagnosis(node: &Node<'_>, check: &str) -> (String, String) {
    let report = node.cli(&["doctor"]).json();
    let findings = report["findings"].as_array().expect("a list");
    let found = findings.iter().find(|finding| finding["check"] == check).expect("it is there");
    (found["level"].as_str().unwrap_or_default().to_owned(), found["said"].to_string())
}

/// Waits until the status says that nothing can be written, why, and what to do.
#[track_caller]
fn unwritable(node: &Node<'_>, why: &str, next: &str) {
    eventually(Duration::from_secs(30), "the status says that nothing can be written", || {
        let status = node.ok(&["status"]);
        let lines = status["attention"].as_array().cloned().unwrap_or_default();
        let told = lines.iter().filter_map(|line| line.as_str());
        let mut told = told.filter(|line| line.contains("data folder"));
        let told = told.any(|line| line.contains(why) && line.contains(next));
        if told { Ok(()) } else { Err(status.to_string()) }
    });
}

/// Waits until it does not any more.
#[track_caller]
fn writable(node: &Node<'_>) {
    eventually(Duration::from_secs(30), "the status is content with the disk", || {
        let status = node.ok(&["status"]);
        let told = status["attention"].to_string().contains("data folder");
        if told { Err(status.to_string()) } else { Ok(()) }
    });
}

/// Takes all space that is left, to the last byte.
fn fill(folder: &Path) -> PathBuf {
    let path = folder.join("fill");
    let mut file = File::create(&path).expect("a file costs nothing yet");
    for block in [1 << 16, 1] {
        let bytes = vec![0; block];
        while file.write_all(&bytes).is_ok() {}
    }
    path
}

#[test]
fn a_full_disk_is_explained_and_games_can_still_be_stopped() {
    let test = Test::new();
    // Room for the copy of the program from which shims run, and for little else.
    let program = fs::metadata(test.program()).expect("it was built").len();
    let disk = Disk::new(&test, "small", program + (24 << 20));
    let witness = test.node("witness", &[]);
    let mut node = test.stopped_node("node", &[&witness.address()]);
    node.set_data_dir(disk.0.join("node"));
    node.start();
    let id = node.host(&Game::stand_in(&test, "Before", 0))["id"].take();
    node.running("Before");
    witness.sees(&id, "live", Duration::from_secs(20));

    let filled = fill(&disk.0);
    // What the stores had in reserve goes first.
    for bytes in [50_000, 5_000, 500, 10] {
        let name = "x".repeat(bytes);
        let add = serde_json::json!({
            "action": { "do": "server-add", "name": name, "game": "No Slug", "exec": "x" },
        });
        eventually(Duration::from_secs(30), "nothing can be stored any more", || {
            let response = node.post(&add);
            if response.status == 500 { Ok(()) } else { Err(response.body) }
        });
    }
    let text = node.add(&Game::stand_in(&test, "Meanwhile", 0)).refusal(1);
    assert!(text.contains("full") && text.contains("free"), "{text}");
    assert_eq!(node.ok(&["server", "ls"]).as_array().map(Vec::len), Some(1), "not half added");
    assert_eq!(node.get("/readyz").status, 200);
    unwritable(&node, "its disk is full", "free some space");
    let (level, said) = diagnosis(&node, "disk");
    assert!(level == "red" && said.contains("full"), "{said}");
    let bundle = disk.0.join("bundle.tar");
    let text = node.cli(&["doctor", "--bundle", &bundle.display().to_string()]).refusal(1);
    assert!(text.contains("free some space") && !bundle.exists(), "{text}");
    node.ok(&["server", "stop", "Before"]);
    assert_eq!(node.ok(&["server", "show", "Before"])["state"], "offline");

    fs::remove_file(filled).expect("it is ours");
    writable(&node);
    let id = node.host(&Game::stand_in(&test, "After", 0))["id"].take();
    witness.sees(&id, "live", Duration::from_secs(20));
    node.start_server("Before");
    node.down_with_games();

    // A start without space is refused, and works again with it.
    let filled = fill(&disk.0);
    let answer = run(&mut node.up_command(), Duration::from_secs(30));
    let refused = answer.code == Some(1) && answer.stderr.contains("space");
    assert!(refused, "{answer:?}");
    fs::remove_file(filled).expect("it is ours");
    node.start();
    node.running("After");
    node.down_with_games();
}

#[test]
fn a_read_only_folder_is_explained() {
    let test = Test::new();
    let program = fs::metadata(test.program()).expect("it was built").len();
    let disk = Disk::new(&test, "disk", program + (64 << 20));
    let mut node = test.stopped_node("node", &[]);
    node.set_data_dir(disk.0.join("node"));
    disk.read_only();
    let text = refused(&node, 5);
    assert!(
        text.contains(&disk.0.display().to_string()) && text.contains("--data-dir")
            || text.contains("permission"),
        "{text}"
    );

    disk.read_write();
    node.start();
    node.down();
    disk.read_only();
    let text = refused(&node, 5);
    assert!(text.contains(&disk.0.display().to_string()), "{text}");
    disk.read_write();
    node.start();
    node.down();
}

#[test]
fn a_folder_that_becomes_read_only_is_said_and_nothing_is_lost() {
    let test = Test::new();
    let program = fs::metadata(test.program()).expect("it was built").len();
    let disk = Disk::new(&test, "disk", program + (64 << 20));
    let mut node = test.stopped_node("node", &[]);
    node.set_data_dir(disk.0.join("node"));
    node.start();
    node.host(&Game::stand_in(&test, "Before", 0));
    let game = node.running("Before")["pid"].take();

    let cover = disk.cover_read_only();
    unwritable(&node, "read-only", "make it writable");
    let (level, said) = diagnosis(&node, "disk");
    assert!(level == "red" && said.contains("read-only"), "{said}");
    let answer = node.add(&Game::stand_in(&test, "Meanwhile", 0));
    assert!(matches!(answer.code, Some(1 | 5)), "{answer:?}");
    assert_eq!(node.ok(&["server", "ls"]).as_array().map(Vec::len), Some(1), "not half added");
    assert_eq!(node.running("Before")["pid"], game, "games go on");

    drop(cover);
    writable(&node);
    let (_, said) = diagnosis(&node, "disk");
    assert!(said.contains("can be written"), "{said}");
    assert_eq!(node.running("Before")["pid"], game, "all the time");
    node.host(&Game::stand_in(&test, "After", 0));
    node.running("After");
    node.down();
    node.start();
    assert_eq!(node.running("Before")["pid"], game, "also over a restart");
    node.running("After");
    node.down_with_games();
}
