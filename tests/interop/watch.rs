//! Whether a node is well after what was done to it.

use std::time::{Duration, Instant};

use homehost_tests::{Game, Node, Test, process};

use crate::FOUND;

/// What a node may have grown by: a peer's share of streams, queues and caches
/// is a few megabytes, and what an attack costs beyond that would add up.
const GROWTH_MAX_KB: u64 = 64 * 1024;

/// A person at the node's dashboard waits no longer than this.
const API: Duration = Duration::from_secs(1);

/// A node, and an honest one that speaks to it.
pub(crate) struct Watch<'a> {
    test: &'a Test,
    node: &'a Node<'a>,
    honest: &'a Node<'a>,
    before_kb: u64,
}

impl<'a> Watch<'a> {
    /// Begins when the two know each other and a first row has come through, so
    /// that what they need anyway is set aside.
    #[track_caller]
    pub(crate) fn begin(test: &'a Test, node: &'a Node<'a>, honest: &'a Node<'a>) -> Self {
        node.connected_to(honest);
        let watch = Self { test, node, honest, before_kb: 0 };
        watch.hears_honest_rows("before");
        Self { before_kb: resident_kb(node.pid()), ..watch }
    }

    /// Alive, quick, not much larger, and still in the conversation.
    #[track_caller]
    pub(crate) fn is_well(&self, after: &str) {
        assert!(process::is_alive(self.node.pid()), "it lives after {after}");
        let begun = Instant::now();
        self.node.get("/api/v1/status");
        let answered = begun.elapsed();
        assert!(answered < API, "its API took {answered:?} after {after}");
        let grown_kb = resident_kb(self.node.pid()).saturating_sub(self.before_kb);
        println!("after {after}: API {} ms, grown by {grown_kb} kB", answered.as_millis());
        assert!(grown_kb < GROWTH_MAX_KB, "it has grown by {grown_kb} kB after {after}");
        self.hears_honest_rows(after);
    }

    #[track_caller]
    fn hears_honest_rows(&self, after: &str) {
        let name: String = format!("after {after}").chars().take(48).collect();
        let server = self.honest.host(&Game::stand_in(self.test, name.trim(), 0));
        self.node.sees(&server["id"], "live", FOUND);
    }
}

/// Memory of a process that is in use.
#[track_caller]
fn resident_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.trim().strip_suffix("kB"));
    number.and_then(|number| number.trim().parse().ok()).expect("Linux says it in kB")
}
