//! Namespaces, cables and addresses; all of them go when the lab goes.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use homehost_tests::{Namespace, process, run};

use crate::wire::{Quality, Wire};

/// How the names of all namespaces of all labs begin. The process that made
/// one follows, so that a later run can remove what a killed one left.
const PREFIX: &str = "homehost-lab-";

/// Longest time that a tool may take on a busy machine.
const TOOL: Duration = Duration::from_secs(30);

/// One end of a cable: an interface in a namespace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End<'a> {
    pub(crate) at: &'a Namespace,
    pub(crate) name: &'a str,
}

impl<'a> End<'a> {
    pub(crate) fn new(at: &'a Namespace, name: &'a str) -> Self {
        Self { at, name }
    }

    /// Gives the interface an address, as in `192.168.1.1/24`.
    #[track_caller]
    pub(crate) fn address(self, address: &str) -> Self {
        ip(self.at, &["address", "add", address, "dev", self.name]);
        self
    }

    /// Makes it a port of a bridge.
    #[track_caller]
    pub(crate) fn joins(self, bridge: &str) -> Self {
        ip(self.at, &["link", "set", self.name, "master", bridge]);
        self
    }
}

/// A set of machines and cables. Declared before the nodes that live in it.
#[derive(Debug)]
pub(crate) struct Lab {
    prefix: String,
    made: Mutex<Vec<Namespace>>,
    wires: Mutex<Vec<Wire>>,
}

impl Lab {
    /// An empty lab.
    ///
    /// # Panics
    /// Without root.
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        remove_leftovers();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{PREFIX}{}-{count}-", std::process::id());
        Self { prefix, made: Mutex::default(), wires: Mutex::default() }
    }

    /// A machine without any cable.
    #[track_caller]
    pub(crate) fn machine(&self, name: &str) -> Namespace {
        let namespace = Namespace::named(&format!("{}{name}", self.prefix));
        tool(Command::new("ip").args(["netns", "add", namespace.name()]));
        self.made.lock().expect("no test panics while it holds this").push(namespace.clone());
        // Addresses of IPv6 can be used at once, and only those that we gave.
        let quiet =
            [("net.ipv6.conf.default.accept_ra", "0"), ("net.ipv6.conf.default.accept_dad", "0")];
        sysctl(&namespace, &quiet);
        ip(&namespace, &["link", "set", "lo", "up"]);
        namespace
    }

    /// A machine that passes on packets for others.
    #[track_caller]
    pub(crate) fn forwarder(&self, name: &str) -> Namespace {
        let namespace = self.machine(name);
        let forward = [("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")];
        sysctl(&namespace, &forward);
        namespace
    }

    /// A bridge in a machine.
    #[track_caller]
    pub(crate) fn bridge<'a>(&self, at: &'a Namespace, name: &'a str) -> End<'a> {
        ip(at, &["link", "add", name, "type", "bridge"]);
        ip(at, &["link", "set", name, "up"]);
        End { at, name }
    }

    /// A cable between two machines.
    #[track_caller]
    pub(crate) fn cable(&self, a: End<'_>, b: End<'_>) {
        let one = ["link", "add", a.name, "type", "veth"];
        ip(a.at, &[&one[..], &["peer", "name", b.name, "netns", b.at.name()]].concat());
        for end in [a, b] {
            ip(end.at, &["link", "set", end.name, "up"]);
        }
    }

    /// A cable that is worse than that; `a` is the side of the customer.
    #[track_caller]
    pub(crate) fn wire(&self, a: End<'_>, b: End<'_>, quality: Quality) {
        let wire = Wire::new(a, b, quality);
        self.wires.lock().expect("no test panics while it holds this").push(wire);
        for end in [a, b] {
            ip(end.at, &["link", "set", end.name, "up"]);
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Ok(mut wires) = self.wires.lock() {
            wires.clear();
        }
        if let Ok(made) = self.made.lock() {
            made.iter().for_each(|namespace| remove(namespace.name()));
        }
    }
}

/// Removes what labs of processes that are no more left behind: machines, and
/// whatever still runs in them.
fn remove_leftovers() {
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let maker = maker.and_then(|pid| pid.parse().ok());
        if maker.is_some_and(|pid| !process::is_alive(pid)) {
            let pids = run(Command::new("ip").args(["netns", "pids", &name]), TOOL);
            for pid in pids.stdout.lines().filter_map(|line| line.trim().parse().ok()) {
                process::send(pid, process::Signal::Kill);
            }
            remove(&name);
        }
    }
}

/// One that is gone already is no error.
fn remove(name: &str) {
    let mut command = Command::new("ip");
    let _ = command.args(["netns", "del", name]).stderr(Stdio::null()).status();
}

/// `ip` in a machine.
#[track_caller]
pub(crate) fn ip<S: AsRef<OsStr>>(at: &Namespace, args: &[S]) {
    tool(Command::new("ip").args(["-n", at.name()]).args(args));
}

/// Settings of a machine's kernel.
#[track_caller]
pub(crate) fn sysctl(at: &Namespace, settings: &[(&str, &str)]) {
    at.enter(|| {
        for (name, value) in settings {
            let path = Path::new("/proc/sys").join(name.replace('.', "/"));
            std::fs::write(&path, value)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    });
}

/// Rules of a machine's firewall.
#[track_caller]
pub(crate) fn nft(at: &Namespace, rules: &str) {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    file.write_all(rules.as_bytes()).expect("there is room for rules");
    tool(at.command("nft").arg("-f").arg(file.path()));
}

#[track_caller]
fn tool(command: &mut Command) {
    let answer = run(command, TOOL);
    assert_eq!(answer.code, Some(0), "{command:?} (the lab needs root): {answer:?}");
}
