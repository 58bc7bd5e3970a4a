//! A bootstrap node as a process.

use std::time::Duration;

use crate::process::Signal;
use crate::{Lines, Place, Test};

/// A bootstrap node of a test's network.
#[derive(Debug)]
pub struct Bootstrap<'a> {
    lines: Lines,
    address: String,
    _test: &'a Test,
}

impl<'a> Bootstrap<'a> {
    pub(crate) fn start(test: &'a Test, name: &str, network: &str, place: &Place) -> Self {
        let mut command = place.command(test.bootstrap_program());
        command.arg("--data-dir").arg(test.folder().join(name)).args(["--network", network]);
        command.arg("--listen").args(place.listen(&["/ip4/127.0.0.1/tcp/0"]));
        command.envs(place.env());
        let mut lines = Lines::start(&mut command, test.log(name));
        let within = Duration::from_secs(30);
        let address = lines.find(within, "the bootstrap node says where it is", |line| {
            line.starts_with("/ip").then(|| line.to_owned())
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

    /// Its peer id.
    pub fn id(&self) -> &str {
        self.address.rsplit("/p2p/").next().unwrap_or_default()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.lines.send(Signal::Kill);
        self.lines.wait(Duration::from_secs(5));
    }
}
