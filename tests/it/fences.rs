//! The fences between crates: one heavy dependency, one crate; and siblings
//! that do not know each other.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// A crate of this workspace, as its manifest has it.
struct Crate {
    folder: String,
    /// Dependencies of every kind but those of tests.
    uses: BTreeSet<String>,
    manifest: String,
}

fn crates() -> BTreeMap<String, Crate> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(homehost_tests::source_dir())
        .output()
        .expect("cargo can be run");
    assert!(output.status.success(), "{output:?}");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let root = metadata["workspace_root"].as_str().expect("a path");
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let manifest = package["manifest_path"].as_str().expect("a path");
            let folder = manifest.trim_end_matches("Cargo.toml").trim_start_matches(root);
            let folder = folder.replace('\\', "/").trim_matches('/').to_owned();
            let uses = package["dependencies"].as_array().expect("dependencies");
            let uses = uses.iter().filter(|dependency| dependency["kind"] != "dev");
            let uses = uses.filter_map(|dependency| dependency["name"].as_str());
            let uses = uses.map(str::to_owned).collect();
            let manifest = std::fs::read_to_string(manifest).expect("a manifest");
            let name = package["name"].as_str().expect("a name").to_owned();
            (name, Crate { folder, uses, manifest })
        })
        .collect()
}

#[test]
fn heavy_dependencies_stay_in_their_crates() {
    let fences: [(&str, &[&str]); 10] = [
        ("libp2p", &["homehost-mesh"]),
        ("sled", &["homehost-store"]),
        ("redb", &["homehost-store"]),
        ("gamedig", &["homehost-hosting"]),
        ("axum", &["homehost-dashboard", "homehost-bootstrap"]),
        ("ed25519-dalek", &["homehost-protocol"]),
        ("hyper", &["homehost", "homehost-dashboard"]),
        ("clap", &["homehost", "homehost-bootstrap"]),
        ("windows-sys", &["homehost-hosting", "homehost-runtime"]),
        (
            "rustix",
            &[
                "homehost",
                "homehost-hosting",
                "homehost-runtime",
                "homehost-store",
                "homehost-tests",
            ],
        ),
    ];
    for (dependency, allowed) in fences {
        let users = crates();
        let users: Vec<_> =
            users.iter().filter(|(_, user)| user.uses.contains(dependency)).collect();
        assert!(!users.is_empty(), "nobody uses {dependency}: remove it from this list");
        for (name, _) in users {
            assert!(allowed.contains(&name.as_str()), "{name} uses {dependency}");
        }
    }
}

#[test]
fn siblings_do_not_know_each_other() {
    let crates = crates();
    let own = |name: &str| -> BTreeSet<&str> {
        let uses = crates[name].uses.iter().map(String::as_str);
        uses.filter(|used| crates.contains_key(*used)).collect()
    };
    assert_eq!(own("homehost-protocol"), BTreeSet::new());
    assert_eq!(own("homehost-runtime"), BTreeSet::new());
    assert_eq!(own("homehost-api"), BTreeSet::from(["homehost-protocol"]));
    assert_eq!(own("homehost-dashboard"), BTreeSet::from(["homehost-api"]));
    let siblings = crates.iter().filter(|(_, one)| one.folder.starts_with("node/"));
    let common = ["homehost-runtime", "homehost-api", "homehost-protocol"];
    let mut seen = 0;
    for (name, _) in siblings.filter(|(name, _)| !common.contains(&name.as_str())) {
        for used in own(name) {
            assert!(common.contains(&used), "{name} uses {used}: join them in node/src/wire");
        }
        seen += 1;
    }
    assert!(seen >= 4, "mesh, store, directory and hosting are siblings");
    for used in own("homehost-bootstrap") {
        let allowed =
            ["homehost-mesh", "homehost-directory", "homehost-protocol", "homehost-runtime"];
        assert!(allowed.contains(&used), "the bootstrap node uses {used}");
    }
    assert_eq!(own("homehost-tests"), BTreeSet::new(), "tests use the programs as people do");
    assert!(crates["xtask"].uses.is_empty(), "cargo xtask is there before anything is fetched");
}

#[test]
fn what_peers_say_needs_no_runtime() {
    let crates = crates();
    for name in ["homehost-protocol", "homehost-api"] {
        for heavy in ["tokio", "libp2p", "axum", "anyhow"] {
            assert!(!crates[name].uses.contains(heavy), "{name} uses {heavy}");
        }
    }
}

#[test]
fn every_crate_has_the_lints_and_versions_of_the_workspace() {
    for (name, one) in crates() {
        let mut section = "";
        let mut lints = false;
        for line in one.manifest.lines().map(str::trim) {
            if line.starts_with('[') {
                section = line;
            } else if section == "[lints]" {
                lints |= line.replace(' ', "") == "workspace=true";
            } else if section.ends_with("dependencies]") && line.contains('=') {
                assert!(!line.starts_with('#') && line.contains("workspace"), "{name}: {line}");
            }
        }
        assert!(lints, "{name} does without the lints of the workspace");
    }
}

#[test]
fn a_folder_has_the_name_of_its_crate() {
    for (name, one) in crates() {
        let folder = one.folder.rsplit('/').next().expect("a last part");
        let expected = match name.as_str() {
            "homehost" => "node",
            "xtask" => "xtask",
            _ => name.strip_prefix("homehost-").expect("all of ours begin so"),
        };
        assert_eq!(folder, expected, "{name}");
    }
}
