//! The unit for systemd: read as systemd would, because it does not run here.

#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Parser as _;
use homehost_bootstrap::Args;

type Unit = BTreeMap<String, BTreeMap<String, Vec<String>>>;

/// Sections, keys and all their values, in the order of the file.
fn parse(text: &str) -> Unit {
    let mut unit = Unit::new();
    let mut section = None;
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = Some(unit.entry(name.to_owned()).or_default());
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{line}"));
        assert!(!line.ends_with('\\'), "this parser knows no lines that go on: {line}");
        let key = key.trim().to_owned();
        section.as_mut().unwrap().entry(key).or_default().push(value.trim().to_owned());
    }
    unit
}

fn unit() -> Unit {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/homehost-bootstrap.service");
    parse(&std::fs::read_to_string(path).unwrap())
}

#[test]
fn it_starts_the_program_with_options_that_it_takes_and_a_folder_that_is_there() {
    let unit = unit();
    let service = &unit["Service"];
    let [command] = service["ExecStart"].as_slice() else { panic!("one command") };
    let args = Args::try_parse_from(command.split_whitespace()).unwrap();
    assert!(args.command.is_none());
    let folder = PathBuf::from("/var/lib").join(&service["StateDirectory"][0]);
    assert_eq!(args.data_dir, Some(folder));
    assert!(args.metrics.unwrap().ip().is_loopback() && !args.log_addresses);
    assert_eq!(unit["Install"]["WantedBy"], ["multi-user.target"]);
    assert_eq!(unit["Unit"]["After"], unit["Unit"]["Wants"]);
}

#[test]
fn it_has_room_for_all_connections_and_does_not_start_again_what_needs_a_person() {
    let unit = unit();
    let service = &unit["Service"];
    assert!(service["LimitNOFILE"][0].parse::<u32>().unwrap() > 2 * 2564);
    let codes: Vec<_> = service["RestartPreventExitStatus"][0].split(' ').collect();
    assert_eq!(codes, ["2", "5"]);
    assert_eq!(service["Restart"], ["on-failure"]);
}

#[test]
fn it_is_closed_to_the_rest_of_the_machine() {
    let unit = unit();
    let service = &unit["Service"];
    for key in [
        "DynamicUser",
        "NoNewPrivileges",
        "ProtectHome",
        "PrivateTmp",
        "PrivateDevices",
        "ProtectClock",
        "ProtectHostname",
        "ProtectControlGroups",
        "ProtectKernelLogs",
        "ProtectKernelModules",
        "ProtectKernelTunables",
        "RestrictNamespaces",
        "RestrictRealtime",
        "RestrictSUIDSGID",
        "LockPersonality",
        "MemoryDenyWriteExecute",
    ] {
        assert_eq!(service[key], ["yes"], "{key}");
    }
    assert_eq!(service["CapabilityBoundingSet"], [""]);
    assert_eq!(service["ProtectSystem"], ["strict"]);
    assert_eq!(service["StateDirectoryMode"], ["0700"]);
    // Interfaces that come and go are told over netlink.
    let families = &service["RestrictAddressFamilies"][0];
    assert!(["AF_INET", "AF_INET6", "AF_NETLINK"].iter().all(|family| families.contains(family)));
}
