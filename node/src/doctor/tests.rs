//! Facts and what is to be said of them.

use homehost_api::{Ipv6, Router, Witness};

use super::*;

fn sound() -> Facts {
    Facts {
        identity: Some(Ok(identity_with(PhraseState::WithOwner))),
        disk: Disk { free: Some(50_000_000_000), ..Disk::default() },
        running: Some(Running {
            listens: 2,
            peers: 3,
            bootstrap_peers: 1,
            has_bootstrap: true,
            network: Some(NetworkFacts {
                nat: NatKind::Mapped,
                summary: "others reach it".into(),
                ipv6: Ipv6 { global: true, confirmed: true },
                ..NetworkFacts::default()
            }),
            ..Running::default()
        }),
        ..Facts::default()
    }
}

fn identity_with(phrase: PhraseState) -> Identity {
    serde_json::from_value(serde_json::json!({
        "node": "n", "root": "r", "device": 0, "key_epoch": 0, "network": null, "folder": "f",
        "key": "k", "ended": null, "devices": [], "events": 1, "phrase": phrase, "joining": null,
        "conflict": null,
    }))
    .unwrap()
}

fn game(state: ServerState) -> Server {
    serde_json::from_value(serde_json::json!({
        "id": "i", "name": "Sunday", "game": "luanti", "state": state, "since": "", "pid": null,
        "ports": {}, "players": null, "slots": null, "restarts": 0, "last_exit": null,
        "problem": null, "note": null, "addresses": [], "exec": [], "query": "luanti", "tags": [],
        "region": null, "folder": "",
    }))
    .unwrap()
}

fn reached(through: usize, of: usize) -> ServerReach {
    let witness = |n| Witness {
        node: String::new(),
        from: None,
        reached: (n < through).then(|| "8.8.8.8".to_owned()),
        players: None,
        problem: None,
    };
    ServerReach {
        id: "i".into(),
        name: "Sunday".into(),
        at: None,
        asked: None,
        witnesses: (0..of).map(witness).collect(),
        summary: format!("{through} of {of} got through"),
    }
}

#[test]
fn a_sound_node_is_green_throughout() {
    for finding in judge(&sound()) {
        assert_eq!((finding.level, &finding.next), (Level::Green, &None), "{finding:?}");
    }
}

#[test]
fn each_fault_is_named_with_its_level_and_the_next_step() {
    type Change = fn(&mut Facts);
    fn running(facts: &mut Facts) -> &mut Running {
        facts.running.as_mut().unwrap()
    }
    fn net(facts: &mut Facts) -> &mut NetworkFacts {
        running(facts).network.as_mut().unwrap()
    }
    let cases: &[(&str, Level, &str, Change)] = &[
        ("node", Level::Amber, "homehost up", |f| f.running = None),
        ("node", Level::Red, "end its process", |f| {
            f.running = None;
            f.silent = Some("refused".into());
        }),
        ("settings", Level::Amber, "config check", |f| f.settings = Some("config.toml:1".into())),
        ("settings", Level::Red, "config check", |f| {
            f.settings = Some("config.toml:1".into());
            f.running = None;
        }),
        ("identity", Level::Amber, "homehost up", |f| f.identity = None),
        ("identity", Level::Red, "restore", |f| f.identity = Some(Err("damaged".into()))),
        ("identity", Level::Amber, "recovery-phrase show", |f| {
            f.identity = Some(Ok(identity_with(PhraseState::NotYet)));
        }),
        ("identity", Level::Red, "homehost id", |f| {
            let mut identity = identity_with(PhraseState::WithOwner);
            identity.ended = Some("revoked".into());
            f.identity = Some(Ok(identity));
        }),
        ("identity", Level::Red, "homehost id", |f| {
            let mut identity = identity_with(PhraseState::WithOwner);
            identity.conflict = Some("denied".into());
            f.identity = Some(Ok(identity));
        }),
        ("disk", Level::Red, "writable", |f| f.disk.problem = Some("read-only".into())),
        ("disk", Level::Red, "--data-dir", |f| f.disk.in_the_way = Some("/srv/file".into())),
        ("store", Level::Red, "", |f| f.store_problem = Some("damaged".into())),
        ("disk", Level::Red, "saves are in danger", |f| f.disk.free = Some(1_000_000)),
        ("disk", Level::Amber, "soon", |f| f.disk.free = Some(1_000_000_000)),
        ("clock", Level::Red, "NTP", |f| f.clock.files_ahead_ms = 24 * 3_600_000),
        ("clock", Level::Red, "NTP", |f| {
            f.clock.others = Some(ClockView { problem: Some("3 hours behind".into()), owners: 3 });
        }),
        ("store", Level::Amber, "deleted", |f| f.damaged_stores = 2),
        ("mesh port", Level::Red, "another port", |f| {
            f.ports = vec![("mesh port".into(), Some("taken".into()))];
        }),
        ("peers", Level::Red, "mesh.listen", |f| running(f).listens = 0),
        ("peers", Level::Red, "mesh invite", |f| running(f).peers = 0),
        ("peers", Level::Amber, "mesh join", |f| {
            running(f).peers = 0;
            running(f).has_bootstrap = false;
        }),
        ("network", Level::Amber, "mesh.listen", |f| running(f).local = true),
        ("nat", Level::Amber, "", |f| net(f).nat = NatKind::Double),
        ("router", Level::Amber, "UPnP", |f| {
            net(f).router = Some(Router { protocol: None, external_ip: None, problem: None });
        }),
        ("router", Level::Amber, "by hand", |f| {
            let problem = Some("it refuses".to_owned());
            net(f).router = Some(Router { protocol: None, external_ip: None, problem });
        }),
        ("ipv6", Level::Amber, "firewall", |f| net(f).ipv6.confirmed = false),
        ("server Sunday", Level::Red, "server logs", |f| {
            let mut server = game(ServerState::Running);
            server.problem = Some("no such map".into());
            running(f).servers = vec![(server, None)];
        }),
        ("server Sunday", Level::Red, "server start", |f| {
            running(f).servers = vec![(game(ServerState::Crashed), None)];
        }),
        ("server Sunday", Level::Red, "", |f| {
            running(f).servers = vec![(game(ServerState::Running), Some(reached(0, 3)))];
        }),
        ("server Sunday", Level::Amber, "", |f| {
            running(f).servers = vec![(game(ServerState::Running), Some(reached(0, 0)))];
        }),
        ("server Sunday", Level::Green, "", |f| {
            running(f).servers = vec![(game(ServerState::Running), Some(reached(1, 3)))];
        }),
    ];
    for (check, level, next, change) in cases {
        let mut facts = sound();
        change(&mut facts);
        let findings = judge(&facts);
        let found = findings.iter().find(|finding| finding.check == *check);
        let found = found.unwrap_or_else(|| panic!("nothing of {check}: {findings:?}"));
        assert_eq!(found.level, *level, "{found:?}");
        let said = found.next.clone().unwrap_or_default();
        assert!(said.contains(next), "{next:?} in {found:?}");
        assert_eq!(worst(&findings).max(Level::Amber), (*level).max(Level::Amber), "{findings:?}");
    }
}

#[test]
fn the_clock_is_judged_by_what_others_say_now() {
    let right = Some(ClockView { problem: None, owners: 0 });
    let wrong = Some(ClockView { problem: Some("3 hours ahead of others".into()), owners: 3 });
    let doubtful = wrong.clone().map(|wrong| ClockView { owners: 2, ..wrong });
    let of = |others: &Option<ClockView>, hours: i64| {
        let clock = Clock { others: others.clone(), files_ahead_ms: hours * 3_600_000 };
        super::clock(&clock)
    };
    for (others, hours, level, word) in [
        (&None, 0, Level::Green, "no other host was heard"),
        (&None, 24, Level::Red, "24 hours behind the newest file"),
        // Its own files are of when it was wrong.
        (&right, 24, Level::Green, "agrees"),
        (&wrong, 0, Level::Red, "it is 3 hours ahead of others"),
        (&doubtful, 0, Level::Amber, "it is 3 hours ahead of others"),
    ] {
        let finding = of(others, hours);
        assert_eq!(finding.level, level, "{finding:?}");
        assert!(finding.said.contains(word), "{finding:?}");
    }
}
