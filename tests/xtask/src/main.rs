//! `cargo xtask test`: everything that continuous integration runs, in order,
//! after installing what is missing or saying what to install.
//!
//! It has no dependencies, so that it is there before anything is fetched.

mod run;
mod setup;
mod steps;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use run::Failed;
use steps::STEPS;

const HELP: &str = "\
cargo xtask test                 everything, in this order; stops at the first failure
cargo xtask test --only STEP     one step; may be repeated
steps:";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match selection(&args) {
        Ok(only) => test(&only),
        Err(problem) => {
            let wanted_help = matches!(args.first().map(String::as_str), Some("help" | "--help"));
            if !wanted_help {
                eprintln!("error: {problem}\n");
            }
            println!("{HELP}");
            for step in STEPS {
                println!("  {:8} {}", step.name, step.about);
            }
            if wanted_help { ExitCode::SUCCESS } else { ExitCode::from(2) }
        }
    }
}

/// The steps that were named; none means all.
fn selection(args: &[String]) -> Result<Vec<&str>, String> {
    let mut args = args.iter().map(String::as_str);
    if args.next() != Some("test") {
        return Err("say what to do".into());
    }
    let mut only = Vec::new();
    while let Some(arg) = args.next() {
        let name = match arg {
            "--only" => args.next().ok_or("--only needs a step")?,
            _ => return Err(format!("{arg:?} is not known")),
        };
        if STEPS.iter().all(|step| step.name != name) {
            return Err(format!("there is no step {name:?}"));
        }
        only.push(name);
    }
    Ok(only)
}

fn test(only: &[&str]) -> ExitCode {
    let mut done: Vec<(&str, Duration)> = Vec::new();
    let mut failed = None;
    for step in STEPS {
        if !only.is_empty() && !only.contains(&step.name) {
            continue;
        }
        println!("\n== {}: {}", step.name, step.about);
        let begun = Instant::now();
        let result = (step.run)();
        done.push((step.name, begun.elapsed()));
        if let Err(Failed(why)) = result {
            failed = Some((step.name, why));
            break;
        }
    }
    println!("\n== summary");
    for (name, time) in &done {
        let ok = failed.as_ref().is_none_or(|(failed, _)| failed != name);
        println!("  {name:8} {:4} s  {}", time.as_secs(), if ok { "ok" } else { "FAILED" });
    }
    let total: Duration = done.iter().map(|(_, time)| *time).sum();
    println!("  {:8} {:4} s", "total", total.as_secs());
    match failed {
        None => ExitCode::SUCCESS,
        Some((name, why)) => {
            eprintln!("\nerror: {name}: {why}\nagain: cargo xtask test --only {name}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_selected_by_name_and_others_refused() {
        let select = |line: &str| {
            let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            selection(&args).map(|only| only.join(" "))
        };
        assert_eq!(select("test").as_deref(), Ok(""));
        assert_eq!(select("test --only fmt --only doc").as_deref(), Ok("fmt doc"));
        for line in ["", "fly", "test fmt", "test --only", "test --only fly"] {
            assert!(select(line).is_err(), "{line}");
        }
    }
}
