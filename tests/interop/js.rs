//! A process that holds js-libp2p peers, and does what it is told to.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs;
use std::process::Command;
use std::time::Duration;

use homehost_protocol::gossip::encode_batches;
use homehost_tests::{Lines, Node, Test, eventually, source_dir, target_dir};
use serde_json::{Value, json};

use crate::{FOUND, hex, tcp_address};

/// Longest wait for an answer; a flood takes its time.
const ANSWER: Duration = Duration::from_secs(60);

/// The process. Its peers have identities and connections of their own.
pub(crate) struct Js<'a> {
    test: &'a Test,
    lines: RefCell<Lines>,
    events: RefCell<VecDeque<Value>>,
}

impl<'a> Js<'a> {
    /// Starts it in the test's folder, with a link to the installed packages.
    #[track_caller]
    pub(crate) fn start(test: &'a Test) -> Self {
        let modules = target_dir().join("test-js/node_modules");
        let there = modules.join("libp2p").exists();
        assert!(there, "{} is missing: `cargo xtask test` installs it", modules.display());
        let folder = test.folder().join("js");
        fs::create_dir(&folder).expect("the folder of the test is ours");
        let scripts = fs::read_dir(source_dir().join("interop/js")).expect("the scripts are there");
        for script in scripts.flatten() {
            if script.path().is_file() {
                fs::copy(script.path(), folder.join(script.file_name())).expect("it can be copied");
            }
        }
        std::os::unix::fs::symlink(modules, folder.join("node_modules")).expect("a new link");
        let mut command = Command::new("node");
        // Paths in the test's folder: what is left of it is found by them.
        command.arg("--import").arg(folder.join("with-resolvers.js")).arg(folder.join("peer.js"));
        let lines = Lines::start_talk(&mut command, test.log("js"));
        Self { test, lines: lines.into(), events: RefCell::default() }
    }

    fn exchange(&self, command: &Value) -> Result<Value, String> {
        let mut lines = self.lines.borrow_mut();
        lines.say(&command.to_string());
        lines.find(ANSWER, &format!("an answer to {:.200}", command.to_string()), |line| {
            let mut answer: Value = serde_json::from_str(line).ok()?;
            if answer.get("event").is_some() {
                self.events.borrow_mut().push_back(answer);
                return None;
            }
            Some(match answer["error"].as_str() {
                Some(error) => Err(error.to_owned()),
                None => Ok(answer["ok"].take()),
            })
        })
    }

    /// The answer to a command that works.
    #[track_caller]
    pub(crate) fn ask(&self, name: &str, args: Value) -> Value {
        match self.exchange(&command(name, args.clone())) {
            Ok(answer) => answer,
            Err(error) => panic!("{name} {:.200}: {error}", args.to_string()),
        }
    }

    /// The reason for which a command does not work.
    #[track_caller]
    pub(crate) fn refusal(&self, name: &str, args: Value) -> String {
        match self.exchange(&command(name, args)) {
            Ok(answer) => panic!("{name} worked: {:.200}", answer.to_string()),
            Err(error) => error,
        }
    }

    /// A peer that introduces itself as one of the test's network.
    #[track_caller]
    pub(crate) fn peer(&self, name: &str) -> Peer<'_> {
        self.peer_with(name, json!({}))
    }

    /// A peer that has no gossip but what it writes by hand; it reads the
    /// gossip of others.
    #[track_caller]
    pub(crate) fn raw_peer(&self, name: &str) -> Peer<'_> {
        let peer = self.peer_with(name, json!({"gossip": false}));
        peer.ask("take_gossip", json!({}));
        peer
    }

    /// A peer of those that it dials, and of nobody else: what it says can
    /// come from nobody else either.
    #[track_caller]
    pub(crate) fn lone_peer(&self, name: &str) -> Peer<'_> {
        self.peer_with(name, json!({"alone": true}))
    }

    /// A peer with other settings.
    #[track_caller]
    pub(crate) fn peer_with(&self, name: &str, mut settings: Value) -> Peer<'_> {
        settings["peer"] = json!(name);
        settings["network"] = json!(self.test.network());
        let made = self.ask("start", settings);
        let id = made["id"].as_str().expect("a peer id").to_owned();
        Peer { js: self, name: name.to_owned(), id }
    }
}

fn command(name: &str, mut args: Value) -> Value {
    args["do"] = json!(name);
    args
}

/// One of its peers.
pub(crate) struct Peer<'a> {
    js: &'a Js<'a>,
    name: String,
    pub(crate) id: String,
}

impl Peer<'_> {
    /// The answer to a command of this peer that works.
    #[track_caller]
    pub(crate) fn ask(&self, name: &str, mut args: Value) -> Value {
        args["peer"] = json!(self.name);
        self.js.ask(name, args)
    }

    /// The answer to a command of this peer, or why it does not work.
    pub(crate) fn try_ask(&self, name: &str, mut args: Value) -> Result<Value, String> {
        args["peer"] = json!(self.name);
        self.js.exchange(&command(name, args))
    }

    /// The reason for which a command of this peer does not work.
    #[track_caller]
    pub(crate) fn refusal(&self, name: &str, mut args: Value) -> String {
        args["peer"] = json!(self.name);
        self.js.refusal(name, args)
    }

    /// Connects to a node, which may refuse.
    pub(crate) fn try_dial(&self, node: &Node<'_>) {
        let args = json!({"peer": self.name, "address": tcp_address(node)});
        // Whether it worked shows by whether it stays connected.
        let _ = self.js.exchange(&command("dial", args));
    }

    /// Connects to a node.
    #[track_caller]
    pub(crate) fn dial(&self, node: &Node<'_>) -> Value {
        self.ask("dial", json!({"address": tcp_address(node)}))
    }

    /// Connects to a node and waits until both know the other.
    #[track_caller]
    pub(crate) fn join(&self, node: &Node<'_>) {
        self.dial(node);
        self.known_to(node);
    }

    /// Waits until a node counts it among its peers.
    #[track_caller]
    pub(crate) fn known_to(&self, node: &Node<'_>) -> Value {
        eventually(FOUND, &format!("{} is a peer", self.name), || {
            let peers = node.get("/api/v1/peers").json();
            let found = peers.as_array().into_iter().flatten().find(|peer| peer["node"] == self.id);
            found.cloned().ok_or_else(|| peers.to_string())
        })
    }

    /// Joins a node and takes part in both topics.
    #[track_caller]
    pub(crate) fn join_gossip(&self, node: &Node<'_>) {
        self.join(node);
        let id = node.id();
        for topic in ["list", "pres"] {
            self.ask("subscribe", json!({"topic": topic}));
            eventually(FOUND, &format!("the node says that it takes {topic}"), || {
                let takers = self.ask("subscribers", json!({"topic": topic}));
                let there = takers.as_array().is_some_and(|takers| takers.contains(&json!(id)));
                there.then_some(()).ok_or_else(|| takers.to_string())
            });
        }
    }

    /// Publishes envelopes of one root; returns the messages.
    #[track_caller]
    pub(crate) fn publish(&self, topic: &str, envelopes: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let messages = encode_batches(envelopes.iter().cloned());
        self.publish_messages(topic, &messages);
        messages
    }

    /// Publishes what need not be batches, one after another.
    #[track_caller]
    pub(crate) fn publish_messages(&self, topic: &str, messages: &[Vec<u8>]) {
        let messages: Vec<_> = messages.iter().map(|message| hex(message)).collect();
        let takers = self.ask("publish", json!({"topic": topic, "messages": messages}));
        assert_ne!(takers, 0, "somebody takes each");
    }

    /// Waits for an event of this peer for which `wanted` has a result.
    #[track_caller]
    pub(crate) fn hears<T>(
        &self,
        what: &str,
        event: &str,
        wanted: impl Fn(&Value) -> Option<T>,
    ) -> T {
        let look = |of: &Value| {
            if of["event"] == event && of["peer"] == self.name { wanted(of) } else { None }
        };
        let mut events = self.js.events.borrow_mut();
        while let Some(past) = events.pop_front() {
            if let Some(found) = look(&past) {
                return found;
            }
        }
        // No answer is due, so every line is an event.
        self.js.lines.borrow_mut().find(FOUND, what, |line| look(&serde_json::from_str(line).ok()?))
    }

    /// Whether its last connection is open.
    #[track_caller]
    pub(crate) fn is_connected(&self) -> bool {
        self.ask("is_connected", json!({})) == true
    }

    /// Waits until its last connection is closed.
    #[track_caller]
    pub(crate) fn is_left(&self, within: Duration) {
        eventually(within, &format!("{} is left", self.name), || {
            if self.is_connected() { Err("connected".into()) } else { Ok(()) }
        });
    }
}
