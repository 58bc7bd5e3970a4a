//! `cargo xtask test`: everything that continuous integration runs, in order,
//! after installing what is missing or saying what to install. `cargo xtask
//! prove`: the long forms and measurements, which say something on a quiet
//! machine only. `cargo xtask windows`: both programs for Windows.
//!
//! It has no dependencies, so that it is there before anything is fetched.

mod run;
mod setup;
mod steps;
mod windows;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use run::Failed;
use steps::{PROOFS, STEPS, Step, WINDOWS};

/// What can be done, with its steps.
const VERBS: [(&str, &str, &[Step]); 3] = [
    ("test", "everything that continuous integration runs", STEPS),
    ("windows", "the programs for Windows, and where they are", WINDOWS),
    ("prove", "what takes minutes, and the figures", PROOFS),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let wanted_help = args.iter().any(|arg| matches!(arg.as_str(), "help" | "--help"));
    match selection(&args) {
        Ok((verb, steps, only)) if !wanted_help => run_all(verb, steps, &only),
        Err(problem) if !wanted_help => {
            eprintln!("error: {problem}\n");
            help();
            ExitCode::from(2)
        }
        _ => {
            help();
            ExitCode::SUCCESS
        }
    }
}

fn help() {
    for (verb, about, steps) in VERBS {
        println!("cargo xtask {verb}: {about}; stops at the first failure");
        println!("cargo xtask {verb} --only STEP: one step; may be repeated");
        for step in steps {
            println!("  {:8} {}", step.name, step.about);
        }
    }
}

type Selection<'a> = (&'static str, &'static [Step], Vec<&'a str>);

/// The verb and the steps that were named; none means all.
fn selection(args: &[String]) -> Result<Selection<'_>, String> {
    let mut args = args.iter().map(String::as_str);
    let verb = args.next().unwrap_or_default();
    let Some((verb, _, steps)) = VERBS.into_iter().find(|(name, ..)| *name == verb) else {
        return Err("say what to do".into());
    };
    let mut only = Vec::new();
    while let Some(arg) = args.next() {
        let name = match arg {
            "--only" => args.next().ok_or("--only needs a step")?,
            _ => return Err(format!("{arg:?} is not known")),
        };
        if steps.iter().all(|step| step.name != name) {
            return Err(format!("there is no step {name:?}"));
        }
        only.push(name);
    }
    Ok((verb, steps, only))
}

fn run_all(verb: &str, steps: &[Step], only: &[&str]) -> ExitCode {
    let mut done: Vec<(&str, Duration)> = Vec::new();
    let mut failed = None;
    for step in steps {
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
            eprintln!("\nerror: {name}: {why}\nagain: cargo xtask {verb} --only {name}");
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
            selection(&args).map(|(verb, _, only)| format!("{verb} {}", only.join(" ")))
        };
        assert_eq!(select("test").as_deref(), Ok("test "));
        assert_eq!(select("test --only fmt --only doc").as_deref(), Ok("test fmt doc"));
        assert_eq!(select("prove --only mesh").as_deref(), Ok("prove mesh"));
        for line in ["", "fly", "test fmt", "test --only", "test --only fly", "prove --only fmt"] {
            assert!(select(line).is_err(), "{line}");
        }
    }
}
