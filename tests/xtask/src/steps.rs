//! The steps. Packages are always selected as the whole workspace: another
//! selection would have other features and build dependencies again.

use crate::run::{Done, cargo, fail, is_root, run};
use crate::{setup, windows};

/// A step of `cargo xtask test` or `cargo xtask prove`.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) run: fn() -> Done,
}

/// All of them, what fails soonest first.
pub(crate) const STEPS: &[Step] = &[
    Step { name: "setup", about: "install what the tests need", run: setup::setup },
    Step { name: "fmt", about: "the code is formatted", run: fmt },
    Step { name: "clippy", about: "no warning is left", run: clippy },
    Step { name: "test", about: "unit tests, documentation, whole nodes", run: test },
    Step { name: "games", about: "real game servers", run: games },
    Step { name: "interop", about: "js-libp2p as a friend and as a foe", run: interop },
    Step { name: "machine", about: "full and read-only disks, a wrong clock", run: machine },
    Step { name: "net", about: "home routers, in namespaces", run: net },
    Step { name: "windows", about: "both programs on Windows, under Wine", run: windows::test },
    Step { name: "doc", about: "the documentation builds", run: doc },
];

/// All of `cargo xtask prove`, on release builds. Nothing is installed for it.
pub(crate) const PROOFS: &[Step] = &[
    Step { name: "core", about: "admission, search and reconciliation by themselves", run: core },
    Step { name: "mesh", about: "20 nodes in 20 processes: joins, gossip, lookups", run: mesh },
    Step { name: "flood", about: "one node among liars: 50,000 listings and worse", run: flood },
    Step { name: "bootstrap", about: "a bootstrap node with 2,000 connections", run: bootstrap },
    Step { name: "day", about: "a day without any bootstrap node, in minutes", run: day },
    Step {
        name: "net",
        about: "every pair of home routers, and what an idle node sends",
        run: nets,
    },
];

/// All of `cargo xtask windows`.
pub(crate) const WINDOWS: &[Step] = &[
    Step { name: "setup", about: "install the compiler", run: setup::cross },
    Step { name: "build", about: "build both programs for Windows", run: windows::build },
];

fn fmt() -> Done {
    run(&mut cargo("fmt --all --check"))
}

fn clippy() -> Done {
    run(&mut cargo("clippy --workspace --all-targets -- -D warnings"))?;
    run(&mut cargo(
        "clippy --workspace --test games --test interop --test machine --test windows --test net \
         -- -D warnings",
    ))
}

fn test() -> Done {
    run(&mut cargo("test --workspace --no-fail-fast"))
}

fn games() -> Done {
    run(&mut cargo("test --workspace --test games --no-fail-fast"))
}

fn interop() -> Done {
    run(&mut cargo("test --workspace --test interop --no-fail-fast"))
}

fn machine() -> Done {
    if !is_root() {
        return fail("these tests make file systems of their own: run this step as root");
    }
    run(&mut cargo("test --workspace --test machine --no-fail-fast"))
}

fn net() -> Done {
    need_namespaces()?;
    // Two at a time: each is a network of up to twelve processes.
    run(&mut cargo("test --workspace --test net --no-fail-fast -- --test-threads 2"))
}

fn need_namespaces() -> Done {
    if !cfg!(target_os = "linux") || !is_root() {
        return fail("home networks are namespaces of Linux: run this step there, as root");
    }
    Ok(())
}

fn doc() -> Done {
    let mut command = cargo("doc --workspace --no-deps --document-private-items");
    // Whoever reads these pages works on the code; private items are among them.
    run(command.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links"))
}

fn core() -> Done {
    run(&mut cargo("bench --workspace --bench directory"))
}

fn mesh() -> Done {
    prove("mesh::")
}

fn flood() -> Done {
    prove("flood::")
}

fn bootstrap() -> Done {
    prove("bootstrap::")
}

fn day() -> Done {
    setup::clock()?;
    let line = "test --workspace --release --test machine -- --ignored --nocapture";
    run(&mut cargo(line))
}

fn nets() -> Done {
    need_namespaces()?;
    setup::nets()?;
    let line = "test --workspace --release --test net -- --ignored --nocapture --test-threads 1";
    run(&mut cargo(line))
}

fn prove(what: &str) -> Done {
    let mut command = cargo("test --workspace --release --test prove --");
    run(command.args([what, "--ignored", "--nocapture", "--test-threads", "1"]))
}
