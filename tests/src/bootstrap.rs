//! A bootstrap node as a process.

use std::process::Command;
use std::time::Duration;

use crate::process::Signal;
use crate::{Lines, Test};

/// A bootstrap node of a test's network.
#[derive(Debug)]
pub struct Bootstrap<'a> {
    lines: Lines,
    address: String,
    _test: &'a Test,
}

impl<'a> Bootstrap<'a> {
    pub(crate) fn start(test: &'a Test) -> Self {
        let mut command = Command::new(test.bootstrap_program());
        command.arg("--data-dir").arg(test.folder().join("bootstrap")).args([
            "--network",
            test.network(),
            "--listen",
            "/ip4/127.0.0.1/tcp/0",
        ]);
        let mut lines = Lines::start(&mut command, test.log("bootstrap"));
        let within = Duration::from_secs(30);
        let address = lines.find(within, "the bootstrap node says where it is", |line| {
            line.starts_with("/ip4/").then(|| line.to_owned())
        });
        Self { lines, address, _test: test }
    }

    /// Its multiaddr.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.lines.pid()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.lines.send(Signal::Kill);
        self.lines.wait(Duration::from_secs(5));
    }
}
