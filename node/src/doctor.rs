//! What may be wrong with a node, and what to do about it: a core that maps
//! facts to findings.
//!
//! It neither looks nor asks: [`gather`] brings the facts, of a node that runs
//! or of one that does not.

pub(crate) mod bundle;
pub(crate) mod gather;
mod redact;
mod start_line;

use homehost_api::{
    AddressState, ClockView, Identity, NatKind, NetworkFacts, PhraseState, Server, ServerReach,
    ServerState,
};
use serde::Serialize;

use crate::control::count;

/// Free space below which saves are in danger.
const FREE_RED: u64 = 200 * 1024 * 1024;
/// Free space below which a world that grows will soon meet the end.
const FREE_AMBER: u64 = 2 * 1024 * 1024 * 1024;

/// How far a clock may be off before others ignore what is signed by it
/// (spec/records §12).
const CLOCK_OFF_MS: i64 = 10 * 60 * 1000;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Level {
    /// As it should be.
    Green,
    /// It works, with less than there could be, or not known yet.
    Amber,
    /// A person must act.
    Red,
}

/// What was found about one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What was looked at.
    pub(crate) check: String,
    pub(crate) level: Level,
    /// One sentence.
    pub(crate) said: String,
    /// What to do next, if there is something.
    pub(crate) next: Option<String>,
}

fn finding(check: &str, level: Level, said: impl Into<String>, next: &str) -> Finding {
    let next = (!next.is_empty()).then(|| next.to_owned());
    Finding { check: check.to_owned(), level, said: said.into(), next }
}

/// All that is known before judging.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Why the settings cannot be read, or what is new in them.
    pub(crate) settings: Option<String>,
    /// The identity, or why it cannot be read; nothing when there is none yet.
    pub(crate) identity: Option<Result<Identity, String>>,
    pub(crate) disk: Disk,
    pub(crate) clock: Clock,
    /// Damaged stores that were moved aside.
    pub(crate) damaged_stores: usize,
    /// Why a node would not start on the stores, or would not find in them what
    /// was there; of a node that runs, none.
    pub(crate) store_problem: Option<String>,
    /// Why the node's ports cannot be had, by name; of a node that runs, none.
    pub(crate) ports: Vec<(String, Option<String>)>,
    /// What only a running node knows.
    pub(crate) running: Option<Running>,
    /// Why the node that should run does not answer.
    pub(crate) silent: Option<String>,
}

/// The disk of the data folder.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    /// Free bytes, if the system tells.
    pub(crate) free: Option<u64>,
    /// Why nothing can be written.
    pub(crate) problem: Option<String>,
    /// What is no folder where the data folder should be, or one above it.
    pub(crate) in_the_way: Option<String>,
}

/// What tells of the clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    /// Milliseconds by which the newest file of the node is ahead of the clock.
    pub(crate) files_ahead_ms: i64,
    /// What others' dates say of it now, if a node runs and anybody spoke.
    pub(crate) others: Option<ClockView>,
}

/// What only a running node knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Running {
    pub(crate) listens: usize,
    pub(crate) peers: usize,
    pub(crate) bootstrap_peers: usize,
    /// Whether it was given anybody to join.
    pub(crate) has_bootstrap: bool,
    /// Whether all is on this machine, where routers do not matter.
    pub(crate) local: bool,
    pub(crate) network: Option<NetworkFacts>,
    pub(crate) servers: Vec<(Server, Option<ServerReach>)>,
}

/// What is to be said of a node with these facts.
pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![node(facts)];
    if let Some(problem) = &facts.settings {
        // A node that runs goes on with those before; none starts with these.
        let level = if facts.running.is_some() { Level::Amber } else { Level::Red };
        findings.push(finding("settings", level, problem, "homehost config check"));
    }
    findings.push(identity(facts));
    findings.push(disk(&facts.disk));
    findings.push(clock(&facts.clock));
    findings.push(store(facts));
    findings.extend(facts.ports.iter().map(|(name, problem)| port(name, problem.as_deref())));
    if let Some(running) = &facts.running {
        findings.push(peers(running));
        findings.extend(network(running));
        findings.extend(running.servers.iter().map(|(of, reach)| server(of, reach.as_ref())));
    }
    findings
}

/// The worst of all.
pub(crate) fn worst(findings: &[Finding]) -> Level {
    findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Green)
}

fn node(facts: &Facts) -> Finding {
    match (&facts.running, &facts.silent) {
        (Some(_), _) => finding("node", Level::Green, "a node is running", ""),
        (None, Some(why)) => finding(
            "node",
            Level::Red,
            format!("a node has the folder but does not answer: {why}"),
            "wait a moment; if it stays so, end its process and run homehost up",
        ),
        (None, None) => finding(
            "node",
            Level::Amber,
            "no node is running, so the network could not be looked at",
            "homehost up",
        ),
    }
}

fn identity(facts: &Facts) -> Finding {
    let say = |level, said: &str, next: &str| finding("identity", level, said, next);
    let identity = match &facts.identity {
        None => return say(Level::Amber, "there is none yet", "homehost up makes one"),
        Some(Err(why)) => {
            return say(Level::Red, why, "homehost id restore, from a backup, or id recover");
        }
        Some(Ok(identity)) => identity,
    };
    if let Some(conflict) = &identity.conflict {
        return say(Level::Red, conflict, "homehost id");
    }
    if let Some(ended) = &identity.ended {
        return say(Level::Red, ended, "homehost id");
    }
    match identity.phrase {
        PhraseState::WithOwner => {
            say(Level::Green, "the keys are sound, and the recovery phrase is with you", "")
        }
        PhraseState::NotYet => say(
            Level::Amber,
            "the keys are sound, but there is no recovery phrase yet",
            "homehost id recovery-phrase show",
        ),
    }
}

fn disk(disk: &Disk) -> Finding {
    if let Some(path) = &disk.in_the_way {
        let said = format!("{path} is no folder, so nothing can be kept there");
        let next = "move it away, or give another folder with --data-dir";
        return finding("disk", Level::Red, said, next);
    }
    if let Some(problem) = &disk.problem {
        let said = format!("nothing can be written to the data folder: {problem}");
        let next = "make it writable for the user of the node, or free some space";
        return finding("disk", Level::Red, said, next);
    }
    let Some(free) = disk.free else {
        return finding("disk", Level::Amber, "the system does not say how much is free", "");
    };
    let said = format!("{} free, and the data folder can be written", bytes(free));
    if free < FREE_RED {
        finding("disk", Level::Red, said, "free some space: saves are in danger")
    } else if free < FREE_AMBER {
        finding("disk", Level::Amber, said, "free some space soon")
    } else {
        finding("disk", Level::Green, said, "")
    }
}

/// A number of bytes as people read it.
fn bytes(bytes: u64) -> String {
    let gb = bytes as f64 / 1e9;
    if gb >= 1.0 { format!("{gb:.0} GB") } else { format!("{:.0} MB", bytes as f64 / 1e6) }
}

/// Others whose word is enough to call the clock wrong.
const CLOCK_OWNERS: usize = 3;

fn clock(clock: &Clock) -> Finding {
    let next = "set the clock of this machine, best by NTP";
    // What others say now comes before what was written here by whatever clock
    // this machine had then.
    match &clock.others {
        // One or two may be wrong themselves.
        Some(ClockView { problem: Some(said), owners: ..CLOCK_OWNERS }) => {
            let next = "compare it with a clock that you trust, and set it if it is wrong";
            return finding("clock", Level::Amber, format!("it is {said}"), next);
        }
        Some(ClockView { problem: Some(said), .. }) => {
            return finding("clock", Level::Red, format!("it is {said}"), next);
        }
        Some(ClockView { problem: None, .. }) => {
            return finding("clock", Level::Green, "it agrees with what others sign", "");
        }
        None => {}
    }
    let off = clock.files_ahead_ms;
    if off > CLOCK_OFF_MS {
        let said = format!("it is {} behind the newest file of this node", span(off));
        return finding("clock", Level::Red, said, next);
    }
    let said = "nothing speaks against it; no other host was heard to compare";
    finding("clock", Level::Green, said, "")
}

fn span(ms: i64) -> String {
    let minutes = ms / 60_000;
    match minutes {
        0..120 => format!("{minutes} minutes"),
        120..2880 => format!("{} hours", minutes / 60),
        _ => format!("{} days", minutes / 1440),
    }
}

fn store(facts: &Facts) -> Finding {
    if let Some(problem) = &facts.store_problem {
        // It says itself what to do.
        return finding("store", Level::Red, problem, "");
    }
    match facts.damaged_stores {
        0 => finding("store", Level::Green, "nothing was damaged", ""),
        _ => finding(
            "store",
            Level::Amber,
            format!(
                "{} of what others said was damaged and moved aside; the mesh gives it back",
                count(facts.damaged_stores, "copy").replace("copys", "copies")
            ),
            "look at the disk if it happens again; store/replica.damaged-… may be deleted",
        ),
    }
}

fn port(name: &str, problem: Option<&str>) -> Finding {
    match problem {
        None => finding(name, Level::Green, "it is free", ""),
        Some(why) => {
            finding(name, Level::Red, why, "stop the other program, or choose another port")
        }
    }
}

fn peers(running: &Running) -> Finding {
    if running.listens == 0 {
        let next = "another program may have the port: homehost config set mesh.listen …";
        return finding("peers", Level::Red, "this node listens nowhere", next);
    }
    match running.peers {
        0 if running.has_bootstrap => finding(
            "peers",
            Level::Red,
            "none is connected, and nobody answers at the addresses to join",
            "look whether this machine is online, and ask for a newer homehost mesh invite",
        ),
        0 => finding(
            "peers",
            Level::Amber,
            "none is connected, and none is known to join",
            "ask somebody for a homehost mesh invite, and give it to homehost mesh join",
        ),
        n => {
            let hosts = count(n - running.bootstrap_peers.min(n), "host");
            let said = format!(
                "{hosts} and {} are connected",
                count(running.bootstrap_peers, "bootstrap node")
            );
            finding("peers", Level::Green, said, "")
        }
    }
}

fn network(running: &Running) -> Vec<Finding> {
    if running.local {
        let said = "this node listens on this machine alone";
        return vec![finding("network", Level::Amber, said, "homehost config set mesh.listen …")];
    }
    let Some(facts) = &running.network else { return Vec::new() };
    let mut findings = vec![nat(facts, running.peers)];
    if let Some(router) = router(facts) {
        findings.push(router);
    }
    findings.push(match (facts.ipv6.global, facts.ipv6.confirmed) {
        (true, true) => finding("ipv6", Level::Green, "others reach this node over IPv6", ""),
        (true, false) => finding(
            "ipv6",
            Level::Amber,
            "this machine has a global address; nobody was seen to get through to it",
            "let the router's firewall pass the port of the mesh to this machine",
        ),
        (false, _) => finding("ipv6", Level::Green, "there is none here; IPv4 does", ""),
    });
    findings
}

fn nat(facts: &NetworkFacts, peers: usize) -> Finding {
    let confirmed = facts.addresses.iter().any(|of| of.state == AddressState::Confirmed);
    let level = match facts.nat {
        NatKind::None | NatKind::Mapped => Level::Green,
        _ if confirmed => Level::Green,
        NatKind::Unknown if peers == 0 => Level::Amber,
        NatKind::Unknown | NatKind::Blocked | NatKind::EndpointIndependent => Level::Amber,
        NatKind::EndpointDependent | NatKind::Double => Level::Amber,
    };
    finding("nat", level, &facts.summary, "")
}

fn router(facts: &NetworkFacts) -> Option<Finding> {
    let router = facts.router.as_ref()?;
    if let Some(problem) = &router.problem {
        let next = "forward the ports by hand, or turn UPnP on in the router";
        return Some(finding("router", Level::Amber, problem, next));
    }
    let failed: Vec<_> = facts.mappings.iter().filter(|of| of.problem.is_some()).collect();
    if let Some(mapping) = failed.first() {
        let problem = mapping.problem.as_deref().unwrap_or_default();
        let said = format!("it does not forward {}: {problem}", mapping.name);
        return Some(finding("router", Level::Amber, said, "forward that port by hand"));
    }
    let forwards = facts.mappings.iter().filter(|of| of.external.is_some()).count();
    Some(match router.protocol {
        Some(_) if forwards > 0 => {
            finding("router", Level::Green, format!("it forwards {}", count(forwards, "port")), "")
        }
        Some(_) => finding("router", Level::Green, "it takes requests for ports", ""),
        None => finding(
            "router",
            Level::Amber,
            "it takes no requests for ports",
            "turn UPnP, NAT-PMP or PCP on in the router, or forward the ports by hand",
        ),
    })
}

fn server(server: &Server, reach: Option<&ServerReach>) -> Finding {
    let check = format!("server {}", server.name);
    let say = |level, said: String, next: &str| finding(&check, level, said, next);
    if let Some(problem) = &server.problem {
        let next = format!("homehost server logs {:?}", server.name);
        return say(Level::Red, problem.clone(), &next);
    }
    match server.state {
        ServerState::Crashed => {
            return say(Level::Red, "it crashed too often".into(), "homehost server start …");
        }
        ServerState::Backoff => {
            return say(Level::Amber, "it ended unasked and is started again".into(), "");
        }
        ServerState::Offline => return say(Level::Green, "it is not running".into(), ""),
        ServerState::Starting | ServerState::Stopping => {
            return say(Level::Green, format!("it is {}", server.state.word()), "");
        }
        ServerState::Running => {}
    }
    let asked = reach.map_or(0, |reach| reach.witnesses.len());
    let through =
        reach.map_or(0, |reach| reach.witnesses.iter().filter(|of| of.reached.is_some()).count());
    let summary = reach.map(|reach| reach.summary.clone()).unwrap_or_default();
    match (through, asked) {
        (0, 0) => say(Level::Amber, format!("it runs; {summary}"), ""),
        (0, _) => say(Level::Red, format!("it runs, but {summary}"), ""),
        _ => say(Level::Green, format!("it runs; {summary}"), ""),
    }
}

#[cfg(test)]
mod tests;
