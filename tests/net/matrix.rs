//! Every pair of homes: how two nodes reach each other, and what each says of
//! its own place in the network.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use homehost_tests::{Node, Test};
use serde_json::Value;

use crate::home::{Home, Internet, Kind};
use crate::mesh::Mesh;

/// Longest wait for two nodes to be connected in any way.
const CONNECTED: Duration = Duration::from_secs(120);

/// Longest wait for a relayed connection to become a direct one.
const DIRECT: Duration = Duration::from_secs(60);

/// Longest wait for a node to know its own place in the network.
const KNOWN: Duration = Duration::from_secs(120);

/// How often is looked.
const LOOK: Duration = Duration::from_millis(200);

/// Pairs at one time: each is four processes.
const AT_ONCE: usize = 2;

/// Pairs that differ in what they show.
const SOME: [(Kind, Kind); 10] = [
    (Kind::Open, Kind::PortRestricted),
    (Kind::Forwarded, Kind::Symmetric),
    (Kind::Upnp, Kind::Symmetric),
    (Kind::FullCone, Kind::Symmetric),
    (Kind::PortRestricted, Kind::PortRestricted),
    (Kind::PortRestricted, Kind::Symmetric),
    (Kind::Cgnat, Kind::PortRestricted),
    (Kind::Symmetric, Kind::Symmetric),
    (Kind::Firewall6, Kind::Firewall6),
    (Kind::Firewall6, Kind::PortRestricted),
];

/// How two nodes may reach each other at best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Theory {
    /// One of them, or both, can be dialled.
    Dial,
    /// Both have to dial at the same moment.
    Punch,
    /// Not at all.
    Relay,
}

/// What the rules of both routers allow.
fn theory(a: Kind, b: Kind) -> Theory {
    use Kind::{Firewall6, FullCone, Open, Symmetric};
    match (a, b) {
        // Nobody else here speaks IPv6.
        (Firewall6, Firewall6) => Theory::Punch,
        (Firewall6, Open) | (Open, Firewall6) => Theory::Dial,
        (Firewall6, _) | (_, Firewall6) => Theory::Relay,
        (a, b) if a.takes_strangers() || b.takes_strangers() => Theory::Dial,
        // Its mapping is kept by the connection to a bootstrap node.
        (FullCone, _) | (_, FullCone) => Theory::Dial,
        (Symmetric, _) | (_, Symmetric) => Theory::Relay,
        _ => Theory::Punch,
    }
}

/// What a node may say stands between it and the world (`nat`), when it knows.
fn diagnoses(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Open => &["none"],
        Kind::Forwarded | Kind::Upnp => &["mapped"],
        // As long as the mapping lasts, strangers do get through.
        Kind::FullCone => &["mapped", "endpoint-independent"],
        Kind::PortRestricted | Kind::Far | Kind::Slow => &["endpoint-independent"],
        // Nothing tells the two routers from one that does the same.
        Kind::Cgnat => &["endpoint-independent", "double"],
        Kind::Symmetric => &["endpoint-dependent"],
        // It has no address of IPv4 of which to speak.
        Kind::Firewall6 => &["unknown"],
    }
}

/// What came of one pair.
#[derive(Debug, Default)]
struct Outcome {
    /// `direct`, `hole-punched` or `relayed`; none when they never met.
    path: Option<String>,
    took: Duration,
    /// What must never be.
    wrong: Vec<String>,
    /// What a node does not know of itself, though it could.
    unknown: Vec<String>,
}

impl Outcome {
    fn is_direct(&self) -> bool {
        matches!(self.path.as_deref(), Some("direct" | "hole-punched"))
    }

    fn letter(&self) -> char {
        match self.path.as_deref() {
            Some("direct") => 'D',
            Some("hole-punched") => 'P',
            Some("relayed") => 'R',
            _ => '-',
        }
    }
}

/// How a node reaches another, if it does.
fn path(node: &Node<'_>, id: &str) -> Option<String> {
    let peers = node.get("/api/v1/peers").json();
    let peer = peers.as_array().into_iter().flatten().find(|peer| peer["node"] == id)?;
    peer["path"].as_str().map(str::to_owned)
}

/// Whether the world is said to reach a node that it does not reach.
fn false_public(kind: Kind, facts: &Value) -> Option<String> {
    if kind.takes_strangers() || kind == Kind::FullCone {
        return None;
    }
    let mut addresses = facts["addresses"].as_array().into_iter().flatten();
    let confirmed = addresses.any(|at| at["state"] == "confirmed" && at["source"] != "relay");
    let public = matches!(facts["nat"].as_str(), Some("none" | "mapped"));
    let ipv6 = facts["ipv6"]["confirmed"] == true;
    (confirmed || public || ipv6).then(|| format!("{kind} is called public: {facts}"))
}

fn pair(a: Kind, b: Kind) -> Outcome {
    let test = Test::new();
    let internet = Internet::new();
    let open: [Home; 2] = [(); 2].map(|()| internet.home(Kind::Open));
    let homes = [a, b].map(|kind| internet.home(kind));
    let mesh = Mesh::new(&test, &open.each_ref());
    let nodes = [mesh.node("a", homes[0].place()), mesh.node("b", homes[1].place())];
    let ids = [nodes[0].id(), nodes[1].id()];
    let begun = Instant::now();
    let mut outcome = Outcome::default();
    let mut public = BTreeMap::new();
    let mut facts = [Value::Null, Value::Null];
    loop {
        // The one that has the worse of it: a hole has two sides.
        let paths = [path(&nodes[0], &ids[1]), path(&nodes[1], &ids[0])];
        let seen = match paths {
            [Some(one), Some(other)] if one == "relayed" || other == "relayed" => Some("relayed"),
            [Some(one), Some(other)] if one == "hole-punched" || other == "hole-punched" => {
                Some("hole-punched")
            }
            [Some(_), Some(_)] => Some("direct"),
            _ => None,
        };
        if seen != outcome.path.as_deref() {
            outcome.path = seen.map(str::to_owned);
            outcome.took = begun.elapsed();
        }
        for ((facts, node), kind) in facts.iter_mut().zip(&nodes).zip([a, b]) {
            *facts = node.get("/api/v1/mesh/network").json();
            if let Some(why) = false_public(kind, facts) {
                public.entry(kind).or_insert(why);
            }
        }
        let known = [a, b].iter().zip(&facts).all(|(kind, facts)| {
            facts["nat"].as_str().is_some_and(|nat| diagnoses(*kind).contains(&nat))
        });
        let passed = begun.elapsed();
        let in_vain = passed > CONNECTED + DIRECT;
        let settled = match theory(a, b) {
            Theory::Dial => outcome.is_direct() || in_vain,
            // That it came through a hole is said a moment after it is there.
            Theory::Punch => outcome.is_direct() && passed > outcome.took + LOOK * 5 || in_vain,
            Theory::Relay => outcome.path.is_some() || passed > CONNECTED,
        };
        if settled && (known || passed > KNOWN) {
            break;
        }
        thread::sleep(LOOK);
    }
    for (kind, facts) in [a, b].into_iter().zip(&facts) {
        let nat = facts["nat"].as_str().unwrap_or_default();
        if !diagnoses(kind).contains(&nat) {
            outcome.unknown.push(format!("{kind} says {nat:?}: {facts}"));
        }
    }
    outcome.wrong.extend(public.into_values());
    match (&outcome.path, theory(a, b)) {
        (None, _) => outcome.wrong.push("they never met".to_owned()),
        (Some(_), Theory::Relay) if outcome.is_direct() => {
            outcome.wrong.push("the lab lets through what theory does not".to_owned());
        }
        _ => {}
    }
    outcome
}

/// Runs pairs, some at one time, each in a lab of its own.
fn run(pairs: &[(Kind, Kind)]) -> BTreeMap<(Kind, Kind), Outcome> {
    let (next, done) = (Mutex::new(pairs.iter().copied()), Mutex::new(BTreeMap::new()));
    let work = || {
        while let Some((a, b)) = { next.lock().expect("nobody panics with it").next() } {
            let name = format!("pair-{a}-{b}");
            let one = thread::Builder::new().name(name).spawn(move || pair(a, b));
            let outcome = one.expect("a thread can be made").join().unwrap_or_else(|_| Outcome {
                wrong: vec!["it failed; see above".to_owned()],
                ..Outcome::default()
            });
            println!("{a} and {b}: {} {:.1} s", outcome.letter(), outcome.took.as_secs_f64());
            done.lock().expect("nobody panics with it").insert((a, b), outcome);
        }
    };
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    done.into_inner().expect("nobody panics with it")
}

/// The matrix as a table of Markdown, and what is wrong with it.
fn table(kinds: &[Kind], outcomes: &BTreeMap<(Kind, Kind), Outcome>) -> String {
    let mut text = String::from("| |");
    let header: Vec<String> = kinds.iter().map(ToString::to_string).collect();
    let _ = writeln!(text, " {} |\n|---|{}", header.join(" | "), "---|".repeat(kinds.len()));
    for (row, a) in kinds.iter().enumerate() {
        let _ = write!(text, "| {a} |");
        for (column, b) in kinds.iter().enumerate() {
            let outcome = outcomes.get(&(*a, *b)).or_else(|| outcomes.get(&(*b, *a)));
            let cell = match outcome {
                Some(outcome) if column >= row => {
                    let less = theory(*a, *b) != Theory::Relay && !outcome.is_direct();
                    let mark = if less { "!" } else { "" };
                    format!("{}{mark} {:.1}", outcome.letter(), outcome.took.as_secs_f64())
                }
                _ => String::new(),
            };
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    text
}

/// Prints the matrix and holds it to the goals: of the pairs that can be direct
/// and of the nodes that can know their router, nine in ten; connected always;
/// and nobody is called public who is not.
fn judge(kinds: &[Kind], outcomes: &BTreeMap<(Kind, Kind), Outcome>) {
    println!("{}", table(kinds, outcomes));
    let could = outcomes.iter().filter(|((a, b), _)| theory(*a, *b) != Theory::Relay);
    let (could, are) = could.fold((0, 0), |(could, are), (_, outcome)| {
        (could + 1, are + usize::from(outcome.is_direct()))
    });
    let met = outcomes.values().filter(|outcome| outcome.path.is_some()).count();
    let nodes = 2 * outcomes.len();
    let know = nodes - outcomes.values().map(|outcome| outcome.unknown.len()).sum::<usize>();
    println!("direct: {are} of {could} pairs that can be; connected: {met} of {}", outcomes.len());
    println!("right about their own router: {know} of {nodes} nodes");
    let mut wrong = false;
    for ((a, b), outcome) in outcomes {
        for what in outcome.wrong.iter().chain(&outcome.unknown) {
            println!("{a} and {b}: {what}");
        }
        wrong |= !outcome.wrong.is_empty();
    }
    assert!(!wrong, "see above");
    assert!(are * 10 >= could * 9, "direct in {are} of {could} pairs");
    assert!(know * 10 >= nodes * 9, "{know} of {nodes} nodes know their router");
}

#[test]
fn pairs_of_homes_meet_as_well_as_their_routers_allow() {
    judge(&Kind::ALL, &run(&SOME));
}

#[test]
#[ignore = "takes a quarter of an hour: `cargo xtask prove --only net`"]
fn the_whole_matrix() {
    let mut pairs = Vec::new();
    for (n, a) in Kind::ALL.into_iter().enumerate() {
        pairs.extend(Kind::ALL.into_iter().skip(n).map(|b| (a, b)));
    }
    judge(&Kind::ALL, &run(&pairs));
}
