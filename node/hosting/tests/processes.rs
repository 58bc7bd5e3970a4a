//! Real processes: shims, games, crashes, and daemons that come and go.
//!
//! This program is its own shim and its own games: called with a hidden
//! subcommand it is one of those, otherwise it runs the tests by name. Flags of
//! the usual harness that mean nothing here are ignored.

#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

#[path = "processes/bench.rs"]
mod bench;
#[path = "processes/games.rs"]
mod games;
#[path = "processes/lives.rs"]
mod lives;
#[cfg(unix)]
#[path = "processes/survival.rs"]
mod survival;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::Instant;

/// A test: its name and what it does.
type Test = (&'static str, fn());

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    args.next();
    match args.next().as_ref().and_then(|arg| arg.to_str()) {
        Some("__shim") => return homehost_hosting::shim_main(args),
        Some("__a2s-game") => return homehost_hosting::a2s_game_main(args),
        Some("__test-game") => return games::main(args),
        _ => {}
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let tests = [
        lives::TESTS,
        #[cfg(unix)]
        survival::TESTS,
    ]
    .concat();
    run(&args, &tests)
}

fn run(args: &[String], tests: &[Test]) -> ExitCode {
    let exact = args.iter().any(|arg| arg == "--exact");
    let (mut filters, mut skipped) = (Vec::new(), Vec::new());
    let mut words = args.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--skip" => skipped.extend(words.next()),
            flag if flag.starts_with('-') => {}
            _ => filters.push(word),
        }
    }
    let wanted = |name: &str| {
        if skipped.iter().any(|skip| name.contains(*skip)) {
            return false;
        }
        filters.is_empty()
            || filters
                .iter()
                .any(|filter| if exact { name == *filter } else { name.contains(*filter) })
    };
    let chosen: Vec<_> = tests.iter().filter(|(name, _)| wanted(name)).collect();
    if args.iter().any(|arg| arg == "--list") {
        chosen.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let mut failed = Vec::new();
    for (name, test) in &chosen {
        let begin = Instant::now();
        let passed = std::panic::catch_unwind(AssertUnwindSafe(test)).is_ok();
        let word = if passed { "ok" } else { "FAILED" };
        println!("test {name} ... {word} ({:.1} s)", begin.elapsed().as_secs_f32());
        if !passed {
            failed.push(*name);
        }
    }
    println!("{} passed, {} failed: {failed:?}", chosen.len() - failed.len(), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
